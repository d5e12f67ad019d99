"""What `doctor --fix` changes: only what follows from the rest of the config with certainty.

in   a `Subject`
out  new contents of config.json and tokenizer_config.json, a sentence a change; the files written, the old ones kept beside them

Certain is: what the `ropewalk` block says, and what the one spelling says where the other is missing. Of two spellings that
contradict each other, without a block, neither is.
"""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.digests import BEFORE_FIX, digest_now, note_again, noted_digests
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.family import Family
from ropewalk.checkpoint.files import disk_errors, write_json
from ropewalk.checkpoint.half_written import beside
from ropewalk.checkpoint.named_twice import named_twice
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.checkpoint.tokenizer_config import for_both
from ropewalk.checkpoint.write_rope import lost_names, write_older_names, write_rope
from ropewalk.errors import UserError
from ropewalk.readers.objections import SAME_TYPES, WHOLE, silent_fault
from ropewalk.readers.reader import POSITIONS
from ropewalk.readers.rules import READERS
from ropewalk.readers.spectra import Keys
from ropewalk.readers.spelling_checks import both_blocks_agree, same, stops_transformers, theta_is_lost, versions_agree
from ropewalk.readers.subject import Subject
from ropewalk.readers.window_checks import is_short, stale_lengths
from ropewalk.rope.scaling import SCALINGS

Config = dict[str, Any]
#: Changes a copy of the config in place, its language model's section or the whole, and says what in a sentence; an empty one: nothing is to be kept of it.
Step = Callable[[Subject, Config, Config], str]


def mend(subject: Subject) -> tuple[Subject, list[str], list[str]]:
    """Mend what is certain, in the files.

    Returns:
        The model as it is now, what was changed, and the files that keep what was there.

    Raises:
        UserError: it is nobody's to change (the embedded model, the hub's cache), or cannot be written.
    """
    mended, changes = subject, []
    for step in _STEPS:
        config = copy.deepcopy(mended.config)
        if sentence := step(mended, text_section(config), config):
            mended = _with_config(mended, config)
            changes.append(sentence)
    mended, of_tokenizer = _tokenizer(mended)
    changes += of_tokenizer
    new = {
        "config.json": (subject.config, mended.config),
        "tokenizer_config.json": (subject.tokenizer_config, mended.tokenizer_config),
    }
    # As text: to Python 4096.0 is equal to 4096.
    written = {name: after for name, (before, after) in new.items() if json.dumps(after) != json.dumps(before)}
    if written:
        _refuse_foreign_ground(subject)
    with disk_errors(subject.path):
        kept = [_replace(subject.path / name, content) for name, content in written.items()]
    return mended, changes, kept


def _refuse_foreign_ground(subject: Subject) -> None:
    if subject.fetched or subject.checkpoint.name == "hemp" or (subject.path / "config.json").is_symlink():
        raise UserError(
            f"--fix mends a directory of yours, and {subject.checkpoint.name} is ropewalk's or lies in the hub's cache; copy it first "
            f"(cp -rL {subject.path} COPY)"
        )


def _replace(path: Path, content: Config) -> str:
    """Write a file whole or not at all; the old one stays beside it under the first free name."""
    number = next(number for number in range(1, 10**6) if not os.path.lexists(f"{path}{BEFORE_FIX}{number}"))
    kept = Path(f"{path}{BEFORE_FIX}{number}")
    new = beside(path)
    try:
        write_json(new, content)
        new.chmod(path.stat().st_mode & 0o777)
        kept.write_bytes(path.read_bytes())  # a copy, since the old one may be a link that other directories share
        was_as_noted = noted_digests(path.parent).get(path.name) == digest_now(path)
        os.replace(new, path)
        if was_as_noted:  # else somebody edited it, which is still to be said
            note_again(path.parent, [path.name])
    finally:
        new.unlink(missing_ok=True)
    return str(kept)


def _with_config(subject: Subject, config: Config) -> Subject:
    return replace(subject, checkpoint=replace(subject.checkpoint, config=config))


def _whole_lengths(subject: Subject, text: Config, config: Config) -> str:
    whole = {key: text[key] for key in WHOLE if isinstance(text.get(key), float) and text[key].is_integer()}
    text.update({key: int(value) for key, value in whole.items()})
    return "; ".join(f"{key} {value} is the whole number {int(value)}" for key, value in whole.items())


def _later_name(subject: Subject, text: Config, config: Config) -> str:
    """Only where transformers 5 does not know the earlier one: 4.57 takes it in Phi-3, and both take the later one."""
    if not stops_transformers(subject.config):
        return ""
    for block in _dictionaries(text):
        block.update({key: "longrope" for key in ("type", "rope_type") if block.get(key) == "su"})
    return "the type 'su' is 'longrope', as it is called by now"


def _float_factors(subject: Subject, text: Config, config: Config) -> str:
    blocks = [b for b in _dictionaries(text) if isinstance(b.get("factor"), int) and not isinstance(b["factor"], bool)]
    changes = dict.fromkeys(f"the factor {block['factor']} is {float(block['factor'])}" for block in blocks)
    for block in blocks:
        block["factor"] = float(block["factor"])
    return "; ".join(changes)


def _older_names(subject: Subject, text: Config, config: Config) -> str:
    family = family_of(subject.family)
    lost = lost_names(text, family)
    write_older_names(text, family)
    return ", ".join(f"{older} stands beside {newer}" for older, newer in lost.items())


def _one_type(subject: Subject, text: Config, config: Config) -> str:
    """transformers 5 goes by rope_type, so `type` beside it follows where the block says that scaling."""
    scaling, changes = subject.block.get("scaling"), []
    for block in _dictionaries(text):
        old, new = block.get("type"), block.get("rope_type")
        if not (old and new) or old == new or [old, new] in SAME_TYPES:
            continue
        if isinstance(scaling, dict) and scaling.get("method") == str(new):
            block["type"] = new
            changes.append(f"type {old!r} is {new!r}, as the ropewalk block says")
    return "; ".join(dict.fromkeys(changes))


def _dictionaries(text: Config) -> list[Config]:
    """Every RoPE dictionary of a config's section, those by layer type too."""
    blocks = [text[name] for name in ("rope_scaling", "rope_parameters") if isinstance(text.get(name), dict)]
    return [*blocks, *(part for block in blocks for part in block.values() if isinstance(part, dict))]


def _original_window(subject: Subject, text: Config, config: Config) -> str:
    """The factor is what every reader computes by, and the window is named twice: the original window follows."""
    window, was = subject.block.get("window"), subject.block.get("original_window")
    if subject.rope is None or subject.question is None or not isinstance(window, int) or window != text.get(POSITIONS):
        return ""
    config["ropewalk"]["original_window"] = original = round(window / subject.rope.scaling.factor)
    return f"the block's original window {was} is {original}: window / factor"


def _theta(subject: Subject, text: Config, config: Config) -> str:
    """A rope_theta that no key names any more, where the block names it and its scaling leaves it as it was."""
    rope_theta, scaling = subject.block.get("rope_theta"), subject.block.get("scaling")
    method = str(scaling.get("method")) if isinstance(scaling, dict) else ""
    is_kept = method in SCALINGS and SCALINGS[method].rope_types
    is_number = isinstance(rope_theta, int | float) and not isinstance(rope_theta, bool)
    if not (theta_is_lost(subject) and is_kept and is_number):
        return ""
    text["rope_theta"] = float(rope_theta)
    return f"rope_theta is {rope_theta:g}, as the ropewalk block says"


#: Families whose class in transformers 4 takes rope_scaling with `type` and these keys alone, by the one scaling that it takes.
_KEYS_OF_4 = {"longrope": ("short_factor", "long_factor"), "linear": ("factor",)}


def _spellings(subject: Subject, text: Config, config: Config) -> str:
    """Every spelling, from the block, or from the one that is there."""
    four, five = READERS["transformers 4"], READERS["transformers 5"]
    agree = both_blocks_agree(subject.config, text)
    if five.refusal(config) or theta_is_lost(subject):
        return ""
    twice = named_twice(text, subject.family, block=bool(subject.block))
    if not twice and agree and versions_agree(config):
        return ""
    if subject.block and subject.rope is not None and subject.question is None:
        rope = subject.rope
        written = write_rope(config, rope.scaling, window=rope.window, rope=rope.rope, block=rope.block)
        config.clear()
        config.update(written)
        return f"every spelling says {rope}, as the ropewalk block does"
    keys, parameters = five.keys(config), text.get("rope_parameters") or {}
    if twice or not agree or keys.entry not in (text.get("rope_parameters"), parameters.get("full_attention")):
        return ""
    _write_older_spelling(text, keys, family_of(subject.family))
    healed = same(four.inv_freq(config), five.inv_freq(config)) or silent_fault(four, config)
    return f"rope_scaling and rope_theta {keys.rope_theta:g} stand beside rope_parameters again" if healed else ""


def _write_older_spelling(text: Config, keys: Keys, family: Family) -> None:
    """What transformers 4 reads, from what transformers 5 read in rope_parameters."""
    text["rope_theta"] = keys.rope_theta
    strict = family.only_longrope or family.two_keys
    taken = _KEYS_OF_4.get(keys.rope_type, keys.entry) if strict else keys.entry
    legacy = {name: keys.entry[name] for name in taken if name in keys.entry and name != "rope_theta"}
    text["rope_scaling"] = None if keys.rope_type == "default" else {**legacy, "type": keys.rope_type}
    if family.theta_key:
        text.setdefault(family.theta_key, keys.rope_theta)
    if isinstance(share := keys.entry.get("partial_rotary_factor"), int | float):
        text.setdefault(family.share_key or "partial_rotary_factor", share)
    local = (text.get("rope_parameters") or {}).get("sliding_attention")
    if isinstance(local, dict) and "rope_theta" in local:
        text.setdefault("rope_local_base_freq", local["rope_theta"])


def _window(subject: Subject, text: Config, config: Config) -> str:
    """max_position_embeddings as the block says it, and not the original one either, which vLLM's export has."""
    window, positions = subject.block.get("window"), text.get(POSITIONS)
    if subject.rope is None or subject.question is not None or not isinstance(window, int):
        return ""
    if positions in (window, subject.block.get("original_window")):
        return ""
    text[POSITIONS] = window
    return f"{POSITIONS} {positions} is {window}, as the ropewalk block says"


def _lengths(subject: Subject, text: Config, config: Config) -> str:
    stale, window = stale_lengths(subject) if subject.block else {}, subject.window
    for part in (text, config):
        part.update({key: window for key in stale if key in part})
    return f"{', '.join(f'{key} {value}' for key, value in stale.items())} is {window}, the window" if stale else ""


#: In this order: the block is made whole before anything is taken from it.
_STEPS: tuple[Step, ...] = (
    _whole_lengths, _later_name, _float_factors, _one_type, _older_names, _original_window, _theta, _spellings, _window, _lengths,
)  # fmt: skip


def _tokenizer(subject: Subject) -> tuple[Subject, list[str]]:
    config, changes = dict(subject.tokenizer_config), []
    limit = config.get("model_max_length")
    if subject.block and subject.window and is_short(limit, subject.window) and limit != subject.text.get(POSITIONS):
        changes.append(f"the tokenizer's model_max_length {limit} is {subject.window}")
        config["model_max_length"] = subject.window
    both = for_both(config, subject.path)
    if both.get("tokenizer_class") != config.get("tokenizer_class"):
        changes.append(
            f"tokenizer_class {config['tokenizer_class']} is {both['tokenizer_class']}, which reads the same tokenizer.json"
        )
    if isinstance(config.get("extra_special_tokens"), list):
        changes.append("extra_special_tokens is additional_special_tokens")
    return replace(subject, tokenizer_config=both), changes
