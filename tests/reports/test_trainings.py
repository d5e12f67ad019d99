"""What a verdict says of trainings: unfinished, watched, further ones, those that nothing measured. All rows are made up."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.reports import perplexity, render, report
from ropewalk.reports.files import write_tables
from ropewalk.reports.losses import section
from ropewalk.reports.rows import clean
from ropewalk.reports.training import trainings

PLACES = "what became of the short window is not known, for {} measured at 256 tokens, and other windows do not tell (ropewalk perplexity {})."
TRAINED = "runs/hemp-linear-1024/checkpoints/step-000009 --data … --windows 256"


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
