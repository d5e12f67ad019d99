"""Progress within a pass: one event a layer, the same figures, and nothing left on the model."""

from __future__ import annotations

import pytest
import torch

import ropewalk
from ropewalk.data.documents import Document
from ropewalk.evals import by_layer, likelihood
from ropewalk.model.loss import NextTokenLoss
from ropewalk.progress import PROGRESS
from ropewalk.testing import byte_tokenizer, prose, tiny


def layers_done(caplog: pytest.LogCaptureFixture) -> list[tuple[str, int, int]]:
    events = [record.progress for record in caplog.records if hasattr(record, "progress")]
    return [(e.title, e.done, e.total) for e in events if "layers" in e.title and e.done and not e.ended]


@pytest.mark.parametrize("measure", [
    lambda model: ropewalk.perplexity(model, tokenizer=byte_tokenizer(), data=[Document("d", prose(63))], windows=[64], stride=16)[0].perplexity,
    lambda model: ropewalk.passkey(model, tokenizer=byte_tokenizer(), window=512, depths=1, trials=1)[1].accuracy,
    lambda model: ropewalk.ruler(model, tokenizer=byte_tokenizer(), windows=[1024], tasks=["niah_single_1"], items=1)[0][0].score,
])  # fmt: skip
def test_a_long_pass_says_when_each_layer_is_done_and_a_short_one_nothing(measure, monkeypatch, caplog):
    model = tiny()
    layers = len(model.model.layers)
    caplog.set_level(PROGRESS, "ropewalk.progress")
    short = measure(model)
    assert not layers_done(caplog)
    monkeypatch.setitem(by_layer._LONG, "cpu", 1.0)
    assert measure(model) == short
    done = layers_done(caplog)
    assert [number for _, number, _ in done[:layers]] == [*range(1, layers + 1)] and {total for *_, total in done} == {
        layers
    }
    assert len(done) % layers == 0 and done[0][0].startswith("one pass over ")
    assert max(number for _, number, _ in done) == layers
    assert not any(layer._forward_hooks for layer in model.model.layers)


def test_trying_whether_a_head_is_linear_is_no_part_of_a_pass(monkeypatch, caplog):
    model, watched = tiny(), []

    def tried(model: torch.nn.Module) -> NextTokenLoss:
        watched.append(any(layer._forward_hooks for layer in model.model.layers))
        return NextTokenLoss(model)

    monkeypatch.setitem(by_layer._LONG, "cpu", 1.0)
    monkeypatch.setattr(likelihood, "LOGIT_BYTES", 1)  # more tokens than have their logits at once
    monkeypatch.setattr(likelihood, "NextTokenLoss", tried)
    caplog.set_level(PROGRESS, "ropewalk.progress")
    ropewalk.perplexity(model, tokenizer=byte_tokenizer(), data=[Document("d", prose(63))], windows=[64], stride=64)
    assert watched == [False]
    layers, done = len(model.model.layers), [number for _, number, _ in layers_done(caplog)]
    assert done == [*range(1, layers + 1)] * 2  # of five windows, and of what is left


def test_a_second_pass_within_the_block_is_not_counted(caplog):
    model, ids = tiny(), torch.tensor([[256, 64, 65]])
    caplog.set_level(PROGRESS, "ropewalk.progress")
    with by_layer.first_pass(model, "layers", is_long=True):
        model(input_ids=ids)
        model(input_ids=ids)
    assert max(number for _, number, _ in layers_done(caplog)) == len(model.model.layers)


def test_what_fails_within_a_pass_leaves_no_hook(monkeypatch):
    monkeypatch.setitem(by_layer._LONG, "cpu", 1.0)
    model = tiny()
    ids = torch.tensor([[256, 64, 65]])
    with pytest.raises(ZeroDivisionError), by_layer.by_layer(model, ids):
        assert model.model.layers[0]._forward_hooks
        raise ZeroDivisionError
    assert not any(layer._forward_hooks for layer in model.model.layers)
