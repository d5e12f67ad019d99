"""Check 17: which values of a config nothing here can confirm, since no weight's shape depends on them.

in   a `Subject`
out  a finding

A wrong rope_theta is no contradiction: where version 5 of transformers wrote it and version 4 takes the family's default (check 1), writing that
default in its place even takes a fault away.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from ropewalk.checkpoint.digests import BEFORE_FIX, digest_now, noted_digests
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.files import read_json
from ropewalk.checkpoint.headers import tensors
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.reader import default_rope
from ropewalk.readers.subject import Subject
from ropewalk.rope.by_parts import Yarn

_CONFIG = "config.json"
#: The rope_theta of readers that find none.
_TAKEN = 10000.0
#: Published attention factors are rounded to a few digits.
_ROUNDED = 1e-3
#: What every model has one of, by the names that configs have for it: where none is named, readers take their class's.
_OF_EVERY_MODEL = (
    ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_eps", "norm_epsilon"),
    ("hidden_act", "hidden_activation", "activation_function"),
)
#: The number of heads is one where head_dim, written or by the hidden size, follows it.
_OF_SOME = (
    "num_attention_heads", "rotary_pct", "partial_rotary_factor", "rope_local_base_freq", "query_pre_attn_scalar", "attention_multiplier",
    "embedding_multiplier", "residual_multiplier", "logits_scaling", "logit_scale", "attn_logit_softcapping", "final_logit_softcapping",
    "sliding_window", "num_experts_per_tok", "norm_topk_prob", "routed_scaling_factor",
)  # fmt: skip


def on_trust(subject: Subject) -> Iterator[Finding]:
    """17. What of a config no shape, no digest and no other file confirms."""
    if _is_as_written(subject):
        yield Finding(
            17, "ok", "config.json is as ropewalk wrote it (check 14), with the values of the model that it was made of"
        )
        return
    yield from _unusual_attention(subject)
    if values := [*_theta(subject), *_values(subject)]:
        windows = " ".join(str(each) for each in ((subject.window or 0) // 8, subject.window) if each)
        yield Finding(
            17,
            "note",
            f"{', '.join(values)}: no weight's shape depends on these, so that nothing here can confirm them, and with a wrong one the model loads "
            "and computes something else. Hold them against the config.json of whoever trained it, or the perplexity against what such a model has: "
            f"ropewalk perplexity {shlex.quote(subject.checkpoint.name)} --data TEXT --windows {windows or 'TOKENS…'}",
        )


def _unusual_attention(subject: Subject) -> Iterator[Finding]:
    """An attention_factor below 1, or more than twice as far above it as YaRN's own: some are that of another factor than theirs."""
    rope = subject.rope
    if rope is None or not isinstance(rope.scaling, Yarn) or rope.scaling.temperature is None:
        return
    named, own = rope.attention_factor(rope.scaled_layers), replace(rope.scaling, temperature=None, mscale=None)
    usual = own.attention_factor(rope.rope)
    if not 1 - _ROUNDED <= named <= 2 * usual - 1 + _ROUNDED:
        yield Finding(
            17,
            "note",
            f"attention_factor is {named:g}, which is unusual: YaRN's own for factor {own.factor:g} is 0.1 ln(factor) + 1 = {usual:.6g}. By it queries and "
            "keys are each multiplied; hold it against the config.json of whoever trained the model, and delete the key if it is not theirs",
        )


def _is_as_written(subject: Subject) -> bool:
    noted = noted_digests(subject.path).get(_CONFIG)
    return noted is not None and noted == digest_now(subject.path / _CONFIG)


def unconfirmed_theta(subject: Subject) -> str:
    """The rope_theta, with its name, that one spelling alone says, or said before `--fix` wrote the other from it, where nothing confirms it.

    A digest would, and so does the `ropewalk` block, which check 2 holds against the other keys. 10000 is what readers take where they find none: with it
    they agree, whatever was dropped.
    """
    if subject.rope is None or subject.block.get("rope_theta") is not None or _is_as_written(subject):
        return ""
    if subject.rope.rope.rope_theta == _TAKEN:
        return ""
    configs = [subject.config]
    for kept in subject.path.glob(f"{_CONFIG}{BEFORE_FIX}*"):
        with contextlib.suppress(UserError):
            configs.append(read_json(kept, what="a config is a JSON file"))
    is_alone = any(_spellings_of_theta(text_section(config), subject.family) == 1 for config in configs)
    return f"rope_theta {subject.rope.rope.rope_theta:g}" if is_alone else ""


def _spellings_of_theta(text: dict[str, Any], family: str) -> int:
    """In how many places a config names its rope_theta: at the top level, under either name; in a RoPE dictionary, a layer type's too."""
    blocks = [text[name] for name in ("rope_scaling", "rope_parameters") if isinstance(text.get(name), dict)]
    parts = [[text], *([block, *(part for part in block.values() if isinstance(part, dict))] for block in blocks)]
    names = {"rope_theta", family_of(family).theta_key} - {""}
    return sum(any(part.get(name) is not None for part in place for name in names) for place in parts)


def _theta(subject: Subject) -> Iterator[str]:
    if subject.rope is None:
        return
    theta, default = subject.rope.rope.rope_theta, default_rope(subject.family).get("rope_theta")
    also = " (what readers of this family also take where the key is lost)" if theta == default else ""
    yield f"rope_theta {theta:g}{also}"


def _values(subject: Subject) -> Iterator[str]:
    text: dict[str, Any] = {key: value for key, value in subject.text.items() if isinstance(value, int | float | str)}
    if _heads_are_normalised(subject):
        text.pop("num_attention_heads", None)
    for names in _OF_EVERY_MODEL:
        if not any(name in text for name in names):
            yield f"{names[0]} (not named: readers take a default)"
    for key in (*(name for names in _OF_EVERY_MODEL for name in names), *_OF_SOME):
        if key in text:
            yield f"{key} {text[key]:g}" if isinstance(text[key], float) else f"{key} {text[key]!s:.40}"


def _heads_are_normalised(subject: Subject) -> bool:
    """Whether a norm of one head's width lies in the files, which settles the width."""
    try:
        headers = subject.checkpoint.headers if subject.checkpoint.has_weights else {}
    except UserError:  # check 10 says it
        return False
    return any(name.endswith("q_norm.weight") for header in headers.values() for name, _ in tensors(header))
