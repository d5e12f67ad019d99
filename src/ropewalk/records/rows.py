"""The kinds of rows: what was measured, field by field, with units.

in   figures
out  dataclasses; `kind` is what a record's line calls them. kinds.py has the table of them; retrieval.py, long_context.py, attention.py and
     downstream.py have the other kinds

A figure that is not finite is NaN here and null in a file. What a field's type cannot say, `__post_init__` checks, so that a
row that was edited into nonsense is refused on reading.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, NotRequired, TypedDict

from msgspec import Meta

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records.slide import Slide

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

    `low` and `high` bound the 95 % interval over documents (Student's). `skipped` counts documents that were left out as too short, `shorter` those that are shorter than the window and were read whole. `convention` is "ropewalk" or whose rule was followed.
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
    shorter: Whole = 0

    def __post_init__(self) -> None:
        if self.perplexity <= 0:
            raise ValueError(f"a perplexity is above 0, got {self.perplexity}")

    #: An interval whose one end is this many times the other leaves nearly everything open.
    OPEN: ClassVar[float] = 4.0
    #: Documents of which an interval over documents is given: of two Student's t is valid only if documents scatter just as a normal distribution does,
    #: and two that happen to be alike would have a narrow one beside rows that have none.
    FEWEST: ClassVar[int] = 3

    @property
    def says_nothing(self) -> bool:
        """Whether no interval is given: it is of too few documents, or leaves nearly everything open. False of another's rule, which has none."""
        of_documents = self.convention == "ropewalk" and not self.estimate
        return (of_documents and self.documents < self.FEWEST) or self.high >= self.OPEN * self.low

    @property
    def bounds(self) -> tuple[float, float]:
        """The interval that is given; NaN where none is."""
        return (math.nan, math.nan) if self.says_nothing else (self.low, self.high)

    @property
    def slide(self) -> Slide:
        """How its window slides; by two conventions every token of a window is counted, whatever the stride."""
        return Slide(self.window, self.window if self.convention in ("longlora", "lm-eval") else self.stride)

    @property
    def caveat(self) -> str:
        """Why a lower figure at a longer window tells nothing of that, and what would; nothing where it tells."""
        if not self.slide.is_coarse:
            return ""
        rule = f"at stride {self.stride}" if self.slide.stride == self.stride else f"as {self.convention} counts,"
        least = self.slide.least
        return f"{rule} tokens counted at {self.window} have as few as {least} before them; measured again with perplexity --stride {self.slide.finer} it would tell"

    @property
    def unfilled(self) -> str:
        """Why it tells nothing of a window this long; nothing where each document fills it."""
        verb = "is" if self.shorter == 1 else "are"
        return f"{self.shorter} of {self.documents} documents {verb} shorter than {self.window} tokens" * bool(
            self.shorter
        )

    @property
    def lacking(self) -> str:
        """What there was too little of, where no interval is given."""
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

    @property
    def longppl_bounds(self) -> tuple[float, float]:
        """The interval of LongPPL that is given, by the rule of a perplexity's, over the documents that have key tokens; NaN where none is."""
        few = self.per_document and sum(each["key_tokens"] > 0 for each in self.per_document) < Perplexity.FEWEST
        if few or self.longppl_high >= Perplexity.OPEN * self.longppl_low:
            return math.nan, math.nan
        return self.longppl_low, self.longppl_high


@dataclass(frozen=True)
class Step:
    """One optimiser step. `loss` is nats a token over the whole batch; `seconds` the step's own wall time.

    `peak_bytes` of memory were in use at most so far, and `reserved_bytes` held by PyTorch for them, holes included (0 on a CPU). `retries` counts how
    often the step ran out of memory and was begun again with less kept. `mfu` is a share of the run's own matrix rate, `mfu_of_data_sheet` of the maker's.
    Both count two products of a frozen weight; those made up to 2026-11-29 counted three beside adapters.
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
        check_one_length("ranges", *self.sums)
        if any(not 0 <= key <= tokens for tokens, key in zip(self.sums[0], self.sums[3], strict=True)):
            raise ValueError("key tokens are some of those that were read")


def check_shares(*shares: float) -> None:
    if wrong := [share for share in shares if not 0 <= share <= 1]:
        raise ValueError(f"a score lies between 0 and 1, got {wrong[0]}")


def check_successes(successes: int, trials: int) -> None:
    if not 0 <= successes <= trials:
        raise ValueError(f"successes lie between 0 and the {trials} trials, got {successes}")


def check_one_length(what: str, *lists: list[Any]) -> None:
    lengths = sorted({len(values) for values in lists})
    if len(lengths) != 1 or not lengths[0]:
        raise ValueError(f"all lists hold as many {what}, at least one, got {lengths}")
