"""What transformers' config classes take where a config.json names nothing: class_defaults.json, which docs/make_families.py makes.

in   a `model_type`, or the dictionary of a config.json
out  the defaults; a section with them filled in; the `model_type` of the language model
"""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

#: Multimodal families whose published configs have the language model's keys at the top level, without a `text_config`.
FLAT = ("qwen2_vl", "qwen2_5_vl")
_FILE = Path(__file__).with_name("class_defaults.json")


@functools.cache
def _all_defaults() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def class_defaults(model_type: str) -> dict[str, Any]:
    """What transformers' config class takes where a config.json names nothing; empty for a family that is not known.

    Nulls, which mean "derived from the others", are left out, but for a head_dim that nothing derives; and so is a rope_theta on which its versions disagree.
    """
    return _all_defaults().get(model_type, {})


def text_type(config_dict: dict[str, Any]) -> str:
    """The `model_type` of a config's language model: the config's own, or its `text_config`'s, which may leave it out."""
    own, section = str(config_dict.get("model_type") or ""), config_dict.get("text_config")
    if not isinstance(section, dict):
        return _all_defaults()["text_types"][own] if own in FLAT else own
    return str(section.get("model_type") or _all_defaults()["text_types"].get(own, own))


def with_defaults(text: dict[str, Any]) -> dict[str, Any]:
    """A config's section of the language model over its class's defaults, by the usual names; its RoPE keys as they are."""
    defaults = class_defaults(str(text.get("model_type", "")))
    named = {key: value for key, value in defaults.items() if key not in ("rope_parameters", "names")} | text
    renamed = {
        key: text[own] for key, own in defaults.get("names", {}).items() if own in text and text.get(key) is None
    }
    return named | renamed


def has_no_rope(model_type: str) -> bool:
    """Whether a family's config class names no RoPE at all."""
    return model_type in _all_defaults()["without_rope"]
