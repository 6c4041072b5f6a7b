"""Render templates into self-contained HTML pages."""

import math
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deepgps.files import atomic_path

if TYPE_CHECKING:
    from jinja2 import Environment


def write_page(path: Path, template: str, **context: Any) -> Path:
    """Write a page, whole or not at all.

    The page is streamed: iterators in the context are read as they are rendered.

    Parameters
    ----------
    path
        The file to write.
    template
        Name of a template in ``deepgps/reporting/templates``.
    **context
        Values for the template. Text is escaped; charts are not.

    Returns
    -------
    pathlib.Path
        ``path``.
    """
    pieces = _environment().get_template(template).generate(context)
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", errors="replace") as page:
        page.writelines(pieces)
    return path


def yes_no(answer: bool | None) -> str:
    """Return ``yes``, ``no``, or nothing where there is no answer."""
    return "" if answer is None else "yes" if answer else "no"


@cache
def _environment() -> "Environment":
    # Imported here, so that a prediction does not wait for it at its start.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from deepgps.localization import display_name
    from deepgps.reporting.charts import bar

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.globals["bar"] = bar
    environment.filters |= {"number": _number, "yes_no": yes_no, "display_name": display_name}
    environment.tests["finite"] = _is_finite
    return environment


def _number(value: float | None, digits: int = 2, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}" if value is not None and _is_finite(value) else ""


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
