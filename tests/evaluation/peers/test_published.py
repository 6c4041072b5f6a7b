"""What the published tables can be rebuilt from, and what they cannot."""

import csv

import numpy as np
import pytest

from deepgps.evaluation.label_metrics import single_label_metrics

TABLE_1 = (40, 23)
TABLE_2 = (135, 282)
# True positives and true negatives; cytoplasm is the positive class.
FOUND = {
    "opencell_single2_paper_table1.csv": {
        "MultiLoc2": (32, 15),
        "DeepLoc 1.0": (34, 18),
        "MULocDeep": (33, 17),
    },
    "hpa_u2os_single2_paper_table2.csv": {
        "MultiLoc2": (113, 156),
        "DeepLoc 1.0": (112, 193),
        "BUSCA": (99, 154),
        "MULocDeep": (114, 204),
    },
}
SIZES = dict(zip(FOUND, (TABLE_1, TABLE_2), strict=True))


def matrices_behind(published, positives, negatives):
    """True positives and true negatives of every confusion matrix of two classes that prints as published."""
    tp, tn = np.meshgrid(np.arange(positives + 1), np.arange(negatives + 1), indexing="ij")
    wrong = positives - tp + negatives - tn
    values = {
        "accuracy": (tp + tn) / (positives + negatives),
        "sensitivity": tp / positives,
        "specificity": tn / negatives,
        "f1": 2 * tp / np.maximum(2 * tp + wrong, 1),
    }
    found = np.ones(tp.shape, np.bool_)
    for name in values.keys() & published.keys():
        digits = len(published[name].partition(".")[2])
        found &= np.abs(values[name] - float(published[name])) <= 0.5 * 10.0**-digits + 1e-9
    return [(int(a), int(b)) for a, b in zip(tp[found], tn[found], strict=True)]


def published(shared_data, name):
    with (shared_data / "peers" / name).open(encoding="utf-8") as lines:
        return {row.pop("model"): row for row in csv.DictReader(lines)}


def confusion(tp, tn, positives, negatives):
    return np.array([[[tp, positives - tp], [negatives - tn, tn]]], float)


@pytest.mark.parametrize("table", FOUND)
def test_the_rows_of_the_peers_are_rebuilt_to_three_digits(shared_data, table):
    rows, sizes = published(shared_data, table), SIZES[table]
    for peer, (tp, tn) in FOUND[table].items():
        assert matrices_behind(rows[peer], *sizes) == [(tp, tn)]
        figures = single_label_metrics(confusion(tp, tn, *sizes))
        assert f"{figures['accuracy'][0]:.3f}" == rows[peer]["accuracy"]
        assert f"{tp / sizes[0]:.3f}" == rows[peer]["sensitivity"]
        assert f"{tn / sizes[1]:.3f}" == rows[peer]["specificity"]
        wrong = sum(sizes) - tp - tn
        assert f"{2 * tp / (2 * tp + wrong):.3f}" == rows[peer]["f1"]


def test_no_other_size_of_table_2_fits_all_peers(shared_data):
    """The paper does not give it: a fifth of 2,087 proteins is 417, and 135 of them must be cytoplasmic."""
    rows = published(shared_data, "hpa_u2os_single2_paper_table2.csv")
    peers = [rows[name] for name in FOUND["hpa_u2os_single2_paper_table2.csv"]]
    fits = [
        (positives, count - positives)
        for count in range(405, 430)
        for positives in range(count // 4, count // 2)
        if all(matrices_behind(peer, positives, count - positives) for peer in peers)
    ]
    assert fits == [TABLE_2]


def test_what_cannot_be_rebuilt(shared_data):
    first, second = (published(shared_data, table) for table in FOUND)
    # BUSCA's specificity in table 1 is no fraction of 23; everything else is 27 of 40 and 15 of 23.
    busca = first["BUSCA"]
    assert matrices_behind(busca, *TABLE_1) == []
    assert busca["specificity"] == "0.650"
    rest = {name: value for name, value in busca.items() if name != "specificity"}
    assert matrices_behind(rest, *TABLE_1) == [(27, 15)]
    for row, sizes in ((first["deepGPS-single-2"], TABLE_1), (second["deepGPS-single-2"], TABLE_2)):
        assert matrices_behind(row, *sizes) == []
    accuracy = {"accuracy": second["deepGPS-single-2"]["accuracy"]}
    assert matrices_behind(accuracy, *TABLE_2) == []
    # Accuracy lies between specificity and sensitivity in any one matrix, whatever its size.
    ours = {name: float(value) for name, value in first["deepGPS-single-2"].items()}
    assert ours["accuracy"] < min(ours["specificity"], ours["sensitivity"])
    assert second["deepGPS-single-2"]["sensitivity"] == second["deepGPS-single-2"]["accuracy"]


def single_4(shared_data, level):
    """Figures of the paper's confusion matrix of single-4, and how many it counts."""
    with (shared_data / "peers" / "single4_paper_confusion.csv").open(encoding="utf-8") as lines:
        rows = [row for row in csv.DictReader(lines) if row["level"] == level]
    names = ("cytoplasmic", "vesicles", "er", "nucleoplasm")
    assert tuple(row["true_class"] for row in rows) == names
    matrix = np.array([[float(row[name]) for name in names] for row in rows])
    return {name: values[0] for name, values in single_label_metrics(matrix[None]).items()}, matrix.sum()


def test_single_4_is_right_for_63_in_100_proteins_and_81_one_against_the_rest(shared_data):
    figures, count = single_4(shared_data, "proteins")
    assert count == 105
    assert f"{figures['accuracy']:.3f}" == "0.629"
    assert f"{figures['f1_macro']:.3f}" == "0.640"
    assert f"{figures['one_vs_rest_accuracy']:.2f}" == "0.81"


def test_single_4_by_crop(shared_data):
    figures, count = single_4(shared_data, "crops")
    assert count == 4965
    assert f"{figures['accuracy']:.3f}" == "0.622"
    assert f"{figures['one_vs_rest_accuracy']:.2f}" == "0.81"
