import xml.etree.ElementTree as ET

import numpy as np
import pytest

from deepgps.bundle import Metric
from deepgps.reporting.charts import (
    COLOURS,
    bar,
    epoch_axis,
    interval_chart,
    line_chart,
    reliability_chart,
    round_axis,
    round_ticks,
    scatter_chart,
    unit_axis,
)

NAN = float("nan")


def elements(chart, tag):
    return list(ET.fromstring(chart).iter(tag))


def points(line):
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]


def lines(values, **options):
    curve = np.arange(1, len(values) + 1), values
    return line_chart("a < b", {"loss": curve}, epoch_axis(len(values)), round_axis("y", values), **options)


def test_a_line_goes_through_its_points_and_leaves_out_what_is_not_finite():
    (line,) = elements(lines([1.0, NAN, 3.0]), "polyline")
    (left, low), (right, high) = points(line)
    assert left < right
    assert high < low, "y grows upwards"
    assert not elements(lines([1.0, 2.0]), "circle")


def test_a_line_of_one_point_is_drawn_as_a_point():
    assert len(elements(lines([0.5]), "circle")) == 1


def test_titles_and_names_are_escaped():
    chart = scatter_chart("<b>", {"<i>": ([0], [0]), "&": ([1], [1])}, unit_axis("<x>"), unit_axis("y"))
    assert "<b>" not in chart
    assert "<i>" not in chart
    assert ET.fromstring(chart).find("figcaption").text == "<b>"
    assert [each.text for each in elements(chart, "text")][-2:] == ["<x>", "y"]


def test_a_legend_names_several_series_and_further_colours_are_dashed():
    axes = unit_axis("x"), unit_axis("y")
    series = {str(number): ([0, 1], [0, 1]) for number in range(COLOURS + 1)}
    chart = line_chart("title", series, *axes)
    assert len(elements(chart, "li")) == COLOURS + 1
    assert ["stroke-dasharray" in line.attrib for line in elements(chart, "polyline")].index(True) == COLOURS
    assert not elements(line_chart("title", {"one": ([0], [1])}, *axes), "li")


def test_guides_are_drawn_where_they_are_asked_for():
    def guides(chart):
        return [line for line in elements(chart, "line") if line.attrib["class"] == "guide"]

    assert not guides(lines([1.0, 2.0]))
    (marked,) = guides(lines([1.0, 2.0, 3.0], mark_x=2))
    assert marked.attrib["x1"] == marked.attrib["x2"]
    (diagonal,) = guides(reliability_chart("calibration", [0.1, NAN], [0.2, NAN]))
    assert diagonal.attrib["x1"] != diagonal.attrib["x2"]


def test_intervals_hold_their_values_and_what_is_not_known_is_left_out():
    metrics = {
        "model": Metric(value=0.5, low=0.4, high=0.6, n=9),
        "no interval": Metric(value=0.2, low=None, high=None, n=9),
        "unknown": Metric(value=NAN, low=None, high=None, n=0),
    }
    chart = interval_chart("accuracy", metrics, include=0)
    middles = [float(circle.attrib["cx"]) for circle in elements(chart, "circle")]
    ends = [
        (float(line.attrib["x1"]), float(line.attrib["x2"]))
        for line in elements(chart, "line")
        if line.attrib["class"] == "interval"
    ]
    assert ends[0][0] < middles[0] < ends[0][1]
    assert ends[1] == (middles[1], middles[1])
    assert "unknown" not in chart
    assert interval_chart("nothing", {})


def test_a_bar_is_as_long_as_its_share():
    rail, fill = elements(bar(0.25), "rect")
    assert (float(rail.attrib["width"]), float(fill.attrib["width"])) == (100, 25)
    chart = bar(0.25, highlighted=True, threshold=0.5)
    assert ET.fromstring(chart).attrib["class"] == "bar highlighted"
    assert float(elements(chart, "rect")[2].attrib["x"]) == pytest.approx(49.6)
    assert "style" not in chart, "a strict content security policy forbids inline styles"


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.132, 0.139), (-3, 250), (5, 5), (0, 0), (1e-9, 2e-9)])
def test_ticks_are_round_and_span_the_range(low, high):
    ticks = round_ticks(low, high)
    assert 2 <= len(ticks) <= 7
    assert ticks == sorted(ticks)
    assert ticks[0] <= low
    assert ticks[-1] >= high
    assert np.allclose(np.diff(ticks), ticks[1] - ticks[0])


def test_an_axis_of_nothing_is_an_axis_too():
    assert round_axis("x", [NAN]).ticks[-1] == 1
    assert round_axis("x", [2.0, 3.0], include=0).ticks[0] == 0
    assert list(epoch_axis(1).ticks) == [1]
