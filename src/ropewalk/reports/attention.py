"""Attention scores by distance, the bounds evaluated on them, and neighbouring tokens told apart."""

from __future__ import annotations

from ropewalk.figures import attention as attention_figures
from ropewalk.figures import style
from ropewalk.records import Adjacent, AttentionScores, Measurement
from ropewalk.records import format as number_format
from ropewalk.records.attention_summary import Gist, gist
from ropewalk.records.variant import Variant, labels
from ropewalk.reports.content import Cell, Line, Section, Table, cells
from ropewalk.reports.rows import Clean


def section(clean: Clean) -> Section | None:
    """The section, or None without a row of scores."""
    scores = clean.of(AttentionScores)
    if not scores:
        return None
    by_variant = attention_figures.by_variants(scores)
    neighbours = attention_figures.by_variants(clean.of(Adjacent))
    gists = {
        variant: gist(
            [m.row for m in [*alike, *neighbours.get(variant, [])]],
            variant.original_window,
            base_of(variant, by_variant),
        )
        for variant, alike in by_variant.items()
    }
    colours = style.palette(list(by_variant))
    part = Section("attention", "Attention scores", _lead(gists))
    part.draw(
        attention_figures.scores(scores, colours),
        "Scores before the softmax by distance: the highest of any head, and the 99.9 % quantile of the median head. The dotted "
        "line is the original window.",
        "Scores by distance",
    )
    if neighbours:
        part.draw(
            attention_figures.adjacent([m for alike in neighbours.values() for m in alike], colours),
            "How much a score changes when its key moves one token, over the spread of a query's scores (median head), and the "
            "attention on the token before (strongest head).",
            "Neighbouring tokens told apart",
        )
    part.draw(
        attention_figures.bounds(scores, colours),
        "A point a head: how far a score was found from the straight line between two tokens, halfway, beside what theorem 2.1 "
        "allows with that head's largest |h|.",
        "The interpolation bound on real scores",
    )
    part.tables += [_table(clean, gists, colours), _bounds(clean, gists, colours)]
    part.notes.append(
        "Far keys are those from a quarter of the original window on. A head is out of range if its highest score beyond the "
        "original window is above every score that it gave in the base inside its window."
    )
    return part


def base_of(variant: Variant, by_variant: dict[Variant, list[Measurement[AttentionScores]]]) -> list[AttentionScores]:
    """The rows of this variant's base inside its own window, if they were measured."""
    for other, alike in by_variant.items():
        if other.role == "base" and other.lineage == variant.lineage:
            return [m.row for m in alike]
    return []


def _lead(gists: dict[Variant, Gist]) -> str:
    sentences = ["The paper bounds scores and shows none; these are measured, every pair of tokens of real documents."]
    for variant, summed in gists.items():
        if not number_format.is_finite(summed.beyond):
            continue
        text = f"{variant.label[0].upper()}{variant.label[1:]} in {summed.window} tokens: the highest score beyond {variant.original_window} is {summed.beyond:.1f}"
        if number_format.is_finite(summed.out_of_range):
            text += f", and {number_format.share(summed.out_of_range)} of the heads score there above all they ever did in the base"
        sentences.append(text + ".")
    return " ".join(sentences)


def _table(clean: Clean, gists: dict[Variant, Gist], colours: dict[tuple, str]) -> Table:
    names = labels(list(gists))
    head = [
        "window",
        "highest, inside",
        "highest, beyond",
        "far keys, inside",
        "beyond",
        "heads out of range",
        "change / spread",
        "token before",
    ]
    lines = []
    for variant, summed in gists.items():
        values: list[Cell] = cells(
            number_format.count(summed.window),
            number_format.fixed(summed.inside, 1),
            number_format.fixed(summed.beyond, 1),
            number_format.fixed(summed.typical_inside, 1),
            number_format.fixed(summed.typical_beyond, 1),
            number_format.share(summed.out_of_range),
            number_format.fixed(summed.resolution, 3),
            number_format.share(summed.previous),
        )
        lines.append(Line(names[variant], values, colour=style.colour(variant, colours)))
    return Table(clean.titled("Scores inside and beyond the original window", gists), head, lines, first="state")


def _bounds(clean: Clean, gists: dict[Variant, Gist], colours: dict[tuple, str]) -> Table:
    names = labels(list(gists))
    head = [
        "largest |h|",
        "deviation, of the bound as printed",
        "as it holds",
        "size, of sum max|h|",
        "extrapolation bound",
    ]
    lines = [
        Line(
            names[variant],
            cells(
                number_format.fixed(summed.largest_h, 1),
                number_format.share(summed.of_printed),
                number_format.share(summed.of_corrected),
                number_format.share(summed.of_trivial),
                number_format.times(summed.slack),
            ),
            colour=style.colour(variant, colours),
        )
        for variant, summed in gists.items()
    ]
    note = (
        "Each bound with its head's own max|h|, the worst head. Deviation: from the straight line between two tokens. The last column: how "
        "many times the largest score of its head, in size, the bound 2 max|h| B(s) is where it is smallest."
    )
    return Table(clean.titled("The paper's bounds on these scores", gists), head, lines, note=note, first="state")
