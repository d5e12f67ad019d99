"""A directory of safetensors for one reader: the same weights, and a config that says the promised window by that reader's rule.

in   a checkpoint, and the rows of `READERS` that shall get it right
out  a directory, read back: each of those readers would serve the checkpoint's window and turn at its inv_freq; or a sentence

No weight is loaded: files are linked, as `extend` does.
"""

from __future__ import annotations

import copy
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.files import read_json, write_json
from ropewalk.checkpoint.model_card import README
from ropewalk.checkpoint.own_code import without_code
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.checkpoint.write_rope import write_older_names, write_queries_by_position, write_rope
from ropewalk.errors import UserError
from ropewalk.model.carry import carry_the_rest, carry_weights, lies_in
from ropewalk.model.verify import verify_directory
from ropewalk.readers.reader import Reader
from ropewalk.readers.rules import READERS
from ropewalk.rope.rope import InvFreq

TOKENIZER = "tokenizer_config.json"
_POSITIONS = "max_position_embeddings"
#: Every key in which any reader looks for the window. "max_length" is no window but a default of generation.
_LENGTHS = {key for reader in READERS.values() for key in (*reader.lengths, reader.decisive)} - {"", "max_length"}
#: Readers compute in float32 at most; another factor, theta or ramp is off by far more.
_TOLERANCE = 1e-5


def write_checkpoint(checkpoint: Checkpoint, directory: Path, readers: list[Reader]) -> int:
    """Write a checkpoint for some readers into an empty directory, and read it back by the rule of each.

    Returns:
        The window in tokens that the last of them would serve by itself.

    Raises:
        UserError: a reader cannot turn as the checkpoint does, or no length makes it serve the window.
    """
    rope = checkpoint.rope
    carry_weights(checkpoint, directory)
    carry_the_rest(checkpoint, directory, window=rope.window)
    if lies_in(checkpoint, checkpoint.path / README):  # it is the same model, so its README stays its own
        shutil.copyfile(checkpoint.path / README, directory / README)
    tokenizer = _tokenizer_config(directory)
    config = spelled_out(checkpoint)
    if not checkpoint.trust_remote_code:
        config = without_code(config)
    for reader in readers:
        refuse_unreadable(reader, config, rope)
    length, served = _length_for(readers, config, tokenizer, rope)
    write_json(directory / "config.json", with_length(config, length))
    if tokenizer:
        write_json(directory / TOKENIZER, tokenizer | {"model_max_length": length})
    verify_directory(checkpoint.made_into(directory))
    return served


def spelled_out(checkpoint: Checkpoint) -> dict[str, Any]:
    """The config in every spelling of RoPE: written anew where ropewalk knows the scaling, completed where another tool wrote it."""
    rope = checkpoint.rope
    if rope.block:
        return write_rope(
            checkpoint.config, rope.scaling, window=rope.window, rope=rope.rope, block=copy.deepcopy(rope.block)
        )
    config = copy.deepcopy(checkpoint.config)
    text = text_section(config)
    parameters = text.get("rope_parameters") or {}
    write_older_names(text, family_of(rope.family))
    write_queries_by_position(text, parameters)
    flat = not any(isinstance(value, dict) for value in parameters.values())
    if flat and "rope_theta" in parameters:
        text.setdefault("rope_theta", parameters["rope_theta"])
    scaled = parameters.get("rope_type", "default") != "default"
    if flat and scaled and not text.get("rope_scaling"):
        rest = {key: value for key, value in parameters.items() if key != "rope_theta"}
        text["rope_scaling"] = rest | {"type": parameters["rope_type"]}
    return config


def with_length(config: dict[str, Any], length: int) -> dict[str, Any]:
    """A copy of a config in which every key that any reader takes the window from has one length, in tokens."""
    out = copy.deepcopy(config)
    text = text_section(out)
    text.update({key: length for key in _LENGTHS if text.get(key) is not None})
    text[_POSITIONS] = length
    return out


def refuse_unreadable(reader: Reader, config: dict[str, Any], rope: RopeConfig) -> None:
    """Raises UserError where a reader would not load a config, or would turn otherwise than the checkpoint does."""
    if reason := reader.refusal(config):
        raise UserError(f"{reason}; export for transformers, which knows every rope_type")
    found, asked = reader.inv_freq(config), full_layers(rope)
    if found is None or found.shape != asked.shape or not np.allclose(found, asked, rtol=_TOLERANCE, atol=0):
        plain = rope.rope.inv_freq()
        unscaled = (
            found is not None and found.shape == plain.shape and np.allclose(found, plain, rtol=_TOLERANCE, atol=0)
        )
        does = "leaves the scaling of" if unscaled else "computes another rotation for"
        raise UserError(
            f"{reader.name} {does} {rope.family} models, and every position would be wrong without a word: this one has {rope}; "
            "export it for a reader that turns so, as transformers does"
        )
    attention, wanted = reader.attention_factor(config), rope.attention_factor(rope.scaled_layers)
    if attention is None or not math.isclose(attention, wanted, rel_tol=_TOLERANCE):
        raise UserError(
            f"{reader.name} multiplies queries and keys by {attention or 1:.6g} and not by {wanted:.6g}, whatever attention_factor says, and "
            "every position would be wrong without a word; export for transformers"
        )


def full_layers(rope: RopeConfig) -> InvFreq:
    """Closed form of the layers that see the whole window, float64 (rotated / 2,), radians a token."""
    return rope.inv_freq()[rope.scaled_layers]


def _length_for(
    readers: list[Reader], config: dict[str, Any], tokenizer: dict[str, Any], rope: RopeConfig
) -> tuple[int, int]:
    """The one length for all keys with which the readers serve the checkpoint's window, and what the last of them serves.

    That is the window itself, or, where a reader multiplies by the factor, the window before scaling; a factor that is no whole
    number may leave it up to that many tokens above.
    """
    served = 0
    for length in (rope.window, rope.rope.window):
        windows = [
            reader.window(with_length(config, length), tokenizer and tokenizer | {"model_max_length": length}) or 0
            for reader in readers
        ]
        if all(rope.window <= window < rope.window + rope.scaling.factor for window in windows):
            return length, windows[-1]
        served = served or windows[-1]
    raise UserError(
        f"{readers[-1].name} would serve {served} tokens and not the promised {rope.window}, whatever length the config names; "
        "export for another reader"
    )


def _tokenizer_config(directory: Path) -> dict[str, Any]:
    """The tokenizer_config.json that was carried; empty where there is none."""
    path = directory / TOKENIZER
    if not path.is_file():
        return {}
    return read_json(path, what=f"{TOKENIZER} is a JSON file")
