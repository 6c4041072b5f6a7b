"""Measure the shipped model and write its figures into ``figures.json``.

    python experiments/deepgps-mini/measure.py labels
    python experiments/deepgps-mini/measure.py benchmark
    python experiments/deepgps-mini/measure.py images --model runs/deepgps-mini --run runs/mini
    python experiments/deepgps-mini/measure.py opencell --model runs/deepgps-mini --run runs/mini
    python experiments/deepgps-mini/measure.py halves --run runs/mini
    python experiments/deepgps-mini/measure.py crowds --model runs/deepgps-mini
    python experiments/deepgps-mini/measure.py structure --model runs/deepgps-mini --run runs/mini
    python experiments/deepgps-mini/measure.py explain
    python experiments/deepgps-mini/measure.py coverage --model runs/deepgps-mini

``labels`` and ``benchmark`` train the label model again without the test proteins (about an hour each),
``halves`` the generator twice (two hours); the others measure a bundle. Trainings are kept and continue where
they stopped.

``structure`` draws into the held-out cells of the run's image pack, and measures real and mean images in the
same way; the network that reads localizations back is trained first where the run has none (three minutes).
``coverage`` calibrates prediction sets and intervals of pixels, and writes the bounds into
``src/deepgps/prediction/coverage.json``.
With ``--baseline`` the model's figures are recorded as those of a baseline.
"""

import argparse
import sys
from pathlib import Path

from deepgps.bundle import DEFAULT_MODEL, Metric
from deepgps.prediction import Predictor
from deepgps.training.recipe import LabelSettings
from figures import record

WHAT = ("labels", "benchmark", "images", "opencell", "halves", "crowds", "structure", "coverage", "explain")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=WHAT)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shared data folder")
    parser.add_argument("--run", type=Path, default=Path("runs/mini"), help="the run that the model is from")
    parser.add_argument("--model", default=DEFAULT_MODEL, help="name of an installed model, or a bundle")
    parser.add_argument("--work", type=Path, default=Path("runs"), help="folder for the trainings")
    parser.add_argument("--report", type=Path, default=Path("report"), help="folder for the reports")
    parser.add_argument("--baseline", action="store_true", help="record the model as a baseline (structure)")
    options = parser.parse_args()
    if options.what == "labels":
        import opencell_labels

        record(
            opencell_labels.measure(options.data, options.work / "opencell_labels", LabelSettings()), "labels"
        )
    elif options.what == "benchmark":
        import public_benchmark

        figures, more = public_benchmark.measure(options.data, options.work / "hou_test", LabelSettings())
        record(figures, "benchmark")
        record(more, "benchmark", on_card=False)
    elif options.what == "crowds":
        import crowded_fields

        record(crowded_fields.measure(Predictor.load(options.model), options.data), "crowds")
    elif options.what == "coverage":
        import coverage

        record(coverage.measure(options.model, options.data), "coverage", on_card=False)
    elif options.what == "explain":
        record(explanations(options.data), "explain")
    elif options.what == "structure":
        sys.path.insert(0, str(Path(__file__).parent / "images"))
        import measuring

        figures = measuring.measure_bundle(
            options.model, options.run / "images", options.report, baseline=options.baseline
        )
        record(figures, "structure", on_card=False)
    else:
        import image_quality

        if options.what == "halves":
            figures = image_quality.measure_opencell_halves(options.data, options.run)
        elif options.what == "opencell":
            figures = image_quality.measure_opencell(options.model, options.data, options.run, options.report)
        else:
            figures = image_quality.measure_u2os(options.model, options.data, options.run, options.report)
        record(figures, options.what)


def explanations(data: Path) -> dict[str, Metric]:
    """Measure the finders of sorting signals and the score of substitutions."""
    experiments = Path(__file__).parents[1]
    sys.path[:0] = [str(experiments / "signals"), str(experiments / "variants")]
    import measure_signals
    import moves

    figures = {}
    for kind, measured in measure_signals.measure_kinds(data).items():
        name = f"Sorting signals {kind}: MCC of residues"
        figures[name] = Metric(value=measured["deepgps"]["mcc"], n=measured["signals"])
        figures[f"{name} of the baseline 'plain pattern'"] = Metric(
            value=measured["pattern"]["mcc"], n=measured["signals"]
        )
    name = "Substitutions that move a protein: AUROC"
    for score, found in moves.measure(data).items():
        value, low, high = found["auroc"]
        head = name if score == "moves" else f"{name} of the baseline '{score}'"
        figures[head] = Metric(value=value, low=low, high=high)
    return figures


if __name__ == "__main__":
    main()
