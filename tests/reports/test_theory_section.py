"""The theory on the page: its figures and tables come from the rows, and its run is no measurement to be compared with others."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.figures import style
from ropewalk.figures import theory as theory_figures
from ropewalk.reports.provenance import cautions
from ropewalk.reports.rows import clean
from ropewalk.reports.theory import section
from ropewalk.rope.scaling import Abf, Linear, Llama3, Ntk, Plain, Rope, Yarn
from ropewalk.suite.theory import forecast, put_on_record


def written(path: Path, rope: Rope, reach: int, own=None) -> Path:
    state = records.ModelInfo("m", "llama", rope.window, rope.window, head_dim=rope.head_dim)
    recorder = records.Recorder(path, records.new_run(state, device="cpu", dtype="float64", command="ropewalk theory"))
    for row in forecast(rope, reach, scaling=own, seeds=2).rows:
        recorder.add(row)
    return path


def test_figure_2_its_solvers_and_the_bands_are_on_the_page(tmp_path):
    part = section(clean(records.read([written(tmp_path / "t.jsonl", Rope(64, 10000.0, 256), 1024)])))
    assert [picture.title for picture in part.pictures] == [
        "B(s)/d by distance",
        "Why a fit explodes",
        "Angular resolution",
    ]
    by_caption = {table.caption.split(":")[0]: table for table in part.tables}
    assert list(by_caption) == [
        "Angles by method",
        "Bounds in units of max|h|",
        "Figure 2 by solver",
        "Radians a token by frequency band",
    ]
    solvers = {line.label: float(line.cells[1].text) for line in by_caption["Figure 2 by solver"].lines}
    assert solvers["ridge 1.0, float64"] < 10 < solvers["normal equations, float32"] < solvers["least squares, float64"]
    bands = {
        line.label: [float(cell.text) for cell in line.cells]
        for line in by_caption["Radians a token by frequency band"].lines
    }
    assert bands["PI ×4"] == pytest.approx([x / 4 for x in bands["unscaled"]], rel=0.05)  # two digits each
    assert bands["YaRN ×4"][0] == bands["unscaled"][0]


def test_a_fit_that_was_singular_is_a_dash_and_no_line(tmp_path):
    part = section(clean(records.read([written(tmp_path / "t.jsonl", Rope(128, 1e12, 256), 512)])))
    solvers = next(table for table in part.tables if table.caption.startswith("Figure 2"))
    told = {line.label: line.cells[1].text for line in solvers.lines}
    assert told["normal equations, float32"] == "–" and math.isfinite(float(told["ridge 1.0, float64"]))


def test_the_methods_are_drawn_at_the_factors_on_record(tmp_path):
    rope = Rope(64, 500000.0, 256)
    path = written(tmp_path / "t.jsonl", rope, 4096, own=Llama3(8.0, 1.0, 4.0, 256))
    part = section(clean(records.read([path])))
    assert "Llama 3 scaling ×8" in part.pictures[-1].svg and "PI ×16" in part.pictures[-1].svg


def test_a_yarn_model_is_drawn_by_its_own_thresholds(tmp_path):
    """64 and 4 turns here; by the published 32 and 1 the curve is another."""
    model = dataclasses.replace(made_up.extended(4), scaling=Yarn(4.0, 64.0, 4.0), head_dim=64)
    put_on_record(model, tmp_path / "t.jsonl")
    part = section(clean(records.read([tmp_path / "t.jsonl"])))

    def drawn(yarn: Yarn) -> str:
        rope = model.rope
        scalings = [Plain(), Linear(4.0), Ntk(4.0), Abf(4.0, 50 * rope.rope_theta), yarn, Llama3(4.0, 1.0, 4.0, 256)]
        picture = part.pictures[-1]
        title = f"{part.title}: {picture.title}"
        return style.svg(theory_figures.resolution(rope, scalings), "theory-3", title, picture.caption)

    assert part.pictures[-1].svg == drawn(Yarn(4.0, 64.0, 4.0)) != drawn(Yarn(4.0))


def test_thresholds_that_are_not_on_record_are_said_and_not_drawn(tmp_path):
    """As records were before schema 1: method and factor."""
    path = written(tmp_path / "t.jsonl", Rope(64, 10000.0, 256), 1024)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        if row["kind"] == "theory_resolution":
            scaling = row.pop("scaling")
            row |= {"method": scaling["method"], "factor": scaling["factor"]}
    path.write_text("\n".join(map(json.dumps, rows)))
    part = section(clean(records.read([path])))
    assert "Not drawn, because their thresholds are not on record: ABF ×4, YaRN ×4, Llama 3 scaling ×4." in part.notes
    assert "PI ×4" in part.pictures[-1].svg and "YaRN" not in part.pictures[-1].svg
    assert "YaRN ×4" in [line.label for table in part.tables for line in table.lines]


def test_a_window_that_was_looked_at_in_steps_is_said_to_be(tmp_path):
    part = section(clean(records.read([written(tmp_path / "t.jsonl", Rope(8, 10000.0, 2048), 600_000)])))
    assert "600000 tokens (one in 3 looked at)" in part.lead


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        ("theory_bounds", {"head_dim": 2 * 10**9}),
        ("theory_bounds", {"head_dim": 7}),
        ("theory_bounds", {"rope_theta": 0.5}),
        ("theory_bounds", {"reach": 10**12}),
        ("theory_resolution", {"scaling": {"method": "guess"}}),
        ("theory_resolution", {"scaling": {"method": "linear", "factor": 0.5}}),
        ("theory_resolution", {"bands": [{"name": "fast"}]}),
        ("theory_growth", {"distances": None}),
    ],
)
def test_rows_that_were_edited_into_nonsense_leave_the_section_out(tmp_path, kind, damage):
    path = written(tmp_path / "t.jsonl", Rope(64, 10000.0, 256), 1024)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("\n".join(json.dumps(row | damage if row["kind"] == kind else row) for row in rows))
    kept = clean(records.read([path]))
    if kept.left_out.malformed:
        assert not kept.of(records.KINDS[kind])
    else:
        assert section(kept) is None


def test_the_theory_beside_a_measurement_is_no_mixture(tmp_path):
    """It reads a config, on a CPU in float64 with no seed of its own, wherever the models were measured."""
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    before = cautions(clean(records.read([path])))
    theory = records.new_run(made_up.BASE, device="cpu", dtype="float64", seed=7, command="ropewalk theory")
    recorder = records.Recorder(path, theory)
    for row in forecast(Rope(32, 10000.0, 256), 1024, seeds=2).rows:
        recorder.add(row)
    after = cautions(clean(records.read([path])))
    assert not any("devices" in said or "number formats" in said or "seeds" in said for said in [*before, *after])
