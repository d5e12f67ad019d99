"""The paragraph at the top of the page, and the pairs it rests on. All rows are made up."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest
from scipy.stats import binomtest

import made_up
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.reports import perplexity, render, report
from ropewalk.reports.files import write_tables
from ropewalk.reports.rows import clean
from ropewalk.reports.training import section, trainings


@pytest.fixture(scope="module")
def everything(tmp_path_factory) -> str:
    return render(records.read([made_up.write(tmp_path_factory.mktemp("all") / "r.jsonl")]))


def test_the_verdict_compares_rows_of_the_page(tmp_path):
    base, after = math.log(8.0), math.log(8.4)
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (
            made_up.BASE,
            made_up.row(base),
            made_up.row(math.log(80.0), 1024),
            records.PasskeySummary(1024, 224, 32, 10, 0.2),
        ),
        (made_up.extended(4), made_up.row(math.log(20.0), 1024)),
        (
            made_up.extended(4, 200),
            made_up.row(after),
            made_up.row(math.log(7.6), 1024),
            records.PasskeySummary(1024, 1024, 32, 10, 1.0),
        ),
    )
    page = made_up.words(render(records.read([path])))
    assert "hemp was extended from 256 to 1024 tokens (×4) by Position Interpolation and trained for 200 steps." in page
    assert (
        "At the short window of 256 tokens its perplexity went 8.00 → 8.40, +5.0 % (95 % interval +5.0 % to +5.0 %, paired over 5 documents)."
        in page
    )
    assert (
        "At 1024 tokens: 7.60 (the base, extrapolating, 80.00; before training 20.00); against the base in its own window −5.0 % (95 %"
        in page
    )
    assert "it holds to 1024 by perplexity (from 256: −9.5 %" in page
    assert "From 256 to 1024 tokens its perplexity falls, so context beyond 192 tokens is put to use." in page
    assert "Passkey retrieval reaches k_max 1024 of 1024 tokens; the base 224 of 1024 tokens." in page


def test_a_change_told_as_a_multiple_has_its_interval_as_multiples(tmp_path):
    after = made_up.row(math.log(32.0))
    after = dataclasses.replace(after, per_document=[each | {"nll": each["nll"] + 100 * (i - 2)} for i, each in enumerate(after.per_document)])  # fmt: skip
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(math.log(8.0))), (made_up.extended(4), after)
    )
    assert re.search(r"went 8.00 → 32.00, 4.0× \(95 % interval 3.\d× to 4.\d×, paired over 5 documents\)", made_up.words(render(records.read([path]))))  # fmt: skip


def test_no_sentence_repeats_a_figure_of_another(everything):
    """Changes with their intervals, and k_max with its own, each once in the verdict."""
    sentences = re.findall(r"<li>(.*?)</li>", everything.split("Device time")[0], re.DOTALL)
    figures = re.findall(r"[+−][\d.]+\s% \(95\s% interval[^,)]*", " ".join(sentences).replace("\u202f", " "))
    assert len(figures) >= 3 and len(figures) == len(set(figures))


@pytest.mark.parametrize(("nll", "words"), [
    (3.0, "it holds to no window by perplexity (up to 2.7× the base's at 256)"),
    (2.6, "it holds to 1024 by perplexity"),  # 1.8 times the base's
])  # fmt: skip
def test_a_flat_curve_of_a_broken_model_holds_nowhere(tmp_path, nll, words):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4), made_up.row(nll), made_up.row(nll - 0.01, 1024)),
    )
    assert words in made_up.words(render(records.read([path])))


def test_a_longer_context_that_does_not_help_is_called_that(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4, 9), made_up.row(2.0), made_up.row(2.2, 1024)),
    )
    page = made_up.words(render(records.read([path])))
    assert "it holds to 256 by perplexity (from 256 to 1024: +22.1 %" in page
    assert "its perplexity rises, so the longer context does harm." in page


def test_a_model_that_merely_trained_on_the_text_is_not_said_to_use_its_context(tmp_path):
    """Better than the base everywhere, and no better with more in sight."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4, 9), made_up.row(1.8), made_up.row(1.8, 1024)),
    )
    page = made_up.words(render(records.read([path])))
    assert "put to use" not in page
    assert "its perplexity does not change beyond chance" in page


def test_two_documents_are_too_few_for_a_reading(tmp_path):
    two = [made_up.row(nll, window, documents=2) for nll, window in ((2.0, 256), (1.8, 1024))]
    page = made_up.words(
        render(
            records.read(
                [
                    made_up.record_rows(
                        tmp_path / "r.jsonl",
                        (made_up.BASE, made_up.row(2.0, documents=2)),
                        (made_up.extended(4, 9), *two),
                    )
                ]
            )
        )
    )
    assert "put to use" not in page
    assert "(2 documents: no interval), which may be chance." in page


def test_nothing_is_said_of_what_was_not_measured(tmp_path):
    page = made_up.words(
        render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))]))
    )
    assert (
        "Only the base model was measured (256 tokens); nothing was extended. As it was published: window 256 tokens; how far it holds was not "
        "measured. Its perplexity at 256 tokens is 7.39." in page
    )
    assert "k_max" not in page.split("Not measured")[0] and "chance" not in page and "longer window" not in page
    assert "of the paper" not in page  # which has no figures of what nobody extended


def test_a_model_that_was_trained_on_in_its_own_window_is_told_by_its_own_figure(tmp_path):
    """The base's perplexity stood in its place, and that the model itself was not measured."""
    tuned = dataclasses.replace(made_up.BASE, name="runs/tuned", steps=10)
    rows = [(made_up.BASE, made_up.row(math.log(20.0))), (tuned, made_up.row(math.log(10.0)))]
    page = made_up.words(render(records.read([made_up.record_rows(tmp_path / "r.jsonl", *rows)])))
    sentence = "Nothing was extended: hemp was trained for 10 steps more in its own window of 256 tokens. Its perplexity at 256 tokens is 10.00"
    assert f"{sentence}, before it 20.00: −50.0 %" in page.replace("\u202f", " ")
    assert "Only the base model" not in page and "not measured yet" not in page
    alone = made_up.words(render(records.read([made_up.record_rows(tmp_path / "a.jsonl", rows[1])])))
    assert f"{sentence.replace('hemp', 'the model')}." in alone and "No extended model" not in alone


@pytest.mark.parametrize(("nll_beyond", "holds"), [(2.2, "512"), (2.5, "256")])
def test_a_model_that_was_trained_on_in_its_own_window_holds_to_what_was_measured_of_it(tmp_path, nll_beyond, holds):
    """By documents' own changes from 2.3: at 2.2 each is e^-0.1 times as perplexed, −9.5 %; at 2.5 each is e^0.2 times as perplexed, +22.1 %."""
    tuned = dataclasses.replace(made_up.BASE, name="runs/tuned", steps=10)
    rows = [
        (v, made_up.row(nll, window))
        for v, nll, window in ((made_up.BASE, 2.4, 256), (tuned, 2.3, 256), (tuned, nll_beyond, 512))
    ]
    page = made_up.words(render(records.read([made_up.record_rows(tmp_path / "r.jsonl", *rows)]))).replace(
        "\u202f", " "
    )
    change = {"256": r"\+22.1 %", "512": "−9.5 %"}[holds]
    assert re.search(
        rf"Trained to 256 tokens, it holds to {holds} by perplexity \(from 256(: | to 512: ){change} \(95 % interval",
        page,
    )
    assert re.search("At the short window of 256 tokens its perplexity went 11.02 → 9.97, −9.5 %", page)


def test_a_model_as_it_was_published_holds_to_what_was_measured_of_it(tmp_path):
    recorder = records.Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "ropewalk passkey hemp"))
    made_up.passkey(recorder, 256, 224)
    for row in (made_up.row(2.1, 128, stride=32), made_up.row(2.0, 256, stride=32), made_up.row(4.0, 1024, stride=32)):
        recorder.add(row)
    page = made_up.words(render(records.read([tmp_path / "r.jsonl"])))
    sentence = re.search(r"As it was published.*?\)\)\.", page)[0].replace("\u202f", " ")
    # A tenth of a nat less is exp(-0.1) - 1 = -9.5 %; at 1024 exp(1.9) times as much is surely worse.
    assert re.match(
        r"As it was published: window 256 tokens; it holds to 224 by k_max \(95 % interval \d+ to \d+\) and to 256 by perplexity \(from 128: "
        r"−9.5 % \(95 % interval [^()]*\)\)\.",
        sentence,
    )
    assert "Its k_max is" not in page


def test_passkeys_that_leave_everything_open_are_not_unmeasured(tmp_path):
    recorder = records.Recorder(tmp_path / "r.jsonl", made_up.run(made_up.BASE, "ropewalk passkey hemp"))
    depths = records.Passkey(256, 128, 1, 1), records.Passkey(256, 256, 1, 0)
    for row in (*depths, records.PasskeySummary(256, 128, 2, 1, 0.5)):
        recorder.add(row)
    page = made_up.words(render(records.read([tmp_path / "r.jsonl"])))
    assert "how far it holds, these passkeys do not tell." in page and "Its k_max is 128" in page


def test_what_was_measured_is_not_listed_as_missing(everything):
    assert re.findall(r"Table (\d) \(", made_up.words(everything)) == ["2"]


def test_two_base_models_get_a_verdict_each(tmp_path):
    other = records.ModelInfo("lab", "llama", 512, 512, head_dim=64, parameters=2_000_000)
    page = made_up.words(
        render(
            records.read(
                [
                    made_up.record_rows(
                        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), (other, made_up.row(3.0, 512))
                    )
                ]
            )
        )
    )
    assert page.startswith(" hemp, lab ")
    assert "2 base models are mixed on this page" in page
    assert "perplexity at 256 tokens is 7.39" in page and "perplexity at 512 tokens is 20.09" in page


@pytest.mark.parametrize(("asked", "said"), [({}, "interrupted"), ({"budget": 60}, "interrupted"), ({"watch_stop": 5}, "interrupted"), ({"budget": 60, "ended_by": "--budget"}, "ended by --budget")])  # fmt: skip
def test_a_run_that_is_not_over_is_said_to_be_in_the_verdict(tmp_path, asked, said):
    settings = {"out": "run", "learning_rate": 1e-4, "batch_size": 1, "steps": 400, "window": 1024} | asked
    recorder = records.Recorder(
        tmp_path / "r.jsonl", made_up.run(made_up.extended(), "ropewalk train", settings=settings)
    )
    made_up.steps(recorder, 20)
    page = made_up.words(render(records.read([tmp_path / "r.jsonl"])))
    assert f"Its training to 1024 tokens: {said}, 20 of 400 steps." in page.split("Device time")[0]


@pytest.mark.parametrize(("asked", "told"), [(400, True), (2, False)])
def test_a_checkpoint_that_was_measured_says_how_far_its_training_came(tmp_path, asked, told):
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk train", settings={"steps": asked}))
    for number in (1, 2):
        recorder.add(records.Step(number, 2.0, 2e-5, 1.0, 100, 50.0, 2.0))
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)), (made_up.extended(steps=2), made_up.row(1.9)))
    page = made_up.words(render(records.read([path])))
    assert "trained for 2 steps" in page
    assert ("Its training to 1024 tokens: interrupted, 2 of 400 steps." in page) == told


PLACES = "what became of the short window is not known, for {} measured at 256 tokens, and other windows do not tell (ropewalk perplexity {})."
TRAINED = "runs/hemp-linear-1024/checkpoints/step-000009 --data … --windows 256"


@pytest.mark.parametrize(("base", "extended", "told"), [
    # windows at which each was measured
    ([256], [1024], [PLACES.format("it was not", TRAINED), "At 1024 tokens: 8.17; the base at 256 tokens has 7.39, which is of another window: no better or worse follows."]),
    ([1024], [256, 1024], [PLACES.format("its base was not", "hemp --data … --windows 256")]),
    ([1024], [1024], [PLACES.format("neither it nor its base was", f"{TRAINED}, and the same of hemp")]),
    ([256], [512], ["Its perplexity was measured at 512 tokens and not at 1024: of the new window it does not tell."]),
    ([128, 256], [128, 1024], ["Within the short window of 256 tokens it and its base were both measured at 128 at most: there its perplexity went 7.39 → 8.17, +10.5 %"]),
])  # fmt: skip
def test_what_was_measured_at_other_windows_is_no_better_and_no_worse(tmp_path, base, extended, told):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, *(made_up.row(2.0, window) for window in base)),
        (made_up.extended(4, 9), *(made_up.row(2.1, window) for window in extended)),
    )
    verdict = made_up.words(render(records.read([path]))).split("Not known")[0].replace("\u00a0", " ")
    assert all(sentence in verdict for sentence in told)
    assert 256 in {*base} & {*extended} or "against the base in its own window" not in verdict


def test_one_document_has_no_interval_and_the_verdict_says_so(tmp_path):
    one = [made_up.row(nll, window, documents=1) for nll, window in ((2.1, 256), (2.0, 1024))]
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0, documents=1)), (made_up.extended(4, 9), *one)
    )
    page = made_up.words(render(records.read([path]))).replace("\u00a0", " ")
    assert "its perplexity went 7.39 → 8.17, +10.5 % (one document: no interval)." in page
    assert (
        "From 256 to 1024 tokens its perplexity changes by −9.5 % (one document: no interval), which may be chance."
        in page
    )


def test_the_verdict_names_what_it_rests_on(tmp_path):
    """Texts with their documents, the days of the measurements, the seed of the training where it is on record."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), started="2026-11-20T05:00:00+00:00"
    )
    state = made_up.extended(4, 9, name="hemp/linear")
    asked = {"row": {"name": "hemp/linear", "method": "linear", "tokens": 1000, "seed": 3}}
    for day, data, documents in ((21, "held-out", 5), (22, "held-out", 3), (22, "code", 5), (23, "maths", 5)):
        row = made_up.row(2.1, 256 if documents == 5 else 1024, data=data, documents=documents)
        made_up.record_rows(path, (state, row), started=f"2026-11-{day}T05:00:00+00:00", settings=asked)
    page = made_up.words(render(records.read([path])))
    assert (
        "Perplexity is of held-out (3 to 5 documents) and 2 more texts; measured 2026-11-21 to 2026-11-23; training seed 3."
        in page
    )
    alone = made_up.record_rows(tmp_path / "alone.jsonl", (made_up.BASE, made_up.row(2.0, documents=1)))
    assert "Perplexity is of held-out (1 document); measured 2026-11-22." in made_up.words(
        render(records.read([alone]))
    )


@pytest.mark.parametrize(("measured", "said"), [
    ((), "trained for 8 steps, not measured yet: what follows is of the model before."),
    ((made_up.extended(4, 8, name="elsewhere/t2"),), "by Position Interpolation and trained for 8 steps"),  # moved since
])  # fmt: skip
def test_a_training_that_nothing_measured_is_not_denied(tmp_path, caplog, measured, said):
    """The page had its steps, and its heading that there were none."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4), made_up.row(2.1)),
        *((state, made_up.row(2.05)) for state in measured),
    )
    settings = {"out": "runs/t2", "learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    made_up.steps(Recorder(path, made_up.run(made_up.extended(name="hemp"), "ropewalk train", settings=settings)), 8)
    page = made_up.words(report([path], tmp_path / "page.html").read_text())
    assert said in page and "not trained" not in page
    warned = "No row of these records measured runs/t2, which was trained for 8 steps."
    assert (warned in page, warned in caplog.text) == (not measured, not measured)


def test_trainings_that_the_shown_model_does_not_descend_from_are_named_once_and_are_no_equals(tmp_path):
    """A first attempt that was killed before its first checkpoint, and a run of another directory that was killed too."""
    path = tmp_path / "r.jsonl"
    settings = {"learning_rate": 1e-4, "batch_size": 1, "steps": 40}
    for hour, (place, count) in enumerate((("run", 3), ("run", 40), ("other", 7))):
        asked = {"started": f"2026-11-22T0{hour}:00:00+00:00", "settings": settings | {"out": place}}
        made_up.steps(Recorder(path, made_up.run(made_up.extended(name="hemp"), "ropewalk train", **asked)), count)
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)), (made_up.extended(4, 40, name="run"), made_up.row(1.9)))
    page = made_up.words(render(records.read([path])))
    assert page.count("run was begun anew after 3 of 40 steps of an attempt that was interrupted") == 1
    assert page.count("No row of these records measured other, whose training is unfinished: interrupted, 7 of 40") == 1
    assert page.count("interrupted") == 2 and "No row of these records measured run" not in page
    assert [run.run.settings["out"] for run in trainings(clean(records.read([path])))] == ["run", "other"]
    (table,) = section(clean(records.read([path]))).tables
    assert [line.cells[0].text for line in table.lines] == ["40"]
    assert "Device time: 3.3 min of training" in page.replace("\u00a0", " ")  # what all 50 steps took


def test_two_prompts_a_depth_leave_every_k_max_possible(tmp_path):
    """2 of 2 right have an interval of 16 to 100 % at each depth, which holds the threshold of 20 %."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.extended(4, 8), *(records.Passkey(1024, 128 * i, 2, 2) for i in range(1, 9)), records.PasskeySummary(1024, 1024, 8, 2, 1.0)),
    )  # fmt: skip
    page = made_up.words(render(records.read([path])))
    assert (
        "k_max 1024 of 1024 tokens, but with 2 prompts a depth every k_max stays possible; 8 depths take 3 each at least (--trials 3)."
        in page
    )
    assert "1024 to 1024" not in page


@pytest.mark.parametrize(("k_max", "right", "told"), [
    (0, 0, "with 3 prompts a depth every k_max stays possible; 4 depths take 5 each at least (--trials 5)"),
    (1024, 2, "with 3 prompts a depth every k_max stays possible; 4 depths take 5 each at least (--trials 5)"),
])  # fmt: skip
def test_of_few_depths_more_trials_are_said_to_be_needed(tmp_path, k_max, right, told):
    """Of 12 prompts that are all wrong there is a chance of 0.8 ** 12 = 7 % at the threshold."""
    rows = [records.Passkey(1024, 256 * i, 3, right) for i in range(1, 5)]
    summary = records.PasskeySummary(1024, k_max, 4, 3, right / 3)
    page = made_up.words(
        render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (made_up.extended(4, 8), *rows, summary))]))
    )
    assert told in page and f"k_max {k_max}? of 1024; 3 trials a depth" in page


def test_few_trials_leave_the_bases_k_max_as_open(tmp_path):
    """The caution stood beside the extended model's figure alone."""
    asked = [[*(records.Passkey(1024, 256 * i, 2, right) for i in range(1, 5)), records.PasskeySummary(1024, 512 * right, 4, 2, right / 2)] for right in (2, 0)]  # fmt: skip
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, *asked[0]), (made_up.extended(4, 8), *asked[1]))
    page = made_up.words(render(records.read([path])))
    assert "4 depths take 5 each at least (--trials 5); the base 1024 of 1024 tokens, which is as open." in page
    assert "k_max 0? of 1024; 2 trials a depth; base 1024?" in page


def test_answers_that_are_mixed_are_not_called_too_few(tmp_path):
    rows = [records.Passkey(1024, 128 * i, 10, 2) for i in range(1, 9)]
    summary = records.PasskeySummary(1024, 1024, 8, 10, 0.2)
    page = made_up.words(
        render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (made_up.extended(4, 8), *rows, summary))]))
    )
    assert (
        "answers so mixed leave every k_max possible; more than 10 prompts a depth can tell (--trials)" in page
        and "so few trials" not in page
    )


def _of_training(path, nll: float, steps: int = 8, asked: int = 8, **recipe) -> str:
    """The page of a base at 2.0 nats in its window of 256 and of a model that `train` made of it, which has `nll` there."""
    state = made_up.extended(4, steps, name="runs/t")
    path = made_up.record_rows(
        path, (made_up.BASE, made_up.row(2.0)), (state, made_up.row(nll), made_up.row(nll - 0.1, 1024))
    )
    settings = {"out": "runs/t", "learning_rate": 1e-4, "batch_size": 1, "steps": asked, **recipe}
    made_up.steps(Recorder(path, made_up.run(made_up.extended(name="hemp"), "ropewalk train", settings=settings)), 8)
    return made_up.words(render(records.read([path])))


@pytest.mark.parametrize(("nll", "steps", "is_said"), [(1.5, 8, True), (2.1, 8, False), (1.5, 0, False)])
def test_a_fall_in_the_old_window_is_said_to_be_what_the_text_taught(tmp_path, nll, steps, is_said):
    page = _of_training(tmp_path / "r.jsonl", nll, steps)
    assert ("paired over 5 documents): what training on such text brings, not the longer window." in page) == is_said


def test_a_model_trained_in_chunks_is_not_said_to_be_trained_to_its_window(tmp_path):
    page = _of_training(tmp_path / "r.jsonl", 1.9, mode="pose", chunk_window=128)
    assert "Trained in chunks of 128 tokens at positions up to 1024, it holds" in page and "Trained to" not in page
    assert "Trained to 1024 tokens, it holds" in _of_training(tmp_path / "whole.jsonl", 1.9)


def test_a_model_trained_by_adapters_is_said_to_be(tmp_path):
    page = _of_training(tmp_path / "r.jsonl", 1.9, mode="lora")
    assert "trained for 8 steps (64k tokens) by LoRA." in page and "PI ×4 by LoRA, 8 steps" in page


@pytest.mark.parametrize(("left_out", "is_said"), [(34_387, True), (7_000, False)])
def test_a_training_that_left_much_of_its_data_unread_says_so(tmp_path, left_out, is_said):
    source = {
        "source": "chats",
        "tokens": 70_651,
        "windows": 72,
        "length": 512,
        "share": 1.0,
        "passes": 0.22,
        "left_out": left_out,
    }
    page = _of_training(tmp_path / "r.jsonl", 1.9, sources=[source])
    assert (
        "left 34,387 of the 70,651 tokens of its data unread (49 %), since no answer ends there within 512 tokens; of the rest it read 0.22 passes."
        in page
    ) == is_said
    # On record are the passes of the steps that were asked for; the model has read of these what its own steps did.
    begun = _of_training(tmp_path / "begun.jsonl", 1.9, sources=[source], asked=200)
    done = max(m.row.step for m in records.read([tmp_path / "begun.jsonl"]).of(records.Step))
    assert (f"of the rest it read {0.22 * done / 200:.2g} passes" in begun) == is_said and done < 200


def test_nothing_of_a_longer_window_is_concluded_from_documents_that_do_not_fill_it(tmp_path):
    rows = [made_up.row(2.0, 256, shorter=2), made_up.row(1.8, 1024, shorter=5)]
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.1, shorter=2)), (made_up.extended(4, 8), *rows)
    )
    page = made_up.words(render(records.read([path])))
    assert (
        "At the short window of 256 tokens (2 of 5 documents are shorter than 256 tokens) its perplexity went" in page
    )
    assert "; 5 of 5 documents are shorter than 1024 tokens, so of a context that long it tells nothing." in page
    assert (
        "put to use" not in page
        and "it holds to 1024" not in page
        and "against the base in its own window" not in page.split("Small figures")[0]
    )


def test_the_last_sentence_counts_the_documents_of_its_own_figures(tmp_path):
    """Of one text two strides: the verdict is of the one that has most states, and says which."""
    few = made_up.row(2.0, documents=2, stride=32)
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0, documents=8)),
        (made_up.extended(4, 8), made_up.row(2.1, documents=8), made_up.row(1.9, 1024, documents=8), few),
    )
    assert "Perplexity is of held-out (8 documents, stride 64);" in made_up.words(render(records.read([path])))


def test_the_benchmarks_tile_has_the_interval_of_the_mean_paired_over_items(tmp_path):
    """Two tasks of 100 items each: 15 lost and none gained, 10 gained and none lost. By hand, from scipy's exact ends of 15 and 10 of 100 and of none of 100."""

    def exact(count: int) -> tuple[float, float]:
        interval = binomtest(count, 100).proportion_ci(0.95, method="exact")
        return interval.low, interval.high

    def answered(task: str, right: int) -> records.Benchmark:
        answers = "1" * right + "0" * (100 - right)
        return records.Benchmark(task, right / 100, 0.0, 1.0, 100, right, 0, 256, answers, task, f"{task} v1")

    def reach(step: float, other: float, changed: int) -> float:  # MOVER with the correlation of two cells
        correlation = -math.sqrt((changed + 0.5) / (100 - changed + 0.5) * 0.5 / 100.5)
        return math.sqrt(step**2 - 2 * correlation * step * other + other**2)

    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, answered("boolq", 60), answered("piqa", 50)),
        (made_up.extended(4, 9), answered("boolq", 45), answered("piqa", 60)),
    )
    page = render(records.read([path]))
    none = exact(0)[1]
    (least_lost, most_lost), (least_gained, most_gained) = exact(15), exact(10)
    below = math.hypot(reach(0.0, most_lost - 0.15, 15), reach(0.1 - least_gained, none, 10)) / 2
    above = math.hypot(reach(none, 0.15 - least_lost, 15), reach(most_gained - 0.1, 0.0, 10)) / 2
    ends = [f"{100 * (-0.025 + step):+.1f}".replace("-", "−") for step in (-below, above)]
    tile = made_up.words(re.search(r"<dt>benchmarks</dt>.*?</div>", page, re.DOTALL)[0]).replace("\u202f", " ")
    assert f"−2.5 points 95 % interval {ends[0]} to {ends[1]}, paired" in re.sub(r"\s+", " ", tile)
    assert "the mean changed by −2.5 points; the lowest is BoolQ (−15.0)." in made_up.words(page)


@pytest.mark.parametrize("model_step", [None, 2])
def test_why_a_watch_ended_a_run_is_said_and_the_worse_model_holds_nowhere(tmp_path, model_step):
    """By hand: 7.39 before training, 12.2 after four steps, measured while training went on and nowhere else."""
    path, extended = tmp_path / "r.jsonl", made_up.extended
    settings = {"out": "runs/a", "learning_rate": 1e-4, "batch_size": 1, "steps": 400, "ended_by": "--watch-stop", "watch_rise": [256, 7.389, 12.18]}  # fmt: skip
    settings |= {"model_step": model_step} if model_step else {}
    made_up.steps(Recorder(path, made_up.run(extended(name="hemp"), "ropewalk train", settings=settings)), 4)
    looks = [(extended(4, step, name="runs/a"), made_up.row(nll), made_up.row(nll, 1024)) for step, nll in ((0, 2.0), (2, 2.0), (4, 2.5))]  # fmt: skip
    made_up.record_rows(path, *looks)
    page = made_up.words(render(records.read([path])))
    which = "the model of step 2, from before that" if model_step else "that worse model"
    assert f"4 of 400 steps, because the perplexity at 256 tokens got worse: 7.389 → 12.18; what it left in runs/a is {which}." in page  # fmt: skip
    assert ("it holds" in page) == bool(model_step)
    assert ("by the watch of its training the perplexity at 256 tokens got worse" in page) != bool(model_step)


def test_what_a_watch_saw_displaces_no_measurement_that_has_its_base(tmp_path):
    """The same model is measured by itself, from its files, whose fingerprint is another, and on another text, with its base."""
    own, extended = tmp_path / "own.jsonl", made_up.extended
    saved = dataclasses.replace(extended(4, 4, name="runs/a"), fingerprint="b" * 16)
    made_up.record_rows(own, (made_up.BASE, made_up.row(2.0)), (saved, made_up.row(2.1), made_up.row(2.0, 1024)))
    run = tmp_path / "run.jsonl"
    settings = {"out": "runs/a", "learning_rate": 1e-4, "batch_size": 1, "steps": 4}
    header = made_up.run(extended(name="hemp"), "ropewalk train", settings=settings)
    made_up.steps(Recorder(run, header), 4)
    for step in (0, 2, 4):
        seen = dataclasses.replace(extended(4, step, name="runs/a"), fingerprint=f"a{step}" * 8)
        look = Recorder(run, made_up.run(seen, "ropewalk train", f"2026-11-22T05:0{step}:00+00:00"))
        for row in (made_up.row(2.5), made_up.row(2.4, 1024)):
            look.add(dataclasses.replace(row, data="watched"))
        made_up.passkey(look, 1024, 900)
    page = made_up.words(render(records.read([run, own])))
    assert "At the short window of 256 tokens its perplexity went 7.39 → 8.17, +10.5 %" in page
    assert "is not known, for its base" not in page


def test_a_model_that_had_been_extended_before_is_not_said_to_have_been_trained_for_its_last_steps_alone(tmp_path):
    twice = dataclasses.replace(made_up.extended(4, 3), earlier_steps=2)
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), (twice, made_up.row(2.1, 1024)))
    page = made_up.words(render(records.read([path])))
    assert "by Position Interpolation and trained for 3 steps more, on top of 2 steps at shorter windows." in page
    assert "PI ×4, 3 steps more" in page


def test_more_training_at_a_window_is_told_against_the_model_it_began_with(tmp_path):
    before, after = (dataclasses.replace(made_up.extended(4, steps), steps_before=2) for steps in (0, 3))
    never = (made_up.extended(4, name="new"), made_up.row(9.0, 1024))
    rows = [never, (before, made_up.row(2.0, 1024)), (after, made_up.row(2.1, 1024))]
    page = made_up.words(render(records.read([made_up.record_rows(tmp_path / "r.jsonl", *rows)])))
    assert "trained for 3 steps more, on top of 2 steps at this window." in page
    assert "at 1024 tokens, against itself after 2 steps at this window, worse" in page
    assert "PI ×4, before further training" in page


def test_seeds_that_were_asked_other_numbers_of_trials_are_not_all_said_to_have_one(tmp_path):
    settings = {"learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    path = tmp_path / "r.jsonl"
    for seed, trials in enumerate((1, 5, 5)):
        state, out = made_up.extended(4, 8, name=f"runs/s{seed}"), {"out": f"runs/s{seed}"}
        made_up.steps(Recorder(path, made_up.run(made_up.extended(name="hemp"), f"ropewalk train {seed}", seed=seed, settings=settings | out)), 8)  # fmt: skip
        made_up.record_rows(path, (state, made_up.row(2.0, 1024)))
        made_up.passkey(Recorder(path, made_up.run(state, "ropewalk passkey", seed=seed)), 1024, 1024, trials)
    page = made_up.words(render(records.read([path])))
    assert "in prompts of 1024" not in page and "of 1024; 1 to 5 trials a depth" in page


def test_a_run_that_went_back_is_told_of_the_model_that_it_left(tmp_path):
    """The last step is worse, and stays in the table by steps alone."""
    path, extended = tmp_path / "r.jsonl", made_up.extended
    settings = {"out": "runs/a", "learning_rate": 1e-4, "batch_size": 1, "steps": 400, "ended_by": "--watch-stop", "model_step": 2}  # fmt: skip
    made_up.steps(Recorder(path, made_up.run(extended(name="hemp"), "ropewalk train", settings=settings)), 4)
    looks = [(extended(4, step, name="runs/a"), made_up.row(nll, 1024)) for step, nll in ((0, 3.0), (2, 2.0), (4, 2.5))]
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)), *looks)
    rows = records.read([path])
    page = made_up.words(render(rows))
    assert "ended by --watch-stop, 4 of 400 steps; what it left in runs/a is the model of step 2." in page
    assert "trained for 2 steps" in page and "At 1024 tokens: 7.39" in page
    main, by_steps, *_ = perplexity.section(clean(rows, paper=False)).tables
    assert [line.label for line in main.alone.lines] == ["base", "PI ×4, before training", "PI ×4, 2 steps"]
    assert by_steps.head == ["0", "2", "4"]
    # The training table has a column for it, which a page without such a run leaves out.
    (table,) = section(clean(rows, paper=False)).tables
    (line,) = table.lines
    assert line.cells[table.head.index("model left\nstep")].text == "2" and "--watch-stop went back to" in table.note
    write_tables([section(clean(rows, paper=False))], tmp_path, label="t")
    assert "ended by --watch-stop, 4 of 400" in (tmp_path / "training-1.csv").read_text()
    assert "or the last, which is worse, where it had none" in table.note
    made_up.steps(Recorder(tmp_path / "b.jsonl", made_up.run(extended(name="hemp"), "ropewalk train")), 4)
    (table,) = section(clean(records.read([tmp_path / "b.jsonl"]), paper=False)).tables
    assert "model left\nstep" not in table.head and "Model left" not in table.note
