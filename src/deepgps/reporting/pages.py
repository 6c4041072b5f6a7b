"""Render templates into self-contained HTML pages."""

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from deepgps.files import atomic_path

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"


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
    pieces = environment().get_template(template).generate(context)
    with atomic_path(path) as draft, draft.open("w", encoding="utf-8", errors="replace") as page:
        page.writelines(pieces)
    return path


def yes_no(answer: bool | None) -> str:
    """Return ``yes``, ``no``, or nothing where there is no answer."""
    return "" if answer is None else "yes" if answer else "no"


def source_link(source: str, known: Mapping[str, Any]) -> str:
    """Return the address of what a source says of a known protein.

    Parameters
    ----------
    source
        As in `deepgps.proteins.known.Statement`.
    known
        The known protein, as in `deepgps.results.records.Known`.

    Returns
    -------
    str
        The address; empty where there is no page.
    """
    accession, symbol = quote(known["accession"]), quote(known["gene_symbol"] or "")
    if source == "UniProt":
        return f"https://www.uniprot.org/uniprotkb/{accession}#subcellular_location"
    if source == "HPA" and symbol:
        return f"https://www.proteinatlas.org/search/{symbol}"
    return "https://opencell.czbiohub.org" if source == "OpenCell" else ""


@cache
def environment(templates: Path = TEMPLATES) -> "Environment":
    """Return an environment of templates: text is escaped, and a missing value is an error.

    Parameters
    ----------
    templates
        Folder of the templates.

    Returns
    -------
    jinja2.Environment
        With the charts and filters that pages share.
    """
    # Imported here, so that a prediction does not wait for it at its start.
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    from deepgps.localization import display_name
    from deepgps.reporting.charts import bar

    found = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    found.globals["bar"] = bar
    found.filters |= {"number": _number, "yes_no": yes_no, "display_name": display_name}
    found.tests["finite"] = _is_finite
    return found


def _number(value: float | None, digits: int = 2, sign: str = "") -> str:
    return f"{value:{sign}.{digits}f}" if value is not None and _is_finite(value) else ""


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
