"""What layers keep: counted, chosen within the room there is, and without a trace in the gradients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from recomputing import BATCH, TOKENS, gradients, ids, saved
from ropewalk import testing
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner.choice import NOTHING, Kept, Room
from ropewalk.training import census, recompute
from ropewalk.training.retry import until_it_fits
from ropewalk.training.tiles import Tiles


class Expensive(TorchDispatchMode):
    """Counts matrix products and attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += census.is_expensive(op)
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


@pytest.mark.parametrize(
    "rope", [{"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}, {"rope_type": "dynamic"}]
)
def test_frequencies_that_depend_on_the_largest_position_are_no_obstacle(rope: dict[str, Any]) -> None:
    """Tracing has positions without values, so transformers cannot look which frequencies to take."""
    keys = {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": TOKENS // 2}
    model = testing.tiny(rope_parameters=keys | rope, max_position_embeddings=TOKENS).train()
    root, plain = NextTokenLoss(model), NextTokenLoss(testing.tiny().train())
    candidates = recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    assert candidates == recompute.SelectiveCheckpointing(plain).candidates(plain.body, BATCH, TOKENS)
    assert model.model.rotary_emb.rope_type == rope["rope_type"]


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_what_is_kept_changes_no_gradient(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    every = frozenset(c.index for c in candidates)
    for choice in (
        [NOTHING] * 2,
        [every] * 2,
        [frozenset([candidates[0].index]), every],
        [None, NOTHING],
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
    kept.keep([NOTHING] * 2)
    kept.release()
    assert all("forward" not in vars(layer) for layer in kept.layers)


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_where_everything_fits_nothing_is_chosen(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.candidates(root.body, BATCH, TOKENS)
    # Results that the next operation uses up are made and not saved, so that a bound it is.
    assert saved(root, kept.layers[0]) <= kept.layer.everything <= 2 * saved(root, kept.layers[0])
    room = len(kept.layers) * kept.layer.everything
    kept.settle(Room(room))
    assert kept.kept == [None] * len(kept.layers)
    kept.settle(Room(room - 1))
    assert None not in kept.kept


def peak(kept: Sequence[Kept], tokens: int) -> int:
    """Bytes of one step at most, by PyTorch's own tracker."""
    root = NextTokenLoss(testing.tiny(num_hidden_layers=len(kept), max_position_embeddings=tokens).train())
    recompute.SelectiveCheckpointing(root).keep(kept)
    with MemTracker() as tracker:
        window = torch.zeros(1, tokens, dtype=torch.long)
        root.body(window, use_cache=False).last_hidden_state.sum().backward()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def test_layers_that_keep_less_compute_again_when_the_others_have_given_theirs_up() -> None:
    """At a step's peak every result is there still; what the last layer computed again then would be there besides."""
    root = NextTokenLoss(testing.tiny(num_hidden_layers=12).train())
    checkpointing = recompute.SelectiveCheckpointing(root)
    sizes = {c.index: c.size for c in checkpointing.candidates(root.body, 1, 2048)}
    checkpointing.settle(Room(10 * sum(sizes.values())))
    first, last = (
        sum(sizes[index] for index in keep or ()) for keep in (checkpointing.kept[0], checkpointing.kept[-1])
    )
    assert first < last
    assert peak(checkpointing.kept, 2048) <= peak(checkpointing.kept[::-1], 2048) - 0.9 * (last - first)


def test_less_is_kept_step_by_step_until_nothing_is() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    sizes = {c.index: c.size for c in kept.candidates(root.body, BATCH, TOKENS)}
    whole, held = 16 * sum(sizes.values()), list[int]()
    kept.settle(Room(whole))
    while not held or kept.lower():
        held.append(sum(sizes[index] for keep in kept.kept for index in keep or ()))
    assert held[0] == whole and held[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(held))
    assert max(earlier - later for earlier, later in itertools.pairwise(held)) <= whole / 4  # never much at once
    assert not kept.lower()


def test_a_step_that_fails_again_and_again_is_given_up_on_in_a_few_passes() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.settle(Room(16 * sum(c.size for c in kept.candidates(root.body, BATCH, TOKENS))))
    tries = 0
    while kept.lower(tries):
        tries += 1
    assert tries <= 5  # 1 + 2 + 4 + 8 tenths, and what lies below zero
    assert not any(kept.kept)


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

    kept.settle(Room(whole))
    found_gradients = until_it_fits(call, give_up)
    assert tried[0] == whole and len(tried) > 1
    assert 0.4 * whole < tried[-1] <= limit
    assert tried == sorted(tried, reverse=True)
    kept.release()
    for name, value in gradients(root).items():
        assert torch.equal(found_gradients[name], value)


@pytest.mark.parametrize(
    "dropout, policy", [(0.0, CheckpointPolicy.MUST_SAVE), (0.1, CheckpointPolicy.PREFER_RECOMPUTE)]
)
def test_attention_that_drops_scores_is_never_kept(dropout: float, policy: CheckpointPolicy) -> None:
    """Not run again, it would draw nothing, and a dropout behind it in the layer would draw its numbers. No CPU has a fused attention that drops any."""
    op, ctx = torch.ops.aten._scaled_dot_product_flash_attention.default, SimpleNamespace(is_recompute=False)
    q = torch.empty(1, 1, 4, 8, device="meta")
    assert recompute._policy(frozenset({0}), Tiles(), {False: 0, True: 0}, ctx, op, q, q, q, dropout, True) == policy
