"""Run the tutorial on training, how to evaluate and how to reproduce the paper, in a folder.

ESM2 has random weights and few of them, networks are narrow and train for three epochs: what comes out has
seen every step and knows little. Nuclei are real where the real data is there, else drawn.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from documents import ROOT, blocks, document

sys.path.insert(0, str(ROOT / "tests"))

from fake_sources import serving
from tiny_models import write_tiny_esm2

ENCODER = "esm2_t33_650M_UR50D"
SMALL = {
    "model.widths": "[16,32,64]",
    "model.fold": "4",
    "model.latent_dim": "32",
    "training.max_epochs": "3",
    "training.batch_size": "16",
    "protein.structure_points": "64",
}


def commands(encoder: Path, small: Mapping[str, str] = SMALL) -> Iterator[str]:
    """Commands of the tutorial, with the small encoder and small networks in place of the real ones."""
    settings = {**small, "protein.encoder": str(encoder)}
    added = " ".join(f"--set '{key}={value}'" for key, value in settings.items())
    for script in blocks(document("docs/tutorials/train-on-crops.md"), "sh"):
        for line in script.splitlines():
            command = line.replace(ENCODER, f"'{encoder}'")
            yield f"{command} {added}" if line.startswith("deepgps train") else command
    how_to = document("docs/how-to/evaluate.md")
    for script in (*blocks(how_to, "sh"), *blocks(document("docs/how-to/reproduce-the-paper.md"), "sh")):
        yield from script.splitlines()
    for code in blocks(how_to, "python"):
        yield f"python - <<'END'\n{code}END"


def main() -> int:
    folder = Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ.get("DEEPGPS_SHARED_DATA", ROOT.parent / "shared" / "data"))
    print(f"Nuclei: {f'real ones, from {data}' if data.is_dir() else 'drawn'}")
    encoder = write_tiny_esm2(folder / "tiny_esm2")
    own = {"DEEPGPS_ENCODERS": str(folder / "encoders"), "DEEPGPS_CACHE": str(folder / "cache")}
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with serving(data) as sources:
        # Two threads on cores that others use as well wait for each other more than they compute.
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **sources.environment, **own, "PATH": tools}
        for command in commands(encoder):
            print(f"\n$ {command}", flush=True)
            start = time.monotonic()
            if code := subprocess.run(["bash", "-c", command], cwd=folder, env=environment).returncode:
                return code
            print(f"({time.monotonic() - start:.1f} s)")
    print(f"\nAll is in {folder}; look at runs/single-2/report.html and results/single-2/report.html.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
