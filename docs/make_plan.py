"""Write the tables of docs/plan.md: what the planner says against what was measured, and the paper's runs on paper.

python docs/make_plan.py                              after any change of the planner
python docs/make_plan.py --add runs/train.json        what `python -m bench.train --json runs/train.json` measured
    --flash-4 1.18      if its "ropewalk" ran with FlashAttention-4: the ratio of the two attention rates it printed

Points are in docs/points.json; a measured point is added there and nowhere else. tests/planner/test_points.py holds the page to this.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.cli import parse
from ropewalk.planner import Plan, plan
from ropewalk.planner.chips import CHIPS, Rates, datasheet_rates
from ropewalk.planner.job import FULL, NONE, ActivationChoice, Job
from ropewalk.planner.kept import kept_by_rule
from ropewalk.planner.memory import GIB, step_memory
from ropewalk.planner.named import shape_of
from ropewalk.planner.shape import read_shape
from ropewalk.planner.speed import step_time
from ropewalk.settings.command import arguments
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.recipe import Recipe

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
    """A point and what the planner says of it; errors, of speed and of memory, are planned / measured - 1, None where nothing was measured."""

    point: dict[str, Any]
    tokens_per_second: float
    gib: float
    job: Job

    @property
    def speed_error(self) -> float | None:
        measured = self.point.get("tokens_per_second")
        return None if measured is None else self.tokens_per_second / measured - 1

    @property
    def memory_error(self) -> float | None:
        measured = self.point.get("peak_gib")
        return None if measured is None else self.gib / measured - 1


def check(point: dict[str, Any]) -> Checked:
    """The planner's word on one point; on one that has the words of a plan, that plan's, of each chip."""
    if point.get("plan"):
        typed = plan(**arguments(PlanSettings, parse(["plan", *point["plan"].split()])[1]))
        gib = (typed.memory.allocated + point.get("reserved", 0) * typed.memory.slack) / GIB
        return Checked(point, typed.time.tokens_per_second / typed.job.gpus, gib, typed.job)
    shape = read_shape(point["config"], name=point["model"]) if point.get("config") else shape_of(point["model"])
    kept = point["keep"]
    recipe = Recipe(
        window=point["window"],
        steps=1,
        batch_size=point["batch"],
        precision=point["precision"],
        optimizer=point.get("optimizer", "adamw"),
        mode=point.get("mode", "full"),
        base_bits=point.get("base_bits"),
    )
    chosen = (
        {"full": FULL, "none": NONE, "auto": FULL}[kept] if isinstance(kept, str) else ActivationChoice("kept", kept)
    )
    job = Job(
        shape,
        recipe,
        gpus=point.get("gpus", 1),
        cp=point.get("cp", 1),
        micro=point["micro"],
        activations=chosen,
        fused=point["fused"],
        whole_logits=point.get("whole_logits", False),
        host=point.get("host_gib", 0) * GIB,
        tiled=kept == "auto",
    )
    chip = CHIPS[point.get("chip", "H200")]
    rates = Rates(**point["rates"]) if point.get("rates") else datasheet_rates(chip)
    if kept == "auto":  # what is kept, and where, is planned as well
        found = kept_by_rule(job, chip, rates)
        if found is None:
            raise SystemExit(f"{point['model']} at {point['window']} does not fit by plan, and was measured")
        job = found
    cpu = point["machine"].startswith("CPU")  # whose peak is the process's, holes and libraries included
    need = step_memory(job, cpu=True).total if cpu else step_memory(job).allocated
    return Checked(point, step_time(job, rates, chip).tokens_per_second, need / GIB, job)


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
            f"| {point['role']} | {point['machine']} | {_what(point)} | {_size(point)} "
            f"| {_digits(point.get('tokens_per_second'))} | {_digits(found.tokens_per_second if found.speed_error is not None else None)} | {_percent(found.speed_error)} "
            f"| {_gib(point.get('peak_gib'))} | {_gib(found.gib)} | {_percent(found.memory_error)} |"
        )
    return "\n".join(lines)


def kept() -> str:
    """What plans keep that are left to choose, beside what training kept."""
    lines = ["| machine | what | size | kept by plan | on the host, GiB | by training |", "|---|---|---|---|---|---|"]
    for found in checks():
        point, hosted = found.point, step_memory(found.job).host / GIB
        if trained := point.get("kept_measured"):
            lines.append(
                f"| {point['machine']} | {_what(point)} | {_size(point)} | {found.job.activations.name} | {hosted:.1f} | {trained} |"
            )
    return "\n".join(lines)


def _what(point: dict[str, Any]) -> str:
    return f"{point['engine']}, " + (f"`{point['plan']}`" if point.get("plan") else point["model"])


def _size(point: dict[str, Any]) -> str:
    micro = point.get("micro", point["batch"])  # which the words of a plan say, or leave open
    more = "" if point["batch"] == micro else f" in {point['batch'] // micro} parts"
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
        "| model | window | batch | A100-80 | hours | chip hours | on 8 × H100 | cost | on 8 × H200 | cost |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for model, window, chips, batch in PAPER:
        then = plan(model, window=window, gpus=f"{chips}xA100-80", batch_size=batch)
        now = [_fitting(model, window, batch, name) for name in PRICE]
        lines.append(
            f"| {model} | {window} | {batch} | {chips} | {then.hours:.1f} | {then.gpu_hours:,.0f} | "
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
    mark = "" if found.job.recipe.precision == "bfloat16" else "*"
    return (f"{found.hours:.1f} h" if found.hours < 48 else f"{found.hours / 24:.1f} days") + mark


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
    for make in (validation, kept, paper, chips):
        start, end = f"<!-- {make.__name__} -->\n", "\n<!-- end -->"
        before, rest = text.split(start, 1)
        text = before + start + make() + end + rest.split(end, 1)[1]
    return text


#: What memory.py numbers in the order of a Llama layer's operations.
_ORDER = ("q", "k", "v", "attention", "o", "gate", "up", "down")
#: Contestants of bench/train.py: how they are named here, whether their elementwise kernels are fused, whether they form all logits.
_CONTESTANTS = {
    "transformers": ("transformers, full checkpointing", False, True),
    "liger": ("transformers + liger, full checkpointing", True, False),
    "ropewalk": ("ropewalk", True, False),
}


def measured(found: dict[str, Any], flash_4: float | None = None) -> list[dict[str, Any]]:
    """Points of one run of bench/train.py, the median of each contestant at each size.

    Args:
        found: the file it wrote.
        flash_4: how many times faster FlashAttention-4 was than PyTorch's choice, if our own contestant ran with it.
    """
    sheet = datasheet_rates(CHIPS["H200"])
    points = []
    sizes = dict.fromkeys((turn["who"], turn["batch"], turn["tokens"]) for turn in found["turns"])
    for who, batch, tokens in sizes:
        turns = [
            t for t in found["turns"] if (t["who"], t["batch"], t["tokens"]) == (who, batch, tokens) and not t["error"]
        ]
        seconds = [each for turn in turns for each in turn["seconds"][1:]]
        if not seconds or who not in _CONTESTANTS:
            continue
        engine, fused, whole = _CONTESTANTS[who]
        faster = flash_4 if flash_4 and who == "ropewalk" else 1.0
        rates = dataclasses.replace(
            sheet,
            matrix=found["matrix_rate"],
            attention_forward=sheet.attention_forward * faster,
            attention_backward=sheet.attention_backward * faster,
            source="data sheet, with the matrix rate of the same run",
        )
        points.append(
            dict(
                role="check",
                machine="one H200",
                engine=f"{engine}, FlashAttention-4" if faster != 1 else engine,
                model="llama-7b",
                window=tokens,
                batch=batch,
                micro=batch,
                precision="bfloat16-stochastic",
                keep=_keep(turns[0]["kept"]) if who == "ropewalk" else "full",
                fused=fused,
                whole_logits=whole,
                rates=dataclasses.asdict(rates),
                tokens_per_second=round(batch * tokens / statistics.median(seconds), 1),
                peak_gib=round(turns[0]["peak"], 2),
                versions={name: found["versions"].get(name) for name in ("torch", "transformers", "liger-kernel")},
                command=_command(found["command"]),
            )
        )
    return points


def _command(arguments: list[str]) -> str:
    """What to type to measure the same: no paths of the machine it ran on."""
    kept = [word for i, word in enumerate(arguments[1:], start=1) if "--json" not in (word, arguments[i - 1])]
    return " ".join(["python -m bench.train", *kept])


def _keep(said: str) -> str | dict[str, float]:
    """Shares of layers by product from "13 x [3], 19 x [0, 3]"; "none" if everything was kept."""
    kinds = re.findall(r"(\d+) x (all|\[[^]]*\])", said)
    layers = sum(int(count) for count, _ in kinds)
    if all(which == "all" for _, which in kinds):
        return "none"
    shares: dict[str, float] = {}
    for count, which in kinds:
        for index in range(8) if which == "all" else json.loads(which):
            shares[_ORDER[index]] = shares.get(_ORDER[index], 0.0) + int(count) / layers
    return shares or "full"


def add(points: list[dict[str, Any]]) -> None:
    """Put points into the file; one that was measured before is replaced."""
    same = ("role", "machine", "engine", "model", "window", "batch", "micro")
    old = json.loads(POINTS.read_text(encoding="utf-8"))
    kept = [p for p in old if not any(all(p[key] == new[key] for key in same) for new in points)]
    POINTS.write_text(json.dumps([*kept, *points], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--add", type=Path, help="a file of `python -m bench.train --json`")
    parser.add_argument("--flash-4", type=float, help="its attention rate over PyTorch's choice, both as printed")
    asked = parser.parse_args()
    if asked.add:
        add(measured(json.loads(asked.add.read_text()), asked.flash_4))
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
