"""The inv_freq of each rope_type, transcribed from the readers' own code and not from ours: float64, nothing but numpy.

in   what a reader finds in a config (`Keys`)
out  inv_freq, shape (rotated / 2,), radians a token

From modeling_rope_utils.py of transformers (4.57.6 and 5.23), which vLLM, SGLang and MLX follow formula for formula; where one
of them departs, a function of its own stands below. ropewalk.rope says what a model's inv_freq ought to be; this says what a
reader makes of the keys it finds, right or wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ropewalk.rope.rope import InvFreq


@dataclass(frozen=True)
class Keys:
    """What one reader finds of RoPE in a config.

    Attributes:
        rope_type: the scaling's word, "default" where there is none.
        entry: the RoPE dictionary in force.
        rope_theta: the base.
        rotated: coordinates of a head that are rotated.
        positions: max_position_embeddings, tokens.
        original: the window before scaling, tokens; 0 where the reader finds none.
        served: the window that it serves, tokens.
        family: the model_type.
    """

    rope_type: str
    entry: Mapping[str, Any]
    rope_theta: float
    rotated: int
    positions: int
    original: int = 0
    served: int = 0
    family: str = ""


Spectrum = Callable[[Keys], InvFreq]


def unscaled(keys: Keys) -> InvFreq:
    """theta_j = rope_theta^(-2j/d): what is left of a scaling that a reader ignores."""
    return keys.rope_theta ** -(np.arange(0, keys.rotated, 2, dtype=np.float64) / keys.rotated)


def linear(keys: Keys) -> InvFreq:
    """theta_j / factor."""
    return unscaled(keys) / keys.entry["factor"]


def yarn(keys: Keys) -> InvFreq:
    """A ramp over the pairs from theta_j to theta_j / factor."""
    entry, window = keys.entry, keys.original or keys.positions
    factor = entry.get("factor") or keys.positions / window

    def pair(rotations: float) -> float:
        turns = math.log(window / (rotations * 2 * math.pi))
        return keys.rotated * turns / (2 * math.log(keys.rope_theta))

    low, high = pair(entry.get("beta_fast") or 32), pair(entry.get("beta_slow") or 1)
    if entry.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, keys.rotated - 1)
    ramp = np.clip((np.arange(keys.rotated // 2) - low) / (high - low or 0.001), 0, 1)
    return unscaled(keys) * (1 - ramp) + unscaled(keys) / factor * ramp


def rounded_yarn(keys: Keys) -> InvFreq:
    """MLX and llama.cpp round the ramp's ends, whatever `truncate` says."""
    return yarn(replace(keys, entry={**keys.entry, "truncate": True}))


def mlx_yarn(keys: Keys) -> InvFreq:
    """MLX takes 4096 for an original window that the config does not name."""
    return rounded_yarn(replace(keys, original=keys.original or 4096))


def yarn_of_the_new_window(keys: Keys) -> InvFreq:
    """Ollama's converters of Qwen write no original window, so the ramp is laid out for the new one."""
    return yarn(replace(keys, original=keys.positions, entry={"factor": keys.entry["factor"]}))


def llama3(keys: Keys) -> InvFreq:
    """By wavelength, with a band between two thresholds."""
    entry, plain, window = keys.entry, unscaled(keys), keys.original or keys.positions
    factor, low, high = entry["factor"], entry["low_freq_factor"], entry["high_freq_factor"]
    wavelength = 2 * math.pi / plain
    smooth = (window / wavelength - low) / (high - low)
    between = (1 - smooth) * plain / factor + smooth * plain
    return np.where(wavelength < window / high, plain, np.where(wavelength > window / low, plain / factor, between))


def longrope(keys: Keys) -> InvFreq:
    """theta_j / long_factor_j at the end of a window that is longer than the original one, else by short_factor_j."""
    longer = keys.served > (keys.original or keys.positions)
    return _by_factors(keys, "long_factor" if longer else "short_factor")


def long_longrope(keys: Keys) -> InvFreq:
    """MLX takes the long factors at every length."""
    return _by_factors(keys, "long_factor")


def _by_factors(keys: Keys, name: str) -> InvFreq:
    return unscaled(keys) / np.asarray(keys.entry[name], dtype=np.float64)


def stretched(keys: Keys) -> InvFreq:
    """A "dynamic" with HunYuan's alpha only grows rope_theta, the same at every length (DynamicNTKAlphaRotaryEmbedding)."""
    return _grown(keys, keys.entry.get("alpha") or 1.0)


def static_ntk(keys: Keys) -> InvFreq:
    """SGLang fixes "dynamic" at factor × max_position_embeddings (DynamicNTKScalingRotaryEmbedding)."""
    factor = keys.entry.get("factor") or 1.0
    return stretched(keys) if keys.entry.get("alpha") else _grown(keys, factor**2 - (factor - 1))


def _grown(keys: Keys, by: float) -> InvFreq:
    return unscaled(replace(keys, rope_theta=keys.rope_theta * by ** (keys.rotated / (keys.rotated - 2))))


def proportional(keys: Keys) -> InvFreq:
    """Gemma 4: the share is one of pairs, the exponent goes over the whole head, the other pairs stand still."""
    turning = int(keys.entry.get("partial_rotary_factor", 1.0) * keys.rotated // 2)
    scaled = unscaled(keys) / keys.entry.get("factor", 1.0)
    return np.where(np.arange(keys.rotated // 2) < turning, scaled, 0.0)


def proportional_alone(keys: Keys) -> InvFreq:
    """vLLM and SGLang give Gemma4RotaryEmbedding no factor."""
    return proportional(replace(keys, entry={**keys.entry, "factor": 1.0}))


#: transformers' own. "dynamic" has the unscaled inv_freq up to max_position_embeddings, and grows with the input after that.
SPECTRA: dict[str, Spectrum] = {
    "default": unscaled,
    "mrope": unscaled,
    "dynamic": unscaled,
    "linear": linear,
    "yarn": yarn,
    "llama3": llama3,
    "longrope": longrope,
    "su": longrope,
    "proportional": proportional,
}


def attention_factor(keys: Keys) -> float:
    """By how much transformers multiplies queries and keys: the factor named, or YaRN's or LongRoPE's own."""
    named = keys.entry.get("attention_factor") if keys.rope_type in ("yarn", "longrope", "su") else None
    return own_attention_factor(keys) if named is None else float(named)


def attention_factor_in_vllm(keys: Keys) -> float:
    """vLLM computes DeepSeek's and gpt-oss's in their own code, from mscale and mscale_all_dim alone."""
    own = keys.family in ("deepseek_v2", "deepseek_v3", "gpt_oss")
    return own_attention_factor(keys) if own else attention_factor(keys)


def own_attention_factor(keys: Keys) -> float:
    """YaRN's or LongRoPE's own, whatever attention_factor says: so SGLang, and MLX."""
    entry, original = keys.entry, keys.original or keys.positions
    factor = entry.get("factor") or keys.positions / original
    if keys.rope_type == "yarn":
        both = entry.get("mscale") and entry.get("mscale_all_dim")
        return _mscale(factor, entry["mscale"]) / _mscale(factor, entry["mscale_all_dim"]) if both else _mscale(factor)
    if keys.rope_type in ("longrope", "su"):
        longer = keys.positions / original
        return math.sqrt(1 + math.log(longer) / math.log(original)) if longer > 1 else 1.0
    return 1.0


def _mscale(factor: float, mscale: float = 1.0) -> float:
    return 0.1 * mscale * math.log(factor) + 1.0 if factor > 1 else 1.0
