"""Rows as a pandas frame and as a notebook shows them."""

from __future__ import annotations

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
