"""The search for a factor a pair, by evolution: what LongRoPE does (Ding et al. 2024, arXiv 2402.13753, section 3.2). Numpy alone.

in   a `Rope`, the factor of the window, vectors with their scores
out  the vectors to score next; the same ones for the same seed, generation and scores

Vectors are monotone (a pair that turns slower is interpolated no less than a faster one), between 1 and 1.25 times the window's factor,
in steps of 0.01 (table 3 and section 3.2 there). The paper also leaves the first tokens of an input alone, which no config can say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ropewalk.rope.by_parts import Yarn
from ropewalk.rope.linear import Linear
from ropewalk.rope.rope import Rope, Scaling
from ropewalk.rope.theta import Ntk
from ropewalk.rope.vectors import Vector

#: Standard deviation of a mutation, as a power: e^0.2 is a fifth more. The paper does not state how values are drawn.
_SPREAD = 0.2
#: Draws of a new vector before a repeated one is taken: a small space runs out of them.
_ATTEMPTS = 100


@dataclass(frozen=True)
class Scored:
    """A vector and its score; less is better."""

    factors: Vector
    score: float


@dataclass(frozen=True)
class Search:
    """One search.

    Attributes:
        rope: the rotary embedding as pretrained.
        factor: new window over pretraining window.
        population: vectors of the first generation, and that survive a generation (paper: 64).
        mutation: probability that a mutation changes a pair (paper: 0.3).
        seed: of all draws.
    """

    rope: Rope
    factor: float
    population: int = 64
    mutation: float = 0.3
    seed: int = 0

    def starts(self) -> dict[str, Vector]:
        """The methods that the search begins with, as vectors."""
        scalings: list[Scaling] = [Linear(self.factor), Ntk(self.factor), Yarn(self.factor)]
        pretrained = self.rope.inv_freq()
        return {scaling.method: self._monotone(pretrained / scaling.inv_freq(self.rope)) for scaling in scalings}

    def candidates(self, generation: int, survivors: Sequence[Scored]) -> list[Vector]:
        """The vectors to score in a generation: the starts and mutations of them, then children of the better half.

        Args:
            generation: 0 for the first.
            survivors: of the one before, best first; unused in the first.
        """
        rng = np.random.default_rng([self.seed, generation])
        if generation == 0:
            starts = list(self.starts().values())[: self.population]
            return _unlike(starts, starts, self.population - len(starts), self._mutations(starts, rng))
        parents = [scored.factors for scored in survivors[: max(2, self.population // 2)]]
        count = max(1, self.population // 4)  # of each kind (paper: 16 of 64)
        known = [scored.factors for scored in survivors]
        mutants = _unlike([], known, count, self._mutations(parents, rng))
        return _unlike(mutants, [*known, *mutants], count, self._crossings(parents, rng))

    def survivors(self, scored: Sequence[Scored]) -> list[Scored]:
        """The best of all that were scored, best first."""
        return sorted(scored, key=lambda each: each.score)[: self.population]

    def _monotone(self, values: np.ndarray) -> Vector:
        """The nearest vector of the search space."""
        rounded = np.round(np.clip(values, 1.0, 1.25 * self.factor), 2)
        return tuple(float(value) for value in np.sort(rounded))

    def _mutations(self, parents: Sequence[Vector], rng: np.random.Generator) -> Iterator[Vector]:
        while True:
            parent = np.array(parents[int(rng.integers(len(parents)))])
            changed = rng.random(len(parent)) < self.mutation
            yield self._monotone(parent * np.exp(np.where(changed, rng.normal(0, _SPREAD, len(parent)), 0)))

    def _crossings(self, parents: Sequence[Vector], rng: np.random.Generator) -> Iterator[Vector]:
        while True:
            one, other = (np.array(parents[int(index)]) for index in rng.integers(len(parents), size=2))
            yield self._monotone(np.where(rng.random(len(one)) < 0.5, one, other))


def _unlike(first: Sequence[Vector], known: Sequence[Vector], count: int, draws: Iterator[Vector]) -> list[Vector]:
    """`first`, and `count` more vectors that are not known yet, as far as such are found."""
    found, seen = list(first), set(known)
    for _ in range(count):
        fresh = next((vector for vector, _ in zip(draws, range(_ATTEMPTS), strict=False) if vector not in seen), None)
        if fresh is not None:
            seen.add(fresh)
            found.append(fresh)
    return found


def as_json(scored: Sequence[Scored]) -> list[dict[str, Any]]:
    """Vectors and scores as JSON has them."""
    return [dataclasses.asdict(each) for each in scored]


def from_json(rows: Sequence[dict[str, Any]]) -> list[Scored]:
    """What `as_json` wrote."""
    return [Scored(tuple(row["factors"]), float(row["score"])) for row in rows]
