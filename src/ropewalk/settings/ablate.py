"""`ropewalk ablate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from ropewalk.errors import UserError
from ropewalk.settings.options import (
    Directory,
    Files,
    Flag,
    Loading,
    NamedModel,
    OpeningOptions,
    OptionalDirectory,
    OptionalFiles,
    OptionalMinutes,
    OptionalScores,
    OptionalTokens,
)
from ropewalk.settings.recipe import Mode
from ropewalk.settings.values import (
    Count,
    CountOrNone,
    LearningRate,
    Prompts,
    Range,
    Seed,
    ShareOrNone,
    Tokens,
    TokensInAll,
)

Measurement = Literal["perplexity", "gain", "passkey", "retrieval", "validation", "benchmarks", "attention"]
_Factor = Annotated[float, Range(1, 2**20, above=True)]


@dataclass(frozen=True, kw_only=True)
class AblateSettings(Loading, OpeningOptions):
    """Train and measure a grid of rows: methods × factors × tokens × rates × seeds. A row's model is kept until it is measured; what stays is a file of records.

    Rows that lie in --out are not run again, and several processes (one a GPU, by CUDA_VISIBLE_DEVICES) share a grid: each takes the next row
    that nobody has. Under torchrun all its processes run each row together. Methods beside those of `extend`: none is the base, direct fine-tunes it at the new window, control reads the same tokens
    at the old one; p-rope and cope let pairs that complete no turn stand still, at once or by and by. longrope searches its factors, abf takes 50
    times the base, proportional the share of pairs that complete a turn; others as abf:rope_theta=1e6.
    """

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id."""
    test: Files
    """Documents to measure on: the same ones, cut to the same length, for every row."""
    out: Directory
    """Directory of the rows, a file each, as `report` reads them."""
    data: OptionalFiles = None
    """Documents to train on; weights and lengths may follow, as in `train`."""
    scores: OptionalScores = None
    """With --data: its documents as `ropewalk data score` scored them; those that gain most a token are read."""
    keep: ShareOrNone = None
    """With --scores: the share that is read; half if not given, all with --weigh."""
    weigh: Flag = False
    """With --scores: each document counts in the loss by its score, as in `train`."""
    longce: Tokens | None = None
    """Short context of LongCE's weights, as in `train`."""
    also: OptionalFiles = None
    """Further documents of the perplexity, at the same windows."""
    validation: OptionalFiles = None
    """Documents by which a learning rate is chosen, and LongRoPE's factors are searched."""
    methods: Sequence[str] = ("none", "linear", "ntk", "yarn")
    """Words, with parameters behind a colon where there are any."""
    factors: Sequence[_Factor] = (4.0,)
    """New window over the model's own."""
    tokens: Sequence[TokensInAll] = (0,)
    """Training tokens, 0 for none; 5M is 5 x 2^20."""
    seeds: Sequence[Seed] = (0,)
    """Of the training."""
    learning_rates: Sequence[LearningRate] = (1e-4,)
    """At their maximum."""
    step_tokens: Tokens = 2**18
    """Of an optimiser step, about: as many windows as they fill, so that rows of all windows take as many steps."""
    warmup: CountOrNone | None = None
    """Steps; if not given, a fifth of the row's, at most the paper's 20."""
    mode: Mode = "full"
    """As of `train`."""
    measure: Sequence[Measurement] = ("perplexity", "gain", "passkey", "retrieval", "validation")
    """What is measured of each row; validation is the perplexity of trained rows on --validation, where that is given; attention the scores by distance in one document."""
    windows: Literal["all", "ends", "prompts"] = "all"
    """Of the perplexity: a quarter of the old window, it, its doublings and the new one; the old and the new one; or those of --prompt-windows."""
    documents: Count = 12
    """Of the perplexity and the context gain: the first so many that are long enough."""
    test_tokens: Tokens | None = None
    """To which every document is cut; the longest window of the grid if not given."""
    stride: Tokens | None = None
    """Of the perplexity; half of each window if not given, by which methods compare at one window and nothing is said of a longer one: for that ask for less than half of the shortest, 256 say."""
    prompt_windows: OptionalTokens = None
    """Of the passkey and of the harder retrieval set; the old and the new window if not given."""
    depths: Prompts = 16
    """Of the passkey."""
    trials: Prompts = 5
    """A depth."""
    prompts: Prompts = 16
    """A family of the harder retrieval set."""
    benchmarks: OptionalDirectory = None
    """Directory of benchmark files; the hub's sets if not given."""
    items: Count = 400
    """The first so many of each benchmark."""
    generations: CountOrNone = 6
    """Of the search for LongRoPE's factors, with 16 vectors on two documents."""
    minutes: OptionalMinutes = None
    """Begin no row that would not be done so many minutes from now."""
    dry_run: Flag = False
    """List the rows, what is there of them, and about how long the others would take: on this machine, which is timed, or on --chip."""
    chip: Annotated[str | None, tyro.conf.arg(metavar="H100")] = None
    """With --dry-run: estimate for one such chip, by what an H100 was measured to do and by the data sheets of both."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.keep is not None or self.weigh) and self.scores is None:
            option = "--weigh" if self.keep is None else f"--keep {self.keep}"
            raise UserError(f"{option} is about scored documents; give their --scores, or leave it out")
        if self.chip is not None and not self.dry_run:
            raise UserError("--chip changes nothing without --dry-run; add that, or leave it out")
        if any(self.tokens) and self.data is None:
            raise UserError(
                f"rows of {max(self.tokens)} training tokens need documents to train on; give --data, or --tokens 0"
            )

    def packages(self) -> dict[str, Sequence[str]]:
        return {"--measure benchmarks": ["lm_eval"]} if "benchmarks" in self.measure and not self.dry_run else {}
