"""What a plan says of measuring and serving: against transformers' own cache, a published figure and a measured one."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
import transformers

from ropewalk import cli, testing
from ropewalk.cli.tables.plan import show_plan
from ropewalk.planner import plan
from ropewalk.planner.chips import CHIPS, datasheet_rates
from ropewalk.planner.memory import GIB
from ropewalk.planner.named import shape_of
from ropewalk.planner.reading import measuring, serving
from ropewalk.planner.shape import read_shape

H100 = CHIPS["H100"]
LLAMA = {name: shape_of(name) for name in ("llama-7b", "llama-65b")}


@pytest.mark.parametrize(
    ("family", "overrides"),
    [
        ("llama", dict(num_key_value_heads=2)),
        ("mistral", dict(num_key_value_heads=2, sliding_window=16)),
        ("gemma3_text", dict(num_key_value_heads=2, sliding_window=16)),
    ],
)
def test_keys_and_values_are_counted_as_transformers_keeps_them(family, overrides) -> None:
    model = testing.tiny(family, 64, **overrides).to(torch.bfloat16)
    shape = read_shape(json.loads(model.config.to_json_string(use_diff=False)), name=family)
    cache = transformers.DynamicCache(config=model.config)
    model(input_ids=torch.zeros(1, 48, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(each.numel() * each.element_size() for layer in cache.layers for each in (layer.keys, layer.values))
    # transformers keeps one token less than the window in a layer that slides: the next one comes to them.
    missing = 2 * 2 * shape.kv_width * shape.sliding
    assert serving(shape, 48, H100, datasheet_rates(H100)).window_bytes == held + missing


def test_a_prompt_of_llama_7b() -> None:
    """512 KiB a token, as every reader of LLaMA has it; two operations for each weight, and attention of half the square."""
    cost = serving(LLAMA["llama-7b"], 32768, H100, datasheet_rates(H100))
    assert cost.token_bytes == 512 * 1024
    assert cost.window_bytes == 16 * GIB == 16 * cost.before_bytes
    assert cost.flops == pytest.approx(32768 * 2 * 6.476e9 + 32 * 2 * 2 * 4096 * 32768**2 / 2, rel=0.002)
    assert cost.flops / 989e12 < cost.first_token < 3 * cost.flops / 989e12


def test_what_serving_takes_is_by_hand_what_it_says() -> None:
    """LLaMA 7B: 12.55 GiB of weights and 16 of cache at 32768; a token reads both, but for the embedding, which is looked up."""

    def of(model: str, window: int, chip: str):
        return serving(LLAMA[model], window, CHIPS[chip.upper()], datasheet_rates(CHIPS[chip.upper()]))

    one = of("llama-7b", 32768, "H100")
    assert one.chips == 1 and one.weights == 2 * 6_738_415_616
    read = one.weights - 2 * 32000 * 4096 + 16 * GIB
    assert one.tokens_per_second == pytest.approx(3.35e12 / read)
    assert one.windows == 3  # (0.9 * 79.1 - 12.55) / 16 = 3.67
    # 28.55 GiB: two of 0.9 * 23.5, twice as fast as one would be, each doing half of the prompt.
    two = of("llama-7b", 32768, "4090")
    assert two.chips == 2 and two.windows == 1 and two.tokens_per_second == pytest.approx(2 * 1.008e12 / read)
    assert two.first_token == pytest.approx(two.flops / datasheet_rates(CHIPS["4090"]).matrix / 2, rel=0.3)
    # A Mac is one chip, whose memory's bandwidth is known and whose arithmetic is not; one of 32 GB holds no such window.
    mac = of("llama-7b", 32768, "M3-Max-128")
    assert mac.chips == 1 and mac.first_token is None and mac.tokens_per_second == pytest.approx(0.4e12 / read)
    none = of("llama-7b", 32768, "M4-32")
    assert (none.chips, none.windows, none.first_token, none.tokens_per_second) == (0, 0, None, None)


def test_more_chips_than_heads_of_keys_keep_copies_of_them() -> None:
    """Eight heads of keys on sixteen chips lie there twice: 2 x 40 GiB and 11 of weights in 16 x 6.3."""
    shape = replace(LLAMA["llama-7b"], kv_heads=8)
    small = replace(H100, memory=7.0)
    cost = serving(shape, 320 * 1024, small, datasheet_rates(small))
    assert cost.window_bytes == 40 * GIB
    assert cost.chips == 16 and cost.windows == int((16 * 6.3 * GIB - cost.weights) / (80 * GIB))


def test_measuring_takes_what_it_was_measured_to_take() -> None:
    """15.7 GiB allocated on one H200 (docs/results.md, measuring speed), within the ten per cent that plans are held to."""
    need = measuring(LLAMA["llama-7b"], 32768, CHIPS["H200"])
    assert need.chips == 1
    assert need.total - need.context == pytest.approx(15.7 * GIB, rel=0.1)


def test_as_many_chips_as_hold_it_and_no_fewer() -> None:
    shape = LLAMA["llama-65b"]
    need = measuring(shape, 8192, H100)
    whole = 2 * shape.parameters
    assert need.chips == 2 and need.total <= H100.memory * GIB < whole
    # What is whole everywhere is counted everywhere.
    tables = 2 * 2 * shape.embedding
    assert need.weights == pytest.approx((whole - tables) / 2 + tables, rel=1e-4)
    assert measuring(shape, 8192, CHIPS["A100-40"]).chips > 3
    assert measuring(shape, 2**20, CHIPS["A100-40"]).chips == 0, "one pass's results alone are more"


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        (["--cpu-memory", "32GB"], "it fits"),  # 25.1 GiB of weights are 80 % of it, and one process shards nothing
        (["--gpus", "M4", "--gpu-memory", "32GB"], "it fits"),
        (["--gpu-memory", "18GB"], "one such chip does"),
        (["--cpu-memory", "24GB"], "more than cpu has, 23.5"),
    ],
)
def test_what_holds_a_model_whole_is_not_said_to_lack_memory(machine: list[str], said: str, capsys) -> None:
    cli.main(["plan", "7b", "--window", "8192", "--mode", "lora", "--base-bits", "4", *machine])
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("measuring at 8192 takes "))
    assert line.endswith(f"): {said}")


def test_the_memory_of_a_mac_is_what_was_said_or_three_quarters_of_what_is_sold(capsys) -> None:
    cli.main(["plan", "hemp", "--window", "1024", "--gpus", "M4", "--gpu-memory", "32GB"])
    given = capsys.readouterr().out
    assert "on M4-32 with 32GB, as --gpu-memory says;" in given
    assert "31.36 GiB, as --gpu-memory says, are the GPU's and the host's in one" in given
    cli.main(["plan", "hemp", "--window", "1024", "--gpus", "M4"])
    assert "24 GiB, three quarters of its memory, are the GPU's" in capsys.readouterr().out


def test_the_plan_says_both(capsys) -> None:
    planned = plan("llama-65b", window=8192, gpus="8xH100", batch_size=8)
    assert planned.measuring.chips == 2
    command = [
        sys.executable,
        "-m",
        "ropewalk",
        "plan",
        "llama-65b",
        "--window",
        "8192",
        "--gpus",
        "8xH100",
        "--batch-size",
        "8",
    ]
    shown = subprocess.run(command, capture_output=True, text=True).stdout
    assert "torchrun --nproc-per-node 2 -m ropewalk perplexity … --shard on" in shown
    assert "keys and values (2,560 KiB a token;" in shown and "2 × H100" in shown and "generated tokens" not in shown
    said = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True).stdout)
    assert (
        said["serving"]["window_bytes"] == 20 * GIB
        and said["serving"]["chips"] == 2
        and said["measuring"]["chips"] == 2
    )


def test_serving_says_half_a_kib_and_what_a_million_tokens_cost_by_the_price(capsys) -> None:
    small = replace(LLAMA["llama-7b"], layers=30, kv_heads=3, head_dim=64)  # 2 × 2 × 30 × 192 bytes are 22.5 KiB
    planned = plan("llama-7b", window=8192, gpus="H100", price=2.5)
    planned = replace(planned, job=replace(planned.job, shape=small))
    show_plan(planned)
    shown = capsys.readouterr().out
    assert "keys and values (22.5 KiB a token;" in shown
    cost = planned.serving
    million = 2.5 * cost.chips / 3600 / cost.tokens_per_second * 1e6
    assert re.search(rf"a million generated tokens of one stream cost, at least +{million:.2f} *\n", shown)
    # By hand: all windows together read the weights once, and each its own keys and values.
    read = 2 * small.active_weights + cost.windows * cost.window_bytes
    together = cost.windows * cost.chips * planned.chip.bandwidth / read
    assert cost.windows > 1 and cost.together == pytest.approx(together, rel=0.01)
    million = 2.5 / 3600 / together * 1e6
    assert re.search(
        rf"a million generated tokens of {cost.windows:,} streams together cost, at least +{million:.2f} *\n", shown
    )


@pytest.mark.parametrize("family, masked", [("phi-3-mini-4k", False), ("gemma3_text", False), ("gemma2", True)])
def test_what_measuring_takes_where_layers_slide_is_what_training_goes_by(family: str, masked: bool) -> None:
    """By what a pass over twice the window adds to it: by the token, or by the pair, whose mask is a byte and whose copy for the kernel two."""
    shape = read_shape(json.loads(testing.tiny_config(family).to_json_string(use_diff=False)), name=family)
    assert shape.is_masked(2**16) == masked
    taken = [measuring(shape, window, H100).results for window in (2**17, 2**18)]
    added = taken[1] - taken[0]
    assert added > 3 * (4 * 2**34 - 2**34) if masked else added < taken[0]


def test_serving_a_small_model_is_told_in_units_that_hold_it(capsys) -> None:
    """hemp: 3.7 million weights, 4 layers of 256, so 4 KiB of keys and values a token."""
    planned = plan("hemp", window=512, gpus="H100")
    show_plan(planned)
    shown = capsys.readouterr().out
    weights, cache = 2 * planned.job.shape.parameters / 2**20, 512 * 4 / 2**10
    assert re.search(rf"\n weights +{weights:.2f} MiB *\n", shown)
    assert re.search(rf"keys and values \(4 KiB a token; 1.00 MiB at 256\) +{cache:.2f} MiB", shown)
    # Two operations a token and weight of the layers (the head is for the last token alone), four a layer, coordinate and key of half the square.
    flops = 512 * (2 * (planned.job.shape.parameters - 2048 * 256) + 4 * 4 * 256 * 256)
    told = re.search(r"first token by operations alone \(([\d.]+) GFLOP\)", shown)
    assert told and float(told[1]) == pytest.approx(flops / 1e9, rel=0.02)
