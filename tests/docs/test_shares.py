"""Figures of one page that follow from others: shares of the data sheet from tokens/s, bytes a parameter as `plan` has them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ropewalk.planner import plan
from ropewalk.planner.chips import CHIPS, Mfu
from ropewalk.planner.planner import shape_of

DOCS = Path(__file__).parents[2] / "docs"
NAMES = {"LLaMA 7B": "llama-7b", "Llama-3-8B": "llama3-8b", "Qwen3-8B": "qwen3-8b", "SmolLM2-135M": "smollm2-135m"}


def tables(text: str) -> Iterator[tuple[str, list[str], list[list[str]]]]:
    """The text before each table, its head and its rows; an empty first cell is that of the row above."""
    for match in re.finditer(r"((?:^\|.*\n)+)", text, re.MULTILINE):
        head, _, *rows = ([cell.strip(" *") for cell in line.strip("|").split("|")] for line in match[1].splitlines())
        for above, row in zip(rows, rows[1:], strict=False):
            row[0] = row[0] or above[0]
        yield text[: match.start()], head, rows


def last(pattern: str, *places: str) -> re.Match[str] | None:
    """Of the first place that has it, the last."""
    return next((found[-1] for place in places if (found := [*re.finditer(pattern, place)])), None)


def shares() -> Iterator[tuple[str, str, int, float, float]]:
    """Row, model, window, tokens/s a GPU and the share of the data sheet, of every table of docs/results.md that has both."""
    for before, head, rows in tables((DOCS / "results.md").read_text()):
        if Mfu.OF_SHEET.split(" (")[0] not in " ".join(head):
            continue
        share = next(number for number, cell in enumerate(head) if cell.startswith("of the data sheet"))
        speed = next(
            number for number, cell in enumerate(head) if cell == "tokens/s" or re.search(r"\wS?, each$", cell)
        )
        section = before.rpartition("\n## ")[2]
        for row in rows:
            places = (row[0], head[0], section)
            name = last("|".join(NAMES), row[0], head[0])
            window = last(r"\d+ × (\d+)", *places)
            assert window, row
            yield (
                " | ".join(row),
                NAMES[name[0] if name else "LLaMA 7B"],
                int(window[1]),
                float(row[speed]),
                float(row[share]),
            )


def test_shares_of_the_data_sheet_follow_from_tokens_a_second():
    """By three digits of the share, and the half token that a rate is rounded by."""
    rows = [*shares()]
    assert len(rows) > 40 and len({model for _, model, *_ in rows}) == 4
    for row, model, window, speed, share in rows:
        assert share == pytest.approx(shape_of(model).flops(window) * speed / CHIPS["H100"].matrix, abs=5.6e-4), row


@pytest.mark.parametrize(("options", "words"), [({}, "has "), ({"base_bits": 4}, "GiB of weights, and ")])
def test_weights_beside_adapters_are_those_of_the_plan(options, words):
    sentence = next(
        line for line in (DOCS / "training.md").read_text().splitlines() if "What trains beside adapters" in line
    )
    planned = plan("7b", gpus="1xH100", window=16384, mode="lora", **options)
    assert f"{words}{planned.memory.weights / 2**30:.2f}" in sentence
    assert f"The {planned.serving.weights / 2**30:.2f} that it has for serving" in sentence
