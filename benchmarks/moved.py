"""The figures of ``make bench`` at rest: as JSON, as tables of a page, and held against the last ones."""

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "bench.json"
PAGE = ROOT / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- begin: make bench -->\n", "<!-- end: make bench -->\n"
SLACK = 0.05
"""What a ratio may change by, whatever its spread was: a few samples tell little of it."""

Document = dict[str, Any]


def ratio(samples: Sequence[float], what: str, aim: str = "") -> Document:
    """Sum up what pairs of measurements gave, each pair taken at once."""
    middle = statistics.median(samples)
    return {"median": middle, "low": min(samples), "high": max(samples), "what": what, "aim": aim}


def moved(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which ratios lie beyond the noise of both runs: ranges that do not meet, with `SLACK` on each side.

    Parameters
    ----------
    earlier, now
        Ratios by name, as `ratio` makes them.
    """
    said = []
    for name in sorted({*earlier, *now}):
        if name not in earlier or name not in now:
            said.append(f"{name}: {'not measured now' if name in earlier else 'measured for the first time'}")
            continue
        old, new = earlier[name], now[name]
        apart = (
            new["low"] > old["high"] * (1 + SLACK),
            new["high"] < old["low"] * (1 - SLACK),
        )
        if any(apart):
            change = new["median"] / old["median"] - 1
            said.append(f"{name}: {old['median']:.3g} → {new['median']:.3g} ({change:+.0%})")
    return said


def written(document: Mapping[str, Any], results: Path = RESULTS, page: Path = PAGE) -> None:
    """Keep figures as the ones that later runs are held against, and show them on the page."""
    results.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}{tables(document)}{END}{after}", encoding="utf-8")


def tables(document: Mapping[str, Any]) -> str:
    """Show figures as Markdown."""
    return "\n".join(_lines(document)) + "\n"


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    yield f"{document['machine']}\n"
    yield from ("| peak of one core, GFLOP/s | matrices | convolution |", "|---|---|---|")
    for precision, rates in document["peaks"].items():
        yield f"| {precision} | {rates['matrices']:,.0f} | {rates['convolution']:,.0f} |"
    yield ""
    yield "| graph | GFLOP | MB moved | of the nucleus alone | floor in float32 | in bfloat16 |"
    yield "|---|---|---|---|---|---|"
    for name, cost in document["costs"].items():
        floors = " | ".join(_milliseconds(cost["floors"].get(each)) for each in ("float32", "bfloat16"))
        yield (f"| {name} | {cost['gflop']:.3g} | {cost['mb']:.0f} | {cost['of_nucleus']:.0%} | {floors} |")
    yield from ("", "| ratio | median | lowest to highest | aim |", "|---|---|---|---|")
    for each in document["ratios"].values():
        span = f"{each['low']:.3g} to {each['high']:.3g}"
        yield f"| {each['what']} | {each['median']:.3g} | {span} | {each['aim']} |"
    yield from ("", "| on this machine, in this run | | aim |", "|---|---|---|")
    for name, (value, aim) in document["rates"].items():
        yield f"| {name} | {value} | {aim} |"


def _milliseconds(value: float | None) -> str:
    return "–" if value is None else f"{1000 * value:.3g} ms"
