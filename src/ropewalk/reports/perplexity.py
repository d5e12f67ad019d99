"""Perplexity against window, beside tables 1 and 2; by fine-tuning steps, beside table 3."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ropewalk.evals.intervals import lacking, perplexity_over_seeds
from ropewalk.figures import compare, measured, style
from ropewalk.records import Measurement, Perplexity, paper
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps
from ropewalk.reports.beside_paper import change_between, lines_of_paper, paper_table, table_3
from ropewalk.reports.comparable import Group, groups
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.curves import curve_names, curves_by_steps
from ropewalk.reports.paired import both_read, has_same_documents, ratio
from ropewalk.reports.rows import Clean
from ropewalk.sentences import joined

#: Which intervals are given, of all figures alike.
_FROM = f"An interval is given from {Perplexity.FEWEST} documents on, if its upper end is less than {Perplexity.OPEN:g} times the lower."
_NAMED = 2  # lines that a figure does not show; the table has them all
_CROWDED = 5  # more lines than this on one pair of axes cannot be told apart


def section(clean: Clean) -> Section | None:
    """The section of perplexities, or None without any."""
    comparable = groups(clean)
    if not comparable:
        return None
    part = Section(
        "perplexity",
        "Perplexity by window",
        "Lower is better. A model that uses a longer context falls from left to right; one that cannot read it climbs. "
        "Intervals are of 95 %: Student’s over documents, or how far an estimate may be off.",
    )
    for group in comparable:
        _by_window(part, clean, group, heading=group.heading if len(comparable) > 1 else "")
    curved = [group for group in comparable if step_curves(group)]
    # Table 3 is of PG-19: it stands once, beside the text that is most like it.
    beside = next(
        (group for group in curved if paper_table(group.data) is paper.TABLE_1), curved[0] if curved else None
    )
    for group in curved:
        _by_steps(part, clean, group, text="" if len(curved) == 1 else group.heading)
        if group is beside:
            part.tables.append(table_3())
    return part


def _by_window(part: Section, clean: Clean, group: Group, heading: str) -> None:
    """The figures and the table of one group."""
    for measurements, state in _figures(group):
        captions = [state + _caption(group)]
        if measured.closeup_limits(measurements):
            captions.append(f"{state}{group.heading}, close up; without intervals, which would leave this frame.")
        for closeup, caption in enumerate(captions):
            drawing = measured.perplexity(measurements, closeup=bool(closeup), colours=clean.colours)
            missing = measured.left_out(measurements, closeup=bool(closeup))
            further = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
            words = caption + (f" Not in this frame: {'; '.join(missing[:_NAMED])}{further}." if missing else "")
            part.draw(drawing, words, heading, under=bool(closeup))
    part.tables.append(_table(clean, group))
    part.notes += [note for note in _notes(group) if note not in part.notes]


def _figures(group: Group) -> list[tuple[list[Measurement[Perplexity]], str]]:
    """What each figure shows, and the state that its caption begins with: one figure while it can be read, else what was not trained apart from what was."""
    keep = last_steps(list(group.variants()))
    if len(keep) <= _CROWDED:
        return [(group.measurements, "")]
    shown = [m for m in group.measurements if m.model_variant in keep or not m.model_variant.extended]
    base = [m for m in shown if not m.model_variant.extended and not m.model_variant.steps]
    apart = [
        [m for m in shown if m.model_variant.role == "untrained"],
        [m for m in shown if m.model_variant.steps],  # a control too
    ]
    return [(base + extended, f"{_state(extended)}: ") for extended in apart if extended] or [(base, "")]


def _state(extended: Sequence[Measurement[Perplexity]]) -> str:
    """That these are trained, or before which training."""
    states = (m.model_variant for m in extended)
    words = dict.fromkeys("trained" if v.steps else v.recipe.before for v in states)
    return joined(list(words)).capitalize()


def _caption(group: Group) -> str:
    pretraining = min(m.model_variant.original_window for m in group.measurements)
    is_drawn = pretraining <= max(m.row.window for m in group.measurements)
    number = least_to_most([m.row.documents for m in group.measurements])
    return f"{group.heading}; {number} document{'s' * (number != '1')} a point, {'BOS first' if group.bos else 'no BOS'}{'; the dotted line is the window of pretraining' if is_drawn else ''}."


def least_to_most(counts: Sequence[int]) -> str:
    """One number where all are the same."""
    return " to ".join(map(str, dict.fromkeys([min(counts), max(counts)])))


def _table(clean: Clean, group: Group) -> Table:
    """One's own variants by window, then the paper's rows for the same methods, columns matched by multiples of L."""
    variants = group.variants()
    keep = last_steps(list(variants))
    names = labels(keep)
    original = keep[0].original_window
    windows = sorted({window for variant in keep for window in variants[variant]})
    base = group.base_row()
    at_same = next((rows for variant, rows in variants.items() if variant.role == "base" and not variant.steps), {})
    lines = []
    for variant in keep:
        figures = [cell(variants[variant].get(window), base or at_same.get(window)) for window in windows]
        lines.append(Line(names[variant], figures, colour=style.colour(variant, clean.colours)))
    lines = seeds_together(lines)
    some = any(m.row.says_nothing for m in group.measurements)
    table = paper_table(group.data)
    lines += lines_of_paper(group)
    return Table(
        caption=f"Perplexity, {group.heading}",
        beside=f", beside table {table.number} of the paper ({table.text})",
        first="state",
        head=[f"{window}\n{_multiple(window / original)}" for window in windows],
        lines=lines,
        note=f"Small figures: 95 % interval, and change against the base {'in its own window' if base or not at_same else 'at the same window'}."
        + (f" {_FROM} Where it is left out, the change has its own, of their own differences." if some else ""),
        beside_note="The paper's columns are those with the same multiple of L (2048 there). Its text and models are others: compare the pattern, not the level.",
    )


def _multiple(multiple: float) -> str:
    return "L" if multiple == 1 else f"{multiple:.3g} L"


def cell(row: Perplexity | None, base: Perplexity | None) -> Cell:
    if row is None:
        return Cell("")
    # Lower at a longer window: by a stride that is coarse that need not be the model's doing, and the verdict says so.
    is_strides = base is not None and base.caveat and row.window > base.window and row.perplexity < base.perplexity
    change = "" if base is None or row is base or is_strides else _change_of_rows(row, base)
    write = _about if row.estimate else number_format.perplexity
    if row.says_nothing:
        paired = ratio(base, row) if change and base is not None and has_same_documents(base, row) else None
        bounds = paired.brief.partition("(")[2].rstrip(")") if paired else ""
        return Cell.of(
            row.perplexity,
            write,
            beside="\n".join(filter(None, [lacking(row), change, bounds])),
            over_seeds=perplexity_over_seeds,
        )
    return Cell.of(row.perplexity, write, row.low, row.high, beside=change, over_seeds=perplexity_over_seeds)


def _about(value: float) -> str:
    return f"≈ {number_format.perplexity(value)}"


def _change_of_rows(row: Perplexity, base: Perplexity) -> str:
    """Of the documents that both read, and of how many if these are not all; nothing where they share none."""
    if has_same_documents(base, row):
        return change_between(row.perplexity, base.perplexity)
    pair = None if base.estimate or row.estimate else both_read(base, row)
    return f"{change_between(pair[1].perplexity, pair[0].perplexity)} over {pair[0].documents} shared" if pair else ""


def not_across(*alike: Group) -> str:
    """That figures of different windows do not compare. alike: of one caveat."""
    group = alike[0]
    ending = f", {group.stride}"
    shared = all(each.title.endswith(ending) for each in alike)
    names = joined([each.title.removesuffix(ending) if shared else each.title for each in alike])
    return f"{names}{ending * shared}: a lower figure at a longer window does not show that its context is of use; {group.caveat}."


def _notes(group: Group) -> list[str]:
    skipped = sorted({(m.row.window, m.row.skipped) for m in group.measurements if m.row.skipped})
    notes = [not_across(group)] if group.caveat else []
    if skipped:
        each = ", ".join(f"{count} at {window}" for window, count in skipped)
        notes.append(f"{group.heading}: documents left out because they are too short: {each}.")
    short = sorted({(m.row.window, m.row.unfilled) for m in group.measurements if m.row.unfilled})
    if short:
        each = "; ".join(unfilled for _, unfilled in short)
        notes.append(
            f"{group.heading}: {each}; they are read whole, and tell nothing of a window that they do not fill."
        )
    notes += _not_counted(group)
    if any(m.row.estimate for m in group.measurements):
        notes.append("≈ marks an estimate from a random sample of windows; its interval says how sure it is.")
    open_ends = sorted({f"at {m.row.window} tokens {lacking(m.row)}" for m in group.measurements if m.row.says_nothing})
    if open_ends:
        notes.append(f"{_FROM} So none is given: {', '.join(open_ends)}.")
    return notes


def _not_counted(group: Group) -> Iterator[str]:
    """Which tokens one window counts and another does not, of the same documents."""
    windows = {m.row.window for m in group.measurements}
    apart = {
        m.row.window for m in group.measurements if m.row.convention == "ropewalk" and m.row.stride == m.row.window
    }
    if apart and len(windows) > 1:
        yield (
            f"{group.heading}: at {min(apart)} tokens the first token of each further window has nothing before it and is not counted; at other windows it is. "
            "Changes are paired by document all the same."
        )


def step_curves(group: Group) -> list[tuple[Variant, dict[int, float]]]:
    """(last variant, steps → perplexity in its window); see `curves.curves_by_steps`."""
    return [(variant, {step: row.perplexity for step, row in points.items()}) for variant, points in _step_rows(group)]


def _step_rows(group: Group) -> list[tuple[Variant, dict[int, Perplexity]]]:
    own = {v: rows[v.window] for v, rows in group.variants().items() if v.extended and v.window in rows}
    return curves_by_steps({variant: row for variant, row in own.items() if number_format.is_finite(row.perplexity)})


def _level(group: Group) -> float | None:
    """The base's perplexity in its own window, if each point of the curves by steps is of the same documents."""
    base = group.base_row()
    points = [rows[v.window] for v, rows in group.variants().items() if v.extended and v.window in rows]
    return group.base_level() if base and all(has_same_documents(base, row) for row in points) else None


def _by_steps(part: Section, clean: Clean, group: Group, text: str) -> None:
    """A figure and a table of one text's trainings; `text` names it where there is another."""
    curves, level = step_curves(group), _level(group)
    caption = (
        "Perplexity in the new window by fine-tuning steps" + "; 1 is the base in its own window" * bool(level) + "."
    )
    if clean.paper and compare.is_comparable(curves):
        caption += " Grey: the paper's 7B."
    title = "By fine-tuning steps" + (f": {text}" if text else "")
    drawing = compare.perplexity_by_steps(curves, base=level, colours=clean.colours, beside_paper=clean.paper)
    part.draw(drawing, caption, title)
    steps = sorted({step for _, points in curves for step in points})
    names = curve_names(curves)
    lines = []
    for variant, points in _step_rows(group):
        figures = [
            Cell.of(
                points[s].perplexity,
                number_format.perplexity,
                *points[s].bounds,
                beside=change_between(points[s].perplexity, level or 0.0),
                of_seed=s > 0,
                over_seeds=perplexity_over_seeds,
            )
            if s in points
            else Cell("")
            for s in steps
        ]
        lines.append(Line(names[variant], figures, colour=style.colour(variant, clean.colours)))
    part.tables.append(
        Table(
            f"Perplexity by fine-tuning steps, {group.heading}",
            [str(s) for s in steps],
            seeds_together(lines),
            first="steps",
            note="Small figures: 95 % intervals.",
        )
    )
