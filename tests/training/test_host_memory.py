"""Results of layers in the host's memory, and a layer that is compiled: the same gradients, and nothing left on the device."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import Any

import pytest
import torch

from recomputing import BATCH, TOKENS, gradients, ids
from ropewalk import testing
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner.choice import NOTHING, Kept
from ropewalk.training import host_memory, recompute


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
