"""Items: a prompt of exactly so many tokens, what is asked in it, and what the answer is.

in   parts of a prompt as token ids: a head, text to fill up with, facts and where they go, a tail
out  an `Item`

**Length.** Prompt and room for the answer are together exactly the length that was asked for, as RULER counts. Each part is tokenized by
itself (evals/tokenize_parts.py) and the parts are counted, so that a prompt of a million tokens is never tokenized as a whole. The
last part of running text is cut at a token boundary; a list has whole entries, and a line of dots before it takes what these leave.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from ropewalk.data.encode import TokenIds
from ropewalk.errors import UserError
from ropewalk.evals.long_context.source import Source, lengths
from ropewalk.evals.retrieval.harder import interleave


@dataclasses.dataclass(frozen=True, eq=False)
class Item:
    """One prompt.

    Attributes:
        ids: (n,) token ids of the prompt, up to where the answer begins.
        answers: what the response is scored against.
        room: the most tokens that are generated; n + room is the item's length.
        forced: a response that is right, beginning with the blank before it, if one string is; empty where there are many.
    """

    ids: TokenIds
    answers: tuple[str, ...]
    room: int
    forced: str = ""


class TooSmall(UserError):
    """An item does not fit the length that was asked for; `least` is what it takes, in tokens."""

    def __init__(self, least: int, asked: int) -> None:
        super().__init__(
            f"an item takes {least} tokens here, and {asked} were asked for; a longer one may take more, since its lists grow with it: ask for clearly longer --windows"
        )
        self.least = least


def whole(entries: Sequence[TokenIds], tokens: int) -> Sequence[TokenIds]:
    """The first entries of a list, as many as so many tokens hold."""
    return entries[: int(np.searchsorted(np.cumsum(lengths(entries)), tokens, side="right"))]


@dataclasses.dataclass(frozen=True, eq=False)
class Frame:
    """What stands around the context of a prompt, and how long all of it may be.

    Attributes:
        head, tail: token ids before and after the context.
        tokens: of the item, room for the answer included.
        room: tokens of the answer.
    """

    head: TokenIds
    tail: TokenIds
    tokens: int
    room: int

    def left(self, parts: Sequence[TokenIds] = ()) -> int:
        """Tokens of the context that are left beside these parts of it.

        Raises:
            TooSmall: fewer than none.
        """
        taken = self.room + len(self.head) + len(self.tail) + sum(map(len, parts))
        if taken > self.tokens:
            raise TooSmall(taken, self.tokens)
        return self.tokens - taken

    def around(self, context: Sequence[TokenIds]) -> TokenIds:
        """The whole prompt."""
        ids = np.concatenate([self.head, *context, self.tail])
        if len(ids) + self.room != self.tokens:
            raise AssertionError(f"an item of {self.tokens} tokens came to {len(ids) + self.room}")
        return ids

    def hide(
        self, facts: Sequence[TokenIds], shares: Sequence[float], filling: Callable[[int], Sequence[TokenIds]]
    ) -> TokenIds:
        """The prompt of facts between other parts.

        Args:
            facts: in the order in which they are to stand.
            shares: where in the filling they stand, each 0 (far end) to 1; they are sorted.
            filling: called with a number of tokens, gives parts that have as many or more.

        Raises:
            TooSmall: the facts alone are too long.
        """
        left = self.left(facts)
        context, _ = interleave(filling(left), facts, [share * left for share in sorted(shares)], left)
        return self.around(context)

    def hide_in_documents(self, source: Source, facts: Sequence[TokenIds], shares: Sequence[float]) -> TokenIds:
        """The prompt of facts between the documents' sentences, all with a blank before them, which whatever stands first loses; else as `hide`.

        Raises:
            TooSmall: the facts alone are too long.
        """
        left, cuts = self.left(facts), sorted(shares)
        context, starts = interleave(source.haystack(left), facts, [share * left for share in cuts], left)
        if starts[0] == 0:
            facts = [source.on_new_line(facts[0]), *facts[1:]]
            left = self.left(facts)
            prose = source.haystack(left, begun=True)
            context, _ = interleave(prose, facts, [0, *(share * left for share in cuts[1:])], left)
        return self.around(context)

    def hide_in_list(
        self,
        source: Source,
        facts: Sequence[TokenIds],
        shares: Sequence[float],
        entries: Callable[[int], Sequence[TokenIds]],
    ) -> TokenIds:
        """The prompt of facts between whole entries of a list, dots before it; `entries` and the others as `hide` has them.

        Raises:
            TooSmall: the facts alone are too long.
        """
        left = self.left(facts)
        drawn = whole(entries(left), left)
        listed = int(lengths(drawn).sum())
        context, _ = interleave(drawn, facts, [share * listed for share in sorted(shares)], listed)
        return self.around([source.dots(left - listed), *context])
