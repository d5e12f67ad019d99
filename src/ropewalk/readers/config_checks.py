"""The checks of a config.json: block, lengths, windows, reach, readers that rotate otherwise (spelling_checks.py has the first).

in   a `Subject`
out  findings, a sentence each: rule, value, way out
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.objections import silent_fault
from ropewalk.readers.reader import BAD_VALUES, NO_LIMIT, ORIGINAL, POSITIONS
from ropewalk.readers.rules import READERS
from ropewalk.readers.spelling_checks import same, theta_is_lost
from ropewalk.readers.subject import Subject

#: Every key that some reader takes the window from.
LENGTH_KEYS = tuple(dict.fromkeys(key for reader in READERS.values() for key in reader.lengths))
#: Readers that compute what transformers does; check 1 is of those.
_BY_TRANSFORMERS = ("transformers 4", "transformers 5", "peft", "lm-eval")
_DYNAMIC = (
    "dynamic scaling follows the length of each input in transformers and MLX; SGLang fixes it for the whole window, vLLM and llama.cpp leave "
    "it out"
)
#: No model has a tenth of it.
_MOST_LAYERS = 10_000
#: How a reader is told to serve less than it would.
_LENGTH_OPTIONS = {"vllm": "--max-model-len", "sglang": "--context-length"}


def block(subject: Subject) -> Iterator[Finding]:
    """2. The ropewalk block and the other keys say one thing, and original × factor = window."""
    if not subject.config.get("ropewalk"):
        return
    if subject.rope is None:
        if subject.table is None:
            yield Finding(2, "wrong", subject.rope_error)
        return
    rope, positions = subject.rope, subject.text.get(POSITIONS)
    original, window = subject.block.get("original_window"), subject.block.get("window")
    if subject.question is not None:
        yield Finding(
            2,
            "wrong",
            f"the block says original window {original} and window {window}, but its factor is {rope.scaling.factor:g}; original × factor "
            "is the window: ropewalk doctor --fix mends it where max_position_embeddings names the window too",
        )
    if positions not in (window, original):
        yield Finding(
            2,
            "wrong",
            f"the block says that the window is {window} and {POSITIONS} is {positions}; ropewalk doctor --fix makes it {window}",
        )
    elif positions != window:
        yield Finding(
            2,
            "note",
            f"{POSITIONS} is {positions}, as vLLM and SGLang want it; transformers, lm-eval, llama.cpp and MLX take that for the window, "
            f"which is {window}",
        )


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
    if subject.window is None:
        if subject.table is None:
            named_lengths = {POSITIONS: subject.text.get(POSITIONS), **_other_lengths(subject)}
            named = ", ".join(f"{key} {value!r}" for key, value in named_lengths.items() if value is not None)
            yield Finding(
                3, "note", f"the window is open, and no length can be held against it ({named or 'none is named'})"
            )
        return
    if subject.rope and subject.rope.window_key and not subject.block:
        yield Finding(3, "note", f"its {subject.rope.window_key} says that the window is {subject.window}")
    for key, value in stale_lengths(subject).items():
        who = [name for name, reader in READERS.items() if key in reader.lengths]
        yield Finding(
            3,
            "wrong",
            f"{key} is {value!r} and the window {subject.window}: {' and '.join(who)} may take the former; "
            + (f"ropewalk doctor --fix makes it {subject.window}" if subject.block else "mend the one that is wrong"),
        )
    limit = subject.tokenizer_config.get("model_max_length")
    if is_short(limit, subject.window):
        # An export for vLLM has the original window everywhere.
        verdict = "wrong" if subject.block and limit != subject.text.get(POSITIONS) else "note"
        yield Finding(
            3,
            verdict,
            f"the tokenizer warns of, or cuts, what is longer than model_max_length {limit}; the window is {subject.window}",
        )
    yield from _other_windows(subject)


def is_short(limit: Any, window: int) -> bool:
    """Whether a tokenizer's model_max_length lies below a window."""
    return isinstance(limit, int | float) and not isinstance(limit, bool) and limit < min(window, NO_LIMIT)


def _other_windows(subject: Subject) -> Iterator[Finding]:
    """Windows that readers would serve though the keys are as they ought to be."""
    by_window: dict[int, list[str]] = {}
    for name, reader in READERS.items():
        served = reader.window(subject.config, subject.tokenizer_config)
        if served is not None and served != subject.window and not reader.refusal(subject.config):
            by_window.setdefault(served, []).append(name)
    for served, names in by_window.items():
        options = [f"{name} {_LENGTH_OPTIONS[name]} {subject.window}" for name in names if name in _LENGTH_OPTIONS]
        hint = f": give {' and '.join(options)}" if options and served > (subject.window or 0) else ""
        yield Finding(3, "note", f"{', '.join(names)} would serve {served} tokens, not {subject.window}{hint}")


def other_tools_scaling(subject: Subject) -> Iterator[Finding]:
    """4. Which window a scaling of another tool is for."""
    if subject.instead_of_rope or subject.config.get("ropewalk") or READERS["transformers 5"].refusal(subject.config):
        return
    if subject.rope is None:
        if not theta_is_lost(subject) and not subject.unsupported:
            yield Finding(4, "note", f"ropewalk does not take this model: {subject.rope_error}")
        return
    if subject.question is not None:
        yield Finding(4, "note", str(subject.question))
        return
    keys = READERS["transformers 5"].keys(subject.config)
    factor, original = keys.entry.get("factor"), keys.entry.get(ORIGINAL)
    if keys.rope_type == "yarn" and isinstance(factor, int | float) and isinstance(original, int):
        reach = round(original * factor)
        if reach != keys.positions:
            yield Finding(
                4,
                "note",
                f"this YaRN is for {original} × {factor:g} = {reach} tokens, and {POSITIONS} {keys.positions} is what readers serve; raise it "
                f"to {reach} for the whole window",
            )


def reach(subject: Subject) -> Iterator[Finding]:
    """6. Layers that need the longer window see all of it."""
    if subject.table is not None:
        yield from _local_layers(subject.table)
    if subject.instead_of_rope or subject.unsupported:
        return
    window, layers = subject.window or subject.text.get(POSITIONS), subject.text.get("num_hidden_layers", 0)
    if isinstance(layers, int | float) and layers > _MOST_LAYERS:  # the layout is a list
        yield Finding(6, "wrong", f"num_hidden_layers is {layers:.3g}; put the model's own number there")
        return
    try:
        layout = subject.checkpoint.layers
    except (UserError, *BAD_VALUES) as error:
        yield Finding(6, "wrong", f"which layers slide cannot be read: {error}")
        return
    if not isinstance(window, int):
        return
    if not layout.scaled(window):
        verdict = "wrong" if subject.block and subject.scaled else "note"
        yield Finding(6, verdict, f"no layer that rotates sees all {window} tokens ({layout})")
    elif layout.within(window).sliding or not all(layer.rotates for layer in layout.attention):
        yield Finding(6, "note", str(layout))


def _local_layers(table: PositionTable) -> Iterator[Finding]:
    try:
        if local := table.local_layers(table.window):
            yield Finding(6, "note", local)
    except UserError as error:
        yield Finding(6, "wrong" if table.scaling.factor > 1 else "note", str(error))


def rotate_otherwise(subject: Subject) -> Iterator[Finding]:
    """7. Readers that leave the scaling out, or compute another rotation from the same keys."""
    closed_form = subject.closed_form
    if subject.dynamic:
        yield Finding(7, "note", _DYNAMIC)
    if closed_form is None:
        return
    how: dict[str, list[str]] = {}
    for name, reader in READERS.items():
        if fault := silent_fault(reader, subject.config):
            how.setdefault(fault, []).append(f"{name} ({reader.version})")
        computed = reader.inv_freq(subject.config)
        if computed is None or (name in _BY_TRANSFORMERS and not reader.scaling_is_ignored(subject.config)):
            continue
        if same(computed, closed_form):
            if wrong := _other_attention(subject, name):
                how.setdefault(wrong, []).append(f"{name} ({reader.version})")
            continue
        how.setdefault(_how_it_differs(subject, name, computed, closed_form), []).append(f"{name} ({reader.version})")
    yield from (Finding(7, "note", f"{', '.join(names)}: {sentence}") for sentence, names in how.items())


def _how_it_differs(subject: Subject, name: str, computed: np.ndarray, closed_form: np.ndarray) -> str:
    if READERS[name].scaling_is_ignored(subject.config):
        scaling = subject.rope.scaling if subject.rope else None
        by_hand = name == "llama.cpp" and scaling is not None and scaling.method == "linear"
        way_out = f": run it with --rope-freq-scale {1 / scaling.factor:g}" if by_hand and scaling else ""
        return f"the scaling of {subject.family} models is left out{way_out}"
    if computed.shape != closed_form.shape:
        return f"rotated are {2 * computed.size} coordinates of a head, not {2 * closed_form.size}"
    with np.errstate(all="ignore"):  # a pair may stand still, and a hostile factor may make one overflow
        worst = int(np.nan_to_num(np.abs(computed - closed_form) / closed_form).argmax())
    return (
        f"pair {worst} turns by {computed[worst]:.6g} radians a token, where the config says {closed_form[worst]:.6g}"
    )


def _other_attention(subject: Subject, name: str) -> str:
    """How much a reader that rotates rightly multiplies queries and keys by, if not by what the config says; else empty."""
    reads, rope = READERS[name].attention_factor(subject.config), subject.rope
    wanted = rope.attention_factor(rope.scaled_layers) if rope else None
    if reads is None or wanted is None or math.isclose(reads, wanted, rel_tol=1e-5):
        return ""
    return f"queries and keys are multiplied by {reads:.6g}, where the config says {wanted:.6g}"


def later_on(subject: Subject) -> Iterator[Finding]:
    """11. What goes wrong after loading, and is no fault of the files."""
    if subject.instead_of_rope:
        return
    yield Finding(
        11,
        "note",
        "model.half() or .to(float16) after loading rounds inv_freq too (up to 0.2 % in bfloat16): load with dtype=… instead"
        + (
            "; transformers reads a GGUF of this model without its scaling, whatever the file says"
            if subject.scaled and subject.family != "gpt_oss"
            else ""
        ),
    )
