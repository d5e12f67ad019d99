"""What a training step holds and computes on paper: regimes, kept results, adapters, against transformers, peft and a real step's memory."""

from __future__ import annotations

import gc
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

from on_paper import job_of
from ropewalk import testing
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.cli.tables.plan import show_plan
from ropewalk.errors import UserError
from ropewalk.model import loss
from ropewalk.model.layers import layout_of
from ropewalk.model.logits import LogitsTransform
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner import chips, choice, plan
from ropewalk.planner.choice import NOTHING, Layer, Room, choose
from ropewalk.planner.job import FULL, NONE, kept_bytes, regime
from ropewalk.planner.kept import by_choice, layer_of
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.shape import read_shape
from ropewalk.planner.speed import step_time
from ropewalk.settings import budget
from ropewalk.settings.recipe import Mode
from ropewalk.training import recompute


@pytest.mark.parametrize("machine", ["H100", "5090", "4090", "A100-80"])
def test_no_plan_of_adapters_does_more_than_the_card_can(machine: str) -> None:
    for model, window in (("llama-13b", 4096), ("llama-3-8b", 16384)):
        planned = plan(model, window=window, gpus=machine, mode="lora", base_bits=4, batch_size=8)
        assert planned.fits and 0.3 < planned.mfu.measured < 0.85


@pytest.mark.parametrize("tokens", [15, 16, 17])
def test_a_mask_is_reckoned_with_where_transformers_makes_one(monkeypatch, tokens: int) -> None:
    model, masks = testing.tiny("gemma3_text"), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watched(*args: Any, attn_mask: torch.Tensor | None = None, **rest: Any) -> torch.Tensor:
        masks.append(attn_mask)
        return attend(*args, attn_mask=attn_mask, **rest)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    model(torch.zeros(1, tokens, dtype=torch.long))
    made = [
        mask is not None and mask.numel() == tokens**2 for mask in masks
    ]  # of the layer that slides, then of the other
    layout = layout_of(model)
    assert made == [layout.slides(tokens), False]
    # In a measurement, and in training where layers do more than slide.
    layout = replace(layout, alone=False)
    assert layout.keys_computed(tokens) == tokens / 2 + (tokens if made[0] else tokens / 2)


@pytest.mark.parametrize(
    ("precision", "optimizer", "each"),
    [
        ("float32", "adamw", 16),
        ("bfloat16", "adamw", 16),
        ("bfloat16", "adamw-8bit", 10),
        ("bfloat16", "adamw-offload", 8),
        ("bfloat16-stochastic", "adamw", 8),
        ("bfloat16-stochastic", "adamw-8bit", 6),
    ],
)
def test_a_regime_costs_the_bytes_that_the_optimiser_states(precision: str, optimizer: str, each: int) -> None:
    bytes_per_weight = regime(precision, optimizer)
    # 8-bit states carry a scale for every 256 values: 2 * 4 / 256 of a byte.
    assert bytes_per_weight.weight + bytes_per_weight.gradient + bytes_per_weight.states == pytest.approx(
        each, abs=0.04
    )


def test_regimes_that_do_not_exist_are_refused() -> None:
    for pair in [("bfloat16-stochastic", "adamw-offload"), ("float16", "adamw"), ("bfloat16", "sgd")]:
        with pytest.raises(UserError):
            regime(*pair)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_what_autograd_saves_in_a_layer_is_what_is_counted(mode: Mode) -> None:
    """Bytes that torch itself packs for the backward pass of one more layer, float32 on a CPU, against the list of tensors."""
    from ropewalk.training import lora

    packed = {}

    def saved(layers: int) -> int:
        model = testing.tiny("llama", window=256, num_hidden_layers=layers, hidden_size=128, intermediate_size=344)
        model = lora.add(model, rank=1, alpha=1).train() if mode == "lora" else model.train()
        weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        packed.clear()

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                packed[storage.data_ptr()] = (storage.nbytes(), storage)  # held, so that no address comes twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model(input_ids=torch.zeros(1, 256, dtype=torch.long), labels=torch.zeros(1, 256, dtype=torch.long))
        return sum(size for size, _ in packed.values())

    config = testing.tiny_config("llama", 256, hidden_size=128, intermediate_size=344)
    job = job_of(
        read_shape(config.to_dict(), name="x"), 256, precision="float32", fused=False, activations=NONE, mode=mode
    )
    # Root mean squares, what enters an adapter's second matrix and the like, a few numbers a token, are not listed: well under 2 % at this width.
    assert saved(3) - saved(2) == pytest.approx(kept_bytes(job) * 256, rel=0.02)


def test_keeping_more_takes_memory_and_saves_time() -> None:
    rates = chips.datasheet_rates(chips.CHIPS["H200"])
    job = job_of()
    rooms = [0, 10 * GIB, 40 * GIB, 200 * GIB]
    jobs = [by_choice(job, choose(layer_of(job), job.shape.layers, Room(room))) for room in rooms]
    assert all(a < b for a, b in zip(map(kept_bytes, jobs), map(kept_bytes, jobs[1:]), strict=False))
    seconds = [step_time(j, rates).seconds for j in jobs]
    assert seconds == sorted(seconds, reverse=True)
    for j, room in zip(jobs, rooms, strict=True):
        extra = (kept_bytes(j) - kept_bytes(job)) * job.tokens * job.shape.layers
        assert extra <= room


@pytest.mark.parametrize("family", ["llama", "qwen3", "mistral", "gemma3_text", "mistral-v0.1"])
@pytest.mark.parametrize("tiles", [1, 3])
def test_what_a_layer_could_keep_is_what_training_finds_in_it(monkeypatch, family: str, tiles: int) -> None:
    """Operations, bytes and cost of the layer itself, traced; and the same choice from both, on the card and with the host."""
    monkeypatch.setattr(choice, "mlp_tiles", lambda tokens, short=False: 4 if short else tiles)
    config = testing.tiny_config("llama", 256, hidden_size=128, intermediate_size=344)
    root = NextTokenLoss(transformers.AutoModelForCausalLM.from_config(config).train())
    traced = recompute.SelectiveCheckpointing(root)
    traced.candidates(root.body, 2, 96)
    shape = read_shape(config.to_dict(), name=family)
    job = replace(job_of(shape, 96, 2, precision="float32"), tiled=True)
    ours = layer_of(job)

    def seen(layer: Layer) -> list[tuple[bool, float, int]]:
        return sorted(("attention" in c.op, c.flops, c.size) for c in layer.candidates)

    for theirs, planned, count in ((traced.layer, ours, tiles), (traced.layer.smaller, ours.smaller, 4)):
        for (is_attention, flops, size), (attention, ours_flops, ours_size) in zip(
            seen(theirs), seen(planned), strict=True
        ):
            assert (is_attention, pytest.approx(flops)) == (attention, ours_flops)
            # A row's logarithm of sums is kept beside attention; how it is padded is the kernel's matter.
            assert ours_size == pytest.approx(size, rel=0.05 if attention else 0)
        assert (planned.cost, planned.again) == (pytest.approx(theirs.cost), pytest.approx(theirs.again))
        assert (
            (planned.tiles, planned.inside)
            == (theirs.tiles, theirs.inside)
            == (count, 0 if count == 1 else theirs.inside)
        )


def test_longce_costs_its_forward_passes(capsys) -> None:
    options = dict(window=32768, gpus="H200", batch_size=8, micro_batch=1)
    plain, weighed = plan("llama-7b", **options), plan("llama-7b", longce=5120, longce_stride=1024, **options)
    assert plain.time.short == 0 and weighed.time.seconds == pytest.approx(plain.time.seconds + weighed.time.short)
    # 28 passes of 5120 tokens read 4.4 windows, and a forward pass is a third of what the products take, attention beside it.
    assert 28 * 5120 / 32768 / 3 < weighed.time.short / weighed.time.products < 28 * 5120 / 32768 / 3 * 1.5
    show_plan(weighed)
    assert "short contexts (LongCE)" in capsys.readouterr().out


def test_low_rank_adapters_take_less_memory_and_less_time() -> None:
    full, lora = (plan("llama-7b", window=8192, gpus="H200", mode=mode) for mode in ("full", "lora"))
    assert lora.memory.states < full.memory.states / 10
    assert lora.time.seconds < full.time.seconds


@pytest.mark.parametrize("tied", [False, True])
def test_the_head_beside_adapters_takes_the_products_that_the_loss_computes(monkeypatch, tied: bool) -> None:
    """Two where it is frozen, three where it is the embedding, which is trained; of the layers two. Counted as the loss calls them."""
    from ropewalk.training import lora

    model = testing.tiny("llama", window=64, num_hidden_layers=1, tie_word_embeddings=tied)
    wrapped = lora.add(model, rank=2, alpha=4)
    calls = []
    mm, linear = torch.mm, torch.nn.functional.linear
    monkeypatch.setattr(torch, "mm", lambda *a, **out: calls.append(1) or mm(*a, **out))
    monkeypatch.setattr(loss.nn.functional, "linear", lambda *a: calls.append(1) or linear(*a))
    monkeypatch.setattr(loss, "_add_product", lambda *_: calls.append(1))
    hidden = torch.randn(8, 64, requires_grad=True)
    loss.cross_entropy(hidden, wrapped.get_base_model().lm_head, torch.zeros(8, dtype=torch.long), LogitsTransform())
    shape, rates = read_shape(model.config.to_dict(), name="x"), chips.datasheet_rates(chips.CHIPS["H200"])
    job = job_of(shape, 64, mode="lora")
    operations = step_time(job, rates).products * rates.matrix * rates.sustained / job.tokens
    assert operations == pytest.approx(2 * (2 * sum(shape.products.values()) + len(calls) * shape.embedding))
    assert len(calls) == 2 + tied


def test_adapters_are_counted_as_training_adds_them() -> None:
    from ropewalk.training import lora

    model = testing.tiny("llama", window=64, num_key_value_heads=2)
    shape = read_shape(model.config.to_dict(), name="x")
    wrapped = lora.add(model, rank=8, alpha=16)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert job_of(shape, 64, mode="lora", lora_rank=8).trained == trained


def test_skipped_positions_cost_the_short_window() -> None:
    long, skipped = (plan("llama-7b", window=32768, gpus="H200", mode=mode) for mode in ("full", "pose"))
    assert skipped.job.length == 2048
    assert skipped.memory.activations + skipped.memory.workspace < long.memory.activations + long.memory.workspace


@pytest.mark.parametrize("family", ["llama", "mistral-v0.1"])  # whose layers all see the window, and whose layers slide
@pytest.mark.parametrize(("micros", "checkpointed"), [(1, False), (1, True), (2, True)])
def test_memory_is_what_a_real_step_holds(micros: int, checkpointed: bool, family: str) -> None:
    """Every tensor of two training steps, followed by torch's own tracker; 10 %, since that is what the planner promises."""
    from torch.distributed._tools.mem_tracker import MemTracker

    sizes = dict(window=512, hidden_size=128, intermediate_size=344, num_hidden_layers=4)
    model = testing.tiny(family, **sizes).train()
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    attend_in_blocks(model)
    root, ids = NextTokenLoss(model), torch.zeros(2, 512, dtype=torch.long)
    optimizer, tracker = torch.optim.AdamW(model.parameters(), fused=True), MemTracker()
    tracker.track_external(model, optimizer)
    with tracker:
        for _ in range(2):
            optimizer.zero_grad()
            for _ in range(micros):
                tracker.reset_mod_stats()
                root(input_ids=ids, labels=ids).backward()
            optimizer.step()
    seen = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    shape = read_shape(model.config.to_dict(), name="x")
    keep = FULL if checkpointed else NONE
    job = job_of(shape, 512, 2 * micros, precision="float32", activations=keep, fused=False, micro=2)
    assert step_memory(job, cpu=True).allocated == pytest.approx(seen, rel=0.10)


def test_memory_of_a_cpus_loss_is_what_its_chunk_holds() -> None:
    """By torch's own tracker, of a head that is most of a step: 2048 tokens of 16384 in the vocabulary, in two chunks."""
    from torch.distributed._tools.mem_tracker import MemTracker

    model = testing.tiny(window=2048, vocab_size=16384, num_hidden_layers=1).train()
    attend_in_blocks(model)
    root, ids, tracker = NextTokenLoss(model), torch.zeros(1, 2048, dtype=torch.long), MemTracker()
    tracker.track_external(model)
    with tracker:
        root(input_ids=ids, labels=ids).backward()
    seen = tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]
    shape = read_shape(model.config.to_dict(), name="x")
    job = job_of(shape, 2048, 1, precision="float32", activations=NONE, fused=False, micro=1)
    need = step_memory(job, cpu=True)
    assert need.logits > 0.8 * seen and need.allocated - need.states == pytest.approx(seen, rel=0.10)


@pytest.mark.parametrize("tiles", [1, 4, 8])
def test_memory_of_an_mlp_in_tiles_is_what_a_real_step_takes_from_the_allocator(monkeypatch, tiles: int) -> None:
    """Of an MLP ten times as wide as the model. What the operator takes for itself no tracker of tensors sees; the allocator's own record does."""
    monkeypatch.setattr(budget, "TILE_TOKENS", 2048 // tiles)
    model = testing.tiny("llama", window=2048, hidden_size=128, intermediate_size=1376, num_hidden_layers=4).train()
    root, ids = NextTokenLoss(model), torch.zeros(1, 2048, dtype=torch.long)
    checkpointing = recompute.SelectiveCheckpointing(root)
    checkpointing.tile(tiles)
    checkpointing.keep([NOTHING] * 4)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)

    def step() -> None:
        optimizer.zero_grad()
        root(input_ids=ids, labels=ids).backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    gc.collect()  # or what other tests left is given back meanwhile
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    there = 3 * 4 * sum(weight.numel() for weight in model.parameters())  # weights and moments
    shape = read_shape(model.config.to_dict(), name="x")
    job = replace(job_of(shape, 2048, precision="float32", fused=False), tiled=True)
    assert job.tiles == tiles
    planned = step_memory(job, cpu=True).allocated
    assert planned == pytest.approx(there + max(itertools.accumulate(changes)), rel=0.05)
