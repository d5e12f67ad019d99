"""Training: loss by step, and what it cost in tokens and hours; the hours of measuring beside it."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from ropewalk.figures import measured, style
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, trained_variant
from ropewalk.reports.content import Cell, Line, Section, Table, cells
from ropewalk.reports.rows import Clean, is_bookkeeping

Row = dict[str, Any]


@dataclass(frozen=True)
class Training:
    """One training run, added up from its steps. A resumed step counts once: the later row holds."""

    run: str
    state: Variant
    steps: list[Row]
    devices: int
    device: str
    documents: str = ""

    @property
    def tokens(self) -> int:
        return sum(row["tokens"] for row in self.steps)

    @property
    def seconds(self) -> float:
        return sum(row["seconds"] for row in self.steps if number_format.is_finite(row["seconds"]))

    def tokens_at(self, step: int) -> int | None:
        """Tokens seen when `step` was done; None if the run never came that far."""
        if not self.steps or step > self.steps[-1]["step"]:
            return None
        return sum(row["tokens"] for row in self.steps if row["step"] <= step)


def trainings(clean: Clean) -> list[Training]:
    """One per run with steps, in the order of their start."""
    by_run: dict[str, dict[int, Row]] = {}
    for row in clean.of("step"):
        by_run.setdefault(row["run"], {})[row["step"]] = row
    made = []
    for run in clean.used_runs:
        if run["id"] in by_run:
            steps = [row for _, row in sorted(by_run[run["id"]].items())]
            made.append(
                Training(run["id"], trained_variant(run), steps, devices(run), str(run.get("device", "")), read_by(run))
            )
    return made


def read_by(run: dict[str, Any]) -> str:
    """What a run was trained on, in words: documents that differ by a number alone are counted together."""
    settings = run.get("settings") if isinstance(run.get("settings"), dict) else {}
    names = settings.get("data")
    if not isinstance(names, list) or not names:
        return ""
    stems = Counter(re.sub(r"\s+\d+$", "", str(name)) for name in names)
    numbered = [f"{count} × “{stem}”" for stem, count in stems.items() if count > 1]
    others = [stem for stem, count in stems.items() if count == 1]
    if others:
        short = "/".join(others[0].split("/")[-2:])
        numbered.append(short if len(others) == 1 else f"{short} and {len(others) - 1} more")
    return " and ".join(numbered)


def devices(run: dict[str, Any]) -> int:
    """How many devices a run used, from its settings; one where they do not say."""
    settings = run.get("settings") if isinstance(run.get("settings"), dict) else {}
    for name in ("world_size", "devices", "ranks", "gpus"):
        if isinstance(settings.get(name), int) and settings[name] > 0:
            return settings[name]
    return 1


def budget(state: Variant, runs: list[Training]) -> int | None:
    """Tokens a state was trained on: of the runs that train this method to this window, what they agree on."""
    found = {
        run.tokens_at(state.steps)
        for run in runs
        if (run.state.lineage, run.state.method, run.state.window) == (state.lineage, state.method, state.window)
        and abs(run.state.factor - state.factor) < 1e-6
    } - {None}
    return next(iter(found)) if len(found) == 1 else None


def section(clean: Clean) -> Section | None:
    """The section of training, or None without a step."""
    runs = trainings(clean)
    if not runs:
        return None
    made = Section("training", "Training", "Next-token loss of each optimiser step over its whole batch.")
    rows = [row for run in runs for row in run.steps]
    bad = sum(not number_format.is_finite(row["loss"]) for row in rows)
    if bad < len(rows):
        made.draw(measured.loss(rows, colours=clean.colours), "Loss by step: every step thin, a running mean over it.")
    if bad:
        made.notes.append(f"{bad} of {len(rows)} steps have a loss that is not finite; they are not drawn.")
    made.tables.append(_table(clean, runs))
    made.notes += [
        f"{run.state.method_and_factor} to {run.state.window} read {run.documents}." for run in runs if run.documents
    ]
    return made


def _table(clean: Clean, runs: list[Training]) -> Table:
    lines = []
    for run in runs:
        losses = [row["loss"] for row in run.steps if number_format.is_finite(row["loss"])]
        tail = losses[-max(1, len(losses) // 10) :]
        mfu = [row["mfu"] for row in run.steps if number_format.is_finite(row["mfu"])]
        peak = max(row["peak_bytes"] for row in run.steps)
        speed = run.tokens / run.seconds if run.seconds else None
        lines.append(
            Line(
                f"{run.state.method_and_factor} to {run.state.window}",
                cells(
                    str(len(run.steps)),
                    f"{number_format.fixed(losses[0] if losses else None)} → {number_format.fixed(sum(tail) / len(tail) if tail else None)}",
                    number_format.large(run.tokens),
                    number_format.large(speed),
                    number_format.share(sum(mfu) / len(mfu)) if mfu else number_format.NONE,
                    number_format.memory(peak),
                    number_format.duration(run.seconds),
                ),
                note=run.device,
                colour=style.colour(run.state, clean.colours),
            )
        )
    return Table(
        "What each training run did",
        ["steps", "loss", "tokens", "tokens/s", "MFU", "peak memory", "time"],
        lines,
        first="run",
        note="Loss: the first step, and the mean of the last tenth. MFU: share of the machine's measured matrix rate.",
    )


def cost(clean: Clean) -> Section | None:
    """Tokens and device hours by what they were spent on."""
    spent: dict[tuple[str, str], list[float]] = {}
    for run in trainings(clean):
        total = spent.setdefault(("training", kind_of_device(run.device)), [0, 0.0])
        total[0] += run.tokens
        total[1] += run.seconds * run.devices
    names = {
        "perplexity": "perplexity",
        "passkey_summary": "passkey",
        "benchmark": "benchmarks",
        "summary": "summaries",
    }
    for row in clean.rows:
        seconds = row.get("seconds")
        if row["kind"] == "step" or is_bookkeeping(row["kind"]) or not number_format.is_finite(seconds) or seconds <= 0:
            continue
        name = names.get(row["kind"], row["kind"].replace("_summary", "").replace("_", " "))
        total = spent.setdefault((name, kind_of_device(row["header"].get("device", ""))), [0, 0.0])
        total[0] += row.get("tokens", 0) if isinstance(row.get("tokens"), int) else 0
        total[1] += seconds * devices(row["header"])
    if not spent:
        return None
    made = Section(
        "cost",
        "Cost",
        "Device hours: the time of each step or measurement times the devices it ran on, loading left out.",
    )
    lines = [
        Line(
            name,
            cells(device, number_format.large(tokens) if tokens else "", hours(seconds)),
        )
        for (name, device), (tokens, seconds) in sorted(spent.items(), key=lambda item: -item[1][1])
    ]
    totals: dict[str, float] = {}
    for (_, device), (_, seconds) in spent.items():
        totals[device] = totals.get(device, 0.0) + seconds
    lines += [
        Line("together", [Cell(device), Cell(""), Cell(hours(s), strong=True)]) for device, s in sorted(totals.items())
    ]
    made.tables.append(Table("Where the time went", ["device", "tokens", "device time"], lines, first="spent on"))
    return made


def hours(seconds: float) -> str:
    return f"{seconds / 3600:.2g} h" if seconds >= 360 else number_format.duration(seconds)


def kind_of_device(device: str) -> str:
    """The device without its number or its threads: cuda:0 and cuda:1 are one kind, so are cpu and cpu with two threads."""
    kind = device.partition(",")[0].strip()
    return re.sub(r":\d+$", "", kind) or "not said"
