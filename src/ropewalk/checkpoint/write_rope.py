"""A scaling written into a config.json, in every spelling that readers look for.

in   the dictionary of a config.json, a scaling, the new window
out  a new dictionary in which every spelling says the same thing

Three rules of readers decide what is written (transformers 4.57 and 5.x; tests/model/test_extend.py, tests/readers):
- v4 knows only `rope_theta` and `rope_scaling`; v5 writes only `rope_parameters`. Both must be there.
- v5 lets `rope_scaling` win over `rope_parameters`, and takes a missing rope_theta from the top level.
- `original_max_position_embeddings` in a linear block is "unrecognised" to both, so the original window stands in a block
  of our own, `ropewalk` (ropewalk_block.py).
"""

from __future__ import annotations

import copy
from typing import Any

from ropewalk.checkpoint.class_defaults import class_defaults, text_type, with_defaults
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import FULL_LAYERS, Family
from ropewalk.checkpoint.named_scaling import SCALING_KEYS
from ropewalk.checkpoint.read_rope import rope_entries, whole_head
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.checkpoint.window import ORIGINAL_KEYS, Windows, lengthened, refuse_disagreement
from ropewalk.errors import UserError
from ropewalk.rope.scaling import LongRope, Proportional, Rope, Scaling


def write_rope(
    config_dict: dict[str, Any], scaling: Scaling, *, window: int, rope: Rope, block: dict[str, Any]
) -> dict[str, Any]:
    """A copy of a config.json in which every spelling says `scaling`, with floats for factors and ints for lengths.

    Args:
        config_dict: of the original's config.json.
        scaling: relative to `rope`, the rotary embedding as pretrained.
        window: the new window, tokens.
        block: what stands under `ropewalk`, from `ropewalk_block.block_for`.
    """
    out = copy.deepcopy(config_dict)
    text = text_section(out)
    model_type = text_type(out)
    family = family_of(model_type)
    windows = Windows(rope.window, int(window))
    refuse_disagreement(scaling, windows, family.pretrained_window)
    entry, rope_theta = scaling.config_entry(rope)
    old, unscaled = rope_entries(with_defaults({**text, "model_type": model_type}), model_type)
    kept = {key: value for key, value in old.items() if key not in SCALING_KEYS and key not in entry}
    _refuse_queries_from_elsewhere(old, entry, model_type, scaling)
    # v5 lets rope_scaling win over rope_parameters, so it repeats what only the latter could otherwise say.
    legacy = {**entry, "type": entry["rope_type"], **kept}
    for part in (text, out):
        lengthened(part, windows)
    if isinstance(scaling, LongRope):  # where both readers look first
        text["original_max_position_embeddings"] = rope.window
    if (original := entry.get("original_max_position_embeddings")) is not None:
        text.update({key: original for key in ORIGINAL_KEYS if key in text})
    if isinstance(scaling, Proportional):
        _refuse_partial(rope, whole_head(with_defaults({**text, "model_type": model_type})))
    if family.only_longrope:
        entry, legacy = _as_longrope(text, entry, scaling, rope, window=window)
    parameters: dict[str, Any] = {"rope_theta": rope_theta, **entry, **kept}
    text["rope_parameters"] = {FULL_LAYERS: parameters, **unscaled} if unscaled else parameters
    text["rope_scaling"] = None if entry["rope_type"] == "default" else legacy
    if family.two_keys and entry["rope_type"] == "linear":
        text["rope_scaling"] = {"type": "linear", "factor": entry["factor"]}
    if unscaled and not family.full_scaling_key:
        del text["rope_scaling"]  # these families' classes would put it, null or not, in the place of all layers'
    if unscaled and family.local_theta_key not in ("", "rope_theta"):
        text[family.local_theta_key] = next(iter(unscaled.values()))["rope_theta"]
    text["rope_theta"] = rope_theta
    if text.get("head_dim", class_defaults(model_type).get("head_dim", 0)) is None:
        # A null that the class leaves as it is (Mixtral, HunYuan) stops transformers 5's functions of yarn, longrope and llama3.
        text["head_dim"] = whole_head({**text, "model_type": model_type})
    share = None if unscaled else kept.get("partial_rotary_factor")
    if share is not None:  # v4 and MLX look for it here alone
        text["partial_rotary_factor"] = share
    _write_older_keys(text, family, rope_theta, share)
    write_older_names(text, family)
    write_queries_by_position(text, parameters)
    text["max_position_embeddings"] = int(window)
    out["ropewalk"] = block
    return out


def _refuse_queries_from_elsewhere(
    old: dict[str, Any], entry: dict[str, Any], model_type: str, scaling: Scaling
) -> None:
    """Raises UserError where queries are scaled by position (Ministral 3), and another scaling would move where that begins."""
    key = "original_max_position_embeddings"
    if old.get("llama_4_scaling_beta") and entry.get(key) != old.get(key):
        raise UserError(
            f"{model_type} scales its queries by position, from {key} {old.get(key)} on, which {scaling.method} scaling would "
            f"change to {entry.get(key, 'none')}; use --method yarn"
        )


def _write_older_keys(text: dict[str, Any], family: Family, rope_theta: float, share: float | None) -> None:
    """Older spellings of rope_theta and the rotated share, for families whose readers look there (GPT-NeoX)."""
    if "rotary_emb_base" in text or family.theta_key:
        text[family.theta_key or "rotary_emb_base"] = rope_theta
    if family.share_key and share is not None:
        text[family.share_key] = share


def write_older_names(text: dict[str, Any], family: Family) -> None:
    """Put the keys that transformers 5 saved under a new name under their older one, too."""
    text.update({older: text[newer] for older, newer in lost_names(text, family).items()})


def write_queries_by_position(text: dict[str, Any], entry: dict[str, Any]) -> None:
    """Say what scales the queries of Ministral 3 by position as vLLM looks for it, too."""
    beta, original = (entry.get(key) for key in ("llama_4_scaling_beta", "original_max_position_embeddings"))
    if beta and original:
        text["llama_4_scaling"] = {"original_max_position_embeddings": original, "beta": beta}


def lost_names(text: dict[str, Any], family: Family) -> dict[str, str]:
    """older → newer, of the keys whose value stands under the newer name alone."""
    names = family.older_names.items()
    return {older: newer for older, newer in names if text.get(newer) is not None and text.get(older) != text[newer]}


def _refuse_partial(rope: Rope, head_dim: int) -> None:
    if rope.head_dim != head_dim:
        raise UserError(
            f"proportional scaling is a share of whole heads, and this model rotates {rope.head_dim} of {head_dim} coordinates; use another "
            "--method"
        )


def unsaid(scaling: Scaling, rope: Rope) -> UserError | None:
    """Why a config that takes "longrope" alone has no words for a scaling; None where it has."""
    if isinstance(scaling, LongRope) and scaling.attention is None:
        return None
    if scaling.attention_factor(rope) == 1 and not isinstance(scaling, Proportional):
        return None
    return UserError(
        f"a Phi-3 config can say neither an attention factor of its own ({scaling.method} scaling has {scaling.attention_factor(rope):.4g}) "
        "nor pairs that stand still; use --method linear or ntk, or yarn with --temperature 1"
    )


def _as_longrope(
    text: dict[str, Any], entry: dict[str, Any], scaling: Scaling, rope: Rope, *, window: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Phi-3 takes "longrope" alone; v4 takes it with these three keys and no others. Any scaling is a vector of factors.

    Both its readers compute the attention factor from the top-level original window, sqrt(1 + ln(mpe / original) / ln(original)), so that
    is the new window where attention stays as it is.
    """
    if entry["rope_type"] == "default":
        return entry, {}
    if refusal := unsaid(scaling, rope):
        raise refusal
    if isinstance(scaling, LongRope) and scaling.attention is None:
        lists = {key: entry[key] for key in ("short_factor", "long_factor")}
    else:
        text["original_max_position_embeddings"] = int(window)
        factors = [float(factor) for factor in rope.inv_freq() / scaling.inv_freq(rope)]
        lists = {"short_factor": factors, "long_factor": factors}
    return {"rope_type": "longrope", **lists}, {"type": "longrope", **lists}
