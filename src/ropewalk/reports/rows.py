"""What the page can use of a record file, and what has to be said about the rest.

in   record.Records: headers and rows as they stood in the files
out  Clean: rows whose fields are what their kind promises, newest figure kept where one was measured twice; and counts of
     everything that was left out or does not belong together

A file that was edited, cut or written by another version must not break the page or, worse, be half believed.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from ropewalk import records as record_kinds
from ropewalk.errors import UserError
from ropewalk.figures.style import palette
from ropewalk.records.variant import trained_variant, variant_of
from ropewalk.rope.scaling import SCALINGS, from_dict

KINDS: dict[str, type] = {
    item.kind: item
    for _, item in inspect.getmembers(record_kinds, inspect.isclass)
    if dataclasses.is_dataclass(item) and hasattr(item, "kind") and item is not record_kinds.Run
}

# A field that is an outcome, not a setting: two rows that differ only in these measured the same thing twice.
_SETTINGS = {
    "perplexity": ("window", "stride", "convention", "data", "bos"),
    "passkey": ("window", "k"),
    "passkey_summary": ("window",),
    "attention": ("window", "layer", "data"),
    "adjacent": ("window", "layer", "data"),
}
# What no measurement can be zero or less of, nor reach the figure beside it.
_POSITIVE = dict.fromkeys(("window", "stride", "trials", "depths", "original_window", "factor"), 1e12) | {
    "perplexity": math.inf
}


# How much was measured: where these differ, the newer row is not the same measurement again.
_EXTENT = ("documents", "tokens", "trials", "depths")


@dataclass
class Clean:
    """Rows fit to print, and what was left out."""

    runs: dict[str, dict[str, Any]]
    rows: list[dict[str, Any]]
    damaged: int = 0
    malformed: Counter = field(default_factory=Counter)
    headless: int = 0
    unknown: Counter = field(default_factory=Counter)
    repeated: Counter = field(default_factory=Counter)
    replaced: int = 0  # of those repeated, how many gave way to a row over more or fewer tokens or trials

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The rows of a kind, each with its run's header under "header"."""
        return [row for row in self.rows if row["kind"] == kind]

    @functools.cached_property
    def colours(self) -> dict[tuple, str]:
        """Each state's colour on this page."""
        states = {variant_of(row["header"], row.get("window")) for row in self.rows}
        states |= {variant_of(row["header"]) for row in self.rows}
        return palette(states | {trained_variant(row["header"]) for row in self.of("step")})

    @property
    def used_runs(self) -> list[dict[str, Any]]:
        """The runs that have a row on the page, oldest first."""
        used = {row["run"] for row in self.rows}
        return sorted((run for key, run in self.runs.items() if key in used), key=lambda run: run.get("started", ""))


def is_bookkeeping(kind: str) -> bool:
    """Rows by which a killed measurement goes on. They are no result: what they add up to is another row."""
    return kind.startswith("document_")


def clean(records: record_kinds.Records) -> Clean:
    """Check every row against its kind, tie it to its header, and keep the newest of what was measured twice."""
    runs = {key: run for key, run in records.runs.items() if _is_header(run)}
    _fill_in_parameters(runs)
    result = Clean(runs=runs, rows=[], damaged=records.damaged)
    for row in records.rows:
        kind = row.get("kind")
        if not isinstance(kind, str) or kind not in KINDS:
            result.unknown[str(kind)] += 1
        elif not isinstance(row.get("run"), str) or row["run"] not in runs:
            result.headless += 1
        elif not _fits(row, KINDS[kind]):
            result.malformed[kind] += 1
        else:
            result.rows.append({**_defaults(KINDS[kind]), **row, "header": runs[row["run"]]})
    result.rows = _newest(result)
    return result


def _is_header(run: dict[str, Any]) -> bool:
    model = run.get("model")
    if not isinstance(model, dict):
        return False
    return _fits(model, record_kinds.ModelInfo) and _fits(run, record_kinds.Run) and _is_scaling(model.get("scaling"))


def _is_scaling(entry: Any) -> bool:
    """Whether a header's scaling, if it has one, has a method and, if this version knows that, its parameters."""
    if entry is None:
        return True
    if not isinstance(entry, dict) or not isinstance(entry.get("method"), str):
        return False
    if entry["method"] not in SCALINGS:
        return _is(entry.get("factor", 1.0), "float") and 0 < (entry.get("factor") or 1.0) < _POSITIVE["factor"]
    try:
        return bool(from_dict(entry))
    except (UserError, TypeError, ValueError):
        return False


def _fits(row: dict[str, Any], kind: type) -> bool:
    """Every field that has no default is there, and every field that is there has the type its kind says."""
    for item in dataclasses.fields(kind):
        needed = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
        if item.name not in row:
            if needed:
                return False
        elif not _is(row[item.name], str(item.type)):
            return False
        elif item.name in _POSITIVE and row[item.name] is not None and not 0 < row[item.name] < _POSITIVE[item.name]:
            return False
    return not ("successes" in row and "trials" in row) or 0 <= row["successes"] <= row["trials"]


def _is(value: Any, annotation: str) -> bool:
    """Whether a JSON value is what the annotation says. null stands for a float that was not finite."""
    if "|" in annotation:
        return any(_is(value, part.strip()) for part in annotation.split("|"))
    if annotation == "None":
        return value is None
    if annotation == "bool":
        return isinstance(value, bool)
    if annotation == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation == "float":
        return value is None or (isinstance(value, int | float) and not isinstance(value, bool))
    if annotation == "str":
        return isinstance(value, str)
    outer, _, inner = annotation.partition("[")
    if outer == "list":
        return isinstance(value, list) and all(_is(item, inner[:-1]) for item in value)
    if outer == "dict":
        of_values = inner[:-1].partition(",")[2].strip()
        return isinstance(value, dict) and all(_is(item, of_values) for item in value.values())
    return True


def _defaults(kind: type) -> dict[str, Any]:
    """A row written before a field existed reads as if it had the field's default."""
    found = {}
    for item in dataclasses.fields(kind):
        if item.default is not dataclasses.MISSING:
            found[item.name] = item.default
        elif item.default_factory is not dataclasses.MISSING:
            found[item.name] = item.default_factory()
    return found


def _fill_in_parameters(runs: dict[str, dict[str, Any]]) -> None:
    """A header written without loading the model says 0 parameters; take the count from its siblings if they agree."""

    def sibling(run: dict[str, Any]) -> tuple:
        model = run["model"]
        return (model.get("family"), model["original_window"], model.get("head_dim", 0))

    known: dict[tuple, set[int]] = {}
    for run in runs.values():
        known.setdefault(sibling(run), set()).add(run["model"].get("parameters", 0))
    for run in runs.values():
        counts = known[sibling(run)] - {0}
        if not run["model"].get("parameters") and len(counts) == 1:
            run["model"] = {**run["model"], "parameters": next(iter(counts))}


def _newest(result: Clean) -> list[dict[str, Any]]:
    """Of figures measured twice in the same state the newest; an estimate gives way to the exact figure."""
    kept: dict[tuple, dict[str, Any]] = {}
    for index, row in enumerate(result.rows):
        settings = _SETTINGS.get(row["kind"])
        if settings is None:
            kept[(index,)] = row
            continue
        key = (row["kind"], variant_of(row["header"], row.get("window")), *(row[name] for name in settings))
        if key not in kept:
            kept[key] = row
            continue
        result.repeated[row["kind"]] += 1
        older, newer = sorted((kept[key], row), key=_rank)
        kept[key] = newer
        if any(older.get(name) != newer.get(name) for name in _EXTENT):
            result.replaced += 1
    return _of_one_test(result, list(kept.values()))


def _of_one_test(result: Clean, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Depths of the passkey test that is shown alone: k_max is of one test, whose depths are not to be mixed with another's."""
    tests = {_test(row): row["run"] for row in rows if row["kind"] == "passkey_summary"}
    mixed = [row for row in rows if row["kind"] == "passkey" and tests.get(_test(row), row["run"]) != row["run"]]
    if mixed:
        result.repeated["passkey"] += len(mixed)
    gone = {id(row) for row in mixed}
    return [row for row in rows if id(row) not in gone]


def _test(row: dict[str, Any]) -> tuple:
    return (variant_of(row["header"], row["window"]), row["window"])


def _rank(row: dict[str, Any]) -> tuple:
    return (not row.get("estimate", False), row["header"].get("started", ""))
