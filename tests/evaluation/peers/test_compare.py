"""Models side by side on the same proteins."""

import csv
import io

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from deepgps.cli.app import run
from deepgps.errors import InputError
from deepgps.evaluation.labelled_predictions import LabelledPredictions, write_labelled_predictions
from deepgps.evaluation.peers.compare import COMPARISON_COLUMNS, compare_peers, comparison_csv
from deepgps.evaluation.peers.files import PeerPredictions

CLASSES = ("cytoplasmic", "nucleoplasm")
TRUTH = np.arange(30) % 3 == 0
IDS = tuple(f"P{number}" for number in range(30))


def ours(seed=0, multi_label=False):
    scores = np.clip(np.random.default_rng(seed).random(30) * 0.7 + 0.3 * TRUTH, 0, 1)
    chances = np.stack([scores, 1 - scores], axis=1)
    targets = np.stack([TRUTH, ~TRUTH], axis=1)
    if multi_label:
        targets[0] = True
    return LabelledPredictions(CLASSES, IDS, chances, targets, None)


def peer(cytoplasm, nucleus, *, ids=IDS, predicted=None):
    chances = np.stack([cytoplasm, nucleus], axis=1)
    predicted = chances.argmax(1)[:, None] == np.arange(2) if predicted is None else predicted
    return PeerPredictions("DeepLoc 2", ids, ("Cytoplasm", "Nucleus"), chances, predicted)


def test_a_peer_with_the_same_predictions_does_not_differ():
    mine = ours()
    found = compare_peers(mine, {"same": peer(*mine.probabilities.T)})
    assert list(found.models) == ["deepGPS", "same", "majority class", "class prior"]
    row = found.models["same"]
    assert row.metrics == found.models["deepGPS"].metrics
    assert row.differences["accuracy"].p == row.mcnemar.p == 1
    assert found.notes == ()


def test_a_peer_is_measured_by_its_predictions_and_ranked_by_its_probabilities():
    rng = np.random.default_rng(3)
    cytoplasm, nucleus = rng.random(30), rng.random(30)
    found = compare_peers(ours(), {"DeepLoc 2": peer(cytoplasm, nucleus)}).models["DeepLoc 2"].metrics
    assert found["accuracy"].value == ((cytoplasm > nucleus) == TRUTH).mean()
    score = cytoplasm / (cytoplasm + nucleus)
    assert found["auroc"].value == pytest.approx(roc_auc_score(TRUTH, score))


def test_probabilities_of_classes_that_become_one_are_added():
    """Three tenths in each of two cytoplasmic places outweigh four tenths of nucleus, but the name stands."""
    chances = np.tile([0.4, 0.3, 0.3], (30, 1))
    predicted = np.tile([True, False, False], (30, 1))
    tool = PeerPredictions("t", IDS, ("Nucleus", "Cytoplasm", "Mitochondrion"), chances, predicted)
    found = compare_peers(ours(), {"t": tool}).models["t"].metrics
    assert found["sensitivity"].value == 0
    assert found["specificity"].value == 1
    assert found["brier"].value == pytest.approx(2 * (TRUTH * 0.4**2 + ~TRUTH * 0.6**2).mean())


def test_a_tool_without_probabilities_has_no_ranking_metrics():
    predicted = np.stack([TRUTH, ~TRUTH], axis=1)
    tool = PeerPredictions("BUSCA", IDS, ("cytoplasm", "nucleus"), None, predicted)
    row = compare_peers(ours(), {"BUSCA": tool}).models["BUSCA"]
    assert row.metrics["accuracy"].value == 1
    assert not [
        name for name in (*row.metrics, *row.differences) if name.startswith(("auroc", "auprc", "ece"))
    ]


def test_all_are_measured_on_their_common_proteins():
    short = peer(np.full(20, 0.9), np.full(20, 0.1), ids=(*IDS[10:], "other")[:20])
    found = compare_peers(ours(), {"a": short, "b": peer(*ours(1).probabilities.T)})
    assert found.proteins == 20
    assert {row.metrics["accuracy"].n for row in found.models.values()} == {20}
    assert found.notes == ("a lacks 10 of our 30 proteins (P0, P1, P2, …); no row counts them.",)


def test_nothing_in_common_is_refused():
    stranger = peer(np.full(1, 0.9), np.full(1, 0.1), ids=("Q",))
    with pytest.raises(InputError, match="No protein is in every file"):
        compare_peers(ours(), {"stranger": stranger})


def test_several_classes_take_all_predictions_of_the_tool():
    predicted = np.ones((30, 2), np.bool_)
    found = compare_peers(
        ours(multi_label=True), {"t": peer(np.full(30, 0.6), np.full(30, 0.6), predicted=predicted)}
    )
    assert found.models["t"].metrics["exact_match"].value == pytest.approx(1 / 30)
    assert found.models["t"].metrics["sensitivity_micro"].value == 1


def test_the_csv_has_every_figure_of_every_model():
    text = comparison_csv(compare_peers(ours(), {"peer": peer(*ours(1).probabilities.T)}))
    rows = list(csv.DictReader(io.StringIO(text)))
    assert tuple(rows[0]) == COMPARISON_COLUMNS
    accuracy = {row["model"]: row for row in rows if row["metric"] == "accuracy"}
    assert accuracy["deepGPS"]["mcnemar_p"] == accuracy["deepGPS"]["p"] == ""
    assert 0 <= float(accuracy["peer"]["p"]) <= 1
    difference = float(accuracy["deepGPS"]["value"]) - float(accuracy["peer"]["value"])
    assert float(accuracy["peer"]["ours_less_it"]) == pytest.approx(difference, abs=1e-5)


def test_the_command_compares_files(tmp_path, capsys):
    write_labelled_predictions(ours(), tmp_path / "ours.csv")
    lines = "".join(f"{each},0.6,0.4\n" for each in IDS[:-1])
    (tmp_path / "their.csv").write_text(f"id,Cytoplasm,Nucleus\n{lines}", encoding="utf-8")
    out = tmp_path / "new" / "comparison.csv"
    files = [str(tmp_path / "ours.csv"), f"Their tool={tmp_path / 'their.csv'}", str(tmp_path / "their.csv")]
    assert run(["compare", *files, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "n = 29" in said
    assert "Their tool lacks 1 of our 30 proteins (P29)" in said
    assert {"deepGPS", "Their tool", "their"} <= {line.partition("  ")[0] for line in said.splitlines()}
    assert "Their tool,auroc," in out.read_text(encoding="utf-8")
    assert run(["compare", *files, f"their={tmp_path / 'their.csv'}"]) == 2
    assert "Two peers are named 'their'" in capsys.readouterr().err
