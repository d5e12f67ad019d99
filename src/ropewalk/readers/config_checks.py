"""The checks of a config.json: block, reach, readers that rotate otherwise (spelling_checks.py has the first, window_checks.py lengths).

in   a `Subject`
out  findings, a sentence each: rule, value, way out
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.objections import silent_fault
from ropewalk.readers.reader import BAD_VALUES, POSITIONS, Reader
from ropewalk.readers.rules import READERS
from ropewalk.readers.spelling_checks import same
from ropewalk.readers.subject import Subject

#: Readers that compute what transformers does; check 1 is of those.
_BY_TRANSFORMERS = ("transformers 4", "transformers 5", "peft", "lm-eval")
_DYNAMIC = (
    "dynamic scaling follows the length of each input in transformers and MLX; SGLang fixes it for the whole window, vLLM and llama.cpp leave "
    "it out"
)
#: No model has a tenth of it.
_MOST_LAYERS = 10_000


def block(subject: Subject) -> Iterator[Finding]:
    """2. The ropewalk block and the other keys say one thing, and original × factor = window."""
    if not subject.config.get("ropewalk"):
        return
    if subject.rope is None:
        if subject.table is None:
            yield Finding(2, "wrong", subject.rope_error, stops=True)
        return
    rope, positions = subject.rope, subject.text.get(POSITIONS)
    original, window = subject.block.get("original_window"), subject.block.get("window")
    if subject.question is not None:
        yield Finding(
            2,
            "wrong",
            f"the block says original window {original} and window {window}, but its factor is {rope.scaling.factor:g}; original × factor "
            "is the window: ropewalk doctor --fix mends it where max_position_embeddings names the window too",
            stops=True,
        )
    if positions not in (window, original):
        yield Finding(
            2,
            "wrong",
            f"the block says that the window is {window} and {POSITIONS} is {positions}; ropewalk doctor --fix makes it {window}",
            stops=True,
        )
    elif positions != window:
        yield Finding(
            2,
            "note",
            f"{POSITIONS} is {positions}, as vLLM and SGLang want it; transformers, lm-eval, llama.cpp and MLX take that for the window, "
            f"which is {window}",
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
    for name, reader in subject.readers.items():
        if subject.named_readers and (refusal := reader.refusal(subject.config)):
            how.setdefault(f"it is refused: {refusal}", []).append(f"{name} ({reader.version})")
        for fault in scored_otherwise(subject, reader):
            how.setdefault(fault, []).append(f"{name} ({reader.version})")
        computed = reader.inv_freq(subject.config)
        if computed is None or (name in _BY_TRANSFORMERS and not reader.scaling_is_ignored(subject.config)):
            continue
        if not same(computed, closed_form):
            sentence = _how_it_differs(subject, name, computed, closed_form)
            how.setdefault(sentence, []).append(f"{name} ({reader.version})")
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


def scored_otherwise(subject: Subject, reader: Reader) -> list[str]:
    """What a reader gets wrong beside the rotation, a sentence each: in code of its own, or by what it multiplies queries and keys by."""
    fault, computed = silent_fault(reader, subject.config), reader.inv_freq(subject.config)
    attention, closed_form = "", subject.closed_form
    if not (computed is None or closed_form is None or reader.name in _BY_TRANSFORMERS) and same(computed, closed_form):
        attention = _other_attention(subject, reader)
    return [sentence for sentence in (fault, attention) if sentence]


def _other_attention(subject: Subject, reader: Reader) -> str:
    """How much a reader that rotates rightly multiplies queries and keys by, if not by what the config says; else empty."""
    reads, rope = reader.attention_factor(subject.config), subject.rope
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
