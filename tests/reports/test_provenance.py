"""What is left out, mixed or measured twice is said, and nothing is believed that cannot be checked. All rows are made up."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

import made_up
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.records.variant import seeds_of_rows, variant_of
from ropewalk.reports import render
from ropewalk.reports.comparable import groups
from ropewalk.reports.rows import clean
from ropewalk.reports.training import budget, trainings
from ropewalk.rope.scaling import Yarn
from ropewalk.suite.theory import put_on_record


def test_threads_and_training_formats_are_no_mixture(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    step = records.Step(1, 2.0, 2e-5, 1.0, 100, 50.0, 2.0)
    made_up.record_rows(
        path, (made_up.extended(), step), device="cpu, 2 threads", dtype="float32 weights, bfloat16 arithmetic"
    )
    assert "Read with care" not in made_up.words(render(records.read([path])))


def test_the_seed_of_a_training_and_that_of_a_measurement_are_no_mixture(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    step = records.Step(1, 2.0, 2e-5, 1.0, 100, 50.0, 2.0)
    training = {"out": "runs/x", "learning_rate": 2e-5, "batch_size": 8}
    made_up.record_rows(path, (made_up.extended(), step), seed=3, settings=training)
    assert "were made with different" not in made_up.words(render(records.read([path])))
    made_up.record_rows(path, (made_up.extended(8), step), seed=4, settings=training | {"out": "runs/y"})
    assert "different seeds of trainings (3, 4)" in made_up.words(render(records.read([path])))


def test_damaged_and_foreign_lines_are_counted_and_said(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    run = json.loads(path.read_text().splitlines()[0])["id"]
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"kind": "perplexity", "run": "abc", "window": 25\n')  # cut short
        file.write("not json at all\n")
        file.write(json.dumps({"kind": "telepathy", "run": run, "value": 3}) + "\n")
        file.write(json.dumps({"kind": "passkey_summary", "run": "nobody", "window": 8, "k_max": 8}) + "\n")
        file.write(json.dumps({"kind": "perplexity", "run": run, "window": "wide", "stride": 1}) + "\n")
    page = made_up.words(render(records.read([path])))
    assert "2 lines of the record files could not be read (cut short or edited) and were left out." in page
    assert "Rows of unknown kind, not shown: “telepathy” (1)." in page
    assert "1 row without the header of a run, so of unknown origin, was left out." in page
    assert (
        "1 row of kind “perplexity” with a field missing, of the wrong type or at odds with others was left out."
        in page
    )
    assert f"The first: {tmp_path.name}/r.jsonl, line 7: Expected `int`, got `str` - at `$.window`." in page


def test_a_clean_page_has_nothing_to_read_with_care(tmp_path):
    page = made_up.words(
        render(records.read([made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))]))
    )
    assert "Read with care" not in page


def test_mixed_machines_and_versions_are_said(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    made_up.record_rows(
        path,
        (made_up.extended(4, 9), made_up.row(2.1)),
        device="NVIDIA H200",
        dtype="bfloat16",
        seed=3,
        versions={"python": "3.11.2", "torch": "2.11.0"},
    )
    page = made_up.words(render(records.read([path])))
    assert (
        "The 2 runs on this page were made with different devices (NVIDIA H200, cpu); number formats (bfloat16, float32); seeds of measurements (0, 3)"
        in page
    )
    assert "torch versions (2.11.0, 2.13.0)" in page


def test_of_a_figure_measured_twice_the_newest_is_shown_and_it_is_said(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), started="2026-11-22T09:00:00+00:00"
    )
    made_up.record_rows(path, (made_up.BASE, made_up.row(3.0)), started="2026-11-21T09:00:00+00:00")
    page = made_up.words(render(records.read([path])))
    assert "7.39" in page and "20.09" not in page
    assert "1 row measured what another row measured too; the newest is shown." in page


def test_an_estimate_gives_way_to_the_exact_figure_and_is_marked_where_it_stands(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), started="2026-11-21T09:00:00+00:00"
    )
    made_up.record_rows(
        path, (made_up.BASE, made_up.row(2.1, estimate=True)), (made_up.extended(4, 9), made_up.row(2.2, estimate=True))
    )
    page = made_up.words(render(records.read([path])))
    assert "≈ 9.03" in page and "8.17" not in page and "7.39" in page


def test_perplexities_measured_in_different_ways_share_no_table(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0), made_up.row(2.4, convention="lm-eval")),
        (made_up.extended(4, 9), made_up.row(2.1, bos=False)),
    )
    comparable = groups(clean(records.read([path])))
    assert len(comparable) == 3
    assert "only those measured alike share a figure" in made_up.words(render(records.read([path])))


def test_a_stride_that_is_a_part_of_every_window_is_one_rule(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0, 256, stride=64), made_up.row(4.0, 1024, stride=256))
    )
    assert [group.stride for group in groups(clean(records.read([path])))] == ["stride window/4"]
    other = made_up.record_rows(
        tmp_path / "s.jsonl", (made_up.BASE, made_up.row(2.0, 256, stride=64), made_up.row(4.0, 1024, stride=512))
    )
    assert [group.stride for group in groups(clean(records.read([other])))] == ["stride 64", "stride 512"]


def test_tokens_of_training_are_matched_to_the_state_they_made(tmp_path):
    path = made_up.write(tmp_path / "r.jsonl")
    rows = clean(records.read([path]))
    runs = trainings(rows)
    assert budget(variant_of(made_up.extended(4, 50)), runs) == 50 * 8192
    assert budget(variant_of(made_up.extended(8, 200, "yarn")), runs) == 200 * 8192
    assert budget(variant_of(made_up.extended(16, 200)), runs) is None
    assert budget(variant_of(made_up.extended(4, 9000)), runs) is None


def test_a_step_that_was_done_twice_counts_once(tmp_path):
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk train"))
    for number in (1, 2, 3, 2, 3, 4):  # resumed from step 1
        recorder.add(records.Step(number, 2.0, 2e-5, 1.0, 100, 50.0, 2.0))
    assert [(run.tokens, run.seconds) for run in trainings(clean(records.read([path])))] == [(400, 8.0)]


def test_a_loss_that_is_no_number_is_a_dash_and_said(tmp_path):
    path = tmp_path / "r.jsonl"
    recorder = Recorder(path, made_up.run(made_up.extended(), "ropewalk train"))
    for number, loss in enumerate((2.0, math.nan, math.inf), 1):
        recorder.add(records.Step(number, loss, 2e-5, 1.0, 100, 50.0, 2.0))
    recorder.add(made_up.row(math.nan, 256, low=math.nan, high=math.nan))
    page = made_up.words(render(records.read([path])))
    assert "2 of 3 steps have a loss that is not finite" in page
    assert "nan" not in page.lower().split() and "None" not in page


def test_theory_is_computed_and_mixes_no_devices_and_no_formats(tmp_path):
    """A suite on a GPU has its theory from a CPU, in float64: no figure that was measured."""
    path = tmp_path / "r.jsonl"
    run_fields = dict(device="cuda", dtype="bfloat16")
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)), (made_up.extended(), made_up.row(2.1)), **run_fields)
    put_on_record(made_up.extended(), path)
    page = made_up.words(render(records.read([path])))
    assert "Theory" in page
    assert (
        "different devices" not in page
        and "number formats" not in page
        and "float64" not in page.split("What was run")[0]
    )


def test_a_run_says_the_thresholds_of_its_scaling_or_that_they_are_not_on_record(tmp_path):
    for scaling, words in (
        (Yarn(4.0, 64.0, 4.0), "scaling yarn, beta_fast 64.0, beta_slow 4.0, truncate True"),
        (records.Unspecified("yarn", 4.0), "scaling yarn; thresholds not on record"),
    ):
        model = dataclasses.replace(made_up.extended(steps=9), scaling=scaling)
        path = made_up.record_rows(tmp_path / f"{len(words)}.jsonl", (model, made_up.row(2.0)))
        assert words in made_up.words(render(records.read([path])))


def test_depths_of_two_passkey_tests_are_not_mixed(tmp_path):
    """A coarse test after a fine one: its map and its k_max are its own, and the page says that the other was there."""
    path = tmp_path / "r.jsonl"

    def test(depths, trials, successes, hour):
        rows = [records.Passkey(320, 320 * at // depths, trials, successes) for at in range(1, depths + 1)]
        summary = records.PasskeySummary(320, 320 if successes else 0, depths, trials, successes / trials)
        started = f"2026-11-22T{hour:02d}:00:00+00:00"
        recorder = Recorder(path, made_up.run(made_up.BASE, f"ropewalk passkey {depths}", started))
        for row in (*rows, summary):
            recorder.add(row)

    test(8, 10, 10, hour=5)
    test(2, 4, 0, hour=6)
    cleaned = clean(records.read([path]))
    assert [(m.row.k, m.row.trials) for m in cleaned.of(records.Passkey)] == [(160, 4), (320, 4)]
    assert [m.row.k_max for m in cleaned.of(records.PasskeySummary)] == [0]
    page = made_up.words(render(records.read([path])))
    # 2 depths and the summary were measured again, 6 depths have no like in the newer test.
    assert (
        "9 rows measured what another row measured too (3 of them over more or fewer tokens or trials, or other texts)"
        in page
    )
    assert "2 depths × 4 trials" in page and "8 depths" not in page


def test_a_figure_over_fewer_documents_that_replaces_another_is_said(tmp_path):
    path = tmp_path / "r.jsonl"
    for documents, hour in ((20, 5), (3, 6), (3, 7)):
        row = made_up.row(2.0, documents=documents)
        made_up.record_rows(path, (made_up.BASE, row), started=f"2026-11-22T{hour:02d}:00:00+00:00")
    page = made_up.words(render(records.read([path])))
    assert (
        "2 rows measured what another row measured too (1 of them over more or fewer tokens or trials, or other texts)"
        in page
    )


def test_rows_of_other_content_under_one_name_are_said_and_are_no_seeds_of_one_training(tmp_path):
    """Rows of an ablation from two directories: the same words for what was read, other digests."""
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    for seed, digest in ((0, "aaaa"), (1, "bbbb"), (2, "bbbb")):
        row = {"name": f"hemp/linear-s{seed}", "method": "linear", "tokens": 1024, "seed": seed, "data": "x and 1 more", "digests": {"data": digest, "model": "m"}}  # fmt: skip
        state = made_up.extended(4, 9, name=f"hemp/linear-s{seed}")
        made_up.record_rows(path, (state, made_up.row(2.1 + seed / 100, window=1024)), settings={"row": row})
    page = made_up.words(render(records.read([path])))
    assert "different texts are called x and 1 more (x[A] and 1 more, x[B] and 1 more)" in page
    assert "digest aaaa" not in page
    assert "as model of" not in page
    variants = [m.model_variant for m in clean(records.read([path])).measurements if m.model_variant.extended]
    assert sorted(len(row) for row in seeds_of_rows(variants)) == [1, 2]


@pytest.mark.parametrize(
    ("others", "said"), [((), "training seed 3."), (("/b/runs/t",), "training seed not on record.")]
)
def test_the_seed_of_a_resumed_training_is_known_though_its_directory_is_written_otherwise(tmp_path, others, said):
    """run.yaml has absolute paths, the command that measured a relative one; of two such directories neither is believed."""
    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, made_up.row(2.0)),
        (made_up.extended(4, 8, name="runs/t"), made_up.row(2.05), made_up.row(2.0, 1024)),
    )
    for out in ("/a/runs/t", *others):
        asked = {"out": out, "learning_rate": 1e-4, "batch_size": 1, "steps": 8, "resume": True}
        header = made_up.run(made_up.extended(name="hemp"), f"ropewalk train --out {out}", settings=asked, seed=3)
        made_up.steps(Recorder(path, header), 8)
    page = made_up.words(render(records.read([path])))
    assert said in page and ("Each training was run with one seed" in page) == ("not on record" not in said)


def test_a_training_is_called_one_and_not_the_state_it_began_from(tmp_path):
    asked = {"out": "runs/t", "learning_rate": 1e-4, "batch_size": 1, "steps": 8}
    header = made_up.run(made_up.extended(name="hemp"), "ropewalk train", settings=asked)
    made_up.steps(Recorder(tmp_path / "r.jsonl", header), 8)
    runs = made_up.words(render(records.read([tmp_path / "r.jsonl"]))).split("What was run")[-1]
    assert "training, PI ×4" in runs and "state training of hemp to PI ×4; window 256 → 1024" in runs
    assert "before training" not in runs


def test_a_state_that_is_tested_on_what_it_was_trained_on_is_a_doubt(tmp_path):
    """Neither a base that saw none of it nor a test on other texts is one."""
    trained = dataclasses.replace(made_up.extended(), steps=8, name="runs/a")
    asked = {"out": "runs/a", "learning_rate": 1e-5, "batch_size": 1, "data": ["books", "0.7"]}
    for texts, doubted in (("books", True), ("tests", False)):
        path = made_up.record_rows(
            tmp_path / f"{texts}.jsonl",
            (made_up.extended(), records.Step(1, 2.0, 2e-5, 1.0, 100, 50.0, 2.0)),
            settings=asked,
        )
        row = dataclasses.replace(made_up.row(2.0), data=texts)
        made_up.record_rows(path, (made_up.BASE, row))
        made_up.record_rows(path, (trained, row))
        page = made_up.words(render(records.read([path])))
        assert ("trained on and tested on the same texts (books)" in page) is doubted
        assert page.count("trained on and tested on") <= 1 or doubted
