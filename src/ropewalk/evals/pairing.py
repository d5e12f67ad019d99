"""Before and after: what a model and the base it was made from must share for their figures to be a pair.

in   the names of two checkpoints, or their tokenizers
out  nothing; or an error that says what differs, before any weight is loaded
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk.errors import UserError
from ropewalk.model.load import load_tokenizer, model_info

#: Blanks, digits, accents, brackets, another script: where tokenizers part.
_PROBE = "The  pass key is 12345.\nNaïve 2,048-token f(x) = {x_1}; 繩索"


def refuse_other_tokenizer(ours: Any, base: Any, *, names: tuple[str, str]) -> None:
    """Before and after are only comparable over the same tokens.

    A tokenizer that merely has further tokens (a padding token, say) passes.

    Raises:
        UserError: a token of the base's has another number, or a probe text is cut otherwise.
    """
    mine, theirs = ours.get_vocab(), base.get_vocab()
    moved = sum(mine.get(token) != number for token, number in theirs.items())
    if moved or ours(_PROBE)["input_ids"] != base(_PROBE)["input_ids"]:
        found = f"{moved} tokens have other numbers" if moved else "the same text is cut otherwise"
        raise UserError(
            f"a model and its base must share a tokenizer, but between {names[0]} and {names[1]} {found}; "
            "name the base this model was made from, or copy the base's tokenizer files"
        )


def refuse_other_base(model: str | Path, base: str | Path) -> None:
    """A base is what the model was made from: of its family, with its original window, its rotation and its tokenizer.

    Raises:
        UserError: one of them differs.
    """
    ours, theirs = model_info(model), model_info(base)
    for field, words in (
        ("family", "family"),
        ("original_window", "original window"),
        ("head_dim", "number of rotated dimensions a head"),
    ):
        mine, other = getattr(ours, field), getattr(theirs, field)
        if mine != other:
            raise UserError(
                f"a base is the model before its extension, but the {words} of {model} is {mine} and that of {base} {other}; "
                "name the base this model was made from"
            )
    refuse_other_tokenizer(load_tokenizer(model), load_tokenizer(base), names=(str(model), str(base)))
