"""What a layer computes that could be kept for the backward pass: traced with fake tensors, so that nothing is computed and no memory taken.

in   a model's body, one of its decoder layers, the shape of its micro batches
out  a `Census`: the layer's expensive operations, and the bytes of all results
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from ropewalk.attention_ops.kernels import FUSED_ATTENTIONS
from ropewalk.model.layers import layout_of
from ropewalk.model.torch_internals import FakeTensorMode, TorchDispatchMode, storage_of
from ropewalk.planner.choice import Candidate
from ropewalk.training.tiles import tileable

_aten = torch.ops.aten
#: Matrix products as they reach the dispatcher, with the arguments that are multiplied.
_PRODUCTS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.bmm.default: (0, 1),
}


def is_expensive(op: Any) -> bool:
    """Whether an operation is a matrix product or a fused attention."""
    return (
        op in _PRODUCTS
        or op in FUSED_ATTENTIONS
        or str(op) in ("ropewalk.attention.default", "ropewalk.sliding_attention.default")
    )


class Census(TorchDispatchMode):
    """Counts a layer's expensive operations, their FLOPs and the bytes of their results; and the bytes of all results.

    Attributes:
        expensive: these operations, in order.
        all_bytes: of the results of all operations.
        marks: how many of these operations there had been when the MLP began and when it ended.

    keys: by which attention multiplies a query.
    """

    def __init__(self, *, keys: float) -> None:
        super().__init__()
        self._keys = keys
        self.expensive: list[Candidate] = []
        self.all_bytes = 0
        self.marks: list[int] = []
        self._seen: set[int] = set()
        self._held: list[Tensor] = []  # or a freed storage's number would be given to a new one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._hold(args)  # views and writes in place allocate nothing
        out = func(*args, **(kwargs or {}))
        results = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, Tensor)]
        size = sum(t.numel() * t.element_size() for t in results)
        if is_expensive(func):
            self.expensive.append(Candidate(len(self.expensive), str(func), _flops(func, args, self._keys), size))
        if not self._seen & {storage_of(t) for t in results}:
            self.all_bytes += size
        self._hold(results)
        return out

    def mark(self, *_: Any) -> None:
        self.marks.append(len(self.expensive))

    def _hold(self, values: Sequence[Any]) -> None:
        tensors = [value for value in values if isinstance(value, Tensor)]
        self._held += tensors
        self._seen |= {storage_of(tensor) for tensor in tensors}


def _flops(op: Any, args: Sequence[Any], keys: float) -> float:
    if op in _PRODUCTS:
        left, right = (args[i] for i in _PRODUCTS[op])
        return 2.0 * left.numel() * right.shape[-1]
    return 4.0 * args[0].numel() * keys  # two products


def census_of(
    body: nn.Module, layer: nn.Module, batch: int, tokens: int, device: torch.device | None = None, *, sharing: int = 1
) -> Census:
    """The first pass of a layer over a micro batch of [batch, tokens].

    device: where it will run, if the weights are not there yet. sharing: devices that share the window. Its attention costs the mean of all layers':
    where some slide (Gemma 3), the first one alone would stand for none of them.
    """
    layout = layout_of(body)
    census = Census(keys=layout.keys_computed(sharing * tokens) / len(layout.layers))
    mlp = tileable(layer)

    def enter(*_: Any) -> None:
        census.__enter__()

    def leave(*_: Any) -> None:
        census.__exit__(None, None, None)
        raise _Left

    handles = [layer.register_forward_pre_hook(enter), layer.register_forward_hook(leave)]
    if mlp is not None:
        handles += [mlp.register_forward_pre_hook(census.mark), mlp.register_forward_hook(census.mark)]
    was_training = body.training
    try:
        with (
            contextlib.suppress(_Left),
            FakeTensorMode(allow_non_fake_inputs=True),
            torch.no_grad(),
            _settled_rotation(body),
            # Fake positions have no values, and transformers would give what might be packed documents a mask.
            mock.patch("transformers.masking_utils.find_packed_sequence_indices", lambda position_ids: None),
        ):
            device = device or next(body.parameters()).device
            ids = torch.zeros(batch, tokens, dtype=torch.long, device=device)
            tensors = itertools.chain(body.named_parameters(), body.named_buffers())
            on_device = {name: torch.empty_like(value, device=device) for name, value in tensors}
            torch.func.functional_call(body, on_device, kwargs=dict(input_ids=ids, use_cache=False))
    finally:
        for handle in handles:
            handle.remove()
        body.train(was_training)
    return census


class _Left(Exception):
    """The layer is done; the rest need not be traced."""


@contextlib.contextmanager
def _settled_rotation(body: nn.Module) -> Iterator[None]:
    """No choice of frequencies by the largest position, as LongRoPE's and dynamic ones are chosen: fake positions have no values."""
    kinds: dict[Any, Any] = {module: module.rope_type for module in body.modules() if hasattr(module, "rope_type")}
    try:
        for module, kind in kinds.items():
            module.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
        yield
    finally:
        for module, kind in kinds.items():
            module.rope_type = kind
