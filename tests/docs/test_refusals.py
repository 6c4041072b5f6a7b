"""Every sentence that a user may be told is documented, and every documented one may be told."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from documents import ROOT, document


def template(node: ast.AST) -> str | None:
    """A string in the source with its gaps as NUL; None for anything else."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "\0" for part in node.values)
    return None


def templates(path: Path) -> Iterator[str]:
    """Every string of a module that is neither a docstring nor part of another."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    inner = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    inner -= {id(node) for node in nodes if isinstance(node, ast.JoinedStr)}
    inner |= {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    for node in nodes:
        if id(node) not in inner and (text := template(node)):
            yield text


# What is no user's input: a damaged bundle, a disk, a programmer's mistake.
NO_INPUT = {"neighbours.py", "write.py", "windows.py", "features.py"}


SPOKEN = {
    "inputs.md": (
        *("proteins/[!e]*.py", "images/*.py", "prediction/*.py"),
        *("runtime.py", "cli/predict.py"),
    ),
    "datasets.md": ("datasets/annotation/*.py", "datasets/splits.py"),
    "fetching.md": ("cli/fetch.py", "datasets/fetch/*.py"),
    "crops.md": (
        "cli/prepare.py",
        "parallel.py",
        *(f"datasets/crops/{name}.py" for name in ("fields", "cutting", "store", "prepare")),
    ),
    "embeddings.md": (
        *("proteins/embedding.py", "models/esm2.py", "cli/embed.py"),
        *("training/encoders.py", "training/embedding.py"),
    ),
    "recipes.md": (
        *("training/recipe.py", "training/finetune.py"),
        *("training/joint/data.py", "training/joint/protein_inputs.py"),
    ),
    "runs.md": (
        *("training/loop.py", "training/log.py", "training/run_folder.py"),
        *("training/joint/train.py", "training/mini/labels.py"),
    ),
    "metrics.md": (
        *("evaluation/label_metrics.py", "evaluation/labelled_predictions.py"),
        *("evaluation/peers/*.py", "cli/compare.py"),
    ),
    "evaluation.md": (
        *(f"evaluation/{name}.py" for name in ("dataset", "labels", "evaluate", "cross")),
        *(f"evaluation/images/{name}.py" for name in ("reference", "measure")),
        "cli/evaluate.py",
    ),
    "files.md": ("results/*.py", "files.py", "comparison/*.py", "cli/compare_cells.py"),
}


def sentences() -> list[tuple[str, str]]:
    """All that the rooms of the input and of the results say to a user, and the page that should tell it."""
    found = set()
    for page, patterns in SPOKEN.items():
        for path in (path for pattern in patterns for path in ROOT.glob(f"src/deepgps/{pattern}")):
            for text in () if path.name in NO_INPUT else templates(path):
                notes = path.name == "check.py" and len(text) > 25
                if " " in text and (text.endswith(".") or notes) and not text.startswith("Bundle"):
                    found.add((page, text))
    return sorted(found)


def pattern(sentence: str) -> str:
    """What a sentence is in an example; one that begins with a gap may go on from another."""
    return "[^\n`]*?".join(re.escape(part) for part in sentence.split("\0"))


@pytest.mark.parametrize("pattern", sorted({each for patterns in SPOKEN.values() for each in patterns}))
def test_every_pattern_finds_a_module(pattern):
    assert list(ROOT.glob(f"src/deepgps/{pattern}"))


def test_sentences_are_found():
    assert len(sentences()) > 50
    assert ("inputs.md", "'-' (stdin) is given twice; it can be read once.") in sentences()


@pytest.mark.parametrize(("page", "sentence"), sentences(), ids=lambda text: text.replace("\0", "…")[:40])
def test_every_refusal_and_warning_is_documented(page, sentence):
    assert re.search(pattern(sentence), document(f"docs/reference/{page}")), sentence.replace("\0", "…")


@pytest.mark.parametrize("page", SPOKEN)
def test_every_documented_refusal_and_warning_is_said(page):
    patterns = [pattern(sentence) for of, sentence in sentences() if of == page]
    quoted = re.findall(r"^- `(.+?)`", document(f"docs/reference/{page}"), re.M)
    quoted = [text for text in quoted if " " in text]
    assert len(quoted) > 4
    assert [text for text in quoted if not any(re.search(each, text) for each in patterns)] == []
