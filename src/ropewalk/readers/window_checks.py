"""Checks 3 and 4: that every length says the window, and which window a scaling of another tool is for.

in   a `Subject`
out  findings, a sentence each: rule, value, way out
"""

from __future__ import annotations

import logging
import math
import shlex
from collections.abc import Iterator
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.reader import NO_LIMIT, POSITIONS
from ropewalk.readers.rules import READERS
from ropewalk.readers.spelling_checks import theta_is_lost
from ropewalk.readers.subject import Subject
from ropewalk.sentences import joined

_logger = logging.getLogger(__name__)

#: Every key that some reader takes the window from.
LENGTH_KEYS = tuple(dict.fromkeys(key for reader in READERS.values() for key in reader.lengths))
#: Scalings in which original window × factor is the window, by their names in a config.
_FACTOR_IS_RATIO = ("yarn", "linear")
#: Those whose factor of 1 leaves the rotation as it was before.
_BY_FACTOR_ALONE = (*_FACTOR_IS_RATIO, "llama3")
#: How a reader is told to serve less than it would.
_LENGTH_OPTIONS = {"vllm": "--max-model-len", "sglang": "--context-length"}


def stale_lengths(subject: Subject) -> dict[str, Any]:
    """Keys from which some reader would take another window, with their values."""
    window, positions, found = subject.window, subject.text.get(POSITIONS), _other_lengths(subject)
    if subject.family == "gpt_neox" or not isinstance(window, int):
        found.pop("max_length", None)
    if window is None:
        return {}
    if subject.block:
        return {key: value for key, value in found.items() if value not in (window, positions)}
    return {
        key: value
        for key, value in found.items()
        if not isinstance(value, int) or value < min(window, positions or window)
    }


def _other_lengths(subject: Subject) -> dict[str, Any]:
    """Every key beside max_position_embeddings that some reader takes the window from, with its value."""
    parts = [subject.text] if subject.text is subject.config else [subject.text, subject.config]
    return {key: part[key] for part in parts for key in LENGTH_KEYS if key != POSITIONS and part.get(key) is not None}


def lengths(subject: Subject) -> Iterator[Finding]:
    """3. Every reader takes the window from a key that says it."""
    limit = subject.tokenizer_config.get("model_max_length")
    if subject.window is None:
        if subject.table is None:
            yield from _open_lengths(subject, limit)
        return
    if subject.rope and subject.rope.window_key and not subject.block:
        yield Finding(3, "note", f"its {subject.rope.window_key} says that the window is {subject.window}")
    for key, value in stale_lengths(subject).items():
        who = [name for name, reader in READERS.items() if key in reader.lengths]
        yield Finding(
            3,
            "wrong",
            f"{key} is {value!r} and the window {subject.window}: {joined(who)} may take the former; "
            + (f"ropewalk doctor --fix makes it {subject.window}" if subject.block else "mend the one that is wrong"),
            stops=True,
        )
    if is_short(limit, subject.window):
        # An export for vLLM has the original window everywhere.
        stops = bool(subject.block) and limit != subject.text.get(POSITIONS)
        sentence = f"{_tokenizer_stops(limit)}; the window is {subject.window}"
        yield Finding(3, "wrong" if stops else "note", sentence, stops)
    yield from _other_windows(subject)


def _open_lengths(subject: Subject, limit: Any) -> Iterator[Finding]:
    """Of an open window: which lengths wait for an answer, and a tokenizer's limit that is below a reading of it."""
    named_lengths = {POSITIONS: subject.text.get(POSITIONS), **_other_lengths(subject)}
    named = ", ".join(f"{key} {value!r}" for key, value in named_lengths.items() if value is not None)
    if subject.question is None:  # ropewalk reads no rotation, and no length is at fault
        yield Finding(3, "not checked", subject.rope_error)
        return
    sentence = f"the window is open, and no length can be held against it ({named or 'none is named'})"
    yield Finding(3, "not checked", sentence)
    windows = [reading.window for reading in subject.question.readings]
    if below := [str(window) for window in windows if is_short(limit, window)]:
        yield Finding(3, "note", f"{_tokenizer_stops(limit)}; the window may be {' or '.join(below)}")


def _tokenizer_stops(limit: Any) -> str:
    return f"the tokenizer warns of, or cuts, what is longer than model_max_length {limit}"


def is_short(limit: Any, window: int) -> bool:
    """Whether a tokenizer's model_max_length lies below a window."""
    return isinstance(limit, int | float) and not isinstance(limit, bool) and limit < min(window, NO_LIMIT)


def _other_windows(subject: Subject) -> Iterator[Finding]:
    """Windows that readers would serve though the keys are as they ought to be."""
    by_window: dict[int, list[str]] = {}
    for name, reader in subject.readers.items():
        served = reader.window(subject.config, subject.tokenizer_config)
        if served is not None and served != subject.window and not reader.refusal(subject.config):
            by_window.setdefault(served, []).append(name)
    for served, names in by_window.items():
        options = [f"{name} {_LENGTH_OPTIONS[name]} {subject.window}" for name in names if name in _LENGTH_OPTIONS]
        hint = f": give {joined(options)}" if options and served > (subject.window or 0) else ""
        yield Finding(3, "note", f"{', '.join(names)} would serve {served} tokens, not {subject.window}{hint}")


def other_tools_scaling(subject: Subject) -> Iterator[Finding]:
    """4. Which window a scaling of another tool is for."""
    if subject.instead_of_rope or subject.config.get("ropewalk") or READERS["transformers 5"].refusal(subject.config):
        return
    if subject.rope is None:
        if not theta_is_lost(subject) and not subject.unsupported:
            yield Finding(4, "note", f"ropewalk does not take this model: {subject.rope_error}")
        return
    if contradiction := _window_contradiction(subject):
        yield contradiction
    elif subject.question is not None:
        yield Finding(4, "note", str(subject.question))
    elif not subject.scaled:
        yield Finding(4, "note", f"no scaling is named, {_unscaled(subject.checkpoint.name, subject.rope.window)}")
    elif (scaling := subject.rope.scaling).method in _BY_FACTOR_ALONE and scaling.factor == 1:
        named = f"its {scaling.method} scaling has factor 1, which leaves the rotation unscaled"
        yield Finding(4, "note", f"{named}, {_unscaled(subject.checkpoint.name, subject.rope.window)}")


def warn_of_window(checkpoint: Checkpoint) -> None:
    """Say before a model is served what check 4 says of the window that its config claims."""
    for finding in other_tools_scaling(Subject.of(checkpoint)):
        _logger.warning("%s: %s", checkpoint.name, finding.sentence)


def _unscaled(name: str, window: int) -> str:
    """A length that somebody raised is no different, in a config without scaling, from one that was trained."""
    # A claim may be many times what was trained: two long windows alone would read equally badly.
    ladder = " ".join(str(each) for each in (window // 64, window // 16, window // 4, window) if each >= 64)
    return (
        f"and a config alone cannot tell whether {window} tokens were trained or only written into {POSITIONS}: "
        f"measure it by ropewalk perplexity {shlex.quote(name)} --data TEXT --windows {ladder} (perplexity falls from "
        "window to window as far as it was trained, and rises beyond)"
    )


def _window_contradiction(subject: Subject) -> Finding | None:
    """A max_position_embeddings that is neither end of original × factor = window.

    One below the whole window is no fault where it is the window before scaling, as Qwen2.5's cards leave it, or that and room for an
    answer, as Qwen3 has it (40960 of 32768 × 4). A length of twice the original and more claims a factor of its own, beside a factor of 1
    too, which leaves the rotation unscaled: of Llama 3's scaling no other factor can contradict its windows.
    """
    keys = READERS["transformers 5"].keys(subject.config)
    factor, original, positions = keys.entry.get("factor"), keys.original, keys.positions
    if not isinstance(factor, int | float) or not (original and positions):
        return None
    if keys.rope_type not in (_BY_FACTOR_ALONE if factor == 1 else _FACTOR_IS_RATIO):
        return None
    reach = round(original * factor)
    scaling = f"this {keys.rope_type} scaling is for {original} × {factor:g} = {reach} tokens"
    if reach == positions or (reach <= original and positions < 2 * original):
        return None
    if original <= positions < min(reach, 2 * original):
        if keys.rope_type != "yarn" or subject.question:  # readers of others multiply, and were asked about in check 3
            return None
        advice = f"raise it to {reach} for the whole window"
        return Finding(4, "note", f"{scaling}, and {POSITIONS} {positions} is what most readers serve; {advice}")
    other = positions / original
    claim = f"would be factor {other:.4g}" if keys.rope_type in _FACTOR_IS_RATIO else f"is {other:.4g} times as many"
    unscaled = ", by a rotation without scaling" if factor == 1 else ""
    return Finding(
        4,
        "wrong",
        f"{scaling}{unscaled}, and {POSITIONS} is {positions}, which {claim}. "
        + (_served_too_long(reach, positions) if reach < positions else _factor_too_large(factor, other, positions))
        + f" The config alone cannot tell which: until its maker's card does, serve at most {min(reach, positions)} tokens, and hold both "
        f"against each other by ropewalk perplexity, on two copies of the model",
    )


def _served_too_long(reach: int, positions: int) -> str:
    return (
        f"Either {POSITIONS} is too large: then readers serve {positions - reach} tokens for which the rotation was not made, and {reach} "
        "belongs there; or the factor is too small: then every token is rotated otherwise than in training."
    )


def _factor_too_large(factor: float, other: float, positions: int) -> str:
    twice = " (applied twice: it is the square of that)" if math.isclose(factor, other**2, rel_tol=1e-3) else ""
    return (
        f"Either the factor is too large{twice}: then every token is rotated otherwise than in training, and {other:.4g} belongs there; or "
        f"{POSITIONS} is too small: then readers stop at {positions} tokens, which harms nothing."
    )
