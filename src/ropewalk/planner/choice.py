"""What becomes of each layer's dear intermediate results: kept on the GPU, kept in the host's memory, or computed again.

in   what one layer could keep, with its FLOPs and bytes; the room there is; the rates of arithmetic and of the link to the host
out  a `Choice` for every layer: training's, and the planner's forecast of it

Results are taken in the order of FLOPs saved per byte kept. The more is kept, the less is computed again, and the more layers must send
theirs to the host: that costs nothing as long as the link is done before the arithmetic of the same pass, and what is left over is
waited for. The choice is the one with the fewest seconds by this reckoning. Where it would keep nothing, the MLP may go through the sequence in
small tiles instead, which takes less of the card and computes the MLP again.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from ropewalk.settings.budget import (
    ATTENTION_COST,
    BACKWARD_RESULTS,
    CONTENTION,
    ON_THE_WAY,
    TILE_RESULTS,
    TILED_BACKWARD_RESULTS,
    mlp_tiles,
)


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
    def cost(self) -> float:
        """FLOPs, attention's weighted by its lower rate."""
        return self.flops * (ATTENTION_COST if "attention" in self.op else 1.0)

    @property
    def flops_per_byte(self) -> float:
        """FLOPs saved a byte."""
        return self.cost / self.size


#: What a layer keeps: numbers of its expensive operations. None: everything, nothing is computed again.
Kept = frozenset[int] | None
NOTHING: Kept = frozenset()


@dataclass(frozen=True)
class Room:
    """Where results may be kept.

    Attributes:
        card: bytes on the GPU, beyond every layer's input; below 0 if not even these fit. input: bytes of one layer's input.
        gradients: bytes that the backward pass makes beside what it frees. host: bytes of host memory; 0 for none.
        matrix: FLOP/s of the arithmetic, as a whole step reaches them. link: bytes/s between GPU and host, one way at a time.
        passing: those of `card` that were only shown to be there for results on their way to the host.
        loss: bytes that the loss takes, when no layer takes any for its backward pass.
    """

    card: int
    input: int = 0
    gradients: int = 0
    host: int = 0
    matrix: float = 1.0
    link: float = 1.0
    passing: int = 0
    loss: int = 0


@dataclass(frozen=True)
class Choice:
    """kept: what each layer keeps, first layer first. hosted: numbers of the layers that keep it, and their input, on the host. tiles: of each MLP."""

    kept: tuple[Kept, ...]
    hosted: frozenset[int] = field(default_factory=frozenset)
    tiles: int = 1


@dataclass(frozen=True)
class Layer:
    """What one layer could keep, all layers being alike.

    Attributes:
        candidates: its dear results. everything: bytes of all results, an upper bound of what keeping everything takes; 0 if not known.
        cost: weighted FLOPs of its forward pass. again: those that are computed again whatever is kept.
        tiles: of the sequence that its MLP goes through one after the other. inside: bytes of the results that it has in all of them.
        smaller: the same layer in smaller tiles, where memory is short; None if there are none.
    """

    candidates: tuple[Candidate, ...]
    everything: int = 0
    cost: float = 0.0
    again: float = 0.0
    tiles: int = 1
    inside: int = 0
    smaller: Layer | None = None

    def in_tiles(self, tokens: float, mlp: Collection[int], again: float) -> Layer:
        """The layer whose MLP goes through so many tokens in tiles if they are many, or if memory is short. What a tile computes is kept nowhere.

        mlp: numbers of the MLP's operations. again: its weighted FLOPs.
        """
        outside = tuple(c for c in self.candidates if c.index not in mlp)
        inside = sum(c.size for c in self.candidates if c.index in mlp)
        large, small = (
            self if tiles == 1 else replace(self, candidates=outside, again=again, tiles=tiles, inside=inside)
            for tiles in (mlp_tiles(tokens), mlp_tiles(tokens, short=True))
        )
        return replace(large, smaller=small if small.tiles > large.tiles else None)

    def workspace(self, loss: float) -> int:
        """Bytes of the card that its backward pass takes, or the loss before that."""
        results = TILED_BACKWARD_RESULTS if self.tiles > 1 else BACKWARD_RESULTS
        return int(max(results * sum(c.size for c in self.candidates) + TILE_RESULTS * self.inside / self.tiles, loss))

    def groups(self) -> list[list[Candidate]]:
        """Candidates of the same FLOPs per byte go together; most first."""
        rates = sorted({c.flops_per_byte for c in self.candidates}, reverse=True)
        return [[c for c in self.candidates if c.flops_per_byte == rate] for rate in rates]

    def size(self, kept: Kept) -> int:
        """Bytes of the results that are kept, the input not included."""
        return self.everything if kept is None else sum(c.size for c in self.candidates if c.index in kept)


def choose(layer: Layer, count: int, room: Room) -> Choice:
    """The choice for `count` layers that takes the fewest seconds within the room, or the least there is."""
    if choices := _within(layer, count, room):  # of equals the first, which leaves the host alone
        choice = min(choices, key=lambda choice: seconds(layer, choice, room))
    else:  # nothing but the layers' inputs, and these on the host if it holds them
        choice = Choice((NOTHING,) * count, frozenset(range(count) if 0 < count * room.input <= room.host else ()))
    return replace(choice, tiles=layer.tiles)


def _within(layer: Layer, count: int, room: Room) -> list[Choice]:
    """Choices that the room holds."""
    card = room.card - room.passing
    choices = [_on_the_card(layer, count, card)] if card >= 0 else []
    if room.host and not (choices and None in choices[0].kept):
        choices += _with_the_host(layer, count, room)
    return choices


def _on_the_card(layer: Layer, count: int, room: int) -> Choice:
    """All layers together keep at most `room` bytes beyond their inputs, on the GPU.

    Most FLOPs per byte first, in as many layers as there is room for: the last ones, since what the first ones compute again comes when
    those have given their results up. Results of the same FLOPs per byte go together, so that there are two kinds of layers at most, and
    two compiled functions. Where everything fits, everything is kept, without a policy: that has its price, an operation at a time, which
    a small model feels most.
    """
    if layer.everything and count * layer.everything <= room:
        return Choice((None,) * count)
    everywhere, in_last_layers, last_layers = set[int](), set[int](), 0
    for group in layer.groups():
        size = sum(c.size for c in group)
        fits = min(count, max(0, room) // size)
        if fits < count:
            if fits >= count / 8:  # a handful of layers is not worth a second compiled function
                last_layers, in_last_layers = fits, {c.index for c in group}
            break
        room -= count * size
        everywhere |= {c.index for c in group}
    more, less = frozenset(everywhere | in_last_layers), frozenset(everywhere)
    return Choice((less,) * (count - last_layers) + (more,) * last_layers)


def _with_the_host(layer: Layer, count: int, room: Room) -> list[Choice]:
    """For each number of groups: all layers keep these, and as many of those on the host as is best one group more, as far as there is room."""
    choices, less, size, again = [], frozenset[int](), room.input, layer.again + sum(c.cost for c in layer.candidates)
    for group in layer.groups():
        more, extra, work = less | {c.index for c in group}, sum(c.size for c in group), sum(c.cost for c in group)
        again -= work
        hosted = _hosted(count, room, size + extra)
        most = min(hosted, (room.host - hosted * size) // extra)
        if hosted and most >= 0:
            numbers = range(most + 1)  # the link may be the narrower place
            took = [
                _time(layer, count, room, count * again + (hosted - n) * work, hosted * size + n * extra)
                for n in numbers
            ]
            choices.append(_mixed(count, hosted, took.index(min(took)), less, more))
        less, size = more, size + extra
    hosted = _hosted(count, room, room.input)
    if 0 < hosted * room.input <= room.host:  # where there is room for inputs alone
        choices.append(_mixed(count, hosted, 0, frozenset(), frozenset()))
    return choices


def _hosted(count: int, room: Room, size: int) -> int:
    """How many layers that keep `size` bytes, input included, must go to the host; 0 if that is of no use."""
    avail = room.card + count * room.input - ON_THE_WAY * size
    # Gradients come as results on the GPU go; those on the host make no room for them.
    return max(0, count - avail // size) if avail >= room.gradients else 0


def _mixed(count: int, hosted: int, first: int, less: frozenset[int], more: frozenset[int]) -> Choice:
    """Of `hosted` layers the first ones keep `more`, the others `less`; those on the GPU keep `more`."""
    away = _spread(hosted, count)
    behind = set(sorted(away)[first:])
    return Choice(tuple(less if number in behind else more for number in range(count)), away)


def _spread(hosted: int, count: int) -> frozenset[int]:
    """Numbers of `hosted` of `count` layers, those that stay spread evenly among them and the last one staying if any does: its results are wanted first."""
    stay = count - hosted
    return frozenset(number for number in range(count) if (count - 1 - number) * stay % count >= stay)


def seconds(layer: Layer, choice: Choice, room: Room) -> float:
    """What a choice adds to a step: what is computed again, and what is waited for."""
    cost = {c.index: c.cost for c in layer.candidates}
    again = sum(sum(cost.values()) - sum(cost[index] for index in kept) for kept in choice.kept if kept is not None)
    again += len(choice.kept) * layer.again
    moved = sum(room.input + layer.size(choice.kept[number]) for number in choice.hosted)
    return _time(layer, len(choice.kept), room, again, moved)


def _time(layer: Layer, count: int, room: Room, again: float, moved: float) -> float:
    """Of weighted FLOPs that are computed again and bytes that are moved each way."""
    forward = count * layer.cost / room.matrix
    computed_again, one_way = again / room.matrix, moved / room.link
    waited = max(0.0, one_way - forward) + max(0.0, one_way - 2 * forward - computed_again)
    return computed_again + waited + 2 * CONTENTION * one_way


class Settled:
    """The choice for `count` layers, and what it becomes where the room turns out to be another than was reckoned.

    short: by plan the card does not hold the least that there is, unless in smaller tiles.
    """

    def __init__(self, layer: Layer, count: int, room: Room, *, short: bool = False) -> None:
        self._layer, self._count, self._room = layer, count, room
        self._step = max(1, max(abs(room.card), room.input * count) // 10)
        self.choice = self._chosen(short)

    def lower(self, tried: int = 0) -> bool:
        """Keep less: a tenth of the room less, until that changes the choice. False if nothing is left to be given up.

        tried: how often this was not enough for the same step. Each time twice as much is given up, for every try costs a pass.
        """
        while self._layer.smaller or self._room.card > -self._count * self._room.input:
            if self._changed(replace(self._room, card=self._room.card - (self._step << tried)), short=True):
                return True
        return False

    def spare(self, size: int) -> bool:
        """Keep more, or more of it on the GPU: a whole step left `size` bytes free there. Only where the host is in use: else the choice was tried to the limit.

        What was reckoned for results on their way to the host may have been free at the step's peak, and be among `size`: that much is for such results alone.
        """
        if not self.choice.hosted or size <= 0:
            return False
        stayed, sent = [], []
        for number, kept in enumerate(self.choice.kept):
            (sent if number in self.choice.hosted else stayed).append(self._room.input + self._layer.size(kept))
        passing = ON_THE_WAY * max(sent)
        card = sum(stayed) - self._count * self._room.input + passing + size
        return self._changed(replace(self._room, card=max(card, self._room.card), passing=passing))

    def _changed(self, room: Room, *, short: bool = False) -> bool:
        """Whether another room makes another choice."""
        before, self._room = self.choice, room
        self.choice = self._chosen(short)
        return self.choice != before

    def _chosen(self, short: bool) -> Choice:
        """The choice; in smaller tiles from now on where that is faster, if nothing would be kept else or memory is known to be short.

        short: a step did not fit, or does not by plan. Rooms alone are reckoned with caution: if one holds nothing, the least that there is is tried.
        """
        layer, count, room, smaller = self._layer, self._count, self._room, self._layer.smaller
        choice = choose(layer, count, room)
        if smaller is None or not (short or all(kept == NOTHING for kept in choice.kept)):
            return choice
        roomier = replace(room, card=room.card + layer.workspace(room.loss) - smaller.workspace(room.loss))
        other = choose(smaller, count, roomier)
        fits = _within(layer, count, room)
        if (not fits and not short) or (fits and seconds(layer, choice, room) <= seconds(smaller, other, roomier)):
            return choice
        self._layer, self._room = smaller, roomier
        return other
