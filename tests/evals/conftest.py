"""What tests of RULER's items and of their measurement begin from."""

from __future__ import annotations

import json

import pytest

from ropewalk.evals.long_context import measure
from ropewalk.evals.long_context.source import Source
from ropewalk.model.load import load_tokenizer
from ruler_items import FACTS


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What a user may give: documents, questions, a needle."""
    folder = tmp_path_factory.mktemp("given")
    essay = " ".join(f"On day {day} nothing of note was seen by the keeper of light {day % 7}." for day in range(200))
    (folder / "essay.txt").write_text(essay)
    single = [{"question": f"Fact {n}?", "answer": answer, "context": text} for n, (answer, text) in enumerate(FACTS)]
    several = {"question": "Whose gate?", "answer": ["Anna", "Ann"], "context": ["Anna has a gate.", "It is hers."]}
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*single, several]))
    needle = {"needle": "The captain keeps a green parrot.", "question": "What does he keep?", "answer": "green parrot"}
    (folder / "needle.jsonl").write_text(json.dumps(needle) + "\n")
    return {
        "data": folder / "essay.txt",
        "questions": folder / "questions.jsonl",
        "needle": folder / "needle.jsonl",
    }


@pytest.fixture(scope="module")
def source(given):
    return Source(load_tokenizer("hemp"), 8192, **given)


@pytest.fixture
def answered(monkeypatch):
    """`respond` answers as told; what it was asked is counted."""
    asked = []

    def respond(loaded, items, *, batch_tokens, settled, done):
        for place, each in enumerate(items):
            asked.append(each)
            done(place, f" {' '.join(each.answers)}")
        return []

    monkeypatch.setattr(measure, "respond", respond)
    return asked
