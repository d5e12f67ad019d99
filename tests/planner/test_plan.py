"""The planner: its counts against transformers' own models, its memory against real runs, its tables against its points."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch.profiler import ProfilerActivity, profile

import ropewalk
from ropewalk import cli, testing
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.families import family_of
from ropewalk.cli.tables.plan import show_plan
from ropewalk.errors import UserError
from ropewalk.model import loss
from ropewalk.model.architecture import auto_class, decoder_of
from ropewalk.model.layers import layout_of
from ropewalk.model.logits import LogitsTransform
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner import calibrate, chip_names, chips, choice, layout, plan, planner
from ropewalk.planner.choice import NOTHING, Layer, Room, choose
from ropewalk.planner.job import FULL, NONE, Job, kept_bytes, regime, tensors
from ropewalk.planner.kept import by_choice, layer_of
from ropewalk.planner.measured_recipe import measured_recipe
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.shape import read_shape
from ropewalk.planner.speed import step_time
from ropewalk.settings import budget
from ropewalk.settings.recipe import Recipe
from ropewalk.training import recompute

ROOT = Path(__file__).resolve().parents[2]
LLAMA = {name: shape_of(name) for name in ("llama-7b", "llama-13b", "llama-33b", "llama-65b")}
#: Small models of every family that is counted exactly, and keys that no published config sets.
CONFIGS = {name: testing.tiny_config(name) for name in testing.PUBLISHED} | {
    "llama with biases": testing.tiny_config("llama", 64, attention_bias=True, mlp_bias=True, num_key_value_heads=2),
    "llama tied": testing.tiny_config("llama", 64, tie_word_embeddings=True),
    "gpt_oss without biases": testing.tiny_config("gpt_oss", 64, attention_bias=False),
}
COUNTED = [name for name, config in CONFIGS.items() if family_of(text_type(config.to_dict())).layers is not None]
#: Billions of weights, as their makers and transformers have them, of published configs that leave out class defaults.
PUBLISHED_CONFIGS: dict[str, tuple[dict[str, Any], float]] = {
    "SmolLM3 3B": (
        {"model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16,
         "num_key_value_heads": 4, "vocab_size": 128256},
        3.075,
    ),
    "Nemotron-Mini 4B": (
        {"model_type": "nemotron", "hidden_size": 3072, "intermediate_size": 9216, "num_hidden_layers": 32, "num_attention_heads": 24,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 256000, "tie_word_embeddings": False},
        4.191,
    ),
    "Command R7B": (
        {"model_type": "cohere2", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
         "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 256000},
        8.028,
    ),
    "Gemma 3 4B": (
        {"model_type": "gemma3", "text_config": {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240,
                                                 "num_hidden_layers": 34, "sliding_window": 1024}},
        3.880,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", COUNTED)
def test_weights_are_counted_as_transformers_builds_them(name: str) -> None:
    config = CONFIGS[name]
    with torch.device("meta"):
        model = auto_class(config.to_dict()).from_config(config)
    shape = read_shape(json.loads(config.to_json_string(use_diff=False)), name=name)
    # Of a multimodal model the language model is counted.
    weights = {*decoder_of(model).parameters(), *model.get_output_embeddings().parameters()}
    assert shape.counted == sum(weight.numel() for weight in weights)


@pytest.mark.parametrize("name", PUBLISHED_CONFIGS)
def test_published_configs_that_leave_out_class_defaults_have_their_weights(name: str) -> None:
    config, billions = PUBLISHED_CONFIGS[name]
    assert round(read_shape(config, name=name).counted / 1e9, 3) == billions


def test_the_papers_models_have_the_weights_that_llama_reports() -> None:
    # Touvron et al. 2023, table 2: 6.7, 13.0, 32.5 and 65.2 billion.
    assert [round(shape.parameters / 1e9, 1) for shape in LLAMA.values()] == [6.7, 13.0, 32.5, 65.3]
    assert round(LLAMA["llama-65b"].parameters / 1e9, 2) == 65.29


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral-v0.1"])
def test_a_token_costs_what_the_training_log_counts(family: str) -> None:
    from ropewalk.training import lora
    from ropewalk.training.throughput import flops_per_token

    model = testing.tiny(family, window=64, num_key_value_heads=2)
    shape = read_shape(model.config.to_dict(), name="tiny")
    assert shape.flops(64) == pytest.approx(flops_per_token(model, 64), rel=1e-12)
    adapted, plain = lora.add(model, rank=4, alpha=8), _job(shape, 64)
    job = replace(plain, recipe=replace(plain.recipe, mode="lora"))
    assert job.flops / 64 == pytest.approx(flops_per_token(adapted, 64), rel=1e-12)
    assert job.flops < 0.9 * plain.flops


@pytest.mark.parametrize("machine", ["H100", "5090", "4090", "A100-80"])
def test_no_plan_of_adapters_does_more_than_the_card_can(machine: str) -> None:
    for model, window in (("llama-13b", 4096), ("llama-3-8b", 16384)):
        planned = plan(model, window=window, gpus=machine, mode="lora", base_bits=4, batch_size=8)
        assert planned.fits and 0.3 < planned.mfu.measured < 0.85


def test_layers_with_a_sliding_window_cost_less_attention() -> None:
    gemma = read_shape(CONFIGS["gemma3_text"].to_dict(), name="gemma")
    assert (gemma.sliding, gemma.sliding_window) == (1, 16)
    full = replace(gemma, sliding=0)
    assert gemma.attention_flops(64) < full.attention_flops(64)


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "mistral-v0.1", "cohere2"])
def test_keys_are_those_that_transformers_lets_a_query_see(family: str) -> None:
    model = testing.tiny(family, window=64, attn_implementation="eager").eval()
    weights = model(torch.zeros(1, 64, dtype=torch.long), output_attentions=True).attentions
    seen = [float((layer[0, 0] > 0).sum()) / 64 for layer in weights]
    # A triangle is counted as half its square, without half of the diagonal: half a key a query.
    assert layout_of(model).keys_seen(64) == pytest.approx(sum(seen), abs=0.6 * len(seen))


@pytest.mark.parametrize(
    "family, said", [("phi-3-mini-4k", "compute what they see alone"), ("gemma2", "save no time"), ("llama", "")]
)
def test_a_plan_says_what_layers_that_slide_cost(
    family: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = testing.tiny_config(family, window=64)
    (tmp_path / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
    show_plan(plan(str(tmp_path), window=256, gpus="H100"))
    out = " ".join(capsys.readouterr().out.split())
    assert ("layers that slide" in out) == bool(said) and said in out


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
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size"]
)
def test_a_missing_key_is_named(key: str) -> None:
    # Of a family whose class is not known: what a known one's config leaves out is its class's.
    config = {k: v for k, v in CONFIGS["llama"].to_dict().items() if k != key} | {"model_type": "of nobody"}
    with pytest.raises(UserError, match=key):
        read_shape(config, name="x")


def test_layers_of_another_kind_are_refused_by_their_key() -> None:
    with pytest.raises(UserError, match="kv_lora_rank"):
        read_shape({**CONFIGS["llama"].to_dict(), "model_type": "deepseek_v3", "kv_lora_rank": 512}, name="x")


def test_chips_are_read_as_people_write_them() -> None:
    assert [chip_names.parse(text)[0] for text in ("8xH100", "8 x h100", "H100", "32xA100-80GB")] == [8, 8, 1, 32]
    assert chip_names.parse("4xA100")[1] is chip_names.parse("A100-80")[1]
    for driver, name in {
        "NVIDIA H200": "H200",
        "NVIDIA H100 80GB HBM3": "H100",
        "NVIDIA A100-SXM4-80GB": "A100-80",
        "NVIDIA A100-SXM4-40GB": "A100-40",
        "NVIDIA H100 PCIe": "H100-PCIe",
        "NVIDIA L40S": "L40S",
        "NVIDIA GeForce RTX 4090": "4090",
        "AMD Instinct MI300X": "MI300X",
    }.items():
        chip = chip_names.named(driver)
        assert chip is not None and chip.name == name
    assert chip_names.named("NVIDIA P40") is None


@pytest.mark.parametrize("text", ["", "8xT800", "8*foo", "999999999"])
def test_a_chip_that_nobody_knows_lists_those_that_are_known(text: str) -> None:
    with pytest.raises(UserError, match="known chips: 3060, .*A100-40"):
        chip_names.parse(text)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("8xH1000", r"got '8xH1000'; did you mean H100\?"),
        ("H100x", r"did you mean H100\?"),
        ("8h100", r"did you mean 8xH100\?"),
        ("2M3 Max 4096GB", r"did you mean 2xM3-Max-128\?"),
        ("0xH100", "0 is no count; name 1 or more"),
        ("-1xH100", "-1 is no count; name 1 or more"),
        ("H100:0", "0 is no count; name 1 or more"),
        ("8", "name the chip as well, or give --gpu-memory"),
    ],
)
def test_of_a_number_of_chips_the_fault_is_named_and_not_every_chip(text: str, said: str) -> None:
    with pytest.raises(UserError, match=f"left out this machine; .*{said}") as raised:
        chip_names.parse(text)
    assert "known chips" not in str(raised.value)


def _job(shape="llama-7b", window=32768, batch=1, *, activations=FULL, fused=True, **rest) -> Job:
    """A job; `rest` are its layout, or options of the recipe."""
    shape = LLAMA[shape] if isinstance(shape, str) else shape
    layout = {name: rest.pop(name) for name in ("gpus", "cp", "micro", "replicas") if name in rest}
    recipe = Recipe(
        window=window, batch_size=batch, **{"precision": "bfloat16-stochastic", "optimizer": "adamw"} | rest
    )
    return Job(shape, recipe, activations=activations, fused=fused, **{"micro": batch} | layout)


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


def test_what_autograd_saves_in_a_layer_is_what_is_counted() -> None:
    """Bytes that torch itself packs for the backward pass of one more layer, float32 on a CPU, against the list of tensors."""
    packed = {}

    def saved(layers: int) -> int:
        model = testing.tiny(
            "llama", window=256, num_hidden_layers=layers, hidden_size=128, intermediate_size=344
        ).train()
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
    job = _job(read_shape(config.to_dict(), name="x"), 256, precision="float32", fused=False)
    # Root mean squares and the like, one number a token, are not listed: well under 2 % at this width.
    assert saved(3) - saved(2) == pytest.approx(sum(tensors(job).values()) * 256, rel=0.02)


def test_keeping_more_takes_memory_and_saves_time() -> None:
    rates = chips.datasheet_rates(chips.CHIPS["H200"])
    job = _job()
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
    config = testing.tiny_config(family, 256, hidden_size=128, intermediate_size=344)
    root = NextTokenLoss(transformers.AutoModelForCausalLM.from_config(config).train())
    traced = recompute.SelectiveCheckpointing(root)
    traced.candidates(root.body, 2, 96)
    shape = read_shape(config.to_dict(), name=family)
    job = replace(_job(shape, 96, 2, precision="float32"), tiled=True)
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


def test_seven_billion_weights_at_32768_fit_one_h200_and_65_billion_do_not() -> None:
    assert plan("llama-7b", window=32768, gpus="H200").fits
    planned = plan("llama-65b", window=8192, gpus="H200")
    assert not planned.fits
    # 65e9 * 6 bytes / 139.8 GiB: 2.6 chips for weights, gradients and states in the regime that takes least.
    assert any(way.startswith("--gpus 4xH200") for way in planned.ways)


def test_ways_out_do_fit() -> None:
    planned = plan("llama-13b", window=8192, gpus="H200", precision="bfloat16", optimizer="adamw")
    assert not planned.fits
    assert planned.ways
    for way in planned.ways:
        words = way.split()
        names, values = words[::2], words[1::2]
        options = {
            name.removeprefix("--").replace("-", "_"): int(value) if value.isdigit() else value
            for name, value in zip(names, values, strict=True)
        }
        assert plan(
            "llama-13b", **{"window": 8192, "gpus": "H200", "precision": "bfloat16", "optimizer": "adamw", **options}
        ).fits, way


def test_the_longest_half_of_a_window_that_fits_is_named() -> None:
    """Weights in four bits under adapters on 24 GB: more chips are no way out, and a shorter window is."""
    asked = dict(gpus="4090", mode="lora", base_bits=4, batch_size=1)
    planned = plan("llama-3-8b", window=262144, **asked)
    assert not planned.fits and not any("--gpus" in way for way in planned.ways)
    [shorter] = [other for other in planned.others if other.options.startswith("--window ")]
    window = shorter.job.recipe.window
    assert shorter.fits and 8192 < window < 262144
    options = dict(zip(*[iter(shorter.options.replace("--", "").replace("-", "_").split())] * 2, strict=True))
    assert plan("llama-3-8b", **{**asked, **options, "window": window}).fits
    assert plan("llama-3-8b", window=262144, gpus="4090", mode="pose", batch_size=1).ways is not None


def test_chips_share_the_work() -> None:
    one, eight = (plan("llama-7b", window=16384, gpus=f"{n}xH200") for n in (1, 8))
    assert eight.memory.weights == pytest.approx(one.memory.weights / 8)
    assert 4 < eight.time.tokens_per_second / one.time.tokens_per_second < 12
    assert eight.job.dp * eight.job.cp == 8
    assert eight.tokens == one.tokens == 1000 * 128 * 16384


def test_copies_of_the_weights_take_the_memory_of_fewer_chips_and_spare_a_slow_network(capsys) -> None:
    """HSDP: what is sharded is sharded over one machine; each chip's share of the gradients alone goes to the others."""
    copies = plan("llama-7b", window=2048, gpus="16xH100", batch_size=16, replicas=2, activations="full")
    whole = plan("llama-7b", window=2048, gpus="16xH100", batch_size=16, replicas=1, activations="full")
    eight = plan("llama-7b", window=2048, gpus="8xH100", batch_size=8, activations="full")
    assert copies.memory == eight.memory and copies.memory.weights == pytest.approx(2 * whole.memory.weights)
    show_plan(copies)
    said = capsys.readouterr().out
    assert "2 copies of 8 shards" in said and "--replicas 2" in said

    slow = replace(chips.CHIPS["H100"], network=1e9)
    job, rates = copies.job, copies.rates
    chosen, fits = layout.choose(job, slow, rates, cp=1)
    assert fits and chosen.replicas == 2
    # Weights twice in bfloat16 and gradients in float32 through eight such networks, against an eighth of the gradients there and back.
    sharded, copied = (step_time(replace(job, replicas=n), rates, slow) for n in (1, 2))
    assert sharded.links == pytest.approx(6.74e9 * 15 / 16 * 8 / 8e9, rel=0.3)
    assert copied.links < sharded.links
    assert layout.choose(job, chips.CHIPS["H100"], rates, cp=1)[0].replicas == 1


def test_context_parallel_makes_a_window_fit_that_one_chip_cannot_hold() -> None:
    job = plan("llama-7b", window=2**20, gpus="8xH200", batch_size=8).job
    assert job.cp > 1


def test_hours_and_cost_add_up() -> None:
    planned = plan("llama-7b", window=8192, gpus="8xH100", steps=100, batch_size=32, price=2.0)
    assert planned.hours == pytest.approx(100 * 32 * 8192 / planned.time.tokens_per_second / 3600)
    assert planned.cost == pytest.approx(2.0 * 8 * planned.hours)


def test_a_run_of_days_on_one_chip_is_told_what_a_night_does(capsys) -> None:
    """`--batch-size` and the steps of it that eight hours have, by the plan's own time; nothing where a day suffices, or where it is a cluster's."""
    options = dict(window=32768, gpus="H200", mode="lora")
    long = plan("llama-7b", steps=1000, **options)
    show_plan(long)
    steps, windows = map(
        int, re.search(r"in a night of 8 hours: (\d+) steps of (\d+) windows?, ", capsys.readouterr().out).groups()
    )
    night = plan("llama-7b", steps=steps, batch_size=windows, **options)
    assert night.hours == pytest.approx(8, rel=0.1) and steps >= 20
    for other in (
        plan("llama-7b", steps=20, batch_size=1, **options),
        plan("llama-7b", window=32768, gpus="8xH200", steps=10000),
    ):
        show_plan(other)
        assert "in a night" not in capsys.readouterr().out


def test_the_default_recipe_is_said_to_be_the_papers_and_a_measured_one_stands_beside_it(capsys) -> None:
    """lab-2k has LLaMA's base and window: its longest training by YaRN, as it was run (lab/records/c/lab-2k), and as much of the time as of the tokens."""
    options = dict(window=32768, gpus="H100", price=2.5)
    planned = plan("llama-7b", **options)
    beside = measured_recipe(planned)
    assert (beside.steps, beside.batch_size, beside.learning_rate, beside.tokens) == (200, 64, 3e-4, 200 * 64 * 32768)
    assert beside.cost == pytest.approx(planned.cost * beside.tokens / planned.tokens)
    show_plan(planned)
    printed = capsys.readouterr().out
    assert "1000 steps of 128 windows (6.4 days) are the recipe of Chen et al." in printed
    assert "train --steps 200 --batch-size 64 --learning-rate 0.0003, here 419 million tokens, about" in printed
    assert (
        "(lab-2k, 2048 to 8192 tokens, " in printed
        and "28\u202f% (3 seeds, by seed from 21\u202f% to 31\u202f%) in" in printed
    )
    assert "factor 16 (measured: 4); Chen et al. train 7B and 13B at a rate of 2e-05" in printed
    assert f", which cost {beside.cost:.0f} by the price given (" in printed
    dear = plan("llama-7b", **{**options, "price": 25.0})
    show_plan(dear)
    assert f", which cost {measured_recipe(dear).cost:.0f} by the price given (" in capsys.readouterr().out
    assert measured_recipe(plan("llama-7b", window=32768, gpus="128xH100", cp=1)).batch_size == 128  # shared out evenly
    assert measured_recipe(plan("llama-7b", window=32768, gpus="4090")).hours is None  # does not fit
    assert measured_recipe(plan("llama-7b", window=2048, gpus="H100")) is None  # no longer window


def test_steps_that_are_named_are_told_what_was_measured_too(capsys) -> None:
    show_plan(plan("llama-7b", window=32768, gpus="H100", steps=200, batch_size=2))
    printed = capsys.readouterr().out
    assert "the recipe of Chen et al." not in printed
    assert "measured in the lab with YaRN, which --method auto takes: train --steps 200 --batch-size 64" in printed
    assert "training tokens 12.5M (measured: 5M, 20M and 100M)" in printed
    for steps, batch_size in ((1000, 1), (16, 32)):
        beside = measured_recipe(plan("hemp", window=1024, gpus="H100", steps=steps, batch_size=batch_size))
        assert (beside.steps, beside.batch_size, beside.learning_rate) == (16, 32, 1e-4)
        assert "extrapolation" not in beside.evidence


def test_a_recipe_is_of_the_method_that_makes_the_model_longer() -> None:
    asked = dict(window=1024, gpus="H100")
    assert measured_recipe(plan("hemp", **asked)).method == "YaRN"
    assert measured_recipe(plan("hemp", method="pi", **asked)).method == "PI"
    assert measured_recipe(plan("hemp", method="yarn", beta_fast=4.0, beta_slow=3.0, **asked)) is None


@pytest.mark.parametrize(
    "words",
    ["--method linear", "--method abf --rope-theta 500000", "--method plain", "--method llama3", "--method yarn", ""],
)
def test_the_recipe_that_a_plan_prints_is_typed_and_trains_by_the_method_that_was_planned(words, capsys) -> None:
    cli.main(["plan", "hemp", "--window", "1024", "--gpus", "H100", *words.split()])
    printed = " ".join(capsys.readouterr().out.split())
    line = re.search(r"measured in the lab with [^:]*: train (.*?), here ", printed)[1]
    assert line.startswith(f"{words} --steps 16 " if words else "--steps 16 ")
    asked = f"train hemp --window 1024 --data books --out here {line}"
    _, options = cli.parse(asked.split())
    planned = plan("hemp", window=1024, gpus="H100", method=options.method, rope_theta=options.rope_theta)
    assert measured_recipe(planned).method in printed.partition("measured in the lab with ")[2]
    assert ("which --method auto takes" in printed) == (not words) == ("which auto takes here" in printed)
    assert f"{planned.info.method}{', which auto takes here' * (not words)}" in printed


def test_what_no_training_takes_is_said_beside_a_plan_and_its_figures_stay(capsys) -> None:
    usual = plan("hemp", window=1024, gpus="H100")
    for options, sentence in (
        (dict(method="abf"), "abf scaling needs a --rope-theta above the model's own 10000"),
        (dict(method="yarn", rotated_share=0.5), "yarn scaling has no --rotated-share"),
        (dict(method="longrope"), "longrope scaling needs --factors"),
    ):
        planned = plan("hemp", window=1024, gpus="H100", **options)
        assert sentence in str(planned.info) and measured_recipe(planned) is None
        assert (planned.memory, planned.time) == (usual.memory, usual.time)
    assert status_of("plan hemp --window 256 --gpus H100 --beta-fast 8".split()) == 1
    assert "train would refuse this: --beta-fast says how a model is extended, and nothing is" in " ".join(
        capsys.readouterr().out.split()
    )


def test_a_plan_with_its_sliding_window_raised_is_of_the_model_that_is_trained(tmp_path) -> None:
    """Mistral v0.1: each layer sees 4096 of 32768 tokens, and 16384 is a longer window once they see it."""
    base = testing.tiny_directory(tmp_path / "base", "mistral", window=64, sliding_window=16)
    with pytest.raises(UserError, match="reads 64 tokens already"):
        plan(base, window=32, gpus="H100")
    planned = plan(base, window=32, gpus="H100", raise_sliding_window=True)
    made = ropewalk.extend(base, window=32, out=tmp_path / "longer", raise_sliding_window=True)
    assert (planned.info.original_window, planned.info.scaling) == (16, made.scaling)
    assert planned.job.shape.sliding_window == 33


def test_a_row_for_a_shorter_window_is_of_the_model_whose_layers_see_that_window(tmp_path) -> None:
    """Phi-3-mini-4k: a reach of the window's own length sees all of it, and was masked where it was typed and not in the row."""
    path = _config_of(
        tmp_path / "a", "phi3", hidden_size=3072, intermediate_size=8192, num_hidden_layers=32, num_attention_heads=32,
        num_key_value_heads=32, vocab_size=32064, sliding_window=47,
    )  # fmt: skip
    asked = dict(gpus="1xL4", raise_sliding_window=True)
    row = plan(path, window=2**19, **asked).others[-1]
    words = row.options.split()
    typed = {name[2:].replace("-", "_"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    numbers = {name: int(typed.pop(name)) for name in ("window", "base_bits") if name in typed}
    anew = plan(path, **asked, **typed, **numbers)
    assert anew.fits and numbers["window"] < 2**19
    assert (anew.memory, anew.time) == (row.memory, row.time)
    assert not anew.job.shape.slides(anew.job.length)


def test_chips_share_the_window_of_a_model_whose_layers_were_raised_to_see_all_of_it(tmp_path) -> None:
    path = _config_of(tmp_path / "a", "mistral-v0.1")
    asked = dict(gpus="2x3090", window=2**20, batch_size=1)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, **asked)
    assert plan(path, **asked, raise_sliding_window=True).job.cp == 2
    assert plan(path, **asked, cp=2, raise_sliding_window=True).job.cp == 2


def status_of(words: list[str]) -> int:
    """With which a command ends."""
    try:
        return cli.main(words) or 0
    except SystemExit as ended:
        return int(ended.code or 0)


def _config_of(directory: Path, family: str, **keys: Any) -> str:
    """A directory with a config.json alone, which is enough for a plan."""
    directory.mkdir()
    config = testing.tiny_config(family, window=64, **keys)
    (directory / "config.json").write_text(config.to_json_string(use_diff=False), encoding="utf-8")
    return str(directory)


@pytest.mark.parametrize("family", ["gemma3_text", "gemma2", "gpt_oss", "mistral-v0.1", "falcon-7b", "seed_oss"])
def test_chips_share_a_window_in_a_plan_only_where_they_do_in_training(family: str, tmp_path: Path) -> None:
    path = _config_of(tmp_path / "a", family)
    asked = dict(window=2**20, batch_size=8)
    planned = plan(path, gpus="8x3090", **asked)
    assert planned.job.cp == 1 and all(row.job.cp == 1 for row in planned.others)
    with pytest.raises(UserError, match="use --cp 1"):
        plan(path, gpus="8x3090", cp=2, **asked)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, gpus="2x3090", window=2**20, batch_size=1)
    llama = _config_of(tmp_path / "b", "llama")
    assert plan(llama, gpus="2x3090", window=2**20, batch_size=1).job.cp == 2


def test_chips_share_no_window_that_longrope_turns_by_the_farthest_position(tmp_path: Path) -> None:
    scaling = dict(rope_type="longrope", short_factor=[1.0] * 8, long_factor=[2.0] * 8)
    keys = dict(sliding_window=None, rope_parameters=scaling, original_max_position_embeddings=32)
    path = _config_of(tmp_path / "a", "phi3", **keys)
    asked = dict(gpus="2x3090", batch_size=2)
    assert plan(path, cp=2, window=128, **asked).job.cp == 2  # auto takes another method, by one list of factors
    with pytest.raises(UserError, match="rotate it by the same factors, and LongRoPE has others"):
        plan(path, cp=2, window=64, **asked)
    with pytest.raises(UserError, match="2 chips cannot share 1 windows"):
        plan(path, window=64, gpus="2x3090", batch_size=1)


@pytest.mark.parametrize("family", testing.PUBLISHED)
def test_what_a_config_says_of_sharing_a_window_is_what_transformers_model_allows(family: str) -> None:
    model = testing.tiny(family)
    config, layout = model.config.get_text_config(), layout_of(model)
    kinds = getattr(config, "layer_types", None) or [
        "sliding" if getattr(config, "sliding_window", None) else "full_attention"
    ]
    full = all(kind == "full_attention" for kind in kinds)
    replaceable = model._supports_sdpa and model._can_set_attn_implementation()
    more = ("attn_logit_softcapping", "attention_dropout", "kv_lora_rank", "attention_chunk_size")
    assert layout.is_plain == (full and replaceable and not any(getattr(config, key, None) for key in more))


@pytest.mark.parametrize(
    ("family", "said"),
    [("mistral-v0.1", "slides in every layer"), ("cohere2", "only layers rotate that see a part"), ("llama", "")],
)
def test_a_plan_says_what_extend_refuses_of_a_model_without_a_layer_to_scale(family, said, tmp_path, capsys) -> None:
    path = _config_of(tmp_path / "a", family)
    for words, is_said in (("", bool(said)), ("--method plain", False)):
        typed = ["plan", path, "--window", "256", "--gpus", "H100", *words.split()]
        assert status_of(typed) == is_said
        printed = " ".join(capsys.readouterr().out.split())
        assert ("train would refuse this: " in printed) == is_said and (not is_said or said in printed)
        assert "--raise-sliding-window" not in printed or "add --raise-sliding-window" in printed
        assert ("which auto takes here" in printed) == (not said and not words)
        assert not is_said or printed.startswith("train would refuse this: ")
        assert status_of([*typed, "--json"]) == is_said
        row = json.loads(capsys.readouterr().out)
        assert row["fits"] and (said in row["refused"] if is_said else row["refused"] is None)
        assert "refuse" not in row["measured"]
    if family == "mistral-v0.1":
        cli.main(["plan", path, "--window", "256", "--gpus", "H100", "--raise-sliding-window"])
        printed = " ".join(capsys.readouterr().out.split())
        assert "refuse" not in printed and "train --raise-sliding-window --steps" in printed


def test_on_a_cpu_what_a_night_does_comes_before_what_the_papers_recipe_would_take(monkeypatch, capsys) -> None:
    cpu = replace(chips.cpu_of_memory(64.0, "this machine"), memory=64.0)
    rates = replace(
        chips.datasheet_rates(cpu), matrix=5e10, attention_forward=3e10, attention_backward=3e10, known=True
    )
    monkeypatch.setattr(planner, "_gpus_here", lambda: 0)
    monkeypatch.setattr(planner, "_measured", lambda job: (cpu, rates))
    monkeypatch.setattr(planner, "memory_here", lambda: 64 * GIB)
    show_plan(plan("hemp", window=16384))
    printed = capsys.readouterr().out
    night, recipe, days = (
        printed.index(words) for words in ("in a night of 8 hours", "the recipe of Chen et al.", " days")
    )
    assert night < recipe and night < days and "1000 steps, the paper's" in printed
    assert re.search(r"1000 steps of 128 windows \([\d.]+ days\) are the recipe of Chen et al.", printed)
    assert "are no run for a CPU: GPUs that are not here are planned for with --gpus, as in --gpus 8xH100\n" in printed
    show_plan(plan("hemp", window=1024, steps=100, batch_size=1))
    assert "no run for a CPU" not in capsys.readouterr().out


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
    job = _job(shape, 64, mode="lora")
    operations = step_time(job, rates).products * rates.matrix * rates.sustained / job.tokens
    assert operations == pytest.approx(2 * (2 * sum(shape.products.values()) + len(calls) * shape.embedding))
    assert len(calls) == 2 + tied


def test_adapters_are_counted_as_training_adds_them() -> None:
    from ropewalk.training import lora

    model = testing.tiny("llama", window=64, num_key_value_heads=2)
    shape = read_shape(model.config.to_dict(), name="x")
    wrapped = lora.add(model, rank=8, alpha=16)
    trained = sum(p.numel() for p in wrapped.parameters() if p.requires_grad)
    assert _job(shape, 64, mode="lora", lora_rank=8).trained == trained


def test_skipped_positions_cost_the_short_window() -> None:
    long, skipped = (plan("llama-7b", window=32768, gpus="H200", mode=mode) for mode in ("full", "pose"))
    assert skipped.job.length == 2048
    assert skipped.memory.activations + skipped.memory.workspace < long.memory.activations + long.memory.workspace


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (dict(window=0), "window is a whole number of at least 1"),
        (dict(window=1024), "reads 2048 tokens already"),
        (dict(steps=0), "steps is a whole number"),
        (dict(batch_size=0), "batch-size is a whole number"),
        (dict(cp=3), "3 does not divide 8"),
        (dict(replicas=3), "3 copies of the weights has as many chips, and 8 chips"),
        (dict(replicas=4, cp=4), "4 copies of the weights has as many chips, a multiple of --cp 4, and 8"),
        (dict(micro_batch=100), "a micro batch holds between 1 window and the batch size 64"),
        (dict(mode="half"), "mode is one of full, lora, pose, got 'half'"),
        (dict(activations="some"), "activations is one of auto, full, none"),
        (dict(gpus="8xT800"), "known chips"),
        (dict(gpus=""), "gpus is a text"),
        (dict(mode="pose", chunk_window=-5), "chunk-window is a whole number"),
        (dict(mode="lora", lora_rank=-4), "lora-rank is a whole number"),
        (dict(price=-1.0), "price is a finite number of at least 0"),
        (dict(price=math.nan), "price is a finite number of at least 0"),
        (dict(gpus="1000000xH100"), "1000000 chips cannot share 64 windows"),
        (dict(gpus="7xH100"), "7 chips cannot share 64 windows"),
        (dict(batch_size=3, cp=1), "--batch-size is a multiple of 8, got 3"),
        (dict(window=8200, cp=8), "a multiple of 2 x 8 tokens, got 8200"),
    ],
)
def test_a_users_mistake_is_a_sentence(wrong: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan("llama-7b", **{"window": 8192, "gpus": "8xH100", **wrong})


def test_a_layout_is_one_that_training_takes() -> None:
    """training/setup.py: as many windows to each group of chips. Three windows on eight chips: all eight share each."""
    assert plan("llama-7b", window=8192, gpus="8xH100", batch_size=3).job.cp == 8
    for batch, gpus in [(64, 8), (96, 64), (128, 128), (12, 8)]:
        job = plan("llama-7b", window=8192, gpus=f"{gpus}xH100", batch_size=batch).job
        assert batch % job.dp == 0


@pytest.mark.parametrize(("model", "window", "batch"), [("33b", 8192, 64), ("7b", 16384, 128), ("65b", 8192, 128)])
def test_a_plan_without_a_batch_size_is_for_the_papers(model: str, window: int, batch: int) -> None:
    found = plan(f"llama-{model}", window=window, gpus="128xA100-80")
    assert found.job.recipe.batch == batch and found.time.tokens == batch * window


def test_a_large_model_is_not_timed_for_minutes_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def random(self: object, *shape: int) -> torch.Tensor:
        shapes.append(shape)
        return torch.empty(*shape, device="meta")

    monkeypatch.setattr(calibrate._Bench, "random", random)
    monkeypatch.setattr(calibrate._Bench, "seconds", lambda *_: 1.0)
    bench = calibrate._Bench(torch.device("cpu"), torch.float32, 1.0, float)
    for name, rest in [("llama-65b", {}), (shape_of("hemp"), {"window": 1024, "batch": 4})]:
        job = _job(name, precision="float32", activations=NONE, fused=False, **rest)
        shapes.clear()
        calibrate._products(job, bench)
        for (tokens, rows), (columns, _), _ in zip(*[iter(shapes)] * 3, strict=True):
            assert 6 * tokens * rows * columns <= 3e10  # half a second at 60 GFLOP/s
        shapes.clear()
        calibrate._attention(job, bench)
        _, heads, length, size = shapes[0]
        assert 6 * length**2 * heads * size <= 3e10
    assert (heads, length) == (4, 1024)  # a small model's as they are


def test_hemp_and_directories_are_read_without_weights_or_torch(tmp_path: Path) -> None:
    directory = testing.tiny_directory(tmp_path / "a", window=64)
    assert shape_of(directory).stored == shape_of(directory).counted
    assert shape_of("hemp").stored == shape_of("hemp").counted
    (directory / "model.safetensors").unlink()
    assert shape_of(directory).stored is None
    code = (
        "import sys; from ropewalk.planner.planner import plan; "
        f"plan({str(directory)!r}, window=128, gpus='H100'); plan('hemp', window=1024, gpus='8xH200'); "
        "sys.exit(bool({'torch', 'transformers'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_this_machine_is_timed_for_the_models_own_shapes() -> None:
    job = _job(read_shape(CONFIGS["llama"].to_dict(), name="x"), 64, precision="float32", activations=NONE, fused=False)
    chip, rates = calibrate.present(job, seconds=0.2)
    assert chip.memory > 1
    for value in (rates.matrix, rates.attention_forward, rates.attention_backward, rates.bandwidth, rates.update):
        assert math.isfinite(value) and value > 0


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
    job = _job(shape, 512, 2 * micros, precision="float32", activations=keep, fused=False, micro=2)
    assert step_memory(job, cpu=True).allocated == pytest.approx(seen, rel=0.10)


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
    job = replace(_job(shape, 2048, precision="float32", fused=False), tiled=True)
    assert job.tiles == tiles
    planned = step_memory(job, cpu=True).allocated
    assert planned == pytest.approx(there + max(itertools.accumulate(changes)), rel=0.05)


def _page_maker():
    spec = importlib.util.spec_from_file_location("make_plan", ROOT / "docs/make_plan.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_plan"] = module
    spec.loader.exec_module(module)
    return module


def test_planned_memory_is_within_ten_percent_and_time_within_fifteen_at_every_point() -> None:
    checks = _page_maker().checks()
    assert sum(found.memory_error is not None and found.time_error is not None for found in checks) >= 8
    for found in checks:
        assert found.memory_error is None or abs(found.memory_error) <= 0.10, found.point
        assert found.time_error is None or abs(found.time_error) <= 0.15, found.point


def test_the_page_is_what_the_planner_says_of_the_points() -> None:
    maker = _page_maker()
    text = maker.PAGE.read_text(encoding="utf-8")
    assert maker.page(text) == text, "run `python docs/make_plan.py`"


def test_a_file_of_timings_becomes_points() -> None:
    turns = [
        dict(
            who="ropewalk",
            batch=1,
            tokens=32768,
            seconds=[99.0, 4.0, 4.2, 4.1],
            peak=120.0,
            kept="8 x [0, 3], 24 x [3]",
            error="",
        ),
        dict(who="liger", batch=1, tokens=32768, seconds=[99.0, 5.0], peak=54.7, kept="", error=""),
        dict(who="transformers", batch=1, tokens=32768, seconds=[], peak=0.0, kept="", error="OutOfMemoryError"),
    ]
    found = dict(turns=turns, matrix_rate=7.8e14, versions={"torch": "2.13.0"}, command=["bench/train.py"])
    ours, liger = _page_maker().measured(found, 1.2)
    assert ours["tokens_per_second"] == round(32768 / 4.1, 1)  # the first step is not timed
    assert ours["keep"] == {"q": 0.25, "attention": 1.0}
    assert liger["keep"] == "full"
    assert ours["rates"]["attention_forward"] > liger["rates"]["attention_forward"]


def test_a_machine_without_a_gpu_is_planned_for_by_its_memory(monkeypatch, capsys) -> None:
    """As `on_cpu` has it for this machine, with other memory; nothing here is looked at or timed."""
    for name in ("_measured", "memory_here", "_gpus_here"):
        monkeypatch.setattr(planner, name, lambda *_: pytest.fail("looked at this machine"))
    asked = dict(window=16384, batch_size=1)
    large, small, tiny = (plan("7b", **asked, cpu_memory=size) for size in ("512GB", "200GB", "8GB"))
    assert (large.chip.name, large.chip.memory, large.rates.known) == ("cpu", pytest.approx(512 * 0.98), False)
    assert large.fits and large.job.activations == NONE
    assert small.fits and small.job.activations == FULL and small.memory.total < large.memory.total
    assert not tiny.fits and not tiny.others
    assert large.memory.total == step_memory(large.job, cpu=True).total
    show_plan(small)
    assert "on each chip" not in capsys.readouterr().out
    for other in ("gpus", "gpu_memory", "host_memory"):
        with pytest.raises(UserError, match="cpu-memory is of a machine without a GPU"):
            plan("7b", **asked, cpu_memory="8GB", **{other: "24GB"})
    with pytest.raises(UserError, match="--cpu-memory is a size in GB"):
        plan("7b", **asked, cpu_memory="some")


def test_what_fits_a_cpu_is_named() -> None:
    asked = dict(window=16384, batch_size=2)
    short = plan("7b", **asked, cpu_memory="64GB")
    assert not short.fits and short.ways[:2] == ("--mode lora", "--mode lora --base-bits 4")
    adapted = plan("7b", **asked, cpu_memory="64GB", mode="lora")
    assert adapted.fits and adapted.memory.total == short.others[0].memory.total
    roomy = plan("7b", **asked, cpu_memory="512GB")
    assert [other.options for other in roomy.others] == ["--mode pose", "--mode lora", "--mode lora --base-bits 4"]
    assert roomy.others[0].job.length == 2048


def test_a_way_that_takes_more_memory_says_why(capsys) -> None:
    """Skipped positions were offered at more memory than whole windows take, without a word."""
    tight, roomy = (plan("7b", window=16384, batch_size=2, cpu_memory=size) for size in ("200GB", "512GB"))
    assert tight.memory.total < tight.others[0].memory.total and roomy.memory.total > roomy.others[0].memory.total
    show_plan(tight)
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.count("kept, since") == 1 and re.search(r"--mode pose \(all activations kept, since", shown)
    show_plan(roomy)
    assert "kept, since" not in capsys.readouterr().out


def test_sentences_are_wrapped_at_words_on_a_terminal_and_whole_in_a_pipe(monkeypatch, capsys) -> None:
    asked = ["plan", "7b", "--gpus", "8xH100", "--window", "32768"]
    cli.main(asked)
    whole = capsys.readouterr().out
    assert any(line.startswith("it fits by ") and line.endswith("how much there is)") for line in whole.splitlines())
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # what rich takes for a terminal
    cli.main(asked)
    wrapped = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, wrapped.splitlines())) <= 80
    assert next(line for line in whole.splitlines() if line.startswith("it fits by ")) in " ".join(wrapped.split())
