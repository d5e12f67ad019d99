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
from ropewalk.reports import render


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


PLACES = "what became of the short window is not known, for {} measured at 256 tokens, and other windows do not tell (ropewalk perplexity {})."
TRAINED = "runs/hemp-linear-1024/checkpoints/step-000009 --data … --windows 256"


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
