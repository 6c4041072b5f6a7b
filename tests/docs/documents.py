"""The documents, taken apart. Run as a script, it writes what commands really print into them."""

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).parents[2]
SHIPPED_MODEL = ROOT / "src" / "deepgps" / "bundles" / "deepgps-mini"

_BLOCK = re.compile(r"(?:<!-- ([^>]+) -->\n)?```(\w*)\n(.*?)```\n", re.DOTALL)
_OUTPUT = re.compile(r"(<!-- output:(\w+) -->\n```text\n)(.*?)(```\n)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: the comment just before it, its language, its text."""

    mark: str
    language: str
    text: str


def documents() -> list[Path]:
    """All Markdown files of the project's own."""
    return sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def document(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    """Blocks in one language that are not marked `not run`."""
    found = (Block(*match) for match in _BLOCK.findall(text))
    return [block.text for block in found if block.language == language and "not run" not in block.mark]


# What stands behind `<!-- output:NAME -->`.
COMMANDS = {
    "predict": "deepgps predict example",
    "explain": "deepgps explain example --out why",
    "variants": next(
        script
        for script in blocks(document("docs/tutorials/why-and-mutations.md"), "sh")
        if "1-17del" in script
    ),
}


def section(text: str, heading: str) -> str:
    """What stands below a heading, down to the next of its level or above."""
    level = heading.partition(" ")[0]
    below = text.partition(f"\n{heading}\n")[2]
    assert below, f"there is no heading '{heading}'"
    return re.split(rf"\n#{{1,{len(level)}}} ", below)[0]


def rows(text: str) -> Iterator[list[str]]:
    """Cells of every table row, headers and rules left out."""
    for line in text.splitlines():
        if line.startswith("| `"):
            yield [cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def first_names(text: str) -> list[str]:
    """First code word of every table row."""
    return [row[0].split("`")[1] for row in rows(text)]


def relative_links(path: Path) -> list[Path]:
    """Files that a document links to."""
    prose = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    links = (link.partition("#")[0] for link in _LINK.findall(prose) if "://" not in link)
    return [(path.parent / link).resolve() for link in links if link]


def shell(script: str, folder: Path, models: Path | None = None) -> str:
    """Run a script as a reader would who has installed this deepGPS; return what it prints.

    Without ``models`` only the model in the package is there.
    """
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "DEEPGPS_MODELS": str(models or folder / "no-models"),
    }
    done = subprocess.run(
        ["bash", "-eu", "-c", script], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}{done.stderr}"
    return done.stdout


def outputs(text: str) -> dict[str, str]:
    """What a document says that commands print, by name."""
    return {name: body for _, name, body, _ in _OUTPUT.findall(text)}


def printed(name: str) -> str:
    """Run the command behind a name with the model in the package."""
    with tempfile.TemporaryDirectory() as folder:
        return shell(COMMANDS[name], Path(folder))


def draw_demo(path: Path) -> None:
    """Draw the README's image: a cytoplasmic and a nuclear protein of the examples in the same nucleus."""
    with tempfile.TemporaryDirectory() as folder:
        shell("deepgps predict example --out demo", Path(folder))
        panels = [
            Image.open(Path(folder) / "demo" / "images" / f"{name}.png")
            for name in ("NPM1", "CALR", "COX4I1")
        ]
        whole = Image.new("RGB", (panels[0].width, sum(panel.height for panel in panels)))
        for number, panel in enumerate(panels):
            whole.paste(panel, (0, number * panel.height))
    path.parent.mkdir(exist_ok=True)
    whole.save(path, optimize=True)


def main() -> None:
    """Write every output and the README's image anew."""
    if not SHIPPED_MODEL.exists():
        sys.exit(f"There is no model in the package to run the commands with ('{SHIPPED_MODEL}').")
    for path in documents():
        text = path.read_text(encoding="utf-8")
        filled = _OUTPUT.sub(lambda found: found[1] + printed(found[2]) + found[4], text)
        if filled != text:
            path.write_text(filled, encoding="utf-8")
            print(path.relative_to(ROOT))
    draw_demo(ROOT / "docs" / "images" / "demo.png")


if __name__ == "__main__":
    main()
