"""Passkey retrieval: maps of depth by window, k_max by state and by fine-tuning steps, beside table 4."""

from __future__ import annotations

from typing import Any

from ropewalk.evals.intervals import reach_interval, wilson
from ropewalk.figures import compare, measured, style
from ropewalk.records import format as number_format
from ropewalk.records import paper
from ropewalk.records.variant import Variant, labels, last_steps, variant_of
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.perplexity import paper_label
from ropewalk.reports.rows import Clean

Row = dict[str, Any]
THRESHOLD = 0.2  # "at least 20 % of the trials", section 3.3


def summaries(clean: Clean) -> dict[Variant, dict[int, Row]]:
    """state → window → summary row."""
    found: dict[Variant, dict[int, Row]] = {}
    for row in clean.of("passkey_summary"):
        found.setdefault(variant_of(row["header"]), {})[row["window"]] = row
    return dict(sorted(found.items(), key=lambda item: item[0].order))


def k_max_interval(rows: list[Row], seed: int = 0) -> tuple[int, int]:
    """A 95 % interval of k_max, in tokens (intervals.reach_interval)."""
    rows = sorted(rows, key=lambda row: row["k"])
    columns = ([row[name] for row in rows] for name in ("k", "successes", "trials"))
    return reach_interval(*columns, threshold=THRESHOLD, seed=seed)


def section(clean: Clean) -> Section | None:
    """The section of passkey retrieval, or None without any."""
    found, depths = summaries(clean), clean.of("passkey")
    if not found and not depths:
        return None
    made = Section(
        "passkey",
        "Passkey retrieval",
        "How far from its end a prompt may hold a five-digit key so that the model still names it. k_max is the largest "
        "distance up to which every depth succeeds in at least 20 % of its trials.",
    )
    _maps(made, found, depths)
    if found:
        made.tables.append(_table(clean, found, depths))
    _by_steps(made, clean, found)
    return made


def _maps(made: Section, found: dict[Variant, dict[int, Row]], depths: list[Row]) -> None:
    by_state: dict[Variant, list[Row]] = {}
    for row in depths:
        by_state.setdefault(variant_of(row["header"]), []).append(row)
    keep = sorted(last_steps(list(by_state)), key=lambda state: state.order)
    names = labels(keep)
    longest = max((row["window"] for state in keep for row in by_state[state]), default=0)
    for state in keep:
        k_max = {window: row["k_max"] for window, row in found.get(state, {}).items()}
        drawing = measured.passkey_map(by_state[state], longest=longest, k_max=k_max)
        caption = f"{by_state[state][0]['trials']} trials a cell; the black mark and the figure are k_max."
        made.draw(drawing, caption, names[state])


def _table(clean: Clean, found: dict[Variant, dict[int, Row]], depths: list[Row]) -> Table:
    names = labels(list(found))
    lines = []
    for state, rows in found.items():
        for window, row in sorted(rows.items()):
            own = [d for d in depths if d["window"] == window and variant_of(d["header"]) == state]
            low, high = k_max_interval(own) if own else (None, None)
            right, tried = sum(d["successes"] for d in own), sum(d["trials"] for d in own)
            share = wilson(right, tried) if tried else (None, None)
            lines.append(
                Line(
                    names[state],
                    [
                        Cell(str(window)),
                        Cell(str(row["k_max"]), number_format.interval(low, high, number_format.count), strong=True),
                        Cell(number_format.share(row["k_max"] / window if window else None)),
                        Cell(number_format.share(row["accuracy"]), number_format.interval(*share, number_format.share)),
                    ],
                    colour=style.colour(state, clean.colours),
                )
            )
    sizes = sorted(
        {f"{row['depths']} depths × {row['trials']} trials" for rows in found.values() for row in rows.values()}
    )
    return Table(
        f"k_max by state and window ({', '.join(sizes)})",
        ["window", "k_max", "of the window", "all prompts"],
        lines,
        first="state",
        note="Small figures: 95 % intervals; of k_max from what the trials at each depth leave open, of all prompts by Wilson."
        + _asked(found),
    )


def _asked(found: dict[Variant, dict[int, Row]]) -> str:
    """On which side of the blank before the key the prompts ended: a matter of the tokenizer."""
    sides = {row["after_blank"] for rows in found.values() for row in rows.values()} - {None}
    if not sides:
        return ""
    words = {True: "after the blank before the key", False: "before the blank, which the tokenizer joins to the key"}
    return f" The prompts end {' or '.join(words[side] for side in sorted(sides))}."


def step_curves(found: dict[Variant, dict[int, Row]]) -> list[tuple[Variant, dict[int, float]]]:
    """(last state, steps → k_max in the state's window) for each training with more than one checkpoint measured."""
    curves: dict[tuple, tuple[Variant, dict[int, float]]] = {}
    for state, rows in found.items():
        if state.extended and state.window in rows:
            key = (state.lineage, state.method, state.factor, state.window)
            points = curves.get(key, (state, {}))[1]
            points[state.steps] = rows[state.window]["k_max"]
            curves[key] = (state, points)
    return [curve for curve in curves.values() if len(curve[1]) > 1]


def _by_steps(made: Section, clean: Clean, found: dict[Variant, dict[int, Row]]) -> None:
    curves = step_curves(found)
    if curves:
        caption = "k_max as a part of the window by fine-tuning steps."
        if max(step for _, points in curves for step in points) >= compare.COMPARABLE:
            caption += " Grey: the paper's 7B, PI and direct fine-tuning."
        made.draw(compare.k_max_by_steps(curves, colours=clean.colours), caption, "By fine-tuning steps")
        steps = sorted({step for _, points in curves for step in points})
        lines = [
            Line(
                f"{state.method_and_factor}, window {state.window}",
                [Cell(str(points[s]) if s in points else "") for s in steps],
                colour=style.colour(state, clean.colours),
            )
            for state, points in curves
        ]
        made.tables.append(Table("k_max by fine-tuning steps", [str(s) for s in steps], lines, first="steps"))
    if any(state.extended for state in found):
        theirs = [
            Line(
                paper_label(row),
                [Cell(f"{row.values[s]:.0f}" if s in row.values else "") for s in paper.STEPS],
                paper=True,
            )
            for row in paper.TABLE_4.rows
        ]
        made.tables.append(
            Table(
                "Beside it, table 4 of the paper",
                [str(s) for s in paper.STEPS],
                theirs,
                first="steps",
                under=bool(curves),
            )
        )
