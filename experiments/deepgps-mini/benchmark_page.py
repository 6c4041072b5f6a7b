"""Tables of the page on the public benchmark, from ``figures.json``.

    python experiments/deepgps-mini/benchmark_page.py

prints our rows and those of other tools, and writes them into ``docs/explanation/benchmark.md``; nothing is
trained. The values of other tools are published ones.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from deepgps.bundle import Metric
from figures import metric_text, read_figures

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "benchmark.md"
LEVELS = {3: "seven classes", 2: "nine classes", 1: "21 classes"}
"""Levels of `hou_test`, and their names in the figures."""
PUBLISHED = {
    "LAProtT5": (0.653, 0.584, 0.383),
    "DeepLoc 2, ESM1": (0.642, 0.581, 0.339),
    "DeepLoc 2, ProtT5": (0.642, 0.569, 0.328),
    "MULocDeep": (0.601, 0.550, 0.304),
}
"""Macro-F1 at the three levels."""
OPENCELL = (
    ("OpenCell, cytoplasmic or nucleoplasm", "AUROC", "k-mer index alone"),
    ("OpenCell, cytoplasmic or nucleoplasm", "accuracy", "majority class"),
    ("OpenCell, four classes", "accuracy", "majority class"),
    ("OpenCell, four classes", "macro-F1", "majority class"),
)
LINES = ("HEK293T", "U-2 OS")
IMAGES = (
    ("images", "read-back, balanced accuracy"),
    ("images", "read-back, five classes"),
    ("images", "kernel distance"),
    ("mean images", "Pearson r"),
    ("mean images", "intranuclear r"),
)
BESIDE = ("real images", "deepgps-mini 0.4")

Figures = Mapping[str, Metric]


def hou_test(figures: Figures) -> list[tuple[str, ...]]:
    """Rows of macro-F1 by level; a level that was not measured says so."""
    rows = [(f"{name} (published)", *(f"{value:.3f}" for value in each)) for name, each in PUBLISHED.items()]
    for protocol in "BA":
        names = [f"Public benchmark, {level}, {protocol}: macro-F1" for level in LEVELS.values()]
        rows.append((f"**deepgps-mini**, {protocol}", *(_text(figures.get(name)) for name in names)))
    names = [f"Public benchmark, {level}, B: macro-F1{_of('class prior')}" for level in LEVELS.values()]
    return [*rows, ("class prior", *(_text(figures.get(name)) for name in names))]


def opencell(figures: Figures) -> list[tuple[str, ...]]:
    """Rows of protocols B and A, and the best baseline."""
    return [
        (
            f"{subject.removeprefix('OpenCell, ')}: {name}",
            f"{figures[f'{subject}, B: {name}'].n}",
            *(_text(figures.get(f"{subject}, {protocol}: {name}")) for protocol in "BA"),
            f"{baseline} {_text(figures.get(f'{subject}, B: {name}{_of(baseline)}'))}",
        )
        for subject, name, baseline in OPENCELL
    ]


def images(figures: Figures) -> list[tuple[str, ...]]:
    """Rows of each cell line: ours, real images, and the version before."""
    return [
        (
            f"{line} {subject}: {name}",
            *(
                metric_text(figures.get(f"{line} {subject}: {name}{baseline}"))
                for baseline in ("", *map(_of, BESIDE))
            ),
        )
        for subject, name in IMAGES
        for line in LINES
    ]


def _of(baseline: str) -> str:
    return f" of the baseline '{baseline}'"


def _text(metric: Metric | None) -> str:
    return "not measured" if metric is None else metric_text(metric)


TABLES = {
    "hou_test": (("macro-F1", "level 3", "level 2", "level 1"), hou_test),
    "opencell": (("", "proteins", "B", "A", "baseline, B"), opencell),
    "images": (("", "deepgps-mini", "real images", "0.4"), images),
}
"""Head and rows of each table of the page."""


def markdown(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Format a table as Markdown."""
    head = tuple(head)
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ("---",) * len(head), *rows))


def with_tables(text: str, figures: Figures) -> str:
    """Return the page with its tables, each between two comments of its name, written anew."""
    for name, (head, rows) in TABLES.items():
        marks = rf"(<!-- table: {name} -->\n).*?(<!-- /table -->)"
        places = list(re.finditer(marks, text, flags=re.S))
        if len(places) != 1:
            raise ValueError(f"the page has {len(places)} places for the table '{name}'; it needs one.")
        [place] = places
        table = f"{place[1]}{markdown(head, rows(figures))}\n{place[2]}"
        text = text[: place.start()] + table + text[place.end() :]
    return text


def main() -> None:
    """Print the tables and write them into the page."""
    figures = {**read_figures(), **read_figures(on_card=False)}
    for name, (head, rows) in TABLES.items():
        print(f"\n{name}\n\n{markdown(head, rows(figures))}")
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), figures), encoding="utf-8")


if __name__ == "__main__":
    main()
