"""Figures of more lines than a reader can tell apart."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.colors import to_hex

import made_up
from grid_pages import trained
from ropewalk import records
from ropewalk.figures import compare, measured, style
from ropewalk.records import Measurement

METHODS = ("linear", "ntk", "yarn", "cope", "p-rope")
RATES = (3e-4, 1e-4, 1e-3)  # the first is the best


def lines(rates=RATES) -> list[Measurement]:
    rows = []
    for place, method in enumerate(METHODS):
        for rank, rate in enumerate(rates):
            state, settings, read = trained(method, f"{method}-{rate}", 2.0 + place / 100 + rank / 10, learning_rate=rate)  # fmt: skip
            rows += [Measurement(row, made_up.run(state, f"ablate {state.name}", settings=settings)) for row in read]
    return rows


def named(figure) -> dict[str, str]:
    """Name in the legend → its colour."""
    (legend,) = figure.legends
    return {text.get_text(): to_hex(line.get_color()) for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)}  # fmt: skip


def by_steps(measurements: list[Measurement]) -> list:
    last = {m.model_variant: m.row.perplexity for m in measurements if m.row.window == 1024}
    return [(variant, {0: 9.0, 20: value}) for variant, value in last.items()]


@pytest.mark.parametrize("draw", [
    measured.perplexity,
    lambda rows: compare.perplexity_by_steps(by_steps(rows), base=None),
    lambda rows: compare.k_max_by_steps([(v, {20: round(1024 - 10 * p[20])}) for v, p in by_steps(rows)]),
])  # fmt: skip
def test_the_best_of_each_method_is_named_and_the_others_are_one_grey_entry(draw):
    names = named(draw(lines()))
    assert len(names) == len(METHODS) + 1
    *methods, others = names
    assert all("learning rate 0.0003" in name for name in methods) and len({names[name] for name in methods}) == len(METHODS)  # fmt: skip
    assert others == "10 more, in the table" and names[others] == style.CROWDED_OUT not in [names[m] for m in methods]


def test_lines_that_can_be_told_apart_all_have_their_names():
    names = named(measured.perplexity(lines(RATES[:2])))
    assert len(names) == 2 * len(METHODS) <= style.MOST and not any("more" in name for name in names)


def test_seeds_of_one_training_are_one_line_and_what_is_no_number_stands_behind():
    runs = []
    for place, method in enumerate(("yarn", "linear")):
        for rate in range(1, 9):
            for seed in range(2):
                state, settings, (row, _) = trained(method, f"{method}{rate}{seed}", 2.0 + rate / 10 + place, learning_rate=rate / 1e4, seed=seed)  # fmt: skip
                broken = made_up.row(math.inf) if rate == 1 else row
                runs.append(Measurement(broken, made_up.run(state, state.name, settings=settings)))
    names = named(measured.perplexity([m for m in runs if isinstance(m.row, records.Perplexity)]))
    *methods, thin, others = names
    assert (thin, others) == ("thin lines: single seeds", "14 more, in the table") and len(methods) == 2
    assert all("learning rate 0.0002" in name for name in methods)


def test_every_process_gives_a_variant_the_same_colour():
    """They came from a set, whose order is another in each process."""
    code = "from test_crowded import lines; from ropewalk.reports.rows import Clean; print(Clean({}, lines()).colours)"
    folders = [str(Path(__file__).parent), str(Path(__file__).parents[1]), *filter(None, sys.path)]

    def colours(seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(folders)}
        return subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        ).stdout

    assert colours("1") == colours("2") != "{}"
