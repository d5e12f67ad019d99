"""Selective activation checkpointing by cost per byte: what is kept for the backward pass, and what is computed again.

in   a model, the shape of its micro batches, the memory there is
out  the same model; each decoder layer keeps the results that cost most to compute per byte, and recomputes the rest

Full checkpointing keeps a layer's input and does the layer's forward pass twice: a third more work. Keeping everything takes more
memory than there is. Between them, what counts is FLOPs saved per byte kept (after Chen et al. 2016, arXiv 1604.06174, and Korthikanti
et al. 2022, arXiv 2205.05198, section 5, who keep all but attention). Attention of T tokens costs about T FLOPs a byte of its
result, a matrix product from K features costs K; norms, rotations and gates cost next to nothing and are always recomputed, fused
with what needs them when the layer is compiled. A layer's last product is never needed again and never kept.

The machinery is PyTorch's: selective activation checkpointing and torch.compile, one compiled function for all layers alike.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.checkpoint import checkpoint as recompute

from ropewalk.attention_ops.kernels import FUSED_ATTENTIONS
from ropewalk.model.layers import decoder_layers
from ropewalk.model.torch_internals import FakeTensorMode, TorchDispatchMode, storage_of
from ropewalk.settings.budget import ATTENTION_COST, BACKWARD_RESULTS, MARGIN

_aten = torch.ops.aten
#: Matrix products as they reach the dispatcher, with the arguments that are multiplied.
_PRODUCTS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.bmm.default: (0, 1),
}


@dataclass(frozen=True)
class Candidate:
    """One intermediate result of a layer that could be kept.

    index: its number among the layer's expensive operations, in order. flops: what it costs to compute again. size: bytes.
    """

    index: int
    op: str
    flops: float
    size: int

    @property
    def flops_per_byte(self) -> float:
        """FLOPs saved a byte, attention's weighted by its lower rate."""
        return self.flops * (ATTENTION_COST if "attention" in self.op else 1.0) / self.size


#: What a layer keeps: numbers of its expensive operations. None: everything, nothing is computed again.
Kept = frozenset[int] | None
NOTHING: Kept = frozenset()


def is_expensive(op: Any) -> bool:
    """Whether an operation is a matrix product or a fused attention."""
    return op in _PRODUCTS or op in FUSED_ATTENTIONS or str(op) == "ropewalk.attention.default"


class _Census(TorchDispatchMode):
    """Counts a layer's expensive operations, their FLOPs and the bytes of their results; and the bytes of all results.

    Attributes:
        expensive: these operations, in order.
        all_bytes: of the results of all operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.expensive: list[Candidate] = []
        self.all_bytes = 0
        self._seen: set[int] = set()
        self._held: list[Tensor] = []  # or a freed storage's number would be given to a new one

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._hold(args)  # views and writes in place allocate nothing
        out = func(*args, **(kwargs or {}))
        results = [t for t in (out if isinstance(out, tuple | list) else [out]) if isinstance(t, Tensor)]
        size = sum(t.numel() * t.element_size() for t in results)
        if is_expensive(func):
            self.expensive.append(Candidate(len(self.expensive), str(func), _flops(func, args), size))
        if not self._seen & {storage_of(t) for t in results}:
            self.all_bytes += size
        self._hold(results)
        return out

    def _hold(self, values: Sequence[Any]) -> None:
        tensors = [value for value in values if isinstance(value, Tensor)]
        self._held += tensors
        self._seen |= {storage_of(tensor) for tensor in tensors}


def _flops(op: Any, args: Sequence[Any]) -> float:
    if op in _PRODUCTS:
        left, right = (args[i] for i in _PRODUCTS[op])
        return 2.0 * left.numel() * right.shape[-1]
    query, key = args[0], args[1]
    # Two products over half the square: everything trained here is causal.
    return 2.0 * query.numel() * key.shape[-2]


def _policy(kept: frozenset[int], counter: dict[bool, int], ctx: Any, op: Any, *args: Any, **kwargs: Any) -> Any:
    if not is_expensive(op):
        return CheckpointPolicy.PREFER_RECOMPUTE
    index = counter[ctx.is_recompute]
    counter[ctx.is_recompute] += 1
    return CheckpointPolicy.MUST_SAVE if index in kept else CheckpointPolicy.PREFER_RECOMPUTE


def _contexts(kept: frozenset[int]) -> Any:
    # One counter for the forward pass, one for its repetition: an operation is known by its number in either.
    return create_selective_checkpoint_contexts(functools.partial(_policy, kept, {False: 0, True: 0}))


@no_type_check  # for a type checker's wrapper would be compiled with it
def _checkpointed(forward: Callable[..., Any], kept: Kept) -> Callable[..., Any]:
    """`forward`, keeping only what `kept` names."""
    if kept is None:
        return forward
    options: dict[str, Any] = dict(use_reentrant=False)
    if kept:
        options["context_fn"] = functools.partial(_contexts, kept)

    def run(*args: Any, **kwargs: Any) -> Any:
        return recompute(functools.partial(forward, **kwargs), *args, **options)

    return run


class SelectiveCheckpointing:
    """What each decoder layer of a model keeps.

    model: the transformers model, with or without peft or a loss around it. compiled: fuse what is recomputed, with torch.compile.
    """

    #: Bytes of all results of one layer, an upper bound of what keeping everything takes; 0 before `candidates`.
    layer_bytes = 0

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.layers = decoder_layers(model)
        self.compiled = compiled
        self.kept: list[Kept] = [None] * len(self.layers)
        self._plain = [layer.forward for layer in self.layers]
        self._candidates: Sequence[Candidate] = ()
        self._room = self._less = 0
        # One for each choice, so that going back to a choice reuses what was compiled for it.
        self._forwards: dict[tuple[int, Kept], Callable[..., Any]] = {}

    def keep(self, by_layer: Sequence[Kept]) -> None:
        """Set what each layer keeps, first layer first."""
        if len(by_layer) != len(self.layers):
            raise ValueError(f"one choice a layer: {len(self.layers)} layers, {len(by_layer)} choices")
        for number, (layer, kept) in enumerate(zip(self.layers, by_layer, strict=True)):
            layer.forward = self._forward(number, kept)
        self.kept = list(by_layer)

    def _forward(self, number: int, kept: Kept) -> Callable[..., Any]:
        if (number, kept) not in self._forwards:
            forward = _checkpointed(self._plain[number], kept)
            self._forwards[number, kept] = torch.compile(forward, dynamic=False) if self.compiled else forward
        return self._forwards[number, kept]

    def release(self) -> None:
        """Give every layer its own forward back."""
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        self.kept = [None] * len(self.layers)

    def settle(self, candidates: Sequence[Candidate], room: int) -> None:
        """Keep the best choice among `candidates` that `room` bytes hold; both are remembered for `lower`."""
        self._candidates, self._room, self._less = candidates, room, max(1, room // 20)
        self.keep(self.within(candidates, room))

    def lower(self) -> bool:
        """Keep less than now: a twentieth of the first room less, until the choice differs. False if nothing is kept any more."""
        before = self.kept
        if all(kept == NOTHING for kept in before):
            return False
        while self.kept == before:
            self._room -= self._less
            self.keep(self.within(self._candidates, self._room))
        return True

    def candidates(
        self, body: nn.Module, batch: int, tokens: int, *, device: torch.device | None = None
    ) -> list[Candidate]:
        """What one layer could keep for a micro batch of [batch, tokens], most FLOPs per byte first.

        The first layer is traced with fake tensors: nothing is computed and no memory taken.

        device: where it will run, if the weights are not there yet; kernels, and so what can be kept, depend on it.
        """
        census = _Census()
        handles = [
            self.layers[0].register_forward_pre_hook(lambda *_: _enter(census)),
            self.layers[0].register_forward_hook(lambda *_: _leave(census)),
        ]
        was_training = body.training
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
                device = device or next(body.parameters()).device
                ids = torch.zeros(batch, tokens, dtype=torch.long, device=device)
                tensors = itertools.chain(body.named_parameters(), body.named_buffers())
                on_device = {name: torch.empty_like(value, device=device) for name, value in tensors}
                torch.func.functional_call(body, on_device, kwargs=dict(input_ids=ids, use_cache=False))
        except _Left:
            pass
        finally:
            for handle in handles:
                handle.remove()
            body.train(was_training)
        self.layer_bytes = census.all_bytes
        # The last product's result is added to the stream and never looked at again.
        return sorted(census.expensive[:-1], key=lambda c: -c.flops_per_byte)

    def within(self, candidates: Sequence[Candidate], room: int) -> list[Kept]:
        """What each layer keeps so that all of them together keep at most `room` bytes beyond their inputs.

        Most FLOPs per byte first, in as many layers as there is room for. Results of the same FLOPs per byte go together, so
        that there are two kinds of layers at most, and two compiled functions. Where everything fits, everything is kept, without a
        policy: that has its price, an operation at a time, which a small model feels most.
        """
        if self.layer_bytes and len(self.layers) * self.layer_bytes <= room:
            return [None] * len(self.layers)
        count, everywhere, in_first_layers, first_layers = len(self.layers), set[int](), set[int](), 0
        for flops_per_byte in sorted({c.flops_per_byte for c in candidates}, reverse=True):
            group = [c for c in candidates if c.flops_per_byte == flops_per_byte]
            size = sum(c.size for c in group)
            fits = min(count, max(0, room) // size)
            if fits < count:
                if fits >= count / 8:  # a handful of layers is not worth a second compiled function
                    first_layers, in_first_layers = fits, {c.index for c in group}
                break
            room -= count * size
            everywhere |= {c.index for c in group}
        more, less = frozenset(everywhere | in_first_layers), frozenset(everywhere)
        return [more if number < first_layers else less for number in range(count)]


def free_bytes(
    device: torch.device, candidates: Sequence[Candidate], *, layers: int, stream: int, head: int, reserved: int
) -> int:
    """Bytes for kept results on a GPU: what is free now, less what a step takes in any case.

    candidates: of one layer. layers: how many. stream: bytes of one layer's input. head: bytes that the loss takes for itself.
    reserved: bytes that are not taken yet but will be and stay (optimiser states before the first step, gradients if they are
    accumulated).
    """
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    backward = BACKWARD_RESULTS * sum(c.size for c in candidates)
    return int(free - reserved - layers * stream - max(backward, head) - MARGIN)


class _Left(Exception):
    """The first layer is done; the rest need not be traced."""


def _enter(census: _Census) -> None:
    census.__enter__()


def _leave(census: _Census) -> None:
    census.__exit__(None, None, None)
    raise _Left
