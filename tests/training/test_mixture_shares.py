"""Mixtures of documents and conversations: the shares that are said are those of the labels that a run reads."""

import json
import logging

import numpy as np
import pytest
import torch

import ropewalk
from ropewalk import records, testing
from ropewalk.data.mixture import Reading
from ropewalk.distributed.mesh import Mesh
from ropewalk.settings.train import TrainSettings
from ropewalk.training.batch import batches_of
from ropewalk.training.setup import trained_checkpoint

WINDOW, CPU = 128, Mesh(torch.device("cpu"))
(_, Z) = testing.byte_tokenizer()("z")["input_ids"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model of bytes; books and notes, the texts that have a "z" in them, and chats of long questions with short answers."""
    made = tmp_path_factory.mktemp("mixture")
    testing.tiny_directory(made / "tiny", window=WINDOW)
    (made / "books.txt").write_text("z" * 4000)
    (made / "notes.jsonl").write_text("".join(json.dumps({"text": "z" * length}) + "\n" for length in (300, 70, 70)))
    asked = {"role": "user", "content": "Why? " * 9}
    talks = [[asked, {"role": "assistant", "content": "So." * length}] for length in (1, 1, 2, 3, 5, 8)]
    (made / "chats.jsonl").write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    return made


@pytest.fixture(autouse=True)
def own_cache(place, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(place / "cache"))


def settings(place, *data, **options):
    words = [str(place / word) if (place / word).exists() else word for word in data]
    asked = {"method": "plain", "steps": 7, "batch_size": 4, "allow_short": True} | options
    return TrainSettings(model=place / "tiny", data=words, window=WINDOW, **asked)


def read(place, *data, **options):
    asked = settings(place, *data, out=place / "out", **options)
    return batches_of(asked, trained_checkpoint(asked), CPU)


def by_hand(batches):
    """Shares of all windows, and of all labels that are scored, in every batch of a run: of rows with a "z" and of those without."""
    counts = np.zeros((2, 2))
    for step in range(batches.settings.steps):
        for micro in batches.micro_batches(step, CPU):
            for ids, labels in zip(micro.rows["input_ids"], micro.rows["labels"], strict=True):
                counts[int(Z not in ids.tolist())] += 1, (labels != -100).sum().item()
    return (counts / counts.sum(0)).tolist()


@pytest.mark.parametrize("packing", ["concat", "best-fit"])
@pytest.mark.parametrize(
    "options", [{}, {"loss": "all"}, {"mask_documents": True}, {"mode": "pose", "chunk_window": 64}]
)
@pytest.mark.parametrize("texts", ["books.txt", "notes.jsonl"])
def test_the_shares_are_those_of_what_training_reads(place, packing, options, texts):
    batches = read(place, texts, "0.7", "chats.jsonl", "0.3", packing=packing, **options)
    for reading, shares in zip(batches.readings, by_hand(batches), strict=True):
        # To the six digits that are recorded.
        assert (reading.share, reading.scored_share) == pytest.approx(shares, abs=5e-7)
        windows, scored = (f"{share:.1%}" for share in shares)
        kind = "chunks" if "mode" in options else "windows"
        assert str(reading).endswith(f", {windows} of all {kind} and {scored} of the scored tokens") or (
            str(reading).endswith(f", {windows} of all that is read") and windows == scored
        ), str(reading)
    if not options:  # answers of a few tokens beside 128 of a text
        assert batches.readings[1].scored_share < 0.5 * batches.readings[1].share


def test_the_warning_gives_the_weight_that_makes_up_for_it(place, caplog):
    read(place, "books.txt", "0.5", "chats.jsonl", "0.5", steps=250)
    (said,) = (entry.getMessage() for entry in caplog.records if "the weight" in entry.getMessage())
    times = float(said.split("give it ")[1].split(" times")[0])
    (_, share), (_, before) = by_hand(read(place, "books.txt", "0.5", "chats.jsonl", "0.5", steps=250))
    assert (
        f"chats.jsonl is 50.0% of what is read and {before:.1%} of what is scored" in said
        and "the answers alone are scored" in said
    )
    (_, _), (_, after) = by_hand(read(place, "books.txt", "0.5", "chats.jsonl", f"{0.5 * times:.4f}", steps=250))
    assert before < 0.2 and share == pytest.approx(1 - before)
    assert after == pytest.approx(0.5, abs=0.02)  # of 1000 windows, each source within one or two of its share
    caplog.clear()
    read(place, "books.txt", "0.5", "chats.jsonl", "0.5", loss="all")
    assert "the weight" not in caplog.text
    (place / "note.txt").write_text("z" * 18)  # with BOS and EOS 20 tokens: 19 labels in a window of 128
    read(place, "books.txt", "0.5", "note.txt", "0.5", packing="best-fit")
    (said,) = (entry.getMessage() for entry in caplog.records if "the weight" in entry.getMessage())
    assert f"and {19 / (19 + 128):.1%} of what is scored" in said and "padding is not scored" in said


def test_plain_text_says_nothing_new(place, caplog):
    batches = read(place, "books.txt", "0.6", "notes.jsonl", "0.3", "books.txt", "0.1", steps=250)
    assert [(each.share, each.scored_share) for each in batches.readings] == [(0.6, 0.6), (0.3, 0.3), (0.1, 0.1)]
    assert all("of all that is read" in str(reading) and "scored" not in str(reading) for reading in batches.readings)
    assert "scored" not in caplog.text + str(read(place, "books.txt").readings[0])


def test_announced_and_on_record(place, tmp_path, caplog):
    caplog.set_level(logging.INFO, logger="ropewalk")
    asked = settings(place, "books.txt", "0.5", "chats.jsonl", "0.5", steps=2, out=tmp_path / "out")
    ropewalk.train(**vars(asked))
    (header,) = {line.run.id: line.run for line in records.read([tmp_path / "out"]).measurements}.values()
    shares = by_hand(batches_of(asked, trained_checkpoint(asked), CPU))
    for source, (windows, scored) in zip(header.settings["sources"], shares, strict=True):
        assert source["share"] == windows == 0.5 and source["scored_share"] == pytest.approx(scored, abs=5e-7)
        assert f"50.0% of all windows and {scored:.1%} of the scored tokens" in caplog.text


def test_an_estimate_tells_of_windows_alone():
    said = str(Reading("books", 1000, 10, WINDOW, 0.5, 0.1))
    assert said.endswith(", 50.0% of all windows")
