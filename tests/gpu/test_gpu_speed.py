"""On a GPU: kernels a block at a time, compiled layers that keep what is dear, the loss fused, each against float32 or float64."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
import torch
import transformers

from ropewalk.attention_ops import block_attention, choosing, collectives, flash_4, kernels
from ropewalk.attention_ops import blocks as blocks_
from ropewalk.attention_ops.sliding import sliding_attention
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.distributed.mesh import start
from ropewalk.model import loss
from ropewalk.model.logits import LogitsTransform
from ropewalk.model.loss import IGNORED, NextTokenLoss, cross_entropy
from ropewalk.planner.choice import NOTHING, Room
from ropewalk.training import recompute
from ropewalk.training.retry import until_it_fits

pytestmark = pytest.mark.gpus(1)


def cuda() -> torch.device:
    return torch.device("cuda")


def llama(dtype: torch.dtype, seed: int = 0, reach: int | None = None) -> torch.nn.Module:
    """Four layers 512 wide with heads of 64, grouped, so that every fused kernel takes them; they slide if they have a reach."""
    torch.manual_seed(seed)
    config = transformers.MistralConfig(
        sliding_window=reach,
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=1009,
    )
    return transformers.AutoModelForCausalLM.from_config(config).to(cuda(), dtype).train()


def batch(tokens: int = 1024) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 1009, (2, tokens + 1), generator=generator).to(cuda())
    labels = ids[:, 1:].clone()
    labels[:, ::11] = IGNORED
    return ids[:, :-1], labels


def plain(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """What transformers gives, every layer checkpointed or not: loss and gradients."""
    logits = model(input_ids=ids, use_cache=False).logits
    out = torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    out.backward()
    return {"loss": out.detach(), **{name: p.grad for name, p in model.named_parameters()}}


def errors(found: dict[str, torch.Tensor], truth: dict[str, torch.Tensor]) -> dict[str, float]:
    return {n: float((found[n].double() - t.double()).norm() / t.double().norm()) for n, t in truth.items()}


@pytest.mark.parametrize("reach", [None, 200])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_what_is_kept_errs_no_more_than_transformers(compiled: bool, share: float, reach: int | None) -> None:
    ids, labels = batch()
    truth_model = llama(torch.float32, reach=reach).double()
    truth = plain(truth_model, ids, labels)
    naive = errors(plain(llama(torch.float32, reach=reach).bfloat16(), ids, labels), truth)
    model = llama(torch.float32, reach=reach).bfloat16()
    attend_in_blocks(model)
    root = NextTokenLoss(model)
    kept = recompute.SelectiveCheckpointing(root, compiled=compiled)
    found = kept.candidates(root.body, *ids.shape)
    room = int(share * len(kept.layers) * sum(c.size for c in found))
    kept.settle(Room(room))
    out = root(ids, labels)
    out.backward()
    ours = errors({"loss": out.detach(), **{name: p.grad for name, p in model.named_parameters()}}, truth)
    for name, error in ours.items():
        assert error <= naive[name] + 1e-2, (name, error, naive[name])


@pytest.mark.parametrize("kernel", ["cudnn", "flash", "efficient", "plain"])
@pytest.mark.parametrize("size", [64, 128])
def test_each_kernel_is_plain_attention(kernel: str, size: int) -> None:
    assert kernels.agrees(kernel, cuda(), size)
    q = torch.empty(1, 1, 1, size, device=cuda())
    assert not choosing.lower_right(kernel, q) or kernels.aligns(kernel, cuda(), size)


@pytest.fixture(params=["cudnn", "flash", "FlashAttention-4"])
def kernel(request) -> Iterator[str]:
    """A kernel by its name in `kernels`; FlashAttention-4 stands behind "flash" while it is switched on."""
    if request.param != "FlashAttention-4":
        yield request.param
        return
    with flash_4.fastest(cuda(), 128) as name:
        if name != request.param:
            pytest.skip("FlashAttention-4 is not used here")
        yield "flash"


@pytest.mark.parametrize("device, devices", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("borders", [[[0]], [[0, 200, 700], [0, 512]], [[0, 123, 891], [0, 511]]])
def test_blocks_on_a_gpu_are_masked_attention(
    kernel: str, device: int, devices: int, borders: list[list[int]], monkeypatch
) -> None:
    """A rectangle and its triangle are one call of "flash", with its mask at the bottom right, and two of cuDNN."""
    if kernel == "cudnn" and borders[0][-1] % 2:
        pytest.skip("cuDNN is not chosen for documents of any length")
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    tokens = 1024
    blocks = blocks_.causal_blocks(borders, device, devices, tokens)
    rectangles = int((blocks[:, 5] == 0).sum())
    assert rectangles or devices == 1
    q = torch.empty(1, 1, 1, 128, device=cuda())
    assert len(blocks_.calls_of(blocks, lower_right=choosing.lower_right(kernel, q))) == len(blocks) - (
        rectangles if kernel == "flash" else 0
    )
    queries = sum(last - first for first, last in blocks_.stretches(device, devices, tokens))
    generator = torch.Generator(cuda()).manual_seed(0)
    shapes = ((2, 8, queries, 128), (2, 4, tokens, 128), (2, 4, tokens, 128))
    leaves = [torch.randn(s, generator=generator, device=cuda()).bfloat16().requires_grad_() for s in shapes]
    out, _ = block_attention.attention(*leaves, blocks, "", False, 0.1)
    upstream = torch.randn(out.shape, generator=generator, device=cuda()).bfloat16()
    ours = [out, *torch.autograd.grad(out, leaves, upstream)]
    mask = torch.zeros(2, queries, tokens, dtype=torch.bool)
    for row, q0, q1, k0, k1, causal in blocks.tolist():
        block = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        mask[slice(None) if row < 0 else row, q0:q1, k0:k1] |= block.tril() if causal else block
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    keys, values = (t.repeat_interleave(2, 1) for t in exact[1:])
    expected = torch.nn.functional.scaled_dot_product_attention(
        exact[0], keys, values, attn_mask=mask[:, None].cuda(), scale=0.1
    )
    truth = [expected, *torch.autograd.grad(expected, exact, upstream.double())]
    for found, value in zip(ours, truth, strict=True):
        # bfloat16 operands: 2e-3 to 6e-3 of the norm.
        assert float((found.double() - value).norm() / value.norm()) < 1.5e-2


def taken(function: Callable[[], torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor]:
    """A result and the gradients of its sum, weighted."""
    out = function()
    weights = torch.linspace(-1, 1, out.shape[-1], device=cuda(), dtype=out.dtype)
    return [out, *torch.autograd.grad(out, leaves, weights.expand_as(out))]


@pytest.mark.parametrize("tokens, reach", [(1024, 256), (1000, 255), (1024, 1000)])
@pytest.mark.parametrize(
    "name, dtype",
    [*((n, torch.bfloat16) for n in ("cudnn", "flash", "plain")), ("efficient", torch.float32)],
)
def test_attention_within_a_reach_on_a_gpu_is_masked_attention(
    name: str, dtype: torch.dtype, tokens: int, reach: int, monkeypatch
) -> None:
    """Each kernel by itself; the model's own layout of heads, of which keys have fewer."""
    monkeypatch.setattr(choosing, "choose", lambda q, varied: name)
    generator = torch.Generator(cuda()).manual_seed(0)
    shapes = ((2, tokens, 8, 96), (2, tokens, 4, 96), (2, tokens, 4, 96))
    leaves = [torch.randn(s, generator=generator, device=cuda()).to(dtype).requires_grad_() for s in shapes]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    places = torch.arange(tokens, device=cuda())
    mask = (places[:, None] >= places) & (places[:, None] - places < reach)

    def masked() -> torch.Tensor:
        q, k, v = (t.transpose(1, 2) for t in exact)
        k, v = (t.repeat_interleave(2, 1) for t in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=0.1)

    ours = taken(lambda: sliding_attention(*(t.transpose(1, 2) for t in leaves), reach, 0.1)[0], leaves)
    for found, value in zip(ours, taken(masked, exact), strict=True):
        # bfloat16 operands: 2e-3 to 6e-3 of the norm.
        assert float((found.double() - value).norm() / value.norm()) < 1.5e-2


@pytest.mark.parametrize("reach", [4096, 2047, 1024])
def test_attention_within_a_reach_is_faster_than_under_a_mask(reach: int) -> None:
    """Forward and backward, 32768 tokens of 32 heads of 128; `-s` shows the times, and the triangle's of the whole window."""
    tokens, generator = 32768, torch.Generator(cuda()).manual_seed(0)
    leaves = [
        torch.randn(1, tokens, 32, 128, generator=generator, device=cuda()).bfloat16().requires_grad_()
        for _ in range(3)
    ]
    places = torch.arange(tokens, device=cuda())
    mask = (places[:, None] >= places) & (places[:, None] - places < reach)
    attention = torch.nn.functional.scaled_dot_product_attention

    def seconds(attend: Callable[..., torch.Tensor]) -> float:
        times = []
        for _ in range(4):
            torch.cuda.synchronize()
            begin = time.perf_counter()
            taken(lambda: attend(*(t.transpose(1, 2) for t in leaves)), leaves)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begin)
        return sorted(times[1:])[1]

    def peak(attend: Callable[..., torch.Tensor]) -> float:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        taken(lambda: attend(*(t.transpose(1, 2) for t in leaves)), leaves)
        return (torch.cuda.max_memory_allocated() - before) / 2**30

    ways: dict[str, Callable[..., torch.Tensor]] = {
        "within the reach": lambda q, k, v: sliding_attention(q, k, v, reach, 128**-0.5)[0],
        "under its mask": lambda q, k, v: attention(q, k, v, attn_mask=mask),
        "the whole triangle": lambda q, k, v: attention(q, k, v, is_causal=True),
    }
    found = {name: seconds(way) for name, way in ways.items()}
    pairs = tokens * reach - reach * reach / 2
    rate = 3.5 * 4 * 32 * 128 * pairs / found["within the reach"] / 1e12
    print(
        f"\nreach {reach}: {rate:.0f} TFLOP/s;",
        *(f"{n} {s * 1e3:.1f} ms, {peak(ways[n]):.2f} GiB;" for n, s in found.items()),
    )
    assert found["within the reach"] < found["under its mask"]


@pytest.mark.parametrize("dtype, relative, absolute", [(torch.float32, 1e-3, 1e-4), (torch.bfloat16, 2e-2, 5e-2)])
def test_the_fused_loss_is_the_plain_one_on_a_ragged_chunk(monkeypatch, dtype, relative, absolute) -> None:
    """bfloat16: logits near 3 are rounded to 8 bits, and gradients summed over 700 tokens."""
    monkeypatch.setattr(loss, "GPU_CHUNK_BYTES", 256 * 1009 * dtype.itemsize)
    generator = torch.Generator(cuda()).manual_seed(0)
    hidden = torch.randn(700, 96, generator=generator, device=cuda()).to(dtype)
    head = torch.nn.Linear(96, 1009).to(cuda(), dtype)
    labels = torch.randint(0, 1009, (700,), generator=generator, device=cuda())
    leaf = hidden.clone().requires_grad_()
    out = cross_entropy(leaf, head, labels, LogitsTransform(cap=30.0))
    grads = torch.autograd.grad(out, [leaf, head.weight, head.bias])
    exact = [t.detach().double().requires_grad_() for t in (hidden, head.weight, head.bias)]
    logits = LogitsTransform(cap=30.0)(torch.nn.functional.linear(*exact))
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
    torch.testing.assert_close(out.double(), expected, rtol=1e-5 if dtype is torch.float32 else 1e-3, atol=0)
    for found, value in zip(grads, torch.autograd.grad(expected, exact), strict=True):
        torch.testing.assert_close(found.double(), value, rtol=relative, atol=absolute)


def test_a_layer_that_does_not_fit_is_tried_with_less() -> None:
    """A real out of memory, of a card made small."""
    root = NextTokenLoss(llama(torch.bfloat16))
    ids, labels = batch(8192)
    kept = recompute.SelectiveCheckpointing(root)
    found = kept.candidates(root.body, *ids.shape)

    def call() -> float:
        root.zero_grad(set_to_none=True)
        out = root(ids, labels)
        out.backward()
        return float(out.detach())

    def give_up(asked: str) -> None:
        assert kept.lower(), asked

    kept.keep([NOTHING] * 4)
    expected = call()
    root.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    root.zero_grad(set_to_none=True)
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(1.2 * torch.cuda.max_memory_reserved() / total)
    try:
        whole = 4 * sum(c.size for c in found)
        kept.settle(Room(whole))
        first = kept.choice
        assert until_it_fits(call, give_up) == pytest.approx(expected, rel=1e-3)
        assert kept.choice != first
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def test_the_fastest_attention_gives_pytorch_back() -> None:
    before = torch.backends.cuda.cudnn_sdp_enabled()
    with flash_4.fastest(cuda(), 128) as name:
        assert name in ("FlashAttention-4", "as PyTorch picks")
    assert torch.backends.cuda.cudnn_sdp_enabled() == before


def test_documents_on_a_gpu_do_not_see_each_other() -> None:
    mesh = start(device="cuda")
    model = llama(torch.bfloat16)
    root = mesh.shard(NextTokenLoss(model))
    ids, labels = batch(512)
    positions = torch.cat([torch.arange(200), torch.arange(312)]).expand(2, -1).to(cuda())
    together = root(**mesh.split(dict(input_ids=ids, labels=labels, position_ids=positions)))
    apart = root(ids[:, :200], labels[:, :200]) + root(ids[:, 200:], labels[:, 200:])
    mesh.close()
    assert float(together) == pytest.approx(float(apart), rel=1e-3)


def test_many_parts_in_16_bits_are_added_in_float32_on_a_gpu(monkeypatch) -> None:
    """Eight devices' parts of the gradients of keys and values, on one."""
    parts = torch.randn(8, 2, 2, 3, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    monkeypatch.setattr(torch.distributed, "all_to_all_single", lambda out, sent, group: out.copy_(sent))
    monkeypatch.setattr(collectives, "process_group", lambda name: None)
    for found, exact in zip(collectives.summed(parts.to(cuda()), ""), parts.double().sum(0), strict=True):
        # But for float32's own errors near ties.
        assert float((found.cpu() == exact.bfloat16()).double().mean()) > 0.999
