"""The facts and questions of harder retrieval: four families after RULER's, in ropewalk's own words (harder.py lists them).

in   a random generator
out  a `Task`: facts in their order, a question, its answer
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ropewalk.evals.retrieval.haystack import NAMES, THINGS

_KEYS, _VALUES, _LOOKALIKES, _HOPS, _CHAINS = 8, 4, 16, 4, 3


@dataclasses.dataclass(frozen=True)
class Task:
    """Facts, a question about them, and its answer.

    Attributes:
        facts: sentences, in the order in which they stand.
        asked: the number of the fact that holds the answer; None where several do.
        question: the text that the answer completes, without the blank before it.
        answer: the text that completes it.
    """

    facts: list[str]
    asked: int | None
    question: str
    answer: str


def _codes(random: np.random.Generator, count: int) -> list[str]:
    """Five-digit codes, all different."""
    return [str(code) for code in random.choice(90_000, size=count, replace=False) + 10_000]


def keys(random: np.random.Generator) -> Task:
    """Several keys: one of eight facts of the same form."""
    things, codes = random.choice(THINGS, size=_KEYS, replace=False), _codes(random, _KEYS)
    asked = int(random.integers(_KEYS))
    facts = [f"The code of the {thing} is {code}." for thing, code in zip(things, codes, strict=True)]
    return Task(facts, asked, f"The code of the {things[asked]} is", codes[asked])


def values(random: np.random.Generator) -> Task:
    """Several values of one key."""
    thing, codes = random.choice(THINGS), _codes(random, _VALUES)
    facts = [f"One code of the {thing} is {code}." for code in codes]
    return Task(facts, None, f"The codes of the {thing}, in the order in which they were given, are", ", ".join(codes))


def lookalikes(random: np.random.Generator) -> Task:
    """One key among others that differ from it in a single digit."""
    asked, codes = int(random.integers(_LOOKALIKES)), _codes(random, _LOOKALIKES)
    number = str(random.integers(1000, 10_000))
    others = [
        number[:place] + digit + number[place + 1 :]
        for place in range(4)
        for digit in "0123456789"
        if digit != number[place] and (place or digit != "0")
    ]
    lockers = list(random.choice(others, size=_LOOKALIKES, replace=False))
    lockers[asked] = number
    facts = [f"The code of locker {locker} is {code}." for locker, code in zip(lockers, codes, strict=True)]
    return Task(facts, asked, f"The code of locker {number} is", codes[asked])


def chain(random: np.random.Generator) -> Task:
    """A value passed on from name to name, among other such chains."""
    names = random.permutation(NAMES)[: _CHAINS * (_HOPS + 1)].reshape(_CHAINS, -1)
    codes = _codes(random, _CHAINS)
    chains = [
        [f"{row[0]} has the value {code}.", *(f"{b} has the value of {a}." for a, b in zip(row, row[1:], strict=False))]
        for row, code in zip(names, codes, strict=True)
    ]
    # The chains are shuffled into each other; within each the order is kept.
    order = random.permutation(np.repeat(np.arange(_CHAINS), _HOPS + 1))
    facts = [chains[number].pop(0) for number in order]
    return Task(facts, None, f"The value of {names[0][-1]} is", codes[0])


FAMILIES: dict[str, Callable[[np.random.Generator], Task]] = {
    "keys": keys,
    "values": values,
    "lookalikes": lookalikes,
    "chain": chain,
}
