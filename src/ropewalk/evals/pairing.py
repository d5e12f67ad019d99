"""A model and its base, side by side: what they must share for their figures to be compared.

in   the names of two checkpoints, or their tokenizers
out  nothing; or an error that says what differs, before any weight is loaded
"""

from __future__ import annotations

from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model.load import load_tokenizer

#: Spaces, digits, accents, brackets, another script: where tokenizers differ.
_PROBE = "The  pass key is 12345.\nNaïve 2,048-token f(x) = {x_1}; 繩索"


def refuse_other_tokenizer(tokenizer: Any, base_tokenizer: Any, *, names: tuple[str, str]) -> None:
    """Refuse a pair that does not read the same tokens.

    A tokenizer that only adds tokens (a padding token, say) passes.

    Args:
        tokenizer, base_tokenizer: of the model and of its base.
        names: what the error calls the two models.

    Raises:
        UserError: a token of the base has another id, or a probe text is tokenized differently.
    """
    vocabulary = tokenizer.get_vocab()
    moved = sum(vocabulary.get(token) != number for token, number in base_tokenizer.get_vocab().items())
    if moved or tokenizer(_PROBE)["input_ids"] != base_tokenizer(_PROBE)["input_ids"]:
        difference = f"{moved} tokens have other ids" if moved else "the same text is tokenized differently"
        raise UserError(
            f"a model and its base must share a tokenizer, but between {names[0]} and {names[1]} {difference}; "
            "name the base this model was made from, or copy the base's tokenizer files"
        )


def refuse_other_base(model: Checkpoint, base: Checkpoint) -> None:
    """Refuse a base that the model cannot have been made from: family, original window, rotation or tokenizer differ.

    Raises:
        UserError: one of them differs.
    """
    info, base_info = model.info, base.info
    for field, description in (
        ("family", "family"),
        ("original_window", "original window"),
        ("head_dim", "number of rotated dimensions a head"),
    ):
        value, base_value = getattr(info, field), getattr(base_info, field)
        if value != base_value:
            raise UserError(
                f"a base is the model before its extension, but the {description} of {model} is {value} and that of {base} "
                f"{base_value}; name the base this model was made from"
            )
    refuse_other_tokenizer(load_tokenizer(model), load_tokenizer(base), names=(str(model), str(base)))
