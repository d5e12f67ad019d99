"""A training on top of another: what it began from is one state, and labels say of which training their steps are. All rows are made up."""

from __future__ import annotations

import dataclasses
import math
import re

import pytest

import made_up
from grid_pages import table
from ropewalk import records
from ropewalk.records import Recorder
from ropewalk.reports import perplexity, render
from ropewalk.reports.rows import clean
from ropewalk.reports.training import trainings

FIRST, LOOK, LAST = "a" * 16, "c" * 16, "d" * 16


def _further(steps: int, name: str, fingerprint: str = "", factor: int = 4) -> records.ModelInfo:
    before = {"steps_before": 4} if factor == 4 else {"earlier_steps": 4}
    return dataclasses.replace(made_up.extended(factor, steps, name=name), fingerprint=fingerprint, **before)


def _trained(path, state: records.ModelInfo, out: str, steps: int, **settings) -> str:
    """A training's records; its command."""
    asked = {"out": out, "learning_rate": 1e-4, "batch_size": 1, "steps": steps, **settings}
    header = made_up.run(state, f"ropewalk train {state.name} --out {out}", settings=asked)
    made_up.steps(Recorder(path, header), steps)
    return header.command


def _page(path, *, factor: int = 4, fingerprint: str = FIRST, looks: bool = True):
    """A model trained for 4 steps, then for 6 more, the latter watched; the first measured at its place too."""
    window = 256 * factor
    first = dataclasses.replace(made_up.extended(4, 4, name="runs/a"), fingerprint=FIRST)
    _trained(path, made_up.extended(name="hemp"), "runs/a", 4)
    command = _trained(path, _further(0, "runs/a", factor=factor), "runs/b", 6, model_fingerprint=fingerprint)
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)), (first, made_up.row(2.4), made_up.row(2.3, 1024)))
    for step, print_of, nll in ((0, LOOK, 2.3), (6, LAST, 2.1)) if looks else ((6, LAST, 2.1),):
        look = Recorder(
            path, made_up.run(_further(step, "runs/b", print_of, factor), command if not step else "measure")
        )
        look.add(made_up.row(nll, window, data="watched" if not step else "held-out"))
    return records.read([path])


def test_the_model_that_a_training_began_from_is_one_state_with_its_step_0(tmp_path):
    page = clean(_page(tmp_path / "r.jsonl"))
    states = {m.model_variant for m in page.of(records.Perplexity)}
    assert sorted(v.label for v in states) == ["PI ×4, 4 steps", "PI ×4, 6 steps more", "base"]
    assert {m.row.data for m in page.of(records.Perplexity) if m.model_variant.fingerprint == FIRST} == {"held-out", "watched"}  # fmt: skip


@pytest.mark.parametrize(("differs", "states"), [({"fingerprint": "e" * 16}, 4), ({"factor": 8}, 4)])
def test_what_a_training_began_from_is_another_state_where_digest_or_window_differ(tmp_path, differs, states):
    page = clean(_page(tmp_path / "r.jsonl", **differs))
    labels = {m.model_variant.label for m in page.of(records.Perplexity)}
    method = "PI ×8" if "factor" in differs else "PI ×4"
    assert len(labels) == states and {"PI ×4, 4 steps", f"{method}, before further training"} <= labels


def test_a_look_at_what_a_training_began_from_stays_one(tmp_path):
    """What a training was watched by is no text that a page is about."""
    (group, *_) = perplexity.groups(page := clean(_page(tmp_path / "r.jsonl")))
    assert group.data == "held-out" and len(page.looks) == 1


def test_tables_by_steps_begin_with_the_model_that_training_began_from_and_say_whose_steps_they_are(tmp_path):
    """By hand: e^2.3 before, e^2.1 after six steps."""
    page = render(_page(tmp_path / "r.jsonl", looks=False))
    ((label, cells),) = table(page, "Perplexity by fine-tuning steps").items()
    assert label == "PI ×4, window 1024, after 4 steps at this window"
    assert [cell.split()[0] for cell in cells if cell] == [f"{math.exp(nll):.2f}" for nll in (2.3, 2.1)]
    assert re.search(r"<th[^>]*>0</th>\s*<th[^>]*>6</th>", page)
    assert f"before further training {math.exp(2.3):.2f})" in made_up.words(page)


def test_a_state_that_was_never_trained_before_is_no_step_0_of_a_further_training(tmp_path):
    path = tmp_path / "r.jsonl"
    _page(path, factor=8, looks=False)
    made_up.record_rows(path, (made_up.extended(8, name="runs/new"), made_up.row(9.0, 2048)))
    assert not any(table.title.startswith("Perplexity by") for table in perplexity.section(clean(records.read([path]))).tables)  # fmt: skip


def test_steps_of_a_further_training_are_told_by_its_own_settings(tmp_path):
    """They were taken for the first one's, whose learning rate and length the table of trainings then lacked."""
    rows = _page(tmp_path / "r.jsonl")
    first, further = trainings(clean(rows))
    assert dict(further.variant.recipe.facts)["steps"] == "6" and dict(first.variant.recipe.facts)["steps"] == "4"
    lines = table(render(rows), "What each training run did")
    assert lines.keys() == {"PI ×4 to 1024 cpu", "PI ×4 to 1024, after 4 steps at this window cpu"}


def test_two_trainings_from_one_model_are_told_apart_by_what_they_left(tmp_path):
    for out in ("runs/b", "runs/c"):
        _trained(tmp_path / "r.jsonl", _further(0, "runs/a"), out, 6)
    lines = table(render(records.read([tmp_path / "r.jsonl"])), "What each training run did")
    assert [re.search(r"\((.*)\)", label)[1] for label in lines] == ["runs/b", "runs/c"]


@pytest.mark.parametrize("further", [True, False])
def test_figures_and_words_say_before_which_training(tmp_path, further):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    for place in range(5):
        state = _further(0, f"runs/{place}") if further else made_up.extended(4, name=f"runs/{place}")
        trained = dataclasses.replace(state, steps=3)
        made_up.record_rows(path, (state, made_up.row(2.5 + place / 10, 1024)), (trained, made_up.row(2.2, 1024)))
    page = made_up.words(render(records.read([path])))
    word = "further training" if further else "training"
    other = "training" if further else "further training"
    assert (
        f"Before {word}: held-out" in page and f"before {word} {'as the last' if further else 'extended, and'}" in page
    )
    assert f"efore {other}" not in page


def _watched(path, *, start: str = FIRST, moved: bool = False, started: str = "2026-11-23T05:00:00+00:00"):
    """Two trainings of one model, 4 steps and 2 more on top, each of which was only watched: of weights that were rounded after the first one's last look."""
    for name, before, steps, nll, of in (
        ("runs/a", 0, 4, (2.5, 2.3), "hemp"),
        ("runs/b", 4, 2, (2.301, 2.1), "runs/a"),
    ):
        state = dataclasses.replace(made_up.extended(4, name=of), steps_before=before)
        asked = {"out": "elsewhere" if moved and not before else name, "learning_rate": 1e-4, "batch_size": 1, "steps": steps}  # fmt: skip
        asked |= {"model_fingerprint": start} if before else {}
        when = {"started": started} if before else {}
        header = made_up.run(state, f"ropewalk train {of} --out {name}", settings=asked, **when)
        made_up.steps(Recorder(path, header), steps)
        for step, each in zip((0, steps), nll, strict=True):
            look = dataclasses.replace(state, name=asked["out"], steps=step, fingerprint=f"{name[-1]}{step}" * 8)
            rows = Recorder(path, made_up.run(look, header.command, **when))
            rows.add(made_up.row(each, 256))
            rows.add(made_up.row(each, 1024))
    return records.read([path])


def _said(rows) -> tuple[list[str], str]:
    """The states of a page by their labels; its words."""
    page = clean(rows)
    return sorted({m.model_variant.label for m in page.of(records.Perplexity)}), made_up.words(render(rows))


def test_what_a_watched_training_left_is_what_the_next_began_from_and_the_last_is_the_headline(tmp_path):
    """By place and steps, since no header has what the first saved; by hand, e^2.301 before and e^2.1 after."""
    states, page = _said(_watched(tmp_path / "r.jsonl"))
    assert states == ["PI ×4, 2 steps more", "PI ×4, 4 steps", "PI ×4, before training"]
    assert "trained for 2 steps (16k tokens) more, on top of 4 steps at this window" in page
    assert f"At 1024 tokens: {math.exp(2.1):.2f} (before further training {math.exp(2.301):.2f})" in page
    assert "Left to the tables" not in page


@pytest.mark.parametrize("apart", [{"moved": True}, {"started": "2026-11-21T05:00:00+00:00"}])
def test_a_training_at_another_place_or_later_is_not_what_another_began_from(tmp_path, apart):
    states, page = _said(_watched(tmp_path / "r.jsonl", **apart))
    assert "PI ×4, before further training" in states and len(states) == 4
    assert "trained for 2 steps (16k tokens) more, on top of 4 steps at this window" in page
    assert "Left to the tables: PI ×4, 4 steps. This is of the training" in page
