"""On a GPU: results kept on the host, MLPs in tiles, moments on the host, steps begun again; each changes memory and no figure."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers

from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.model.loss import IGNORED, NextTokenLoss
from ropewalk.planner.choice import NOTHING, Kept, Room
from ropewalk.settings.budget import ON_THE_WAY
from ropewalk.training import host_adamw, recompute, throughput, train
from ropewalk.training import optimizer as optimizers
from ropewalk.training.host_adamw import HostAdamW
from ropewalk.training.host_link import link_rate
from ropewalk.training.step import TrainingStep

pytestmark = pytest.mark.gpus(1)
DEVICE = "cuda"
MIB = 2**20


@pytest.fixture(autouse=True)
def nothing_left_over():
    """No compiled layer and no cached block of another test."""
    yield
    torch._dynamo.reset()
    gc.collect()
    torch.cuda.empty_cache()


def llama(dtype: torch.dtype, layers: int, inner: int = 1376) -> torch.nn.Module:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=512,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1009,
    )
    return transformers.AutoModelForCausalLM.from_config(config).to(DEVICE, dtype).train()


def batch(windows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(0, 1009, (windows, tokens + 1), generator=torch.Generator().manual_seed(1)).to(DEVICE)
    labels = ids[:, 1:].clone()
    labels[:, ::11] = IGNORED
    return ids[:, :-1], labels


def figures(root: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Loss and gradients of one pass."""
    root.zero_grad(set_to_none=True)
    out = root(ids, labels)
    out.backward()
    return {"loss": out.detach(), **{name: p.grad.clone() for name, p in root.named_parameters()}}


def errors(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> dict[str, float]:
    return {n: float((found[n].double() - t.double()).norm() / t.double().norm()) for n, t in truth.items()}


def peak(call: Callable[[], object]) -> int:
    """Bytes that PyTorch had in use at most while this ran a second time, compiled and its buffers made."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated()


@pytest.mark.parametrize(("kept", "hosted", "tiles"), [("all", (0, 1, 3), 1), ("attention", (0, 1, 2, 3), 4)])
def test_the_host_and_tiles_err_no_more_than_bfloat16(kept: str, hosted: tuple[int, ...], tiles: int) -> None:
    """Compiled layers against float64; the plain path in bfloat16 says what bfloat16 costs."""
    ids, labels = batch(2, 1024)
    truth = figures(NextTokenLoss(llama(torch.float32, 4).double()), ids, labels)
    naive = errors(figures(NextTokenLoss(llama(torch.float32, 4).bfloat16()), ids, labels), truth)
    root = NextTokenLoss(llama(torch.float32, 4).bfloat16())
    checkpointing = recompute.SelectiveCheckpointing(root, compiled=True)
    found = checkpointing.candidates(root.body, *ids.shape)
    checkpointing.tile(tiles)
    keep = frozenset(
        c.index
        for c in found
        if (kept == "all" or "attention" in c.op) and not (tiles > 1 and checkpointing.tiles.holds(c.index))
    )
    checkpointing.keep([keep] * 4, hosted)
    for _ in range(2):  # host buffers are used again
        ours = errors(figures(root, ids, labels), truth)
        for name, error in ours.items():
            assert error <= naive[name] + 1e-2, (name, error, naive[name])
    # At least the inputs of these layers left: 2 x 1024 x 512 in bfloat16, 2 MiB each.
    assert checkpointing.host_bytes >= len(hosted) * 2 * MIB
    checkpointing.release()


def test_what_is_on_the_host_is_not_on_the_gpu() -> None:
    """Twelve layers that keep everything dear; of those on the host three layers' results are on the GPU at a time."""
    ids, labels = batch(2, 16384)
    root = NextTokenLoss(llama(torch.bfloat16, 12))
    checkpointing = recompute.SelectiveCheckpointing(root, compiled=True)
    keep: Kept = frozenset(c.index for c in checkpointing.candidates(root.body, *ids.shape))
    peaks, losses = [], []
    for hosted in ((), range(12)):
        checkpointing.keep([keep] * 12, hosted)
        peaks.append(peak(lambda: losses.append(float(figures(root, ids, labels)["loss"]))))
    left = checkpointing.host_bytes
    assert left > 12 * 200 * MIB  # attention, q, k, v, o, gate and up of 32768 tokens
    # A tenth for what stands beside it: one layer more that is being computed with, in parts.
    assert peaks[0] - peaks[1] >= (1 - (ON_THE_WAY + 1) / 12) * 0.9 * left
    assert losses[-1] == pytest.approx(losses[0], rel=1e-5)
    checkpointing.release()


def test_tiles_never_hold_an_mlps_results_for_all_tokens() -> None:
    """Eight times as wide as the model: gate and up of 65536 tokens are half a GiB each; a quarter of them is there at a time."""
    ids, labels = batch(8, 8192)
    root = NextTokenLoss(llama(torch.bfloat16, 2, inner=4096))
    checkpointing = recompute.SelectiveCheckpointing(root, compiled=True)
    checkpointing.candidates(root.body, *ids.shape)
    peaks, losses = [], []
    for tiles in (1, 4):
        checkpointing.tile(tiles)
        checkpointing.keep([NOTHING] * 2)
        peaks.append(peak(lambda: losses.append(float(figures(root, ids, labels)["loss"]))))
    assert peaks[0] - peaks[1] >= 0.75 * 2 * 512 * MIB
    assert losses[-1] == pytest.approx(losses[0], rel=1e-4)
    checkpointing.release()


def test_what_a_step_left_free_is_used() -> None:
    """Twelve layers' inputs of 32 MiB; room for a few of them, then for four more."""
    ids, labels = batch(2, 16384)
    root = NextTokenLoss(llama(torch.bfloat16, 12))
    checkpointing = recompute.SelectiveCheckpointing(root)
    checkpointing.candidates(root.body, *ids.shape)
    checkpointing.layer = recompute.Layer((), cost=1.0)  # inputs alone: what layers that are not compiled send away
    size = ids.numel() * 512 * 2
    rate = link_rate(torch.device(DEVICE, 0))
    assert 1e9 < rate < 1e12  # bytes/s: an old PCIe's half, ten times the newest one's
    checkpointing.settle(Room(-6 * size, size, host=100 * size, matrix=1.0, link=rate))
    before = checkpointing.choice
    losses: list[float] = []
    first = peak(lambda: losses.append(float(figures(root, ids, labels)["loss"])))
    assert throughput.spare_bytes(torch.device(DEVICE, 0)) > 4 * size
    checkpointing.spare(4 * size)
    assert len(checkpointing.choice.hosted) == len(before.hosted) - 4 > 0
    second = peak(lambda: losses.append(float(figures(root, ids, labels)["loss"])))
    assert second - first <= 4.5 * size
    assert losses[-1] == pytest.approx(losses[0], rel=1e-5)
    checkpointing.release()


def weights(count: int = 3) -> list[torch.nn.Parameter]:
    generator = torch.Generator(DEVICE).manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(2**20 + 4096 * number, generator=generator, device=DEVICE))
        for number in range(count)
    ]


def move(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: int) -> None:
    for step in range(steps):
        generator = torch.Generator(DEVICE).manual_seed(step + 1)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator, device=DEVICE)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_moments_on_the_host_move_weights_as_on_the_gpu(monkeypatch) -> None:
    monkeypatch.setattr(host_adamw, "_PIECE", 2**16)  # seventeen pieces a weight, three at a time
    options = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)
    plain, ours = weights(), weights()
    expected, found = torch.optim.AdamW(plain, fused=True, **options), HostAdamW(ours, **options)
    move(plain, expected, 4)
    before = torch.cuda.memory_allocated()
    move(ours, found, 4)
    assert torch.cuda.memory_allocated() - before < MIB  # 24 MiB of moments are elsewhere
    for a, b in zip(plain, ours, strict=True):
        assert torch.equal(a, b)
        for name in ("exp_avg", "exp_avg_sq"):
            assert found.state[b][name].device.type == "cpu"
            assert torch.equal(expected.state[a][name].cpu(), found.state[b][name])
    again = weights()
    going_on = HostAdamW(again, **options)
    for target, source in zip(again, plain, strict=True):
        target.data.copy_(source)
    going_on.load_state_dict(expected.state_dict())
    move(plain, expected, 2)
    move(again, going_on, 2)
    assert all(torch.equal(a, b) for a, b in zip(plain, again, strict=True))


def test_states_are_there_before_the_first_pass_and_move_nothing() -> None:
    calm, early = weights(), weights()
    optimizer = torch.optim.AdamW(early, lr=1e-3, fused=True)
    before = torch.cuda.memory_allocated()
    optimizers.allocate_states(optimizer)
    taken = torch.cuda.memory_allocated() - before
    assert taken >= 8 * sum(p.numel() for p in early)  # two float32 moments
    assert all(torch.equal(a, b) for a, b in zip(calm, early, strict=True))
    move(early, optimizer, 2)
    assert torch.cuda.memory_allocated() - before == taken  # and the first step takes no more
    move(calm, torch.optim.AdamW(calm, lr=1e-3, fused=True), 2)
    assert all(torch.equal(a, b) for a, b in zip(calm, early, strict=True))


SHARED = dict(
    data=[Document(f"d{number}", testing.prose(6000, number)) for number in range(8)],
    window=8192,
    steps=4,
    batch_size=4,
    micro_batch=4,
    learning_rate=1e-4,
    precision="bfloat16",
    optimizer="adamw",
    save_every=0,
)


@pytest.fixture(scope="module")
def calm(tmp_path_factory) -> tuple[Path, list[records.Step], int]:
    """A model of eight layers whose results take some 5 GiB; its steps where memory never runs out; a limit between what they take and could take."""
    place = tmp_path_factory.mktemp("calm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROPEWALK_CACHE", str(place / "cache"))
        base = testing.tiny_directory(
            place / "base", window=8192, num_hidden_layers=8, hidden_size=512, intermediate_size=1376,
            num_attention_heads=8, num_key_value_heads=4,
        )  # fmt: skip
        peaks = []
        for activations in ("none", "full"):
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            train(base, out=place / activations, activations=activations, **SHARED)
            peaks.append(torch.cuda.max_memory_allocated())
    assert peaks[0] > 2 * peaks[1]
    return base, steps_of(place / "full"), sum(peaks) // 2


def steps_of(out: Path) -> list[records.Step]:
    return [m.row for m in records.read([out / "records.jsonl"]).of(records.Step)]


@pytest.mark.parametrize("short", [1, 3])
def test_a_step_that_runs_out_of_memory_is_the_step_that_would_have_been(tmp_path, monkeypatch, calm, short) -> None:
    """A card that is made small before step 1, where everything is kept since everything seemed to fit, and in the middle of a run."""
    base, expected, limit = calm
    total, take = torch.cuda.get_device_properties(0).total_memory, TrainingStep.take

    def step(self, done, signals):
        if done + 1 == short:
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.set_per_process_memory_fraction(limit / total)
        return take(self, done, signals)

    monkeypatch.setattr(TrainingStep, "take", step)
    try:
        train(base, out=tmp_path / "run", **SHARED)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    found = steps_of(tmp_path / "run")
    assert [row.retries > 0 for row in found] == [row.step == short for row in found]
    # The same sums; what is computed again and how the GPU orders its additions differ by bfloat16's last bits.
    assert [row.loss for row in found] == pytest.approx([row.loss for row in expected], rel=1e-3)
    assert [row.grad_norm for row in found] == pytest.approx([row.grad_norm for row in expected], rel=1e-2)
