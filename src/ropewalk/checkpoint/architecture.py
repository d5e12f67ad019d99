"""What of a model's architecture makes a longer window harder to reach: the four choices of OlmPool, counted.

in   a config.json, its layers, the window of pretraining
out  the choices that the model made, in words

Bertsch et al. 2026 ("Cracks in the foundation: seemingly minor architectural choices impact long context extension"; OlmPool, 26 models of 7B
that differ in these alone) find that each by itself costs little, and three or more together up to 47 % of the score on long-context benchmarks after
the same extension, which neither loss nor perplexity shows. Pure JSON, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropewalk.checkpoint.class_defaults import text_type, with_defaults
from ropewalk.checkpoint.families import LLAMA_LAYERS, family_of
from ropewalk.checkpoint.layers import LayerLayout
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.sentences import counted

#: Tokens of a window of pretraining that is not short: Llama 3's, whose family extends most easily.
_NOT_SHORT = 8192
#: Config keys by which a family has it both ways.
_QK_NORM_KEYS = ("use_qk_norm", "qk_layernorm", "qk_norm")


def hurdles(config: Mapping[str, Any], layout: LayerLayout | None, original_window: int) -> tuple[str, ...]:
    """Those of the four that a model has.

    Args:
        config: the dictionary of its config.json.
        layout: its layers; None where all attend to everything.
        original_window: tokens, of pretraining.
    """
    kind = text_type(dict(config))
    text = with_defaults({**text_section(dict(config)), "model_type": kind})
    heads = int(text.get("num_attention_heads") or 0)
    key_heads = int(text.get("num_key_value_heads") or heads)
    asked = [text[key] for key in _QK_NORM_KEYS if text.get(key) is not None]
    normed = any(asked) if asked else bool((family_of(kind).layers or LLAMA_LAYERS).qk_norm)
    sliding = [] if layout is None else layout.sliding
    choices = {
        "QK-norm": normed,
        f"grouped keys ({counted(key_heads, 'head')} of keys for {heads} of queries)": key_heads < heads,
        f"sliding windows ({len(sliding)} of {len(layout.layers) if layout else 0} layers)": bool(sliding),
        f"a short pretraining window ({original_window} tokens)": original_window < _NOT_SHORT,
    }
    return tuple(words for words, is_so in choices.items() if is_so)


def in_words(found: tuple[str, ...]) -> str:
    """A sentence with its source."""
    which = f"{len(found)} of them: {'; '.join(found)}" if found else "none of them"
    return (
        f"How models are built can make a longer window harder to learn. Four such properties are known; this model has {which}. One alone costs little; three or more together cost up to "
        "47 % of the scores in tests of long contexts, though perplexity looks as good (26 models compared: OlmPool, Bertsch et al. 2026)"
    )
