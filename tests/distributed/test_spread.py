"""Two processes that hold a model together measure what one does that holds it whole."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

import spread_ranks
from ropewalk import extend, records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.distributed import ranks, spread
from ropewalk.errors import UserError
from ropewalk.evals.loaded import fingerprint, open_model
from ropewalk.records.kinds import KINDS

SCRIPT = Path(spread_ranks.__file__)
#: What each process writes as it goes, in whatever order.
SORTED = ("document_score", "document_gain", "document_summary")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A base with a tied head, the model extended from it, an evaluator whose head is its own, texts; measured by two processes and by this one."""
    place = tmp_path_factory.mktemp("spread")
    testing.tiny_directory(place / "base", window=256, tie_word_embeddings=True)
    extend(place / "base", window=512, out=place / "model")
    testing.tiny_directory(place / "judge", window=512, seed=5)
    for number in range(3):
        (place / f"{number}.txt").write_text(testing.prose(70 + 9 * number, number), encoding="utf-8")
    items = [
        dict(goal=testing.prose(5, i), sol1=testing.prose(4, i + 50), sol2=testing.prose(5, i + 90), label=i % 2)
        for i in range(7)
    ]
    (place / "piqa.jsonl").write_text("".join(json.dumps(item) + "\n" for item in items), encoding="utf-8")
    pairs = [dict(document=testing.prose(20 + i, i), summary=testing.prose(5, i + 30)) for i in range(3)]
    (place / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*launch, SCRIPT, place], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    spread_ranks.measure(place, place / "one.jsonl", device="cpu")
    return place


def plain(file: Path, kind: str) -> list[dict]:
    rows = [dict(vars(measured.row)) for measured in records.read([file]).of(KINDS[kind])]
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    return sorted(rows, key=lambda row: row["key"]) if kind in SORTED else rows


@pytest.mark.parametrize(
    "kind",
    [
        "perplexity", "document_score", "context_gain", "document_gain", "passkey", "passkey_summary", "retrieval", "benchmark",
        "benchmark_comparison", "summary", "document_summary", "attention", "adjacent",
    ],
)  # fmt: skip
def test_figures_are_those_of_whole_models(place, kind):
    """To the last bit: what a layer computes with is the very weights, however they came there. Keys are hashes of them."""
    assert plain(place / "two.jsonl", kind) == plain(place / "one.jsonl", kind) != []


def test_each_process_holds_half_of_the_layers(place):
    said = json.loads((place / "said.json").read_text())
    whole = open_model(place / "model", device="cpu")
    layers = sum(p.numel() for layer in whole.model.model.layers for p in layer.parameters())
    assert said["weights"] == sum(p.numel() for p in whole.model.parameters()), "tied is still tied"
    assert set(said["held"].values()) == {said["weights"] - layers // 2}
    assert said["fingerprint"] == fingerprint(whole)


@pytest.fixture
def two(monkeypatch):
    """As if there were two processes, of which the other says the same."""
    monkeypatch.setattr(ranks, "size", lambda: 2)
    monkeypatch.setattr(ranks, "join", lambda *_: None)
    monkeypatch.setattr(ranks, "gathered", lambda results: results)
    monkeypatch.setattr(ranks, "local_size", lambda: 2)


@pytest.mark.parametrize(("free", "sharded"), [(4.0, False), (2.0, True)])
def test_auto_shards_what_one_device_does_not_hold(place, two, free, sharded):
    """Two processes of one machine have half of its memory each, of which weights may take 70 %: below 2.86 times the weights they do not fit."""
    checkpoint = Checkpoint.open(place / "model")
    with mock.patch.object(spread, "free_bytes", return_value=free * 4 * checkpoint.parameters):
        assert spread.is_spread("auto", checkpoint, torch.float32, "cpu") is sharded
        assert not spread.is_spread("off", checkpoint, torch.float32, "cpu")
        assert spread.is_spread("on", checkpoint, torch.float32, "cpu")


def test_what_cannot_be_sharded_is_refused(place, two, monkeypatch):
    checkpoint = Checkpoint.open(place / "model")
    quantised = dataclasses.replace(
        checkpoint, config=checkpoint.config | {"quantization_config": {"quant_method": "gptq"}}
    )
    with pytest.raises(UserError, match="quantised"):
        spread.is_spread("on", quantised)
    monkeypatch.setattr(ranks, "size", lambda: 1)
    with pytest.raises(UserError, match="torchrun"):
        spread.is_spread("on", checkpoint)
    assert not spread.is_spread("auto", checkpoint)
