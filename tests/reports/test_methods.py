"""Methods beside each other: what shares a row and what does not. Rows are made up, or those of the lab."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.reports import render

LAB = Path(__file__).resolve().parents[2] / "lab/records/a/hemp"


def trained(method: str, name: str, nll: float, windows: tuple[int, ...] = (256, 1024), **differs):
    """(model, header's settings, rows) of a row of `ablate`, as `made_up.record_rows` has no settings."""
    row = {"name": f"hemp/{name}", "method": method, "tokens": 2**20, "learning_rate": 1e-4, "seed": 0, "data": "books"}
    state = made_up.extended(4, 20, method if method not in ("cope", "p-rope") else "yarn", name=f"hemp/{name}")
    return state, {"row": row | differs}, [made_up.row(nll, window) for window in windows]


def page_of(path: Path, *states) -> str:
    base = (dataclasses.replace(made_up.BASE, name="hemp/none"), {"row": {"name": "hemp/none", "method": "none"}})
    for state, settings, rows in ((*base, [made_up.row(2.0)]), *states):
        recorder = records.Recorder(path, made_up.run(state, f"ropewalk ablate {state.name}", settings=settings))
        for row in rows:
            recorder.add(row)
    return render(records.read([path]))


def table(page: str, caption: str) -> dict[str, list[str]]:
    """Label → the text of its cells, of the first table whose caption begins so."""
    body = re.search(rf"<caption>{caption}.*?</table>", page, re.DOTALL)
    lines = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', body[0], re.DOTALL)
    return {
        made_up.words(label).strip(): [made_up.words(c).strip() for c in cells.split("</td>")] for label, cells in lines
    }


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"data": "mathematics"}, ("(books)", "(mathematics)")),
        ({"learning_rate": 3e-4}, ("(learning rate 0.0001)", "(learning rate 0.0003)")),
        ({"tokens": 2**22}, ("(tokens 1048576)", "(tokens 4194304)")),
        ({}, ("(hemp/first)", "(hemp/second)")),
    ],
)
def test_runs_that_differ_never_share_a_row(tmp_path, differs, told):
    """Two runs of PI with as many steps each were one row."""
    page = page_of(tmp_path / "r.jsonl", trained("linear", "first", 2.1), trained("linear", "second", 2.2, **differs))
    lines = table(page, "Perplexity, ")
    for end, nll in zip(told, (2.1, 2.2), strict=True):
        assert lines[f"PI ×4, 20 steps {end}"][0].startswith(f"{math.exp(nll):.2f}")


def test_seeds_are_one_row_with_mean_and_spread(tmp_path):
    seeds = [trained("linear", f"s{seed}", nll, seed=seed) for seed, nll in enumerate((2.0, 2.1, 2.4))]
    page = page_of(tmp_path / "r.jsonl", *seeds, trained("yarn", "y", 2.2))
    lines = table(page, "Perplexity, ")
    mean, least, largest = sum(map(math.exp, (2.0, 2.1, 2.4))) / 3, math.exp(2.0), math.exp(2.4)
    cells = lines["PI ×4, 20 steps, 3 seeds mean (least to largest) of 3 seeds"]
    assert cells[0] == f"{mean:.2f} {least:.2f} to {largest:.2f}"
    assert len([label for label in lines if label.startswith("PI")]) == 1
    assert len(set(re.findall(r'<i style="background:(#\w+)"></i>PI ×4, 20 steps', page))) == 1, "one colour"


def test_methods_that_a_config_has_as_factors_keep_their_names_and_colours(tmp_path):
    page = page_of(tmp_path / "r.jsonl", trained("cope", "c", 2.1), trained("p-rope", "p", 2.2))
    colours = dict(re.findall(r'<i style="background:(#\w+)"></i>((?:CoPE|p-RoPE) ×4, 20 steps)', page))
    assert sorted(colours.values()) == ["CoPE ×4, 20 steps", "p-RoPE ×4, 20 steps"]


def test_a_base_that_was_trained_on_does_not_hide_the_base():
    lines = table(lab_page(), "Perplexity, ")
    assert {"base", "base, 16 steps more"} <= lines.keys()


@functools.cache
def lab_page() -> str:
    return render(records.read(sorted(LAB.glob("*.jsonl"))))


def test_checkpoints_of_one_train_are_one_row_and_those_of_another_are_not(tmp_path):
    """The records of `train` say where it wrote; two runs there differ in their data."""
    path = tmp_path / "r.jsonl"
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)))
    for place, data in (("runs/a", ["books"]), ("runs/b", ["code"])):
        settings = {"out": place, "data": data, "learning_rate": 2e-5, "batch_size": 2}
        header = made_up.run(made_up.extended(), f"ropewalk train {place}", settings=settings)
        made_up.steps(records.Recorder(path, header), 20)
        for steps, name in ((10, f"{place}/checkpoints/step-000010"), (20, place)):
            made_up.record_rows(path, (made_up.extended(4, steps, name=name), made_up.row(2.1 + steps / 100, 1024)))
    page = render(records.read([path]))
    assert {"PI ×4, 20 steps (books)", "PI ×4, 20 steps (code)"} <= table(page, "Perplexity, ").keys()
    assert len(table(page, "Perplexity by fine-tuning steps")) == 2
    assert {"PI ×4 to 1024 (books) cpu", "PI ×4 to 1024 (code) cpu"} <= table(page, "What each training").keys()
