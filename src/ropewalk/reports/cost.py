"""What training and measuring cost: tokens and device hours, by what they were spent on."""

from __future__ import annotations

from collections import Counter, defaultdict

from ropewalk.records import BOOKKEEPING, Benchmark, PasskeySummary, Perplexity, Row, Step, Summary
from ropewalk.records import format as number_format
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import attempts, devices, kind_of_device
from ropewalk.sentences import joined

#: What a kind of row is called where time is added up; others by their own name.
_SPENT_ON: dict[type[Row], str] = {
    Perplexity: "perplexity",
    PasskeySummary: "passkey",
    Benchmark: "benchmarks",
    Summary: "summaries",
}


def section(clean: Clean) -> Section | None:
    """The section, or None where no row has a time."""
    spent = _spent(clean)
    if not spent:
        return None
    part = Section(
        "cost",
        "Cost",
        "Device hours: the time of each step or measurement times the devices it ran on, loading left out.",
    )
    lines = [
        Line(name, [Cell(device), Cell.of(tokens, number_format.large) if tokens else Cell(""), _time(seconds)])
        for (name, device), (tokens, seconds) in sorted(spent.items(), key=lambda item: -item[1][1])
    ]
    totals = defaultdict[str, float](float)
    for (_, device), (_, seconds) in spent.items():
        totals[device] += seconds
    lines += [Line("together", [Cell(device), Cell(""), _time(s, strong=True)]) for device, s in sorted(totals.items())]
    part.tables.append(Table("Where the time went", ["device", "tokens", "device time"], lines, first="spent on"))
    return part


def _time(seconds: float, *, strong: bool = False) -> Cell:
    return Cell.of(seconds, number_format.duration, unit="s", strong=strong)


def in_words(clean: Clean) -> str:
    """Device time of training and of measuring in a sentence; nothing where no row has a time."""
    sums = defaultdict[str, dict[str, float]](lambda: defaultdict(float))
    for (what, device), (_, seconds) in _spent(clean).items():
        sums[device]["training" if what == "training" else "measuring"] += seconds
    times = []
    for device, by_kind in sorted(sums.items()):
        parts = [
            f"{number_format.duration(seconds)} of {kind}" for kind, seconds in sorted(by_kind.items(), reverse=True)
        ]
        times.append(f"{joined(parts)} on {device}")
    return f"Device time: {'; '.join(times)}." if times else ""


def _spent(clean: Clean) -> dict[tuple[str, str], tuple[int, float]]:
    """(what, kind of device) → (tokens, device seconds)."""
    items = [("training", training.run, training.tokens, training.seconds) for training in attempts(clean)]
    for m in clean.measurements:
        seconds = getattr(m.row, "seconds", None)
        if isinstance(m.row, (Step, *BOOKKEEPING)) or not number_format.is_finite(seconds) or seconds <= 0:
            continue
        name = _SPENT_ON.get(type(m.row), m.row.kind.replace("_summary", "").replace("_", " "))
        items.append((name, m.run, getattr(m.row, "tokens", 0), seconds))
    tokens_of, seconds_of = Counter[tuple[str, str]](), defaultdict[tuple[str, str], float](float)
    for name, run, tokens, seconds in items:
        key = name, kind_of_device(run.device)
        tokens_of[key] += tokens
        seconds_of[key] += seconds * devices(run)
    return {key: (tokens_of[key], seconds) for key, seconds in seconds_of.items()}
