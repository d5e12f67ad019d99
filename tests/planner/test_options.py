"""What a plan proposes: each row's words, typed, give the row's figures; no chip, window or model ends in a traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ropewalk import cli
from ropewalk.cli.tables.plan_sentences import verdict
from ropewalk.errors import UserError
from ropewalk.planner import plan
from ropewalk.planner.memory import GIB
from ropewalk.planner.planned import Plan
from ropewalk.settings.command import fields
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.windows import perhaps_thousands


def typed(model: str, asked: dict[str, Any], options: str) -> Plan:
    """The plan of what was asked for with a row's words typed behind it."""
    words = options.split()
    names = [word.removeprefix("--").replace("-", "_") for word in words[::2]]
    assert set(names) <= {field.name for field in fields(PlanSettings)}
    values = [
        int(word) if word.isdigit() and name != "gpus" else word for name, word in zip(names, words[1::2], strict=True)
    ]
    return plan(model, **asked | dict(zip(names, values, strict=True)))


@pytest.mark.parametrize(
    ("model", "asked"),
    [
        ("7b", dict(window=32768, gpus="H100", batch_size=8)),
        ("7b", dict(window=32768, gpus="H100", batch_size=8, host_memory="64GB", precision="bfloat16")),
        ("7b", dict(window=32768, gpus="4090", batch_size=8)),  # does not fit: adapters, and more chips
        ("7b", dict(window=131072, gpus="8xH100", batch_size=16, cp=4)),
        ("7b", dict(window=131072, gpus="H100", batch_size=4, activations="full", optimizer="adamw")),
        ("7b", dict(window=262144, gpus="H100", batch_size=4, host_memory="32GB", cp=1)),  # more host, more chips
        ("65b", dict(window=8192, gpus="2xH100", batch_size=16, mode="lora")),
        ("7b", dict(window=2**20, gpus="H200", batch_size=4, mode="lora")),
        ("7b", dict(window=2**17, cpu_memory="120GB", batch_size=2)),  # a shorter window, with adapters
        ("7b", dict(window=8192, gpus="5090", batch_size=4, precision="bfloat16", optimizer="adamw-offload")),
        ("hemp", dict(window=4096, gpus="4090", batch_size=4, steps=20)),  # too small to be compiled
        ("hemp", dict(window=2**20, gpus="T4", batch_size=4, steps=50)),  # compiled or not by the number of chips
        ("7b", dict(window=16384, cpu_memory="512GB", batch_size=2)),
        ("7b", dict(window=16384, gpus="M3-Ultra-512", batch_size=2)),
        ("7b", dict(window=16384, gpus="M3-Max-128", batch_size=2)),
    ],
)  # fmt: skip
def test_a_rows_words_typed_give_its_figures(model: str, asked: dict[str, Any]) -> None:
    others = plan(model, **asked).others
    assert others or asked["gpus"] == "T4"
    for row in others:
        anew = typed(model, asked, row.options)
        assert anew.fits and (anew.job.recipe.precision, anew.job.recipe.optimizer) == (
            row.job.recipe.precision,
            row.job.recipe.optimizer,
        ), row.options
        assert anew.memory == row.memory and anew.time == row.time, row.options


def test_a_row_that_needs_the_hosts_memory_says_so_where_nobody_said_how_much_there_is() -> None:
    asked = dict(window=32768, gpus="H100", batch_size=8)
    for row in plan("7b", **asked).others:
        assert ("--host-memory 128GiB" in row.options) == (row.memory.host > 0)
    assert not any("host" in row.options for row in plan("7b", **asked, host_memory="128GB").others)


#: Small models and those that no chip holds, windows up to a million, on every chip; on the terminal and as JSON.
SWEEP = """
import io, itertools, json
from contextlib import redirect_stdout
from ropewalk.cli.tables.plan import show_plan
from ropewalk.planner import plan
from ropewalk.planner.chips import CHIPS
from ropewalk.planner.memory import GIB

for chip, model, window in itertools.product(CHIPS, ("hemp", "llama-7b", "llama-65b"), (2**15, 2**17, 2**20)):
    about = (chip, model, window)
    planned, printed = plan(model, window=window, gpus=chip, batch_size=8, price=1.0), io.StringIO()
    with redirect_stdout(printed):
        show_plan(planned)
    # What is printed and the exit status, which is 1 where nothing fits, say one thing.
    assert planned.something_fits == ("it does NOT fit by" not in printed.getvalue()), about
    told = json.loads(json.dumps(planned.to_dict()))
    for name in ("seconds_a_step", "tokens_per_second", "hours", "chip_hours", "cost"):
        assert (told[name] is None) == (not planned.timed), about
    for row in planned.others:
        assert json.dumps(row.to_dict()) and row.fits, about
        if planned.chip.on_cpu:  # one budget, and nothing that a CUDA card alone has
            assert row.memory.total <= planned.chip.memory * GIB and not row.memory.host, about
            assert not any(word in row.options for word in ("gpus", "8bit", "offload")), about
print("every one")
"""


def test_every_chip_has_a_plan_whatever_the_model_and_the_window() -> None:
    """In a process of its own, where types are not checked at every call: 288 plans are half a minute there."""
    done = subprocess.run([sys.executable, "-c", SWEEP], capture_output=True, text=True)
    assert done.stdout.endswith("every one\n"), done.stderr


def test_a_plan_that_does_not_fit_has_no_hours_and_no_price(capsys) -> None:
    """M4-32 and 32k ended in a division by zero: more of them were proposed, with no link between them."""
    for arguments in (["--gpus", "M4-32"], ["--gpus", "4090", "--optimizer", "adamw"]):
        with pytest.raises(SystemExit) as left:
            cli.main(["plan", "llama-7b", "--window", "1M", "--price", "2", "--json", *arguments])
        assert left.value.code == 1
        told = json.loads(capsys.readouterr().out)
        assert (
            not told["fits"]
            and told["hours"] is told["cost"] is told["mfu"] is told["measured_recipe"]["hours"] is None
        )


def test_more_of_the_hosts_memory_than_was_said_is_no_answer() -> None:
    asked = dict(window=1 << 20, gpus="H200")
    for host_memory in (None, "128GiB"):  # what is assumed where nobody says
        planned = plan("llama-3-8b", **asked, host_memory=host_memory)
        assert any("--host-memory 512GiB" in way for way in planned.ways)
        assert [other.options for other in planned.here] == ["--mode pose"]  # which needs none of it
        assert verdict(planned).startswith("it does NOT fit")
        assert ("(128GiB for each chip are assumed)" in verdict(planned)) == (host_memory is None)
    assert plan("llama-3-8b", **asked, host_memory="512GiB").fits


def test_a_plan_that_rests_on_an_assumed_host_says_so() -> None:
    rests, other_options, alone = (
        verdict(plan("7b", gpus=gpus, window=window))
        for gpus, window in (("H100", 2**18), ("4090", 2**15), ("8xH100", 4096))
    )
    assumed = "(if the host has 128GiB for each chip, as is assumed; --host-memory says how much there is)"
    assert rests.startswith("it fits by") and assumed in rests
    assert other_options.startswith("it does NOT fit as asked; it fits with: ")
    assert assumed.replace("128", "64") in other_options  # beside a GeForce card
    assert alone.startswith("it fits by") and "assumed" not in alone
    assert (
        "; or " not in other_options and "; other ways are below; the first leaves 1.1 GiB" in other_options
    )  # the table has them
    assert "assumed" not in verdict(plan("7b", gpus="H100", window=2**18, host_memory="128GiB"))


def test_without_a_window_four_times_the_models_own_is_planned_for(capsys) -> None:
    asked = dict(gpus="8xH100", steps=10)
    planned, same = plan("7b", **asked), plan("7b", window=4 * 2048, **asked)
    assert planned.job == replace(same.job, recipe=planned.job.recipe) and planned.job.recipe.window == 8192
    assert (planned.hours, planned.assumed_window, same.assumed_window) == (same.hours, True, False)
    cli.main(["plan", "7b", "--gpus", "8xH100"])
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "no --window was named, so 4 times the model's own is planned for: --window 8192"
    # What needs the window to be judged is judged once it is known.
    with pytest.raises(UserError, match="shorter than the window, got 8192, 16384 and 8192"):
        plan("7b", longce=16384, longce_stride=8192, **asked)
    with pytest.raises(UserError, match="chunk-window 9000 is not shorter than window 8192"):
        plan("7b", mode="pose", chunk_window=9000, **asked)


@pytest.mark.parametrize(
    ("typed", "own", "asked"), [(16, 8192, True), (8, 8192, False), (4096, 8192, False), (8192, 8192, False)]
)
def test_a_window_whose_k_was_forgotten_is_asked_about(typed, own, asked) -> None:
    """8k would be no longer than the model's own, and nobody who types 4096 means 4 million."""
    assert ("did you mean" in perhaps_thousands(typed, own)) is asked


def test_each_refusal_of_a_short_window_asks_for_the_forgotten_k() -> None:
    with pytest.raises(UserError, match=r"the window 16 \(did you mean 16k\?\); plan for 2048 or more"):
        plan("7b", window=16)
    with pytest.raises(UserError, match=r"chunk-window 1024 is not shorter than window 16 \(did you mean 16k\?\)"):
        plan("7b", window=16, mode="pose", chunk_window=1024)


@pytest.mark.parametrize(
    ("asked", "first", "status"),
    [
        (["7b", "--gpus", "H200"], "it fits by --precision ", 0),
        (
            ["7b", "--gpus", "4090"],
            "it does NOT fit as asked; it fits with: --precision bfloat16 --optimizer adamw --mode lora",
            0,
        ),
        (["65b", "--gpus", "T4"], "it does NOT fit by --precision ", 1),
    ],
)
def test_the_sentence_and_the_exit_status_agree(asked: list[str], first: str, status: int, capsys) -> None:
    left = 0
    try:
        cli.main(["plan", "--window", "32k", "--batch-size", "4", *asked])
    except SystemExit as ended:
        left = ended.code
    printed = capsys.readouterr().out.splitlines()
    assert left == status and any(line.startswith(first) for line in printed)


def test_adapters_have_their_layers_inputs_sent_to_the_host_as_every_weight_has() -> None:
    """Training sends them there whatever is trained; a plan that did not fit counted 512 GiB of them on the card."""
    adapters = plan("7b", window=1 << 20, gpus="H200", batch_size=4, mode="lora")
    inputs = 32 * 2**20 * 4096 * 2  # of 32 layers, in bfloat16
    assert not adapters.fits and adapters.memory.host == inputs and adapters.memory.activations < inputs / 8
    assert adapters.ways[0].startswith("--host-memory ")


@pytest.mark.parametrize(
    ("asked", "way_out"),
    [
        (
            dict(window=2**15, cpu_memory="8GB"),
            "no window, since weights, gradients, optimiser states and the process itself (0.5 GiB, its libraries) take",
        ),
        (dict(window=2**17, cpu_memory="100GB"), "what fits: --window 65536 --mode lora"),
    ],
)
def test_on_a_cpu_a_shorter_window_is_named_where_one_fits_and_only_there(asked: dict[str, Any], way_out: str) -> None:
    assert way_out in verdict(plan("7b", batch_size=2, **asked))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (dict(gpus="2xM4-32"), "one M4-32 trains by itself, and there are 2"),
        (dict(gpus="M4-32", host_memory="64GB"), "is the host's as well"),
        (dict(gpus="M4-32", optimizer="adamw-offload"), "this plan has no GPU"),
        (dict(cpu_memory="64GB", optimizer="adamw-offload"), "this plan has no GPU"),
        (dict(gpus="8xH100", optimizer="adamw-offload"), "this plan has 8 chips"),
    ],
)
def test_what_training_would_refuse_is_not_planned(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan("llama-7b", window=4096, **asked)


def test_the_tutorial_quotes_what_its_two_commands_print() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs/tutorials/eight-gpus.md").read_text(encoding="utf-8")
    asked = dict(window=2**17, batch_size=16, steps=200, gpus="8xH100")
    alone, shared = plan("llama-7b", **asked), plan("llama-7b", **asked, cp=4)
    assert f"kept in the host's memory, {alone.memory.host / GIB:.0f} GiB a GPU" in page
    assert f"`--cp 4` takes {shared.memory.host / GIB:.2f} GiB of the host a GPU" in page
    assert (
        f"{shared.time.tokens_per_second:,.0f} tokens/s planned in\nthe place of {alone.time.tokens_per_second:,.0f} ("
        in page
    )


@pytest.mark.parametrize("machine", [["--gpus", "M4"], ["--cpu-memory", "24GB"]])
def test_adapters_on_four_bits_are_proposed_without_a_gpu_too(machine: list[str], capsys) -> None:
    """LLaMA 7B takes 25 GiB in float32, and training has it in four bits on a CPU; exit status 1 said that nothing fits."""
    cli.main(["plan", "7b", "--window", "8k", *machine])
    assert "it fits with: --mode lora --base-bits 4. By" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(SystemExit):
        cli.main(["plan", "65b", "--window", "8k", *machine])
    shorter = plan("7b", window=8192, cpu_memory="14GB")
    assert shorter.ways == ("--window 4096 --mode lora --base-bits 4",) and not shorter.something_fits
    assert [plan("7b", window=8192, gpus="M4", mode="lora").ways[0]] == ["--base-bits 4"]


def test_on_a_cpu_every_weight_comes_before_adapters() -> None:
    rows = plan("smollm2-135m", window=16384, cpu_memory="8GB").others
    assert [row.job.recipe.mode for row in rows] == ["pose", "pose", "lora", "lora"]
    assert [row.job.recipe.base_bits for row in rows] == [None, None, None, 4]
