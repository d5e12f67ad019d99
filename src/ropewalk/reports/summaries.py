"""Summarisation: ROUGE beside table 6."""

from __future__ import annotations

from typing import Any

from ropewalk.figures import style
from ropewalk.records import format as number_format
from ropewalk.records import paper
from ropewalk.records.variant import Variant, labels, variant_of
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.perplexity import paper_label, short_data
from ropewalk.reports.rows import Clean

_KEYS = ("rouge_1", "rouge_2", "rouge_l", "rouge_l_plain")


def section(clean: Clean) -> Section | None:
    """The section of summaries, or None without any."""
    rows = clean.of("summary")
    if not rows:
        return None
    states = {id(row): variant_of(row["header"]) for row in rows}
    short = labels(list(dict.fromkeys(states.values())))
    names = {id(row): _name(row, states[id(row)], short) for row in rows}
    rows = sorted(rows, key=lambda row: states[id(row)].order)
    lines = [_line(row, names[id(row)], style.colour(states[id(row)], clean.colours)) for row in rows]
    for row in paper.TABLE_6.rows:
        # The paper does not say which ROUGE-L it is; beside its R-1 the figure fits the plain kind (docs/evaluation.md).
        one, two, longest = (Cell(number_format.fixed(value, 1)) for value in row.values.values())
        lines.append(Line(paper_label(row), [one, two, Cell(""), longest, Cell("")], paper=True))
    made = Section(
        "summaries",
        "Summaries of long documents",
        "Agreement of the model's summaries with written ones, with the Porter stemmer. R-Lsum is rougeLsum, line by line; "
        "R-L is rougeL, over the whole text, which is what the paper's figure fits.",
    )
    made.tables.append(
        Table(
            "ROUGE × 100, beside table 6 of the paper (GovReport)",
            ["R-1", "R-2", "R-Lsum", "R-L", "documents"],
            lines,
            first="state",
            note="Small figures: 95 % bootstrap interval over documents.",
        )
    )
    for row in rows:
        said = []
        if row["cut"]:
            said.append(f"{row['cut']} of {row['documents']} documents cut to {row['document_tokens']} tokens")
        if row["unfinished"]:
            said.append(
                f"{row['unfinished']} of {row['documents']} summaries stopped at {row['summary_tokens']} tokens"
            )
        if said:
            made.notes.append(f"{names[id(row)]} ({row['decoding']}): {'; '.join(said)}.")
    return made


def _name(row: dict[str, Any], state: Variant, short: dict[Variant, str]) -> str:
    """A model fine-tuned on pairs counts those steps alone, so they would pass for a checkpoint of its long training."""
    if not row["trained_on"]:
        return short[state]
    return f"{state.method_and_factor if state.extended else 'base'}, fine-tuned on {short_data(row['trained_on'])}"


def _line(row: dict[str, Any], name: str, tone: str) -> Line:
    figures = []
    for key in _KEYS:
        bounds = row["intervals"].get(key)
        pair = (
            bounds
            if isinstance(bounds, list) and len(bounds) == 2 and all(map(number_format.is_finite, bounds))
            else (None, None)
        )
        value = 100 * row[key] if number_format.is_finite(row.get(key)) else None
        low, high = (None if bound is None else 100 * bound for bound in pair)
        figures.append(
            Cell(
                number_format.fixed(value, 1),
                number_format.interval(low, high, lambda bound: number_format.fixed(bound, 1)),
            )
        )
    note = ", ".join(part for part in (row["decoding"], short_data(row["data"])) if part)
    return Line(name, [*figures, Cell(number_format.count(row["documents"]))], note=note, colour=tone)
