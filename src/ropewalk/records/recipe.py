"""How a model was trained, as far as it is on record: what tells two runs of one method apart.

in   a run's header: of `train`, or of a row of `ablate`
out  a `Recipe`
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.steps import MODEL_STEP
from ropewalk.records import format as number_format
from ropewalk.records.rows import Run
from ropewalk.records.sources import read_names, write_names

#: What decides a training besides method, window and seed, by its name in the settings of `train` and in the row of `ablate`.
_FACTS = (
    "data",
    "data_digest",
    "tokens",
    "step_tokens",
    "steps",
    "batch_size",
    "learning_rate",
    "warmup",
    "mode",
    "lora_rank",
    "chunk_window",
    "optimizer",
    "precision",
    "beta1",
    "beta2",
    "weight_decay",
    "clip",
    "mask_documents",
)
#: Of those what a page names by itself: texts and budgets are what it compares within, and steps are in every label.
_NAMED = {"data", "data_digest", "tokens", "steps"}
#: Methods of `ablate` whose config does not say which they are, by their word and as they are called: factors, and the base trained in its own window.
CONTROL = "control"
#: The base itself, which is a row too.
NONE = "none"
NAMES = {"p-rope": "p-RoPE", "cope": "CoPE", CONTROL: "control"}


@dataclass(frozen=True)
class Recipe:
    """How a model was trained; nothing where that is not on record.

    Attributes:
        word: of the method, if its scaling has no name of its own.
        facts: (setting, value as text) of all that decides a training besides method, window and seed.
        seed: None where it is not on record.
        base: what the model that a row of `ablate` starts from is called.
        left: steps, since its extension, of the model that it left; 0 where that is its last.
        earlier: on top of what its last training was, in words; empty of the first.
        start: the fingerprint of the model that its training began from, before any extension; empty where it is not on record.
    """

    word: str = ""
    facts: tuple[tuple[str, str], ...] = ()
    seed: int | None = None
    base: str = ""
    left: int = field(default=0, compare=False)
    earlier: str = ""
    start: str = field(default="", compare=False)

    @property
    def after(self) -> str:
        """What a label of its training ends with: on top of what its steps are counted; nothing of the first."""
        return f", after {self.earlier}" if self.earlier else ""

    @property
    def before(self) -> str:
        """What the state that its training began from is called."""
        return f"before {'further ' * bool(self.earlier)}training"

    @property
    def tokens(self) -> int | None:
        """The budget that was asked for, where one was."""
        text = dict(self.facts).get("tokens", "")
        return int(text) if text.isdecimal() else None

    @property
    def data(self) -> str:
        """What it read is called: of many sources the first."""
        return _short(dict(self.facts).get("data", ""))

    def steps(self, window: int) -> int | None:
        """Steps of so long a window that its budget is, of a row of `ablate`."""
        step = dict(self.facts).get("step_tokens", "")
        return steps_of(self.tokens, int(step), window)[1] if self.tokens and step.isdecimal() else None

    def chunk(self, original_window: int) -> int | None:
        """Tokens that mode pose read at a time, the original window where none were asked for; None of another mode."""
        facts = dict(self.facts)
        return int(facts.get("chunk_window", original_window)) if facts.get("mode") == "pose" else None

    @property
    def way(self) -> str:
        """What its mode is called; nothing of the usual one."""
        return {"pose": "PoSE", "lora": "LoRA"}.get(dict(self.facts).get("mode", ""), "")

    @property
    def by_way(self) -> str:
        """How a label names its way, behind its method: " by PoSE"; nothing of the usual one."""
        return f" by {self.way}" if self.way else ""

    def told(self, fact: str, label: str = "") -> str:
        """A setting in a label, where that does not say it: of many data sources the first. A digest says nothing to a reader: reports give texts of one name letters (reports/same_names.py)."""
        value = dict(self.facts).get(fact, "")
        if fact == "mode" and self.way and self.by_way in label:
            return ""
        if fact in ("data", "data_digest"):
            return self.data if fact == "data" else ""
        if fact in ("tokens", "step_tokens") and value.isdecimal():
            value = number_format.tokens(int(value))
        return f"{value} tokens" if value and fact == "tokens" else f"{fact.replace('_', ' ')} {value}" if value else ""


#: Of a model that was not trained, or by nothing that is on record.
UNKNOWN = Recipe()


def differing(recipes: Sequence[Recipe]) -> list[str]:
    """The settings in which these differ, as far as they are on record: besides method, factor and seed, text and budget, which a page names anyhow."""
    known = [dict(recipe.facts) for recipe in recipes if recipe.facts]
    # A row of `ablate` has fewer settings on record than a run of `train`: beside one, what it lacks is not known to differ.
    all_alike = len({"batch_size" in facts for facts in known}) < 2
    values = {fact: {facts.get(fact) for facts in known} - (set() if all_alike else {None}) for fact in _FACTS}
    return [fact for fact in _FACTS if fact not in _NAMED and len(values[fact]) > 1]


def steps_of(tokens: int, step_tokens: int, window: int) -> tuple[int, int]:
    """(windows a step, steps) of a row of `ablate`. One of fewer tokens than a step of others is one step of its own, and not a whole one of theirs."""
    batch = max(1, round(min(step_tokens, tokens) / window))
    return batch, max(1, round(tokens / (batch * window)))


def row_name(method: str, parameters: Mapping[str, float], factor: float, tokens: int, rate: float, seed: int) -> str:
    """What a row of `ablate` is called: `yarn-x4-5M-1e-4-s0`, `yarn-x4-0`."""
    word = "-".join([method, *(f"{name}={value:g}" for name, value in parameters.items())])
    if method == NONE:
        return word
    size, unit = next(each for each in ((2**20, "M"), (2**10, "k"), (1, "")) if tokens % each[0] == 0)
    trained = f"-{Decimal(repr(rate)).normalize():e}-s{seed}" if tokens else ""
    return f"{word}-x{factor:g}-{f'{tokens // size}{unit}' if tokens else 0}{trained}"


def place(name: str) -> str:
    """The run that a checkpoint belongs to: its name without `checkpoints/step-000200`."""
    return re.sub(r"/checkpoints/step-\d+$", "", name.replace("\\", "/").rstrip("/"))


def of_no_machine(word: str) -> str:
    """A word of a command without the places of one machine: of an absolute path, behind its option too, the last two parts, by which data and models are known."""
    return re.sub(r"^(--[\w-]+=)?[~/].*?([^/]+/[^/]+|[^/]+)/?$", r"\1\2", word, flags=re.DOTALL)


def is_same_place(one: str, other: str) -> bool:
    """Whether two names can be of one run's directory; the one may be relative where the other is not, as `--config` of a run.yaml, whose paths are absolute, leaves it."""
    first, second = (posixpath.normpath(place(name)) for name in (one, other))
    return first == second or first.endswith(f"/{second}") or second.endswith(f"/{first}")


def recipe_of(run: Run) -> Recipe:
    """What the header of a training, or of a row of `ablate`, says of it."""
    if row := ablated(run):
        word = row.get("method") if row.get("method") in NAMES else ""
        base = str(row.get("name", "")).rpartition("/")[0]
        trained = bool(row.get("tokens"))
        facts, seed = (_facts(row), _seed(row.get("seed"))) if trained else ((), None)
        return Recipe(str(word), facts, seed, base, earlier=run.model.earlier or _in_two_steps(row, run.model))
    if is_training(run):
        left = run.settings.get(MODEL_STEP)
        left = run.model.steps + left if left else 0
        start = str(run.settings.get("model_fingerprint", ""))
        return Recipe(facts=_facts(run.settings), seed=run.seed, left=left, earlier=run.model.earlier, start=start)
    return UNKNOWN


def _in_two_steps(row: dict[str, Any], model: ModelInfo) -> str:
    """What was trained before, of a row of `ablate` whose header does not say it: by its factor, that of the last extension alone."""
    factor = row.get("factor")
    if row.get("method") in (NONE, CONTROL) or not isinstance(factor, int | float) or factor <= 0:
        return ""
    window = round(model.window / factor)
    is_first = abs(window - model.original_window) <= 1
    return "" if is_first else f"an extension to {window} tokens whose training is not on record here"


def ablated(run: Run) -> dict[str, Any]:
    """The settings of a row of `ablate`; empty of any other run."""
    row = run.settings.get("row")
    return row if isinstance(row, dict) else {}


def is_training(run: Run) -> bool:
    """Whether a header is one of `train`."""
    return {"out", "learning_rate", "batch_size"} <= run.settings.keys()


def _facts(settings: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    digest = dict(settings.get("digests") or {}).get("data")  # of a row of `ablate`: other data may be called the same
    known = {**settings, "data_digest": digest}
    return tuple((name, _text(value)) for name in _FACTS if (value := known.get(name)) not in (None, "", []))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return write_names(list(map(str, value)), written=len(value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _seed(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _short(data: str) -> str:
    first, *others = read_names(data).names or [""]
    return "/".join(first.split("/")[-2:]) + (" and others" if others else "")
