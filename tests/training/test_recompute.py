"""What layers keep: counted, chosen within the room there is, and without a trace in the gradients."""

from __future__ import annotations

import gc
import itertools
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed._tools.mem_tracker import MemTracker
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import CheckpointPolicy

from ropewalk import testing
from ropewalk.distributed.mesh import Mesh
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner import chips
from ropewalk.planner.choice import NOTHING, Kept, Room
from ropewalk.planner.job import Job
from ropewalk.planner.kept import layer_of, room_of
from ropewalk.planner.memory import CONTEXT, GIB, step_memory
from ropewalk.planner.shape import read_shape
from ropewalk.settings import budget
from ropewalk.settings.budget import mlp_tiles
from ropewalk.settings.recipe import Recipe
from ropewalk.training import census, host_memory, recompute, throughput
from ropewalk.training.activations import ActivationMemory, copied_bytes, gradient_bytes
from ropewalk.training.retry import until_it_fits
from ropewalk.training.tiles import Tiles, tileable

BATCH, TOKENS = 2, 48


def ids() -> torch.Tensor:
    return torch.randint(0, 256, (BATCH, TOKENS + 1), generator=torch.Generator().manual_seed(0))


def gradients(root: NextTokenLoss) -> dict[str, torch.Tensor]:
    root.zero_grad(set_to_none=True)
    root(ids()[:, :-1], ids()[:, 1:]).backward()
    return {name: p.grad.clone() for name, p in root.named_parameters()}


class Expensive(TorchDispatchMode):
    """Counts matrix products and attentions."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += census.is_expensive(op)
        return op(*args, **(kwargs or {}))


def test_candidates_are_counted_as_by_hand() -> None:
    """LLaMA, width 64, hidden 128: FLOPs a byte are the width for products, the tokens for attention (float32: half of each)."""
    root = NextTokenLoss(testing.tiny().train())
    candidates = recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    tokens = BATCH * TOKENS
    by_index = {c.index: c for c in candidates}
    assert sorted(by_index) == [0, 1, 2, 3, 4, 5, 6]  # q, k, v, attention, o, gate, up; the down projection never
    for index in (0, 1, 2, 4):
        assert (by_index[index].flops, by_index[index].size) == (2 * tokens * 64 * 64, tokens * 64 * 4)
    for index in (5, 6):
        assert (by_index[index].flops, by_index[index].size) == (2 * tokens * 64 * 128, tokens * 128 * 4)
    # Two products over half the square; the result and one log-sum-exp a head and token.
    assert by_index[3].flops == 2 * tokens * TOKENS * 64
    assert by_index[3].size == tokens * 64 * 4 + tokens * 4 * 4


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_a_model_without_weights_has_the_same_candidates(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family, tie_word_embeddings=True).train())
    with torch.device("meta"):
        empty = NextTokenLoss(testing.tiny(family, tie_word_embeddings=True).train())
    candidates = recompute.SelectiveCheckpointing(empty).candidates(
        empty.body, BATCH, TOKENS, device=torch.device("cpu")
    )
    assert candidates == recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    assert all(parameter.is_meta for parameter in empty.parameters())


@pytest.mark.parametrize(
    "rope", [{"rope_type": "longrope", "short_factor": [1.0] * 8, "long_factor": [2.0] * 8}, {"rope_type": "dynamic"}]
)
def test_frequencies_that_depend_on_the_largest_position_are_no_obstacle(rope: dict[str, Any]) -> None:
    """Tracing has positions without values, so transformers cannot look which frequencies to take."""
    keys = {"rope_theta": 1e4, "factor": 2.0, "original_max_position_embeddings": TOKENS // 2}
    model = testing.tiny(rope_parameters=keys | rope, max_position_embeddings=TOKENS).train()
    root, plain = NextTokenLoss(model), NextTokenLoss(testing.tiny().train())
    candidates = recompute.SelectiveCheckpointing(root).candidates(root.body, BATCH, TOKENS)
    assert candidates == recompute.SelectiveCheckpointing(plain).candidates(plain.body, BATCH, TOKENS)
    assert model.model.rotary_emb.rope_type == rope["rope_type"]


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_what_is_kept_changes_no_gradient(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    every = frozenset(c.index for c in candidates)
    for choice in (
        [NOTHING] * 2,
        [every] * 2,
        [frozenset([candidates[0].index]), every],
        [None, NOTHING],
    ):
        kept.keep(choice)
        for name, value in gradients(root).items():
            assert torch.equal(value, expected[name]), (choice, name)


def test_what_is_kept_is_not_computed_again() -> None:
    root = NextTokenLoss(testing.tiny().train())
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    counts = {}
    for amount in (None, 0, 3, len(candidates)):
        kept.keep([None if amount is None else frozenset(c.index for c in candidates[:amount])] * 2)
        loss = root(ids()[:, :-1], ids()[:, 1:])
        with Expensive() as counted:
            loss.backward()
        counts[amount] = counted.count
    again = {amount: count - counts[None] for amount, count in counts.items()}
    # Two layers of seven expensive results each; the eighth, the last product, is never computed again.
    assert again == {None: 0, 0: 2 * 7, 3: 2 * 4, len(candidates): 0}


def test_layers_go_back_to_what_they_were() -> None:
    root = NextTokenLoss(testing.tiny().train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.keep([NOTHING] * 2)
    kept.release()
    assert all("forward" not in vars(layer) for layer in kept.layers)


def saved(root: NextTokenLoss, layer: torch.nn.Module) -> int:
    """Bytes that autograd packs for a layer's backward pass, each storage once, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in root.parameters()}
    packed: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        packed[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    plain = layer.forward

    def watched(*args: Any, **kwargs: Any) -> Any:
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            return plain(*args, **kwargs)

    layer.forward = watched
    root(ids()[:, :-1], ids()[:, 1:])
    del layer.forward
    return sum(t.untyped_storage().nbytes() for at, t in packed.items() if at not in weights)


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_where_everything_fits_nothing_is_chosen(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.candidates(root.body, BATCH, TOKENS)
    # Results that the next operation uses up are made and not saved, so that a bound it is.
    assert saved(root, kept.layers[0]) <= kept.layer.everything <= 2 * saved(root, kept.layers[0])
    room = len(kept.layers) * kept.layer.everything
    kept.settle(Room(room))
    assert kept.kept == [None] * len(kept.layers)
    kept.settle(Room(room - 1))
    assert None not in kept.kept


def peak(kept: Sequence[Kept], tokens: int) -> int:
    """Bytes of one step at most, by PyTorch's own tracker."""
    root = NextTokenLoss(testing.tiny(num_hidden_layers=len(kept), max_position_embeddings=tokens).train())
    recompute.SelectiveCheckpointing(root).keep(kept)
    with MemTracker() as tracker:
        window = torch.zeros(1, tokens, dtype=torch.long)
        root.body(window, use_cache=False).last_hidden_state.sum().backward()
    return int(tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"])


def test_layers_that_keep_less_compute_again_when_the_others_have_given_theirs_up() -> None:
    """At a step's peak every result is there still; what the last layer computed again then would be there besides."""
    root = NextTokenLoss(testing.tiny(num_hidden_layers=12).train())
    checkpointing = recompute.SelectiveCheckpointing(root)
    sizes = {c.index: c.size for c in checkpointing.candidates(root.body, 1, 2048)}
    checkpointing.settle(Room(10 * sum(sizes.values())))
    first, last = (
        sum(sizes[index] for index in keep or ()) for keep in (checkpointing.kept[0], checkpointing.kept[-1])
    )
    assert first < last
    assert peak(checkpointing.kept, 2048) <= peak(checkpointing.kept[::-1], 2048) - 0.9 * (last - first)


def test_less_is_kept_step_by_step_until_nothing_is() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    sizes = {c.index: c.size for c in kept.candidates(root.body, BATCH, TOKENS)}
    whole, held = 16 * sum(sizes.values()), list[int]()
    kept.settle(Room(whole))
    while not held or kept.lower():
        held.append(sum(sizes[index] for keep in kept.kept for index in keep or ()))
    assert held[0] == whole and held[-1] == 0
    assert all(later < earlier for earlier, later in itertools.pairwise(held))
    assert max(earlier - later for earlier, later in itertools.pairwise(held)) <= whole / 4  # never much at once
    assert not kept.lower()


def test_a_step_that_fails_again_and_again_is_given_up_on_in_a_few_passes() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.settle(Room(16 * sum(c.size for c in kept.candidates(root.body, BATCH, TOKENS))))
    tries = 0
    while kept.lower(tries):
        tries += 1
    assert tries <= 5  # 1 + 2 + 4 + 8 tenths, and what lies below zero
    assert not any(kept.kept)


def test_memory_that_runs_out_is_asked_for_less_until_it_is_enough() -> None:
    root = NextTokenLoss(testing.tiny(num_hidden_layers=16).train())
    kept = recompute.SelectiveCheckpointing(root)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    whole = sum(c.size for c in candidates) * 16
    limit, tried = whole * 0.6, []

    def call() -> dict[str, torch.Tensor]:
        root.zero_grad(set_to_none=True)
        sizes = {c.index: c.size for c in candidates}
        tried.append(sum(sizes[index] for keep in kept.kept for index in keep or ()))
        out = gradients(root)
        if tried[-1] > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return out

    def give_up(asked: str) -> None:
        assert kept.lower() and "2.00 GiB" in asked

    kept.settle(Room(whole))
    found_gradients = until_it_fits(call, give_up)
    assert tried[0] == whole and len(tried) > 1
    assert 0.4 * whole < tried[-1] <= limit
    assert tried == sorted(tried, reverse=True)
    kept.release()
    for name, value in gradients(root).items():
        assert torch.equal(found_gradients[name], value)


def test_a_compiled_layer_keeps_the_same_and_is_compiled_once(monkeypatch) -> None:
    """Traced and partitioned as on a GPU, without generating code: one graph for all layers, the same gradients."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_(f, backend="aot_eager", dynamic=False))
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root, compiled=True)
    candidates = kept.candidates(root.body, BATCH, TOKENS)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    try:
        for _ in itertools.repeat(None, 2):  # the second time nothing is compiled any more
            kept.keep([frozenset(c.index for c in candidates)] * 4)
            for name, value in gradients(root).items():
                torch.testing.assert_close(
                    value, expected[name], rtol=1e-4, atol=1e-5 * expected[name].abs().max().item()
                )
            kept.release()
        assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    finally:
        torch._dynamo.reset()


#: What layers keep and which of them keep it on the host; of a compiled layer, hooks see all that it keeps, else its input alone.
HOSTED: list[tuple[Kept, tuple[int, ...]]] = [
    (NOTHING, (0, 1, 2, 3)),
    (frozenset({3}), (0, 2)),
    (frozenset({0, 1, 2, 3, 4, 5, 6}), (1, 2, 3)),
    (None, (0, 3)),
]


@pytest.mark.parametrize("compiled", [False, True])
def test_results_in_the_hosts_memory_and_mlps_in_tiles_change_no_gradient(monkeypatch, compiled: bool) -> None:
    """Three tiles of 16 tokens; a layer of its own for each kind of tensor that leaves, and one graph for all layers."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_(f, backend="aot_eager", dynamic=False))
    monkeypatch.setattr(host_memory, "_SMALLEST", 64)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root, compiled=compiled)
    kept.candidates(root.body, BATCH, TOKENS)
    kept.tile(3)
    try:
        for keep, hosted in HOSTED:
            torch._dynamo.reset()
            torch._dynamo.utils.counters.clear()
            kept.keep([keep] * 4, hosted)
            for _ in range(2):  # buffers are used again
                for name, value in gradients(root).items():
                    tolerance = 1e-5 * expected[name].abs().max().item()  # tiles change the order of sums
                    torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=tolerance)
            assert kept.host_bytes >= len(hosted) * BATCH * TOKENS * 64 * 4
            with kept.aside():
                plain = gradients(root)
            gradients(root)
            assert all(torch.equal(value, expected[name]) for name, value in plain.items())
            assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == int(
                compiled
            )  # nor anew after a measurement
    finally:
        torch._dynamo.reset()
        kept.release()
    for name, value in gradients(root).items():
        assert torch.equal(value, expected[name])


def test_what_left_for_the_host_is_not_kept_on_the_device(monkeypatch) -> None:
    """Of eight layers' inputs, two may be on their way and one is being computed with; the others must be gone in the forward pass."""
    monkeypatch.setattr(host_memory, "_SMALLEST", 64)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=8).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.keep([NOTHING] * 8, range(8))
    inputs = list[weakref.ref[torch.Tensor]]()
    for layer in kept.layers:
        layer.register_forward_pre_hook(lambda _, args: inputs.append(weakref.ref(args[0])))
    loss = root(ids()[:, :-1], ids()[:, 1:])
    gc.collect()
    assert sum(each() is not None for each in inputs) <= 2
    loss.backward()


def test_the_first_results_come_back_while_a_layer_that_stayed_runs_backward(monkeypatch) -> None:
    """And each one's before it is asked for: fetched are the last layer that is away when nothing of the layer behind it has a gradient yet, then the one before."""
    monkeypatch.setattr(host_memory, "_SMALLEST", 64)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    kept = recompute.SelectiveCheckpointing(root)
    kept.keep([NOTHING] * 4, (0, 2))
    events, fetched = list[str](), host_memory.HostMemory._fetch

    def fetch(host: host_memory.HostMemory, number: int) -> None:
        if number not in host._fetched:
            events.append(f"fetch {number}")
        fetched(host, number)

    monkeypatch.setattr(host_memory.HostMemory, "_fetch", fetch)
    for number, layer in enumerate(kept.layers):
        weight = next(layer.parameters())
        weight.register_post_accumulate_grad_hook(lambda _, number=number: events.append(f"backward {number}"))
    gradients(root)
    assert events == ["fetch 2", "backward 3", "fetch 0", "backward 2", "backward 1", "backward 0"]


def test_a_tensor_comes_back_with_the_strides_it_had(monkeypatch) -> None:
    """A compiled layer pads rows on a GPU and asserts their strides in its backward pass; also transposed, repeated and mostly gaps."""
    monkeypatch.setattr(host_memory, "_SMALLEST", 64)
    generator, come_back = torch.Generator().manual_seed(0), list[torch.Tensor]()
    rows = torch.randn(40, 96, generator=generator)
    saved = [rows[:, :70], rows.t(), rows[:1].expand(5, 96), rows[:, :3], rows[3:9, 7:90].t(), rows]

    class Keeps(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(*saved)
            return x.clone()

        @staticmethod
        def backward(ctx, upstream):
            come_back.extend(ctx.saved_tensors)
            return upstream

    host = host_memory.HostMemory(torch.device("cpu"))
    host.use([0])
    run = host.around(0, torch.nn.Identity(), Keeps.apply)
    run(torch.ones(2, requires_grad=True)).sum().backward()
    for before, after in zip(saved, come_back, strict=True):
        assert torch.equal(before, after) and before.stride() == after.stride()
    assert [before.data_ptr() == after.data_ptr() for before, after in zip(saved, come_back, strict=True)] == [
        number == 3
        for number in range(6)  # mostly gaps: it stays
    ]


def test_a_pass_that_failed_leaves_nothing_behind(monkeypatch) -> None:
    monkeypatch.setattr(host_memory, "_SMALLEST", 64)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    kept = recompute.SelectiveCheckpointing(root)
    kept.keep([NOTHING] * 4, range(4))
    handle = kept.layers[2].register_forward_pre_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        gradients(root)
    handle.remove()
    for name, value in gradients(root).items():
        assert torch.equal(value, expected[name])


def fail(*_: Any) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2"])
def test_operations_are_known_by_their_number_without_tiles(family: str) -> None:
    root = NextTokenLoss(testing.tiny(family).train())
    kept = recompute.SelectiveCheckpointing(root)
    whole = {c.index for c in kept.candidates(root.body, BATCH, TOKENS)}
    kept.tile(3)
    counted = census.Census(keys=1.0)
    with counted, torch.no_grad():
        root.body(input_ids=ids()[:, :-1], use_cache=False)
    here = {kept.tiles.whole(c.index) for c in counted.expensive[: len(counted.expensive) // len(kept.layers)]}
    assert here == {index for index in whole if not kept.tiles.holds(index)}


def test_experts_are_not_tiled() -> None:
    kept = recompute.SelectiveCheckpointing(NextTokenLoss(testing.tiny("mixtral").train()))
    kept.tile(3)
    assert kept.tiles.count == 1


@pytest.mark.parametrize(("dropout", "tiles"), [(0.0, 3), (0.1, 1)])
def test_mlps_that_draw_random_numbers_are_not_tiled(dropout: float, tiles: int) -> None:
    """A tile that is computed again would draw others: its gradients were not the loss's, here along a direction."""
    root = NextTokenLoss(testing.tiny("starcoder2", residual_dropout=dropout).train().double())
    kept = recompute.SelectiveCheckpointing(root)
    kept.tile(3)
    assert kept.tiles.count == tiles
    weight = next(p for p in kept.layers[0].mlp.parameters() if p.dim() == 2)
    direction = torch.randn(weight.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def loss(step: float) -> torch.Tensor:
        with torch.no_grad():
            weight.add_(step * direction)
        torch.manual_seed(1)
        return root(ids()[:, :-1], ids()[:, 1:])

    loss(0.0).backward()
    assert weight.grad is not None
    slope = float((loss(1e-3) - loss(-2e-3)).detach()) / 2e-3
    assert float((weight.grad * direction).sum()) == pytest.approx(slope, rel=1e-2)


def test_dropout_is_known_as_a_module_too() -> None:
    layer = recompute.SelectiveCheckpointing(NextTokenLoss(testing.tiny("llama").train())).layers[0]
    layer.mlp.drop = nn.Dropout(0.0)
    assert tileable(layer) is layer.mlp
    layer.mlp.drop.p = 0.1
    assert tileable(layer) is None


@pytest.mark.parametrize(
    "dropout, policy", [(0.0, CheckpointPolicy.MUST_SAVE), (0.1, CheckpointPolicy.PREFER_RECOMPUTE)]
)
def test_attention_that_drops_scores_is_never_kept(dropout: float, policy: CheckpointPolicy) -> None:
    """Not run again, it would draw nothing, and a dropout behind it in the layer would draw its numbers. No CPU has a fused attention that drops any."""
    op, ctx = torch.ops.aten._scaled_dot_product_flash_attention.default, SimpleNamespace(is_recompute=False)
    q = torch.empty(1, 1, 4, 8, device="meta")
    assert recompute._policy(frozenset({0}), Tiles(), {False: 0, True: 0}, ctx, op, q, q, q, dropout, True) == policy


def test_a_long_micro_batch_goes_in_tiles_and_a_short_one_does_not() -> None:
    lengths = (2048, 8192, 65536, 98304, 131072, 262144)
    assert [mlp_tiles(tokens) for tokens in lengths] == [1, 1, 1, 3, 4, 8]
    assert [mlp_tiles(tokens, short=True) for tokens in lengths] == [1, 4, 8, 12, 16, 32]


def test_what_a_step_will_take_is_reserved_once() -> None:
    weights = [nn.Parameter(torch.zeros(10, 10)), nn.Parameter(torch.zeros(7), requires_grad=False)]
    assert copied_bytes(weights) == 2 * 107  # bfloat16, of frozen weights too
    assert gradient_bytes(weights) == 400
    assert copied_bytes([nn.Parameter(torch.zeros(10, dtype=torch.bfloat16))]) == 0


@pytest.mark.parametrize(
    ("kind", "tokens", "short", "tiles"),
    [
        ("cpu", 131072, False, [1]),
        ("cuda", 131072, False, [4, 16]),  # the planner's too: else the widest results are there whole
        ("cuda", 131072, True, [16]),
        ("cuda", 65536, False, [1, 8]),
        ("cuda", 32768, True, [4]),
        ("cuda", 8000, True, [1]),
    ],
)
def test_full_checkpointing_has_mlps_in_tiles_where_tokens_are_many_or_memory_is_short(
    kind: str, tokens: int, short: bool, tiles: list[int], caplog
) -> None:
    """And takes to smaller ones where a step runs out of memory, once."""
    loss, seen = NextTokenLoss(testing.tiny("llama").train()), list[int]()
    memory = ActivationMemory(loss, "full", Mesh(torch.device(kind)), torch.bfloat16, (1, tokens), short=short)
    with caplog.at_level("INFO", logger="ropewalk"):
        memory.settle()
        while not seen or memory.lower():
            seen.append(memory._checkpointing.tiles.count)
    assert seen == tiles and memory._checkpointing.kept == [NOTHING] * 2
    told = [f"MLPs go through the sequence in {count} tiles" in caplog.text for count in (4, 8, 16)]
    assert told == [count in tiles and (count, tokens) != (4, 131072) for count in (4, 8, 16)]


@pytest.mark.parametrize("begun_again", [False, True])
def test_what_a_step_left_free_is_given_out_unless_it_was_begun_again(monkeypatch, begun_again: bool) -> None:
    """Seen from the peak, what was free when memory ran out looks spare: with tensors of 4 GiB the choice that had failed would be taken once more."""
    monkeypatch.setattr(throughput, "spare_bytes", lambda device: 2**40)
    loss = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    memory = ActivationMemory(loss, "full", Mesh(torch.device("cuda")), torch.bfloat16, (BATCH, TOKENS))
    kept, given = memory._checkpointing, list[int]()
    kept.candidates(loss.body, BATCH, TOKENS)
    kept.settle(Room(sum(c.size for c in kept.layer.candidates)))
    memory._traced = True
    monkeypatch.setattr(kept, "spare", given.append)
    if begun_again:
        assert memory.lower()
    for _ in range(2):
        memory.after_step()
    assert len(given) == (not begun_again)


def test_experts_are_given_up_on_at_once() -> None:
    loss = NextTokenLoss(testing.tiny("mixtral").train())
    memory = ActivationMemory(loss, "full", Mesh(torch.device("cuda")), torch.bfloat16, (1, 131072), short=True)
    memory.settle()
    assert memory._checkpointing.tiles.count == 1 and not memory.lower()


@pytest.mark.parametrize("short", [False, True])
def test_a_step_short_of_memory_goes_in_small_tiles_with_the_same_gradients(monkeypatch, short: bool) -> None:
    """What was traced without tiles is kept by its number beside them; and each time that memory runs out less is there."""
    monkeypatch.setattr(budget, "SMALL_TILE_TOKENS", 24)
    root = NextTokenLoss(testing.tiny(num_hidden_layers=4).train())
    expected = gradients(root)
    checkpointing = recompute.SelectiveCheckpointing(root)
    whole = {c.index: c.size for c in checkpointing.candidates(root.body, BATCH, TOKENS)}
    checkpointing.settle(Room(-1 if short else sum(whole.values()), matrix=1.0), short=short)
    assert checkpointing.tiles.count == (4 if short else 1)
    while checkpointing.tiles.count == 1:
        assert checkpointing.lower()
    hidden = {index for index in whole if checkpointing.tiles.holds(index)}
    assert hidden == {5, 6} and not any(hidden & (kept or set()) for kept in checkpointing.kept)
    for _ in range(2):
        for name, value in gradients(root).items():
            tolerance = 1e-5 * expected[name].abs().max().item()  # tiles change the order of sums
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=tolerance)
        while checkpointing.lower():
            pass
    assert not any(checkpointing.kept) and checkpointing.tiles.count == 4


def test_what_several_devices_take_is_reserved() -> None:
    """Counted by hand, for two layers of 64 with four heads of 16 on two keys, in bfloat16: gradients of a layer twice, once in float32."""
    loss = NextTokenLoss(testing.tiny("llama", window=64).train())
    config = loss.model.config
    layer = sum(weight.numel() for weight in loss.model.model.layers[0].parameters())
    others = sum(weight.numel() for weight in loss.model.parameters()) - layer * config.num_hidden_layers
    mesh = Mesh(torch.device("cpu"))
    mesh.world = mesh.context_size = 2
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32))
    whole = 2 * 2 * layer + (2 + 4) * layer + 2 * 2 * others
    width = config.num_attention_heads * config.head_dim
    keys = 64 * config.num_key_value_heads * config.head_dim
    assert memory._of_several(32) == 4 * 2**30 + whole + 2 * keys * 2 + 2 * keys * 4 + 8 * 2 * 64 * width
    mesh.context_size = 1
    assert memory._of_several(32) == whole
    mesh.world = 1
    assert memory._of_several(32) == 0


def test_several_devices_set_no_copies_aside_and_a_plan_reserves_what_training_does(monkeypatch) -> None:
    """FSDP2 casts a layer when it gathers it (tests/distributed): copies of all float32 weights, as of autocast on one device, are never there."""
    loss, mesh = NextTokenLoss(testing.tiny("llama", window=64).train()), Mesh(torch.device("cpu"))
    monkeypatch.setattr(recompute, "free_bytes", lambda *_, reserved, **rest: -reserved)
    alone = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32), accumulated=False)._room().card
    assert -alone == 2 * sum(weight.numel() for weight in loss.parameters())
    mesh.world = mesh.context_size = 2
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (1, 32), accumulated=False)
    reserved = memory._of_several(32)
    assert memory._room().card == -reserved
    shape = read_shape(loss.model.config.to_dict(), name="x")
    recipe = Recipe(window=64, batch_size=1, precision="bfloat16", optimizer="adamw")
    job, chip = Job(shape, recipe, gpus=2, cp=2), chips.CHIPS["H100"]
    layer, bare = layer_of(job), step_memory(job)
    room = room_of(job, layer, chip, chips.datasheet_rates(chip))
    before = chip.memory * GIB - bare.weights - bare.states - CONTEXT - shape.layers * room.input
    # Norms, which a plan does not count among a layer's weights, take a few kilobytes; copies would take 115.
    assert room.card == pytest.approx(before - layer.workspace(room.loss) - budget.MARGIN - reserved, abs=2e4)


@pytest.mark.parametrize("family, documents, masked", [
    ("phi-3-mini-4k", False, False), ("phi-3-mini-4k", True, False), ("llama4_text", True, True), ("gemma2", False, True), ("llama", False, None),
])  # fmt: skip
def test_what_layers_that_slide_take_is_reserved_as_it_is_planned(
    family: str, documents: bool, masked: bool | None
) -> None:
    """Counted by hand, for two windows of 32 of four heads in bfloat16: eight tensors of queries, or a mask, and a copy for each window."""
    loss = NextTokenLoss(testing.tiny(family, window=64).train())
    mesh, config = Mesh(torch.device("cpu")), loss.model.config
    memory = ActivationMemory(loss, "auto", mesh, torch.bfloat16, (2, 32), documents=documents)
    width = config.num_attention_heads * (
        getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    )
    expected = {None: 0, True: 32 * 32 * (1 + 2 * 2), False: 8 * 2 * 2 * 32 * width}[masked]
    assert memory._of_sliding() == expected
    memory._trace()
    ops = {candidate.op for candidate in memory._checkpointing.layer.candidates}
    assert ("ropewalk.sliding_attention.default" in ops) == (masked is False)
