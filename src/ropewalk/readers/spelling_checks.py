"""Check 1: that every spelling of RoPE says one thing, and that none is lost.

in   a `Subject`
out  findings, a sentence each: rule, value, way out
"""

from __future__ import annotations

import logging
import shlex
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.named_twice import named_twice
from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.errors import UserError
from ropewalk.progress import is_first_process
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.objections import WHOLE, earlier_longrope, lost_key, no_whole_length, two_types, whole_factor
from ropewalk.readers.reader import BAD_VALUES, ORIGINAL, POSITIONS, default_rope
from ropewalk.readers.rules import READERS
from ropewalk.readers.subject import Subject
from ropewalk.readers.trust_checks import unconfirmed_theta

_logger = logging.getLogger(__name__)
_LOST_THETA = (
    "the config names no rope_theta where readers look for it (a rope_scaling takes the place of rope_parameters), and every reader would "
    "silently take a default; put the model's own value back, at the top level"
)
#: Readers compute in float32: a few units in the last place are rounding, and no two ways to scale are so near each other.
TOLERANCE = 1e-5


def same(one: np.ndarray | None, other: np.ndarray | None) -> bool:
    """Whether two rotations are one but for rounding; their numbers of pairs may differ."""
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=TOLERANCE, atol=0))


def spellings(subject: Subject) -> Iterator[Finding]:
    """1. transformers 4 and 5 find the same rotation, and none is lost."""
    if subject.instead_of_rope:
        yield Finding(1, "note", f"no RoPE to check: {subject.family} has {subject.instead_of_rope}")
        return
    if subject.unsupported:
        yield Finding(1, "not checked", subject.rope_error)
        return
    if stops := _LOST_THETA if theta_is_lost(subject) else stops_transformers(subject.config):
        yield Finding(1, "wrong", stops, stops=True)
        return
    if refusal := READERS["transformers 5"].refusal(subject.config):
        yield Finding(1, "wrong", subject.rope_error or f"{refusal}; mend config.json")
        return
    twice = named_twice(subject.text, subject.family, block=bool(subject.block))
    if contradiction := twice or _contradiction(subject):
        yield Finding(1, "wrong", contradiction, stops=True)
    yield from (Finding(1, "wrong", sentence) for sentence in _faults_of_others(subject, twice))
    if not contradiction and (lost := _lost_in_version_4(subject)):
        yield Finding(1, "wrong", lost)


def _faults_of_others(subject: Subject, twice: str) -> Iterator[str]:
    """What some readers stop at or take otherwise. twice: what stands twice, where that was said."""
    keys = READERS["transformers 5"].keys(subject.config)
    objections = {
        None if twice else two_types(subject.text, keys): "make the two one",
        whole_factor(subject.text, keys): "ropewalk doctor --fix mends that",
    }
    yield from (f"vllm {reason}; {way_out}" for reason, way_out in objections.items() if reason)
    if reason := lost_key(subject.text, keys):
        yield f"transformers 4 {reason}; ropewalk doctor --fix writes both"
    if keys.rope_type == "yarn" and not (keys.entry.get(ORIGINAL) or subject.text.get(ORIGINAL)):
        yield (
            f"a YaRN scaling names its {ORIGINAL}, and this one does not: transformers takes {POSITIONS} {keys.positions} for it, MLX 4096; "
            "put the window before scaling there"
        )


def stops_transformers(config: dict[str, Any]) -> str:
    """What transformers 5 stops at in a config and `doctor --fix` mends, in a sentence; empty where there is nothing of the kind."""
    text = text_section(config)
    key = next((key for key in WHOLE if isinstance(text.get(key), float) and text[key].is_integer()), None)
    try:
        keys = READERS["transformers 5"].keys(config)
        reason = no_whole_length(text, keys) if key else earlier_longrope(text, keys)
    except BAD_VALUES:
        reason = None
    return f"transformers 5 {reason}; ropewalk doctor --fix mends that" if reason else ""


def refuse_what_stops_transformers(checkpoint: Checkpoint) -> None:
    """Raises UserError for a config that transformers does not load and `doctor --fix` mends, in doctor's words."""
    if reason := stops_transformers(checkpoint.config):
        raise UserError(f"{checkpoint.name}: {reason}")


#: What this process has warned of: a command may load a model several times.
_warned: set[str] = set()


def warn_of_spellings(checkpoint: Checkpoint, *, makes: bool = False) -> None:
    """Warn of a config that may be read wrongly here, too, in doctor's words: its theta is lost, or it says two things.

    makes: another model is made of it, for whatever reader; then shortly of what only others read wrongly, as all of version 4 what
        transformers 5 saved (R4), and what mends it: nothing that is wrong with what is made. Who measures it is no such reader.
    """
    if not isinstance(checkpoint.positions, PositionTable):
        others = f"; transformers 4, MLX and Ollama do so after: ropewalk doctor {shlex.quote(checkpoint.name)} --fix"
        _warn(Subject(checkpoint, {}, {}), (lambda differ: others) if makes else None, tell=_logger.info)


def warn_of_other_readers(checkpoint: Checkpoint) -> None:
    """The same before a model goes to others, with what these would read and that it is to be mended first."""
    subject = Subject(checkpoint, {}, {})
    if subject.rope is not None:  # a table, or what ropewalk cannot read and is not asked to
        _warn(subject, lambda differ: f", and mend it before others read it: {differ}")


def _warn(subject: Subject, of_others: Callable[[str], str] | None, tell: Callable[[str], None] | None = None) -> None:
    """Once a process, by the first one. of_others: what is said of what is read rightly here and otherwise elsewhere, if anything is; by `tell` and not as a warning, if given."""
    name = subject.checkpoint.name
    if fault := _LOST_THETA if theta_is_lost(subject) else _contradiction(subject):
        sentence, tell = f"{name}: {fault}", None
    elif of_others is not None and (differ := _lost_in_version_4(subject)):
        sentence = f"{name} is read rightly here{of_others(differ)}"
    else:
        return
    if is_first_process() and sentence not in _warned:
        _warned.add(sentence)
        if tell is None:
            warnings.warn(sentence, stacklevel=3)
        else:
            tell(sentence)


def versions_agree(config: dict[str, Any]) -> bool:
    """Whether transformers 4 rotates as 5 does, as far as keys decide: it may refuse a family, or leave the scaling of one out whatever they say."""
    four, five = READERS["transformers 4"], READERS["transformers 5"]
    if four.refusal(config) is not None or four.scaling_is_ignored(config):
        return True
    return same(four.inv_freq(config), five.inv_freq(config))


def _contradiction(subject: Subject) -> str:
    """That two spellings say two things, one of which is wrong for every reader; empty where they do not."""
    if both_blocks_agree(subject.config, subject.text):
        return ""
    return (
        "rope_scaling and rope_parameters say two things; transformers goes by the first and llama.cpp by the second: take out the one that is "
        "wrong"
    )


def _lost_in_version_4(subject: Subject) -> str:
    """What transformers 4 would rotate by where a config says it in the spelling of version 5 alone (R4); empty where both find one rotation."""
    if READERS["transformers 5"].refusal(subject.config) or versions_agree(subject.config):
        return ""
    four, five = (READERS[name].keys(subject.config) for name in ("transformers 4", "transformers 5"))
    both = (
        f"transformers 4 would read {four.rope_type} on rope_theta {four.rope_theta:g}, and transformers 5 {five.rope_type} on "
        f"{five.rope_theta:g}"
    )
    shares = [READERS[name].inv_freq(subject.config) for name in ("transformers 4", "transformers 5")]
    pairs = [0 if share is None else share.size for share in shares]
    if pairs[0] != pairs[1]:
        both += f", with {2 * pairs[0]} and {2 * pairs[1]} coordinates of a head rotated"
    if subject.text.get("rope_scaling"):
        return f"{both}; make rope_scaling, rope_theta and rope_parameters say one thing"
    if four.rope_theta != five.rope_theta and (theta := unconfirmed_theta(subject)):
        return (
            f"{both}: either the key was dropped or the theta was edited: save_pretrained of version 5 drops rope_scaling and the rope_theta at "
            "the top level, which version 4, MLX and Ollama read, and nothing here confirms the one that is left; if "
            f"{theta} is the model's own, ropewalk doctor --fix puts them back"
        )
    return (
        f"{both}: save_pretrained of version 5 drops rope_scaling and the rope_theta at the top level, which version 4, MLX and Ollama "
        "read; ropewalk doctor --fix puts them back"
    )


def theta_is_lost(subject: Subject) -> bool:
    """Whether no key names rope_theta though the family, or the version that wrote the config, has no default to rely on."""
    text, config = subject.text, subject.config
    try:
        entry = READERS["transformers 5"].keys(config).entry
    except BAD_VALUES:
        return False
    if any(part.get(key) is not None for part in (entry, text) for key in ("rope_theta", "rotary_emb_base")):
        return False
    by_v5 = "rope_parameters" in text or str(config.get("transformers_version", "0")).split(".")[0] >= "5"
    return by_v5 or default_rope(subject.family).get("rope_theta") is None


def both_blocks_agree(config: dict[str, Any], text: dict[str, Any]) -> bool:
    """Whether rope_scaling and rope_parameters, where both are there, say one thing."""
    if not (text.get("rope_scaling") and text.get("rope_parameters")):
        return True
    one, other = (without(config, key) for key in ("rope_parameters", "rope_scaling"))
    reader = READERS["transformers 5"]
    return same(reader.inv_freq(one), reader.inv_freq(other))


def without(config: dict[str, Any], key: str) -> dict[str, Any]:
    """A config without one key of its language model's section."""
    section = config.get("text_config")
    part = {name: value for name, value in config.items() if name != key}
    if isinstance(section, dict):
        part["text_config"] = {name: value for name, value in section.items() if name != key}
    return part
