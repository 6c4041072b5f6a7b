"""How good the drawn images of a model are on published images of OpenCell, held out by protein.

HEK293T, the cells of the paper: contrast-stretched crops of few proteins, most of them in the centrosome or
on filaments. One image of those that could be, and the mean of all of them.

    python benchmarks/opencell_tiles.py [--model deepgps-mini] [--run runs/mini] [--out benchmarks/results]
"""

import tempfile
from pathlib import Path

from deepgps.bundle import Metric
from deepgps.datasets.labels import load_labelled_proteins
from deepgps.evaluation.evaluate import Evaluation
from deepgps.evaluation.images.measure import DRAWN
from deepgps.localization import class_set
from image_figures import arguments, cell, drawn_and_mean, keep, table
from stand_ins import paired_store

SOURCE = "opencell_tiles"
HEAD = "Held-out OpenCell images of 5 proteins"
MEASURES = {
    name: name for name in ("psnr", "ssim", "pearson", "intranuclear_r", "intranuclear_mae", "profile_error")
}
MASK = "own nuclear mask"


def page(drawn: Evaluation, mean: Evaluation) -> str:
    """The images beside what costs nothing, and what is to be known before anybody believes them."""
    assert drawn.images is not None and mean.images is not None
    bundle = drawn.predictor.bundle.metadata
    rows = {"mean image": mean.images.kinds[DRAWN], **drawn.images.kinds}
    notes = "\n".join(f"- {note}" for note in drawn.notes)
    effects = [cell(each.images.effects["sequence_effect"]) for each in (drawn, mean) if each.images]
    return f"""# Images on held-out crops of `{SOURCE}`

{bundle.name} {bundle.version}, `python benchmarks/opencell_tiles.py`, data range 1; 95 % bootstrap intervals
over proteins. What the figures mean: `docs/reference/metrics.md`.

{notes}

{table(rows, MEASURES)}

`sequence_effect` (Pearson r with the right protein less that with another class's): {effects[0]};
of mean images {effects[1]}.
"""


def quoted(done: Evaluation) -> dict[str, Metric]:
    """What the model card quotes; of mean images `opencell_halves.py` has more proteins."""
    assert done.images is not None
    head, kinds = HEAD, done.images.kinds
    return {
        f"{head}: Pearson r": kinds[DRAWN]["pearson"],
        f"{head}: Pearson r of the baseline '{MASK}'": kinds[MASK]["pearson"],
        f"{head}: intranuclear r": kinds[DRAWN]["intranuclear_r"],
        f"{head}: PSNR (dB)": kinds[DRAWN]["psnr"],
        f"{head}: PSNR (dB) of the baseline 'own mean'": kinds["own mean"]["psnr"],
        f"{head}: PSNR (dB) of the baseline '{MASK}'": kinds[MASK]["psnr"],
        f"{head}: sequence_effect": done.images.effects["sequence_effect"],
    }


def main() -> None:
    options = arguments(__doc__)
    classes = class_set("mini")
    proteins = load_labelled_proteins(options.data, classes)
    with tempfile.TemporaryDirectory() as folder:
        store = paired_store(options.run / "crops", Path(folder) / SOURCE, proteins, classes, SOURCE)
        drawn, mean = drawn_and_mean(options.model, store, options.report / SOURCE)
    keep(options.out, SOURCE, page(drawn, mean), quoted(drawn))


if __name__ == "__main__":
    main()
