"""Context gain by place in a document and by variant, and LongPPL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ropewalk.evals.intervals import over_seeds, perplexity_over_seeds
from ropewalk.figures import compare, style
from ropewalk.records import ContextGain, Measurement
from ropewalk.records import format as number_format
from ropewalk.records.rows import PlaceGain
from ropewalk.records.slide import Slide
from ropewalk.records.variant import Variant, labels, last_steps
from ropewalk.reports.comparable import short_data
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.drawn import to_draw
from ropewalk.reports.rows import Clean
from ropewalk.reports.same_tokens import apart

#: What rows of one table share: the text, the short context, the stride, BOS, and who chose the key tokens.
_Rule = tuple[str, str, int, int, bool, str]


def section(clean: Clean) -> Section | None:
    """The section of context gain, or None without any."""
    measurements = clean.of(ContextGain)
    keep = last_steps(list(dict.fromkeys(m.variant for m in measurements)))
    groups: dict[_Rule, list[Measurement[ContextGain]]] = {}
    for m in sorted(measurements, key=lambda m: (m.variant.order, m.row.window)):
        if m.variant in keep:
            groups.setdefault(_rule(m.row), []).append(m)
    if not groups:
        return None
    part = Section(
        "gain",
        "What the context is worth",
        "The loss of the same tokens with a short context less that with the whole one, in nats a token: above zero the model uses what "
        "lies further back than the short context is sure to reach, at zero it ignores it, below it is confused by it; an interval that holds zero shows none of these. LongPPL is the perplexity of the key tokens alone, those that the "
        "evaluator needs the long context for.",
    )
    for group in groups.values():
        parts = apart(group)
        for each in parts:
            _show(part, clean, each, scored=f", {each[0].row.tokens} tokens scored" if len(parts) > 1 else "")
    return part


def sentence(clean: Clean, seeds: Sequence[Variant]) -> str:
    """The mean gain of these seeds at the longest window, for a verdict; nothing where none was measured. Of several short contexts the one most seeds have."""
    rows: dict[tuple[int, int, _Rule], dict[Variant, ContextGain]] = {}
    finite = [m for m in clean.of(ContextGain) if m.model_variant in seeds and number_format.is_finite(m.row.gain)]
    for at, part in enumerate(apart(finite)):
        for m in part:
            rows.setdefault((m.row.window, at, _rule(m.row)), {})[m.model_variant] = m.row
    if not rows:
        return ""
    each = list(max(rows.items(), key=lambda item: (item[0][0], len(item[1])))[1].values())
    row, (value, low, high) = each[0], over_seeds([(row.gain, row.low, row.high) for row in each])
    bounds = number_format.interval(low, high, _nats)
    known = [f"{len(each)} of {len(seeds)} seeds"] * (len(each) < len(seeds))
    known += [bounds] * bool(bounds)
    in_brackets = f" ({', '.join(known)})" if known else ""
    shown = f", which does not show that context beyond {Slide(row.short, row.stride).least} is used" * (
        low <= 0 <= high
    )
    return f"Context gain: {'≈ ' * row.estimate}{_nats(value)} nats{in_brackets}{shown}."


def _rule(row: ContextGain) -> _Rule:
    return row.data, row.texts, row.short, row.stride, row.bos, row.evaluator


def _nats(value: float) -> str:
    return number_format.fixed(value, 3)


def _show(part: Section, clean: Clean, group: list[Measurement[ContextGain]], scored: str) -> None:
    """The figure and the table of rows that may be compared."""
    row, names = group[0].row, labels(list(dict.fromkeys(m.variant for m in group)))
    short = Slide(row.short, row.stride)
    title = clean.titled(f"{short_data(row.data)}, against {row.short} tokens, stride {row.stride}{scored}", names)
    rows = {(m.variant, m.row.window): m.row for m in group}
    drawn, left_out = to_draw(clean, {state: each.gain for state, each in rows.items()})
    series = [(each.title, each.first, _mean([rows[seed, each.window] for seed in each.seeds])) for each in drawn]
    part.draw(
        compare.gain_by_place(series, colours=clean.colours),
        "Gain by place in the document, with 95 % intervals over documents; of several seeds their mean, with its interval for other documents and other seeds; the dotted line is the window of pretraining."
        + left_out,
        title,
    )
    part.tables.append(
        Table(
            f"Context gain, {title}",
            ["window", "gain\nnats a token", "perplexity", "with the short\ncontext", "LongPPL", "key tokens"],
            seeds_together(_line(clean, m, names) for m in group),
            first="state",
            note=f"In the short context {short.least} to {row.short - 1} tokens stand before each: a gain is of context beyond {short.least}"
            + f", and need not be of that beyond {row.short}" * short.is_coarse
            + ". Small figures: 95 % interval over documents, of an estimate (≈) on these documents. Key tokens were chosen by "
            + (
                f"{row.evaluator}."
                if row.evaluator
                else "each model itself: such LongPPLs are not to be compared between models."
            ),
        )
    )


def _mean(seeds: Sequence[ContextGain]) -> ContextGain:
    """The gain by place of these seeds as one row's."""
    by_place: dict[tuple[int, int], list[PlaceGain]] = {}
    for part in (part for row in seeds for part in row.by_place):
        by_place.setdefault((part["start"], part["stop"]), []).append(part)
    mean: list[PlaceGain] = []
    for (start, stop), parts in by_place.items():
        gain, low, high = over_seeds([(part["gain"], part["low"], part["high"]) for part in parts])
        mean.append(
            {"start": start, "stop": stop, "tokens": parts[0]["tokens"], "gain": gain, "low": low, "high": high}
        )
    return replace(seeds[0], by_place=mean, estimate=any(row.estimate for row in seeds))


def _line(clean: Clean, m: Measurement[ContextGain], names: dict[Variant, str]) -> Line:
    row = m.row

    def nats(value: float) -> str:
        return "≈ " * row.estimate + _nats(value)

    def perplexity(value: float) -> str:
        return "≈ " * row.estimate + number_format.perplexity(value)

    cells = [
        Cell(str(row.window)),
        Cell.of(row.gain, nats, row.low, row.high),
        Cell.of(row.perplexity, perplexity, over_seeds=perplexity_over_seeds),
        Cell.of(row.short_perplexity, perplexity, over_seeds=perplexity_over_seeds),
        Cell.of(
            row.longppl,
            number_format.perplexity,
            *row.longppl_bounds,
            over_seeds=perplexity_over_seeds,
        ),
        Cell.of(row.key_tokens / row.tokens, lambda value: number_format.share(value, 1)),
    ]
    return Line(names[m.variant], cells, colour=style.colour(m.variant, clean.colours))
