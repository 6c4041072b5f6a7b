"""The figures of ``make bench``: collected and printed, compared with the recorded ones, and recorded.

The recorded figures are `benchmarks/results/bench.json`; `docs/explanation/performance.md` shows them as
tables.
"""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RECORDED = ROOT / "benchmarks" / "results" / "bench.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- begin: make bench -->\n", "<!-- end: make bench -->\n"
TOLERANCE = 0.05
"""Relative change of a ratio that never counts: a few samples do not show its whole spread."""

Document = dict[str, Any]


class Figures:
    """Measured figures, printed as they are added.

    Attributes
    ----------
    ratios
        By name, as `summarize` returns them.
    rates
        By description: what was measured, and what was aimed at.
    """

    def __init__(self) -> None:
        self.ratios: dict[str, Document] = {}
        self.rates: dict[str, tuple[str, str]] = {}

    def add_rate(self, description: str, measured: str, aim: str = "") -> None:
        """Add a figure in units of this machine: seconds, proteins per second, MiB."""
        self.rates[description] = measured, aim
        print(f"{description:<60}{measured:>20}   {aim and 'aim: ' + aim}", flush=True)

    def add_ratio(self, name: str, description: str, samples: Sequence[float], aim: str = "") -> None:
        """Add a ratio, with one sample per round."""
        self.ratios[name] = summarize(samples, description, aim)
        span = f"({min(samples):.3g} to {max(samples):.3g})"
        median = f"{statistics.median(samples):.3g}"
        print(f"{description:<60}{median:>20}   {span}{aim and ', aim: ' + aim}", flush=True)


def summarize(samples: Sequence[float], description: str, aim: str = "") -> Document:
    """Return median, lowest and highest of the samples of a ratio."""
    return {
        "median": statistics.median(samples),
        "low": min(samples),
        "high": max(samples),
        "description": description,
        "aim": aim,
    }


def changed_ratios(before: Mapping[str, Document], after: Mapping[str, Document]) -> list[str]:
    """Describe the ratios whose ranges in two runs do not overlap, with `TOLERANCE` on each side.

    Parameters
    ----------
    before, after
        Ratios by name, as `summarize` returns them.

    Returns
    -------
    list of str
        One line for each changed, missing or new ratio.
    """
    lines = []
    for name in sorted({*before, *after}):
        if name not in before or name not in after:
            lines.append(f"{name}: {'no longer measured' if name in before else 'new'}")
            continue
        old, new = before[name], after[name]
        slower = new["low"] > old["high"] * (1 + TOLERANCE)
        faster = new["high"] < old["low"] * (1 - TOLERANCE)
        if slower or faster:
            change = new["median"] / old["median"] - 1
            lines.append(f"{name}: {old['median']:.3g} → {new['median']:.3g} ({change:+.0%})")
    return lines


def record(document: Document, recorded: Path = RECORDED, page: Path = PAGE) -> None:
    """Write figures as the ones that later runs are compared with, and into the page."""
    recorded.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}{tables(document)}{END}{after}", encoding="utf-8")


def tables(document: Document) -> str:
    """Format figures as Markdown tables."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Document) -> Iterator[str]:
    yield f"{document['machine']}\n"
    yield from ("| peak of one core, GFLOP/s | matrices | convolution |", "|---|---|---|")
    for precision, rates in document["peaks"].items():
        yield f"| {precision} | {rates['matrices']:,.0f} | {rates['convolution']:,.0f} |"
    yield ""
    yield "| graph | GFLOP | MB read and written | of the nucleus alone | shortest time, float32 | bfloat16 |"
    yield "|---|---|---|---|---|---|"
    for name, cost in document["costs"].items():
        shortest = (_milliseconds(cost["shortest_s"].get(each)) for each in ("float32", "bfloat16"))
        yield (
            f"| {name} | {cost['gflop']:.3g} | {cost['mb']:.0f} | {cost['nucleus_share']:.0%} | "
            f"{' | '.join(shortest)} |"
        )
    yield from ("", "| ratio | median | lowest to highest | aim |", "|---|---|---|---|")
    for each in document["ratios"].values():
        span = f"{each['low']:.3g} to {each['high']:.3g}"
        yield f"| {each['description']} | {each['median']:.3g} | {span} | {each['aim']} |"
    yield from ("", "| on this machine, in this run | | aim |", "|---|---|---|")
    for name, (value, aim) in document["rates"].items():
        yield f"| {name} | {value} | {aim} |"


def _milliseconds(seconds: float | None) -> str:
    return "–" if seconds is None else f"{1000 * seconds:.3g} ms"
