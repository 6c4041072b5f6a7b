"""``deepgps compare``."""

from pathlib import Path

PRINTED_SINGLE_LABEL = (
    "accuracy",
    "balanced_accuracy",
    "sensitivity",
    "specificity",
    "f1",
    "f1_macro",
    "mcc",
)
PRINTED_MULTI_LABEL = ("exact_match", "f1_macro", "f1_micro", "mcc_macro")
PRINTED_RANKING = ("auroc", "auprc", "auroc_macro", "auprc_macro")


def compare(table: Path, /, *peers: str, out: Path = Path("comparison.csv"), seed: int = 0) -> None:
    """Compare our predictions with those of other tools on the same proteins.

    Parameters
    ----------
    table
        Our labelled predictions, CSV or Parquet.
    peers
        Output files of other tools; write NAME=FILE to name one.
    out
        The CSV to write: all metrics of all models, with intervals and differences.
    seed
        Seed of the bootstrap.
    """
    from deepgps.errors import InputError
    from deepgps.evaluation.labelled_predictions import read_labelled_predictions
    from deepgps.evaluation.peers.compare import compare_peers, comparison_csv, comparison_text
    from deepgps.evaluation.peers.files import PeerPredictions, read_peer
    from deepgps.files import atomic_path

    read: dict[str, PeerPredictions] = {}
    for peer in peers:
        name, _, path = peer.rpartition("=")
        found = read_peer(Path(path))
        name = name or (Path(path).stem if found.tool == "table" else found.tool)
        if name in read:
            raise InputError(
                f"Two peers are named '{name}'; give them different names, as in '{name} 2={path}'."
            )
        read[name] = found
    comparison = compare_peers(read_labelled_predictions(table), read, seed=seed)
    printed = (
        *(
            PRINTED_SINGLE_LABEL
            if "accuracy" in comparison.models["deepGPS"].metrics
            else PRINTED_MULTI_LABEL
        ),
        *PRINTED_RANKING,
    )
    print(comparison_text(comparison, printed))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(out) as draft:
        draft.write_text(comparison_csv(comparison), "utf-8")
    print(f"All metrics, with intervals and paired tests, are in {out}.")
