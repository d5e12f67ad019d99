"""Kept activations in the host's memory: what some layers keep for the backward pass leaves the GPU behind the forward pass and comes back ahead of the backward pass.

in   the layers' forward functions; which layers
out  the same functions; what autograd saves in them lies in pinned host memory meanwhile

Copies run on two streams of their own, out and back, beside the arithmetic. Two layers' results are on their way out at most: then the
arithmetic waits, and the memory is used again in its order. On the way back one layer is ahead, the first of them while a layer that
stayed runs backward. The mechanism is PyTorch's: hooks on saved tensors, which see what a compiled layer keeps, its input included.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from ropewalk.training.host_link import beside, pinned, reached, stream, wait

#: Bytes; a smaller tensor stays where it is.
_SMALLEST = 2**20
#: Bytes of a buffer begin at multiples of this.
_ALIGNED = 512


@dataclass(frozen=True)
class _Place:
    """Where a tensor's elements lie in a buffer, gaps between them included: `start` in bytes, `span` from the first element to the last one.

    A compiled layer asserts the strides that it gave, and it pads rows to 128 bytes on a GPU: so gaps travel, and copies are of one piece.
    """

    start: int
    span: int
    shape: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype

    @property
    def end(self) -> int:
        return self.start + self.span * self.dtype.itemsize


@dataclass
class _Away:
    """One layer's results that are away: their buffer, and where in it each lies."""

    buffer: Tensor
    places: list[_Place] = field(default_factory=list)

    def flat(self, index: int) -> Tensor:
        place = self.places[index]
        return self.buffer[place.start : place.end].view(place.dtype)


class HostMemory:
    """Where the results of the layers in `layers` (numbers) are between the passes. device: the GPU, or a CPU in tests.

    Attributes:
        pinned: bytes of host memory taken so far. Buffers stay for all steps: pinning 60 GiB takes its time once.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.pinned = device, 0
        self._buffers: list[Tensor] = []
        self._out, self._back = stream(device), stream(device)
        self.use(())

    def use(self, layers: Collection[int]) -> None:
        """From now on the results of these layers leave."""
        self._order = sorted(layers)
        self._before = dict(zip(self._order[1:], self._order, strict=False))
        self._begin()

    def _begin(self) -> None:
        self._away: dict[int, _Away] = {}
        self._leaving: list[tuple[Any, list[Tensor]]] = []
        self._fetched: dict[int, tuple[Any, list[Tensor]]] = {}
        self._reached: set[int] = set()

    def around(self, number: int, layer: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward function of layer `number`, whose saved tensors leave."""

        def run(*args: Any, **kwargs: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*args, **kwargs)
            # Weights stay, sharded ones too, which are whole just now; so does what all layers share, positions and masks.
            stays = {each.untyped_storage().data_ptr() for each in layer.parameters()}
            stays |= {each.untyped_storage().data_ptr() for each in tree_leaves(kwargs) if isinstance(each, Tensor)}
            with self._layer(number, stays):
                return forward(*args, **kwargs)

        return run

    def ahead(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward function of the layer behind the last one whose results leave: they come back while it runs backward, or all of them would be waited for."""

        def fetch(_gradient: Tensor) -> None:
            self._all_out()
            self._fetch(self._order[-1])

        def run(*args: Any, **kwargs: Any) -> Any:
            output = forward(*args, **kwargs)
            hidden = output if isinstance(output, Tensor) else output[0]
            if hidden.requires_grad:
                hidden.register_hook(fetch)
            return output

        return run

    @contextlib.contextmanager
    def _layer(self, number: int, stays: set[int]) -> Iterator[None]:
        if number == self._order[0]:
            self._begin()
        while len(self._leaving) > 1:
            wait(self.device, self._leaving.pop(0)[0])
        leaving, seen = list[Tensor](), dict[Any, int]()

        def pack(tensor: Tensor) -> Any:
            storage = tensor.untyped_storage().data_ptr()
            if tensor.numel() * tensor.element_size() < _SMALLEST or tensor.device != self.device or storage in stays:
                return tensor
            if _span(tensor) > 2 * tensor.numel():  # hardly anything but gaps
                return tensor
            key = (storage, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)
            if key not in seen:
                seen[key] = len(leaving)
                leaving.append(tensor.detach())  # which keeps its address from being another's before the layer ends
            return number, seen[key]

        with torch.autograd.graph.saved_tensors_hooks(pack, self._unpack):
            yield
        self._send(number, list(leaving))
        leaving.clear()  # autograd keeps `pack`, and so the list, as long as the layer's results

    def _send(self, number: int, leaving: list[Tensor]) -> None:
        away = self._away[number] = self._place(self._order.index(number), leaving)
        with beside(self._out, reached(self.device)):
            for index, tensor in enumerate(leaving):
                away.flat(index).copy_(_flat(tensor), non_blocking=True)
            self._leaving.append((reached(self.device), leaving))

    def _place(self, slot: int, tensors: list[Tensor]) -> _Away:
        """Where tensors will lie in a buffer of their own, made if it is not there yet or too small."""
        places, end = list[_Place](), 0
        for tensor in tensors:
            places.append(_Place(end, _span(tensor), tensor.shape, tensor.stride(), tensor.dtype))
            end = -(-places[-1].end // _ALIGNED) * _ALIGNED
        while slot >= len(self._buffers):
            self._buffers.append(torch.empty(0, dtype=torch.uint8))
        if self._buffers[slot].numel() < end:
            self.pinned += end - self._buffers[slot].numel()
            self._buffers[slot] = torch.empty(0, dtype=torch.uint8)  # the old one goes before the new one comes
            self._buffers[slot] = pinned(end, self.device)
        return _Away(self._buffers[slot], places)

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        number, index = packed
        self._all_out()
        if number not in self._reached:
            self._reached.add(number)
            self._fetch(number)
            wait(self.device, self._fetched[number][0])
            for later in [each for each in self._fetched if each > number]:
                del self._fetched[later]
            if number in self._before:
                self._fetch(self._before[number])
        return self._fetched[number][1][index]

    def _all_out(self) -> None:
        """Nothing is on its way out any more."""
        while self._leaving:
            wait(self.device, self._leaving.pop(0)[0])

    def _fetch(self, number: int) -> None:
        if number in self._fetched:
            return
        away = self._away[number]
        # Allocated in the order of the arithmetic, so that their memory is used again in it.
        tensors = [
            torch.empty_strided(place.shape, place.stride, dtype=place.dtype, device=self.device)
            for place in away.places
        ]
        with beside(self._back, reached(self.device)):
            for index, tensor in enumerate(tensors):
                _flat(tensor).copy_(away.flat(index), non_blocking=True)
            self._fetched[number] = (reached(self.device), tensors)


def _span(tensor: Tensor) -> int:
    """Elements from the first to the last one, gaps included."""
    return 1 + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True))


def _flat(tensor: Tensor) -> Tensor:
    """Those elements in one row: a view."""
    return tensor.as_strided((_span(tensor),), (1,))
