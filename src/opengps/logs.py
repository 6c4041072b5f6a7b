"""Logs that tell where an error was and of what kind, and nothing that a visitor sent."""

import logging
import traceback
from copy import copy
from types import TracebackType

_FORMAT = "%(asctime)s %(name)s %(message)s"
_Told = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class Discreet(logging.Formatter):
    """Shows an exception's place and kind; its words may hold a sequence."""

    def format(self, record: logging.LogRecord) -> str:
        """Render a record, as if no other formatter had been at it: what one has rendered is kept."""
        record = copy(record)
        record.exc_text = None
        return super().format(record)

    def formatException(self, ei: _Told) -> str:  # noqa: N802
        """Render an exception, and what it came from, each without its words."""
        error, told = ei[1], list[str]()
        while error is not None:
            places = "".join(traceback.format_tb(error.__traceback__))
            told.append(f"{places}{type(error).__name__}")
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(reversed(told))


def set_up_logs() -> None:
    """Let this process log warnings and errors to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(Discreet(_FORMAT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
