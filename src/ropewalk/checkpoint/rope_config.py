"""What a Hugging Face config.json says of RoPE: read it as a `Rope` and a scaling, write a scaling into it.

in   the dictionary of a config.json, in any spelling: v4 (`rope_theta`, `rope_scaling`) or v5 (`rope_parameters`)
out  a `RopeConfig`; or a new dictionary in which every spelling says the same thing

Pure JSON, no torch: the planner, the theory and `extend` read a model of any size in milliseconds. That transformers reads
the written file the same way is not assumed here; `model.verify` holds it against the speeds that transformers computes.

Three rules of readers decide what is written (transformers 4.57 and 5.x; tests/model/test_extend.py, tests/readers):
- v4 knows only `rope_theta` and `rope_scaling`; v5 writes only `rope_parameters`. Both must be there.
- v5 lets `rope_scaling` win over `rope_parameters`, and takes a missing theta from the top level.
- `original_max_position_embeddings` in a linear block is "unrecognised" to both, so the original window stands in a block
  of our own, `ropewalk`, together with the method, the factor, the steps trained and the history.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field, replace
from typing import Any

from ropewalk.errors import UserError
from ropewalk.rope.scaling import Linear, Llama3, Ntk, Plain, Rope, Scaling, Yarn

#: theta and rotated share that a family has when its config.json names none (the families' own papers and code).
_DEFAULTS: dict[str, tuple[float, float]] = {
    "llama": (10000.0, 1.0),
    "mistral": (10000.0, 1.0),
    "mixtral": (1000000.0, 1.0),
    "qwen2": (10000.0, 1.0),
    "qwen3": (10000.0, 1.0),
    "gemma": (10000.0, 1.0),
    "gemma2": (10000.0, 1.0),
    "gemma3_text": (1000000.0, 1.0),
    "phi": (10000.0, 0.5),
    "phi3": (10000.0, 1.0),
    "gpt_neox": (10000.0, 0.25),
    "olmo": (10000.0, 1.0),
    "olmo2": (10000.0, 1.0),
    "stablelm": (10000.0, 0.25),
    "starcoder2": (10000.0, 1.0),
    "granite": (10000.0, 1.0),
}
#: The head's size where it is neither in the file nor width / heads.
_HEAD_DIM = {"gemma": 256, "gemma2": 256, "gemma3_text": 256}
_WINDOW = {"gemma3_text": 131072}
_NO_ROPE = {
    "gpt2": "learned positions",
    "opt": "learned positions",
    "gpt_neo": "learned positions",
    "gpt_bigcode": "learned positions",
    "mpt": "ALiBi",
    "bloom": "ALiBi",
    "t5": "relative position buckets",
    "bert": "learned positions",
    "mamba": "no positions at all",
    "mamba2": "no positions at all",
}
_FIXED_ROPE = ("gptj", "codegen")
#: In a model with several kinds of layer, the kind that sees the whole window.
GLOBAL = "full_attention"


@dataclass(frozen=True)
class RopeConfig:
    """How a model turns, as its config says.

    Attributes:
        family: `model_type` of the text model.
        rope: the rotary embedding as pretrained (rotated coordinates, base, original window).
        scaling: what is in force now, relative to `rope`.
        window: tokens the model is meant for now.
        local: per layer type that has its own, unscaled rotation (Gemma 3's sliding layers), that rotation.
        block: the `ropewalk` block, empty in a config that ropewalk did not write.
        per_layer: whether the config has one RoPE per layer type.
    """

    family: str
    rope: Rope
    scaling: Scaling
    window: int
    local: dict[str, Rope] = field(default_factory=dict)
    block: dict[str, Any] = field(default_factory=dict)
    per_layer: bool = False

    def inv_freq(self) -> dict[str, Any]:
        """Closed-form frequencies by layer type, float64 (rotated / 2,); "" stands for a model with one RoPE for all."""
        found = {GLOBAL if self.per_layer else "": self.scaling.inv_freq(self.rope)}
        return found | {name: rope.inv_freq() for name, rope in self.local.items()}


def text_section(config: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model: the whole, or `text_config` in a multimodal one."""
    section = config.get("text_config")
    return section if isinstance(section, dict) else config


def read_rope(config: dict[str, Any]) -> RopeConfig:
    """What a config.json says of RoPE.

    Raises:
        UserError: no RoPE, a RoPE that no config can scale, a scaling that ropewalk does not know, or a lost theta.
    """
    text = text_section(config)
    family = str(text.get("model_type", config.get("model_type", "")))
    if family in _NO_ROPE:
        raise UserError(
            f"ropewalk extends models that use rotary position embedding, but {family} has {_NO_ROPE[family]}; "
            "choose a RoPE model (Llama, Mistral, Qwen, Gemma, GPT-NeoX, Phi-3, …)"
        )
    if family in _FIXED_ROPE:
        raise UserError(
            f"{family} rotates by a table that no config can scale, and ropewalk never patches a model's code; "
            "choose a model whose config has rope_theta"
        )
    entry, local = _rope_entries(text, family)
    theta = _theta(text, entry, family, config)
    head_dim = _rotated(text, entry, family)
    window = _positive_int(text, "max_position_embeddings", _WINDOW.get(family))
    block = config.get("ropewalk") or {}
    scaling, original = _scaling(entry, text, family, window)
    rope = Rope(head_dim, theta, original)
    if block:
        rope, scaling, window = _from_block(block, rope, scaling)
    return RopeConfig(
        family=family,
        rope=rope,
        scaling=scaling,
        window=window,
        local={name: replace(rope, base=base) for name, base in local.items()},
        block=block,
        per_layer=bool(local),
    )


def _from_block(block: dict[str, Any], rope: Rope, scaling: Scaling) -> tuple[Rope, Scaling, int]:
    """Our own block knows what the other keys cannot say: the original window and, for NTK, the original base."""
    try:
        original, window, factor = int(block["original_window"]), int(block["window"]), float(block["factor"])
        method, base = str(block["method"]), float(block["theta"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"the config's ropewalk block is damaged ({error!r}); run `ropewalk extend` again") from None
    rope = replace(rope, window=original)
    if method == "ntk":
        said, rope, scaling = rope.base, replace(rope, base=base), Ntk(factor)
        found = scaling.base(rope)
        if abs(found / said - 1) > 1e-9:
            raise UserError(
                f"the ropewalk block says NTK factor {factor:g} on theta {base:g}, which is theta {found:.6g}, but the config has "
                f"{said:.6g}; run `ropewalk extend` on the original model again"
            )
    elif (scaling.method, scaling.factor) != (method, factor):
        raise UserError(
            f"the ropewalk block says {method} with factor {factor:g}, but the config's RoPE keys say {scaling.method} with "
            f"factor {scaling.factor:g}: one was edited without the other; run `ropewalk extend` on the original model again"
        )
    return rope, scaling, window


def _rope_entries(text: dict[str, Any], family: str) -> tuple[dict[str, Any], dict[str, float]]:
    """The RoPE dictionary in force (v5's rule: `rope_scaling` wins) and the bases of layer types that have their own."""
    parameters, legacy = _object(text, "rope_parameters"), _object(text, "rope_scaling")
    local: dict[str, float] = {}
    if family == "gemma3_text":
        base = _object(parameters, "sliding_attention").get("rope_theta", text.get("rope_local_base_freq", 10000.0))
        local["sliding_attention"] = _number(base, "the sliding layers' rope_theta")
        parameters = _object(parameters, GLOBAL)
    elif any(isinstance(value, dict) for value in parameters.values()):
        raise UserError(
            f"{family} has a RoPE per layer type ({', '.join(parameters)}), which ropewalk knows for Gemma 3 only; "
            "open an issue with the config.json"
        )
    return {**parameters, **legacy}, local


def _theta(text: dict[str, Any], entry: dict[str, Any], family: str, config: dict[str, Any]) -> float:
    named = entry.get("rope_theta", text.get("rope_theta", text.get("rotary_emb_base")))
    if named is not None:
        return _number(named, "rope_theta")
    written_by_v5 = "rope_parameters" in text or str(config.get("transformers_version", "0")).split(".")[0] >= "5"
    if family not in _DEFAULTS or written_by_v5:
        raise UserError(
            f"the config of this {family or 'unnamed'} model names no rope_theta, so its speeds are lost (a reader would "
            'silently take a default); put the model\'s own value back, as "rope_theta": 10000.0 for LLaMA'
        )
    return _DEFAULTS[family][0]


def _rotated(text: dict[str, Any], entry: dict[str, Any], family: str) -> int:
    # What is null is not there; what is 0 is wrong, and must not be taken for absent.
    said = next((key for key in ("qk_rope_head_dim", "head_dim") if text.get(key) is not None), None)
    if said:
        head = _positive_int(text, said, None)
    elif family in _HEAD_DIM:
        head = _HEAD_DIM[family]
    else:
        heads = _positive_int(text, "num_attention_heads", None)
        head = _positive_int(text, "hidden_size", None) // heads
    share = entry.get("partial_rotary_factor", text.get("partial_rotary_factor", text.get("rotary_pct")))
    if share is None:
        share = _DEFAULTS.get(family, (0.0, 1.0))[1]
    if not 0 < _number(share, "partial_rotary_factor") <= 1:
        raise UserError(
            f"the rotated share of a head is above 0 and at most 1, got {share}; check partial_rotary_factor in the config"
        )
    return int(head * share)


def _positive_int(text: dict[str, Any], key: str, default: int | None) -> int:
    value = text.get(key, default)
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not whole or value < 1:
        raise UserError(f"a model's config names {key} as a whole number above 0, got {value!r}; mend its config.json")
    return int(value)


def _number(value: Any, key: str) -> float:
    """A number as JSON has it; a text that looks like one is taken by some readers and not by others."""
    if isinstance(value, bool) or not isinstance(value, int | float) or math.isnan(value):
        raise UserError(f"a model's config names {key} as a number, got {value!r}; mend its config.json")
    return float(value)


def _object(text: dict[str, Any], key: str) -> dict[str, Any]:
    """The dictionary under a key; empty where it is null or absent."""
    value = text.get(key)
    if not isinstance(value, dict | None):
        raise UserError(f"a model's config names {key} as an object or null, got {value!r}; mend its config.json")
    return value or {}


def _scaling(entry: dict[str, Any], text: dict[str, Any], family: str, window: int) -> tuple[Scaling, int]:
    """The scaling a RoPE dictionary names, and the window before it."""
    kind = str(entry.get("rope_type") or entry.get("type") or "default")
    key = "original_max_position_embeddings"
    original = next((_positive_int(part, key, None) for part in (entry, text) if part.get(key) is not None), window)
    try:
        if kind in ("default", "mrope"):
            return Plain(), window
        if kind == "linear":
            factor = _number(entry["factor"], "factor")
            return Linear(factor), max(1, round(window / factor))
        if kind == "yarn":
            numbers = {"factor": window / original, "beta_fast": 32.0, "beta_slow": 1.0}
            said = {key: _number(entry[key], key) for key in numbers if entry.get(key) is not None}
            return Yarn(**numbers | said, truncate=entry.get("truncate") in (None, True)), original
        if kind == "llama3":
            names = ("factor", "low_freq_factor", "high_freq_factor")
            factor, low, high = (_number(entry[name], name) for name in names)
            return Llama3(factor, low, high, original), original
    except KeyError as error:
        raise UserError(
            f"the config's {kind} RoPE scaling lacks {error}; put it back or start from the original model"
        ) from None
    if kind in ("longrope", "su") and (same := _uniform(entry, text, window)):
        return Linear(same), max(1, round(window / same))
    reason = {
        "dynamic": "its speeds change with the length of each input, so there is no one rotation to train or to verify",
        "longrope": "its factors were searched per pair and cannot be composed with another scaling",
        "su": "its factors were searched per pair and cannot be composed with another scaling",
    }.get(kind, "ropewalk does not know it")
    raise UserError(f"this {family} model is scaled by {kind!r}: {reason}; start from the model it was made from")


def _uniform(entry: dict[str, Any], text: dict[str, Any], window: int) -> float | None:
    """The one factor of a longrope block whose factors are all the same and whose attention is not rescaled: that is PI.

    Phi-3's config takes no other scaling, so this is how `write` says linear to it.
    """
    lists = {key: entry.get(key) for key in ("short_factor", "long_factor")}
    factors = {_number(x, key) for key, values in lists.items() if isinstance(values, list) for x in values}
    original = text.get("original_max_position_embeddings", entry.get("original_max_position_embeddings"))
    rescaled = entry.get("attention_factor", 1.0 if original == window else None)
    return factors.pop() if len(factors) == 1 and rescaled == 1.0 else None


def write_rope(
    config: dict[str, Any], scaling: Scaling, *, window: int, rope: Rope, block: dict[str, Any]
) -> dict[str, Any]:
    """A copy of a config.json in which every spelling says `scaling`, with floats for factors and ints for lengths.

    Args:
        config: the dictionary of the original's config.json.
        scaling: relative to `rope`, the rotation as pretrained.
        window: the new window, tokens.
        block: what stands under `ropewalk`.
    """
    out = copy.deepcopy(config)
    text = text_section(out)
    family = str(text.get("model_type", ""))
    entry, theta = _entry(scaling, rope)
    old, _ = _rope_entries(text, family)
    partial = {key: old[key] for key in ("partial_rotary_factor",) if key in old}
    shared = {"rope_theta": theta, **entry, **partial}
    if family == "gemma3_text":
        local = read_rope(config).local["sliding_attention"].base
        text["rope_parameters"] = {GLOBAL: shared, "sliding_attention": {"rope_theta": local, "rope_type": "default"}}
        text["rope_local_base_freq"] = local
    else:
        text["rope_parameters"] = shared
    if family == "phi3":
        entry, legacy = _for_phi3(text, entry, rope, window=window)
        text["rope_parameters"] = {"rope_theta": theta, **entry, **partial}
    else:
        # v5 lets rope_scaling win over rope_parameters, so it repeats what only the latter could otherwise say.
        legacy = {**entry, "type": entry["rope_type"], **partial}
    text["rope_scaling"] = None if entry["rope_type"] == "default" else legacy
    text["rope_theta"] = theta
    if "rotary_emb_base" in text or family == "gpt_neox":
        text["rotary_emb_base"] = theta
    if family == "gpt_neox" and "partial_rotary_factor" in old:
        text["rotary_pct"] = old["partial_rotary_factor"]
    text["max_position_embeddings"] = int(window)
    out["ropewalk"] = block
    return out


def _for_phi3(
    text: dict[str, Any], entry: dict[str, Any], rope: Rope, *, window: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Phi-3 takes "longrope" alone; v4 takes it with these three keys and no others. One factor for every pair is linear.

    The top-level original window is the new one, so that both its readers put the attention's own rescaling, sqrt(1 +
    ln(mpe / original) / ln(original)), at 1, as Position Interpolation has it.
    """
    if entry["rope_type"] == "default":
        return entry, {}
    if entry["rope_type"] != "linear":
        raise UserError(f"a Phi-3 config cannot say {entry['rope_type']} scaling; use --method linear or ntk")
    factors = [entry["factor"]] * (rope.head_dim // 2)
    text["original_max_position_embeddings"] = int(window)
    table = {"short_factor": factors, "long_factor": factors}
    return {"rope_type": "longrope", **table}, {"type": "longrope", **table}


def _entry(scaling: Scaling, rope: Rope) -> tuple[dict[str, Any], float]:
    """A scaling as config keys, and the theta that goes with it."""
    if isinstance(scaling, Plain):
        return {"rope_type": "default"}, rope.base
    if isinstance(scaling, Ntk):
        return {"rope_type": "default"}, scaling.base(rope)
    if isinstance(scaling, Linear):
        return {"rope_type": "linear", "factor": float(scaling.factor)}, rope.base
    if isinstance(scaling, Yarn):
        ramp = {
            "beta_fast": float(scaling.beta_fast),
            "beta_slow": float(scaling.beta_slow),
            "truncate": scaling.truncate,
        }
        original = {"original_max_position_embeddings": rope.window}
        return {"rope_type": "yarn", "factor": float(scaling.factor), **original, **ramp}, rope.base
    raise UserError(f"ropewalk reads {scaling.method} scaling but does not write it; use linear, ntk or yarn")
