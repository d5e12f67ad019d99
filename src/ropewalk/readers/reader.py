"""How a reader finds RoPE and the window in a config.json: the rule that the rows of rules.py fill in.

in   the raw dictionary of a config.json
out  the window, the inv_freq, the reason to refuse; None where the keys are of no use
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.checkpoint.class_defaults import class_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import FULL_LAYERS
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.readers import spectra
from ropewalk.readers.spectra import SPECTRA, Keys, Spectrum
from ropewalk.rope.rope import InvFreq

#: What a computation on values of a wrong type raises, or one on a key that is missing.
BAD_VALUES = (TypeError, ValueError, KeyError, AttributeError, ArithmeticError)
POSITIONS = "max_position_embeddings"
ORIGINAL = "original_max_position_embeddings"
#: transformers' word for "no limit" in a tokenizer_config.json is a number of this kind.
NO_LIMIT = 10**12
#: A head has 64 to 256 coordinates; a number far beyond that is no head.
_LARGEST_HEAD = 2**16
#: Older keys of rope_theta and the rotated share, which stand alone in these families.
_OWN_KEYS = {"gpt_neox": ("rotary_emb_base", "rotary_pct")}
_KEYS = ("rope_theta", "partial_rotary_factor")


@dataclass(frozen=True)
class Reader:
    """One reader.

    Attributes:
        name, version: the version whose code was read or run.
        source: where in that code the rule stands.
        blocks: the RoPE dictionaries it looks at; the first that is not empty is in force.
        inside: whether it also looks into that dictionary for rope_theta and the rotated share.
        legacy_type: whether it looks for `type` before `rope_type`.
        lengths: the keys that it takes the window from: the first there is, or the least with `least`.
        decisive: a key that wins over all of these.
        multiplies: whether a scaling's factor multiplies that length, and `unless` of which rope_types not.
        longrope_at_original: whether it serves longrope models at their original window.
        tokenizer_length: whether it takes the tokenizer's length where the config names none.
        nested_too: whether a factor in a dictionary nested by layer type multiplies as well.
        computes: rope_type → inv_freq.
        computes_of: the same for single families, in place of `computes`.
        attends: what it multiplies queries and keys by.
        only_in: rope_type → the families that it is computed for; ignored elsewhere.
        unscaled: families whose scaling it ignores; `without_theta`: and whose rope_theta, too.
        refuses_others: whether it refuses a rope_type that it does not compute, or ignores the scaling.
        thetas: rope_theta by family where a config names none, if it is not the family's own; None: it must be named.
        objections: more reasons to refuse, each a function of the text config and the keys.
    """

    name: str
    version: str
    source: str
    blocks: tuple[str, ...] = ("rope_scaling", "rope_parameters")
    blocks_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    inside: bool = True
    legacy_type: bool = False
    lengths: tuple[str, ...] = (POSITIONS,)
    least: bool = False
    decisive: str = ""
    multiplies: bool = False
    unless: frozenset[str] = frozenset()
    nested_too: bool = False
    longrope_at_original: bool = False
    tokenizer_length: bool = False
    computes: Mapping[str, Spectrum] = field(default_factory=lambda: SPECTRA)
    computes_of: Mapping[str, Mapping[str, Spectrum]] = field(default_factory=dict)
    attends: Callable[[Keys], float] = spectra.attention_factor
    only_in: Mapping[str, frozenset[str]] = field(default_factory=dict)
    unscaled: frozenset[str] = frozenset()
    without_theta: bool = False
    refuses_others: bool = True
    thetas: Mapping[str, float | None] = field(default_factory=dict)
    objections: tuple[Callable[[dict[str, Any], Keys], str | None], ...] = ()

    def window(self, config: dict[str, Any], tokenizer_config: dict[str, Any] | None = None) -> int | None:
        """Tokens that the reader would serve by default; None where it finds no length.

        Args:
            config: the dictionary of config.json.
            tokenizer_config: that of tokenizer_config.json, where there is one.
        """
        text = text_section(config)
        try:
            return self._window(text, tokenizer_config or {})
        except BAD_VALUES:
            return None

    def _window(self, text: dict[str, Any], tokenizer_config: dict[str, Any]) -> int:
        windows = [text[key] for key in self.lengths if text.get(key) is not None]
        if text.get(self.decisive):
            windows = [text[self.decisive]]
        limit = tokenizer_config.get("model_max_length")
        if not windows and self.tokenizer_length and limit is not None and limit < NO_LIMIT:
            windows = [limit]
        windows = windows or [class_defaults(model_type_of(text)).get(POSITIONS)]
        length = min(windows) if self.least else windows[0]
        entry = self._entry(text)
        rope_type = self._rope_type(entry)
        if self.longrope_at_original and rope_type in ("longrope", "su"):
            length = text.get(ORIGINAL) or length
        return int(length * self._multiplier(text, entry, rope_type))

    def _multiplier(self, text: dict[str, Any], entry: Mapping[str, Any], rope_type: str) -> float:
        once = not self.multiplies or rope_type in self.unless or "gemma3" in model_type_of(text)
        if once or (not self.nested_too and (ORIGINAL in entry or _nested(text))):
            return 1
        return entry.get("factor") or 1

    def inv_freq(self, config: dict[str, Any]) -> InvFreq | None:
        """What the reader would compute for the layers that see the whole window, float64 (rotated / 2,); None where it refuses."""
        try:
            keys = self.keys(config)
            return None if self._objection(text_section(config), keys) else self._compute(config, keys)
        except BAD_VALUES:
            return None

    def refusal(self, config: dict[str, Any]) -> str | None:
        """Why the reader would not load this config, in a sentence; None if it would."""
        try:
            keys = self.keys(config)
            objection = self._objection(text_section(config), keys)
            if objection is None:
                self._compute(config, keys)
        except BAD_VALUES as error:
            missing = f"no {error}" if isinstance(error, KeyError) else str(error)
            return f"{self.name} cannot compute a rotation from these keys ({missing})"
        return objection

    def attention_factor(self, config: dict[str, Any]) -> float | None:
        """What the reader would multiply queries and keys by, beside their rotation; None where it refuses."""
        try:
            return 1.0 if self._spectrum(config) is spectra.unscaled else self.attends(self.keys(config))
        except BAD_VALUES:
            return None

    def _compute(self, config: dict[str, Any], keys: Keys) -> InvFreq:
        with np.errstate(all="ignore"):
            computed = self._spectrum(config)(keys)
        if not np.isfinite(computed).all():
            raise ValueError("what it computes are no numbers")
        return computed

    def scaling_is_ignored(self, config: dict[str, Any]) -> bool:
        """Whether the reader loads a config and leaves the scaling out of which it finds the keys."""
        try:
            keys = self.keys(config)
            asked = SPECTRA.get(keys.rope_type, spectra.unscaled)
            left_out = self._spectrum(config) is spectra.unscaled and asked is not spectra.unscaled
            return left_out and self._objection(text_section(config), keys) is None
        except BAD_VALUES:
            return False

    def keys(self, config: dict[str, Any]) -> Keys:
        """What the reader finds of RoPE in a config.

        Raises:
            KeyError, TypeError, ValueError: not enough for a rotation, or values of a wrong type.
        """
        text = text_section(config)
        model_type = model_type_of(text)
        defaults, entry = default_rope(model_type), self._entry(text)
        theta_key, share_key = _OWN_KEYS.get(model_type, _KEYS)
        inside = entry if self.inside else {}
        named = (part.get(key) for part, key in ((inside, "rope_theta"), (text, theta_key)))
        theta = next((value for value in named if value is not None), None)
        if theta is None or (self.without_theta and model_type in self.unscaled):
            theta = self.thetas.get(model_type, defaults.get("rope_theta") or 10000.0)
        if theta is None:
            raise KeyError(theta_key)
        share = inside.get("partial_rotary_factor", text.get(share_key))
        rope_type = self._rope_type(entry)
        head = _head(text)
        if share is None and model_type == "minimax_m2" and text.get("rotary_dim"):
            share = text["rotary_dim"] / head
        # Gemma 4's share is one of turning pairs; everywhere else the unrotated part of a head has no pairs at all.
        if share is None:
            share = defaults.get("partial_rotary_factor", 1.0)
        part = 1 if rope_type == "proportional" else share
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (theta, part)):
            raise TypeError(f"rope_theta {theta!r}, rotated share {part!r}")
        rotated = int(head * part)
        positions = int(text.get(POSITIONS) or class_defaults(model_type).get(POSITIONS) or 0)
        if not 0 < theta < math.inf or not 2 <= rotated <= _LARGEST_HEAD:
            raise ValueError(f"no model rotates {rotated} coordinates of a head on rope_theta {theta!r}")
        original = int(self._original(text, entry) or 0)
        served = self._window(text, {}) if positions else 0
        return Keys(rope_type, entry, float(theta), rotated, positions, original, served, model_type)

    def _entry(self, text: dict[str, Any]) -> Mapping[str, Any]:
        """The RoPE dictionary in force. In families with one a layer type, the flat one is laid over that of the full layers."""
        blocks = self.blocks_of.get(model_type_of(text), self.blocks)
        present = [text[name] for name in blocks if text.get(name)]
        entries = [block[FULL_LAYERS] if isinstance(block.get(FULL_LAYERS), dict) else block for block in present]
        if len(entries) > 1 and _nested(text):
            return {**entries[1], **entries[0]}
        return entries[0] if entries else {}

    def _rope_type(self, entry: Mapping[str, Any]) -> str:
        order = ("type", "rope_type") if self.legacy_type else ("rope_type", "type")
        return str(next((entry[key] for key in order if entry.get(key)), "default"))

    def _original(self, text: dict[str, Any], entry: Mapping[str, Any]) -> int | None:
        """transformers 5 lets the top level win, transformers 4 takes it for longrope alone."""
        if self.inside or self._rope_type(entry) in ("longrope", "su"):
            return text.get(ORIGINAL) or entry.get(ORIGINAL)
        return entry.get(ORIGINAL)

    def _spectrum(self, config: dict[str, Any]) -> Spectrum:
        text = text_section(config)
        model_type, rope_type = model_type_of(text), self._rope_type(self._entry(text))
        elsewhere = rope_type in self.only_in and model_type not in self.only_in[rope_type]
        if model_type in self.unscaled or elsewhere:
            return spectra.unscaled
        return self.computes_of.get(model_type, self.computes).get(rope_type, spectra.unscaled)

    def _objection(self, text: dict[str, Any], keys: Keys) -> str | None:
        model_type = model_type_of(text)
        known = self.computes_of.get(model_type, self.computes)
        if self.refuses_others and model_type not in self.unscaled and keys.rope_type not in known:
            return f"{self.name} knows no rope_type {keys.rope_type!r} in {model_type} models"
        reasons = (objection(text, keys) for objection in self.objections)
        return next((f"{self.name} {reason}" for reason in reasons if reason), None)


def model_type_of(text: Mapping[str, Any]) -> str:
    """The family, as the language model's section names it."""
    return str(text.get("model_type", ""))


def _nested(text: Mapping[str, Any]) -> bool:
    """Whether transformers 5 keeps a RoPE dictionary for each layer type of this model."""
    block = text.get("rope_parameters") or {}
    default_block = class_defaults(model_type_of(text)).get("rope_parameters", {})
    return any(isinstance(part, dict) for part in (*block.values(), *default_block.values()))


def default_rope(model_type: str) -> Mapping[str, Any]:
    """The RoPE that transformers' config class has where a config names none, that of the full layers if it has several."""
    block = class_defaults(model_type).get("rope_parameters", {})
    return block.get(FULL_LAYERS, block)


def _head(text: Mapping[str, Any]) -> int:
    """Coordinates of a head, or of the part of it that RoPE is for."""
    family, default = family_of(model_type_of(text)), class_defaults(model_type_of(text)).get("head_dim")
    if family.full_head_key and text.get("per_layer_config") != {}:  # Gemma 4, of the layers that see everything
        single = [layer["head_dim"] for layer in (text.get("per_layer_config") or {}).values() if "head_dim" in layer]
        return int(single[0] if single else text.get(family.full_head_key) or family.full_head_dim or 0)
    named = text.get("qk_rope_head_dim") or text.get("head_dim") or default
    return int(named or text["hidden_size"] // text["num_attention_heads"])
