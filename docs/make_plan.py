"""Write the tables of docs/plan.md: what the planner says against what was measured, and the paper's runs on paper.

python docs/make_plan.py

Points are in docs/points.json; a measured point is added there and nowhere else. tests/test_plan.py holds the page to this.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.plan import Plan, plan
from ropewalk.plan.chips import CHIPS, Rates, datasheet_rates
from ropewalk.plan.job import FULL, NONE, Job, Keep, regime
from ropewalk.plan.memory import GIB, memory
from ropewalk.plan.planner import shape_of
from ropewalk.plan.shape import read
from ropewalk.plan.speed import time

PAGE = Path(__file__).with_name("plan.md")
POINTS = Path(__file__).with_name("points.json")
#: (model, window, chips, batch) of section 3.1 and tables 1 and 2 of the paper: Position Interpolation, 1000 steps.
PAPER = [
    ("llama-7b", 8192, 32, 64),
    ("llama-7b", 16384, 128, 128),
    ("llama-7b", 32768, 128, 128),
    ("llama-13b", 8192, 32, 64),
    ("llama-13b", 16384, 128, 128),
    ("llama-13b", 32768, 128, 128),
    ("llama-33b", 8192, 32, 64),
    ("llama-33b", 16384, 128, 128),
    ("llama-65b", 8192, 128, 128),
]
PRICE = {"H100": 2.5, "H200": 3.0}


@dataclass(frozen=True)
class Checked:
    """A point and what the planner says of it; errors are planned / measured - 1, None where nothing was measured."""

    point: dict[str, Any]
    tokens_per_second: float
    gib: float

    @property
    def time_error(self) -> float | None:
        measured = self.point.get("tokens_per_second")
        return None if measured is None else measured / self.tokens_per_second - 1

    @property
    def memory_error(self) -> float | None:
        measured = self.point.get("peak_gib")
        return None if measured is None else self.gib / measured - 1


def check(point: dict[str, Any]) -> Checked:
    """The planner's word on one point."""
    shape = read(point["config"], name=point["model"]) if point.get("config") else shape_of(point["model"])
    said = point["keep"]
    keep = {"full": FULL, "none": NONE}.get(said) if isinstance(said, str) else Keep("kept", said)
    job = Job(
        shape,
        point["window"],
        1,
        point["batch"],
        point.get("gpus", 1),
        point.get("cp", 1),
        point["micro"],
        regime(point["precision"], point.get("optimizer", "adamw")),
        keep,
        fused=point["fused"],
        whole_logits=point.get("whole_logits", False),
    )
    chip = CHIPS[point.get("chip", "H200")]
    rates = Rates(**point["rates"]) if point.get("rates") else datasheet_rates(chip)
    before = point.get("before_gib", 0.0) * GIB
    need = memory(job, context=before).allocated + before
    return Checked(point, time(job, rates, chip).tokens_per_second, need / GIB)


def checks() -> list[Checked]:
    """Every point."""
    return [check(point) for point in json.loads(POINTS.read_text(encoding="utf-8"))]


def validation() -> str:
    """The table of points."""
    lines = [
        "| | machine | what | size | tokens/s | planned | | peak GiB | planned | |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for found in checks():
        point = found.point
        lines.append(
            f"| {point['role']} | {point['machine']} | {point['engine']}, {point['model']} | {_size(point)} "
            f"| {_digits(point.get('tokens_per_second'))} | {_digits(found.tokens_per_second)} | {_percent(found.time_error)} "
            f"| {_gib(point.get('peak_gib'))} | {_gib(found.gib)} | {_percent(found.memory_error)} |"
        )
    return "\n".join(lines)


def _size(point: dict[str, Any]) -> str:
    more = "" if point["batch"] == point["micro"] else f" in {point['batch'] // point['micro']} parts"
    return f"{point['batch']} × {point['window']}{more}"


def _digits(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}"


def _gib(number: float | None) -> str:
    return "" if number is None else f"{number:.1f}" if number >= 10 else f"{number:.2f}"


def _percent(error: float | None) -> str:
    return "" if error is None else f"{error:+.1%}"


def paper() -> str:
    """The paper's runs on the paper's chips and on eight of today's."""
    lines = [
        "| model | window | batch | on A100-80 | days | chip hours | on 8 × H100 | cost | on 8 × H200 | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, window, chips, batch in PAPER:
        then = plan(model, window=window, gpus=f"{chips}xA100-80", batch_size=batch)
        now = [_fitting(model, window, batch, name) for name in PRICE]
        lines.append(
            f"| {model} | {window} | {batch} | {chips} | {then.hours / 24:.2g} | {then.gpu_hours:,.0f} | "
            + " | ".join(f"{_days(found)} | {found.cost:,.0f}" for found in now)
            + " |"
        )
    return "\n".join(lines)


def _fitting(model: str, window: int, batch: int, chip: str) -> Plan:
    """On eight chips: float32 weights where they fit, else bfloat16 weights with stochastic rounding."""
    for precision in ("bfloat16", "bfloat16-stochastic"):
        found = plan(model, window=window, gpus=f"8x{chip}", batch_size=batch, precision=precision, price=PRICE[chip])
        if found.fits:
            return found
    raise SystemExit(f"{model} at {window} does not fit eight {chip}")


def _days(found: Plan) -> str:
    mark = "" if found.precision == "bfloat16" else "*"
    return (f"{found.hours:.0f} h" if found.hours < 48 else f"{found.hours / 24:.1f} days") + mark


def chips() -> str:
    """The table of data sheets."""
    lines = [
        "| `--gpus` | bf16 TFLOP/s, dense | GiB | TB/s | GB/s to a neighbour | source |",
        "|---|---|---|---|---|---|",
    ]
    for chip in CHIPS.values():
        lines.append(
            f"| {chip.name} | {chip.matrix / 1e12:g} | {chip.memory:g} | {chip.bandwidth / 1e12:g} | {chip.link / 1e9:g} | {chip.source} |"
        )
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its tables made anew, between `<!-- name -->` and `<!-- end -->`."""
    for make in (validation, paper, chips):
        start, end = f"<!-- {make.__name__} -->\n", "\n<!-- end -->"
        before, rest = text.split(start, 1)
        text = before + start + make() + end + rest.split(end, 1)[1]
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
