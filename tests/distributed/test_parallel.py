"""Two processes on a CPU against one: losses, gradients, training, checkpoints; and attention in blocks against plain attention."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import sys
import types
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp

from ropewalk import testing
from ropewalk.attention_ops import blocks as attention_blocks
from ropewalk.attention_ops import collectives, kernels
from ropewalk.attention_ops.blocks import Attend
from ropewalk.attention_ops.transformers import attend_in_blocks
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh, start
from ropewalk.errors import UserError
from ropewalk.model.loss import IGNORED, NextTokenLoss
from ropewalk.model.torch_internals import FakeTensorMode
from ropewalk.training import recompute

TOKENS = 32
WORLD = 2


def batch(kind: str) -> dict[str, torch.Tensor]:
    """Four sequences: plain, packed from documents, or with skipped positions."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(0, 256, (4, TOKENS + 1), generator=generator)
    rows = {"input_ids": ids[:, :-1], "labels": ids[:, 1:].clone()}
    rows["labels"][:, ::5] = IGNORED
    if kind == "documents":  # other borders in each row, some on the borders between devices
        starts = [[0, 5, 8, 20], [0, 16], [0, 1, 2, 31], [0, 24]]
        positions = torch.stack([_counted(row) for row in starts])
        rows["position_ids"] = positions
    if kind == "skipped":
        positions = torch.arange(TOKENS) + 100 * (torch.arange(TOKENS) >= 11)
        rows["position_ids"] = positions.expand(4, -1).clone()
        rows["attention_mask"] = torch.ones_like(rows["input_ids"])
    return rows


def _counted(starts: list[int]) -> torch.Tensor:
    ends = [*starts[1:], TOKENS]
    return torch.cat([torch.arange(end - begin) for begin, end in zip(starts, ends, strict=True)])


def small(family: str) -> Any:
    """A family's model; "raised" is Mistral v0.1's, whose layers slide, with a sliding window that was raised for so many tokens."""
    if family != "raised":
        return testing.tiny(family, window=256).train()
    return testing.tiny("mistral-v0.1", window=256, sliding_window=TOKENS + 1).train()


def pass_through(mesh: Mesh, family: str, kind: str, *, keep: Any = "all") -> dict[str, torch.Tensor]:
    """Loss and whole gradients of one step, as training takes them."""
    model = small(family)
    root = mesh.shard(NextTokenLoss(model), window=TOKENS)
    if keep != "all":
        recompute.SelectiveCheckpointing(model).keep([keep] * 2)
    rows = batch(kind)
    counted = (rows["labels"] != IGNORED).sum()
    local_rows = {name: value[mesh.data_rank :: mesh.data_size] for name, value in rows.items()}
    loss = root(**mesh.split(local_rows))
    (loss / counted).backward()
    norm = mesh.clip(model.parameters(), 0.0)
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {"loss": mesh.sum(loss.detach()), "norm": norm, **mesh.unsharded(gradients)}


def training(mesh: Mesh, steps: range, *, load: Path | None = None, save: Path | None = None) -> dict[str, Any]:
    """A few steps of AdamW on the same data, from a checkpoint or to one."""
    model = testing.tiny(window=256).train()
    root = mesh.shard(NextTokenLoss(model))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    if load is not None:
        mesh.load(model, optimizer, load)
    for step in steps:
        rows = {name: value.roll(step, 0) for name, value in batch("plain").items()}
        local_rows = {name: value[mesh.data_rank :: mesh.data_size] for name, value in rows.items()}
        optimizer.zero_grad()
        (root(**mesh.split(local_rows)) / 100).backward()
        optimizer.step()
    if save is not None:
        mesh.save(model, optimizer, save)
    return mesh.unsharded({name: p.detach() for name, p in model.named_parameters()})


def exchanged(rank: int, dtype: torch.dtype) -> dict[str, Any]:
    """Keys and values as each device gets them, its gradients of them, and the elements that each collective carried."""
    group = collectives.named(torch.distributed.group.WORLD)
    carried: dict[str, list[Any]] = {"_all_gather": [], "all_to_all_single": []}

    def counting(name: str, function: Any) -> Any:
        def call(out: torch.Tensor, sent: torch.Tensor, **rest: Any) -> Any:
            carried[name].append((sent.numel(), str(sent.dtype)))
            return function(out, sent, **rest)

        return call

    places = [(collectives, "_all_gather"), (torch.distributed, "all_to_all_single")]
    with contextlib.ExitStack() as stack:
        for place, name in places:
            counted = counting(name, getattr(place, name))
            stack.enter_context(unittest.mock.patch.object(place, name, counted))
        local = (numbered(name, dtype)[:, :, places_of(rank)] for name in (0, 1))
        k, v = collectives.gather_sequence(*local, group)
        parts = collectives.by_owner(numbered(10 * rank + 2), numbered(10 * rank + 3), dtype, group)
        dk, dv = collectives.summed(parts, group)
    return dict(k=k, v=v, dk=dk, dv=dv, carried=carried)


def numbered(seed: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(2, 3, TOKENS, 8, generator=torch.Generator().manual_seed(seed)).to(dtype)


def places_of(rank: int) -> list[int]:
    """A quarter from the front and one from the back, written out for two devices."""
    return [*range(8), *range(24, 32)] if rank == 0 else list(range(8, 24))


LAYOUTS: dict[str, dict[str, int]] = {"dp": {}, "cp": {"cp": 2}, "hsdp": {"replicas": 2}}
CASES = [
    ("dp", "llama", "plain"),
    ("dp", "llama", "documents"),
    ("hsdp", "llama", "plain"),
    ("cp", "llama", "plain"),
    ("cp", "qwen3", "plain"),
    ("cp", "llama", "documents"),
    ("cp", "qwen2", "documents"),
    ("cp", "llama", "skipped"),
    ("cp", "raised", "plain"),
    ("cp", "raised", "documents"),
    ("cp", "raised", "skipped"),
]


def _process(rank: int, port: int, out: Path) -> None:
    os.environ.update(
        MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(WORLD), LOCAL_RANK=str(rank)
    )
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for layout, family, kind in CASES:
        found["/".join((layout, family, kind))] = pass_through(start(device="cpu", **LAYOUTS[layout]), family, kind)
    sharded, split = start(device="cpu"), start(device="cpu", cp=2)
    found["kept"] = pass_through(split, "llama", "documents", keep=frozenset({0, 3, 5}))
    with unittest.mock.patch.object(kernels, "choose", lambda q, varied: "plain"):
        found["fused"] = {kind: pass_through(split, "llama", kind) for kind in ("plain", "documents")}
    found["exchanged"] = {str(t): ranks.everyones(exchanged(rank, t)) for t in (torch.float32, torch.bfloat16)}
    training(sharded, range(3), save=out / "of two")
    found["from one"] = training(split, range(3, 5), load=out / "of one")
    found["others"] = [sharded.any(rank == 1), ranks.everyones(rank), sharded.data_size, split.data_size]
    try:
        split.split({name: value[:, :-2] for name, value in batch("plain").items()})
    except UserError as error:
        found["odd"] = str(error)
    try:
        split.shard(NextTokenLoss(testing.tiny("gemma3_text")))
    except UserError as error:
        found["sliding"] = str(error)
    try:
        start(device="cpu", cp=3)
    except UserError as error:
        found["three"] = str(error)
    if rank == 0:
        torch.save(found, out / "found.pt")
    ranks.wait()
    sharded.close()


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("world")
    training(start(device="cpu"), range(3), save=directory / "of one")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    mp.spawn(_process, (port, directory), WORLD)
    return directory


@pytest.fixture(scope="module")
def found(out: Path) -> dict[str, Any]:
    return torch.load(out / "found.pt", weights_only=True)


def assert_same(ours: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        # float32 sums in another order: 1e-5 of the largest entry.
        torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5 * value.abs().max().item())


def by_transformers(family: str, kind: str) -> dict[str, torch.Tensor]:
    """Loss and gradients of transformers' own forward pass and masks, one process."""
    model = small(family)
    rows = batch(kind)
    labels = rows.pop("labels")
    logits = model(**rows, use_cache=False).logits
    loss = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )
    (loss / (labels != IGNORED).sum()).backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    norm = torch.stack([g.norm() for g in gradients.values()]).norm()
    return {"loss": loss.detach(), "norm": norm, **gradients}


@pytest.mark.parametrize("family, kind", sorted({case[1:] for case in CASES}))
def test_one_process_gives_what_transformers_gives(family: str, kind: str) -> None:
    assert_same(pass_through(start(device="cpu"), family, kind), by_transformers(family, kind))


@pytest.mark.parametrize("layout, family, kind", CASES)
def test_two_processes_give_what_transformers_gives(found: dict[str, Any], layout: str, family: str, kind: str) -> None:
    assert_same(found["/".join((layout, family, kind))], by_transformers(family, kind))


def test_recomputing_activations_changes_nothing_across_processes(found: dict[str, Any]) -> None:
    assert_same(found["kept"], by_transformers("llama", "documents"))


@pytest.mark.parametrize("kind", ["plain", "documents"])
def test_two_processes_with_rectangles_and_triangles_as_one_give_it_too(found: dict[str, Any], kind: str) -> None:
    assert_same(found["fused"][kind], by_transformers("llama", kind))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_keys_go_out_and_gradients_come_back_in_one_collective_each(found: dict[str, Any], dtype: torch.dtype) -> None:
    """Each device rounds its part of a gradient once, and the sum of them is rounded once."""
    whole = 2 * numbered(0).numel()
    for rank, ours in enumerate(found["exchanged"][str(dtype)]):
        assert torch.equal(ours["k"], numbered(0, dtype)) and torch.equal(ours["v"], numbered(1, dtype))
        for name, seed in (("dk", 2), ("dv", 3)):
            parts = [numbered(seed, dtype).float(), numbered(10 + seed, dtype).float()]
            assert torch.equal(ours[name], (parts[0] + parts[1]).to(dtype)[:, :, places_of(rank)]), name
        assert ours["carried"] == {
            "_all_gather": [(whole // 2, str(dtype))],
            "all_to_all_single": [(whole, str(dtype))],
        }


def test_many_parts_in_16_bits_are_added_in_float32(monkeypatch) -> None:
    """Eight devices' parts, on one: what PyTorch's sum promises."""
    parts = torch.randn(8, 2, 2, 3, 16, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    monkeypatch.setattr(torch.distributed, "all_to_all_single", lambda out, sent, group: out.copy_(sent))
    monkeypatch.setattr(collectives, "process_group", lambda name: None)
    for summed, exact in zip(collectives.summed(parts, ""), parts.double().sum(0), strict=True):
        # But for float32's own errors near ties.
        assert float((summed == exact.bfloat16()).double().mean()) > 0.999


def test_a_checkpoint_of_two_goes_on_alone_and_one_of_one_goes_on_as_two(found: dict[str, Any], out: Path) -> None:
    alone = start(device="cpu")
    uninterrupted = training(alone, range(5))
    resumed = training(alone, range(3, 5), load=out / "of two")
    for name, value in uninterrupted.items():
        # AdamW divides by the square root of tiny second moments, which magnifies the last bits of float32.
        torch.testing.assert_close(resumed[name], value, rtol=1e-3, atol=2e-4)
        torch.testing.assert_close(found["from one"][name], value, rtol=1e-3, atol=2e-4)


def test_one_process_resumes_bit_for_bit(out: Path) -> None:
    alone = start(device="cpu")
    uninterrupted = training(alone, range(5))
    resumed = training(alone, range(3, 5), load=out / "of one")
    for name, value in uninterrupted.items():
        assert torch.equal(resumed[name], value), name


def test_ranks_know_of_each_other(found: dict[str, Any]) -> None:
    assert found["others"] == [True, [0, 1], 2, 1]


def test_what_cannot_be_split_is_refused_by_name(found: dict[str, Any]) -> None:
    assert "multiple of 2 x cp = 4, got 30" in found["odd"]
    assert "this gemma3_text model" in found["sliding"] and found["sliding"].endswith("use --cp 1, or another family")
    assert "multiple of --cp, got 2 processes and --cp 3" in found["three"]


def test_the_documents_of_a_window_do_not_see_each_other() -> None:
    """Change the first document's tokens: the second one's hidden states stay as they are."""
    mesh = start(device="cpu")
    root = mesh.shard(NextTokenLoss(testing.tiny(window=256)))
    rows = mesh.split(batch("documents"))
    other = {**rows, "input_ids": rows["input_ids"].clone()}
    other["input_ids"][1, :16] += 1
    mask = torch.ones(1, 1, 1, 1, dtype=torch.bool)
    hidden = [
        root.body(
            input_ids=r["input_ids"], position_ids=r["position_ids"], attend=r["attend"], attention_mask=mask
        ).last_hidden_state[1]
        for r in (rows, other)
    ]
    assert torch.equal(hidden[0][16:], hidden[1][16:])
    assert not torch.equal(hidden[0][:16], hidden[1][:16])


def test_documents_reach_the_kernel_in_autocasts_dtype(monkeypatch) -> None:
    # In float32 no fused kernel of a GPU takes them, and all scores of 32768 tokens are 4 GiB a head.
    seen, choose = [], kernels.choose
    monkeypatch.setattr(kernels, "choose", lambda q, varied: seen.append(q.dtype) or choose(q, varied))
    mesh = start(device="cpu")
    root = mesh.shard(NextTokenLoss(testing.tiny("llama", window=256).train()))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        root(**mesh.split(batch("documents"))).backward()
    mesh.close()
    assert set(seen) == {torch.bfloat16}


def test_without_documents_or_devices_nothing_is_added() -> None:
    rows = batch("plain")
    assert start(device="cpu").split(rows) is rows


def test_an_unready_module_refuses_to_ignore_documents() -> None:
    with pytest.raises(RuntimeError, match="Mesh.shard"):
        NextTokenLoss(testing.tiny())(**batch("plain"), attend=Attend())


def masked(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, blocks: torch.Tensor) -> torch.Tensor:
    """The same blocks as a dense mask, by plain torch: for one device, where queries and keys count alike."""
    mask = torch.zeros(q.shape[0], q.shape[2], k.shape[2], dtype=torch.bool)
    for row, q0, q1, k0, k1, causal in blocks.tolist():
        block = torch.ones(q1 - q0, k1 - k0, dtype=torch.bool)
        mask[slice(None) if row < 0 else row, q0:q1, k0:k1] |= block.tril() if causal else block
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], 1) for t in (k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], scale=0.3)


@pytest.mark.parametrize(
    ("capability", "dtype", "kernel"),
    [
        ((9, 0), torch.bfloat16, "flash"),
        ((9, 0), torch.float32, "efficient"),
        ((9, 0), torch.float64, "plain"),
        ((7, 5), torch.float32, "efficient"),
        ((7, 0), torch.float16, "plain"),
        ((7, 5), torch.bfloat16, "plain"),  # which no fused kernel takes there
    ],
)
def test_the_kernel_is_one_that_the_gpu_has(monkeypatch, capability, dtype: torch.dtype, kernel: str) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
    with FakeTensorMode():  # a GPU's tensor without a GPU
        q = torch.empty(1, 1, 1, 64, dtype=dtype, device="cuda")
    for right in (True, False):
        monkeypatch.setattr(kernels, "_is_efficient_right", lambda *_, right=right: right)
        assert kernels.choose(q, varied=True) == (kernel if right or kernel != "efficient" else "plain")


def test_the_memory_efficient_kernel_is_given_what_its_operators_take() -> None:
    """By their shapes alone, since no CPU has it: an odd number of tokens, grouped heads."""
    q, k = torch.empty(2, 4, 37, 16, device="meta"), torch.empty(2, 2, 37, 16, device="meta")
    out, lse = kernels.forward("efficient", q, k, k, True, 0.25)
    assert (out.shape, lse.shape) == (q.shape, q.shape[:3])
    grads = kernels.backward("efficient", out, q, k, k, out, lse, True, 0.25)
    assert [grad.shape for grad in grads] == [q.shape, k.shape, k.shape]


def test_keys_that_are_repeated_are_the_same_attention(monkeypatch) -> None:
    model, ids = testing.tiny("qwen3").train(), torch.arange(48)[None]

    def gradients() -> list[torch.Tensor]:
        model.zero_grad()
        model(ids, labels=ids).loss.backward()
        return [parameter.grad.clone() for parameter in model.parameters()]

    expected, given = gradients(), []
    attend_in_blocks(model)
    monkeypatch.setattr(kernels, "wants_repeated", lambda q, k: given.append((q.shape[1], k.shape[1])) or True)
    for ours, theirs in zip(gradients(), expected, strict=True):
        torch.testing.assert_close(ours, theirs)
    assert given == [(4, 2)] * 2


@pytest.mark.parametrize("at_once", [2**29, 2000])
@pytest.mark.parametrize("kernel", ["cpu", "plain"])
@pytest.mark.parametrize("heads, key_heads, size", [(4, 4, 16), (6, 2, 8), (3, 1, 24)])
@pytest.mark.parametrize("device, devices", [(0, 1), (0, 2), (1, 2), (2, 3)])
def test_attention_in_blocks_is_masked_attention(
    kernel: str, heads: int, key_heads: int, size: int, device: int, devices: int, at_once: int, monkeypatch
) -> None:
    """Every kernel, grouped heads, each device's share of the queries against all keys, and few heads at a time."""
    monkeypatch.setattr(kernels, "choose", lambda q, varied: kernel)
    monkeypatch.setattr(attention_blocks, "HEADS_AT_ONCE", at_once)
    tokens = 36
    borders = [[0, 7, 19], [0, 18]]
    generator = torch.Generator().manual_seed(size)
    blocks = attention_blocks.causal_blocks(borders, device, devices, tokens)
    queries = sum(last - first for first, last in attention_blocks.stretches(device, devices, tokens))
    shapes = ((2, heads, queries, size), (2, key_heads, tokens, size), (2, key_heads, tokens, size))
    leaves = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    expected = masked(*leaves, blocks)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected.detach(), *torch.autograd.grad(expected, leaves, upstream)]
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    out, _ = attention_blocks.attention(*single, blocks, "", False, 0.3)
    ours = [out.detach(), *torch.autograd.grad(out, single, upstream.float())]
    for value, expected_value in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize(
    "queries, keys, groups",
    [((32, 2**18), (8, 2**20), 8), ((32, 2**19), (32, 2**19), 4), ((32, 2**17), (32, 2**17), 1)],
)
def test_no_kernel_is_given_more_than_it_can_count(
    queries: tuple[int, int], keys: tuple[int, int], groups: int
) -> None:
    """Qwen3-8B's million tokens on four devices, LLaMA 7B's half a million on one; heads and tokens."""
    q, k = (torch.empty(1, heads, tokens, 128, device="meta") for heads, tokens in (queries, keys))
    parts = attention_blocks.head_groups(q, k)
    assert len(parts) == groups
    for part, key_part in parts:
        heads = part.stop - part.start
        assert heads // (key_part.stop - key_part.start) == queries[0] // keys[0]
        assert heads * 128 * max(queries[1], keys[1]) <= 2**29
    assert [part.start for part, _ in parts[1:]] == [part.stop for part, _ in parts[:-1]]


def test_a_window_of_more_than_32_bits_of_queries_is_attended_in_blocks(monkeypatch) -> None:
    mesh, alone = start(device="cpu"), start(device="cpu")
    root = mesh.shard(NextTokenLoss(testing.tiny("llama", window=256).train()))
    rows = batch("plain")
    expected = root(**mesh.split(rows))
    monkeypatch.setattr("ropewalk.distributed.mesh.INDEXED", 1000)
    parts = mesh.split(rows)
    assert parts["attend"].blocks.tolist() == [[-1, 0, rows["input_ids"].shape[1], 0, rows["input_ids"].shape[1], 1]]
    torch.testing.assert_close(root(**parts), expected)
    # Not where attention slides: blocks would be another model.
    sliding = alone.shard(NextTokenLoss(testing.tiny("mistral", window=256, sliding_window=16).train()))
    assert sliding is not None and alone.split(rows) is rows
    mesh.close()
    alone.close()


@pytest.mark.parametrize("kernel, calls", [("cpu", (2 + 1 + 2) + (2 + 1)), ("plain", 3 + 2)])
def test_a_rectangle_and_its_triangle_are_one_call_where_the_mask_is_aligned_so(
    kernel: str, calls: int, monkeypatch
) -> None:
    """The second of two devices, whose stretches 9 to 18 and 18 to 27 begin and end in the middle of documents."""
    monkeypatch.setattr(kernels, "choose", lambda q, varied: kernel)
    blocks = attention_blocks.causal_blocks([[0, 12], [0, 18]], 1, 2, 36)
    counts = {}
    for name in ("forward", "backward"):
        function = getattr(kernels, name)
        counted = unittest.mock.Mock(side_effect=function)
        monkeypatch.setattr(kernels, name, counted)
        counts[name] = counted
    q, k, v = (torch.randn(2, 2, tokens, 8, requires_grad=True) for tokens in (18, 36, 36))
    out, _ = attention_blocks.attention(q, k, v, attention_blocks.padded(blocks), "", True, 0.3)
    out.sum().backward()
    assert [counted.call_count for counted in counts.values()] == [calls, calls]


@pytest.mark.parametrize("queries", [1, 5, 12])
def test_a_mask_over_more_keys_than_queries_is_aligned_at_the_bottom_right(queries: int) -> None:
    """Against a mask and PyTorch in float64: the last query sees all keys."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 2, queries, 8), (2, 2, 12, 8), (2, 2, 12, 8))
    exact = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    mask = torch.ones(queries, 12, dtype=torch.bool).tril(12 - queries)
    expected = torch.nn.functional.scaled_dot_product_attention(*exact, attn_mask=mask, scale=0.3)
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected, *torch.autograd.grad(expected, exact, upstream)]
    q, k, v = (t.detach().float() for t in exact)
    out, sums = kernels.forward("plain", q, k, v, True, 0.3)
    ours = [out, *kernels.backward("plain", upstream.float(), q, k, v, out, sums, True, 0.3)]
    for value, expected_value in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


def test_gradients_of_keys_need_no_zeros_to_add_to() -> None:
    """Any ranges, nested, overlapping or apart: memory that nobody filled is NaN, and the sum is that of one filled with zeros."""
    generator = random.Random(0)
    for _ in range(200):
        rows = generator.choice([[-1], [0, 1]])
        calls = []
        for number in range(generator.randrange(6)):
            k0 = generator.randrange(12)
            calls.append([generator.choice(rows), number, number + 1, k0, generator.randrange(k0 + 1, 13), 0])
        expected = torch.zeros(2, 12)
        for row, q0, _, k0, k1, _ in calls:
            expected[attention_blocks._rows(row), k0:k1] += 2.0**q0
        order, gaps = attention_blocks._by_keys(calls, 2, 12)
        gathered = torch.full((2, 12), torch.nan)
        for row, begin, end in gaps:
            gathered[attention_blocks._rows(row), begin:end] = 0
        for (row, q0, _, k0, k1, _), first in order:
            part = torch.full((2 if row < 0 else 1, k1 - k0), 2.0**q0)
            attention_blocks.put(gathered[attention_blocks._rows(row), k0:k1], part, first)
        assert torch.equal(gathered, expected), calls


@pytest.mark.parametrize("device, devices", [(0, 1), (0, 2), (1, 2)])
@pytest.mark.parametrize("kernel", ["cpu", "plain"])
def test_no_gradient_comes_from_memory_that_nobody_filled(kernel: str, device: int, devices: int, monkeypatch) -> None:
    """PyTorch fills it with NaN here. Keys of later devices get zeros, and a sum in float32 is rounded once to the model's dtype."""
    monkeypatch.setattr(kernels, "choose", lambda q, varied: kernel)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    generator = torch.Generator().manual_seed(0)
    blocks = attention_blocks.causal_blocks([[0, 7, 19], [0, 18]], device, devices, 36)
    queries = 36 // devices
    leaves = [
        torch.randn(2, 2, tokens, 16, generator=generator).bfloat16().requires_grad_() for tokens in (queries, 36, 36)
    ]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = masked(*exact, blocks)
    upstream = torch.randn(expected.shape, generator=generator).bfloat16()
    torch.use_deterministic_algorithms(True)
    try:
        out, _ = attention_blocks.attention(*leaves, blocks, "", False, 0.3)
        ours = torch.autograd.grad(out, leaves, upstream)
    finally:
        torch.use_deterministic_algorithms(False)
    truth = torch.autograd.grad(expected, exact, upstream.double())
    for value, expected_value in zip(ours, truth, strict=True):
        assert value.dtype == torch.bfloat16
        # bfloat16 operands: 2e-3 to 6e-3 of the norm.
        assert float((value.double() - expected_value).norm() / expected_value.norm()) < 1.5e-2
    if (
        kernel == "plain"
    ):  # whose parts are float32: the exact gradient rounded once, but for float32's own errors near ties
        assert float((ours[2] == truth[2].bfloat16()).double().mean()) > 0.99


def test_batches_of_other_documents_look_alike_to_a_compiler() -> None:
    rows = batch("documents")
    fewer = {name: value[1:2] for name, value in rows.items()}
    mesh = start(device="cpu")
    assert mesh.split(rows)["attend"].blocks.shape == mesh.split(fewer)["attend"].blocks.shape == (64, 6)


@pytest.mark.parametrize("devices", [1, 2, 3, 8])
def test_devices_share_a_window_evenly_and_wholly(devices: int) -> None:
    tokens = 48
    parts = [attention_blocks.stretches(device, devices, tokens) for device in range(devices)]
    assert sorted(t for part in parts for first, last in part for t in range(first, last)) == list(range(tokens))
    work = [
        sum(
            (q1 - q0) * (k1 - k0) if not causal else (q1 - q0) * (q1 - q0 + 1) // 2
            for _, q0, q1, k0, k1, causal in attention_blocks.causal_blocks([[0]], device, devices, tokens).tolist()
        )
        for device in range(devices)
    ]
    assert sum(work) == tokens * (tokens + 1) // 2
    assert len(set(work)) == 1


def test_a_kernel_is_looked_at_before_it_is_trusted(monkeypatch) -> None:
    device = torch.device("cpu")
    assert kernels.agrees("cpu", device, 64)
    plain = kernels.backward
    monkeypatch.setattr(kernels, "backward", lambda *arguments: plain(*arguments[:-1], 1.1 * arguments[-1]))
    assert not kernels.agrees("cpu", device, 64)


@pytest.mark.parametrize("wrong", [(), ("forward",), ("backward",), ("forward", "backward")])
def test_a_kernel_that_aligns_its_mask_at_the_top_left_is_used_for_squares_alone(
    wrong: tuple[str, ...], monkeypatch
) -> None:
    """A stand-in for a flash kernel; one that is right with as many keys as queries, and with fewer queries is not."""
    passes = {name: getattr(kernels, name) for name in ("forward", "backward")}

    def forward(_: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, ...]:
        seen = q.shape[2] if "forward" in wrong else k.shape[2]
        return passes["forward"]("plain", q, k[:, :, :seen], v[:, :, :seen], *rest)

    def backward(
        _: str, grad: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *rest: Any
    ) -> tuple[torch.Tensor, ...]:
        seen = q.shape[2] if "backward" in wrong else k.shape[2]
        dq, dk, dv = passes["backward"]("plain", grad, q, k[:, :, :seen], v[:, :, :seen], *rest)
        return dq, *(torch.nn.functional.pad(t, (0, 0, 0, k.shape[2] - seen)) for t in (dk, dv))

    monkeypatch.setattr(kernels, "forward", forward)
    monkeypatch.setattr(kernels, "backward", backward)
    device = torch.device("cpu")
    assert kernels.agrees("flash", device, 64)
    assert kernels.aligns("flash", device, 64) == (not wrong)
    active: list[str] = []
    monkeypatch.setattr(kernels, "_has_flash_4", lambda device, size: True)
    monkeypatch.setattr(kernels, "_trimmed_results", contextlib.nullcontext)
    monkeypatch.setattr(torch.nn.attention, "activate_flash_attention_impl", active.append, raising=False)
    monkeypatch.setattr(torch.nn.attention, "restore_flash_attention_impl", active.clear, raising=False)
    current = lambda: active[-1] if active else None  # noqa: E731
    monkeypatch.setattr(torch.nn.attention, "current_flash_attention_impl", current, raising=False)
    kernels._flash_4_aligns.cache_clear()
    cudnn, q = torch.backends.cuda.cudnn_sdp_enabled(), torch.zeros(1, 1, 1, 64)
    assert kernels.lower_right("flash", q)
    with kernels.fastest(device, 64) as name, kernels.fastest(device, 64) as again:
        assert name == again == "FlashAttention-4" and active == ["FA4"]
        assert not torch.backends.cuda.cudnn_sdp_enabled()
        assert kernels.lower_right("flash", q) == (not wrong)
    assert kernels.lower_right("flash", q) and torch.backends.cuda.cudnn_sdp_enabled() == cudnn
    kernels._flash_4_aligns.cache_clear()


def test_results_that_pytorch_does_not_take_are_cut_off(monkeypatch) -> None:
    """Newer FlashAttention-4 gives more results than PyTorch's switch takes, and keeps a cache on its functions."""
    interface: Any = types.ModuleType("flash_attn.cute.interface")

    def _flash_attn_fwd(x: int, *, scale: int) -> tuple[int, ...]:
        _flash_attn_fwd.cache[x] = scale
        return (x, scale, 3, 4)

    _flash_attn_fwd.cache = {}
    interface._flash_attn_fwd, interface._flash_attn_bwd = _flash_attn_fwd, lambda: (1, 2, 3)
    for name in ("flash_attn", "flash_attn.cute"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "flash_attn.cute.interface", interface)
    with kernels._trimmed_results(), kernels._trimmed_results():  # trimming twice is trimming once
        assert interface._flash_attn_fwd(1, scale=2) == (1, 2)
        assert interface._flash_attn_bwd() == (1, 2, 3)
        assert interface._flash_attn_fwd.cache is _flash_attn_fwd.cache == {1: 2}
    assert interface._flash_attn_fwd is _flash_attn_fwd


def test_without_flash_attention_4_pytorch_picks() -> None:
    with kernels.fastest(torch.device("cpu"), 128) as name:
        assert name == "as PyTorch picks"
