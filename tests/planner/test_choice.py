"""What becomes of a layer's results: within the room there is, most work saved first, and no more on the host than the link can carry."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ropewalk.planner.choice import NOTHING, Candidate, Choice, Kept, Layer, Room, Settled, choose, seconds
from ropewalk.settings import budget

LAYERS = 16


def candidates() -> list[Candidate]:
    sizes = [("attention", 900.0, 10), ("mm", 400.0, 10), ("mm", 1200.0, 30), ("mm", 100.0, 10)]
    return [Candidate(index, op, flops, size) for index, (op, flops, size) in enumerate(sizes)]


SIZES = {c.index: c.size for c in candidates()}
LAYER = Layer(tuple(candidates()), cost=sum(c.cost for c in candidates()))


def within(room: int) -> list[Kept]:
    return list(choose(LAYER, LAYERS, Room(room)).kept)


def test_a_choice_fits_and_saves_more_with_more_room() -> None:
    worth = {c.index: c.flops for c in candidates()}
    saved_before = 0.0
    for room in range(0, 1100, 7):
        choice = within(room)
        assert sum(SIZES[index] for keep in choice for index in keep or ()) <= room
        assert len(set(choice)) <= 2
        saved = sum(worth[index] for keep in choice for index in keep or ())
        assert saved >= saved_before
        saved_before = saved
    assert within(10_000) == [frozenset({0, 1, 2, 3})] * LAYERS
    assert within(-5) == [NOTHING] * LAYERS


def test_most_work_a_byte_comes_first() -> None:
    assert within(16 * 10) == [frozenset({0})] * LAYERS
    assert within(16 * 10 + 8 * 40) == [frozenset({0})] * 8 + [frozenset({0, 1, 2})] * 8


def on_card(choice: Choice, room: Room) -> int:
    """Bytes, inputs included, of the layers that stay, by hand."""
    return sum(
        room.input + sum(SIZES[index] for index in keep or ())
        for number, keep in enumerate(choice.kept)
        if number not in choice.hosted
    )


@pytest.mark.parametrize("link", [0.1, 1.0, 100.0])
def test_the_host_holds_what_the_gpu_does_not(link: float) -> None:
    for card in range(-16 * 5, 1100, 35):
        for host in (0, 200, 400, 2000):
            room = Room(card, input=5, gradients=20, host=host, matrix=100.0, link=link)
            choice = choose(LAYER, LAYERS, room)
            away = sum(room.input + sum(SIZES[i] for i in choice.kept[number] or ()) for number in choice.hosted)
            assert away <= host
            assert on_card(choice, room) <= max(card + 16 * 5, 16 * 5)
            alone = choose(LAYER, LAYERS, Room(card, input=5, matrix=100.0, link=link))
            if card >= 0:  # where the inputs fit, the host is used only to be faster
                assert seconds(LAYER, choice, room) <= seconds(LAYER, alone, room)


def test_a_fast_link_keeps_everything_and_a_slow_one_is_left_alone() -> None:
    fast = choose(LAYER, LAYERS, Room(300, input=5, host=10_000, matrix=1.0, link=1e6))
    assert fast.hosted and all(keep == {0, 1, 2, 3} for keep in fast.kept)
    slow = choose(LAYER, LAYERS, Room(300, input=5, host=10_000, matrix=1.0, link=1e-6))
    assert not slow.hosted


def test_the_layers_that_stay_are_spread_and_the_last_one_is_among_them() -> None:
    """Twelve layers away, four stay: every fourth."""
    room = Room(-30, input=5, host=10_000, matrix=1.0, link=1e6)
    choice = choose(Layer((), cost=1.0), LAYERS, room)
    stay = [number for number in range(LAYERS) if number not in choice.hosted]
    gaps = [later - earlier for earlier, later in zip([-1, *stay], stay, strict=False)]
    assert stay[-1] == LAYERS - 1 and max(gaps) - min(gaps) <= 1


def test_where_not_even_inputs_fit_the_host_has_them_all() -> None:
    choice = choose(LAYER, LAYERS, Room(-10_000, input=5, host=16 * 5, matrix=1.0, link=1.0))
    assert choice == Choice((NOTHING,) * LAYERS, frozenset(range(LAYERS)))
    assert not choose(LAYER, LAYERS, Room(-10_000, input=5, host=16 * 5 - 1)).hosted


@pytest.mark.parametrize("under_way", [0, 1, 3])
def test_what_a_step_left_free_is_used_and_no_more_however_much_was_under_way_at_its_peak(under_way: int) -> None:
    """Llama-3-8B on one H200 ran out of memory in its second step: three layers' results were reckoned under way and were not, so they were given out twice."""

    def peak(choice: Choice, room: Room) -> int:
        sizes = [room.input + sum(SIZES[index] for index in keep or ()) for keep in choice.kept]
        return on_card(choice, room) + min(under_way, len(choice.hosted)) * max(
            (sizes[number] for number in choice.hosted), default=0
        )

    changed = 0
    for card in range(0, 900, 13):
        for beyond in range(0, 400, 37):  # what there is beyond what was reckoned
            room = Room(card, input=5, host=2000, matrix=100.0, link=100.0)
            settled, memory = Settled(LAYER, LAYERS, room), card + LAYERS * room.input + beyond
            before = peak(settled.choice, room)
            changed += settled.spare(memory - before)
            assert peak(settled.choice, room) <= memory
    assert changed > 100


#: Operations of 100, 300 and 200 whose results of 40 and 60 are large; of the last one nothing is ever kept.
WIDE = tuple(
    Candidate(index, op, flops, size)
    for index, (op, flops, size) in enumerate([("attention", 900.0, 10), ("mm", 300.0, 40), ("mm", 300.0, 60)])
)


@pytest.fixture
def wide(monkeypatch) -> Layer:
    monkeypatch.setattr(budget, "SMALL_TILE_TOKENS", 16)
    return Layer(WIDE, cost=2150.0).in_tiles(64, {1, 2, 3}, 800.0)


def test_what_a_tile_computes_is_never_kept_and_its_price_is_its_work(wide: Layer) -> None:
    assert (wide.tiles, wide.smaller.tiles, wide.smaller.inside) == (1, 4, 100)
    assert [c.index for c in wide.smaller.candidates] == [0]
    room = Room(160, matrix=1.0)
    kept = (frozenset({0}),) * LAYERS
    # The same is kept: the last product's 200 come beside the 600 that are computed again either way.
    dearer = seconds(wide.smaller, Choice(kept, tiles=4), room) - seconds(wide, Choice(kept), room)
    assert dearer == pytest.approx(LAYERS * 200)
    # 1.5 of 110, or 1.25 of 10 and 3.5 of a quarter of 100; or the loss.
    assert [wide.workspace(0), wide.smaller.workspace(0), wide.workspace(500)] == [165, 100, 500]


@pytest.mark.parametrize(
    ("card", "short", "tiles", "kept"),
    [
        (160, False, 1, 16),  # attention is kept everywhere as it is
        (20, False, 1, 2),
        (15, False, 4, 8),  # nothing would be: 65 bytes more, for eight layers' attentions, are worth 16 last products
        (-70, False, 1, 0),  # by a cautious reckoning not even inputs fit: tried all the same
        (-70, True, 4, 0),
        (-20, True, 4, 4),
    ],
)
def test_small_tiles_are_taken_where_nothing_would_be_kept_or_memory_is_known_to_be_short(
    wide: Layer, card: int, short: bool, tiles: int, kept: int
) -> None:
    choice = Settled(wide, LAYERS, Room(card, matrix=1.0), short=short).choice
    assert (choice.tiles, sum(map(len, choice.kept))) == (tiles, kept)


def test_tiles_that_cost_more_than_they_let_be_kept_are_not_taken(wide: Layer) -> None:
    dear = replace(wide, smaller=replace(wide.smaller, again=800.0 + 900.0))
    assert Settled(dear, LAYERS, Room(15, matrix=1.0)).choice == Choice((NOTHING,) * LAYERS)


@pytest.mark.parametrize("host", [0, 400])
def test_each_time_a_step_does_not_fit_it_takes_less_and_in_the_end_small_tiles_with_nothing_kept(
    wide: Layer, host: int
) -> None:
    settled, room = None, Room(900, input=5, host=host, matrix=100.0, link=100.0)
    settled = Settled(wide, LAYERS, room)
    layer, taken, tiles = wide, list[float](), list[int]()
    while not taken or settled.lower():
        if settled.choice.tiles > 1:
            layer = wide.smaller
        on_the_way = 3 * (5 + max((layer.size(settled.choice.kept[n]) for n in settled.choice.hosted), default=-5))
        stay = (5 + layer.size(kept) for n, kept in enumerate(settled.choice.kept) if n not in settled.choice.hosted)
        taken.append(sum(stay) + on_the_way + layer.workspace(0))
        tiles.append(settled.choice.tiles)
    assert tiles[0] == 1 and tiles[-1] == 4 and tiles == sorted(tiles)
    assert taken == sorted(taken, reverse=True) and not any(settled.choice.kept)


def test_what_a_step_left_free_does_not_undo_tiles(wide: Layer) -> None:
    settled = Settled(wide, LAYERS, Room(-75, input=5, host=400, matrix=100.0, link=100.0), short=True)
    assert settled.choice.tiles == 4 and settled.choice.hosted
    assert settled.spare(60) and settled.choice.tiles == 4
