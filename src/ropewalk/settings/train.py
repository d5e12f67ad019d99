"""What a training run is asked to do: the paper's recipe as defaults, and every value checked before anything is loaded.

Section numbers are those of Chen et al. 2023, arXiv 2306.15595. What the paper leaves open says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ropewalk.checkpoint.files import refuse_to_lose
from ropewalk.checkpoint.processes import refuse_locked
from ropewalk.checkpoint.replacement import both
from ropewalk.checkpoint.steps import Unfinished
from ropewalk.errors import UserError
from ropewalk.settings.command import option_name
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.inputs import inputs_of
from ropewalk.settings.mixture import Group, groups_of
from ropewalk.settings.options import Checkpointed, Data, Flag, OptionalFiles, OptionalMinutes, OptionalScores
from ropewalk.settings.recipe import Rank, Recipe
from ropewalk.settings.scaling import SPELLINGS, TrainMethod
from ropewalk.settings.values import Count, CountOrNone, Devices, LearningRate, Range, Seed, ShareOrNone

Watched = Literal["perplexity", "passkey"]
Packing = Literal["concat", "best-fit"]
Loss = Literal["answers", "all"]
LogName = Literal["tensorboard", "trackio", "wandb"]

#: 33B and 65B train at half the rate of 7B and 13B (section 3.1); the border lies between 13 and 33 thousand million.
_LARGE_MODEL = 20e9
#: Section 3.1's warm-up, and the divisor of a short run's steps that gives its own: 20 of 20 steps would never reach the rate.
_WARMUP, _WARMUP_SHARE = 20, 5
#: Table 3's steps between two that are measured.
_SAVE_EVERY = 200
#: Far more than any machine has cores; from some tens of thousands on, OpenMP crashes without a word.
_Threads = Annotated[int, Range(1, 1024)]
#: Where, how fast, how long and under whose eyes a run goes: its weights differ by rounding at most. What is read is known by its hash.
_DECIDES_NOTHING = frozenset(
    "model data field scores keep weigh packing loss live_control_tokens allow_short out steps budget overwrite yes resume allow_changes save_every keep_checkpoints threads device activations micro_batch cp "
    "replicas log project tensorboard wandb watch watch_data watch_every watch_stop trust_remote_code".split()
)
#: How a step moves the weights: a run may go on with another if that is asked for.
CHANGEABLE = ("learning_rate", "warmup", "beta1", "beta2", "weight_decay", "clip", "precision")
_Beta = Annotated[float, Range(0, 1, below=True)]


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Recipe, Checkpointed):
    """Fine-tune a model at a longer window, after extending it there. Defaults are the paper's (Chen et al. 2023, section 3.1)."""

    data: Data
    """Files (text, JSON lines, CSV, Parquet, …, packed or not), directories, or data-set ids as owner/name:config:split; in Python also documents. A weight may follow sources, and a length at which they are read: books/ 0.7 code/ 0.2 short.jsonl 0.1@8k; with :short behind, documents shorter than that are meant."""
    method: Annotated[TrainMethod, SPELLINGS] = "auto"
    """How the model is extended, by the methods of `ropewalk extend`: linear or pi (Position Interpolation), ntk, abf, yarn, llama3, longrope, factors, proportional, auto. plain: not at all; positions past L are trained as they are (direct fine-tuning)."""
    learning_rate: LearningRate | None = None
    """At its maximum; 2e-5, or 1e-5 from 33B parameters on, if not given (section 3.1)."""
    warmup: CountOrNone | None = None
    """Steps over which the rate rises linearly from 10 % of its maximum; constant after that (not stated). If not given, section 3.1's 20, but at most a fifth of --steps."""
    beta1: _Beta = 0.9
    """AdamW's (section 3.1)."""
    beta2: _Beta = 0.95
    """AdamW's (section 3.1)."""
    weight_decay: Annotated[float, Range(0, 100)] = 0.0
    """AdamW's (section 3.1)."""
    clip: Annotated[float, Range(0, 10**9)] = 1.0
    """Largest gradient norm, 0 for none. Not stated by the paper; 1.0 is LLaMA's own pretraining (arXiv 2302.13971, 2.3)."""
    budget: OptionalMinutes = None
    """End in so many minutes from now, even if fewer than --steps are done: no step begins that would not be finished, measured (--watch) and saved by then. Another time --resume goes on."""
    save_every: CountOrNone | None = None
    """Steps between checkpoints; 0 for none before the end. If not given, 200 (the paper measures every 200, table 3), and one more whenever ten minutes have passed since the last one, or --watch-stop found the model well, which is deleted when newer ones are there."""
    keep_checkpoints: Count = 2
    """Checkpoints from which training can be resumed; older ones keep their model and lose their optimiser state. One more is kept, whatever this says: the last up to the look that --watch-stop found well."""
    seed: Seed = 0
    """Of the reading order and of everything else random."""
    resume: Flag = False
    """Go on from the newest sound checkpoint in --out, or start if there is none."""
    allow_changes: Flag = False
    """With --resume: go on even if learning rate, warmup, betas, weight decay, clip or precision are others than the run had; the records say from which step."""
    mask_documents: Flag = False
    """Attention ends where a document ends, and positions start again there."""
    allow_short: Flag = False
    """Train even if no document of a source is as long as the window, or as the source's own length; :short after a source says it of that one."""
    field: str | None = None
    """The field of a row that holds its text, or its turns."""
    scores: OptionalScores = None
    """Choose documents by what a long context gives a model: what `ropewalk data score DATA --model MODEL --out FILE` wrote of them. Those without a score stay."""
    keep: ShareOrNone = None
    """With --scores: the share of the documents in that file, rounded up, that stays, those that gain most a token, whether --data has them or not; half if not given, all with --weigh."""
    weigh: Flag = False
    """With --scores: each document counts in the loss by its score, once on average over those in that file; one that gains nothing does not count, one without a score once."""
    longce_most: Annotated[float, Range(1, 1000)] | None = None
    """With --longce: the largest weight of a label; 5 if not given, as there."""
    packing: Packing = "concat"
    """concat puts documents end to end and cuts where a window is full; best-fit keeps those that fit a window whole, and fills up (arXiv 2404.10830). Conversations are packed by best-fit, each apart."""
    loss: Loss | None = None
    """Of conversations: on the answers, or on all; answers if not given. Where it is given, turns and pairs (a text with its summary, say) are read before a text in the same row."""
    live_control_tokens: Flag = False
    """Control tokens that are spelled in the data (</s>, <|im_end|>) are read as such, not as text."""
    cp: Devices = 1
    """Devices that share one window (context parallel)."""
    replicas: Devices = 1
    """Copies of the weights, each sharded over its own devices (HSDP); as many as machines, if these are joined by a slow network."""
    device: str | None = None
    """cpu, cuda, …; the GPU if there is one."""
    threads: _Threads | None = None
    """CPU threads; if not given, OMP_NUM_THREADS, or what a second of trying found fastest when this machine was first tried (kept in the cache)."""
    lora_alpha: Rank = 16
    """Of the adapters in mode lora (LongLoRA: 16)."""
    watch: Sequence[Watched] | None = None
    """Measured while training, at the old window and the new one: before the first step, every --watch-every steps and after the last; in --out/watch.jsonl, as `report` reads it."""
    watch_data: OptionalFiles = None
    """Documents for the watched perplexity, others than --data: the first eight that fill the new window, cut to it."""
    watch_every: Count = 100
    """Steps."""
    watch_stop: Annotated[float, Range(0, 1000)] | None = None
    """End the run when the perplexity at the old window is more than so many per cent above the least that was seen, and leave the model of the newest checkpoint from before that."""
    log: Sequence[LogName] | None = None
    """Also log every step there: tensorboard writes files to --out/tensorboard, trackio into a database on this machine (`trackio show`), wandb to Weights & Biases."""
    project: str = "ropewalk"
    """Of trackio and wandb."""
    tensorboard: Flag = False
    """As --log tensorboard."""
    wandb: str | None = None
    """As --log wandb, with this project."""

    def __post_init__(self) -> None:
        super().__post_init__()
        lengths = [group.length for group in self.groups]
        if not self.allow_short and all(length is not None and length < self.window for length in lengths):
            raise UserError(
                f"every source of --data is read at fewer tokens than the window's {self.window}, and short texts teach no long range; leave out "
                "a source's length, ask for a smaller --window, or add --allow-short"
            )
        self._refuse_idle()
        if self.watch_data is None and "perplexity" in (self.watch or ()):
            raise UserError("the watched perplexity is of documents that are not trained on; give --watch-data")
        if self.resume and self.overwrite:
            raise UserError("--resume goes on with what lies in --out and --overwrite replaces it; use one of the two")
        self._refuse_missing_packages()

    def _refuse_idle(self) -> None:
        """Options that would change nothing without another, which whoever gave them has forgotten."""
        perplexity = "perplexity" in (self.watch or ())
        for needed, there, names in (
            ("--resume", self.resume, ("allow_changes",)),
            ("--scores", self.scores, ("keep", "weigh")),
            ("--longce", self.longce, ("longce_most",)),
            ("--watch", self.watch, ("watch_every",)),
            ("--watch perplexity", perplexity, ("watch_data", "watch_stop")),
            ("--mode lora", self.mode == "lora", ("lora_rank", "lora_alpha")),
        ):
            for name in names if not there else ():
                if getattr(self, name) != getattr(type(self), name):
                    raise UserError(
                        f"--{option_name(name)} changes nothing without {needed}; add that, or leave it out"
                    )

    def _refuse_missing_packages(self) -> None:
        needs = {
            f"optimizer {self.optimizer}": (self.optimizer == "adamw-8bit", "torchao"),
            f"precision {self.precision}": (self.precision == "bfloat16-stochastic", "torchao"),
            f"--base-bits {self.base_bits}": (self.base_bits is not None, "bitsandbytes"),
            **{f"--log {name}": (True, name) for name in self.logs},
        }
        for what, (asked, package) in needs.items():
            if asked and not installed(package):
                line = bringing(*(each for each in ("torch", package) if not installed(each)))
                raise UserError(f"{what} needs {package}, which is not installed; {line}, or leave it out")

    def refuse_at_start(self) -> None:
        super().refuse_at_start()
        if self.overwrite:
            refuse_to_lose(self.out, inputs_of(self))
        if self.resume or self.overwrite:
            return
        out = Path(self.out)
        if sentence := both(out):
            refuse_locked(self.out)
            raise UserError(sentence)
        if came := Unfinished.of(out) or Unfinished.before(out, self.steps):
            refuse_locked(self.out)  # it is being written
            way_on = "go on with --resume" if came.last else "--resume begins it again"
            raise UserError(
                f"{self.out} holds an unfinished run, {came}; {way_on}, or begin anew with --overwrite --yes"
            )

    @property
    def save_steps(self) -> int:
        """Steps between checkpoints whose model stays, 0 for none."""
        return _SAVE_EVERY if self.save_every is None else self.save_every

    @property
    def saves_by_time(self) -> bool:
        """Whether checkpoints come by the clock as well (training/deadline.py): where nobody said after how many steps."""
        return self.save_every is None

    @property
    def logs(self) -> dict[LogName, str]:
        """Where every step is logged beside the records: program → project."""
        asked = dict.fromkeys(self.log or (), self.project)
        if self.tensorboard:
            asked.setdefault("tensorboard", self.project)
        return asked if self.wandb is None else {**asked, "wandb": self.wandb}

    @property
    def groups(self) -> list[Group]:
        """The sources of `data` with their weights and lengths."""
        return groups_of(self.data)

    @property
    def warmup_steps(self) -> int:
        """The warm-up asked for, or section 3.1's, of which a short run takes a fifth of its steps."""
        return self.warmup if self.warmup is not None else min(_WARMUP, self.steps // _WARMUP_SHARE)

    def peak_rate(self, parameters: int) -> float:
        """The learning rate asked for, or section 3.1's for a model of this size."""
        return self.learning_rate or (1e-5 if parameters >= _LARGE_MODEL else 2e-5)

    def identity(self) -> dict[str, Any]:
        """Every setting that decides the weights, so that two runs are told apart; model and data are known by hashes."""
        names = (field.name for field in dataclasses.fields(self) if field.name not in _DECIDES_NOTHING)
        deciding = {name: self.parameters.get(name, getattr(self, name)) for name in names}
        return deciding | {"warmup": self.warmup_steps}
