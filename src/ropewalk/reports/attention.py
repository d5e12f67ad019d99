"""Attention scores by distance, the bounds evaluated on them, and neighbouring tokens told apart."""

from __future__ import annotations

from typing import Any

from ropewalk.figures import attention as attention_figures
from ropewalk.figures import style
from ropewalk.records import format as number_format
from ropewalk.records.attention_summary import Gist, gist, usable
from ropewalk.records.variant import Variant, labels
from ropewalk.reports.content import Cell, Line, Section, Table, cells
from ropewalk.reports.rows import Clean

Row = dict[str, Any]


def section(clean: Clean) -> Section | None:
    """The section, or None without a row of scores."""
    scores = [row for row in clean.of("attention") if usable(row)]
    if not scores:
        return None
    by_state = attention_figures.by_states(scores)
    near = attention_figures.by_states([row for row in clean.of("adjacent") if usable(row)])
    found = {
        state: gist(rows + near.get(state, []), state.original_window, base_of(state, by_state))
        for state, rows in by_state.items()
    }
    colours = style.palette(list(by_state))
    made = Section("attention", "Attention scores", _lead(found))
    made.draw(
        attention_figures.scores(scores, colours),
        "Scores before the softmax by distance: the largest of any head, and the 99.9 % quantile of the median head. The dotted "
        "line is the original window.",
        "Scores by distance",
    )
    if near:
        made.draw(
            attention_figures.adjacent([row for rows in near.values() for row in rows], colours),
            "How much a score changes when its key moves one token, over the spread of a query's scores (median head), and the "
            "attention on the token before (strongest head).",
            "Neighbouring tokens told apart",
        )
    made.draw(
        attention_figures.bounds(scores, colours),
        "A point a head: how far a score was found from the straight line between two tokens, halfway, beside what theorem 2.1 "
        "allows with that head's largest |h|.",
        "The interpolation bound on real scores",
    )
    made.tables += [_table(found, colours), _bounds(found, colours)]
    made.notes.append(
        "Far keys are those from a quarter of the original window on. A head is out of range if its largest score beyond the "
        "original window is above every score that it gave in the base inside its window."
    )
    return made


def base_of(state: Variant, by_state: dict[Variant, list[Row]]) -> list[Row]:
    """The rows of this state's base inside its own window, if they are there."""
    for other, rows in by_state.items():
        if other.role == "base" and other.lineage == state.lineage:
            return rows
    return []


def _lead(found: dict[Variant, Gist]) -> str:
    said = ["The paper bounds scores and shows none; these are measured, every pair of tokens of real documents."]
    for state, one in found.items():
        if not number_format.is_finite(one.beyond):
            continue
        text = f"{state.label[0].upper()}{state.label[1:]} in {one.window} tokens: the largest score beyond {state.original_window} is {one.beyond:.1f}"
        if number_format.is_finite(one.out_of_range):
            text += f", and {number_format.share(one.out_of_range)} of the heads score there above all they ever did in the base"
        said.append(text + ".")
    return " ".join(said)


def _table(found: dict[Variant, Gist], colours: dict[tuple, str]) -> Table:
    names = labels(list(found))
    head = [
        "window",
        "largest, inside",
        "largest, beyond",
        "far keys, inside",
        "beyond",
        "heads out of range",
        "change / spread",
        "token before",
    ]
    lines = []
    for state, one in found.items():
        values: list[Cell] = cells(
            number_format.count(one.window),
            number_format.fixed(one.inside, 1),
            number_format.fixed(one.beyond, 1),
            number_format.fixed(one.typical_inside, 1),
            number_format.fixed(one.typical_beyond, 1),
            number_format.share(one.out_of_range),
            number_format.fixed(one.resolution, 3),
            number_format.share(one.previous),
        )
        lines.append(Line(names[state], values, colour=style.colour(state, colours)))
    return Table("Scores inside and beyond the original window", head, lines, first="state")


def _bounds(found: dict[Variant, Gist], colours: dict[tuple, str]) -> Table:
    names = labels(list(found))
    head = [
        "largest |h|",
        "stray, of the bound as printed",
        "as it holds",
        "size, of sum max|h|",
        "extrapolation bound",
    ]
    lines = [
        Line(
            names[state],
            cells(
                number_format.fixed(one.largest_h, 1),
                number_format.share(one.of_printed),
                number_format.share(one.of_corrected),
                number_format.share(one.of_trivial),
                number_format.times(one.slack),
            ),
            colour=style.colour(state, colours),
        )
        for state, one in found.items()
    ]
    note = (
        "Each bound with its head's own max|h|, the worst head. Stray: from the straight line between two tokens. The last column: how "
        "many times the largest score of its head, in size, the bound 2 max|h| B(s) is where it is smallest."
    )
    return Table("The paper's bounds on these scores", head, lines, note=note, first="state")
