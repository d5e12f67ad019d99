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
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, no_type_check

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts
from torch.utils.checkpoint import checkpoint as recompute

from ropewalk.model import devices
from ropewalk.model.layers import decoder_layers
from ropewalk.planner.choice import Candidate, Choice, Kept, Layer, Room, Settled
from ropewalk.settings.budget import MARGIN
from ropewalk.training.census import census_of, is_expensive
from ropewalk.training.host_memory import HostMemory
from ropewalk.training.tiles import Tiles, tile, tileable


def _policy(
    kept: frozenset[int], tiles: Tiles, counter: dict[bool, int], ctx: Any, op: Any, *args: Any, **kwargs: Any
) -> Any:
    if not is_expensive(op):
        return CheckpointPolicy.PREFER_RECOMPUTE
    index = tiles.whole(counter[ctx.is_recompute])
    counter[ctx.is_recompute] += 1
    return (
        CheckpointPolicy.MUST_SAVE
        if index in kept and not _draws(op, *args, **kwargs)
        else CheckpointPolicy.PREFER_RECOMPUTE
    )


def _draws(op: Any, *args: Any, **kwargs: Any) -> bool:
    """Whether an attention drops some of its scores: one that is kept is not run again, and what is dropped after it would be drawn otherwise."""
    arguments = dict(zip((parameter.name for parameter in op._schema.arguments), args, strict=False)) | kwargs
    return bool(arguments.get("dropout_p"))


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
        self.choice = Choice(tuple(by_layer), frozenset(hosted), self.tiles.count)
        if self.choice.hosted:
            self._host = self._host or HostMemory(next(self.layers[0].parameters()).device)
            self._host.use(self.choice.hosted)
        for number, (layer, kept) in enumerate(zip(self.layers, by_layer, strict=True)):
            forward = self._forward(number, kept)
            if self._host is not None and number in self.choice.hosted:
                forward = self._host.around(number, layer, forward)
            elif self._host is not None and number - 1 == max(self.choice.hosted, default=None):
                forward = self._host.ahead(forward)
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
        mlps = self._mlps()
        tiled, chosen = [type(mlp) for mlp in mlps], [layer.__dict__.pop("forward", None) for layer in self.layers]
        tile(mlps, 1)
        try:
            yield
        finally:
            for mlp, kind in zip(mlps, tiled, strict=True):
                mlp.__class__ = kind  # the very class that was compiled, or each time would be compiled anew
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

    def settle(self, room: Room, *, short: bool = False) -> None:
        """Keep what saves most within the room. short: as in `Settled`."""
        self._settled = Settled(self.layer, len(self.layers), room, short=short)
        self._keep(self._settled.choice)

    def settle_least(self, tokens: int, *, short: bool) -> None:
        """Keep each layer's input alone, MLPs in tiles where tokens are many, or memory is."""
        self.layer = Layer(()).in_tiles(self._tileable(tokens), (), 0.0)
        self.settle(Room(-1), short=short)

    def _mlps(self) -> list[nn.Module]:
        """Those that can go in tiles."""
        return [mlp for layer in self.layers if (mlp := tileable(layer)) is not None]

    def _tileable(self, tokens: int) -> int:
        """Tokens that MLPs may go through in tiles; 0 if not all layers have one that can."""
        return tokens if len(self._mlps()) == len(self.layers) else 0

    def _keep(self, choice: Choice) -> None:
        if choice.tiles != self.tiles.count:
            self.tile(choice.tiles)
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
        count = count if self._tileable(1) else 1
        tile(self._mlps(), count)
        self.tiles = replace(self.tiles, count=count)

    def candidates(
        self, body: nn.Module, batch: int, tokens: int, *, device: torch.device | None = None, sharing: int = 1
    ) -> list[Candidate]:
        """What one layer could keep for a micro batch of [batch, tokens], most FLOPs per byte first, as its MLP goes in tiles or not.

        device: where it will run, if the weights are not there yet; kernels, and so what can be kept, depend on it. sharing: devices that share the
        window.
        """
        self.tile(1)
        census = census_of(body, self.layers[0], batch, tokens, device, sharing=sharing)
        # The last product's result is added to the stream and never looked at again.
        candidates = sorted(census.expensive[:-1], key=lambda c: -c.flops_per_byte)
        cost = sum(operation.cost for operation in census.expensive)
        self.tiles = Tiles(1, *census.marks)
        mlp = [operation for operation in census.expensive if self.tiles.holds(operation.index)]
        layer = Layer(tuple(candidates), census.all_bytes, cost)
        self.layer = layer.in_tiles(
            self._tileable(batch * tokens), {each.index for each in mlp}, sum(each.cost for each in mlp)
        )
        self.tile(self.layer.tiles)
        return list(self.layer.candidates)


def free_bytes(
    device: torch.device, checkpointing: SelectiveCheckpointing, *, stream: int, head: int, reserved: int
) -> int:
    """Bytes for kept results on a GPU: what is free now, less what a step takes in any case.

    stream: bytes of one layer's input. head: bytes that the loss takes for itself. reserved: bytes that are not taken yet but will be
    and stay (gradients if they are accumulated).
    """
    taken = len(checkpointing.layers) * stream + checkpointing.layer.workspace(head)
    return devices.free_bytes(device) - reserved - taken - MARGIN
