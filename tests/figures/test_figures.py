"""Figures show the rows they were given, leave nothing behind, and become SVG that can share a page. All rows are made up."""

from __future__ import annotations

import dataclasses
import itertools
import math
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest

import made_up
from ropewalk import records
from ropewalk.figures import compare, losses, style
from ropewalk.figures import measured as measured_figures
from ropewalk.records import Measurement, Passkey, Perplexity, Step
from ropewalk.records.recipe import Recipe
from ropewalk.records.variant import variant_of
from ropewalk.reports.rows import clean
from ropewalk.rope.scaling import SCALINGS


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    return clean(records.read([made_up.write(tmp_path_factory.mktemp("plot") / "r.jsonl", suite=False)]))


def lines(figure) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """label → the line's data, for lines that have one."""
    lines = {line.get_label(): line.get_data() for axes in figure.axes for line in axes.get_lines()}
    return {label: data for label, data in lines.items() if not label.startswith("_")}


def test_each_state_is_a_line_through_its_own_perplexities(rows):
    drawn = lines(measured_figures.perplexity(rows.of(Perplexity)))
    assert list(drawn) == ["base", "base, extrapolating", "PI ×4, before training", "PI ×4, 200 steps"]
    measured = {m.row.window: m.row.perplexity for m in rows.of(Perplexity) if m.run.model.steps == 200}
    x, y = drawn["PI ×4, 200 steps"]
    np.testing.assert_array_equal(y, [measured[window] for window in sorted(measured)])
    np.testing.assert_allclose(
        x, sorted(measured), rtol=0.06
    )  # set aside a little, so that intervals can be told apart


def test_extrapolation_starts_where_the_base_ends(rows):
    drawn = lines(measured_figures.perplexity(rows.of(Perplexity)))
    assert max(drawn["base"][0]) < 300 < min(drawn["base, extrapolating"][0])


def test_a_close_up_leaves_out_what_would_flatten_the_rest(rows):
    low, high = measured_figures.closeup_limits(rows.of(Perplexity))
    axes = measured_figures.perplexity(rows.of(Perplexity), closeup=True).axes[0]
    assert axes.get_ylim() == (low, high)
    assert low < min(m.row.perplexity for m in rows.of(Perplexity)) and high < 20


def test_what_a_close_up_leaves_out_is_named():
    """The frame ends at 1.3 times the best, 9: a line beyond it, one that leaves it and is no number then, and a seed of a mean that does not."""
    rows = [
        Measurement(made_up.row(math.log(p), w), made_up.run(made_up.BASE, "x")) for w, p in ((128, 9.0), (256, 9.1))
    ]
    rows.append(Measurement(dataclasses.replace(rows[0].row, window=512, perplexity=math.inf), rows[0].run))
    for method, seed, values in (("yarn", 0, (9.0, 9.2)), ("yarn", 1, (9.1, 12.0)), ("ntk", 0, (20.0, 11.0))):
        state = made_up.extended(4, 20, method, name=f"hemp/{method}{seed}")
        row = {"name": state.name, "method": method, "tokens": 4096, "seed": seed}
        run = made_up.run(state, state.name, settings={"row": row})
        rows += [Measurement(made_up.row(math.log(p), w), run) for w, p in zip((256, 1024), values, strict=True)]
    assert measured_figures.left_out(rows) == ["base, extrapolating (at 512)"]
    assert measured_figures.left_out(rows, closeup=True) == [
        "base, extrapolating (at 512)",
        "NTK ×4, 20 steps (at 256)",
        "seeds of YaRN ×4, 20 steps, 2 seeds (at 1024)",
    ]
    for closeup in (False, True):
        figure = measured_figures.perplexity(rows, closeup=closeup)
        assert figure.legends[0].get_texts()[-1].get_text() == "thin lines: single seeds"


@pytest.mark.parametrize("closeup", [False, True])
def test_no_line_or_error_bar_leaves_its_frame(rows, closeup):
    """Every point of every line and both ends of every interval lie within the axes' limits."""
    axes = measured_figures.perplexity(rows.of(Perplexity), closeup=closeup).axes[0]
    points = [np.column_stack(line.get_data()) for line in axes.get_lines() if line.get_transform() == axes.transData]
    points += [part for bars in axes.collections for part in bars.get_segments()]
    points = [np.asarray(part, dtype=float) for part in points]
    drawn = np.concatenate([part[np.isfinite(part).all(axis=1)] for part in points if len(part)])
    for values, (low, high) in zip(drawn.T, (axes.get_xlim(), axes.get_ylim()), strict=True):
        assert low <= values.min() and values.max() <= high


def test_no_close_up_where_everything_is_close():
    run = made_up.run(made_up.BASE, "x")
    near = [Measurement(made_up.row(math.log(p), w), run) for w, p in ((64, 9.0), (128, 8.9), (256, 8.8))]
    assert measured_figures.closeup_limits(near) is None
    assert measured_figures.closeup_limits([]) is None


def test_a_figure_that_is_no_number_is_left_out_not_drawn_as_zero(rows):
    some = [
        Measurement(dataclasses.replace(m.row, perplexity=math.nan), m.run)
        if (m.run.model.steps, m.row.window) == (200, 512)
        else m
        for m in rows.of(Perplexity)
    ]
    _, y = lines(measured_figures.perplexity(some))["PI ×4, 200 steps"]
    assert np.isnan(y[2]) and np.isfinite(y[[0, 1, 3]]).all()


def test_the_map_holds_the_share_of_successes_at_every_depth(rows):
    base = [m for m in rows.of(Passkey) if m.run.model.method == "plain"]
    figure = measured_figures.passkey_map(base, longest=1024, k_max={256: 256, 512: 240, 1024: 224})
    meshes = [mesh for mesh in figure.axes[0].collections if hasattr(mesh, "get_coordinates")]
    assert len(meshes) == 3
    for window, mesh in zip((256, 512, 1024), meshes, strict=True):
        depths = sorted((m.row for m in base if m.row.window == window), key=lambda row: row.k)
        np.testing.assert_allclose(mesh.get_array().ravel(), [row.successes / row.trials for row in depths])
        np.testing.assert_allclose(mesh.get_coordinates()[0, 1:, 0], [row.k for row in depths])
    assert {"256", "240", "224"} <= {text.get_text() for text in figure.axes[0].texts}


def test_the_running_mean_of_a_straight_line_is_the_line(rows):
    steps = [Measurement(dataclasses.replace(m.row, loss=3 - 0.01 * m.row.step), m.run) for m in rows.of(Step)]
    x, y = lines(losses.loss(steps))["running mean"]
    inner = slice(20, -20)  # near the ends the mean is one-sided
    np.testing.assert_allclose(np.asarray(y)[inner], 3 - 0.01 * np.asarray(x)[inner], atol=1e-12)


def test_by_steps_stands_beside_the_paper_relative_to_the_base():
    state = variant_of(made_up.extended(steps=200))
    drawn = lines(compare.perplexity_by_steps([(state, {0: 20.0, 200: 9.0})], base=10.0))
    np.testing.assert_allclose(drawn["PI ×4"][1], [2.0, 0.9])
    # table 3, 8192: 16.10 before training; table 1, 7B in its own window: 7.20
    np.testing.assert_allclose(drawn["paper: 7B PI ×4"][1][0], 16.10 / 7.20)


def test_larger_factors_are_darker_and_other_methods_have_other_colours():
    states = [variant_of(made_up.extended(f, 200, m)) for m in ("linear", "yarn") for f in (2, 4, 8)]
    colours = style.palette(states)
    assert len(set(colours.values())) == 6
    light = [sum(int(colours[state.series][i : i + 2], 16) for i in (1, 3, 5)) for state in states]
    assert light[:3] == sorted(light[:3], reverse=True) and light[3:] == sorted(light[3:], reverse=True)


def test_svg_ids_belong_to_their_figure_and_every_reference_is_met(rows):
    text = style.svg(measured_figures.perplexity(rows.of(Perplexity)), "fig-1", "a <title>", "words & more")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) and all(name.startswith("fig-1-") for name in ids)
    assert set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    for one, other in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text):
        assert (one or other) in ids
    assert "a &lt;title&gt;" in text and "words &amp; more" in text


def test_rows_just_measured_are_drawn_as_the_same_rows_read_back(tmp_path):
    run = made_up.run(made_up.extended(steps=9), "ropewalk perplexity")
    recorder = records.Recorder(tmp_path / "r.jsonl", run)
    for window, nll in ((256, 2.3), (512, 2.2), (1024, 2.1)):
        recorder.add(made_up.perplexity(window, nll))
    just_measured = [Measurement(row, run) for row in recorder.rows]
    read_back = records.read([tmp_path / "r.jsonl"]).of(Perplexity)
    one, other = (style.svg(measured_figures.perplexity(rows), "f", "t") for rows in (just_measured, read_back))
    assert one == other


def test_text_in_svg_stays_text(rows):
    text = style.svg(measured_figures.perplexity(rows.of(Perplexity)), "f", "t")
    assert "evaluation window (tokens)</text>" in text
    assert "DejaVu" not in text


def test_the_same_rows_give_the_same_svg_and_no_date(rows):
    one, other = (style.svg(measured_figures.perplexity(rows.of(Perplexity)), "f", "t") for _ in range(2))
    assert one == other
    assert "dc:date" not in one


def test_settings_are_put_back(rows):
    before = dict(matplotlib.rcParams)
    style.svg(losses.loss(rows.of(Step)), "f", "t")
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("ending", "start"), [("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_a_figure_is_saved_in_the_format_of_its_name(rows, tmp_path, ending, start):
    assert measured_figures.save(losses.loss(rows.of(Step)), tmp_path / f"loss.{ending}").read_bytes().startswith(start)


def test_neither_torch_nor_pyplot_is_imported():
    code = "import sys, ropewalk.figures.measured, ropewalk.reports; print([n for n in ('torch', 'transformers', 'matplotlib.pyplot') if n in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_every_method_has_a_colour_of_its_own() -> None:
    colours = [style.METHOD_COLOURS[method] for method in SCALINGS]
    assert len(set(colours)) == len(colours)


#: Machado, Oliveira and Fernandes 2009, severity 1: what linear sRGB looks like without the cones of middle or long waves; with all.
_SEEN = (
    np.eye(3),
    np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
)
_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])  # fmt: skip


def _lab(tone: str, seen: np.ndarray) -> np.ndarray:
    """A colour in CIE Lab, white at D65."""
    coded = np.array([int(tone[place : place + 2], 16) for place in (1, 3, 5)]) / 255
    linear = np.where(coded <= 0.04045, coded / 12.92, ((coded + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt(
        _XYZ @ np.clip(seen @ linear, 0, 1) / (0.95047, 1, 1.08883)
    )  # none is dark enough for the straight part
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_methods_that_pages_show_together_are_told_apart_without_one_kind_of_cone():
    """PI and NTK were 1.6 apart, ABF and direct fine-tuning 5; 2.3 is what an eye just tells, large and side by side."""
    shown = ("base", "control", "plain", "linear", "ntk", "abf", "yarn", "llama3", "longrope", "p-rope", "cope")
    tones = [style.METHOD_COLOURS[method] for method in shown] + [style.RED]
    for one, other in itertools.combinations(tones, 2):
        assert min(np.linalg.norm(_lab(one, seen) - _lab(other, seen)) for seen in _SEEN) > 14, (one, other)
    assert len(set(style.MARKERS.values())) == len(style.MARKERS) == len(style.METHOD_COLOURS)


def test_a_method_has_one_colour_and_one_marker_whatever_stands_beside_it_and_is_hollow_before_training():
    def looks(methods, steps) -> dict[str, tuple]:
        runs = [made_up.run(made_up.extended(4, steps, method), method) for method in methods]
        rows = [Measurement(made_up.row(2.0, window), run) for run in runs for window in (256, 1024)]
        axes = measured_figures.perplexity(rows).axes[0]
        found = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", "|", "_")]
        return {line.get_label().split(" ×")[0]: (line.get_color(), line.get_marker(), line.get_markerfacecolor(), line.get_linestyle())
                for line in found}  # fmt: skip

    many, few = looks(("linear", "yarn", "plain", "ntk"), 20), looks(("plain", "yarn"), 20)
    assert few.items() <= many.items() and len({look[:2] for look in many.values()}) == 4
    before, after = looks(("linear",), 0)["PI"], many["PI"]
    assert before[:2] == after[:2] and (before[2:], after[2:]) == (("white", "--"), (after[0], "-"))


def test_lines_of_one_method_that_look_alike_otherwise_have_markers_of_their_own():
    one, other, third = (variant_of(made_up.extended(4, steps, "yarn")) for steps in (20, 40, 0))
    markers = style.markers_of([("a", one), ("b", other), ("c", third)], None)
    assert markers["a"] == markers["c"] == style.MARKERS["yarn"] != markers["b"]  # c is dashed


def test_seeds_are_one_marker_on_their_mean_at_their_window(tmp_path):
    """Three seeds had three markers, the first at 240 tokens where the window is 256."""
    rows, levels = [], (2.0, 2.1, 2.4)
    for seed, nll in enumerate(levels):
        state = made_up.extended(4, 20, name=f"hemp/s{seed}")
        row = {"name": f"hemp/s{seed}", "method": "linear", "tokens": 4096, "seed": seed}
        run = made_up.run(state, f"ablate {seed}", settings={"row": row})
        rows += [Measurement(made_up.row(nll + beyond, window), run) for window, beyond in ((256, 0.0), (1024, 2.0))]
    for method in ("yarn", "ntk", "dynamic", "plain"):
        run = made_up.run(made_up.extended(4, 20, method), method)
        rows += [Measurement(made_up.row(2.0 + beyond, window), run) for window, beyond in ((256, 0.0), (1024, 2.0))]
    axes = measured_figures.perplexity(rows).axes[0]
    marked = [line for line in axes.get_lines() if line.get_marker() not in ("None", "", "|", "_")]
    assert len([line for line in marked if len(line.get_xdata()) == 2]) == 5, "a method a marker"
    x, y = lines(axes.figure)["PI ×4, 20 steps, 3 seeds"]
    np.testing.assert_allclose(y[0], np.exp(np.mean(levels)))
    for line in marked:
        np.testing.assert_allclose(line.get_xdata(), (256, 1024), rtol=0.022)
    assert axes.get_yscale() == "log" and axes.get_ylabel() == "perplexity (logarithmic)"
    low, high = axes.get_ylim()
    assert sum(low <= tick <= high for tick in axes.get_yticks()) >= 4, "labelled ticks"


def test_base_and_control_differ_in_colour():
    base = variant_of(made_up.BASE)
    control = dataclasses.replace(base, steps=16, recipe=Recipe("control", (("tokens", "4096"),)))
    colours = style.palette([base, control, dataclasses.replace(control, steps=0)])  # 0: of its training run
    assert style.colour(base, colours) != style.colour(control, colours)


def test_a_legend_of_many_names_is_less_than_a_third_of_its_figure():
    figure, axes = style.new()
    for i in range(13):
        axes.plot([0, 1], [i, i], label=f"Llama 3 scaling ×4, {i} steps")
    style.legend(figure, axes)
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    assert box.height < figure.bbox.height / 3 and box.x1 <= figure.bbox.x1
