"""The command line: a table of commands in `deepgps.cli.app`, each of which imports its room when called."""


def main() -> None:
    """Run ``deepgps`` and end with its exit code."""
    import sys

    from deepgps.cli.app import run

    sys.exit(run(sys.argv[1:]))
