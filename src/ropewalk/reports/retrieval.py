"""The harder retrieval set: by family, and by how far what was asked lies from the end."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from statistics import fmean

from ropewalk.evals.intervals import share_interval, share_over_seeds
from ropewalk.figures import accuracy, compare, style
from ropewalk.records import Retrieval
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, labels, last_steps
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.drawn import to_draw
from ropewalk.reports.paired import Bounded, asked_apart
from ropewalk.reports.rows import Clean
from ropewalk.sentences import joined

_BINS = 8
#: Of what it is asked in its own window, the share that a model must be able to answer before one says how far it holds.
FINDS = 0.5
ByVariant = dict[tuple[Variant, int], dict[str, Retrieval]]


def by_variant(clean: Clean) -> ByVariant:
    """(variant, window) → family → row; of each training only the last step."""
    measurements = clean.of(Retrieval)
    keep = last_steps(list(dict.fromkeys(m.variant for m in measurements)))
    rows: ByVariant = {}
    for m in measurements:
        if m.variant in keep:
            rows.setdefault((m.variant, m.row.window), {})[m.row.family] = m.row
    return dict(sorted(rows.items(), key=lambda item: (item[0][0].order, item[0][1])))


def rows_of(clean: Clean, variant: Variant, window: int) -> list[Retrieval]:
    """The families that one model was asked in prompts of so many tokens."""
    return [m.row for m in clean.of(Retrieval) if m.model_variant == variant and m.row.window == window]


def section(clean: Clean) -> Section | None:
    """The section of retrieval, or None without any."""
    rows = by_variant(clean)
    if not rows:
        return None
    names = labels([variant for variant, _ in rows])
    part = Section(
        "retrieval",
        "Harder retrieval",
        "Passkeys saturate: one key in a repeated filler is easily found. Here facts stand among prose, and the prompt asks for "
        "one of several keys, for several values, for a key among look-alikes, or for the end of a chain.",
    )
    drawn, left_out = to_draw(clean, {state: fmean(_share(row)[0] for row in rows[state].values()) for state in rows})
    of_line = {line.title: [rows[seed, line.window] for seed in line.seeds] for line in drawn}
    part.draw(
        accuracy.retrieval(
            [(each.title, each.first, _shares(of_line[each.title])) for each in drawn], colours=clean.colours
        ),
        "Prompts answered right by family, with its 95 % interval; of several seeds their mean, with its interval for other prompts and other seeds."
        + left_out,
    )
    by_distance = [
        (each.title, each.first, *binned(each.window, [row for seed in of_line[each.title] for row in seed.values()]))
        for each in drawn
    ]
    by_distance = [line for line in by_distance if any(number_format.is_finite(share) for share in line[3])]
    if by_distance:
        part.draw(
            compare.by_distance(by_distance, colours=clean.colours),
            "All families and seeds together, by the distance of what was asked; the dotted line is the window of pretraining.",
        )
    part.tables.append(_table(clean, rows, names))
    return part


def sentence(clean: Clean, seeds: Sequence[Variant], untrained: Sequence[Variant]) -> str:
    """The share answered right over all families at the longest window, of these seeds and before their training, for a verdict; nothing where it was not measured."""
    longest = max(windows(clean, seeds), default=0)
    asked = [each for seed in seeds if (each := _asked(clean, seed, longest))]
    right = share(clean, seeds, longest)
    if right is None:
        return ""
    value, low, high = right
    least, most = min(trials for _, trials in asked), max(trials for _, trials in asked)
    of_seed = " a seed" if len(seeds) > 1 else ""
    known = [f"{len(asked)} of {len(seeds)} seeds"] * (len(asked) < len(seeds))
    known += [number_format.interval(low, high, _percent)]
    before = next((each for v in untrained if (each := _asked(clean, v, longest))), None)
    known += [f"{seeds[0].recipe.before} {_percent(before[0] / before[1])}"] if before else []
    prompts = str(least) if least == most else f"{least} to {most}"
    return f"Harder retrieval: {_percent(value)} of {prompts} prompts{of_seed} ({'; '.join(known)})."


def share(
    clean: Clean, seeds: Sequence[Variant], window: int, families: Collection[str] | None = None
) -> Bounded | None:
    """The share answered right over all families, or these, in prompts of so many tokens, of all these seeds that were asked them."""
    asked = [each for seed in seeds if (each := _asked(clean, seed, window, families))]
    return (
        share_over_seeds([(right / tried, *share_interval(right, tried)) for right, tried in asked]) if asked else None
    )


def holds(clean: Clean, seeds: Sequence[Variant]) -> str:
    """To which length, behind "it holds": up to which the share is not surely below that at the short window, the longest asked within that of pretraining. It is over the families that were asked at all lengths from there; nothing where there are none. To no length where what was right at the short window is clearly below `FINDS`."""
    asked = sorted(windows(clean, seeds))
    short = max((window for window in asked if window <= seeds[0].original_window), default=min(asked, default=0))
    each = [{row.family for row in rows_of(clean, seed, w)} for seed in seeds for w in asked if w >= short]
    families = sorted(set.intersection(*each)) if each else []
    before, *after = (
        (share(clean, seeds, window, families) for window in asked if window >= short) if families else (None,)
    )
    if before is None or not after:
        return ""
    of = "harder retrieval" + (f" of {joined(families)}" if set(families) < set().union(*each) else "")
    if before[2] < FINDS:  # of what a model cannot do in its own window hardly anything is surely worse
        right = f"{_percent(before[0])} right" if before[0] else "nothing was right"
        return f"to no length by {of} ({right} at {short}, clearly fewer than half)"
    longer = [window for window in asked if window > short]
    there = {window: found for window, found in zip(longer, after, strict=True) if found}
    changes = {window: asked_apart(before, found) for window, found in there.items()}
    held = list(itertools.takewhile(lambda window: changes[window][2] >= 0, changes))
    at = held[-1] if held else longer[0]
    change, low, high = changes[at]
    moved = f"{_percent(before[0])} at {short}, {_percent(there[at][0])} at {at}: {number_format.points(change)} points"
    bounds = number_format.interval(low, high, number_format.points)
    return f"to {at if held else short} by {of} ({moved} (95\u202f% interval {bounds}))"


def windows(clean: Clean, seeds: Sequence[Variant]) -> set[int]:
    """The lengths, in tokens, at which any of these was asked."""
    return {m.row.window for m in clean.of(Retrieval) if m.model_variant in seeds}


def _asked(
    clean: Clean, variant: Variant, window: int, families: Collection[str] | None = None
) -> tuple[int, int] | None:
    """Prompts answered right and prompts, over all families or these; None without any."""
    rows = [row for row in rows_of(clean, variant, window) if families is None or row.family in families]
    trials = sum(row.trials for row in rows)
    return (sum(row.successes for row in rows), trials) if trials else None


def _percent(share: float) -> str:
    return number_format.share(share, 1)


def binned(window: int, rows: list[Retrieval]) -> tuple[list[float], list[float]]:
    """Edges of equal bins of the window, and the share answered right in each (NaN for an empty one)."""
    edges = [window * i / _BINS for i in range(_BINS + 1)]
    right, tried = [0] * _BINS, [0] * _BINS
    for trial in (trial for row in rows for trial in row.per_trial):
        if 0 <= trial["placed"] <= window:
            at = min(_BINS - 1, int(trial["placed"] * _BINS / window))
            tried[at] += 1
            right[at] += trial["right"]
    return edges, [r / t if t else math.nan for r, t in zip(right, tried, strict=True)]


def _share(row: Retrieval) -> tuple[float, float, float]:
    share = row.successes / row.trials
    low, high = (bound if number_format.is_finite(bound) else share for bound in (row.low, row.high))
    return share, low, high


def _shares(seeds: Sequence[dict[str, Retrieval]]) -> dict[str, tuple[float, float, float]]:
    """family → the mean share of these seeds, with its interval."""
    families = dict.fromkeys(family for seed in seeds for family in seed)
    return {family: share_over_seeds([_share(seed[family]) for seed in seeds if family in seed]) for family in families}


def _table(clean: Clean, rows: ByVariant, names: dict[Variant, str]) -> Table:
    families = list(dict.fromkeys(family for by_family in rows.values() for family in by_family))
    lines = []
    for (variant, window), by_family in rows.items():
        cells = [Cell(str(window)), *(_cell(by_family.get(family)) for family in families)]
        lines.append(Line(names[variant], cells, colour=style.colour(variant, clean.colours)))
    return Table(
        clean.titled("Prompts answered right", names),
        ["window", *families],
        seeds_together(lines),
        first="state",
        note="Small figures: 95 % interval.",
    )


def _cell(row: Retrieval | None) -> Cell:
    if row is None:
        return Cell("")
    share, low, high = _share(row)
    return Cell.of(share, number_format.share, low, high, within=(0, 1))
