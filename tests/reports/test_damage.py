"""The price of a longer window beside a control that read the same at the old one. Rows are made up; no document scatters, so that differences are exact."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

import made_up
from grid_pages import page_of, table, trained
from ropewalk import records
from ropewalk.reports import render


def control(name: str, nll: float, **differs):
    """A row of `ablate` that was trained at the old window."""
    row = {"name": f"hemp/{name}", "method": "control", "tokens": 2**20, "learning_rate": 1e-4, "seed": 0, "data": "books"}  # fmt: skip
    state = dataclasses.replace(made_up.BASE, name=row["name"], steps=20)
    return state, {"row": row | differs}, [made_up.row(nll)]


def prices(path: Path, *states) -> tuple[list[str], str]:
    """The cells of YaRN's line, and the page's words; the base's loss is 2.0 and YaRN's 1.9."""
    page = page_of(path, trained("linear", "l", 2.2), trained("yarn", "y", 1.9), *states)
    return table(page, "1M training tokens")["YaRN ×4, 20 steps"], made_up.words(page)


def test_what_the_text_taught_is_told_from_the_price_of_the_window(tmp_path):
    cells, text = prices(tmp_path / "r.jsonl", control("c", 1.7))
    assert cells[1:3] == ["−0.100 −0.100 to −0.100", "+0.200 +0.200 to +0.200"]
    assert (
        "Loss at 256 tokens above the base's: −0.100 (95 % interval −0.100 to −0.100) nats; above a control's that read as many tokens of this text there, "
        "the price of the longer window: +0.200 (95 % interval +0.200 to +0.200) nats." in text
    )


@pytest.mark.parametrize("differs", [{"tokens": 2**19}, {"data": "mathematics"}, {"seed": 1}])
def test_what_read_something_else_is_no_control(tmp_path, differs):
    cells, text = prices(tmp_path / "r.jsonl", control("c", 1.7, **differs))
    assert cells[2].startswith("6.69")  # there is no such column: perplexity at the window follows
    assert "above a control's" not in text


def test_of_several_controls_that_by_the_same_rate_counts_and_else_the_best(tmp_path):
    others = [control(f"c{rate:g}", nll, learning_rate=rate) for rate, nll in ((3e-4, 1.6), (1e-3, 1.5))]
    assert prices(tmp_path / "same.jsonl", control("c", 1.7), *others)[0][2].startswith("+0.200")
    assert prices(tmp_path / "best.jsonl", *others)[0][2].startswith("+0.400")


def test_a_missing_control_is_not_known(tmp_path):
    said = "is on record, trained at the old window on as many tokens (ablate --methods control)"
    assert f"No control {said}" in prices(tmp_path / "without.jsonl")[1].split("Not known")[1]
    assert said not in prices(tmp_path / "with.jsonl", control("c", 1.7))[1]
    other = trained("ntk", "n", 1.8, seed=3)
    assert f"No control of NTK ×4 {said}" in prices(tmp_path / "some.jsonl", control("c", 1.7), other)[1]


def test_seeds_are_each_held_against_the_control_of_their_own(tmp_path):
    """+0.2 and +0.1 nats: 0.15 ± 12.706 · 0.05."""
    seeds = [trained("yarn", "y1", 1.9, seed=1), control("c0", 1.7), control("c1", 1.8, seed=1)]
    page = page_of(tmp_path / "r.jsonl", trained("linear", "l", 2.2), trained("yarn", "y", 1.9), *seeds)
    cells = table(page, "1M training tokens")["YaRN ×4, 20 steps, 2 seeds mean"]
    assert cells[2] == "+0.150 −0.485 to +0.785 seeds +0.100 to +0.200"
    assert "price of the longer window: +0.150 (95 % interval −0.485 to +0.785) nats." in made_up.words(page)


def test_the_figure_against_the_base_is_of_all_seeds_though_the_control_has_one(tmp_path):
    """Both were cut to the seeds of the control."""
    states = [trained("linear", "l", 2.2), trained("yarn", "y", 1.9), trained("yarn", "y1", 2.1, seed=1), control("c0", 1.7)]  # fmt: skip
    text = made_up.words(page_of(tmp_path / "r.jsonl", *states))
    changes = np.array([1.9, 2.1]) - 2.0
    reach = 12.706 * changes.std(ddof=1) / np.sqrt(2)
    mean, low, high = (f"{figure:+.3f}".replace("-", "−").replace("−0.000", "+0.000") for figure in (changes.mean(), changes.mean() - reach, changes.mean() + reach))  # fmt: skip
    own = re.search(r"above the base's: ([+−]0.000) (\(.*?\)) nats; above a control's", text)
    assert own and own[2] == f"(95 % interval {low} to {high})" and mean == "+0.000"
    assert "price of the longer window: +0.200 (95 % interval +0.200 to +0.200) nats, of seed 0 alone." in text


def test_the_price_is_told_where_the_base_was_not_measured(tmp_path):
    """The control had read the old window, and the verdict had no word of it: the first model of the lab's page has no row of its base."""
    path = tmp_path / "r.jsonl"
    for state, settings, rows in (trained("linear", "l", 2.2), trained("yarn", "y", 1.9), control("c", 1.7)):
        made_up.record_rows(path, (state, *rows), settings=settings)
    assert (
        "Loss at 256 tokens above a control's that read as many tokens of this text there, the price of the longer window: "
        "+0.200 (95 % interval +0.200 to +0.200) nats." in made_up.words(render(records.read([path])))
    )
