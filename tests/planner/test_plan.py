"""The planner: its counts against transformers' own models, its memory against real runs, its tables against its points."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from on_paper import CONFIGS, job_of
from ropewalk.cli.tables.plan import show_plan
from ropewalk.cli.tables.plan_sentences import verdict
from ropewalk.errors import UserError
from ropewalk.planner import calibrate, chip_names, chips, layout, plan, planner
from ropewalk.planner.chips import CHIPS, datasheet_rates
from ropewalk.planner.job import FULL, NONE
from ropewalk.planner.memory import step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.shape import read_shape
from ropewalk.planner.speed import step_time


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


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("1xM2Ultra", "M2-Ultra-192"),
        ("M3Max64GB", "M3-Max-64"),
        ("1xRTX4090 24GB", "4090"),
        ("2x H200 141GB", "H200"),
        ("L4 24GB", "L4"),
        ("8 H100 80GB", "H100"),
        ("A100 40GB", "A100-40"),
        ("5060 Ti 16GB", "5060-Ti"),
    ],
)
def test_a_chip_is_known_by_its_own_size_and_without_hyphens(text: str, name: str) -> None:
    assert chip_names.parse(text)[1].name == name


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
        ("1xRTX4090 48GB", r"another size of memory than 4090's own is asked for with --gpu-memory 48GB"),
        ("3080-12GB", r"another size of memory than 3080's own is asked for with --gpu-memory 12GB"),
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
        job = job_of(name, precision="float32", activations=NONE, fused=False, **rest)
        shapes.clear()
        calibrate._products(job, bench)
        for (tokens, rows), (columns, _), _ in zip(*[iter(shapes)] * 3, strict=True):
            assert 6 * tokens * rows * columns <= 3e10  # half a second at 60 GFLOP/s
        shapes.clear()
        calibrate._attention(job, bench)
        _, heads, length, size = shapes[0]
        assert 6 * length**2 * heads * size <= 3e10
    assert (heads, length) == (4, 1024)  # a small model's as they are


def test_this_machine_is_timed_for_the_models_own_shapes() -> None:
    job = job_of(
        read_shape(CONFIGS["llama"].to_dict(), name="x"), 64, precision="float32", activations=NONE, fused=False
    )
    chip, rates = calibrate.present(job, seconds=0.2)
    assert chip.memory > 1
    for value in (rates.matrix, rates.attention_forward, rates.attention_backward, rates.bandwidth, rates.update):
        assert math.isfinite(value) and value > 0


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


def test_as_many_windows_go_at_a_time_on_a_cpu_as_fit() -> None:
    """SmolLM2-135M in chunks of 512 tokens: a micro batch of four takes 4.3 GiB, of two 3.6."""
    asked = dict(window=16384, cpu_memory="4GB", mode="pose")
    fitted, four = (plan("smollm2-135m", **asked, chunk_window=512, micro_batch=micro) for micro in (None, 4))
    assert (fitted.fits, fitted.job.micro) == (True, 2) and fitted.memory.total < four.memory.total
    assert not four.fits and four.ways == ("--micro-batch 1",)
    assert plan("smollm2-135m", **asked | {"cpu_memory": "16GB"}, chunk_window=512).job.micro == 4
    long = plan("smollm2-135m", **asked, chunk_window=2048)
    assert not long.fits and long.something_fits and long.ways == ("--chunk-window 1024",)
    whole = plan("smollm2-135m", window=16384, cpu_memory="4GB")
    assert whole.ways[0] == "--mode pose --chunk-window 1024" and whole.others[0].fits
    tiny = plan("smollm2-135m", **asked | {"cpu_memory": "1GB"})
    assert (
        not tiny.ways
        and "what fits: no chunk, since weights, gradients, optimiser states and the process itself (0.5 GiB"
        in verdict(tiny)
    )


def test_other_options_stand_by_what_is_trained_and_then_by_speed(capsys) -> None:
    """With rates, whole windows, skipped positions, adapters, four bits; each the fastest first."""
    timed = replace(datasheet_rates(CHIPS["H100"]), known=True)
    planned = replace(plan("smollm2-135m", window=16384, batch_size=2, cpu_memory="64GB"), rates=timed)
    kinds = [(other.job.recipe.base_bits or 0, other.job.recipe.mode) for other in planned.others]
    assert kinds == [(0, "pose"), (0, "pose"), (0, "lora"), (4, "lora")]
    assert planned.others[0].hours < planned.others[1].hours and "--chunk-window 2048" in planned.others[0].options
    show_plan(planned)
    assert "of each the fastest first" in capsys.readouterr().out.replace("\n", " ")


def test_what_fits_a_cpu_is_named() -> None:
    asked = dict(window=16384, batch_size=2)
    short = plan("7b", **asked, cpu_memory="64GB")
    assert not short.fits and short.ways[:2] == ("--mode lora", "--mode lora --base-bits 4")
    adapted = plan("7b", **asked, cpu_memory="64GB", mode="lora")
    assert adapted.fits and adapted.memory.total == short.others[0].memory.total
    roomy = plan("7b", **asked, cpu_memory="512GB")
    assert [other.options for other in roomy.others] == ["--mode pose", "--mode lora", "--mode lora --base-bits 4"]
    assert roomy.others[0].job.length == 2048
