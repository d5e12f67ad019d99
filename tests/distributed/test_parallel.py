"""Two processes on a CPU against one: losses, gradients, training, checkpoints; and attention in blocks against plain attention."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import socket
import unittest.mock
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from torch.profiler import ProfilerActivity, profile

from ropewalk import testing
from ropewalk.attention_ops import choosing, collectives
from ropewalk.attention_ops.blocks import Attend
from ropewalk.distributed import ranks
from ropewalk.distributed.mesh import Mesh, start
from ropewalk.errors import UserError
from ropewalk.model.loss import IGNORED, NextTokenLoss
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


def held_by_a_pass(mesh: Mesh, layers: int) -> tuple[int, int]:
    """The most that the allocator gave while a pass went forward over few tokens, float32 weights gathered in bfloat16; and bytes of one layer's part."""
    sizes = dict(hidden_size=128, intermediate_size=512, num_hidden_layers=layers)
    root: Any = mesh.shard(NextTokenLoss(testing.tiny("llama", window=64, **sizes).train()), torch.bfloat16)
    ids = torch.zeros(1, 2, dtype=torch.long)
    root(input_ids=ids, labels=ids).backward()
    root.zero_grad()
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        root(input_ids=ids, labels=ids)
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    local = sum(4 * weight.to_local().numel() for weight in root.model.model.layers[0].parameters())
    return max(itertools.accumulate(changes)), local


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
    with unittest.mock.patch.object(choosing, "choose", lambda q, varied: "plain"):
        found["fused"] = {kind: pass_through(split, "llama", kind) for kind in ("plain", "documents")}
    found["exchanged"] = {str(t): ranks.everyones(exchanged(rank, t)) for t in (torch.float32, torch.bfloat16)}
    training(sharded, range(3), save=out / "of two")
    found["from one"] = training(split, range(3, 5), load=out / "of one")
    found["held"] = [held_by_a_pass(sharded, layers) for layers in (2, 6)]
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


def test_sharded_weights_are_cast_a_layer_at_a_time(found: dict[str, Any]) -> None:
    """Training set copies of all parts in bfloat16 aside, half as much as the parts themselves, which autocast would hold."""
    (few, local), (more, _) = found["held"]
    assert more - few < 0.1 * 4 * local  # of four layers more


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
    seen, choose = [], choosing.choose
    monkeypatch.setattr(choosing, "choose", lambda q, varied: seen.append(q.dtype) or choose(q, varied))
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


def test_batches_of_other_documents_look_alike_to_a_compiler() -> None:
    rows = batch("documents")
    fewer = {name: value[1:2] for name, value in rows.items()}
    mesh = start(device="cpu")
    assert mesh.split(rows)["attend"].blocks.shape == mesh.split(fewer)["attend"].blocks.shape == (64, 6)
