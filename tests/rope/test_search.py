"""The search's own arithmetic: what it draws, and that it finds what there is to find."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ropewalk.rope.rope import Rope
from ropewalk.rope.search import Scored, Search
from ropewalk.rope.vectors import Vector

ROPE = Rope(32, 10000.0, 256)
#: What the made-up score has its minimum at: the fast half as it is, the slow half interpolated by 4.
TARGET = np.array([1.0] * 8 + [4.0] * 8)


def score(vector: Vector) -> float:
    return float(np.square(np.log(vector) - np.log(TARGET)).sum())


def evolve(search: Search, generations: int) -> list[list[Scored]]:
    survivors: list[Scored] = []
    kept = []
    for generation in range(generations):
        scored = [Scored(vector, score(vector)) for vector in search.candidates(generation, survivors)]
        survivors = search.survivors([*survivors, *scored])
        kept.append(survivors)
    return kept


@given(st.integers(0, 1000), st.floats(1.1, 64.0))
def test_every_vector_is_monotone_in_its_space_and_new(seed: int, factor: float) -> None:
    search = Search(ROPE, factor, population=8, seed=seed)
    seen: list[Vector] = []
    survivors: list[Scored] = []
    for generation in range(3):
        vectors = search.candidates(generation, survivors)
        assert len(vectors) == (8 if generation == 0 else 4)
        for vector in vectors:
            assert len(vector) == 16 and list(vector) == sorted(vector)
            assert 1 <= vector[0] and vector[-1] <= 1.25 * factor + 0.005  # rounded to a hundredth
        assert len({*vectors, *(scored.factors for scored in survivors)}) == len(vectors) + len(survivors)
        seen += vectors
        survivors = search.survivors([*survivors, *(Scored(vector, score(vector)) for vector in vectors)])


def test_it_begins_with_the_methods_that_there_are() -> None:
    starts = Search(ROPE, 4.0).starts()
    assert starts["linear"] == (4.0,) * 16
    # NTK: the first pair as it is, the last one interpolated by the factor, a power in between.
    np.testing.assert_allclose(starts["ntk"], 4.0 ** (np.arange(16) / 15), atol=0.005)
    assert starts["yarn"][0] == 1.0 and starts["yarn"][-1] == 4.0


def test_it_finds_a_vector_far_better_than_what_it_began_with() -> None:
    kept = evolve(Search(ROPE, 4.0, population=32, seed=1), 40)
    best = [generation[0].score for generation in kept]
    assert best == sorted(best, reverse=True), "the best is never lost"
    starts = [score(vector) for vector in Search(ROPE, 4.0).starts().values()]
    assert best[-1] < 0.1 * min(starts)


def test_draws_depend_on_seed_generation_and_survivors_alone() -> None:
    one, other = (evolve(Search(ROPE, 4.0, population=8, seed=3), 5) for _ in range(2))
    assert one == other != evolve(Search(ROPE, 4.0, population=8, seed=4), 5)
    again = Search(ROPE, 4.0, population=8, seed=3).candidates(5, one[-1])
    assert again == Search(ROPE, 4.0, population=8, seed=3).candidates(5, other[-1])


@pytest.mark.parametrize("population", [1, 2, 3, 5])
def test_small_populations_work(population: int) -> None:
    assert all(len(generation) <= population for generation in evolve(Search(ROPE, 4.0, population=population), 4))
