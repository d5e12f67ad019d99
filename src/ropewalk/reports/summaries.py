"""Summarisation: ROUGE beside table 6."""

from __future__ import annotations

from ropewalk.figures import style
from ropewalk.records import Measurement, Summary, paper
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels
from ropewalk.reports.beside_paper import paper_label
from ropewalk.reports.comparable import short_data
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.rows import Clean
from ropewalk.sentences import counted


def section(clean: Clean) -> Section | None:
    """The section of summaries, or None without any."""
    measurements = sorted(clean.of(Summary), key=lambda m: m.model_variant.order)
    if not measurements:
        return None
    unique = labels(list(dict.fromkeys(m.model_variant for m in measurements)))
    lines = [_line(m, _name(m, unique), style.colour(m.model_variant, clean.colours)) for m in measurements]
    part = Section(
        "summaries",
        "Summaries of long documents",
        "Agreement of the model's summaries with written ones, with the Porter stemmer. R-Lsum is rougeLsum, line by line; "
        "R-L is rougeL, over the whole text, which is what the paper's figure fits.",
    )
    part.tables.append(
        Table(
            clean.titled("ROUGE × 100", unique),
            ["R-1", "R-2", "R-Lsum", "R-L", "documents"],
            [*lines, *_paper_lines()],
            first="state",
            note="Small figures: 95 % interval over documents (Student’s).",
            beside=", beside table 6 of the paper (GovReport)",
        )
    )
    for m in measurements:
        if cut := _cut(m.row):
            part.notes.append(f"{_name(m, unique)} ({m.row.decoding}): {'; '.join(cut)}.")
    return part


def _cut(row: Summary) -> list[str]:
    """What was too long, in words."""
    cut = []
    if row.cut:
        cut.append(f"{row.cut} of {counted(row.documents, 'document')} cut to {row.document_tokens} tokens")
    if row.unfinished:
        cut.append(f"{row.unfinished} of {row.documents} summaries stopped at {row.summary_tokens} tokens")
    return cut


def _name(m: Measurement[Summary], unique: dict[Variant, str]) -> str:
    """A model fine-tuned on pairs counts those steps alone, so they would pass for a checkpoint of its long training."""
    variant = m.model_variant
    if not m.row.trained_on:
        return unique[variant]
    start = variant.method_and_factor if variant.extended else "base"
    return f"{start}, fine-tuned on {short_data(m.row.trained_on)}"


def _line(m: Measurement[Summary], name: str, tone: str) -> Line:
    row = m.row
    scores = {
        "rouge_1": row.rouge_1,
        "rouge_2": row.rouge_2,
        "rouge_l": row.rouge_l,
        "rouge_l_plain": row.rouge_l_plain,
    }
    figures = [_cell(score, row.intervals.get(key, [])) for key, score in scores.items()]
    note = ", ".join(part for part in (row.decoding, short_data(row.data)) if part)
    return Line(name, [*figures, Cell(number_format.count(row.documents))], note=note, colour=tone)


def _cell(score: float | None, bounds: list[float]) -> Cell:
    low, high = (100 * bound for bound in bounds) if len(bounds) == 2 else (None, None)
    return Cell(
        number_format.fixed(100 * score if number_format.is_finite(score) else None, 1),
        number_format.interval(low, high, lambda bound: number_format.fixed(bound, 1)),
    )


def _paper_lines() -> list[Line]:
    """The paper does not say which ROUGE-L it is; beside its R-1 the figure fits the plain kind (docs/evaluation.md)."""
    lines = []
    for row in paper.TABLE_6.rows:
        r_1, r_2, r_l = (Cell(number_format.fixed(value, 1)) for value in row.values.values())
        lines.append(Line(paper_label(row), [r_1, r_2, Cell(""), r_l, Cell("")], paper=True))
    return lines
