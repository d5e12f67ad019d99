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

import contextlib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, no_type_check

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.checkpoint import checkpoint as recompute

from ropewalk.attention_ops.kernels import FUSED_ATTENTIONS
from ropewalk.model import devices
from ropewalk.model.layers import decoder_layers
from ropewalk.model.torch_internals import FakeTensorMode, TorchDispatchMode, storage_of
from ropewalk.planner.choice import Candidate, Choice, Kept, Layer, Room, Settled
from ropewalk.settings.budget import BACKWARD_RESULTS, MARGIN, TILED_BACKWARD_RESULTS, mlp_tiles
from ropewalk.training.host_memory import HostMemory
from ropewalk.training.tiles import Tiles, tile, tileable

_aten = torch.ops.aten
#: Matrix products as they reach the dispatcher, with the arguments that are multiplied.
_PRODUCTS: dict[Any, tuple[int, int]] = {
    _aten.mm.default: (0, 1),
    _aten.addmm.default: (1, 2),
    _aten.bmm.default: (0, 1),
}


def is_expensive(op: Any) -> bool:
    """Whether an operation is a matrix product or a fused attention."""
    return op in _PRODUCTS or op in FUSED_ATTENTIONS or str(op) == "ropewalk.attention.default"


class _Census(TorchDispatchMode):
    """Counts a layer's expensive operations, their FLOPs and the bytes of their results; and the bytes of all results.

    Attributes:
        expensive: these operations, in order.
        all_bytes: of the results of all operations.
        marks: how many of these operations there had been when the MLP began and when it ended.
    """

    def __init__(self) -> None:
        super().__init__()
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
            self.expensive.append(Candidate(len(self.expensive), str(func), _flops(func, args), size))
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


def _flops(op: Any, args: Sequence[Any]) -> float:
    if op in _PRODUCTS:
        left, right = (args[i] for i in _PRODUCTS[op])
        return 2.0 * left.numel() * right.shape[-1]
    query, key = args[0], args[1]
    # Two products over half the square: everything trained here is causal.
    return 2.0 * query.numel() * key.shape[-2]


def _policy(
    kept: frozenset[int], tiles: Tiles, counter: dict[bool, int], ctx: Any, op: Any, *args: Any, **kwargs: Any
) -> Any:
    if not is_expensive(op):
        return CheckpointPolicy.PREFER_RECOMPUTE
    index = tiles.whole(counter[ctx.is_recompute])
    counter[ctx.is_recompute] += 1
    return CheckpointPolicy.MUST_SAVE if index in kept else CheckpointPolicy.PREFER_RECOMPUTE


def _contexts(kept: frozenset[int], tiles: Tiles) -> Any:
    # One counter for the forward pass, one for its repetition: an operation is known by its number in either.
    return create_selective_checkpoint_contexts(functools.partial(_policy, kept, tiles, {False: 0, True: 0}))


@functools.cache  # what is compiled holds for these very objects: the next run of a process takes the same, and compiles nothing again
def _options(kept: frozenset[int], tiles: Tiles) -> dict[str, Any]:
    """How `checkpoint` is to keep what `kept` names."""
    return {"use_reentrant": False} | ({"context_fn": functools.partial(_contexts, kept, tiles)} if kept else {})


@no_type_check  # for a type checker's wrapper would be compiled with it
def _checkpointed(forward: Callable[..., Any], kept: Kept, tiles: Tiles) -> Callable[..., Any]:
    """`forward`, keeping only what `kept` names."""
    if kept is None:
        return forward
    options, count = _options(kept, tiles), tiles.count

    def run(*args: Any, **kwargs: Any) -> Any:
        # Looked at, so that it is guarded: an MLP's class, which says how many tiles there are, PyTorch 2.11 does not guard.
        assert count > 0
        return recompute(functools.partial(forward, **kwargs), *args, **options)

    return run


class SelectiveCheckpointing:
    """What each decoder layer of a model keeps, and where.

    model: the transformers model, with or without peft or a loss around it. compiled: fuse what is recomputed, with torch.compile.

    Attributes:
        layer: what one layer could keep; set by `candidates`.
        choice: what the layers do now.
    """

    layer = Layer(())

    def __init__(self, model: nn.Module, *, compiled: bool = False) -> None:
        self.layers = decoder_layers(model)
        self.compiled = compiled
        self.choice = Choice((None,) * len(self.layers))
        self.tiles = Tiles()
        self._plain = [layer.forward for layer in self.layers]
        # One for each choice, so that going back to a choice reuses what was compiled for it.
        self._forwards: dict[tuple[int, Kept, Tiles], Callable[..., Any]] = {}
        self._host: HostMemory | None = None
        self._settled = Settled(self.layer, len(self.layers), Room(0))

    @property
    def kept(self) -> list[Kept]:
        """What each layer keeps, first layer first."""
        return list(self.choice.kept)

    @property
    def host_bytes(self) -> int:
        """Host memory that kept results have taken."""
        return self._host.pinned if self._host is not None else 0

    def keep(self, by_layer: Sequence[Kept], hosted: Iterable[int] = ()) -> None:
        """Set what each layer keeps, first layer first; and which layers keep it in the host's memory."""
        if len(by_layer) != len(self.layers):
            raise ValueError(f"one choice a layer: {len(self.layers)} layers, {len(by_layer)} choices")
        self.choice = Choice(tuple(by_layer), frozenset(hosted))
        if self.choice.hosted:
            self._host = self._host or HostMemory(next(self.layers[0].parameters()).device)
            self._host.use(self.choice.hosted)
        for number, (layer, kept) in enumerate(zip(self.layers, by_layer, strict=True)):
            forward = self._forward(number, kept)
            if self._host is not None and number in self.choice.hosted:
                forward = self._host.around(number, layer, forward)
            layer.forward = forward

    def _forward(self, number: int, kept: Kept) -> Callable[..., Any]:
        which = number, kept, self.tiles
        if which not in self._forwards:
            forward = _checkpointed(self._plain[number], kept, self.tiles)
            self._forwards[which] = torch.compile(forward, dynamic=False) if self.compiled else forward
        return self._forwards[which]

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """While the block runs, every layer has its own forward, and its MLP no tiles."""
        tiles, chosen = self.tiles.count, [layer.__dict__.pop("forward", None) for layer in self.layers]
        self.tile(1)
        try:
            yield
        finally:
            self.tile(tiles)
            for layer, forward in zip(self.layers, chosen, strict=True):
                if forward is not None:
                    layer.forward = forward

    def release(self) -> None:
        """Give every layer its own forward back, and the host its memory."""
        self.tile(1)
        for layer in self.layers:
            layer.__dict__.pop("forward", None)
        self.choice = Choice((None,) * len(self.layers))
        if self._host is not None:
            self._host.use(())
            self._host = None

    def settle(self, room: Room) -> None:
        """Keep what saves most within the room."""
        self._settled = Settled(self.layer, len(self.layers), room)
        self._keep(self._settled.choice)

    def _keep(self, choice: Choice) -> None:
        self.keep(choice.kept, choice.hosted)

    def lower(self, tried: int = 0) -> bool:
        """Keep less than now from the next pass on. False if nothing is left to be given up. tried: as in `Settled.lower`."""
        lower = self._settled.lower(tried)
        if lower:
            self._keep(self._settled.choice)
        return lower

    def spare(self, size: int) -> None:
        """Keep more, or more of it on the GPU: a whole step left `size` bytes free there."""
        if self._settled.spare(size):
            self._keep(self._settled.choice)

    def tile(self, count: int) -> None:
        """Have every layer's MLP go through the tokens in so many tiles, if it can."""
        mlps = [mlp for layer in self.layers if (mlp := tileable(layer)) is not None]
        count = count if len(mlps) == len(self.layers) else 1
        if mlps:
            tile(mlps, count)
        self.tiles = replace(self.tiles, count=count)

    def candidates(
        self, body: nn.Module, batch: int, tokens: int, *, device: torch.device | None = None
    ) -> list[Candidate]:
        """What one layer could keep for a micro batch of [batch, tokens], most FLOPs per byte first; from then on its MLP goes in tiles.

        The first layer is traced with fake tensors: nothing is computed and no memory taken.

        device: where it will run, if the weights are not there yet; kernels, and so what can be kept, depend on it.
        """
        self.tile(1)
        census, mlp = _Census(), tileable(self.layers[0])
        handles = [
            self.layers[0].register_forward_pre_hook(lambda *_: _enter(census)),
            self.layers[0].register_forward_hook(lambda *_: _leave(census)),
        ]
        if mlp is not None:
            handles += [mlp.register_forward_pre_hook(census.mark), mlp.register_forward_hook(census.mark)]
        was_training = body.training
        try:
            with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad(), _settled_rotation(body):
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
        # The last product's result is added to the stream and never looked at again.
        candidates = sorted(census.expensive[:-1], key=lambda c: -c.flops_per_byte)
        cost = sum(operation.cost for operation in census.expensive)
        self.tiles = Tiles(1, *census.marks)
        self.tile(mlp_tiles(batch * tokens))
        candidates = [c for c in candidates if not self.tiles.hides(c.index)]
        self.layer = Layer(tuple(candidates), census.all_bytes, cost)
        return candidates


def free_bytes(
    device: torch.device, checkpointing: SelectiveCheckpointing, *, stream: int, head: int, reserved: int
) -> int:
    """Bytes for kept results on a GPU: what is free now, less what a step takes in any case.

    stream: bytes of one layer's input. head: bytes that the loss takes for itself. reserved: bytes that are not taken yet but will be
    and stay (gradients if they are accumulated).
    """
    results = TILED_BACKWARD_RESULTS if checkpointing.tiles.count > 1 else BACKWARD_RESULTS
    taken = max(int(results * sum(c.size for c in checkpointing.layer.candidates)), head)
    return devices.free_bytes(device) - reserved - len(checkpointing.layers) * stream - taken - MARGIN


class _Left(Exception):
    """The first layer is done; the rest need not be traced."""


def _enter(census: _Census) -> None:
    census.__enter__()


def _leave(census: _Census) -> None:
    census.__exit__(None, None, None)
    raise _Left


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
