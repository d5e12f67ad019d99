"""Optimiser states in 8 bits and weights in stochastically rounded bfloat16 (torchao): bytes, learning, resuming."""

import os
import subprocess
import sys

import pytest
import safetensors.torch
import torch

import low_bit_ranks
from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.training import torchao_adamw, train

pytest.importorskip("torchao", reason="torchao is not installed (ropewalk[low-bit])")

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
REGIMES = {
    "float32": ({}, 4, 8.1),
    "8-bit": ({"optimizer": "adamw-8bit"}, 4, 2.4),
    "stochastic": ({"precision": "bfloat16-stochastic"}, 2, 4.1),
    "both": ({"precision": "bfloat16-stochastic", "optimizer": "adamw-8bit"}, 2, 2.4),
}


@pytest.mark.parametrize("name", REGIMES)
def test_a_regime_costs_its_bytes_learns_as_float32_does_and_resumes(tmp_path, monkeypatch, name):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    options, weight_bytes, state_bytes = REGIMES[name]
    base = testing.tiny_directory(tmp_path / "base", window=64, hidden_size=128, vocab_size=512)
    shared = dict(data=DOCUMENTS, window=96, batch_size=2, learning_rate=1e-3, warmup=2, save_every=4)
    train(base, out=tmp_path / "exact", steps=8, **shared)
    train(base, out=tmp_path / "once", steps=8, **shared, **options)
    train(base, out=tmp_path / "twice", steps=4, **shared, **options)
    train(base, out=tmp_path / "twice", steps=8, resume=True, **shared, **options)

    state = tmp_path / "once/checkpoints/step-000008/state"
    kept = safetensors.torch.load_file(state / "weights.safetensors")
    parameters = sum(value.numel() for value in kept.values())
    assert {value.element_size() for value in kept.values()} == {weight_bytes}
    # 8 bits a moment, and a float32 scale for every 256 of them; tensors under 4096 elements (norms) stay in full.
    assert sum(path.stat().st_size for path in state.glob("optimizer.*")) <= state_bytes * parameters

    exact, rounded = (records.read([tmp_path / n / "records.jsonl"]).of(records.Step) for n in ("exact", "once"))
    # One rounding to 8 bits in the forward pass; the losses fall by 0.3 in these steps.
    assert [m.row.loss for m in rounded] == pytest.approx([m.row.loss for m in exact], rel=2e-3)
    once, twice = (safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("once", "twice"))
    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("eight_bits", [False, True])
def test_eight_weights_at_a_time_are_updated_as_torchao_updates_one(eight_bits):
    from torchao import optim

    shapes = [(64, 64)] * 19 + [(128,)] * 9 + [(32, 128), (64, 64)]
    kind = optim.AdamW8bit if eight_bits else optim._AdamW
    options = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)

    def run(build):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = build(weights)
        for step in range(3):
            for number, weight in enumerate(weights):
                # One has no gradient for a step, so that its count of steps, which its bias is corrected by, is another.
                weight.grad = None if number == step == 2 else torch.randn(weight.shape, generator=generator)
            optimizer.step()
        return weights, [float(optimizer.state[weight]["step"]) for weight in weights]

    theirs, counts = run(lambda weights: kind(weights, **options))
    ours, own_counts = run(
        lambda weights: torchao_adamw.build(weights, eight_bits=eight_bits, stochastic=False, **options)
    )
    assert own_counts == counts and counts[2] == 2
    # The same operations on the same numbers, in another order of fusion: a rounding of float32 on an update of 1e-3; 8 bits may fall to the next code.
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-4 if eight_bits else 1e-6)


def test_stochastic_rounding_moves_a_weight_by_the_papers_rate_on_average():
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.full((64, 64), 0.7, dtype=torch.bfloat16))
    start = weight.detach().clone()
    options = dict(lr=2e-5, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    optimizer = torchao_adamw.build([weight], eight_bits=False, stochastic=True, **options)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    moved = (start - weight.detach()).float().mean()
    # 4096 weights, each a sum of 50 draws of 3.9e-3 with probability 2e-5 / 3.9e-3: a standard error of 3e-5 on 1e-3.
    assert float(moved) == pytest.approx(50 * 2e-5, rel=0.15)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """What two processes do, done, and what one does before and after it."""
    place = tmp_path_factory.mktemp("ranks")
    # A shard of 64 rows of 132 numbers ends within a block of 256; norms are too small for one, as is half of a projection of keys.
    testing.tiny_directory(place / "base", window=64, hidden_size=128, intermediate_size=132, vocab_size=512)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ROPEWALK_CACHE", str(place / "cache"))
        for name in low_bit_ranks.REGIMES:
            low_bit_ranks.go(place, name, "grown", steps=2)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        done = subprocess.run(
            [*command, low_bit_ranks.__file__, place],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=800,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        for name in low_bit_ranks.REGIMES:
            low_bit_ranks.go(place, name, "alone", steps=6)
            low_bit_ranks.go(place, name, "twice", steps=6, resume=True)
    return place


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", low_bit_ranks.REGIMES)
def test_two_processes_train_as_one_and_resume_with_as_many_and_with_others(place, name):
    def losses(out):
        by_step = {
            m.row.step: m.row.loss for m in records.read([place / name / out / "records.jsonl"]).of(records.Step)
        }
        return [loss for _, loss in sorted(by_step.items())]

    once, twice = (
        safetensors.torch.load_file(place / name / out / "checkpoints/step-000004/model.safetensors")
        for out in ("once", "twice")
    )
    assert all(torch.equal(once[key], twice[key]) for key in once)
    assert losses("twice")[:4] == losses("once")
    # Shards are rounded by other draws, and in other blocks.
    assert losses("twice") == pytest.approx(losses("alone"), rel=1e-3)
    assert losses("grown") == pytest.approx(losses("alone")[:4], rel=1e-3)
