"""Which window a config names: the one before its scaling or the one after. The one place that decides it.

in   a scaling, the lengths that a config names, what the user said
out  `Windows`: the original window and the window now; or a `WindowQuestion` where the config leaves it open

Tools disagree on what `max_position_embeddings` of a scaled model is (vLLM, LongLoRA and Vicuna keep the original window there,
transformers, llama.cpp and lm-eval expect the new one), and the wrong guess squares the factor. What holds in every reading is
original window x factor = window; two exceptions are known, Llama 3's scaling and a family's own (`Family.pretrained_window`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ropewalk.errors import UserError
from ropewalk.rope.scaling import Scaling

#: Keys in which configs of many families name a length beside `max_position_embeddings`: readers take the first or the smallest of
#: them, whatever the family. `extend` rewrites those that are there.
LENGTH_KEYS = (
    "max_sequence_length",
    "model_max_length",
    "seq_length",
    "max_seq_len",
    "max_seq_length",
    "seq_len",
    "n_positions",
    "n_ctx",
    "max_target_positions",
)
#: Keys in which a config names the window before scaling.
ORIGINAL_KEYS = ("original_max_position_embeddings", "initial_context_length")
#: Published factors are rounded to a few digits: so near is equal.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Windows:
    """Tokens: the window of pretraining, and the window that the model is meant for now."""

    original: int
    window: int

    def __str__(self) -> str:
        return f"--current-window {self.window} (original window {self.original})"


@dataclass(frozen=True)
class Answers:
    """What the user said of the windows; None where nothing was said."""

    current_window: int | None = None
    original_window: int | None = None

    def allow(self, windows: Windows) -> bool:
        """Whether a reading is one that the user may mean."""
        return self.current_window in (None, windows.window) and self.original_window in (None, windows.original)

    def __str__(self) -> str:
        options = {"--current-window": self.current_window, "--original-window": self.original_window}
        return " ".join(f"{option} {tokens}" for option, tokens in options.items() if tokens is not None)


NOTHING_SAID = Answers()


@dataclass(frozen=True)
class WindowQuestion:
    """What a config leaves open.

    Attributes:
        scaling: the scaling that it names.
        said: what it does say of windows.
        readings: what it may mean, one of which the user has to choose.
    """

    scaling: Scaling
    said: str
    readings: tuple[Windows, ...]

    def __str__(self) -> str:
        return (
            f"this model is already scaled ({self.scaling.method}, factor {self.scaling.factor:g}), and {self.said}; add "
            + " or ".join(map(str, self.readings))
        )


class WindowDoubt(WindowQuestion):
    """What a config says, and what somebody may have written into it by mistake: one length stands there for both windows."""

    def __str__(self) -> str:
        after, before = self.readings
        otherwise = ", and every token is rotated otherwise than in training" if self.scaling.original_is_named else ""
        return (
            f"its config has {before.original} both for the window before the scaling ({self.scaling.method}, factor {self.scaling.factor:g}) and "
            f"for max_position_embeddings. Either that is meant, as Qwen2.5's cards switch YaRN on: then the window is {before.window}, most "
            f"readers serve {before.original} of it, and --current-window {before.window} says so; or {after.window} is the window after the "
            f"scaling: then the original window in its config is wrong, {after.original} belongs there{otherwise}. The config alone cannot tell "
            f"which; that of the model it was made from does, whose max_position_embeddings is {before.original} or {after.original}, or a "
            "perplexity of two copies, one with each"
        )


def agree(scaling: Scaling, windows: Windows, pretrained_window: int | None = None) -> bool:
    """Whether original window x factor = window, or the scaling or the family is a known exception.

    Args:
        scaling: relative to the original window.
        windows: tokens.
        pretrained_window: the family's, where its own factor is larger than the ratio of its windows.
    """
    reached = windows.original * scaling.factor
    if not scaling.factor_is_ratio:
        return windows.original <= windows.window
    if windows.original == pretrained_window and windows.original <= windows.window <= reached:
        return True
    return abs(reached / windows.window - 1) <= _TOLERANCE


def refuse_disagreement(scaling: Scaling, windows: Windows, pretrained_window: int | None = None) -> None:
    """Raises UserError for windows that are not what the factor says: nothing of the kind is written."""
    if not agree(scaling, windows, pretrained_window):
        raise UserError(
            f"original window x factor = window, but {windows.original} x {scaling.factor:g} is not {windows.window}; say what holds "
            "with --original-window and --current-window"
        )


def readings(
    scaling: Scaling, named: int, original: int | None = None, pretrained_window: int | None = None, *, after: bool
) -> tuple[Windows, ...]:
    """What the lengths of a config may mean; more than one reading where the config leaves it open.

    Args:
        scaling: as the config names it.
        named: its max_position_embeddings.
        original: the window before scaling, where the config names that.
        pretrained_window: the family's, where its own factor is larger than the ratio of its windows.
        after: the family is known to name the window after scaling.
    """
    factor = scaling.factor
    if factor == 1 and not (scaling.original_is_named and original):
        return (Windows(named, named),)
    if not scaling.factor_is_ratio:
        return (Windows(min(original or named, named), named),)
    if scaling.original_is_named:
        return (Windows(original or named, round((original or named) * factor)),)
    if pretrained_window and agree(scaling, Windows(pretrained_window, named), pretrained_window):
        return (Windows(pretrained_window, named),)
    both = Windows(max(1, round(named / factor)), named), Windows(named, round(named * factor))
    return tuple(windows for windows in both if original == windows.original) or (both[:1] if after else both)


def doubt(scaling: Scaling, named: int, original: int | None, lengths: Iterable[int]) -> WindowDoubt | None:
    """The doubt where a config names one length as max_position_embeddings and as the window before its scaling, and no longer one.

    What is computed goes by the config, so that no command but `doctor` asks. Any of the `lengths` beside it (tokens, the tokenizer's too)
    that is longer, and within the scaling's reach, says that it is meant.
    """
    whole = round(named * scaling.factor)
    ends_there = not any(named < each <= whole for each in lengths)
    if original != named or whole <= named or not scaling.factor_is_ratio or not ends_there:
        return None
    both = Windows(max(1, round(named / scaling.factor)), named), Windows(named, whole)
    return WindowDoubt(scaling, "", both)


def readings_of_block(scaling: Scaling, block: Windows, pretrained_window: int | None = None) -> tuple[Windows, ...]:
    """What a `ropewalk` block means: what it says, or one of two readings where its windows and its factor disagree."""
    if agree(scaling, block, pretrained_window):
        return (block,)
    by_window = Windows(max(1, round(block.window / scaling.factor)), block.window)
    return by_window, Windows(block.original, round(block.original * scaling.factor))


def settled(
    scaling: Scaling, found: tuple[Windows, ...], answers: Answers, pretrained_window: int | None = None
) -> tuple[Windows, ...]:
    """The readings that are left once the user's answers are heard.

    Raises:
        UserError: an answer that contradicts the config.
    """
    if left := tuple(windows for windows in found if answers.allow(windows)):
        return left
    unscaled = answers.current_window if scaling.factor == 1 else None
    original = answers.original_window or unscaled or found[0].original
    windows = Windows(original, answers.current_window or found[0].window)
    kept = not scaling.original_is_named or windows.original == found[0].original
    if kept and agree(scaling, windows, pretrained_window):
        return (windows,)
    mend = ""
    if scaling.original_is_named and answers.current_window:
        belongs = max(1, round(answers.current_window / scaling.factor))
        mend = f"; if it is so all the same, the original window in the config is wrong, and {belongs} belongs there"
    raise UserError(
        f"original window x factor = window, and {answers} does not fit the config's {scaling.method} scaling with factor "
        f"{scaling.factor:g}; say {' or '.join(map(str, found))}{mend}"
    )


def answered_by_keys(
    both: tuple[Windows, ...], lengths: Mapping[str, int], tokenizer_length: int | None
) -> tuple[tuple[Windows], str] | None:
    """The one of two readings that a second length confirms, and which length did; None if none does, or lengths disagree.

    A length equal to max_position_embeddings tells nothing, since both readings have it. A tokenizer's length confirms the longer
    window alone: a shorter one is often a default that nobody set.
    """
    after, before = both
    meanings = {key: before for key, tokens in lengths.items() if tokens == before.window}
    meanings |= {key: after for key, tokens in lengths.items() if tokens == after.original}
    if tokenizer_length == before.window:
        meanings["tokenizer's model_max_length"] = before
    if len(set(meanings.values())) != 1:
        return None
    key, windows = next(iter(meanings.items()))
    return (windows,), key


def second_lengths(*parts: Mapping[str, Any]) -> dict[str, int]:
    """Every length beside max_position_embeddings that these parts of a config name, by its key."""
    named = {key: part.get(key) for part in parts for key in LENGTH_KEYS}
    return {key: value for key, value in named.items() if isinstance(value, int) and not isinstance(value, bool)}


def lengthened(part: dict[str, Any], windows: Windows) -> None:
    """Rewrite every length that a part of a config names: readers take the first of them, or the smallest."""
    for key in (*LENGTH_KEYS, *ORIGINAL_KEYS):
        if part.get(key) is not None:
            part[key] = windows.original if key in ORIGINAL_KEYS else windows.window
