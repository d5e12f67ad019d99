"""The harder retrieval set: by family, and by how far what was asked lies from the end."""

from __future__ import annotations

import math
from typing import Any

from ropewalk.figures import compare, style
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps, variant_of
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.rows import Clean

Row = dict[str, Any]
_BINS = 8
_CROWDED = 6  # more series than this cannot be told apart in one figure


def by_state(clean: Clean) -> dict[tuple[Variant, int], dict[str, Row]]:
    """(state, window) → family → row; of each training only the last step."""
    rows = clean.of("retrieval")
    keep = last_steps(list(dict.fromkeys(variant_of(row["header"], row["window"]) for row in rows)))
    found: dict[tuple[Variant, int], dict[str, Row]] = {}
    for row in rows:
        state = variant_of(row["header"], row["window"])
        if state in keep:
            found.setdefault((state, row["window"]), {})[row["family"]] = row
    return dict(sorted(found.items(), key=lambda item: (item[0][0].order, item[0][1])))


def section(clean: Clean) -> Section | None:
    """The section of retrieval, or None without any."""
    found = by_state(clean)
    if not found:
        return None
    names = labels([state for state, _ in found])
    made = Section(
        "retrieval",
        "Harder retrieval",
        "Passkeys saturate: one key in a repeated filler is easily found. Here facts stand among prose, and the prompt asks for "
        "one of several keys, for several values, for a key among look-alikes, or for the end of a chain.",
    )
    titled = {key: f"{names[key[0]]}, {key[1]}" for key in found}
    drawn = list(found)[-_CROWDED:]
    series = [(titled[key], key[0], {family: _share(row) for family, row in found[key].items()}) for key in drawn]
    made.draw(
        compare.retrieval(series, colours=clean.colours),
        "Prompts answered right by family, with Wilson\u2019s 95 % interval.",
    )
    distant = [(titled[key], key[0], *binned(key[1], list(found[key].values()))) for key in drawn]
    distant = [one for one in distant if any(number_format.is_finite(share) for share in one[3])]
    if distant:
        made.draw(
            compare.by_distance(distant, colours=clean.colours),
            "All families together, by the distance of what was asked; the dotted line is the window of pretraining.",
        )
    made.tables.append(_table(clean, found, names))
    return made


def binned(window: int, rows: list[Row]) -> tuple[list[float], list[float]]:
    """Edges of equal bins of the window, and the share answered right in each (NaN for an empty one)."""
    edges = [window * i / _BINS for i in range(_BINS + 1)]
    right, tried = [0] * _BINS, [0] * _BINS
    for trial in (trial for row in rows for trial in row["per_trial"]):
        placed = trial.get("placed")
        if number_format.is_finite(placed) and 0 <= placed <= window:
            at = min(_BINS - 1, int(placed * _BINS / window))
            tried[at] += 1
            right[at] += bool(trial.get("right"))
    return edges, [r / t if t else math.nan for r, t in zip(right, tried, strict=True)]


def _share(row: Row) -> tuple[float, float, float]:
    share = row["successes"] / row["trials"]
    low, high = (row[side] if number_format.is_finite(row[side]) else share for side in ("low", "high"))
    return share, low, high


def _table(clean: Clean, found: dict[tuple[Variant, int], dict[str, Row]], names: dict[Variant, str]) -> Table:
    families = list(dict.fromkeys(family for rows in found.values() for family in rows))
    lines = []
    for (state, window), rows in found.items():
        cells = [Cell(str(window)), *(_cell(rows.get(family)) for family in families)]
        lines.append(Line(names[state], cells, colour=style.colour(state, clean.colours)))
    return Table(
        "Prompts answered right",
        ["window", *families],
        lines,
        first="state",
        note="Small figures: 95 % interval (Wilson).",
    )


def _cell(row: Row | None) -> Cell:
    if row is None:
        return Cell("")
    share, low, high = _share(row)
    return Cell(number_format.share(share), number_format.interval(low, high, number_format.share))
