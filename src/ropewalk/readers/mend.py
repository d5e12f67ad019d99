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
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.digests import BEFORE_FIX, digest_now, note_again, noted_digests
from ropewalk.checkpoint.families import family_of
from ropewalk.checkpoint.files import disk_errors, write_json
from ropewalk.checkpoint.named_twice import named_twice
from ropewalk.checkpoint.rope_config import text_section
from ropewalk.checkpoint.tokenizer_config import for_both
from ropewalk.checkpoint.write_rope import lost_names, write_older_names, write_rope
from ropewalk.errors import UserError
from ropewalk.readers.objections import SAME_TYPES, WHOLE, silent_fault
from ropewalk.readers.reader import POSITIONS
from ropewalk.readers.rules import READERS
from ropewalk.readers.spelling_checks import both_blocks_agree, same, stops_transformers, theta_is_lost, versions_agree
from ropewalk.readers.subject import Subject
from ropewalk.readers.window_checks import is_short, stale_lengths
from ropewalk.rope.scaling import SCALINGS

Config = dict[str, Any]


def mend(subject: Subject) -> tuple[Subject, list[str], list[str]]:
    """Mend what is certain, in the files.

    Returns:
        The model as it is now, what was changed, and the files that keep what was there.

    Raises:
        UserError: it is nobody's to change (the embedded model, the hub's cache), or cannot be written.
    """
    mended, changes = subject, []
    for step in _STEPS:
        mended, sentence = step(mended)
        changes += [sentence] if sentence else []
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
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")
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


Step = Callable[[Subject], tuple[Subject, str]]


def _with_text(subject: Subject, change: Callable[[Config, Config], None]) -> Subject:
    """The subject with a changed copy of its config; `change` gets the language model's section and the whole."""
    config = copy.deepcopy(subject.config)
    change(text_section(config), config)
    return _with_config(subject, config)


def _with_config(subject: Subject, config: Config) -> Subject:
    return replace(subject, checkpoint=replace(subject.checkpoint, config=config))


def _whole_lengths(subject: Subject) -> tuple[Subject, str]:
    text = subject.text
    whole = {key: text[key] for key in WHOLE if isinstance(text.get(key), float) and text[key].is_integer()}

    def change(text: Config, _: Config) -> None:
        text.update({key: int(value) for key, value in whole.items()})

    sentence = "; ".join(f"{key} {value} is the whole number {int(value)}" for key, value in whole.items())
    return (_with_text(subject, change), sentence) if whole else (subject, "")


def _later_name(subject: Subject) -> tuple[Subject, str]:
    """Only where transformers 5 does not know the earlier one: 4.57 takes it in Phi-3, and both take the later one."""
    if not stops_transformers(subject.config):
        return subject, ""

    def change(text: Config, _: Config) -> None:
        for block in _dictionaries(text):
            block.update({key: "longrope" for key in ("type", "rope_type") if block.get(key) == "su"})

    return _with_text(subject, change), "the type 'su' is 'longrope', as it is called by now"


def _float_factors(subject: Subject) -> tuple[Subject, str]:
    changed: list[str] = []

    def change(text: Config, _: Config) -> None:
        for block in _dictionaries(text):
            factor = block.get("factor")
            if isinstance(factor, int) and not isinstance(factor, bool):
                block["factor"] = float(factor)
                changed.append(f"the factor {factor} is {float(factor)}")

    return _with_text(subject, change), "; ".join(dict.fromkeys(changed))


def _older_names(subject: Subject) -> tuple[Subject, str]:
    lost = lost_names(subject.text, family_of(subject.family))

    def change(text: Config, _: Config) -> None:
        write_older_names(text, family_of(subject.family))

    sentence = ", ".join(f"{older} stands beside {newer}" for older, newer in lost.items())
    return (_with_text(subject, change), sentence) if lost else (subject, "")


def _one_type(subject: Subject) -> tuple[Subject, str]:
    """transformers 5 goes by rope_type, so `type` beside it follows."""
    changed: list[str] = []

    def change(text: Config, _: Config) -> None:
        for block in _dictionaries(text):
            old, new = block.get("type"), block.get("rope_type")
            if old and new and old != new and [old, new] not in SAME_TYPES:
                if not _names(subject, str(new)):
                    continue
                block["type"] = new
                changed.append(f"type {old!r} is {new!r}, as the ropewalk block says")

    return _with_text(subject, change), "; ".join(dict.fromkeys(changed))


def _names(subject: Subject, rope_type: str) -> bool:
    """Whether the block says the scaling of that type."""
    scaling = subject.block.get("scaling")
    return isinstance(scaling, dict) and scaling.get("method") == rope_type


def _dictionaries(text: Config) -> list[Config]:
    """Every RoPE dictionary of a config's section, those by layer type too."""
    blocks = [text[name] for name in ("rope_scaling", "rope_parameters") if isinstance(text.get(name), dict)]
    return [*blocks, *(part for block in blocks for part in block.values() if isinstance(part, dict))]


def _original_window(subject: Subject) -> tuple[Subject, str]:
    """The factor is what every reader computes by, and the window is named twice: the original window follows."""
    window, was = subject.block.get("window"), subject.block.get("original_window")
    if (
        subject.rope is None
        or subject.question is None
        or not isinstance(window, int)
        or window != subject.text.get(POSITIONS)
    ):
        return subject, ""
    original = round(window / subject.rope.scaling.factor)

    def change(_: Config, config: Config) -> None:
        config["ropewalk"]["original_window"] = original

    return _with_text(subject, change), f"the block's original window {was} is {original}: window / factor"


def _theta(subject: Subject) -> tuple[Subject, str]:
    """A rope_theta that no key names any more, where the block names it and its scaling leaves it as it was."""
    rope_theta, scaling = subject.block.get("rope_theta"), subject.block.get("scaling")
    method = str(scaling.get("method")) if isinstance(scaling, dict) else ""
    kept = method in SCALINGS and SCALINGS[method].rope_types
    if (
        not theta_is_lost(subject)
        or not kept
        or isinstance(rope_theta, bool)
        or not isinstance(rope_theta, int | float)
    ):
        return subject, ""

    def change(text: Config, _: Config) -> None:
        text["rope_theta"] = float(rope_theta)

    return _with_text(subject, change), f"rope_theta is {rope_theta:g}, as the ropewalk block says"


#: Families whose class in transformers 4 takes rope_scaling with `type` and these keys alone, by the one scaling that it takes.
_KEYS_OF_4 = {"longrope": ("short_factor", "long_factor"), "linear": ("factor",)}


def _spellings(subject: Subject) -> tuple[Subject, str]:
    """Every spelling, from the block, or from the one that is there."""
    four, five = READERS["transformers 4"], READERS["transformers 5"]
    config, agree = subject.config, both_blocks_agree(subject.config, subject.text)
    if five.refusal(config) or theta_is_lost(subject):
        return subject, ""
    twice = named_twice(subject.text, subject.family, block=bool(subject.block))
    if not twice and agree and versions_agree(config):
        return subject, ""
    if subject.block and subject.rope is not None and subject.question is None:
        rope = subject.rope
        written = write_rope(config, rope.scaling, window=rope.window, rope=rope.rope, block=rope.block)
        return _with_config(subject, written), f"every spelling says {rope}, as the ropewalk block does"
    if twice or not agree:
        return subject, ""
    keys = five.keys(config)
    if keys.entry not in (
        subject.text.get("rope_parameters"),
        (subject.text.get("rope_parameters") or {}).get("full_attention"),
    ):
        return subject, ""

    def change(text: Config, _: Config) -> None:
        text["rope_theta"] = keys.rope_theta
        family = family_of(subject.family)
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

    mended = _with_text(subject, change)
    healed = same(four.inv_freq(mended.config), five.inv_freq(mended.config)) or silent_fault(four, mended.config)
    sentence = f"rope_scaling and rope_theta {keys.rope_theta:g} stand beside rope_parameters again"
    return (mended, sentence) if healed else (subject, "")


def _window(subject: Subject) -> tuple[Subject, str]:
    """max_position_embeddings as the block says it, and not the original one either, which vLLM's export has."""
    window, original = subject.block.get("window"), subject.block.get("original_window")
    positions = subject.text.get(POSITIONS)
    if (
        subject.rope is None
        or subject.question is not None
        or not isinstance(window, int)
        or positions in (window, original)
    ):
        return subject, ""

    def change(text: Config, _: Config) -> None:
        text[POSITIONS] = window

    return _with_text(subject, change), f"{POSITIONS} {positions} is {window}, as the ropewalk block says"


def _lengths(subject: Subject) -> tuple[Subject, str]:
    stale, window = stale_lengths(subject) if subject.block else {}, subject.window

    def change(text: Config, config: Config) -> None:
        for part in (text, config):
            part.update({key: window for key in stale if key in part})

    sentence = ", ".join(f"{key} {value}" for key, value in stale.items())
    return (_with_text(subject, change), f"{sentence} is {window}, the window") if stale else (subject, "")


def _tokenizer(subject: Subject) -> tuple[Subject, str]:
    config, changes = dict(subject.tokenizer_config), []
    limit = config.get("model_max_length")
    if subject.block and subject.window and is_short(limit, subject.window) and limit != subject.text.get(POSITIONS):
        changes.append(f"the tokenizer's model_max_length {config['model_max_length']} is {subject.window}")
        config["model_max_length"] = subject.window
    both = for_both(config, subject.path)
    if both.get("tokenizer_class") != config.get("tokenizer_class"):
        changes.append(
            f"tokenizer_class {config['tokenizer_class']} is {both['tokenizer_class']}, which reads the same tokenizer.json"
        )
    if isinstance(config.get("extra_special_tokens"), list):
        changes.append("extra_special_tokens is additional_special_tokens")
    return replace(subject, tokenizer_config=both), "; ".join(changes)


#: In this order: the block is made whole before anything is taken from it.
_STEPS: tuple[Step, ...] = (
    _whole_lengths, _later_name, _float_factors, _one_type, _older_names, _original_window, _theta, _spellings, _window, _lengths, _tokenizer,
)  # fmt: skip
