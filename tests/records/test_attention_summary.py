"""scores, plot_attention: attention rows summed up and drawn; the rows are made by hand so that the sums are known."""

import dataclasses
import json

import numpy as np
import pytest

from ropewalk import records
from ropewalk.figures import attention as attention_figures
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.records.attention_summary import gist, part
from ropewalk.reports.attention import section
from ropewalk.reports.rows import clean
from ropewalk.rope.scaling import Linear

BASE = records.ModelInfo("m", "llama", 8, 8, head_dim=4, parameters=10)
PI = dataclasses.replace(BASE, window=16, scaling=Linear(2.0))
TRAINED = dataclasses.replace(PI, steps=100)


def scores(window: int, heads: list[list[float]], layer: int = 0) -> records.AttentionScores:
    """Two heads over buckets 0-1, 2-7, 8-15."""
    edges = [edge for edge in (0, 2, 8, 16) if edge <= window]
    flat = [head[: len(edges) - 1] for head in heads]
    bound = dict(
        printed=[4.0, 4.0], corrected=[5.0, 5.0], profile=[5.0, 5.0], extrapolation=[9.0, 9.0], trivial=[9.0, 9.0]
    )
    return records.AttentionScores(
        layer=layer,
        window=window,
        documents=1,
        edges=edges,
        maximum=flat,
        minimum=flat,
        quantile=[[value / 2 for value in head] for head in flat],
        mean=flat,
        largest_h=[1.0, 3.0],
        deviation=[1.0, 3.0],
        **bound,
    )


def near(window: int, resolution: list[float]) -> records.Adjacent:
    return records.Adjacent(0, window, 1, 8, resolution, [1.0, 1.0], resolution, [0.25, 0.5])


@pytest.fixture
def rows(tmp_path):
    """Four states: in range, out of range, and back."""
    path = tmp_path / "r.jsonl"
    for state, window, heads, told in (
        (BASE, 8, [[9.0, 4.0, 0.0], [6.0, 2.0, 0.0]], [0.4, 0.6]),
        (BASE, 16, [[9.0, 4.0, 18.0], [6.0, 2.0, 3.0]], [0.4, 0.6]),
        (PI, 16, [[9.0, 5.0, 4.0], [6.0, 3.0, 2.0]], [0.2, 0.3]),
        (TRAINED, 16, [[9.0, 5.0, 4.0], [6.0, 3.0, 2.0]], [0.3, 0.4]),
    ):
        recorder = records.Recorder(path, records.new_run(state, device="cpu", dtype="float32", command="made by hand"))
        recorder.add(scores(window, heads))
        recorder.add(near(window, told))
    return clean(records.read([path]))


def first(rows, at: int = 0, **changes) -> AttentionScores:
    """One row of scores, changed."""
    return dataclasses.replace(rows.of(AttentionScores)[at].row, **changes)


def test_a_gist_is_what_can_be_read_off_the_rows(rows):
    by_variant = attention_figures.by_variants(rows.of(AttentionScores))
    near_rows = [m.row for m in next(iter(attention_figures.by_variants(rows.of(Adjacent)).values()))]
    base, beyond, before, after = ([m.row for m in alike] for alike in by_variant.values())
    summed = gist(beyond + near_rows, 8, base)
    assert (summed.window, summed.inside, summed.beyond) == (16, 9.0, 18.0)
    # Far keys: buckets from L/4 = 2 on; half of 4 and of 2, the median of both heads; beyond, half of 18 and of 3.
    assert (summed.typical_inside, summed.typical_beyond) == (1.5, 5.25)
    # One head of two is above its own base: 18 over 9; the other's 3 is under its 6.
    assert (summed.out_of_range, summed.worst) == (0.5, 2.0)
    assert (summed.deviation, summed.of_printed, summed.of_corrected) == (3.0, 0.75, 0.6)
    assert (summed.resolution, summed.previous) == (0.5, 0.5)
    # 18 of a trivial bound of 9, and the extrapolation bound's 9 over it.
    assert (summed.largest_h, summed.of_trivial, summed.slack) == (3.0, 2.0, 0.5)
    assert gist(before, 8, base).out_of_range == gist(after, 8, base).out_of_range == 0


def test_a_negative_score_counts_by_its_size(rows):
    summed = gist([first(rows, minimum=[[-12.0, 0.0], [0.0, np.nan]])], 8)
    assert (summed.of_trivial, summed.slack) == (12 / 9, 9 / 12)
    assert summed.inside == 9.0


@pytest.mark.parametrize(("beyond", "share"), [(8.9, 0), (9.0, 0), (9.1, 0.5)])
def test_a_head_is_out_of_range_above_its_own_largest_and_not_before(rows, beyond, share):
    row = first(rows, 1, maximum=[[9.0, 4.0, beyond], [6.0, 2.0, 3.0]])
    assert gist([row], 8, [first(rows)]).out_of_range == share


def test_inside_its_window_a_base_has_no_beyond(rows):
    base = [m.row for m in next(iter(attention_figures.by_variants(rows.of(AttentionScores)).values()))]
    summed = gist(base, 8, base)
    assert summed.inside == 9.0
    assert np.isnan([summed.beyond, summed.out_of_range, summed.worst, summed.resolution]).all()


def test_part_takes_buckets_by_their_first_distance(rows):
    row = first(rows, 1)
    np.testing.assert_array_equal(part(row.edges, row.maximum, 8, 100), [18.0, 3.0])
    assert np.isnan(part(row.edges, row.maximum, 100, 200)).all()


def test_states_are_drawn_in_order_each_with_its_own_line(rows):
    figure = attention_figures.scores(rows.of(AttentionScores))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["base", "base, extrapolating", "PI ×2, before training", "PI ×2, 100 steps"]
    upper = figure.axes[0]
    highest = {
        line.get_label(): max(line.get_ydata()) for line in upper.get_lines() if not line.get_label().startswith("_")
    }
    assert highest == {labels[0]: 9, labels[1]: 18, labels[2]: 9, labels[3]: 9}


def test_the_adjacent_figure_leaves_out_what_would_hide_the_base(rows):
    figure = attention_figures.adjacent(rows.of(Adjacent))
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["base", "PI ×2, before training", "PI ×2, 100 steps"]


def test_the_bounds_figure_has_a_point_a_head(rows):
    figure = attention_figures.bounds(rows.of(AttentionScores))
    points = figure.axes[0].get_lines()[0]
    assert list(points.get_xdata()) == [4.0, 4.0] and list(points.get_ydata()) == [1.0, 3.0]


def test_a_measurement_made_twice_is_drawn_once_and_the_newest(rows, tmp_path):
    path = tmp_path / "again.jsonl"
    for started, value in (("2026-01-02", 5.0), ("2026-01-01", 7.0)):
        run = dataclasses.replace(records.new_run(BASE, device="cpu", dtype="float32", command=""), started=started)
        records.Recorder(path, run).add(scores(8, [[value, 1.0, 0.0]] * 2))
    by_variant = attention_figures.by_variants(clean(records.read([path])).of(AttentionScores))
    assert [gist([m.row for m in alike], 8).inside for alike in by_variant.values()] == [5.0]


def test_the_page_says_how_many_heads_are_out_of_range(rows):
    page_section = section(rows)
    assert (
        "Base, extrapolating in 16 tokens: the highest score beyond 8 is 18.0, and 50\u202f% of the heads"
        in page_section.lead
    )
    assert len(page_section.pictures) == 3
    assert len(page_section.tables[0].lines) == 4
    assert [[cell.text for cell in line.cells] for line in page_section.tables[1].lines][1] == [
        "3.0",
        "75\u202f%",
        "60\u202f%",
        "200\u202f%",
        "0.5×",
    ]


@pytest.mark.parametrize(
    "damage",
    [
        {"edges": [0, 2]},
        {"edges": [0, 8, 2, 16]},
        {"edges": []},
        {"edges": [0, None, 8, 16]},
        {"maximum": [[1.0, 2.0, 3.0]]},
        {"maximum": [["a", 2.0, 3.0], [1.0, 2.0, 3.0]]},
        {"maximum": [1.0, 2.0]},
        {"deviation": []},
        {"deviation": [True, 1.0]},
    ],
)
def test_a_row_that_was_edited_into_nonsense_is_left_out(tmp_path, damage):
    path = tmp_path / "r.jsonl"
    run = records.new_run(BASE, device="cpu", dtype="float32", command="made by hand")
    records.Recorder(path, run).add(scores(16, [[9.0, 4.0, 18.0], [6.0, 2.0, 3.0]]))
    header, row = path.read_text().splitlines()
    assert len(records.read([path]).of(AttentionScores)) == 1
    path.write_text(f"{header}\n{json.dumps(json.loads(row) | damage)}\n")
    kept = records.read([path])
    assert not kept.of(AttentionScores) and kept.left_out.malformed["attention"] == 1


def test_a_bucket_without_a_figure_is_no_error(rows):
    m = rows.of(AttentionScores)[1]
    nan = np.nan
    row = first(rows, 1, maximum=[[nan, 2.0, 3.0], [1.0, 2.0, nan]], quantile=[[nan] * 3, [nan] * 3])
    attention_figures.scores([records.Measurement(row, m.run)])
    assert gist([row], 8).beyond == 3.0
