"""Models that look their positions up in a learned table: which tensor it is, how long it is, how a config says so.

in   the dictionary of a config.json
out  a `PositionTable`, or nothing where the model has none that can be interpolated; a new dictionary with a longer window

Facts of the families' own code, held against transformers by tests/model/test_position_table.py.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.checkpoint.ropewalk_block import block_for
from ropewalk.checkpoint.window import NOTHING_SAID, Answers
from ropewalk.checkpoint.write_rope import write_rope
from ropewalk.errors import UserError
from ropewalk.rope.config_numbers import as_number, whole_number
from ropewalk.rope.learned_table import InterpolatedTable
from ropewalk.rope.scaling import Plain, Scaling, to_dict


@dataclass(frozen=True)
class TableFamily:
    """Where the families of one kind have their table.

    Attributes:
        tensor: the end of the tensor's name.
        length_key: the config key of its length; length: what transformers' config class takes where a config.json names none.
        first: row of position 0; the rows before it stand for padding and stay as they are. "pad": the one after the padding
            token's number (RoBERTa).
        beside: rows that the length in the config does not count (OPT).
        causal: whether it predicts the next token.
        local: whether `attention_types` makes layers local, which see `window_size` tokens each (GPT-Neo).
    """

    tensor: str
    length_key: str = "max_position_embeddings"
    length: int = 512
    first: int | str = 0
    beside: int = 0
    causal: bool = True
    local: bool = False


_GPT2 = TableFamily("wpe.weight", "n_positions", 1024)
_OPT = TableFamily("embed_positions.weight", length=2048, first=2, beside=2)
_BERT = TableFamily("embeddings.position_embeddings.weight", causal=False)
_ROBERTA = TableFamily("embeddings.position_embeddings.weight", first="pad", causal=False)
TABLES: dict[str, TableFamily] = {
    "gpt2": _GPT2,
    "gpt_bigcode": _GPT2,
    "gpt_neo": TableFamily("wpe.weight", length=2048, local=True),
    "opt": _OPT,
    "biogpt": replace(_OPT, length=1024),
    **dict.fromkeys("albert bert distilbert electra ernie megatron-bert rembert".split(), _BERT),
    **dict.fromkeys("camembert data2vec-text roberta roberta-prelayernorm xlm-roberta".split(), _ROBERTA),
}
TABLES["xlm-roberta-xl"] = replace(_ROBERTA, length=514)
#: Keys that repeat the length in configs of these families; those that are there are rewritten too.
_REPEATED = ("n_positions", "n_ctx", "max_position_embeddings")


@dataclass(frozen=True)
class PositionTable:
    """What a config says of a learned table of positions.

    Attributes:
        family: `model_type`.
        facts: of the family.
        first: row of position 0.
        window: tokens, a row each from `first` on.
        original_window: tokens before any extension.
        scaling: `Plain()`, or how far it was interpolated.
        causal: whether the model predicts the next token.
        block: the `ropewalk` block, empty in a config that ropewalk did not write.
        reach: by layer, tokens that a local one sees; None where it sees all. Empty in families whose layers all do.
    """

    family: str
    facts: TableFamily
    first: int
    window: int
    original_window: int
    scaling: Scaling
    causal: bool
    block: dict[str, Any] = field(default_factory=dict)
    reach: tuple[int | None, ...] = ()

    @property
    def rows(self) -> int:
        """Of the whole table."""
        return self.first + self.window

    def local_layers(self, window: int) -> str:
        """How many layers see less than a window of so many tokens, and how much; empty where all see it.

        Raises:
            UserError: every one of them: no layer would see what a longer table adds.
        """
        local = [reach for reach in self.reach if reach is not None and reach < window]
        if not local:
            return ""
        if len(local) == len(self.reach):
            raise UserError(
                f"attention is local in every layer of this {self.family} model (each sees {max(local)} tokens only), so no layer would see a "
                f"window of {window}; choose a model with global layers in its attention_types"
            )
        return f"{len(local)} of {len(self.reach)} layers see {max(local)} tokens only"

    def __str__(self) -> str:
        return f"a learned table of {self.window} positions"


def read_table(config_dict: dict[str, Any]) -> PositionTable | None:
    """What a config.json says of its learned table; None where the family has none, or none that is known here.

    Raises:
        UserError: a length or a `ropewalk` block that cannot be.
    """
    text = text_section(config_dict)
    model_type = text_type(config_dict)
    facts = TABLES.get(model_type)
    if facts is None:
        return None
    kind = text.get("position_embedding_type", "absolute")
    if kind != "absolute":
        raise UserError(
            f"this {model_type} model has positions of type {kind!r}, a bias by distance that no row of a table stands for; choose a "
            "model with position_embedding_type absolute"
        )
    first = (
        int(as_number(text.get("pad_token_id", 1), "pad_token_id")) + 1 if facts.first == "pad" else int(facts.first)
    )
    window = _length(text, facts) + facts.beside - first
    original, scaling, block = _from_block(config_dict, window)
    causal = facts.causal or bool(text.get("is_decoder"))
    return PositionTable(model_type, facts, first, window, original, scaling, causal, block, _reach(text, facts))


def _length(text: dict[str, Any], facts: TableFamily) -> int:
    key = next((key for key in (facts.length_key, "max_position_embeddings") if key in text), facts.length_key)
    return whole_number(text, key, facts.length)


def _reach(text: dict[str, Any], facts: TableFamily) -> tuple[int | None, ...]:
    if not facts.local:
        return ()
    pattern = text.get("attention_types") or [[["global", "local"], 12]]  # the default of GPT-Neo's class
    size = whole_number(text, "window_size", 256)
    return tuple(size if kind == "local" else None for kinds, times in pattern for _ in range(times) for kind in kinds)


def _from_block(config_dict: dict[str, Any], window: int) -> tuple[int, Scaling, dict[str, Any]]:
    """The original window, the scaling and the block itself, held against the length that the config names."""
    block = config_dict.get("ropewalk") or {}
    if not block:
        return window, Plain(), {}
    try:
        original, named = int(block["original_window"]), int(block["window"])
        method, factor = block["scaling"]["method"], float(block["scaling"].get("factor", 1.0))
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the config's ropewalk block is damaged ({error!r}); run `ropewalk extend` again") from None
    scaling = Plain() if method == Plain.method else InterpolatedTable(factor)
    if named != window or method != scaling.method or abs(original * factor / window - 1) > 1e-9:
        raise UserError(
            f"the ropewalk block says {method} with factor {factor:g} from {original} to {named} positions, but the config has {window}: "
            "one was edited without the other; run `ropewalk extend` on the original model again"
        )
    return original, scaling, block


#: How a model knows positions.
Positions = RopeConfig | PositionTable


def read_positions(config_dict: dict[str, Any], answers: Answers = NOTHING_SAID) -> Positions:
    """What a config.json says of positions, whichever kind they are; raises as `read_table` and `read_rope` do, open windows included."""
    return read_table(config_dict) or read_rope(config_dict, answers=answers).answered()


def write_positions(
    config_dict: dict[str, Any], positions: Positions, *, window: int, block: dict[str, Any]
) -> dict[str, Any]:
    """A copy of a config.json that says `positions` with a window, and has this `ropewalk` block."""
    if isinstance(positions, RopeConfig):
        return write_rope(config_dict, positions.scaling, window=window, rope=positions.rope, block=block)
    out = copy.deepcopy(config_dict)
    text, facts = text_section(out), positions.facts
    for key in {*_REPEATED} & text.keys() | {facts.length_key}:
        text[key] = positions.first + window - facts.beside
    out["ropewalk"] = block
    return out


def same_positions(
    config_dict: dict[str, Any], positions: Positions, *, window: int, step: dict[str, Any]
) -> dict[str, Any]:
    """The config of a model that is trained with the positions it has, with a block that says so.

    Raises:
        UserError: a table has no rows past its own window.
    """
    if isinstance(positions, RopeConfig):
        block = block_for(positions.scaling, positions.rope, window=window, steps=0, history=[step])
    elif window > positions.window:
        raise UserError(
            f"method plain trains on positions past the window, and {positions} of a {positions.family} model has no rows for them; "
            "leave --method plain out: the table is then interpolated"
        )
    else:
        block = _block(positions, window, [step])
    return write_positions(config_dict, positions, window=window, block=block)


def longer_table_config(
    config_dict: dict[str, Any], table: PositionTable, *, window: int, history: list[dict[str, Any]]
) -> dict[str, Any]:
    """The config of the same model with its table interpolated to `window` positions."""
    return write_positions(config_dict, table, window=window, block=_block(table, window, history))


def _block(table: PositionTable, window: int, history: list[dict[str, Any]]) -> dict[str, Any]:
    """What stands under `ropewalk`: the windows, how far the table was interpolated, no step since, and the extensions so far."""
    factor = window / table.original_window
    return {
        "original_window": table.original_window,
        "window": window,
        "scaling": to_dict(Plain() if factor == 1 else InterpolatedTable(factor)),
        "steps": 0,
        "history": history,
    }
