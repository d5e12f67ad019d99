"""MLPs in tiles of the sequence: which, how many, and without a trace in the gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recomputing import BATCH, TOKENS, gradients, ids
from ropewalk import testing
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner.choice import NOTHING, Room
from ropewalk.settings import budget
from ropewalk.settings.budget import mlp_tiles
from ropewalk.training import census, recompute
from ropewalk.training.activations import ActivationMemory
from ropewalk.training.tiles import tileable


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_operations_are_known_by_their_number_without_tiles(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    kept = recompute.SelectiveCheckpointing(root)
    whole = {c.index for c in kept.candidates(root.body, BATCH, TOKENS)}
    kept.tile(3)
    counted = census.Census(keys=1.0)
    with counted, torch.no_grad():
        root.body(input_ids=ids()[:, :-1], use_cache=False)
    here = {kept.tiles.whole(c.index) for c in counted.expensive[: len(counted.expensive) // len(kept.layers)]}
    assert here == {index for index in whole if not kept.tiles.holds(index)}


def test_experts_are_not_tiled() -> None:
    kept = recompute.SelectiveCheckpointing(NextTokenLoss(testing.tiny("mixtral").train()))
    kept.tile(3)
    assert kept.tiles.count == 1


@pytest.mark.parametrize(("dropout", "tiles"), [(0.0, 3), (0.1, 1)])
def test_mlps_that_draw_random_numbers_are_not_tiled(dropout: float, tiles: int) -> None:
    """A tile that is computed again would draw others: its gradients were not the loss's, here along a direction."""
    root = NextTokenLoss(testing.tiny("starcoder2", residual_dropout=dropout).train().double())
    kept = recompute.SelectiveCheckpointing(root)
    kept.tile(3)
    assert kept.tiles.count == tiles
    weight = next(p for p in kept.layers[0].mlp.parameters() if p.dim() == 2)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(step: float) -> torch.Tensor:
        with torch.no_grad():
            weight.add_(step * direction)
        torch.manual_seed(1)
        return root(ids()[:, :-1], ids()[:, 1:])

    loss(0.0).backward()
    assert weight.grad is not None
    slope = float((loss(1e-3) - loss(-2e-3)).detach()) / 2e-3
    assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-2)


def test_dropout_is_known_as_a_module_too() -> None:
    layer = recompute.SelectiveCheckpointing(NextTokenLoss(testing.tiny("llama").train())).layers[0]
    layer.mlp.drop = nn.Dropout(0.0)
    assert tileable(layer) is layer.mlp
    layer.mlp.drop.p = 0.1
    assert tileable(layer) is None


def test_a_long_micro_batch_goes_in_tiles_and_a_short_one_does_not() -> None:
    lengths = (2048, 8192, 65536, 98304, 131072, 262144)
    assert [mlp_tiles(tokens) for tokens in lengths] == [1, 1, 1, 3, 4, 8]
    assert [mlp_tiles(tokens, short=True) for tokens in lengths] == [1, 4, 8, 12, 16, 32]


@pytest.mark.parametrize(
    ("kind", "tokens", "short", "tiles"),
    [
        ("cpu", 131072, False, [1]),
        ("cuda", 131072, False, [4, 16]),  # the planner's too: else the widest results are there whole
        ("cuda", 131072, True, [16]),
        ("cuda", 65536, False, [1, 8]),
        ("cuda", 32768, True, [4]),
        ("cuda", 8000, True, [1]),
    ],
)
def test_full_checkpointing_has_mlps_in_tiles_where_tokens_are_many_or_memory_is_short(
    kind: str, tokens: int, short: bool, tiles: list[int], caplog
) -> None:
    """And takes to smaller ones where a step runs out of memory, once."""
    loss, seen = NextTokenLoss(testing.tiny("llama").train()), list[int]()
    memory = ActivationMemory(loss, "full", Mesh(torch.device(kind)), torch.bfloat16, (1, tokens), short=short)
    with caplog.at_level("INFO", logger="ropewalk"):
        memory.settle()
        while not seen or memory.lower():
            seen.append(memory._checkpointing.tiles.count)
    assert seen == tiles and memory._checkpointing.kept == [NOTHING] * 2
    told = [f"MLPs go through the sequence in {count} tiles" in caplog.text for count in (4, 8, 16)]
    assert told == [count in tiles and (count, tokens) != (4, 131072) for count in (4, 8, 16)]


def test_experts_are_given_up_on_at_once() -> None:
    loss = NextTokenLoss(testing.tiny("mixtral").train())
    memory = ActivationMemory(loss, "full", Mesh(torch.device("cuda")), torch.bfloat16, (1, 131072), short=True)
    memory.settle()
    assert memory._checkpointing.tiles.count == 1 and not memory.lower()


@pytest.mark.parametrize("short", [False, True])
def test_a_step_short_of_memory_goes_in_small_tiles_with_the_same_gradients(monkeypatch, short: bool) -> None:
    """What was traced without tiles is kept by its number beside them; and each time that memory runs out less is there."""
    monkeypatch.setattr(budget, "SMALL_TILE_TOKENS", 24)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    checkpointing = recompute.SelectiveCheckpointing(root)
    whole = {c.index: c.size for c in checkpointing.candidates(root.body, BATCH, TOKENS)}
    checkpointing.settle(Room(-1 if short else sum(whole.values()), matrix=1.0), short=short)
    assert checkpointing.tiles.count == (4 if short else 1)
    while checkpointing.tiles.count == 1:
        assert checkpointing.lower()
    hidden = {index for index in whole if checkpointing.tiles.holds(index)}
    assert hidden == {5, 6} and not any(hidden & (kept or set()) for kept in checkpointing.kept)
    for _ in range(2):
        for name, value in gradients(root).items():
            tolerance = 1e-5 * expected[name].abs().max().item()  # tiles change the order of sums
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=tolerance)
        while checkpointing.lower():
            pass
    assert not any(checkpointing.kept) and checkpointing.tiles.count == 4
