"""Labels stand beside one another and within their figure, as matplotlib itself lays them out."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import pytest
from matplotlib.figure import Figure

import made_up
from ropewalk.figures import axes as figure_axes
from ropewalk.figures import compare, style
from ropewalk.records.recipe import Recipe
from ropewalk.records.variant import variant_of
from ropewalk.rope.scaling import SCALINGS


def written_below(figure: Figure) -> list[str]:
    """The labels of the x axis, none over another."""
    figure.draw_without_rendering()
    labels = [label for label in figure.axes[0].get_xticklabels() if label.get_text()]
    boxes = [label.get_window_extent() for label in labels]
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
    return [label.get_text() for label in labels]


@style.styled
def with_windows(windows: list[int]) -> Figure:
    figure, axes = style.new()
    figure_axes.window_axis(figure, axes, windows)
    return figure


def test_windows_close_to_one_another_are_ticks_and_those_with_room_are_named():
    windows = [512, 2048, 8192, 9216, 10240, 12288, 16384, 32768, 65536, 131072]
    figure = with_windows(windows)
    assert written_below(figure) == ["512", "2048", "8192", "16384", "32768", "65536", "131072"]
    assert list(figure.axes[0].get_xticks()) == windows


def test_where_all_have_room_all_are_named():
    assert written_below(with_windows([2048, 3072, 8192, 32768])) == ["2048", "3072", "8192", "32768"]


def test_factors_have_room_too():
    points = [
        (variant_of(dataclasses.replace(made_up.extended(2), scaling=SCALINGS["linear"](factor))), "20 steps", 3.0)
        for factor in (1.125, 1.25, 1.5, 2.0, 16.0)
    ]
    assert written_below(compare.ablation(points, base=2.0)) == ["×1.125", "×2", "×16"]


def test_seeds_are_one_line_and_rates_are_not():
    two = variant_of(dataclasses.replace(made_up.extended(2), scaling=SCALINGS["linear"](2.0)))

    def trained(rate: str, seed: int):
        return dataclasses.replace(two, recipe=Recipe(facts=(("learning_rate", rate),), seed=seed))

    points = [(trained("0.001", 0), "5M", 3.0), (trained("0.001", 1), "5M", 3.2), (trained("0.0001", 0), "5M", 9.0)]
    axes = compare.ablation(points, base=1.0).axes[0]
    drawn = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines() if str(line.get_label())[0] != "_"}
    assert drawn == {
        "PI, 5M, learning rate 0.001": [pytest.approx((3.0 * 3.2) ** 0.5)],
        "PI, 5M, learning rate 0.0001": [pytest.approx(9.0)],
    }


@style.styled
def with_legend(names: list[str]) -> Figure:
    figure, axes = style.new()
    for name in names:
        axes.plot([0, 1], [0, 1], label=name)
    style.legend(figure, axes)
    figure.draw_without_rendering()
    return figure


@pytest.mark.parametrize(
    "names", [["a name of books/train-0.jsonl.xz and others, " * 3, "short"], ["books/train.jsonl-" * 9]]
)
def test_a_name_that_is_wider_than_its_figure_takes_lines(names):
    figure = with_legend(names)
    (legend,) = figure.legends
    assert legend.get_window_extent().x1 <= figure.bbox.x1
    written = [text.get_text() for text in legend.get_texts()]
    assert ["".join(name.split()) for name in written] == ["".join(name.split()) for name in names]


def test_a_relative_perplexity_s_label_is_no_longer_than_its_axis():
    curves = [
        (variant_of(made_up.extended(4, 200, method)), {0: 99.0, 200: 9.0}) for method in ("linear", "ntk", "yarn")
    ]
    figure = compare.perplexity_by_steps(curves, base=9.0)
    figure.draw_without_rendering()
    label, axes = figure.axes[0].yaxis.label.get_window_extent(), figure.axes[0].get_window_extent()
    assert label.height <= axes.height and label.y1 <= figure.legends[0].get_window_extent().y0
