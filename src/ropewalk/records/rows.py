"""The kinds of rows: what was measured, field by field, with units.

in   figures
out  dataclasses; `kind` is what a record's line calls them. kinds.py has the table of them, downstream.py those of benchmarks and
     summaries

A figure that is not finite is NaN here and null in a file. What a field's type cannot say, `__post_init__` checks, so that a
row that was edited into nonsense is refused on reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NotRequired, TypedDict

from msgspec import Meta

from ropewalk.checkpoint.model_info import ModelInfo

if TYPE_CHECKING:
    import pandas

#: Whole numbers above 0. No measurement reaches the upper bound, so a row beyond it was edited or damaged.
Tokens = Annotated[int, Meta(gt=0, lt=10**12)]
Count = Annotated[int, Meta(gt=0, lt=10**12)]
#: From 0 on.
Whole = Annotated[int, Meta(ge=0, lt=10**12)]
#: Of all there is, but for rounding.
Share = Annotated[float, Meta(ge=-1e-9, le=1 + 1e-9)]


@dataclass(frozen=True)
class Run:
    """The header of a run: what was asked, of what, where, with which versions."""

    kind: ClassVar[str] = "run"
    id: str
    command: str
    started: str
    model: ModelInfo
    seed: int
    device: str
    dtype: str
    versions: dict[str, str]
    settings: dict[str, Any] = field(default_factory=dict)


class Alone:
    """A row that a function returns by itself: the frame and the table of `Rows`, one line long."""

    def to_pandas(self) -> pandas.DataFrame:
        """As `Rows.to_pandas`."""
        from ropewalk.records.tables import Rows  # which knows measurements, and so rows

        return Rows([self]).to_pandas()

    def _repr_html_(self) -> str:
        from ropewalk.records.tables import Rows

        return Rows([self])._repr_html_()


class DocumentLoss(TypedDict):
    """One document of a perplexity: its scored tokens and the sum of their negative log-likelihoods, in nats; `text` is a hash of its text."""

    name: str
    tokens: Whole
    nll: float
    text: NotRequired[str]


@dataclass(frozen=True)
class Perplexity:
    """exp of the token-weighted mean negative log-likelihood; the definition is in evals/perplexity/measure.py.

    `low` and `high` bound the 95 % interval over documents (Student's). `skipped` counts documents too short for the window. `convention` is "ropewalk" or whose rule was followed.
    `extrapolation`: the window is beyond the model's own. `texts` is a hash of which texts were read: by it, and not by their names in `data`, two rows are of the same documents.
    """

    kind: ClassVar[str] = "perplexity"
    window: Tokens
    stride: Tokens
    perplexity: float
    low: float
    high: float
    documents: Whole
    skipped: Whole
    tokens: Whole
    bos: bool
    convention: str = "ropewalk"
    data: str = ""
    estimate: bool = False
    seconds: float = 0.0
    peak_bytes: int = 0
    per_document: list[DocumentLoss] = field(default_factory=list)
    texts: str = ""
    extrapolation: bool = False

    def __post_init__(self) -> None:
        if self.perplexity <= 0:
            raise ValueError(f"a perplexity is above 0, got {self.perplexity}")

    @property
    def says_nothing(self) -> bool:
        """Whether its interval leaves nearly everything open: one bound is four times the other, or more."""
        return self.high >= 4 * self.low  # False where there is none

    @property
    def lacking(self) -> str:
        """What there was too little of, where the interval says nothing."""
        return f"too few {'windows' if self.estimate else 'documents'}"

    @property
    def more(self) -> float:
        """How many times as much would bring an interval of ± 10 %, which narrows with the root of what is read."""
        return (
            (math.log(self.high / max(self.low, 1e-9)) / (2 * math.log(1.1))) ** 2 if self.high < math.inf else math.inf
        )


class PlaceGain(TypedDict):
    """Context gain of the tokens at places start .. stop - 1 of their documents, in nats a token, with its 95 % interval over documents."""

    start: Whole
    stop: Whole
    tokens: Whole
    gain: float
    low: float
    high: float


class DocumentLosses(DocumentLoss):
    """One document of a context gain: `nll` is in the whole context, `short_nll` in the short one, `key_nll` that of its key tokens in the whole one."""

    short_nll: float
    key_tokens: Whole
    key_nll: float


@dataclass(frozen=True)
class ContextGain(Alone):
    """nll in the `short` context less nll in the whole one of `window` tokens, in nats a token, and LongPPL; evals/perplexity/context_gain.py defines them.

    `low` and `high` bound the gain's 95 % interval over documents (Student's), or of an estimate on these documents. `tokens` were read twice;
    the perplexities are of them, `longppl` of the `key_tokens` among them, which `evaluator` chose (empty: the model itself). `skipped`, `texts`,
    `estimate` and `extrapolation` as of `Perplexity`. An estimate's ranges of places are of the windows drawn.
    """

    kind: ClassVar[str] = "context_gain"
    window: Tokens
    short: Tokens
    stride: Tokens
    gain: float
    low: float
    high: float
    perplexity: float
    short_perplexity: float
    longppl: float
    longppl_low: float
    longppl_high: float
    tokens: Whole
    key_tokens: Whole
    documents: Whole
    skipped: Whole
    bos: bool
    evaluator: str = ""
    data: str = ""
    estimate: bool = False
    seconds: float = 0.0
    by_place: list[PlaceGain] = field(default_factory=list)
    per_document: list[DocumentLosses] = field(default_factory=list)
    texts: str = ""
    extrapolation: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.key_tokens <= self.tokens:
            raise ValueError(f"key tokens are some of the {self.tokens} tokens, got {self.key_tokens}")


@dataclass(frozen=True)
class Passkey:
    """One depth of the passkey test: of `trials` prompts of `window` tokens with the key `k` tokens before the end."""

    kind: ClassVar[str] = "passkey"
    window: Tokens
    k: Whole
    trials: Count
    successes: Whole
    digits_right: Whole = 0
    #: Where the key really stands: k, but for what fits between the header and the question.
    placed: Whole = 0

    def __post_init__(self) -> None:
        _check_successes(self.successes, self.trials)


@dataclass(frozen=True)
class PasskeySummary(Alone):
    """k_max: the largest k such that every k' <= k succeeds in at least 20 % of the trials (section 3.3); 0 if none."""

    kind: ClassVar[str] = "passkey_summary"
    window: Tokens
    k_max: Whole
    depths: Count
    trials: Count
    accuracy: Share
    seconds: float = 0.0
    #: 95 % interval of the accuracy over all prompts.
    low: Share = 0.0
    high: Share = 1.0
    #: 95 % interval of k_max, from what the trials of all depths leave open (evals/intervals.py, reach_interval).
    k_low: Whole = 0
    k_high: Whole = 0
    #: Whether the prompt ended after the blank before the key or before it (a matter of the tokenizer); the key's tokens.
    after_blank: bool | None = None
    key_tokens: Whole = 0
    #: Where the key of k_max really stood, as in `Passkey`; 0 where that is not on record. Whether the window is beyond the model's own.
    placed: Whole = 0
    extrapolation: bool = False

    def __post_init__(self) -> None:
        if max(self.k_max, self.k_low, self.k_high) > self.window:
            raise ValueError(
                f"no k is beyond the window of {self.window}, got {self.k_max} ({self.k_low} to {self.k_high})"
            )

    @property
    def reach(self) -> str:
        """k_max in words, with how far back a key really stood if header or question left no room for it at k_max."""
        moved = f" (a key stood at most {self.placed} back)" if 0 < self.placed < self.k_max else ""
        return f"{self.k_max} of {self.window} tokens{moved}"

    @property
    def says_nothing(self) -> bool:
        """Whether the trials leave every k_max open."""
        return (self.k_low, self.k_high) == (0, self.window)


@dataclass(frozen=True)
class Step:
    """One optimiser step. `loss` is nats a token over the whole batch; `seconds` the step's own wall time.

    `peak_bytes` of memory were in use at most so far, and `reserved_bytes` held by PyTorch for them, holes included (0 on a CPU). `retries` counts how
    often the step ran out of memory and was begun again with less kept. `mfu` is a share of the run's own matrix rate, `mfu_of_data_sheet` of the maker's.
    """

    kind: ClassVar[str] = "step"
    step: Whole
    loss: float
    learning_rate: float
    grad_norm: float
    tokens: Whole
    tokens_per_second: float
    seconds: float
    mfu: float | None = None
    peak_bytes: int = 0
    seconds_left: float = 0.0
    reserved_bytes: int = 0
    retries: Whole = 0
    mfu_of_data_sheet: float | None = None


@dataclass(frozen=True)
class DocumentScore:
    """One document scored in one window: what lets a killed perplexity run go on. `nll` is a sum, in nats.

    `key` names everything that decides the figure: the weights, the dtype, the document's tokens, window, stride.
    """

    kind: ClassVar[str] = "document_score"
    key: str
    document: str
    window: Tokens
    stride: Tokens
    tokens: Whole
    #: At least 0, but for rounding.
    nll: Annotated[float, Meta(gt=-1)]
    seconds: float = 0.0


@dataclass(frozen=True)
class DocumentGain:
    """One document read with a short and with the whole context: what lets a killed `gain` go on.

    `key` names everything that decides the figures. `sums` are five lists over ranges of places: tokens, nll in the whole context and in the short
    one, key tokens, and their nll in the whole context.
    """

    kind: ClassVar[str] = "document_gain"
    key: str
    document: str
    sums: list[list[float]]
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if len(self.sums) != 5:
            raise ValueError(f"five sums are kept of a document, got {len(self.sums)}")
        _check_one_length("ranges", *self.sums)
        if any(not 0 <= key <= tokens for tokens, key in zip(self.sums[0], self.sums[3], strict=True)):
            raise ValueError("key tokens are some of those that were read")


@dataclass(frozen=True)
class AttentionScores:
    """One layer's scores before the softmax, by distance, over every causal pair in `window` tokens of each document.

    Bucket i holds the distances `edges[i]` .. `edges[i + 1] - 1`. `maximum`, `minimum`, `quantile` (99.9 %, from a histogram,
    exact to `grain`) and `mean` are lists over heads of lists over buckets, in the unit the softmax sees. Over heads alone, and
    in the same unit: `largest_h`, the largest |h_j| of any pair and frequency; `deviation`, how far a score was from the
    chord between two tokens of the original grid, at its middle; its bounds: `printed` (theorem 2.1), `corrected`
    and `profile` (the exact supremum for the largest |h_j| of each frequency by itself); `extrapolation`, 2 max|h_j| B(s) at
    the distance where it is smallest; `trivial`, sum_j max|h_j|; with partial rotary the last two hold the largest part of a
    score that does not turn as well. A layer that looks back only so far has that as `local`.
    """

    kind: ClassVar[str] = "attention"
    layer: Whole
    window: Tokens
    documents: Whole
    edges: list[int]
    maximum: list[list[float]]
    minimum: list[list[float]]
    quantile: list[list[float]]
    mean: list[list[float]]
    largest_h: list[float]
    deviation: list[float]
    printed: list[float]
    corrected: list[float]
    profile: list[float]
    extrapolation: list[float]
    trivial: list[float]
    grain: float = 0.0
    local: int | None = None
    data: str = ""

    def __post_init__(self) -> None:
        tables = (self.maximum, self.minimum, self.quantile, self.mean)
        per_head = (self.largest_h, self.deviation, self.printed, self.corrected, self.profile)
        _check_one_length("heads", *tables, *per_head, self.extrapolation, self.trivial)
        _check_one_length("buckets", self.edges[1:], *(head for table in tables for head in table))
        if any(start >= stop for start, stop in zip(self.edges, self.edges[1:], strict=False)):
            raise ValueError(f"edges of buckets rise, got {self.edges}")


@dataclass(frozen=True)
class Adjacent:
    """How well one layer tells neighbouring positions apart; lists over heads.

    `change` is the mean |change of a score| when its key is moved one token farther, its content left alone, at distances 0 to
    3; `spread` the mean standard deviation of a query's scores over the keys it sees; `resolution` the first over the second.
    `previous` is the mean share of attention on the token just before. Over `rows` queries, all within the original window.
    """

    kind: ClassVar[str] = "adjacent"
    layer: Whole
    window: Tokens
    documents: Whole
    rows: Whole
    change: list[float]
    spread: list[float]
    resolution: list[float]
    previous: list[float]
    data: str = ""

    def __post_init__(self) -> None:
        _check_one_length("heads", self.change, self.spread, self.resolution, self.previous)


class Trial(TypedDict):
    """One prompt of the retrieval set: tokens from the asked fact (the first of several) to the prompt's end; the verdict."""

    placed: Whole
    right: bool


@dataclass(frozen=True)
class Retrieval:
    """One family of the retrieval set (evals/retrieval/harder.py): prompts whose whole answer was right, with its 95 % interval.

    `extrapolation`: the window is beyond the model's own.
    """

    kind: ClassVar[str] = "retrieval"
    window: Tokens
    family: str
    trials: Count
    successes: Whole
    low: Share
    high: Share
    seconds: float = 0.0
    per_trial: list[Trial] = field(default_factory=list)
    extrapolation: bool = False

    def __post_init__(self) -> None:
        _check_successes(self.successes, self.trials)


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
        _check_shares(self.score)


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
        _check_shares(self.score, *self.scores)


class LengthScore(TypedDict):
    """The mean over tasks at one length with its 95 % interval, and how it differs from that at the short window."""

    window: Whole
    score: float
    low: Share
    high: Share
    change: float
    change_low: float
    change_high: float


#: RULER's tasks.
_THIRTEEN = 13


@dataclass(frozen=True)
class EffectiveLength(Alone):
    """How long a context is used, by the mean of `tasks` (evals/long_context/effective.py): lengths in tokens, 0 where the shortest one fails.

    `effective` is RULER's, of its `threshold`, and only where all thirteen of its tasks are there; `holds_to` is that against the `short` window.
    `left_out` has the tasks that could not be made, with the reason.
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

    @property
    def in_words(self) -> str:
        """Two sentences: how long a context is used by RULER's threshold, and against the short window."""
        threshold = f"{100 * self.threshold:.1f} points"
        what = (
            "RULER's effective length"
            if len(self.tasks) == _THIRTEEN
            else f"By {', '.join(self.tasks)} alone the length"
        )
        low, high = self.tokens(self.effective_low), self.tokens(self.effective_high)
        bounds = f"95 % interval {low} to {high}" if low != high else "and no other length measured is in its interval"
        if (self.effective_low, self.effective_high) == (0, self.by_window[-1]["window"]):
            bounds = "and so few items leave every length possible"
        sentence = f"{what} (every mean up to it above {threshold}) is {self.tokens(self.effective)}, {bounds}"
        longest = self.by_window[-1]
        if longest["window"] == self.short:
            return f"{sentence}."
        change, low, high = (f"{100 * longest[name]:+.1f}" for name in ("change", "change_low", "change_high"))
        return (
            f"{sentence}. Against {self.short} tokens no length up to {self.holds_to} is surely worse; at {longest['window']} the mean "
            f"differs by {change} points ({low} to {high})."
        )

    @property
    def measure(self) -> str:
        """What a length by this row is called."""
        return "RULER" if len(self.tasks) == _THIRTEEN else f"{', '.join(self.tasks)} alone"

    def tokens(self, window: int) -> str:
        """One of its lengths."""
        return str(window or f"below {self.by_window[0]['window']}")


def _check_shares(*shares: float) -> None:
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise ValueError(f"a score lies between 0 and 1, got {wrong[0]}")


def _check_successes(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes lie between 0 and the {trials} trials, got {successes}")


def _check_one_length(what: str, *lists: list[Any]) -> None:
    lengths = sorted({len(values) for values in lists})
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(f"all lists hold as many {what}, at least one, got {lengths}")
