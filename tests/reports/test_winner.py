"""Which method a page names as the winner, by what, and when none. Rows are made up, or those of the lab."""

from __future__ import annotations

import csv
import math
import re
from pathlib import Path

import numpy as np
import pytest

import made_up
from grid_pages import contest_of, page_of, passkeys, table, trained, with_keys
from ropewalk import records
from ropewalk.reports import render, report
from ropewalk.reports.methods import RULE

LAB = Path(__file__).resolve().parents[2] / "lab/records/a/hemp"
LABEL = re.compile(r"\\label\{tab:[A-Za-z0-9.-]*tables-([0-9a-f]{6})-")


@pytest.mark.parametrize(
    ("yarn", "linear", "told"),
    [
        # (share of the keys, nll) of YaRN and of PI
        (
            (1.0, 2.3),
            (0.3, 2.1),
            r"YaRN ×4 wins by k_max: 1024 [^;]* against 320 [^;]*\. Yet PI ×4 reads better at 256 tokens \(8.17 against 9.97\) and at 1024 \(8.17 against 9.97\)\. Rule:",
        ),
        (
            (1.0, 2.1),
            (1.0, 2.3),
            r"YaRN ×4 wins by perplexity: −18.1 % [^;]*paired over 5 documents\); 8.17 .* against 9.97 .* of PI ×4\. Rule",
        ),
        ((1.0, 2.1), (1.0, 2.1), "No winner among 2 methods at 1024 tokens .*do not tell apart"),
        ((None, 2.1), (None, 2.3), "YaRN ×4 wins by perplexity"),
        ((1.0, 2.3), (None, 2.1), "PI ×4 wins by perplexity"),  # keys were asked of one alone
    ],
)
def test_the_winner_is_named_by_passkeys_then_perplexity_or_nobody_is(tmp_path, yarn, linear, told):
    states = [
        with_keys(trained(method, method, nll), share) if share is not None else trained(method, method, nll)
        for method, (share, nll) in (("yarn", yarn), ("linear", linear))
    ]
    page = made_up.words(page_of(tmp_path / "r.jsonl", *states))
    assert re.search(told, page)
    heading = page.split("ropewalk report")[0]
    won = told.split(":")[0]  # by what it won stands in the heading too
    assert ("no winner at 1024 tokens" if "No winner" in told else f"{won} at 1024 tokens") in heading
    assert heading.strip().startswith("A longer window for hemp:")


def test_a_measure_that_decides_among_those_an_earlier_one_left_is_named_with_it(tmp_path):
    """ "Of 9 methods ABF wins by perplexity" stood before five that read better: passkeys had set those behind."""
    shares = {"ntk": (1.0, 2.0), "yarn": (1.0, 2.2), "linear": (0.3, 1.8), "plain": (0.3, 1.9)}
    few = [*((trained(name, name, nll), share) for name, (share, nll) in shares.items())]
    page = page_of(tmp_path / "r.jsonl", *(with_keys(state, share) for state, share in few))
    text = made_up.words(page).replace("\u202f", " ")
    label = re.search(r"hemp: (NTK ×4|ABF ×4)", text)[1]
    heading = f"{label} wins by perplexity among those level by k_max at 1024 tokens of held-out"
    assert f"hemp: {heading}" in text
    assert (
        f"Of 4 methods at 1024 tokens of held-out after 1M training tokens, {label} wins by k_max, level with YaRN ×4, and of these 2 by perplexity: "
        in text
    )
    ours, theirs, best = (f"{math.exp(nll):.2f}" for nll in (2.0, 2.2, 1.8))
    assert re.search(rf"; {ours} [^,]*, against {theirs} .*? of YaRN ×4\. Yet PI ×4 reads better .*?{best}", text)
    three = [with_keys(state, 1.0 if place < 3 else share) for place, (state, share) in enumerate(few)]
    text = made_up.words(page_of(tmp_path / "three.jsonl", *three, with_keys(trained("cope", "c", 2.3), 1.0)))
    assert "PI ×4 wins by k_max, level with 3 others, and of these 4 by perplexity" in text


def test_a_method_whose_seeds_scatter_over_another_wins_nothing(tmp_path):
    """Each seed by itself is paired with an interval of no width: it is the spread of seeds that leaves it open."""
    seeds = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in enumerate((2.0, 2.1, 2.3))]
    page = made_up.words(page_of(tmp_path / "r.jsonl", *seeds, trained("linear", "l", 2.2)))
    assert "No winner among 2 methods" in page


def test_seeds_that_were_asked_the_same_prompts_are_not_as_many_prompts_more(tmp_path):
    """All of the keys by one seed and half by the other: that says next to nothing of a third, however many prompts they were asked."""
    yarn = [with_keys(trained("yarn", f"y{n}", 2.1, seed=n), share) for n, share in enumerate((1.0, 0.5))]
    linear = [with_keys(trained("linear", f"l{n}", 2.2, seed=n), 0.0) for n in range(2)]
    page = page_of(tmp_path / "r.jsonl", *yarn, *linear)
    text = made_up.words(page)
    (both,) = [each for each in contest_of(tmp_path / "r.jsonl").contenders if each.label.startswith("YaRN")]
    assert both.figures["passkeys found"] == (0.75, 0.0, 1.0)
    assert "YaRN ×4 wins by perplexity" in text and RULE in text
    assert "In a line of several seeds: their mean, its interval" in text
    report([tmp_path / "r.jsonl"], tmp_path / "page.html", tables=tmp_path / "tables")
    with (tmp_path / "tables/passkey-1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (seeds,) = [row for row in rows if next(iter(row.values())).startswith("YaRN")]
    names = ("k_max low", "k_max high", "k_max least", "k_max largest", "k_max seeds")
    assert [float(seeds[name]) for name in names] == [0, 1024, 512, 1024, 2]


def test_a_winner_that_training_made_worse_is_said_so_and_the_second_is_by_the_same_rule(tmp_path):
    """Before training YaRN found all and PI nothing; afterwards YaRN finds a quarter, and PI and NTK nothing, NTK at the lower perplexity."""
    before = [
        (made_up.extended(4, 0, method, name=f"hemp/{method}-0"), {"row": {"name": f"hemp/{method}-0", "method": method}},
         [made_up.row(nll), made_up.row(nll, 1024), *passkeys(share)])
        for method, nll, share in (("yarn", 2.1, 1.0), ("linear", 2.4, 0.0))
    ]  # fmt: skip
    after = [
        with_keys(trained(method, method[0], nll), share)
        for method, nll, share in (("yarn", 2.2, 0.25), ("linear", 2.3, 0.0), ("ntk", 2.15, 0.0))
    ]
    text = made_up.words(page_of(tmp_path / "r.jsonl", *before, *after))
    assert "YaRN ×4 wins by k_max at 1024 tokens after 1M training tokens, worse than before its training" in text
    assert re.search(r"Training made YaRN ×4 worse at 1024 tokens: k_max 256 .*?, before it 1024 ", text)
    assert re.search(r"wins by k_max: 256 [^,]*, against 0 .*? of NTK", text)


def test_who_is_ahead_by_another_measure_stands_in_the_winners_sentence(tmp_path):
    """The page named ABF by passkeys and the README YaRN by its loss at the old window, on the same records, and neither said of the other."""
    abf, yarn = (
        with_keys(trained(name, name, nll, windows=(256,)), share)
        for name, nll, share in (("ntk", 2.2, 1.0), ("yarn", 2.1, 0.5))
    )
    abf[2].append(made_up.row(2.3, 1024))
    yarn[2].append(made_up.row(2.25, 1024))
    path = tmp_path / "r.jsonl"
    text = made_up.words(page_of(path, abf, yarn))
    ahead = "YaRN ×4 reads better at 256 tokens (8.17 against 9.03) and at 1024 (9.49 against 9.97)"
    sentence = re.search(r"Of 2 methods.*?Rule: [^.]*\.", text)[0]
    assert re.search(rf"NTK[^;]* wins by k_max: 1024 [^;]*\. Yet {re.escape(ahead)}\. Rule: k_max, then", sentence)
    for (state, settings, _), seconds in ((abf, 20.0), (yarn, 10.0)):
        recorder = records.Recorder(path, made_up.run(state, f"ablate {state.name}", settings=settings))
        for step in range(1, 21):
            recorder.add(records.Step(step, 3.0, 1e-4, 0.5, 2**20 // 20, 100.0, seconds))
    text = made_up.words(render(records.read([path])))
    assert f"{ahead}. Rule" in text and "faster" not in text  # methods do the same arithmetic: the machine was busier


def test_the_winners_interval_over_seeds_is_that_of_the_table_and_of_losses(tmp_path):
    """It began at 0.00, where the table's began at 1.00; documents do not scatter, so that Student's of two seeds is all of it."""
    nats = np.array([2.0, 2.3])
    seeds = [trained("ntk", f"n{seed}", nll, seed=seed) for seed, nll in enumerate(nats)]
    page = page_of(tmp_path / "r.jsonl", *seeds, trained("yarn", "y", 4.9))
    reach = 12.7062 * nats.std(ddof=1) / np.sqrt(2)
    mean, low, high = np.exp(nats.mean()), max(np.exp(nats.mean() - reach), 1), np.exp(nats.mean() + reach)
    interval = f"{low:.2f} to {high:.2f}"
    text = made_up.words(page).replace("\u202f", " ")
    assert f"; {mean:.2f} (2 seeds, 95 % interval {interval})" in text
    assert table(page, "Perplexity, ")["NTK ×4, 20 steps, 2 seeds mean"][0].startswith(f"{mean:.2f} {interval}")
    assert "YaRN ×4 was trained with one seed: by how much another would differ is not known" in text
    assert "NTK ×4 and" not in text.split("Not known")[1]


def test_what_training_made_worse_by_perplexity_has_the_paired_difference(tmp_path):
    """Two intervals that overlap stood beside "worse", which rests on the difference of pairs."""
    nats, before = np.array([2.30, 2.31]), 2.1
    untrained = (made_up.extended(4, 0, "yarn", name="hemp/yarn-0"), {"row": {"name": "hemp/yarn-0", "method": "yarn"}}, [made_up.row(before, 1024)])  # fmt: skip
    other = (made_up.extended(4, 0, "linear", name="hemp/l-0"), {"row": {"name": "hemp/l-0", "method": "linear"}}, [made_up.row(2.9, 1024)])  # fmt: skip
    seeds = [trained("yarn", f"y{seed}", nll, seed=seed) for seed, nll in enumerate(nats)]
    text = made_up.words(page_of(tmp_path / "r.jsonl", untrained, other, *seeds, trained("linear", "l", 2.9)))
    change, reach = nats.mean() - before, 12.7062 * nats.std(ddof=1) / np.sqrt(2)
    figures = f"perplexity {np.exp(nats.mean()):.2f}, before it {np.exp(before):.2f}: {change:+.3f} (95 % interval {change - reach:+.3f} to {change + reach:+.3f}) nats a token"
    assert f"Training made YaRN ×4 worse at 1024 tokens: {figures}." in text.replace("\u202f", " ")
