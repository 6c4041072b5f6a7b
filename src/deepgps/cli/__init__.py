"""The command line: a table of commands in `deepgps.cli.app`, each of which imports its room when called."""


def main() -> None:
    """Run ``deepgps`` and end with its exit code."""
    import sys
    from io import TextIOWrapper

    from deepgps.cli.app import run

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a letter shows a question mark; no command fails for it.
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
