"""Which methods a page compares: rows of several texts, windows, rates and budgets on one page. All rows are made up, or those of the lab."""

from __future__ import annotations

import dataclasses
import math
import re
import shutil
from pathlib import Path

import pytest

import made_up
import ropewalk
from grid_pages import page_of, recorded, table, trained
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.reports import benchmarks, gain, render, training
from ropewalk.reports.contests import contest, contests
from ropewalk.reports.rows import clean

LAB = Path(__file__).resolve().parents[2] / "lab/records/a"
GRID = {"test": "books/test", "validation": "books/validation"}


def on(data: str, state):
    return (*state[:2], [dataclasses.replace(row, data=data) for row in state[2]])


def verdict_of(tmp_path: Path, *states) -> str:
    text = made_up.words(page_of(tmp_path / "r.jsonl", *states)).split("Not known")[0]
    return text.replace("\u202f", " ").replace("\u00a0", " ")


def test_a_test_text_goes_before_the_validation_text_on_which_more_was_measured(tmp_path):
    """Rates are chosen on the validation text, so that the best there is flattered."""
    states = [on("books/test", trained(method, f"{method}-t", nll, **GRID)) for method, nll in (("yarn", 2.1), ("linear", 2.2))]  # fmt: skip
    for method in ("yarn", "linear", "ntk"):
        for rate in (1e-4, 3e-4, 1e-3):
            states.append(on("books/validation", trained(method, f"{method}-{rate}", 2.0 + rate, learning_rate=rate, **GRID)))  # fmt: skip
    text = verdict_of(tmp_path, *states)
    heading, sentence = (
        "YaRN ×4 wins by perplexity at 1024 tokens of books/test after 1M training tokens",
        "Of 2 methods",
    )
    assert f"hemp: {heading} " in text and f"{sentence} at 1024 tokens of books/test" in text
    assert "Left to the tables: 1 group of another text (books/validation)." in text


def test_a_validation_text_alone_is_named_as_that(tmp_path):
    states = [on("books/validation", trained(method, method, nll, **GRID)) for method, nll in (("yarn", 2.1), ("linear", 2.2))]  # fmt: skip
    text = verdict_of(tmp_path, *states)
    assert "wins by perplexity at 1024 tokens of the validation text books/validation after 1M training tokens" in text


def test_rates_are_variants_of_one_method_and_the_best_stands_for_it(tmp_path):
    """Three rates of PI and one of YaRN were four methods, of which PI beat itself."""
    rates = [trained("linear", f"l{rate}", nll, learning_rate=rate) for rate, nll in ((1e-4, 2.2), (3e-4, 2.0), (1e-3, 2.1))]  # fmt: skip
    page = page_of(tmp_path / "r.jsonl", *rates, trained("yarn", "y", 2.15))
    text = made_up.words(page)
    figures = [f"{math.exp(nll):.2f}" for nll in (2.0, 2.15, 2.2, 2.1)]
    best = r"PI ×4 \(learning rate 0.0003\)"
    assert re.search(rf"Of 2 methods [^:]*, {best} wins by perplexity: [^;]*; {figures[0]} [^;]*, against {figures[1]} .*? of YaRN ×4\.", text)  # fmt: skip
    others = rf"PI ×4 \(learning rate 0.0001\) {figures[2]}, PI ×4 \(learning rate 0.001\) {figures[3]}"
    assert re.search(rf"Of 1 method 3 variants were measured; [^;]*; behind {best} by perplexity: {others}\.", text)
    assert table(page, "Against the winner").keys() == {"YaRN ×4 (learning rate 0.0001)"}


def test_ways_of_training_are_named_wherever_a_method_is(tmp_path):
    """Steps of another size were told in place of them, which differ beside them."""
    ways = (("pose", 2048, 2.0), ("lora", 4096, 2.1))
    states = [trained("yarn", mode, nll, mode=mode, step_tokens=step) for mode, step, nll in ways]
    page = made_up.words(page_of(tmp_path / "r.jsonl", *states, trained("linear", "l", 2.3)))
    assert re.search(r"Of 3 methods and ways of training at 1024 .*, YaRN ×4 by PoSE wins by perplexity: .* of YaRN ×4 by LoRA\.", page)  # fmt: skip
    assert "YaRN ×4 by PoSE wins by perplexity" in page.split("To the details")[0] and "(mode pose)" not in page


def test_ways_of_training_one_method_compete_and_the_state_before_is_none_of_them(tmp_path):
    pose, lora = (trained("yarn", mode, nll, mode=mode) for mode, nll in (("pose", 2.0), ("lora", 2.1)))
    page = made_up.words(page_of(tmp_path / "r.jsonl", pose, lora))
    assert "Of 2 methods and ways of training" in page and "YaRN ×4 by PoSE wins by perplexity at 1024 tokens" in page
    untrained = (made_up.extended(4, 0, "yarn", name="hemp/u"), {}, [made_up.row(2.3, 1024)])
    assert "not compared" not in made_up.words(page_of(tmp_path / "u.jsonl", pose, untrained))


def test_the_second_of_two_extensions_is_no_training_of_its_budget_alone(tmp_path):
    """Its factor on record is that of the last extension; what the first one read is not on record."""
    lab, names = LAB.parents[0], ("none", "yarn-x4-5M-3e-4-s0", "linear-x4-5M-1e-3-s0")
    rows = clean(records.read([*lab.glob("steps/*/*.jsonl"), *(lab / f"a/lab-2k/{name}.jsonl" for name in names)]))
    told = {m.model_variant.label for m in rows.measurements}
    assert {"YaRN ×4, 10 steps more", "PI ×4, 10 steps more", "YaRN ×4, 20 steps", "PI ×4, 20 steps"} <= told
    page = made_up.words(render(records.read([*lab.glob("steps/lab-2k-yarn-4096/*.jsonl")])))
    assert "10 steps (2560k tokens) more, on top of an extension to 4096 tokens whose training is not on record" in page


def test_a_training_that_is_on_record_twice_has_its_device_time(tmp_path):
    """Of 8 steps of 4 s, in two directories from one seed; its cell was empty, so that it counted for no seed."""
    path, settings = tmp_path / "r.jsonl", {"learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    for out in ("runs/a", "runs/b"):
        header = made_up.run(made_up.extended(name="hemp"), f"ropewalk train {out}", settings=settings | {"out": out})
        made_up.steps(records.Recorder(path, header), 8)
    made_up.record_rows(path, (made_up.extended(4, 8, name="runs/a"), made_up.row(2.0, 1024)))
    rows = clean(records.read([path]))
    (variant,) = {m.model_variant for m in rows.of(records.Perplexity)}
    assert training.device_seconds(variant, training.trainings(rows)) == 8 * 4.0


def test_a_variant_without_passkeys_does_not_take_them_from_its_method(tmp_path):
    """At the better perplexity a rate of which no key was asked would have made perplexity decide."""
    keys = [*(records.Passkey(1024, 32 * k, 10, 10) for k in range(1, 33)), records.PasskeySummary(1024, 1024, 32, 10, 1.0)]  # fmt: skip
    none = [*(records.Passkey(1024, 32 * k, 10, 0) for k in range(1, 33)), records.PasskeySummary(1024, 0, 32, 10, 0.0)]
    asked = trained("linear", "a", 2.3)
    unasked = trained("linear", "u", 2.0, learning_rate=3e-4)
    yarn = trained("yarn", "y", 2.1)
    asked[2].extend(keys)
    yarn[2].extend(none)
    text = verdict_of(tmp_path, asked, unasked, yarn)
    assert "PI ×4 wins by k_max" in text and "stands for its method (learning rate 0.0001 for all)" in text


def longer(method: str, nll: float, factor: int, **differs):
    state, settings, rows = trained(method, f"{method}-{factor}", nll, **differs)
    model = made_up.extended(factor, 20, method, name=state.name)
    return model, settings, [rows[0], made_up.row(nll, 256 * factor)]


def test_the_factor_with_the_most_methods_is_compared_and_not_the_longest_window(tmp_path):
    states = [longer(method, nll, 4) for method, nll in (("yarn", 2.1), ("linear", 2.2), ("ntk", 2.3))]
    states += [longer(method, nll, 8) for method, nll in (("yarn", 2.3), ("linear", 2.1))]
    text = verdict_of(tmp_path, *states)
    assert "Of 3 methods at 1024 tokens of held-out" in text and "YaRN ×4 wins" in text
    assert "Left to the tables: 1 group of another window (2048 tokens) or factor (×8)." in text


def test_where_no_comparison_is_fair_the_page_says_what_differs(tmp_path):
    """Each of two methods by its own text, window and budget."""
    states = [on("maths", longer("yarn", 2.1, 4)), on("books", longer("linear", 2.2, 8, tokens=2**22))]
    text = verdict_of(tmp_path, *states)
    assert (
        "PI, YaRN are not compared, since no two of them were measured alike. They differ in text (books; maths); "
        "window (1024 tokens; 2048 tokens); factor (×4; ×8); training (1M training tokens; 4M training tokens)." in text
    )  # fmt: skip
    assert " wins " not in text


def test_what_one_method_did_after_a_larger_budget_is_said_above_the_fold(tmp_path):
    """The lab's PI after 100M tokens reads better than every method after 20M, and the verdict had no word of it."""
    states = [trained("yarn", "y", 2.1), trained("linear", "l", 2.2)]
    for nll, told in (
        (2.0, "it reads better at 256 tokens ({0} against {1}) and at 1024 ({0} against {1}) than after 1M training tokens."),
        (2.3, "after 1M training tokens it reads better at 256 tokens ({1} against {0}) and at 1024 ({1} against {0})."),
        (2.2, "no measure tells it from itself after 1M training tokens."),
    ):  # fmt: skip
        (place := tmp_path / str(nll)).mkdir()
        text = verdict_of(place, *states, trained("linear", "l4", nll, tokens=2**22))
        figures = [f"{math.exp(each):.2f}" for each in (nll, 2.2)]
        assert f"After 4M training tokens PI ×4 alone was measured: {told.format(*figures)}" in text
    several = [trained(method, f"{method}4", nll, tokens=2**22) for method, nll in (("linear", 2.0), ("yarn", 2.1))]
    text = verdict_of(tmp_path, *states, trained("ntk", "n", 2.3), *several)
    assert re.search(
        r"Of 3 methods .* YaRN ×4 wins .* After 4M training tokens: PI ×4 wins by perplexity at 1024 tokens\.", text
    )


def test_methods_whose_perplexity_is_not_of_their_own_window_are_not_compared(tmp_path):
    states = [trained(method, method, 2.1, windows=(256,)) for method in ("yarn", "linear")]
    assert "PI, YaRN are not compared: fewer than two of them have a perplexity at their own window." in verdict_of(tmp_path, *states)  # fmt: skip


def test_a_base_of_another_text_is_used_for_that_text_only_and_said_so(tmp_path):
    """`page_of` measures the base on held-out; the page said that it was not measured."""
    text = verdict_of(tmp_path, *(on("maths", trained(method, method, nll)) for method, nll in (("yarn", 2.1), ("linear", 2.2))))  # fmt: skip
    assert (
        "what became of the short window is not known, for its base was not measured at 256 tokens of maths (it was of held-out, which tells nothing of this text), and other windows do not tell (ropewalk perplexity hemp --data … --windows 256)."
        in text
    )
    assert "7.39" not in text and "against the base in its own window" not in text


def test_the_lab_is_compared_on_its_test_text():
    """Level a and other rates in one directory: 26 trainings of nine methods on the validation text, nine of them on the test text."""
    page = clean(records.read(sorted((LAB / "smollm2-135m").glob("*.jsonl"))))
    compared = contest(page, next(m.variant.lineage for m in page.measurements))
    assert not compared.group.is_validation and len(compared.contenders) == 9
    assert {(v.window, v.factor, v.recipe.tokens) for each in compared.contenders for v in each.variants} == {(32768, 4.0, 5 * 2**20)}  # fmt: skip
    page = render(records.read([LAB / "smollm2-135m"]))
    heading = page.split("</h1>")[0].rpartition("<h1>")[2]
    assert "wins by passkeys found among those level by k_max at 32768 tokens" in heading and "books" not in heading, (
        "passkeys are of no text"
    )
    assert "Perplexity is of books/test" in page


def test_methods_that_were_measured_inside_the_old_window_alone_are_told_together(tmp_path):
    """PI was the subject of the verdict, and a table of nothing but windows stood below."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0, 128)),
        (made_up.extended(4), made_up.row(3.5, 128)),
        (made_up.extended(4, method="yarn"), made_up.row(2.1, 128)),
    )
    text = made_up.words(render(records.read([path]))).replace("\u202f", " ").replace("\u00a0", " ")
    assert (
        "hemp was extended by PI ×4 and YaRN ×4; each was measured inside the old window of 256 tokens alone." in text
    )
    assert "At 128 tokens, inside the old window, against the base: PI ×4 7.39 → 33.12, 4.5× (95 % interval 4.5× to 4.5×, paired over 5 documents); YaRN ×4 7.39 → 8.17, +10.5 %" in text  # fmt: skip
    assert "by Position Interpolation" not in text and "Methods and factors at a fixed budget" not in text


def rate(method: str, rate: float, nll: float, validation: float | None, **differs):
    """A row of `ablate` at a rate: its loss on the test text, and on validation where it was measured there."""
    state, settings, rows = on("books/test", trained(method, f"{method}-{rate:g}-s{differs.get('seed', 0)}", nll, learning_rate=rate, **GRID, **differs))  # fmt: skip
    tuned = [made_up.row(validation, window) for window in (256, 1024)] if validation is not None else []
    return state, settings, rows + [dataclasses.replace(row, data="books/validation") for row in tuned]


def test_a_rate_is_chosen_on_validation_where_all_of_a_method_have_it(tmp_path):
    """The rate was chosen by the test figures although validation losses were on record."""
    states = [
        rate(method, each, nll, validation)
        for method, by_rate in (("yarn", ((5e-5, 2.1, 2.4), (2e-4, 2.15, 2.3))), ("linear", ((5e-5, 2.25, 2.5), (2e-4, 2.3, 2.4))))
        for each, nll, validation in by_rate
    ]  # fmt: skip
    text = verdict_of(tmp_path, *states)
    won, lost, other = (f"{math.exp(nll):.2f}" for nll in (2.15, 2.3, 2.1))
    assert re.search(rf"YaRN ×4 wins by perplexity: [^;]*; {won} [^,]*, against {lost} .*? of PI ×4\.", text), "no rate, since both have one"  # fmt: skip
    assert f"Of 2 methods 4 variants were measured; the best on validation stands for its method (learning rate 0.0002 for all); others of YaRN ×4 by perplexity: YaRN ×4 (learning rate 5e-05) {other}." in text  # fmt: skip
    assert "chosen by the figures shown" not in text and "Worse on validation" not in text


def test_a_rate_chosen_by_the_figures_shown_is_said_to_be(tmp_path):
    """Of one of PI's rates no validation loss is on record; YaRN's was chosen on it."""
    states = [rate("linear", 5e-5, 2.1, 2.4), rate("linear", 2e-4, 2.15, None), rate("yarn", 5e-5, 2.2, 2.4), rate("yarn", 2e-4, 2.3, 2.3)]  # fmt: skip
    text = verdict_of(tmp_path, *states)
    assert "the best by these figures or on validation stands for its method" in text or "the best on validation or by these figures stands" in text  # fmt: skip
    care = text.split("Read with care")[1]
    assert "Learning rates were chosen by the figures shown (the best PI of 2), so that the best looks better here than it is: `ablate` with --validation and `validation` in --measure lets other documents choose." in care  # fmt: skip
    assert "against 9.97 (95 % interval 9.97 to 9.97) of YaRN ×4 (learning rate 0.0002)" in text


def test_a_method_that_stands_at_a_rate_that_was_not_its_best_on_validation_is_named(tmp_path):
    """PI's best rate was measured on validation alone: the page told of YaRN's lead and of nothing else."""
    states = [rate("linear", 1e-4, 2.2, 2.5), rate("linear", 1e-3, 2.2, 2.2), rate("yarn", 1e-4, 2.1, 2.3)]
    states[1] = (*states[1][:2], [row for row in states[1][2] if row.data == "books/validation"])
    states.append(rate("yarn", 1e-3, 2.1, 2.1, tokens=2**22))  # of another budget: not what this one could have been
    care = verdict_of(tmp_path, *states).split("Read with care")[1]
    assert (
        "Worse on validation than at another setting that was tried, in nats a token: PI ×4 0.300 (learning rate 0.001 is better). What"
        in care
    )


def test_seeds_of_one_rate_alone_do_not_decide_between_rates(tmp_path):
    """The second seed of the better rate is a worse one; rates are compared over the seed that both have."""
    states = [rate("linear", 1e-4, 2.2, 2.4), rate("linear", 1e-3, 2.2, 2.3), rate("linear", 1e-3, 2.2, 2.9, seed=1), rate("yarn", 1e-3, 2.1, 2.3)]  # fmt: skip
    page = clean(recorded(tmp_path / "r.jsonl", *states))
    one = contest(page, next(m.variant.lineage for m in page.measurements))
    (linear,) = [each for each in one.contenders if each.variants[0].method == "linear"]
    assert linear.by_validation and len(linear.variants) == 2 and linear.better is None


def test_the_budget_that_is_told_is_the_one_of_the_best_evidence(tmp_path):
    """One seed of most methods, each at a rate that was the worse one on validation, went before seeds of fewer methods after four times the tokens."""
    most = [trained(method, method, nll) for method, nll in (("yarn", 2.1), ("linear", 2.2), ("ntk", 2.3))]
    pair = (("yarn", 2.0), ("linear", 1.9))
    one = [trained(method, f"{method}4", nll, tokens=2**22) for method, nll in pair]
    again = [trained(method, f"{method}4s1", nll + 0.01, tokens=2**22, seed=1) for method, nll in pair]
    assert "Of 3 methods at 1024 tokens of held-out after 1M training tokens" in verdict_of(tmp_path, *most, *one)
    repeated = verdict_of(tmp_path, *most, *one, *again)
    assert "Of 2 methods at 1024 tokens of held-out after 4M training tokens, PI ×4 wins" in repeated
    (place := tmp_path / "half").mkdir()
    assert "Of 3 methods" in verdict_of(place, *most, *one, again[0]), "most of two are two"


def test_a_budget_at_rates_that_were_not_the_best_goes_behind_one_of_fewer_methods(tmp_path):
    worse = [rate(method, 1e-4, nll, 2.5) for method, nll in (("yarn", 2.1), ("linear", 2.2), ("ntk", 2.3))]
    tuned = [rate(method, 1e-3, 2.2, 2.4) for method in ("yarn", "linear", "ntk")]
    tuned = [(*state[:2], [row for row in state[2] if row.data == "books/validation"]) for state in tuned]
    more = [rate(method, 1e-3, nll, 2.3, tokens=2**22) for method, nll in (("yarn", 2.0), ("linear", 1.9))]
    more = [(dataclasses.replace(state, name=f"{state.name}-4"), *rest) for state, *rest in more]
    text = verdict_of(tmp_path, *worse, *tuned, *more)
    assert "Of 2 methods at 1024 tokens of books/test after 4M training tokens, PI ×4 wins" in text


def test_a_larger_budget_of_another_text_is_not_held_against_this_one(tmp_path):
    """What 100M tokens of one text gave was compared with 5M of another."""
    states = [trained("yarn", "y", 2.1), trained("linear", "l", 2.2)]
    text = verdict_of(tmp_path, *states, trained("linear", "l4", 2.0, tokens=2**22, data="code"))
    assert "After 4M training tokens of code PI ×4 alone was measured. Rule" in text


def test_a_table_of_one_base_names_it_where_the_page_is_of_several():
    """Benchmarks were asked of one of two bases, and their table did not say of which."""
    both = clean(records.read([LAB.parent / "c/smollm2-135m", LAB.parent / "c/lab-2k"]))
    tables = benchmarks.section(both).tables + gain.section(both).tables
    assert [table.caption.split("; ")[-1] for table in tables] == ["smollm2-135m", "smollm2-135m", "lab-2k", "smollm2-135m"]  # fmt: skip
    alone = benchmarks.section(clean(records.read([LAB.parent / "c/smollm2-135m"]))).tables[0]
    assert alone.caption == "Accuracy before and after, %"


@pytest.mark.parametrize(
    ("extra", "told"),
    [("garbage", "1 line of the record files could not be read"), ('{"kind":"unheard"}', "not shown: “unheard” (1)")],
)
def test_a_line_that_is_left_out_is_said_where_the_page_is_written(tmp_path, caplog, extra, told):
    path = tmp_path / "none.jsonl"
    path.write_text((LAB / "hemp/none.jsonl").read_text() + f"{extra}\n")
    ropewalk.report([path], out=tmp_path / "page.html")
    assert told in caplog.text


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda text: text.partition("\n")[2], "without the header of a run, so of unknown origin, w"),
        (lambda text: text[:-30], "1 line of the record files could not be read"),
    ],
)
def test_one_damaged_row_of_ablate_alone_is_told_with_the_way_to_make_it_again(tmp_path, damage, told):
    path = tmp_path / "row.jsonl"
    path.write_text(damage((LAB / "hemp/none.jsonl").read_text()))
    with pytest.raises(UserError) as refused:
        ropewalk.report([path], out=tmp_path / "page.html")
    said = str(refused.value)
    assert told in said and "0 damaged" not in said and "hemp/none lacks " in said
    assert "); the same ropewalk ablate, with the --out that it lies in, makes such a row again, where" in said


@pytest.mark.parametrize("is_cut", [False, True])
def test_a_row_that_is_not_whole_is_ranked_nowhere_and_named(tmp_path, caplog, is_cut):
    for path in (LAB / "hemp").glob("*.jsonl"):
        shutil.copy(path, tmp_path)
    paths = sorted(tmp_path.glob("*.jsonl"))
    winner = contests(clean(records.read(paths)))[0].leader.variants[0].method
    for path in paths if is_cut else ():
        lines = path.read_text().splitlines(keepends=True)
        if path.name.startswith(winner):
            path.write_text("".join(line for line in lines if '"kind":"passkey_summary"' not in line))
    rows = clean(records.read(paths))
    assert (contests(rows)[0].leader.variants[0].method == winner) != is_cut
    ropewalk.report(paths, out=tmp_path / "page.html")
    page = made_up.words((tmp_path / "page.html").read_text())
    for told in (page, caplog.text):
        assert (f"hemp/{winner}" in told and "and is left out: rows of ablate are compared whole." in told) == is_cut


def test_of_methods_with_passkeys_alone_the_page_is_of_the_one_that_finds_them_farthest(tmp_path):
    """Position Interpolation was the headline with k_max 0, and the one that found every key stood in a table below."""
    states = []
    for method, reach in (("yarn", 1024), ("linear", 0)):
        model, settings, _ = trained(method, method, 2.0)
        keys = records.PasskeySummary(1024, reach, 8, 10, reach / 1024)
        states.append((model, settings, [*(records.Passkey(1024, k, 10, 10 * (reach > 0)) for k in range(128, 1025, 128)), keys]))  # fmt: skip
    text = verdict_of(tmp_path, *states)
    assert "extended from 256 to 1024 tokens (×4) by YaRN" in text and "Passkey retrieval reaches k_max 1024" in text
