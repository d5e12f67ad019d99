"""Rows as a pandas frame and as a notebook shows them."""

from __future__ import annotations

import itertools
import math

import pytest

import made_up
from ropewalk import UserError, records


def test_rows_become_a_frame_and_a_table(tmp_path, monkeypatch) -> None:
    rows = records.Rows([made_up.row(math.log(8), 256, data="<b>"), made_up.row(math.log(9), 512, low=math.nan)])
    frame = rows.to_pandas()
    assert frame.perplexity.tolist() == pytest.approx([8, 9]) and frame.window.tolist() == [256, 512]
    assert "per_document" not in frame and frame.low.isna().tolist() == [False, True]
    html = rows._repr_html_()
    assert html.count("<tr>") == 3 and "&lt;b&gt;" in html and "<td>nan</td>" not in html
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0, 1024)))
    read = records.read([path]).of(records.Perplexity).to_pandas()
    assert read[["model", "state"]].values.tolist() == [["hemp", "base, extrapolating"]]
    monkeypatch.setitem(__import__("sys").modules, "pandas", None)
    with pytest.raises(UserError, match="pip install pandas"):
        rows.to_pandas()


def test_a_grid_is_grouped_by_method_and_seed(tmp_path) -> None:
    """What a comparison is made of: every row says of which method, factor, steps and seed it is."""
    path = tmp_path / "r.jsonl"
    for method, seed in itertools.product(("linear", "ntk"), (0, 1)):
        row = {"name": f"hemp/{method}-s{seed}", "method": method, "tokens": 1000, "seed": seed, "learning_rate": 1e-4}
        state = made_up.extended(4, 100, method, name=row["name"])
        made_up.record_rows(path, (state, made_up.row(2.0, 1024)), settings={"row": row})
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)))
    whole = records.read([path]).of(records.Perplexity).to_pandas()
    assert whole.groupby("training_tokens").size().to_dict() == {0: 1, 1000: 4}  # groupby drops what is NaN
    untrained = whole[whole.steps == 0]
    assert untrained[["seed", "learning_rate"]].isna().all(axis=None)
    assert (whole.seed.dtype, whole.learning_rate.dtype) == (
        "Int64",
        "float64",
    )  # whole numbers stay whole beside a gap
    assert untrained.to_csv(columns=["seed", "learning_rate"], index=False).splitlines()[1] == ","
    assert whole.groupby("seed", dropna=False).size().to_list() == [2, 2, 1]
    frame = whole[whole.steps > 0]
    assert frame.groupby(["base", "method", "factor", "steps"]).seed.apply(list).to_dict() == {
        ("hemp", "linear", 4, 100): [0, 1],
        ("hemp", "ntk", 4, 100): [0, 1],
    }
    assert set(frame.learning_rate) == {1e-4} and set(frame.training_tokens) == {1000}


def test_a_base_beyond_its_window_is_grouped_with_itself(tmp_path) -> None:
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0), made_up.row(5.0, 1024)))
    frame = records.read([path]).of(records.Perplexity).to_pandas()
    assert list(frame["base"]) == ["hemp", "hemp"]


def test_direct_fine_tuning_is_called_as_ablate_calls_it(tmp_path) -> None:
    direct = made_up.extended(4, 100, "plain", name="hemp/direct")
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), (direct, made_up.row(2.0, 1024)))
    assert list(records.read([path]).of(records.Perplexity).to_pandas().method) == ["plain", "direct"]


def test_scores_of_attention_are_a_line_a_head_and_distance() -> None:
    head = [1.0, 2.0]
    row = records.AttentionScores(
        3, 8, 1, [0, 1, 8], *([[10.0 * table, 11.0], [20.0 * table, 21.0]] for table in range(4)), *([head] * 7)
    )
    frame = records.Rows([row]).to_pandas()
    assert frame[["layer", "head", "from_distance", "to_distance"]].values.tolist() == [
        [3, head, *bucket] for head in (0, 1) for bucket in ((0, 0), (1, 7))
    ]
    assert frame["quantile"].tolist() == [20, 11, 40, 21]
    assert frame.trivial.tolist() == [1, 1, 2, 2]
    near = records.Adjacent(3, 8, 1, 5, head, head, head, [0.1, 0.2])
    assert records.Rows([near]).to_pandas().previous.tolist() == [0.1, 0.2]
    many = records.Rows([near] * 60)._repr_html_()
    assert many.count("<tr>") == 101 and "120 lines in all" in many


@pytest.mark.parametrize("alone", [made_up.gain(1024, 0.2, 0.1, 0.3), records.PasskeySummary(1024, 0, 4, 1, 0.0, 1.0)])
def test_a_row_that_is_returned_alone_is_a_table_too(alone) -> None:
    assert alone.to_pandas().window.tolist() == [1024]
    assert alone._repr_html_().count("<tr>") == 2
