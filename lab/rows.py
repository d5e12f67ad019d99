"""A row of the lab as its file has it, and the learning rate that is chosen of a grid's.

in   lab/records/LEVEL/MODEL/ROW.jsonl
out  `Row`s
"""

from __future__ import annotations

import functools
import math
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ropewalk.errors import UserError
from ropewalk.evals.digits import digits
from ropewalk.records import (
    Benchmark,
    ContextGain,
    LeftOut,
    Passkey,
    PasskeySummary,
    Perplexity,
    Records,
    Retrieval,
    Step,
    read,
)
from ropewalk.records.variant import Variant
from ropewalk.records.whole import FAMILIES, missing
from ropewalk.reports import damage
from ropewalk.reports.paired import Bounded, Ratio, ratio
from ropewalk.reports.retrieval import FINDS
from ropewalk.reports.rows import exact
from ropewalk.reports.validation import mean_loss
from ropewalk.rope.scaling import SCALINGS
from ropewalk.suite.row import asked_of

NAMES = {
    "none": "base",
    "direct": "direct fine-tuning",
    "control": "control: at L",
    "p-rope": "p-RoPE, fast pairs kept",
    "cope": "CoPE",
}
_WAY_OUT = "restore the file, or delete it and run the row again"
#: Ways of training other than of every weight at whole windows.
MODES = {"pose": "PoSE", "lora": "LoRA"}


@dataclass(frozen=True)
class Row:
    """One row: its records, and what was asked for."""

    records: Records

    @cached_property
    def asked(self) -> dict[str, Any]:
        return next(iter(self.records.runs.values())).settings["row"]

    @property
    def name(self) -> str:
        """Of the model that it was made of."""
        return self.asked["name"].split("/")[0]

    @property
    def parameters(self) -> int:
        """How many the model has."""
        return next(iter(self.records.runs.values())).model.parameters

    @property
    def method(self) -> str:
        """As the page calls it, with its parameters and how it was trained, if not at whole windows in one step: what differs so is never one line."""
        word = self.asked["method"]
        label = NAMES.get(word) or SCALINGS[word].label
        parts = [f"{name} {value:g}" for name, value in self.asked["parameters"].items()]
        parts += [words for mode, words in MODES.items() if self.asked["mode"] == mode]
        return ", ".join([label, *parts, *["second step"] * self.in_two_steps])

    @cached_property
    def variant(self) -> Variant:
        return self.records.of(Perplexity)[0].model_variant

    @cached_property
    def perplexities(self) -> dict[int, Perplexity]:
        """On the test documents, by window."""
        return {m.row.window: m.row for m in self.records.of(Perplexity) if m.row.data == self.asked["test"]}

    @cached_property
    def further(self) -> dict[int, Perplexity]:
        """On the further documents, by window."""
        known = (self.asked["test"], self.asked["validation"])
        return {m.row.window: m.row for m in self.records.of(Perplexity) if m.row.data not in known}

    @cached_property
    def benchmarks(self) -> dict[str, Benchmark]:
        """By task."""
        return {m.row.task: m.row for m in self.records.of(Benchmark)}

    @cached_property
    def validation(self) -> float | None:
        """Mean loss at the old and the new window, nats a token; None where it was not measured."""
        read = [m.row for m in self.records.of(Perplexity) if m.row.data == self.asked["validation"]]
        return mean_loss(read) if read else None

    @cached_property
    def passkeys(self) -> dict[int, PasskeySummary]:
        """By window, the interval of the share exact whenever it was measured: the oldest records hold Wilson's."""
        return {m.row.window: exact(m.row) for m in self.records.of(PasskeySummary)}

    @cached_property
    def digits(self) -> dict[int, Bounded]:
        """By window, the share of the keys' digits that were right, with its interval."""
        depths = [m.row for m in self.records.of(Passkey)]
        known = {window: digits(found, depths) for window, found in self.passkeys.items()}
        return {window: right for window, right in known.items() if right}

    @property
    def found_inside(self) -> PasskeySummary | None:
        """In the old window, or in the shorter prompts that were tried instead."""
        return next((found for window, found in self.passkeys.items() if window <= self.window), None)

    @property
    def finds(self) -> bool:
        """Whether it can find passkeys in its own window: false where all of the interval of its share there lies below `FINDS`, as for a page's verdict, or nothing was tried."""
        return self.found_inside is not None and self.found_inside.high >= FINDS

    @cached_property
    def retrieval(self) -> dict[int, tuple[int, int]]:
        """Right answers and prompts of all families, by window; of a window that lacks a family nothing."""
        found: dict[int, list[Retrieval]] = defaultdict(list)
        for m in self.records.of(Retrieval):
            found[m.row.window].append(m.row)
        return {
            window: (sum(r.successes for r in rows), sum(r.trials for r in rows))
            for window, rows in found.items()
            if len(rows) == FAMILIES
        }

    @property
    def gain(self) -> ContextGain | None:
        return next((m.row for m in self.records.of(ContextGain)), None)

    @cached_property
    def window(self) -> int:
        """L, tokens."""
        return next(iter(self.records.runs.values())).model.original_window

    @property
    def new_window(self) -> int:
        """L', tokens: what it was extended to, in however many steps; of the base and the control what the others were."""
        if self.asked["method"] in ("none", "control"):
            return round(self.window * self.asked["factor"])
        return next(iter(self.records.runs.values())).model.window

    @property
    def in_two_steps(self) -> bool:
        """Whether the model that it was made of had been extended already."""
        return self.new_window != round(self.window * self.asked["factor"])

    @cached_property
    def training_seconds(self) -> float:
        """GPU seconds of the steps; of the first, which compiles, as much as the median one took."""
        seconds = [m.row.seconds for m in self.records.of(Step)]
        return (sum(seconds[1:]) + statistics.median(seconds)) * self.gpus if seconds else 0.0

    @property
    def gpus(self) -> int:
        """On which it was trained together."""
        return self.asked.get("processes", 1)

    def device(self) -> str:
        return next(iter(self.records.runs.values())).device

    @property
    def cards(self) -> str:
        """H100, or H100 × 4 of rows that several trained together."""
        return self.device().removeprefix("NVIDIA ").split()[0] + (f" × {self.gpus}" if self.gpus > 1 else "")

    def damage(self, base: Row | None) -> Ratio | None:
        """Perplexity in the old window over the base's, on the same documents; in a shorter one where that was not measured."""
        if base is None or not base.perplexities:
            return None
        window = self.window if self.window in base.perplexities else min(base.perplexities)
        mine = self.perplexities.get(window)
        return ratio(base.perplexities[window], mine) if mine else None


def rows_in(*directories: Path) -> list[Row]:
    """The rows of these grids; files of one name are one row, measured in several goes.

    Raises:
        UserError: what `_read` raises.
    """
    files: dict[str, list[Path]] = defaultdict(list)
    for directory in directories:
        for path in sorted(directory.glob("*.jsonl")):
            files[path.name].append(path)
    return [_read(*((path, path.stat().st_mtime_ns) for path in paths)) for paths in files.values()]


def plain_rows(model: str, records: Path, *levels: str) -> list[Row]:
    """The rows of these levels and those of the level that trained some of the method map's again, by whole windows of books as they come, with everything
    measured: files of one name are there two trainings, not one row."""
    return [*rows_in(*(records / level / model for level in levels)), *rows_in(records / "read-plain" / model)]


@functools.cache
def _read(*files: tuple[Path, int]) -> Row:
    """A row; the times at which its files changed are for the cache.

    Raises:
        UserError: a file is damaged, of another row than its name says, or holds less than its row was asked for, or more.
    """
    if len(files) > 1:
        for file in files:
            _read(file)
        return Row(read([path for path, _ in files]))
    path, _ = files[0]
    row = Row(whole_records(path))
    runs, asked = row.records.runs.values(), asked_of(path)
    wrong = []
    if asked is None or any(run.settings.get("row") != asked for run in runs):
        wrong.append("lacks the line that says what was asked for, or has several that differ")
    elif asked["name"] != f"{path.parent.name}/{path.stem}":
        wrong.append(f"holds {asked['name']}")
    wrong += missing(runs, row.records.measurements).values()
    wrong += [f"has an interval of a {m.row.kind} that its documents do not give" for m in row.records.measurements if _is_altered(m.row)]  # fmt: skip
    if any(len(headers) > 1 for headers in row.records.commands.values()):
        wrong.append("holds its row more than once")
    if wrong:
        raise UserError(f"a row of the lab is drawn when it is whole, but {path} {wrong[0]}; {_WAY_OUT}")
    return row


def _is_altered(row: Any) -> bool:
    """Whether the ends of an interval over documents are not those that the documents give, to nine digits: sums and quantiles of other libraries differ in the last few."""
    given = exact(row) if isinstance(row, Perplexity | ContextGain) else row
    if given is row:  # of an estimate, or it has no interval
        return False
    ends = ((row.low, given.low), (row.high, given.high))
    return not all(math.isclose(*both, rel_tol=1e-9, abs_tol=1e-9) for both in ends)


def whole_records(path: Path) -> Records:
    """A record file of which every line can be read.

    Raises:
        UserError: a line cannot, or the file ends in the middle of one.
    """
    return _whole(path, path.stat().st_mtime_ns if path.is_file() else 0)  # `read` says what is not there


@functools.cache
def _whole(path: Path, changed: int) -> Records:
    records = read([path])
    left_out = records.left_out
    if left_out != LeftOut() or not path.read_bytes().endswith(b"\n"):
        headless = ["the header of its run is missing or damaged"] * bool(left_out.headless)
        why = next(iter([*left_out.reasons.values(), *headless]), "it is cut or no record")
        raise UserError(
            f"nothing is drawn from half of a file or an altered one, but of {path} a line cannot be used: {why}; {_WAY_OUT}"
        )
    return records


def refuse_copies(directory: Path) -> None:
    """Of all record files below a directory.

    Raises:
        UserError: there is none; a run is in two of them: one is a copy, in which the same figures would count again; a file cannot be read.
    """
    found: dict[str, Path] = {}
    for path in sorted(directory.rglob("*.jsonl")):
        for run in whole_records(path).runs:
            if found.setdefault(run, path) != path:
                raise UserError(
                    f"a row of the lab is drawn once, but {found[run]} and {path} hold the same run; delete the copy"
                )
    if not found:
        raise UserError(
            f"the lab's page is drawn from its records, but {directory} holds none; restore it, or run `make lab`"
        )


def base_of(rows: Iterable[Row]) -> Row | None:
    """The row that the others are held against."""
    return next((row for row in rows if row.asked["method"] == "none"), None)


def chosen_rates(directory: Path) -> dict[str, float]:
    """Method → its learning rate: the best on validation, at the budget at which most rates were tried; none where that is one, of which nothing was chosen."""
    tried: dict[str, dict[int, dict[float, float]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows_in(directory):
        if row.validation is not None and row.asked["seed"] == 0:
            tried[row.asked["method"]][row.asked["tokens"]][row.asked["learning_rate"]] = row.validation
    best = {}
    for method, budgets in tried.items():
        rates = max(budgets.items(), key=lambda budget: (len(budget[1]), budget[0]))[1]
        if len(rates) > 1:
            best[method] = min(rates, key=rates.__getitem__)
    return best


def at_chosen_rate(rows: Iterable[Row], rates: dict[str, float]) -> list[Row]:
    """Of each method, factor, budget and seed the row that was measured in full at its chosen rate, or at another where none was at that."""
    groups: dict[tuple, list[Row]] = defaultdict(list)
    for row in rows:
        if row.perplexities:
            asked = row.asked
            groups[row.method, asked["factor"], asked["tokens"], asked["seed"]].append(row)
    return [
        next((row for row in group if row.asked["learning_rate"] == rates.get(row.asked["method"])), group[0])
        for group in groups.values()
    ]


def control_of(row: Row, rows: Iterable[Row]) -> Row | None:
    """The row that read as many tokens at the original window; the package decides which that is."""
    by_variant = {each.variant: each for each in rows if each.perplexities}
    control = damage.control_of(row.variant, {variant: each.perplexities for variant, each in by_variant.items()})
    return by_variant[control] if control else None
