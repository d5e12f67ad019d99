"""What a page that compares methods names and draws: settings in which they differ, the winner and the base, seeds as one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import made_up
from grid_pages import recorded, trained
from ropewalk import records
from ropewalk.records import format as number_format
from ropewalk.records.variant import labels, variant_of
from ropewalk.reports import ablation, comparable, gain, losses, passkey, provenance, verdict, words
from ropewalk.reports.drawn import to_draw
from ropewalk.reports.rows import Clean, clean


def rows_of(path: Path, *states) -> Clean:
    return clean(recorded(path, *states))


@pytest.mark.parametrize(
    ("differs", "told"),
    [
        ({"learning_rate": 1e-3}, ("(learning rate 0.001)", "(learning rate 0.0001)")),
        ({"warmup": 10}, ("(warmup 10)", "")),
        ({"step_tokens": 2**19}, ("(step tokens 512k)", "")),
        ({}, ("", "")),
    ],
)
def test_methods_that_were_not_trained_alike_are_not_said_to_be(tmp_path, differs, told):
    """The page said that only the method differed, of PI at 1e-3 and YaRN at 3e-4."""
    page = rows_of(tmp_path / "r.jsonl", trained("linear", "pi", 2.2, **differs), trained("yarn", "yarn", 2.1))
    block, against = ablation.section(page).tables
    names = [f"{name} {setting}".strip() for name, setting in zip(("PI ×4", "YaRN ×4"), told, strict=True)]
    steps = [name.replace("×4", "×4, 20 steps") for name in names]
    assert [line.label for line in block.lines] == steps
    assert [line.label for line in against.lines] == names[:1] and f"winner, {names[1]} (seed 0);" in against.caption
    care = [each for each in provenance.cautions(page) if "Not trained alike" in each]
    assert len(care) == bool(differs)
    if differs:
        assert f"{told[0].strip('()')} (PI ×4)" in care[0] and "chosen for its method is not on record" in care[0]


def test_methods_of_which_several_rates_were_measured_are_said_to_be_the_best(tmp_path):
    states = [
        trained(method, f"{method}-{rate}", nll + (rate != best) / 10, learning_rate=rate)
        for method, nll, best in (("linear", 2.2, 1e-3), ("yarn", 2.1, 3e-4))
        for rate in (1e-3, 3e-4)
    ]
    (care,) = [each for each in provenance.cautions(rows_of(tmp_path / "r.jsonl", *states)) if "Not trained" in each]
    assert "of each several were measured, and the best stands for its method." in care


def test_winner_and_base_are_drawn_whatever_the_order_and_seeds_are_one_line(tmp_path):
    """Three seeds of the first two methods stood for all; the winner was left out."""
    settings = [(method, rate) for method in ("linear", "ntk", "cope") for rate in (1e-3, 3e-4, 1e-4)][:7]
    states = [trained(method, f"{method}-{rate}", 2.3, learning_rate=rate) for method, rate in settings]
    states += [trained("yarn", f"y{seed}", 2.0 + seed / 100, seed=seed) for seed in range(3)]
    page = rows_of(tmp_path / "r.jsonl", *states)
    variants = dict.fromkeys(m.variant for m in page.of(records.Perplexity))
    values = {
        (v, v.window): (0.0 if v.method == "yarn" and v.recipe.word == "" else 1.0) for v in variants
    }  # the winner is the worst here
    drawn, left_out = to_draw(page, values)
    names = [each.title for each in drawn]
    (winner,) = [each for each in drawn if len(each.seeds) > 1]
    assert "3 seeds, 1024" in winner.title and "base, 256" in names
    assert len(drawn) == 8 and left_out == " Drawn are 8 of 9 lines; all are in the table."


def test_a_legend_counts_the_seeds_that_are_drawn(tmp_path):
    seeds = [trained("yarn", f"y{seed}", 2.0 + seed / 100, seed=seed) for seed in range(3)]
    page = rows_of(tmp_path / "r.jsonl", *seeds)
    variants = [m.variant for m in page.of(records.Perplexity) if m.variant.extended and m.row.window == 1024]
    drawn, _ = to_draw(page, {**{(v, 256): 1.0 for v in variants}, **{(v, 1024): 1.0 for v in variants[:1]}})
    assert sorted(each.title for each in drawn) == ["YaRN ×4, 20 steps, 1024", "YaRN ×4, 20 steps, 3 seeds, 256"]


@pytest.mark.parametrize(
    ("tokens", "name"), [(20 * 2**20, "20M"), (2**19, "512k"), (20_000_000, "20 M"), (1000, "1 k"), (None, "–")]
)
def test_a_budget_has_the_name_that_it_is_typed_by(tokens, name):
    assert number_format.tokens(tokens) == name


def test_a_page_says_what_its_budget_is_and_calls_it_the_same_everywhere(tmp_path):
    states = [trained(method, method, 2.2, tokens=20 * 2**20) for method in ("linear", "yarn")]
    page = rows_of(tmp_path / "r.jsonl", *states)
    assert dict(words.words(page))["20M tokens"] == "20 × 2²⁰ = 20\u202f971\u202f520, as a budget is typed"
    (said,) = verdict.verdicts(page)
    assert "20M training tokens" in said.sentences[0] and "(20M tokens)" in said.sentences[1]
    assert ablation.section(page).tables[0].caption.startswith("20M training tokens")


def test_a_control_that_is_interpolated_is_not_called_untrained():
    """It was "control ×4, before training", after 200 steps."""
    row = {"name": "hemp/c", "method": "control", "seed": 0, "tokens": 200 * 2**19, "step_tokens": 2**19}
    header = made_up.run(made_up.extended(4, 0, name="hemp/c"), "ropewalk ablate", settings={"row": row})
    recipe = records.recipe.recipe_of(header)
    control = variant_of(header.model, 1024, recipe)
    assert labels([control, variant_of(made_up.extended(), 1024)])[control] == "control, 200 steps, interpolated"


@pytest.mark.parametrize(("low", "shown"), [(-0.02, False), (0.01, True)])
def test_a_gain_that_may_be_none_is_said_to_show_none(tmp_path, low, shown):
    state = trained("yarn", "y", 2.1)
    state[2].append(made_up.gain(1024, 0.06, low, 0.15))
    page = rows_of(tmp_path / "r.jsonl", state)
    (variant,) = {m.model_variant for m in page.of(records.ContextGain)}
    assert ("which does not show that context beyond" in gain.sentence(page, [variant])) is not shown


def test_seeds_share_a_passkey_map(tmp_path):
    """Seventeen stood in a row."""
    states = [trained("yarn", f"y{seed}", 2.1, seed=seed) for seed in range(3)]
    for seed, state in enumerate(states):
        state[2].extend([records.Passkey(1024, 512, 5, 5 - seed), records.PasskeySummary(1024, 512, 1, 5, 1.0)])
    (drawn,) = passkey.section(rows_of(tmp_path / "r.jsonl", *states)).pictures
    assert drawn.title == "YaRN ×4, 20 steps, 3 seeds"
    assert drawn.caption.startswith("15 trials of all seeds a cell") and "k_max, the mean of the seeds" in drawn.caption


def test_a_window_with_which_nothing_is_compared_is_no_caution(tmp_path):
    """A stride of 32 tokens was complained of at a quarter window."""
    rows = [made_up.perplexity(window, nll, stride=32) for window, nll in ((64, 2.4), (256, 2.2), (1024, 2.1))]
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, *rows[:2]), (made_up.extended(4), *rows))
    page = clean(records.read([path]))
    assert all(row.caveat for row in rows[:1]) and not rows[1].caveat
    assert not any("at stride 32" in each for each in provenance.cautions(page))
    assert [group.caveat for group in comparable.groups(page)] == [""]


def test_seeds_of_a_training_share_a_name_in_its_figure(tmp_path):
    states = [
        (*trained("yarn", f"y{seed}", 2.1, seed=seed)[:2], [records.Step(s, 3.0, 1e-4, 0.5, 2**20, 9.0, 9.0) for s in (1, 2)])
        for seed in range(2)
    ]  # fmt: skip
    (picture,) = losses.section(rows_of(tmp_path / "r.jsonl", *states, trained("linear", "p", 2.2))).pictures
    assert len(re.findall(r">YaRN ×4 to 1024, 2 seeds<|running mean", str(picture.svg))) <= 1
