"""Rows of RULER and of what is like it: items, tasks by length, the effective length."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar, TypedDict

from ropewalk.records.rows import Alone, Count, Share, Tokens, Whole, check_shares
from ropewalk.sentences import joined


@dataclass(frozen=True)
class LongItem:
    """One item of a long-context task answered: what lets a killed `ruler` go on, and shows what a model wrote.

    `key` names everything that decides the score: the weights, the dtype, the prompt, the task's version. `texts` is a hash of the prompt and its answers.
    """

    kind: ClassVar[str] = "long_item"
    key: str
    task: str
    window: Tokens
    number: Whole
    score: float
    response: str
    answers: list[str]
    texts: str
    seconds: float = 0.0

    def __post_init__(self) -> None:
        check_shares(self.score)


@dataclass(frozen=True)
class LongTask:
    """One long-context task at one length (evals/long_context): the mean score of its items, 0 to 1, with its 95 % interval.

    `rule` says whose task it is like and the version of its items; `texts` is a hash of which prompts they were. `extrapolation`: the length is
    beyond the model's window.
    """

    kind: ClassVar[str] = "long_task"
    window: Tokens
    task: str
    rule: str
    items: Count
    score: float
    low: Share
    high: Share
    scores: list[float] = field(default_factory=list)
    seconds: float = 0.0
    texts: str = ""
    extrapolation: bool = False

    def __post_init__(self) -> None:
        check_shares(self.score, *self.scores)

    @property
    def is_of_ruler(self) -> bool:
        """Whether the task is one of RULER's thirteen."""
        return self.rule.startswith("RULER")


class LengthScore(TypedDict):
    """The mean over tasks at one length with its 95 % interval, and how it differs from that at the short window."""

    window: Whole
    score: float
    low: Share
    high: Share
    change: float
    change_low: float
    change_high: float


class Unfit(TypedDict):
    """A task that was left out at one length, since an item takes more tokens: `least` is what the first that does not fit takes, and others may take more."""

    task: str
    window: Whole
    least: Whole


#: RULER's tasks.
_THIRTEEN = 13


@dataclass(frozen=True)
class EffectiveLength(Alone):
    """How long a context is used, by the mean of `tasks` (evals/long_context/effective.py): lengths in tokens, 0 where the shortest one fails.

    `effective` is RULER's, of its `threshold`, and only where all thirteen of its tasks are there; `holds_to` is that against the `short` window,
    0 where nothing was right there.
    `left_out` has the tasks that could not be made, with the reason; `unfit` those that did not fit some length, which do not count in any mean.
    """

    kind: ClassVar[str] = "effective_length"
    tasks: list[str]
    by_window: list[LengthScore]
    threshold: float
    effective: Whole
    effective_low: Whole
    effective_high: Whole
    short: Tokens
    holds_to: Whole
    left_out: dict[str, str] = field(default_factory=dict)
    unfit: list[Unfit] = field(default_factory=list)

    @property
    def omissions(self) -> list[str]:
        """A sentence for each task that was left out, everywhere or at some lengths, and one that says of which tasks the means are."""
        sentences = [f"{task} is left out: {reason}" for task, reason in self.left_out.items()]
        at_lengths: dict[str, list[Unfit]] = {}
        for each in self.unfit:
            at_lengths.setdefault(each["task"], []).append(each)
        for task, cells in at_lengths.items():
            windows = joined(cell["window"] for cell in cells)
            sentences.append(
                f"{task} is left out at {windows} tokens: an item takes at least {max(cell['least'] for cell in cells)}"
            )
        if self.unfit:
            first, last = (self.by_window[place]["window"] for place in (0, -1))
            between = f"at {first}" if first == last else f"at every length from {first} to {last}"
            sentences.append(
                f"The means, and the lengths that follow from them, are of what was measured {between}: {', '.join(self.tasks)}"
            )
        return [f"{sentence}." for sentence in sentences]

    def besides(self, rows: Iterable[LongTask]) -> list[str]:
        """Of the rows of the same measurement those that count in no mean whatever their lengths, in a sentence with the reason; none where there are none."""
        others = list(dict.fromkeys(row.task for row in rows if row.task not in self.tasks and not row.is_of_ruler))
        if not others:
            return []
        count, are = ("counts", "it is none") if len(others) == 1 else ("count", "they are none")
        return [f"{joined(others)} {count} in no mean: {are} of RULER's thirteen tasks."]

    @property
    def in_words(self) -> str:
        """Two sentences: how long a context is used by RULER's threshold, and against the short window."""
        threshold = f"{100 * self.threshold:.1f} points"
        what = (
            "RULER's effective length"
            if len(self.tasks) == _THIRTEEN
            else f"By {', '.join(self.tasks)} alone the length"
        )
        sentence = f"{what} (every mean up to it above {threshold}) is {self.effective or self._below}{self._bounds}"
        longest = self.by_window[-1]
        if longest["window"] == self.short:
            return f"{sentence}."
        if self.holds_to == 0:
            return f"{sentence}. At {self.short} tokens nothing was right, so that no length can be worse than that."
        change, low, high = (f"{100 * longest[name]:+.1f}" for name in ("change", "change_low", "change_high"))
        return (
            f"{sentence}. Against {self.short} tokens no length up to {self.holds_to} is surely worse; at {longest['window']} the mean "
            f"differs by {change} points ({low} to {high})."
        )

    @property
    def measure(self) -> str:
        """What a length by this row is called."""
        return "RULER" if len(self.tasks) == _THIRTEEN else f"{', '.join(self.tasks)} alone"

    @property
    def holds(self) -> str:
        """To which length, behind "it holds", with its interval."""
        low, high = self.effective_low, self.effective_high
        if not self.effective:
            score, *ends = (f"{100 * self.by_window[0][name]:.1f}" for name in ("score", "low", "high"))
            asked = f"{100 * self.threshold:.1f}"
            mean = f"mean score there {score}, 95\u202f% interval {' to '.join(ends)}, of the {asked} it takes"
            up_to = f"95\u202f% interval up to {high}" if high else mean
            return f"not even at {self._shortest}, the shortest length measured, by {self.measure} ({up_to})"
        lowest = low or f"below {self._shortest}"
        return f"to {self.effective} by {self.measure} (95\u202f% interval {lowest} to {high})"

    @property
    def _shortest(self) -> int:
        return self.by_window[0]["window"]

    @property
    def _below(self) -> str:
        return f"below {self._shortest}, the shortest length measured"

    @property
    def _bounds(self) -> str:
        low, high = self.effective_low, self.effective_high
        if (low, high) == (0, self.by_window[-1]["window"]):
            return ", and so few items leave every length possible"
        if low == high:
            return ", and no other length measured is in its interval"
        return (
            f", 95 % interval {low or f'below {self._shortest}'} to {high}"
            if self.effective
            else f", 95 % interval up to {high}"
        )
