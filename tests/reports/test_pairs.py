"""Methods against the winner: differences whose sign and size are known, and over whose seeds they are."""

from __future__ import annotations

import csv
import re

import pytest

import made_up
from grid_pages import page_of, table, trained
from ropewalk import records, report


def retrieval(right: str) -> records.Retrieval:
    """Prompts of one family, right where there is a 1."""
    each = [{"placed": 10 * place, "right": sign == "1"} for place, sign in enumerate(right)]
    return records.Retrieval(1024, "keys", len(right), right.count("1"), 0.0, 1.0, per_trial=each)


def with_rows(state, *rows):
    return (*state[:2], [*state[2], *rows])


def test_each_method_is_given_by_its_differences_from_the_winner(tmp_path):
    """Documents do not scatter: losses differ exactly. Of 40 prompts 10 were lost and 2 gained: -20 points, and McNemar's test is sure of it."""
    yarn = with_rows(trained("yarn", "y", 2.0), retrieval("1" * 30 + "0" * 10))
    linear = with_rows(trained("linear", "l", 2.2), retrieval("1" * 20 + "0" * 10 + "1" * 2 + "0" * 8))
    page = page_of(tmp_path / "r.jsonl", yarn, linear, trained("ntk", "n", 2.1))
    lines = table(page, r"Against the winner, YaRN ×4 \(seed 0\); 1M training tokens")
    assert set(lines) == {"PI ×4", "NTK ×4"}
    assert lines["PI ×4"][:2] == ["+0.200 +0.200 to +0.200"] * 2
    share, low, high = map(float, re.findall(r"[+-][\d.]+", lines["PI ×4"][2].replace("−", "-")))
    assert share == -20.0 and low < share < high < 0
    assert lines["NTK ×4"][2:4] == ["", "0"]  # was not asked


def test_files_of_tables_have_points_and_bold_as_the_page_has(tmp_path):
    yarn = with_rows(trained("yarn", "y", 2.0), retrieval("1" * 30 + "0" * 10))
    linear = with_rows(trained("linear", "l", 2.2), retrieval("1" * 20 + "0" * 10 + "1" * 2 + "0" * 8))
    page_of(tmp_path / "r.jsonl", yarn, linear)
    report([tmp_path / "r.jsonl"], tmp_path / "page.html", tables=tmp_path / "tables", overwrite=True)
    index = (tmp_path / "tables/index.md").read_text(encoding="utf-8")
    name = re.search(r"`(\S+)`: Against the winner", index)[1]
    place = tmp_path / "tables" / name
    with place.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["retrieval points"]) == -20.0 and float(row["loss at 1024 nats"]) == pytest.approx(0.2)
    assert r"\textbf{+0.200}" in place.with_suffix(".tex").read_text(encoding="utf-8")
    assert "**+0.200**" in place.with_suffix(".md").read_text(encoding="utf-8")


def test_seeds_of_both_methods_scatter(tmp_path):
    """Seeds at 2.0 and 2.1 against one at 2.3: 0.25 less, and Student's 12.706 of 0.05 to either side, which is no win."""
    seeds = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in enumerate((2.0, 2.1))]
    page = page_of(tmp_path / "r.jsonl", *seeds, trained("linear", "l", 2.3))
    lines = table(page, r"Against the best, though no winner, YaRN ×4 \(seeds 0, 1\)")
    assert lines["PI ×4"][0] == "+0.250 −0.385 to +0.885"
    assert "No winner among 2 methods" in made_up.words(page)


def test_the_same_seeds_are_paired(tmp_path):
    """0.2 and 0.4 more by seed, whatever order they were measured in: 0.3 and Student's 12.706 of 0.1 to either side; seeds by themselves would scatter by 0.05 and 0.15."""
    yarn = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in ((0, 2.0), (1, 2.1))]
    linear = [trained("linear", f"l{seed}", nll, seed=seed) for seed, nll in ((1, 2.5), (0, 2.2))]
    page = page_of(tmp_path / "r.jsonl", *yarn, *linear)
    assert table(page, "Against the")["PI ×4"][0] == "+0.300 −0.971 to +1.571"
    assert "seed by seed over the seeds that a method and YaRN ×4 both have" in made_up.words(page)


def test_seeds_that_differ_alike_tell_methods_apart(tmp_path):
    """Seeds scatter by 0.4 and methods by 0.2 in each seed."""
    seeds = [trained("yarn", f"y{seed}", 2.0 + 0.4 * seed, seed=seed) for seed in (0, 1)]
    seeds += [trained("linear", f"l{seed}", 2.2 + 0.4 * seed, seed=seed) for seed in (0, 1)]
    page = page_of(tmp_path / "r.jsonl", *seeds)
    assert table(page, "Against the winner, YaRN")["PI ×4"][0] == "+0.200 +0.200 to +0.200"


def test_a_further_seed_of_one_method_leaves_the_others_paired(tmp_path):
    seeds = [trained("yarn", f"y{seed}", 2.0 + 0.4 * seed, seed=seed) for seed in (0, 1, 2)]
    seeds += [trained("linear", f"l{seed}", 2.2 + 0.4 * seed, seed=seed) for seed in (0, 1)]
    page = page_of(tmp_path / "r.jsonl", *seeds)
    found = table(page, "Against the winner, YaRN")["PI ×4"]
    assert found[0] == "+0.200 +0.200 to +0.200" and "of seeds 0, 1 alone" in " ".join(found)


def test_other_prompts_are_no_pair(tmp_path):
    other = records.Retrieval(1024, "keys", 1, 1, 0.0, 1.0, per_trial=[{"placed": 5, "right": True}])
    page = page_of(
        tmp_path / "r.jsonl",
        with_rows(trained("yarn", "y", 2.0), retrieval("1")),
        with_rows(trained("linear", "l", 2.2), other),
    )
    assert len(table(page, "Against the winner")["PI ×4"]) == 4  # two losses, the seeds, and what follows the last cell
