"""What is said of a run's data before its first step: what of conversations is in no window, what is too short, what is read too
often, what hardly counts.

in   the sources of a run, packed
out  warnings, each with a way out
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ropewalk.data.best_fit import FittedBlocks, Omitted
from ropewalk.data.mixture import Part, Reading
from ropewalk.distributed.mesh import Mesh
from ropewalk.sentences import counted
from ropewalk.settings.train import TrainSettings

_logger = logging.getLogger(__name__)
#: A share of long text below which a run is warned about, and of conversations' tokens that are left out above which the warning stands out.
_FEW, _MOST = 0.1, 0.5
#: How often data is read with profit (Muennighoff et al. 2023, arXiv 2305.16264), and how often before a run is warned.
_PASSES, _MOST_PASSES = 4, 16
#: How many times fewer scored tokens a source has in a window than the others before it is told that its weight is not what it looks like.
_SPARSE = 2


def warn_of_data(
    settings: TrainSettings, parts: Sequence[Part], readings: Sequence[Reading], window: int, mesh: Mesh
) -> None:
    """Log what of the sources a run will not read, and where what it reads is too short, too little or hardly scored. window: tokens in memory."""
    for part in parts:
        if isinstance(part.rows, FittedBlocks) and part.rows.omitted.cut:
            _logger.warning(_omission(part, part.rows.omitted, settings))
    half = window // 2
    long = sum(part.share * part.long_share(half) for part in parts)
    if long < _FEW:
        of = "a chunk" if settings.mode == "pose" else "the window that the model is to keep"
        _logger.warning(
            f"{long:.0%} of what is read stands in documents of at least {half} tokens, half {of}; "
            "training on short text alone wears a long window down: add long documents, as in --data books/ 0.7 short.jsonl 0.3"
        )
    for part, reading in zip(parts, readings, strict=True):
        _warn_of_sparse_labels(part, reading, settings)
    _warn_of_repetition(max(parts, key=lambda part: part.share / len(part.rows)), settings, mesh)


def _omission(part: Part, omitted: Omitted, settings: TrainSettings) -> str:
    """What of a source's conversations is in no window, and at which length less would be left out."""
    length, share = part.length, omitted.left_out / omitted.tokens
    counts = {
        f"left out whole, since not even the first answer ends within {length} tokens": omitted.whole,
        f"read up to the last answer that ends within {length} tokens": len(omitted.cut) - omitted.whole,
    }
    listed = "; ".join(f"{what}: {count:,}" for what, count in counts.items() if count)
    return (
        f"{'MOST TOKENS OF THE CONVERSATIONS ARE NOT READ. ' * (share > _MOST)}{part.name}, conversations: {omitted.conversations:,}, of {omitted.tokens:,} tokens "
        f"together; {listed}. In all {omitted.left_out:,} tokens ({share:.0%}) are not read; {_longer(part, omitted, settings)}"
    )


def _longer(part: Part, omitted: Omitted, settings: TrainSettings) -> str:
    """The option by which at most half as much is left out, else the best there is, and what is left out then."""
    option, most = "--window", max(each.tokens for each in omitted.cut) + part.length
    if settings.mode == "pose":
        # Whole steps below the window: a chunk that is nearly all of it is --mode full with more work.
        option, most = "--chunk-window", settings.window - min(part.length, settings.window - part.length)
    elif part.length < part.rows.window:
        option, most = "a length of", part.rows.window
    longer = omitted.enough(part.length, most)
    halved = longer is not None
    longer = longer or omitted.best(part.length, most)
    then = omitted.at(longer) if longer > part.length else omitted
    if then.left_out == omitted.left_out:
        return f"no {option} up to {most} would read more: split long conversations, or leave it so"
    leaves = f"with {option} {longer}, {_taken(omitted.whole, then.whole)}{then.left_out / omitted.tokens:.0%} of the tokens would be left out; a step would take more memory and time"
    if halved:
        return leaves
    read, now = omitted.tokens - then.left_out, omitted.tokens - omitted.left_out
    times = f", {read / now:.1f} times as many tokens read" if now else ""
    return f"{leaves}; it is the best up to {most}{times}, and splitting long conversations leaves out less"


def _taken(whole: int, then: int) -> str:
    """How many of the conversations that are left out whole a longer chunk would read."""
    if not whole:
        return ""
    some = (
        "the one conversation" if (whole, then) == (1, 0) else f"{whole - then} of the {counted(whole, 'conversation')}"
    )
    return f"{some} left out whole would be read at least in part, and "


def _warn_of_sparse_labels(part: Part, reading: Reading, settings: TrainSettings) -> None:
    """Of a source whose share of the loss is far below that of the windows: a step's loss is a mean over scored tokens."""
    share, scored = reading.share, max(reading.scored_share or 0.0, 1e-6)
    times = (
        share * (1 - scored) / (scored * (1 - share)) if share < 1 else 1.0
    )  # of its weight, the others' as they are
    if times <= _SPARSE:
        return
    answers = part.tokens.marks is not None and settings.loss != "all"
    why, ways = (
        ("of conversations the answers alone are", "conversations with longer answers, or --loss all")
        if answers
        else ("padding is not", "or text that fills its windows")
    )
    _logger.warning(
        f"{part.name} is {share:.1%} of what is read and {scored:.1%} of what is scored, over which the loss is a mean: {why} scored. If it is to count for {share:.1%} of the "
        f"loss, give it {times:.3g} times the weight, {ways}"
    )


def _warn_of_repetition(part: Part, settings: TrainSettings, mesh: Mesh) -> None:
    """Of a source that is read more often than there is anything to learn from, and how it is read a few times."""
    passes = settings.steps * settings.batch * part.share / len(part.rows)
    if passes <= _MOST_PASSES:
        return
    windows = len(part.rows) / part.share  # of all sources, in which this one is read once
    batch = min(settings.batch, max(1, int(windows) // mesh.data_size) * mesh.data_size)
    steps = max(1, round(_PASSES * windows / batch))
    fewer = f"--batch-size {batch} --steps {steps}" if batch < settings.batch else f"--steps {steps}"
    _logger.warning(
        f"{part.name} is read {passes:,.0f} times over, and from {_PASSES} times on reading again teaches less and less (arXiv 2305.16264): give more "
        f"--data, or {fewer}, which reads it {counted(round(max(1, steps * batch / windows)), 'time')}"
    )
