"""The most frequent words: RULER's cwe and fwe (section 3.3).

in   a source, a random generator, a length in tokens
out  an item

cwe: ten words come 30 times each among words that come 3 times (6 times and once below 4096 tokens), in a numbered list; one example before it.
fwe: coded words come as often as a zeta distribution says; the most frequent one is "...", noise.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

import numpy as np
from jaxtyping import Integer

from ropewalk.evals.long_context import words
from ropewalk.evals.long_context.items import Frame, Item, TooSmall
from ropewalk.evals.long_context.source import Source, lengths

_COMMON = 10
_LIST = "Below is a numbered list of words. In these words, some appear more often than others. Memorize the ones that appear most often.\n"
_LISTED = "\nQuestion: What are the 10 most common words in the above list? Answer: The top 10 words that appear most often in the list are:"
#: From this length on RULER's lists are the large ones.
_LARGE = 4096


def common_words(source: Source, drawn: random.Random, tokens: int) -> Item:
    """RULER's cwe. Where a list is longer than there are words, pairs of words go on."""
    room, large = 120, tokens >= _LARGE
    example = _example(drawn, 40, 10, 3) if large else _example(drawn, 20, 3, 1)
    frame = Frame(source.head(f"{example}\n{_LIST}"), source.part(_LISTED), tokens, room)
    left, (often, seldom) = frame.left(), (30, 3) if large else (6, 1)
    common = drawn.sample(words.all_words(), _COMMON)
    entries = source.parts([f" {word}" for word in common]) * often
    uncommon, numbers, ends = _uncommon(drawn, set(common)), [], np.zeros(1)
    while ends[-1] <= left:
        words_more = itertools.islice(uncommon, 64 + len(entries) // seldom)
        entries += [part for part in source.parts([f" {word}" for word in words_more]) for _ in range(seldom)]
        numbers = source.numbered(" {}.", len(entries))
        ends = np.cumsum(lengths(entries) + lengths(numbers))
    fit = int(np.searchsorted(ends, left, side="right"))
    if (least := _COMMON * often + seldom) > fit:
        raise TooSmall(tokens - left + int(ends[least - 1]), tokens)
    order = drawn.sample(range(fit), fit)
    context = [part for number, at in zip(numbers, order, strict=False) for part in (number, entries[at])]
    return Item(frame.around([source.dots(left - int(ends[fit - 1])), *context]), tuple(common), room)


def _example(drawn: random.Random, count: int, often: int, seldom: int) -> str:
    """RULER's example: a list of `count` words of its own, the question and its answer."""
    chosen = drawn.sample(words.all_words(), count)
    listed = chosen[:_COMMON] * often + chosen[_COMMON:] * seldom
    drawn.shuffle(listed)
    return f"{_LIST}{_numbered(listed)}{_LISTED} {_numbered(chosen[:_COMMON])}"


def _numbered(listed: list[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(listed, 1))


def _uncommon(drawn: random.Random, common: set[str]) -> Iterator[str]:
    """Words in random order, each once, then pairs of words for ever."""
    yield from (word for word in drawn.sample(words.all_words(), len(words.all_words())) if word not in common)
    while True:
        yield words.pair(drawn)


_CODED = "Read the following coded text and track the frequency of each coded word. Find the three most frequently appeared coded words."
_DECODED = (
    "\nQuestion: Do not provide any explanation. Please ignore the dots '....'. What are the three most frequently appeared words in the above "
    "coded text? Answer: According to the coded text above, the three most frequently appeared words are:"
)
#: Of the zeta distribution of coded words.
_ALPHA = 2.0


def frequent_words(source: Source, drawn: random.Random, tokens: int) -> Item:
    """RULER's fwe: a fiftieth as many coded words as tokens; what whole counts leave of the length is filled with noise."""
    from scipy.special import zeta

    room, vocabulary = 50, max(5, tokens // 50)
    frame = Frame(source.head(_CODED), source.part(_DECODED), tokens, room)
    left = frame.left()
    shares = np.arange(1, vocabulary + 1) ** -_ALPHA / zeta(_ALPHA)
    shares = shares[shares * left >= 1]  # of the others there is none
    coded = words.different(drawn, len(shares), 6)
    parts = source.parts([" ...", *(f" {word}" for word in coded[1:])])
    sizes = lengths(parts)

    def counts(drawn_words: int) -> Integer[np.ndarray, " words"]:
        return (drawn_words * shares).astype(np.int64)

    low, high = 0, left  # every word has a token or more
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if counts(middle) @ sizes <= left else (low, middle)
    chosen = counts(low)
    if len(chosen) < 5 or chosen[3] <= chosen[4]:
        raise TooSmall(tokens - left + 64 * int(sizes.max()), tokens)
    order = drawn.sample(np.repeat(np.arange(len(chosen)), chosen).tolist(), int(chosen.sum()))
    filling = [parts[0]] * (left - int(chosen @ sizes))
    context = np.concatenate([*(parts[at] for at in order), *filling])[:left]
    return Item(frame.around([context]), tuple(coded[1:4]), room)
