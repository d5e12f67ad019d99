"""Memory that runs out in a step: the step that lives in the end is the one that would have been, to the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.settings import budget
from ropewalk.training import optimizer as optimizers
from ropewalk.training import torchao_adamw, train
from ropewalk.training.step import TrainingStep

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
SHARED = dict(data=DOCUMENTS, window=96, steps=4, batch_size=4, micro_batch=2, learning_rate=1e-3, save_every=0)
ASKED = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB."


@pytest.fixture(scope="module", autouse=True)
def place(tmp_path_factory):
    """Two models, one that draws random numbers as it trains, and what each becomes where memory never runs out."""
    place = tmp_path_factory.mktemp("retry")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROPEWALK_CACHE", str(place / "cache"))
        testing.tiny_directory(place / "full", window=64, attention_dropout=0.1)
        testing.tiny_directory(place / "lora", window=64)
        for mode in ("full", "lora"):
            train(place / mode, out=place / f"{mode}-calm", mode=mode, **SHARED)
        yield place


@pytest.fixture
def base(place):
    return place / "full"


def fail_at(monkeypatch, *passes: int, error: type[Exception] = torch.OutOfMemoryError) -> None:
    """Memory runs out in these forward and backward passes, counted from 0; their gradients are there by then."""
    real, count = TrainingStep._forward_and_backward, iter(range(10**6))

    def failing(self, rows, counted):
        out = real(self, rows, counted)
        if next(count) in passes:
            raise error(ASKED)
        return out

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", failing)


def trained(out: Path) -> tuple[list[tuple[float, float]], dict[str, torch.Tensor], list[int]]:
    rows = [m.row for m in records.read([out / "records.jsonl"]).of(records.Step)]
    weights = safetensors.torch.load_file(out / "model.safetensors")
    return [(row.loss, row.grad_norm) for row in rows], weights, [row.retries for row in rows]


#: Passes that fail → retries of each step. A step of two micro batches is passes 0 and 1; done again it begins with the next number.
CASES = {
    "first pass": ("full", (0,), [1, 0, 0, 0]),
    "second micro batch": ("full", (1,), [1, 0, 0, 0]),
    "third step, twice": ("full", (5, 6), [0, 0, 2, 0]),
    "two steps, adapters": ("lora", (0, 4), [1, 1, 0, 0]),
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_that_ran_out_of_memory_is_done_again_to_the_last_bit(place, tmp_path, monkeypatch, caplog, name):
    mode, passes, retries = CASES[name]
    fail_at(monkeypatch, *passes)
    with caplog.at_level("INFO", logger="ropewalk"):
        train(place / mode, out=tmp_path / "pressed", mode=mode, **SHARED)
    calm, pressed = trained(place / f"{mode}-calm"), trained(tmp_path / "pressed")
    assert pressed[0] == calm[0] and pressed[2] == retries and calm[2] == [0] * 4
    assert all(torch.equal(calm[1][key], pressed[1][key]) for key in calm[1])
    assert caplog.text.count("begun again") == sum(map(bool, retries))


def test_what_a_host_without_memory_says_is_a_shortage_too(base, tmp_path, monkeypatch):
    real, calls = TrainingStep._forward_and_backward, iter(range(100))

    def failing(self, rows, counted):
        if next(calls) == 3:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to"
            )
        return real(self, rows, counted)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", failing)
    train(base, out=tmp_path / "pressed", **SHARED | {"steps": 2})
    assert trained(tmp_path / "pressed")[2] == [0, 1]


@pytest.mark.parametrize("activations", ["auto", "full", "none"])
def test_when_nothing_is_left_to_give_up_a_sentence_says_what_would_fit(base, tmp_path, monkeypatch, activations):
    fail_at(monkeypatch, *range(2, 1000))
    with pytest.raises(
        UserError,
        match=r"step 2 takes more memory than there is \(CUDA out of memory.*2.00 GiB\).*--resume goes on from the checkpoint of step 1 ",
    ):
        train(base, out=tmp_path / "out", activations=activations, **SHARED | {"save_every": 1})
    assert [path.name for path in (tmp_path / "out/checkpoints").iterdir()] == ["step-000001"]


@pytest.mark.parametrize(
    ("options", "kept", "ways"),
    [
        ({}, "as little kept as can be", "--micro-batch 1; or --mode pose; or --mode lora"),
        ({"micro_batch": 1}, "as little kept as can be", "--mode pose; or --mode lora"),
        ({"micro_batch": 1, "activations": "full"}, "as little kept as can be", "--mode pose; or --mode lora"),
        ({"micro_batch": 1, "window": 64}, "as little kept as can be", "--mode lora"),  # the model's own window
        ({"micro_batch": 1, "window": 64, "mode": "lora"}, "as little kept as can be", "more memory"),
        ({"micro_batch": 1, "mode": "lora"}, "as little kept as can be", "a smaller --window; or more memory"),
        ({"micro_batch": 1, "mode": "lora", "window": 192}, "as little kept as can be", "--window 96"),
        ({"activations": "full", "micro_batch": 1, "mode": "pose"}, "as little kept as can be", "a smaller --chunk-window; or"),
        ({"activations": "none"}, "every activation kept, as --activations none says", "--micro-batch 1; or --activations auto; or --activations auto --mode"),
    ],
)  # fmt: skip
def test_no_more_is_advised_than_would_change_something_and_nothing_that_is_refused(
    base, tmp_path, monkeypatch, options, kept, ways
):
    """On a CPU; what would change something is what the planner says takes less."""
    monkeypatch.setattr("ropewalk.planner.ways.installed", lambda package: False)
    fail_at(monkeypatch, *range(1000))
    with pytest.raises(UserError, match="step 1 takes more memory") as refused:
        train(base, out=tmp_path / "out", **SHARED | options)
    assert f"with {kept}; what takes less: {ways}" in str(refused.value)
    monkeypatch.undo()
    way = str(refused.value).partition("what takes less: ")[2].split("; or ")[-1].split()
    if way[0].startswith("--"):
        typed = {
            name[2:].replace("-", "_"): int(v) if v.isdigit() else v for name, v in zip(*[iter(way)] * 2, strict=True)
        }
        train(base, out=tmp_path / "out", **SHARED | options | typed | {"steps": 1, "overwrite": True})
    assert "--resume" not in str(refused.value)  # there is no checkpoint


@pytest.mark.parametrize("has_library", [True, False])
def test_four_bits_are_advised_where_their_library_is(base, tmp_path, monkeypatch, has_library):
    monkeypatch.setattr("ropewalk.planner.ways.installed", lambda package: has_library)
    fail_at(monkeypatch, *range(1000))
    with pytest.raises(UserError) as refused:
        train(base, out=tmp_path / "out", **SHARED)
    _, *ways = str(refused.value).split("; or ")
    assert "--mode lora" in ways
    # With one window at a time, since of so small a model four bits take no less by plan: holes in the heap are most of it.
    assert ways[-1] == ("--mode lora --base-bits 4 --micro-batch 1" if has_library else "--mode lora")


def test_windows_at_a_time_are_given_up_last(place, tmp_path, monkeypatch):
    """Where their number is ours to choose; sums are then taken in another order, so the last bits may differ."""
    settings = SHARED | {"micro_batch": None, "mode": "lora"}
    real = TrainingStep._forward_and_backward

    def failing(self, rows, counted):
        if len(rows["input_ids"]) > 1:
            raise torch.OutOfMemoryError(ASKED)
        return real(self, rows, counted)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", failing)
    train(place / "lora", out=tmp_path / "pressed", **settings)
    calm, pressed = trained(place / "lora-calm"), trained(tmp_path / "pressed")
    assert [loss for loss, _ in pressed[0]] == pytest.approx([loss for loss, _ in calm[0]], rel=1e-5)
    assert pressed[2][0] > 1 and pressed[2][1:] == [0, 0, 0]


def test_mlps_in_small_tiles_are_among_what_is_taken_to(place, tmp_path, monkeypatch, caplog):
    """Where nothing less lets the step live; sums are then taken in another order, so the last bits may differ."""
    monkeypatch.setattr(budget, "SMALL_TILE_TOKENS", 64)
    real = TrainingStep._forward_and_backward

    def failing(self, rows, counted):
        if self.activations._checkpointing.tiles.count == 1:
            raise torch.OutOfMemoryError(ASKED)
        return real(self, rows, counted)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", failing)
    with caplog.at_level("INFO", logger="ropewalk"):
        train(place / "lora", out=tmp_path / "pressed", **SHARED | {"mode": "lora"})
    calm, pressed = trained(place / "lora-calm"), trained(tmp_path / "pressed")
    assert [loss for loss, _ in pressed[0]] == pytest.approx([loss for loss, _ in calm[0]], rel=1e-5)
    assert pressed[2][0] > 1 and pressed[2][1:] == [0, 0, 0]
    assert caplog.text.count("memory is short, so MLPs go through the sequence in 4 tiles") == 1


_LIMITED = """
import resource, sys
import psutil
from ropewalk.data.documents import Document
from ropewalk import testing
from ropewalk.training import train
from ropewalk.training.step import TrainingStep
take = TrainingStep.take
def limited(self, *args):
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 130 * 2**20, -1))
    return take(self, *args)
TrainingStep.take = limited
base, out = sys.argv[1:]
train(base, out=out, data=[Document("d", testing.prose(LENGTH, 0))], **WIDE)
"""


def test_under_a_limit_of_addresses_a_step_that_is_begun_again_comes_down_to_the_least(tmp_path):
    """Nothing of the attempts that failed stays: the least lives where it lives when it comes first."""
    length, wide = 20000, dict(window=2048, steps=1, batch_size=2, micro_batch=2, device="cpu")
    base = testing.tiny_directory(
        tmp_path / "base", window=64, num_hidden_layers=6, hidden_size=256, intermediate_size=512
    )
    train(base, out=tmp_path / "calm", data=[Document("d", testing.prose(length, 0))], **wide)
    code = _LIMITED.replace("LENGTH", str(length)).replace("WIDE", repr(wide))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, base, tmp_path / "pressed"], env=environment, check=True, timeout=600)
    calm, pressed = trained(tmp_path / "calm"), trained(tmp_path / "pressed")
    assert pressed[0][0] == pytest.approx(calm[0][0], rel=1e-5) and pressed[2][0] > 1


def test_another_error_is_not_taken_for_a_shortage(base, tmp_path, monkeypatch):
    fail_at(monkeypatch, 1, error=ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        train(base, out=tmp_path / "out", **SHARED)


OPTIMIZERS = {
    "fused": lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True),
    "stochastic": lambda p: _low_bit(False, p),
    "8-bit": lambda p: _low_bit(True, p),
}


def _low_bit(eight_bits: bool, parameters):
    pytest.importorskip("torchao.optim", reason="torchao is not installed (ropewalk[low-bit])")
    options = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    return torchao_adamw.build(parameters, eight_bits=eight_bits, stochastic=True, **options)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_states_that_are_made_beforehand_are_those_of_a_first_step(name):
    def parameters():
        generator = torch.Generator().manual_seed(0)
        dtype = torch.float32 if name == "fused" else torch.bfloat16
        shapes = ((64, 128), (7,))
        return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]

    def run(early: bool):
        weights = parameters()
        optimizer = OPTIMIZERS[name](weights)
        if early:
            optimizers.allocate_states(optimizer)
            assert all(torch.equal(a, b) for a, b in zip(weights, parameters(), strict=True))
            assert all(p.grad is None for p in weights) and len(optimizer.state) == len(weights)
            assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(1e-3)
        for step in range(3):
            torch.manual_seed(step)
            for weight in weights:
                weight.grad = torch.randn(weight.shape).to(weight.dtype)
            optimizers.set_rate(optimizer, 1e-3 * (step + 1))
            optimizer.step()
        return weights, [optimizer.state[p] for p in weights]

    (lazy, lazy_states), (early, early_states) = run(False), run(True)
    assert all(torch.equal(a, b) for a, b in zip(lazy, early, strict=True))
    for a, b in zip(lazy_states, early_states, strict=True):
        for key, value in a.items():
            plain = [
                v.dequantize() if hasattr(v, "dequantize") and type(v) is not torch.Tensor else v
                for v in (value, b[key])
            ]
            assert torch.equal(*plain), key


_TWO = """
import sys
from pathlib import Path
import torch
from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.training import train
from ropewalk.training.step import TrainingStep
place, real, calls = Path(sys.argv[1]), TrainingStep._forward_and_backward, iter(range(100))
def failing(self, rows, counted):
    if next(calls) == 3 and ranks.rank() == 1:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 1 has")
    return real(self, rows, counted)
TrainingStep._forward_and_backward = failing
documents = [Document(f"d{n}", testing.prose(80, n)) for n in range(8)]
try:
    train(sys.argv[2], out=place / "out", data=documents, window=96, steps=4, batch_size=4, micro_batch=1, save_every=1, device="cpu")
except UserError as error:
    (place / f"rank-{ranks.rank()}").write_text(str(error))
    raise SystemExit(2)
"""


def test_where_one_of_two_processes_runs_out_of_memory_nobody_hangs(base, tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    (tmp_path / "two.py").write_text(_TWO)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, tmp_path / "two.py", tmp_path, base], env=environment, capture_output=True, timeout=600
    )
    assert done.returncode != 0
    sentence = (tmp_path / "rank-1").read_text()
    assert "step 2 takes more memory than there is" in sentence
    assert "devices that wait for each other cannot begin it again" in sentence and "--activations full" in sentence
    other = tmp_path / "rank-0"  # unless torchrun ended it first
    assert not other.exists() or "says why itself" in other.read_text()
    assert b"Traceback" not in done.stderr.split(b"torch/distributed")[0]
    # What it had saved is whole, and one process goes on from it.
    train(
        base, out=tmp_path / "out", resume=True, **SHARED | {"learning_rate": None, "micro_batch": 1, "save_every": 1}
    )
    steps = [m.row.step for m in records.read([tmp_path / "out/records.jsonl"]).of(records.Step)]
    assert steps == [1, 2, 3, 4]
