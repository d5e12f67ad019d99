"""What layers keep: counted, chosen within the room there is, and without a trace in the gradients."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk import testing
from ropewalk.model.loss import NextTokenLoss
from ropewalk.training import recompute
from ropewalk.training.activations import reserved_bytes
from ropewalk.training.retry import until_it_fits

BATCH, TOKENS = 2, 48


def ids() -> torch.Tensor:
    return torch.randint(0, 256, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))


def gradients(root: NextTokenLoss) -> dict[str, torch.Tensor]:
    root.zero_grad(set_to_none=True)
    root(ids()[:, :-1], ids()[:, 1:]).backward()
    return {name: p.grad.clone() for name, p in root.named_parameters()}


class Expensive(TorchDispatchMode):
    """Counts matrix products and attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += recompute.is_expensive(op)
        return op(*args, **(kwargs or {}))


def test_candidates_are_counted_as_by_hand() -> None:
    """LLaMA, width 64, hidden 128: FLOPs a byte are the width for products, the tokens for attention (float32: half of each)."""
    root = NextTokenLoss(testing.tiny().train())
    candidates = recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    tokens = BATCH * TOKENS
    by_index = {c.index: c for c in candidates}
    assert sorted(by_index) == [0, 1, 2, 3, 4, 5, 6]  # q, k, v, attention, o, gate, up; the down projection never
    for index in (0, 1, 2, 4):
        assert (by_index[index].flops, by_index[index].size) == (2 * tokens * 64 * 64, tokens * 64 * 4)
    for index in (5, 6):
        assert (by_index[index].flops, by_index[index].size) == (2 * tokens * 64 * 128, tokens * 128 * 4)
    # Two products over half the square; the result and one log-sum-exp a head and token.
    assert by_index[3].flops == 2 * tokens * TOKENS * 64
    assert by_index[3].size == tokens * 64 * 4 + tokens * 4 * 4


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_a_model_without_weights_has_the_same_candidates(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family, tie_word_embeddings=True).train())
    with torch.device("meta"):
        empty = NextTokenLoss(testing.tiny(family, tie_word_embeddings=True).train())
    candidates = recompute.SelectiveCheckpointing(empty).candidates(
        empty.body, BATCH, TOKENS, device=torch.device("cpu")
    )
    assert candidates == recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    assert all(parameter.is_meta for parameter in empty.parameters())


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_what_is_kept_changes_no_gradient(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    every = frozenset(c.index for c in candidates)
    for choice in (
        [recompute.NOTHING] * 2,
        [every] * 2,
        [frozenset([candidates[0].index]), every],
        [None, recompute.NOTHING],
    ):
        kept.keep(choice)
        for name, value in gradients(root).items():
            assert torch.equal(value, expected[name]), (choice, name)


def test_what_is_kept_is_not_computed_again() -> None:
    root = NextTokenLoss(testing.tiny().train())
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    counts = {}
    for amount in (None, 0, 3, len(candidates)):
        kept.keep([None if amount is None else frozenset(c.index for c in candidates[:amount])] * 2)
        loss = root(ids()[:, :-1], ids()[:, 1:])
        with Expensive() as counted:
            loss.backward()
        counts[amount] = counted.count
    again = {amount: count - counts[None] for amount, count in counts.items()}
    # Two layers of seven expensive results each; the eighth, the last product, is never computed again.
    assert again == {None: 0, 0: 2 * 7, 3: 2 * 4, len(candidates): 0}


def test_layers_go_back_to_what_they_were() -> None:
    root = NextTokenLoss(testing.tiny().train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.keep([recompute.NOTHING] * 2)
    kept.release()
    assert all("forward" not in vars(layer) for layer in kept.layers)


def saved(root: NextTokenLoss, layer: torch.nn.Module) -> int:
    """Bytes that autograd packs for a layer's backward pass, each storage once, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in root.parameters()}
    packed: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    plain = layer.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return plain(*args, **kwargs)

    layer.forward = watched
    root(ids()[:, :-1], ids()[:, 1:])
    del layer.forward
    return sum(t.untyped_storage().nbytes() for at, t in packed.items() if at not in weights)


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_where_everything_fits_nothing_is_chosen(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    # Results that the next operation uses up are made and not saved, so that a bound it is.
    assert saved(root, kept.layers[0]) <= kept.layer_bytes <= 2 * saved(root, kept.layers[0])
    room = len(kept.layers) * kept.layer_bytes
    assert kept.within(candidates, room) == [None] * len(kept.layers)
    assert None not in kept.within(candidates, room - 1)


def candidates() -> list[recompute.Candidate]:
    sizes = [("attention", 900.0, 10), ("mm", 400.0, 10), ("mm", 1200.0, 30), ("mm", 100.0, 10)]
    return [recompute.Candidate(index, op, flops, size) for index, (op, flops, size) in enumerate(sizes)]


def test_a_choice_fits_and_saves_more_with_more_room() -> None:
    kept = recompute.SelectiveCheckpointing(testing.tiny(num_hidden_layers=16))
    sizes = {c.index: c.size for c in candidates()}
    worth = {c.index: c.flops for c in candidates()}
    saved_before = 0.0
    for room in range(0, 1100, 7):
        choice = kept.within(candidates(), room)
        assert sum(sizes[index] for keep in choice for index in keep) <= room
        assert len(set(choice)) <= 2
        saved = sum(worth[index] for keep in choice for index in keep)
        assert saved >= saved_before
        saved_before = saved
    assert kept.within(candidates(), 10_000) == [frozenset({0, 1, 2, 3})] * 16
    assert kept.within(candidates(), -5) == [recompute.NOTHING] * 16


def test_most_work_a_byte_comes_first() -> None:
    kept = recompute.SelectiveCheckpointing(testing.tiny(num_hidden_layers=16))
    assert kept.within(candidates(), 16 * 10) == [frozenset({0})] * 16
    assert kept.within(candidates(), 16 * 10 + 8 * 40) == [frozenset({0, 1, 2})] * 8 + [frozenset({0})] * 8


def test_less_is_kept_step_by_step_until_nothing_is() -> None:
    kept = recompute.SelectiveCheckpointing(testing.tiny(num_hidden_layers=16))
    sizes = {c.index: c.size for c in candidates()}
    kept.settle(candidates(), 16 * 60)
    held = []
    while not held or kept.lower():
        held.append(sum(sizes[index] for keep in kept.kept for index in keep or ()))
    assert held[0] == 16 * 60 and held[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(held))
    assert max(earlier - later for earlier, later in itertools.pairwise(held)) <= 16 * 60 / 4  # never much at once
    assert not kept.lower()


def test_memory_that_runs_out_is_asked_for_less_until_it_is_enough() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    whole = sum(c.size for c in candidates) * 16
    limit, tried = whole * 0.6, []

    def call() -> dict[str, torch.Tensor]:
        root.zero_grad(set_to_none=True)
        sizes = {c.index: c.size for c in candidates}
        tried.append(sum(sizes[index] for keep in kept.kept for index in keep or ()))
        out = gradients(root)
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return out

    def give_up(asked: str) -> None:
        assert kept.lower() and "2.00 GiB" in asked

    kept.settle(candidates, whole)
    found_gradients = until_it_fits(call, give_up)
    assert tried[0] == whole and len(tried) > 1
    assert 0.4 * whole < tried[-1] <= limit
    assert tried == sorted(tried, reverse=True)
    kept.release()
    for name, value in gradients(root).items():
        assert torch.equal(found_gradients[name], value)


def test_a_compiled_layer_keeps_the_same_and_is_compiled_once(monkeypatch) -> None:
    """Traced and partitioned as on a GPU, without generating code: one graph for all layers, the same gradients."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_(f, backend="aot_eager", dynamic=False))
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root, compiled=True)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        for _ in itertools.repeat(None, 2):  # the second time nothing is compiled any more
            kept.keep([frozenset(c.index for c in candidates)] * 4)
            for name, value in gradients(root).items():
                torch.testing.assert_close(
                    value, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max().item()
                )
            kept.release()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    finally:
        torch._dynamo.reset()


def test_what_a_step_will_take_is_reserved_once() -> None:
    weights = [nn.Parameter(torch.zeros(10, 10)), nn.Parameter(torch.zeros(7), requires_grad=False)]
    copies = 2 * 107  # bfloat16, of frozen weights too
    assert reserved_bytes(weights, accumulated=False) == copies
    assert reserved_bytes(weights, accumulated=True) == 400 + copies
    low = [nn.Parameter(torch.zeros(10, dtype=torch.bfloat16))]
    assert reserved_bytes(low, accumulated=False) == 0
