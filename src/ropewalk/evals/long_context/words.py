"""What RULER's facts are about: its words (those of wonderwords, as NVIDIA/RULER and lm-eval take them), numbers and keys.

in   a random generator
out  texts
"""

from __future__ import annotations

import functools
import random
import string
import uuid
from importlib import resources
from typing import Literal

Kind = Literal["noun", "adjective", "verb"]


@functools.cache
def listed(kind: Kind) -> tuple[str, ...]:
    """The words of one kind."""
    text = resources.files("wonderwords").joinpath(f"assets/{kind}list.txt").read_text(encoding="utf-8")
    return tuple(filter(None, map(str.strip, text.splitlines())))


@functools.cache
def all_words() -> tuple[str, ...]:
    """All words, each once, in their alphabetical order."""
    return tuple(sorted({*listed("noun"), *listed("adjective"), *listed("verb")}))


def pair(drawn: random.Random) -> str:
    """An adjective and a noun, as in "calm-harbour": six million of them."""
    return f"{drawn.choice(listed('adjective'))}-{drawn.choice(listed('noun'))}"


def number(drawn: random.Random) -> str:
    """Seven digits."""
    return str(drawn.randint(10**6, 10**7 - 1))


def key(drawn: random.Random) -> str:
    """A random UUID (version 4)."""
    return str(uuid.UUID(int=drawn.getrandbits(128), version=4))


def letters(drawn: random.Random, count: int, alphabet: str = string.ascii_lowercase) -> str:
    """A made-up word of so many letters."""
    return "".join(drawn.choices(alphabet, k=count))


def different(drawn: random.Random, count: int, length: int, alphabet: str = string.ascii_lowercase) -> list[str]:
    """Made-up words, each different from the others."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[letters(drawn, length, alphabet)] = None
    return list(found)
