"""Context gain by place in a document and by variant, and LongPPL."""

from __future__ import annotations

from ropewalk.figures import compare, style
from ropewalk.records import ContextGain, Measurement
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.perplexity import short_data
from ropewalk.reports.rows import Clean

#: What rows of one table share: the text, the short context, the stride, BOS, and who chose the key tokens.
_Rule = tuple[str, str, int, int, bool, str]
_CROWDED = 6  # more series than this cannot be told apart in one figure


def section(clean: Clean) -> Section | None:
    """The section of context gain, or None without any."""
    measurements = clean.of(ContextGain)
    keep = last_steps(list(dict.fromkeys(m.variant for m in measurements)))
    groups: dict[_Rule, list[Measurement[ContextGain]]] = {}
    for m in sorted(measurements, key=lambda m: (m.variant.order, m.row.window)):
        if m.variant in keep:
            row = m.row
            rule = (row.data, row.texts, row.short, row.stride, row.bos, row.evaluator)
            groups.setdefault(rule, []).append(m)
    if not groups:
        return None
    part = Section(
        "gain",
        "What the context is worth",
        "The loss of the same tokens with a short context less that with the whole one, in nats a token: above zero the model uses what "
        "lies further back, at zero it ignores it, below it is confused by it. LongPPL is the perplexity of the key tokens alone, those that the "
        "evaluator needs the long context for.",
    )
    for group in groups.values():
        _show(part, clean, group)
    return part


def _show(part: Section, clean: Clean, group: list[Measurement[ContextGain]]) -> None:
    """The figure and the table of rows that may be compared."""
    row, names = group[0].row, labels(list(dict.fromkeys(m.variant for m in group)))
    title = f"{short_data(row.data)}, against {row.short} tokens, stride {row.stride}"
    series = [(f"{names[m.variant]}, {m.row.window}", m.variant, m.row) for m in group[-_CROWDED:]]
    part.draw(
        compare.gain_by_place(series, colours=clean.colours),
        "Gain by place in the document, with 95 % intervals over documents; the dotted line is the window of pretraining.",
        title,
    )
    part.tables.append(
        Table(
            f"Context gain, {title}",
            ["window", "gain\nnats a token", "perplexity", "with the short\ncontext", "LongPPL", "key tokens"],
            [_line(clean, m, names) for m in group],
            first="state",
            note="Small figures: 95 % interval over documents, of an estimate (≈) on these documents. Key tokens were chosen by "
            + (
                f"{row.evaluator}."
                if row.evaluator
                else "each model itself: such LongPPLs are not to be compared between models."
            ),
        )
    )


def _line(clean: Clean, m: Measurement[ContextGain], names: dict[Variant, str]) -> Line:
    row, about = m.row, "≈ " * m.row.estimate
    cells = [
        Cell(str(row.window)),
        Cell(about + number_format.fixed(row.gain, 3), number_format.interval(row.low, row.high, _nats)),
        Cell(about + number_format.perplexity(row.perplexity)),
        Cell(about + number_format.perplexity(row.short_perplexity)),
        Cell(
            number_format.perplexity(row.longppl),
            number_format.interval(row.longppl_low, row.longppl_high),
        ),
        Cell(number_format.share(row.key_tokens / row.tokens, 1)),
    ]
    return Line(names[m.variant], cells, colour=style.colour(m.variant, clean.colours))


def _nats(value: float) -> str:
    return number_format.fixed(value, 3)
