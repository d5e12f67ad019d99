"""Every proposal of a plan, typed on the command line beside what was asked for, is taken and comes to the figures that stood beside it, and is no slower than what
is chosen where precision and optimiser are left open."""

from __future__ import annotations

import random
import re
import subprocess
import sys

import pytest

from ropewalk import cli
from ropewalk.cli import parse
from ropewalk.errors import UserError
from ropewalk.planner import plan
from ropewalk.planner.planned import Plan
from ropewalk.settings.command import arguments
from ropewalk.settings.plan import PlanSettings

#: Cards with little memory and much, no GPU, and what people say of them; each beside a price.
_MACHINES = (
    *("--gpus 3060-Ti", "--gpus 3090", "--gpus 2x4090", "--gpus T4", "--gpus A6000", "--gpus 4xA100-80", "--gpus H200", "--gpus M3-Max-128"),
    *("--gpus 3x5090", "--gpus L40S", "--gpus H100 --host-memory 32GB", "--gpus 2x3090 --cp 2", "--gpu-memory 24GB", "--gpus 4xL4 --replicas 2", "--cpu-memory 64GB", "--gpus H100 --gpu-memory 24GB"),
)  # fmt: skip
_WINDOWS = ("8192", "16k", "32768", "40960", "131072")
#: Each beside the option left out.
_OPTIONS = (
    ("--optimizer adamw", "--optimizer adamw-8bit", "--optimizer adamw-offload"),
    ("--precision float32", "--precision bfloat16"),
    ("--activations none", "--activations full"),
    ("--mode lora", "--mode lora --base-bits 4", "--mode pose", "--mode pose --chunk-window 1024", "--longce 4096"),
    ("--batch-size 3", "--batch-size 8", "--batch-size 128"),
    ("--method linear", "--method ntk", "--method abf --rope-theta 50000000", "--method plain"),
    ("--micro-batch 1", "--micro-batch 4", "--micro-batch 100"),
)


def typed(words: str) -> Plan:
    """The plan that a command line makes."""
    return plan(**arguments(PlanSettings, parse(["plan", *words.split()])[1]))


def asked(chance: random.Random) -> str:
    model = chance.choice(["7b", "65b", "llama-3-8b", "qwen3-8b", "hemp"])
    window = chance.choice(_WINDOWS)
    options = [chance.choice([*("",) * (2 * len(words)), *words]) for words in _OPTIONS]
    return " ".join([model, "--price 2", "--window", window, chance.choice(_MACHINES), *filter(None, options)])


def makes_sense(words: str) -> bool:
    """Whether what is asked for is taken itself."""
    try:
        typed(words)
    except UserError:
        return False
    return True


def held(words: str) -> int:
    """Hold every row of a plan against the plan of its words, and count them."""
    rows = typed(words).others
    for row in rows:
        anew = typed(f"{words} {row.options}")
        for figure in ("fits", "memory", "time", "hours", "cost"):
            assert getattr(anew, figure) == getattr(row, figure), (figure, words, row.options)
        assert anew.info == row.info and anew.info.method == row.info.method, (words, row.options)
        if re.match("--(gpus|window|host-memory) ", row.options) and not re.search("--(precision|optimizer)", words):
            chosen = typed(f"{words} {re.sub(r'--(precision|optimizer) [^ ]+ ?', '', row.options)}")
            assert not chosen.fits or row.time.tokens_per_second >= chosen.time.tokens_per_second, (words, row.options)
    return len(rows)


def test_a_proposal_that_is_typed_is_taken_and_comes_to_the_figures_beside_it() -> None:
    """In a process of its own, where types are not checked at every call."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0 and int(done.stdout) > 200, done.stderr


@pytest.mark.parametrize(
    "words",
    [
        "7b --gpus 3060-Ti --window 32768",  # a shorter window has another batch
        "7b --window 131072 --cpu-memory 64GB",
        "qwen3-8b --gpus 3090 --window 131072 --optimizer adamw-offload --activations none",  # for one GPU
        "7b --gpus A6000 --window 32768 --precision float32 --batch-size 3 --activations none",
        "llama-3-8b --gpus L40S --window 65536",  # whose first regimes fit in small tiles alone
        "7b --gpus H100 --window 524288",
        "llama-3-8b --gpus 4090 --window 32768 --batch-size 8 --micro-batch 4",
        "7b --gpus H100 --window 32768 --batch-size 16 --micro-batch 16 --precision bfloat16-stochastic",
    ],
)
def test_proposals_go_by_the_defaults_and_the_rules_of_what_is_typed(words: str) -> None:
    assert held(f"{words} --price 1")


def test_a_row_whose_default_batch_is_another_says_so(capsys) -> None:
    cli.main(["plan", "7b", "--gpus", "2x4090", "--window", "16k"])
    assert (
        "--window 8192" in (printed := " ".join(capsys.readouterr().out.split())) and "(64 windows a step)" in printed
    )


if __name__ == "__main__":
    chance = random.Random(13)
    print(sum(held(words) for words in [asked(chance) for _ in range(150)] if makes_sense(words)))
