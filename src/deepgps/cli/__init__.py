"""The command line: a table of commands in `deepgps.cli.app`, each of which imports its room when called."""

from collections.abc import Callable, Sequence


def main() -> None:
    """Run ``deepgps`` and end with its exit code."""
    from deepgps.cli.app import run

    _end_with(run)


def main_opengps() -> None:
    """Run ``opengps`` and end with its exit code."""
    from deepgps.cli.app import run_app
    from deepgps.cli.opengps import app

    _end_with(lambda tokens: run_app(app, tokens))


def _end_with(run: Callable[[Sequence[str]], int]) -> None:
    import os
    import sys
    from io import TextIOWrapper

    # A service or pythonw may have neither; what is printed then goes nowhere.
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # A terminal that cannot show a letter shows a question mark; no command fails for it.
            stream.reconfigure(errors="replace")
    sys.exit(run(sys.argv[1:]))
