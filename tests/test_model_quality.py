"""A model's figures, group_metrics for the page of the model."""

from deepgps.bundle import DEFAULT_MODEL, Metric, open_model
from deepgps.bundle.metrics_table import format_metric, group_metrics
from deepgps.cli.app import run

METRICS_THAT_SHIP = open_model(DEFAULT_MODEL).metadata.metrics
METRICS = {
    "OpenCell, four classes, A: accuracy": Metric(value=0.5, low=0.4, high=0.6, n=20),
    "OpenCell, four classes, A: accuracy of the baseline 'majority class'": Metric(value=0.3),
    "OpenCell, four classes, B: accuracy": Metric(value=0.7),
    "Held-out cells: Pearson r of the baseline 'own mask'": Metric(value=0.2),
    "Held-out cells: Pearson r": Metric(value=0.4),
    "accuracy": Metric(value=0.1),
}


def test_protocols_stand_side_by_side_and_baselines_beside_their_figure():
    table = group_metrics(METRICS)
    assert list(table) == ["OpenCell, four classes", "Held-out cells", ""]
    four = table["OpenCell, four classes"]
    assert four.protocols == ["A", "B"]
    assert list(four.metrics) == ["accuracy"]
    cells = four.metrics["accuracy"]
    assert (cells["A"].metric, cells["B"].metric) == (
        METRICS["OpenCell, four classes, A: accuracy"],
        METRICS["OpenCell, four classes, B: accuracy"],
    )
    assert {name: each.value for name, each in cells["A"].baselines.items()} == {"majority class": 0.3}


def test_what_names_no_protocol_or_no_subject_is_shown_too():
    table = group_metrics(METRICS)
    cells = table["Held-out cells"]
    assert cells.protocols == [""]
    assert cells.metrics["Pearson r"][""].metric.value == 0.4
    assert cells.metrics["Pearson r"][""].baselines["own mask"].value == 0.2
    assert table[""].metrics["accuracy"][""].metric.value == 0.1


def test_every_figure_of_the_model_in_the_package_is_there():
    table = group_metrics(METRICS_THAT_SHIP)
    found = [
        metric
        for subject in table.values()
        for cells in subject.metrics.values()
        for cell in cells.values()
        for metric in (cell.metric, *cell.baselines.values())
        if metric is not None
    ]
    assert len(found) == len(METRICS_THAT_SHIP)
    assert all(
        cell.metric is not None
        for subject in table.values()
        for cells in subject.metrics.values()
        for cell in cells.values()
    )


def test_rows_set_the_protocols_side_by_side_and_baselines_below():
    table = group_metrics(METRICS)
    assert list(table["OpenCell, four classes"].rows()) == [
        ("accuracy", "0.500 [0.400, 0.600]", "0.700", "20"),
        ("baseline 'majority class'", "0.300", "", ""),
    ]


def test_a_figure_is_shown_with_its_interval_where_it_has_one():
    assert format_metric(Metric(value=0.12345)) == "0.123"
    assert format_metric(Metric(value=0.5, low=0.25, high=0.75)) == "0.500 [0.250, 0.750]"
    assert format_metric(Metric(value=0.5, low=0.25)) == "0.500"


def test_the_console_shows_every_figure_of_the_model(capsys):
    assert run(["models", "info", DEFAULT_MODEL]) == 0
    said = capsys.readouterr().out
    block = said[said.index("quality:") : said.index("trained on:")]
    assert block.count("baseline '") < len([name for name in METRICS_THAT_SHIP if "of the baseline" in name])
    for metric in METRICS_THAT_SHIP.values():
        assert format_metric(metric) in block
    assert max(map(len, block.splitlines())) <= 140
