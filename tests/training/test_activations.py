"""What is set aside before layers keep anything, and given out after a step: counted by hand, and as it is planned."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from recomputing import BATCH, TOKENS
from ropewalk import testing
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner import chips
from ropewalk.planner.choice import Room
from ropewalk.planner.job import Job
from ropewalk.planner.kept import layer_of, room_of
from ropewalk.planner.memory import CONTEXT, GIB, step_memory
from ropewalk.planner.memory import _copies as copies_of
from ropewalk.planner.shape import read_shape
from ropewalk.settings import budget
from ropewalk.settings.recipe import Recipe
from ropewalk.training import lora, recompute, throughput
from ropewalk.training.activations import ActivationMemory, gradient_bytes


def test_what_a_step_will_take_is_reserved_once() -> None:
    weights = [nn.Parameter(torch.zeros(10, 10)), nn.Parameter(torch.zeros(7), requires_grad=False)]
    assert gradient_bytes(weights) == 400


@pytest.mark.parametrize("begun_again", [False, True])
def test_what_a_step_left_free_is_given_out_unless_it_was_begun_again(monkeypatch, begun_again: bool) -> None:
    """Seen from the peak, what was free when memory ran out looks spare: with tensors of 4 GiB the choice that had failed would be taken once more."""
    monkeypatch.setattr(throughput, "spare_bytes", lambda device: 2**40)
    loss = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    memory = ActivationMemory(loss, "full", Mesh(torch.device("cuda")), torch.bfloat16, (BATCH, TOKENS))
    kept, given = memory._checkpointing, list[int]()
    kept.candidates(loss.body, BATCH, TOKENS)
    kept.settle(Room(sum(c.size for c in kept.layer.candidates)))
    memory._traced = True
    monkeypatch.setattr(kept, "spare", given.append)
    if begun_again:
        assert memory.lower()
    for _ in range(2):
        memory.after_step()
    assert len(given) == (not begun_again)


def test_what_several_devices_take_is_reserved() -> None:
    """Counted by hand, for two layers of 64 with four heads of 16 on two keys, in bfloat16: gradients of a layer twice, once in float32."""
    loss = NextTokenLoss(testing.tiny("llama", window=64).train())
    config = loss.model.config
    layer = sum(weight.numel() for weight in loss.model.model.layers[0].parameters())
    others = sum(weight.numel() for weight in loss.model.parameters()) - layer * config.num_hidden_layers
    mesh = Mesh(torch.device("cpu"))
    mesh.world = mesh.context_size = 2
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32))
    whole = 2 * 2 * layer + (2 + 4) * layer + 2 * 2 * others
    width = config.num_attention_heads * config.head_dim
    keys = 64 * config.num_key_value_heads * config.head_dim
    assert memory._of_several(32) == 4 * 2**30 + whole + 2 * keys * 2 + 2 * keys * 4 + 8 * 2 * 64 * width
    mesh.context_size = 1
    assert memory._of_several(32) == whole
    mesh.world = 1
    assert memory._of_several(32) == 0


def test_several_devices_set_no_copies_aside_and_a_plan_reserves_what_training_does(monkeypatch) -> None:
    """FSDP2 casts a layer when it gathers it (tests/distributed): copies of all float32 weights, as of autocast on one device, are never there."""
    loss, mesh = NextTokenLoss(testing.tiny("llama", window=64).train()), Mesh(torch.device("cpu"))
    monkeypatch.setattr(recompute, "free_bytes", lambda *_, reserved, **rest: -reserved)
    alone = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32), accumulated=False)._room().card
    assert -alone == 2 * sum(weight.numel() for weight in loss.parameters())
    mesh.world = mesh.context_size = 2
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32), accumulated=False)
    reserved = memory._of_several(32)
    assert memory._room().card == -reserved
    shape = read_shape(loss.model.config.to_dict(), name="x")
    recipe = Recipe(window=64, batch_size=1, precision="bfloat16", optimizer="adamw")
    job, chip = Job(shape, recipe, gpus=2, cp=2), chips.CHIPS["H100"]
    layer, bare = layer_of(job), step_memory(job)
    room = room_of(job, layer, chip, chips.datasheet_rates(chip))
    before = chip.memory * GIB - bare.weights - bare.states - CONTEXT - shape.layers * room.input
    # Norms, which a plan does not count among a layer's weights, take a few kilobytes; copies would take 115.
    assert room.card == pytest.approx(before - layer.workspace(room.loss) - budget.MARGIN - reserved, abs=2e4)


@pytest.mark.parametrize(
    ("mode", "precision", "copied"),
    [("lora", "bfloat16", True), ("full", "bfloat16", True), ("full", "bfloat16-stochastic", False), ("full", "float32", False)],
)  # fmt: skip
def test_autocasts_copies_are_reserved_as_they_are_planned(
    monkeypatch, mode: str, precision: str, copied: bool
) -> None:
    """Of adapters, embedding and norms training set copies aside that a plan left out, and of all weights some that float32 arithmetic never makes."""
    model, compute = (
        testing.tiny("llama", window=64).train(),
        torch.float32 if precision == "float32" else torch.bfloat16,
    )
    if mode == "lora" or precision == "bfloat16-stochastic":
        model = model.bfloat16()
    config = model.config.to_dict()
    if mode == "lora":
        model = lora.add(model, rank=4, alpha=8, compute=compute)
    expected = 2 * sum(weight.numel() for weight in model.parameters() if weight.requires_grad) * copied
    monkeypatch.setattr(recompute, "free_bytes", lambda *_, reserved, **rest: -reserved)
    loss, mesh = NextTokenLoss(model), Mesh(torch.device("cpu"))
    memory = ActivationMemory(loss, "auto", mesh, compute, (1, 64), accumulated=False, adapters=mode == "lora")
    assert -memory._room().card == expected
    recipe = Recipe(window=64, batch_size=1, precision=precision, optimizer="adamw", mode=mode, lora_rank=4)
    job, chip = Job(read_shape(config, name="x"), recipe), chips.CHIPS["H100"]
    layer, bare = layer_of(job), step_memory(job)
    room = room_of(job, layer, chip, chips.datasheet_rates(chip))
    before = chip.memory * GIB - bare.weights - bare.states - CONTEXT - job.shape.layers * room.input
    assert room.card == pytest.approx(before - layer.workspace(room.loss) - budget.MARGIN - expected, abs=1)
    # What a forward pass holds of them: the embedding is looked up, norms are not multiplied in that precision.
    multiplied = [
        weight.numel() for name, weight in model.named_parameters() if weight.requires_grad and "proj" in name
    ]
    assert copies_of(job)[0] == 2 * sum(multiplied) * copied


@pytest.mark.parametrize("family, documents, masked", [
    ("phi-3-mini-4k", False, False), ("phi-3-mini-4k", True, False), ("llama4_text", True, True), ("gemma2", False, True), ("llama", False, None),
])  # fmt: skip
def test_what_layers_that_slide_take_is_reserved_as_it_is_planned(
    family: str, documents: bool, masked: bool | None
) -> None:
    """Counted by hand, for two windows of 32 of four heads in bfloat16: eight tensors of queries, or a mask, and a copy for each window."""
    loss = NextTokenLoss(testing.tiny(family, window=64).train())
    mesh, config = Mesh(torch.device("cpu")), loss.model.config
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (2, 32), documents=documents)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    expected = {None: 0, True: 32 * 32 * (1 + 2 * 2), False: 8 * 2 * 2 * 32 * width}[masked]
    assert memory._of_sliding() == expected
    memory._trace()
    ops = {candidate.op for candidate in memory._checkpointing.layer.candidates}
    assert ("ropewalk.sliding_attention.default" in ops) == (masked is False)
