"""What a model itself does: perplexity, context gain, passkey, retrieval, attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ropewalk.errors import UserError
from ropewalk.sentences import joined
from ropewalk.settings.options import (
    Batched,
    Data,
    Loadable,
    MeasuringOptions,
    OptionalFiles,
    OptionalMinutes,
    OptionalModel,
    OptionalTokens,
    Texts,
)
from ropewalk.settings.values import Count, Prompts, Range, Seed, Tokens

Convention = Literal["ropewalk", "yarn", "pose", "longlora", "lm-eval", "huggingface"]
RetrievalFamily = Literal["keys", "values", "lookalikes", "chain"]
_Points = Annotated[float, Range(0, 50, above=True)]
LongTaskName = Literal[
    "niah_single_1", "niah_single_2", "niah_single_3", "niah_multikey_1", "niah_multikey_2", "niah_multikey_3", "niah_multivalue",
    "niah_multiquery", "vt", "cwe", "fwe", "qa_1", "qa_2", "key_value", "mrcr_2", "mrcr_4", "mrcr_8", "graphwalks_bfs", "graphwalks_parents", "needle",
]  # fmt: skip


def check_cuts(max_tokens: int | None, shortest: int) -> None:
    """Refuse documents that are cut to fewer than the `shortest` tokens that are needed. Raises UserError."""
    if max_tokens is not None and max_tokens < shortest:
        raise UserError(
            f"documents cut to {max_tokens} tokens cannot have the {shortest} that --min-tokens, or without it the largest window, asks "
            f"for; give a --max-tokens of {shortest} or more"
        )


@dataclass(frozen=True, kw_only=True)
class PerplexitySettings(MeasuringOptions, Batched):
    """Perplexity over a sliding window (section 3.2), token-weighted, with a 95 % interval over documents."""

    data: Data
    """Files, directories or data-set ids; in Python also documents."""
    windows: OptionalTokens = None
    """Tokens, one or more, each a row; the model's own if not given. Beyond it is extrapolation."""
    stride: Tokens | None = None
    """Tokens all windows move by; an eighth of the shortest, at most 256 (as in the paper), if not given. Less is finer, and slower."""
    convention: Annotated[Convention, tyro.conf.arg(name="as")] = "ropewalk"
    """Whose definition; the others explain published figures. They have no interval and are not resumed."""
    budget: OptionalMinutes = None
    """Estimate from random windows within so many minutes a window; refused where the fewest that give an interval take longer."""
    tolerance: Annotated[float, Range(0, 1)] = 0.005
    """With --budget, stop when half the interval is at most this share of the perplexity."""
    limit: Count | None = None
    """Use the first so many documents that are long enough."""
    min_tokens: Tokens | None = None
    """Leave out documents with fewer tokens; the largest window if not given. Below it, documents shorter than a window are read whole."""
    max_tokens: Tokens | None = None
    """Cut documents to their first so many tokens (paper, proof-pile: 32768)."""
    seed: Seed = 0
    """Of --budget's sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.budget is not None and self.convention != "ropewalk":
            raise UserError(
                f"a budget estimates ropewalk's own perplexity, not that of {self.convention}; leave out --budget or --as"
            )
        if self.windows:
            self.stride_of(self.windows)  # before a model is looked for

    def stride_of(self, windows: Sequence[int]) -> int:
        """The stride of these windows. Raises UserError for windows that cannot be, or that the documents are cut below."""
        from ropewalk.data.sliding import check  # these bring numpy, which is not for --help
        from ropewalk.records.slide import default_stride

        stride = self.stride or default_stride(windows)
        for window in windows:
            check(window, stride)
        check_cuts(self.max_tokens, self.least(windows))
        return stride

    def least(self, windows: Sequence[int]) -> int:
        """The tokens that a document must have: two are the fewest in which one is predicted."""
        return max(2, self.min_tokens or max(windows))


@dataclass(frozen=True, kw_only=True)
class ReadTwice(MeasuringOptions, Batched):
    """Documents that a model reads with a short and with the whole context."""

    window: Tokens | None = None
    """Tokens of the whole context; the model's own window if not given. Beyond it is extrapolation."""
    short: Tokens | None = None
    """Tokens of the short context; if not given the window of pretraining, or a quarter of a --window that is no longer."""
    stride: Tokens | None = None
    """Tokens both contexts slide by; just under half of --short if not given. Less is finer, and slower."""
    limit: Count | None = None
    """Use the first so many documents that are long enough."""
    max_tokens: Tokens | None = None
    """Cut documents to their first so many tokens."""


@dataclass(frozen=True, kw_only=True)
class GainSettings(ReadTwice):
    """Context gain and LongPPL: the loss of the same tokens with a short and with the whole context."""

    data: Data
    """Files, directories or data-set ids; in Python also documents."""
    evaluator: OptionalModel = None
    """Model of the same tokenizer that chooses LongPPL's key tokens, as in the paper; MODEL itself if not given. It reads everything as well."""
    budget: OptionalMinutes = None
    """Estimate from random windows within so many minutes; refused where the fewest that give an interval take longer."""
    tolerance: Annotated[float, Range(0, 1)] = 0.005
    """With --budget, stop when half the gain's interval is at most so many nats."""
    min_tokens: Tokens | None = None
    """Leave out documents with fewer tokens; the window if not given."""
    seed: Seed = 0
    """Of --budget's sample."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window:
            check_cuts(self.max_tokens, self.min_tokens or self.window)


@dataclass(frozen=True, kw_only=True)
class DataScoreSettings(ReadTwice):
    """Score documents by what a long context gives a model in them, the best first: nats a token, as `ropewalk gain` defines it.

    `ropewalk train --scores FILE` reads those that gain most (--keep), or has them count by their score (--weigh).
    """

    data: Annotated[Texts, tyro.conf.Positional, tyro.conf.arg(constructor=list[str], metavar="DATA...")] = field(
        kw_only=False
    )
    """Files, directories or data-set ids; in Python also documents."""
    model: Annotated[Loadable, tyro.conf.arg(constructor=str, metavar="MODEL")]
    """Model that reads so long a context: `hemp`, a local directory or a hub id. It need not be the one that is trained."""
    field: str | None = None
    """The field of a row that holds its text."""
    min_tokens: Tokens | None = None
    """Leave out documents with fewer tokens; twice the short context if not given."""


@dataclass(frozen=True, kw_only=True)
class PasskeySettings(MeasuringOptions, Batched):
    """Passkey retrieval (section 3.3): success by depth, and k_max."""

    window: Tokens | None = None
    """Tokens of every prompt; the model's own window if not given."""
    depths: Prompts = 32
    """Distances of the key from the end, evenly spaced (paper: 32)."""
    trials: Prompts = 10
    """Prompts a depth, each with a fresh key (paper: 10)."""
    budget: OptionalMinutes = None
    """Ask as many of --trials at every depth as there is time for within so many minutes; refused where the fewest a depth that give k_max an interval (3 at 32 depths) take longer."""
    seed: Seed = 0
    """Of the keys; the same keys for the same seed, depths and trials, whatever the model."""


@dataclass(frozen=True, kw_only=True)
class RetrievalSettings(MeasuringOptions, Batched):
    """Retrieval harder than the passkey: several keys, several values, look-alikes, a chain (RULER's families)."""

    window: Tokens | None = None
    """Tokens of every prompt; the model's own window if not given."""
    families: Sequence[RetrievalFamily] | None = None
    """Some of them; all if not given."""
    trials: Prompts = 32
    """Prompts a family."""
    seed: Seed = 0
    """Of facts, prose and places; the same prompts for the same seed, trials, window and tokenizer."""


@dataclass(frozen=True, kw_only=True)
class RulerSettings(MeasuringOptions, Batched):
    """RULER's thirteen tasks by length, made here without a network, and how long a context is used; further tasks by name.

    Facts are hidden in --data where RULER downloads essays, and its questions come from --questions; what cannot be made is named and left out.
    """

    windows: OptionalTokens = None
    """Tokens of prompt and answer, one or more; 4096, 8192, … up to the model's window if not given."""
    tasks: Sequence[LongTaskName] | None = None
    """Some of them; RULER's thirteen if not given, and needle with --needle."""
    items: Prompts = 30
    """Items a task and length, at most (RULER: 500)."""
    interval: Annotated[_Points | None, tyro.conf.arg(metavar="POINTS")] = None
    """End a task at a length when half its 95 % interval is at most so many points."""
    data: OptionalFiles = None
    """Documents that facts are hidden in: files, directories or data-set ids."""
    questions: OptionalFiles = None
    """JSON lines with question, answer and context (a text, or several), or the files of SQuAD (qa_1) and HotpotQA (qa_2)."""
    needle: OptionalFiles = None
    """JSON lines with needle, question and answer: one's own sentences to hide in --data."""
    seed: Seed = 0
    """Of the items; the same ones for the same seed, length and tokenizer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, users in (("needle", {"needle"}), ("questions", {"qa_1", "qa_2"})):
            if getattr(self, name) is not None and self.tasks is not None and not users & {*self.tasks}:
                raise UserError(
                    f"--{name} is read by {joined(sorted(users))} alone, and --tasks names none; add it, or leave --{name} out"
                )

    def packages(self) -> dict[str, Sequence[str]]:
        return {"ropewalk ruler": ["wonderwords"]}


@dataclass(frozen=True, kw_only=True)
class AttentionSettings(MeasuringOptions):
    """Attention scores by distance on real documents, per layer and head, the paper's bounds on them, and adjacent tokens.

    A base model past its own window is measured three times: inside it, beyond it, and interpolated without training.
    """

    data: Data
    """Files, directories or data-set ids, in Python also documents; each is cut to its first --window tokens."""
    window: Tokens | None = None
    """Tokens; the model's own if not given."""
    base: OptionalModel = None
    """The model before extension, measured too; its scores in its own window are what is in range."""
    documents: Count = 1
    """The first so many that fill the window. Each has window squared over 2 scores a head."""
