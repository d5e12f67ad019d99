"""Passkey retrieval: maps of depth by window, k_max by variant and by fine-tuning steps, beside table 4."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from statistics import fmean

from ropewalk.evals.digits import digits
from ropewalk.evals.reach import reach_interval
from ropewalk.figures import compare, measured, style
from ropewalk.records import Measurement, Passkey, PasskeySummary, paper
from ropewalk.records import format as number_format
from ropewalk.records.retrieval import ABOUT_DIGITS
from ropewalk.records.variant import Variant, labels, last_steps, seeds_of_rows
from ropewalk.reports.beside_paper import paper_label
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.curves import at_window, curve_names, curves_by_steps
from ropewalk.reports.rows import Clean, once
from ropewalk.sentences import counted

Summaries = dict[Variant, dict[int, PasskeySummary]]
Depths = list[Measurement[Passkey]]


@once
def summaries(clean: Clean) -> Summaries:
    """variant → window → summary row."""
    rows: Summaries = {}
    for m in clean.of(PasskeySummary):
        rows.setdefault(m.model_variant, {})[m.row.window] = m.row
    return dict(sorted(rows.items(), key=lambda item: item[0].order))


@once
def depths_of(clean: Clean, variant: Variant, window: int) -> list[Passkey]:
    """The depths of one passkey test."""
    return [m.row for m in clean.of(Passkey) if m.row.window == window and m.model_variant == variant]


def k_max_interval(rows: Sequence[Passkey]) -> tuple[int, int]:
    """A 95 % interval of k_max, in tokens (evals/reach.py)."""
    rows = sorted(rows, key=lambda row: row.k)
    successes, trials = [row.successes for row in rows], [row.trials for row in rows]
    return reach_interval([row.k for row in rows], successes, trials, threshold=paper.PASSKEY_THRESHOLD)


def section(clean: Clean) -> Section | None:
    """The section of passkey retrieval, or None without any."""
    rows, depths = summaries(clean), clean.of(Passkey)
    if not rows and not depths:
        return None
    part = Section(
        "passkey",
        "Passkey retrieval",
        "How far from its end a prompt may hold a five-digit key so that the model still names it. k_max is the largest "
        "distance up to which every depth succeeds in at least 20 % of its trials.",
    )
    _maps(part, rows, depths)
    if rows:
        part.tables.append(_table(clean, rows))
    _by_steps(part, clean, rows)
    return part


def _maps(part: Section, rows: Summaries, depths: Depths) -> None:
    by_variant: dict[Variant, Depths] = {}
    for m in depths:
        by_variant.setdefault(m.model_variant, []).append(m)
    keep = sorted(last_steps(list(by_variant)), key=lambda variant: variant.order)
    names = labels(keep)
    longest = max((m.row.window for variant in keep for m in by_variant[variant]), default=0)
    for seeds in seeds_of_rows(keep):
        k_max: dict[int, list[int]] = {}
        for window, row in ((at, row) for seed in seeds for at, row in rows.get(seed, {}).items()):
            k_max.setdefault(window, []).append(row.k_max)
        asked = _together([m for seed in seeds for m in by_variant[seed]])
        means = {window: round(fmean(of_seeds)) for window, of_seeds in k_max.items()}
        several = " of all seeds" if len(seeds) > 1 else ""
        caption = f"{counted(asked[0].row.trials, 'trial')}{several} a cell; the bar across the cells and the figure are k_max{', the mean of the seeds' * bool(several)}."
        part.draw(measured.passkey_map(asked, longest=longest, k_max=means), caption, names[seeds[0]])


def _together(depths: Depths) -> Depths:
    """The prompts of several seeds as those of one."""
    at: dict[tuple[int, int], Measurement[Passkey]] = {}
    for m in depths:
        before = at.get((m.row.window, m.row.k))
        trials, right = (before.row.trials, before.row.successes) if before else (0, 0)
        row = dataclasses.replace(m.row, trials=trials + m.row.trials, successes=right + m.row.successes)
        at[m.row.window, m.row.k] = dataclasses.replace(m, row=row)
    return list(at.values())


def _table(clean: Clean, rows: Summaries) -> Table:
    names = labels(list(rows))
    tests = [(variant, row) for variant, by_window in rows.items() for _, row in sorted(by_window.items())]
    right = {test: found for test in tests if (found := digits(test[1], depths_of(clean, test[0], test[1].window)))}
    lines = [
        Line(
            names[variant],
            _cells(row, depths_of(clean, variant, row.window)) + [_digits(right.get((variant, row)))] * bool(right),
            colour=style.colour(variant, clean.colours),
        )
        for variant, row in tests
    ]
    sizes = sorted({f"{counted(row.depths, 'depth')} × {counted(row.trials, 'trial')}" for _, row in tests})
    return Table(
        clean.titled(f"k_max by state and window ({', '.join(sizes)})", rows),
        ["window", "k_max", "of the window", "all prompts", *["digits"] * bool(right)],
        seeds_together(lines),
        first="state",
        note="Small figures: 95 % intervals; of k_max from what the trials at each depth leave open."
        + f" {ABOUT_DIGITS}" * bool(right)
        + _moved(rows)
        + _asked(rows),
    )


def _cells(row: PasskeySummary, depths: list[Passkey]) -> list[Cell]:
    low, high = k_max_interval(depths) if depths else (None, None)
    return [
        Cell(str(row.window)),
        _k_max(row, low, high),
        Cell.of(row.k_max / row.window, number_format.share),
        Cell.of(row.accuracy, number_format.share, row.low, row.high, within=(0, 1)),
    ]


def _digits(right: tuple[float, float, float] | None) -> Cell:
    return Cell.of(right[0], number_format.share, *right[1:], within=(0, 1)) if right else Cell("")


def _k_max(row: PasskeySummary, low: int | None, high: int | None) -> Cell:
    cell = Cell.of(row.k_max, number_format.count, low, high, strong=True, within=(0, row.window))
    return dataclasses.replace(cell, small="anything is possible") if (low, high) == (0, row.window) else cell


def _moved(rows: Summaries) -> str:
    """How far back the farthest keys really stood, in windows where header or question left them no room."""
    moved = {
        (w, row.placed) for by_window in rows.values() for w, row in by_window.items() if 0 < row.placed < row.k_max
    }
    placements = ", ".join(f"{placed} tokens back at a window of {window}" for window, placed in sorted(moved))
    return (
        f" A key that the prompt's header leaves no room for stands as near to k as it can: at most {placements}."
        if placements
        else ""
    )


def _asked(rows: Summaries) -> str:
    """On which side of the blank before the key the prompts ended: a matter of the tokenizer."""
    sides = {row.after_blank for by_window in rows.values() for row in by_window.values()} - {None}
    if not sides:
        return ""
    words = {True: "after the blank before the key", False: "before the blank, which the tokenizer joins to the key"}
    return f" The prompts end {' or '.join(words[side] for side in (False, True) if side in sides)}."


def _by_steps(part: Section, clean: Clean, rows: Summaries) -> None:
    is_drawn = _of_window(part, clean, at_window(rows, old=False), old=False)
    if any(variant.extended for variant in rows):
        part.tables.append(_table_4(under=is_drawn))
    _of_window(part, clean, at_window(rows, old=True), old=True)


def _of_window(part: Section, clean: Clean, rows: dict[Variant, PasskeySummary], *, old: bool) -> bool:
    """A figure of k_max and tables of it and of the passkeys found, in the new window or the old one; whether there is anything by steps."""
    curves = curves_by_steps({variant: row.k_max for variant, row in rows.items()})
    if not curves:
        return False
    where, beside_paper = " in the old window" * old, clean.paper and not old
    caption = f"k_max as a part of the {'old ' * old}window by fine-tuning steps."
    if beside_paper and compare.is_comparable(curves):
        caption += " Grey: the paper's 7B, PI and direct fine-tuning."
    drawing = compare.k_max_by_steps(curves, old=old, colours=clean.colours, beside_paper=beside_paper)
    part.draw(drawing, caption, f"By fine-tuning steps{where}")
    reach, found, right = dict[Variant, Cell](), dict[Variant, Cell](), dict[Variant, Cell]()
    for v, row in rows.items():
        depths = depths_of(clean, v, row.window)
        bounds = k_max_interval(depths) if depths else ()
        reach[v] = Cell.of(row.k_max, number_format.count, *bounds, within=(0, row.window), of_seed=v.steps > 0)
        found[v] = Cell.of(row.accuracy, number_format.share, row.low, row.high, within=(0, 1), of_seed=v.steps > 0)
        if of_digits := digits(row, depths):
            right[v] = dataclasses.replace(_digits(of_digits), of_seed=v.steps > 0)
    of_k_max = "Small figures: 95 % intervals, from what the trials at each depth leave open."
    part.tables += [
        _step_table(clean, f"Passkeys found{where}", found, "Small figures: 95 % intervals."),
        *[_step_table(clean, f"Digits of the keys right{where}", right, "Small figures: 95 % intervals.")]
        * bool(right),
        _step_table(clean, f"k_max{where}", reach, of_k_max),
    ]
    return True


def _step_table(clean: Clean, what: str, cells: dict[Variant, Cell], note: str) -> Table:
    curves = curves_by_steps(cells)
    names, steps = curve_names(curves), sorted({step for _, points in curves for step in points})
    lines = [
        Line(names[v], [points.get(s, Cell("")) for s in steps], colour=style.colour(v, clean.colours))
        for v, points in curves
    ]
    title = clean.titled(f"{what} by fine-tuning steps", [variant for variant, _ in curves])
    return Table(title, [str(s) for s in steps], seeds_together(lines), first="steps", note=note)


def _table_4(under: bool) -> Table:
    steps = paper.STEPS
    lines = [
        Line(paper_label(row), [Cell(f"{row.values[s]:.0f}" if s in row.values else "") for s in steps], paper=True)
        for row in paper.TABLE_4.rows
    ]
    head = [str(s) for s in steps]
    return Table("Beside it, table 4 of the paper", head, lines, first="steps", under=under)
