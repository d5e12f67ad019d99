"""Putting texts together at the level of tokens, so that lengths come out exactly.

in   a tokenizer and pieces of text
out  token ids of a piece as it is tokenized in the middle of a text
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Int

from ropewalk.data.encode import encode

Ids = Int[np.ndarray, " n"]

#: Numbers that differ in every digit: what texts with them have in common ends where the number begins.
UNLIKE = tuple(str(digit) * 5 for digit in range(1, 10))


def after(tokenizer: Any, anchor: str, continuation: str) -> Ids:
    """Token ids of a text as it is tokenized after `anchor`, without BOS.

    A SentencePiece tokenizer puts a blank before whatever it is given; behind an anchor it cannot. Where the two melt into one
    token, so that the anchor cannot be taken off, the text is tokenized alone.
    """
    before, whole = encode(tokenizer, anchor, bos=False), encode(tokenizer, anchor + continuation, bos=False)
    if len(whole) > len(before) and (whole[: len(before)] == before).all():
        return whole[len(before) :]
    return encode(tokenizer, continuation, bos=False)


def in_common(rows: Sequence[Ids]) -> int:
    """How many first tokens all rows share."""
    length = min(map(len, rows))
    same = (np.stack([row[:length] for row in rows]) == rows[0][:length]).all(axis=0)
    return length if same.all() else int(same.argmin())
