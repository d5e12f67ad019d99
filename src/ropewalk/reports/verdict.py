"""The first paragraph and the tiles above everything: what came of the extension, worked out from the rows.

Every sentence is a comparison of two rows of the same page. None is written where one of the two is missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, variant_of
from ropewalk.reports import benchmarks, passkey, perplexity, training
from ropewalk.reports.paired import Ratio, ratio
from ropewalk.reports.rows import Clean

Row = dict[str, Any]


@dataclass(frozen=True)
class Tile:
    """One figure to see first: what it is, its value, and what it is held against."""

    name: str
    value: str
    against: str = ""


@dataclass
class Verdict:
    """One base model and the furthest it was taken."""

    heading: str
    extended: bool
    sentences: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)


def verdicts(clean: Clean) -> list[Verdict]:
    """One for each base model on the page."""
    states = {variant_of(row["header"]) for row in clean.rows}
    lineages = sorted({state.lineage for state in states}, key=str)
    return [_verdict(clean, [s for s in states if s.lineage == lineage]) for lineage in lineages]


def _verdict(clean: Clean, states: list[Variant]) -> Verdict:
    base = next((s for s in sorted(states, key=lambda s: s.order) if s.role == "base" and not s.steps), None)
    measured = {variant_of(row["header"]) for row in clean.rows if row["kind"] != "step"}
    target = _target(clean, [s for s in states if s.extended and s in measured])
    made = Verdict((base or target or states[0]).short_name, extended=target is not None)
    if target is None:
        made.sentences.append(
            f"Only the base model was measured ({states[0].original_window} tokens); nothing was extended."
            if base
            else "No extended model was measured."
        )
    else:
        _extension(made, clean, base, target)
    _perplexity(made, clean, states, base, target)
    _passkey(made, clean, base, target)
    _benchmarks(made, clean, target)
    return made


def _target(clean: Clean, extended: list[Variant]) -> Variant | None:
    """The state the page is about: trained, by PI, measured in the most ways, then the longest window, the most steps."""
    kinds: dict[Variant, set[str]] = {}
    for row in clean.rows:
        kinds.setdefault(variant_of(row["header"]), set()).add(row["kind"])
    return max(
        extended,
        key=lambda s: (s.role == "trained", s.method == "linear", len(kinds[s]), s.window, s.steps),
        default=None,
    )


def _extension(made: Verdict, clean: Clean, base: Variant | None, target: Variant) -> None:
    name = (base or target).short_name
    how = "Position Interpolation" if target.method == "linear" else target.method_name
    if target.method == "plain":
        done = f"{name} was trained directly at {target.window} tokens, its rotation unchanged"
    else:
        done = f"{name} was extended from {target.original_window} to {target.window} tokens (×{target.factor:.4g}) by {how}"
    tokens = training.budget(target, training.trainings(clean))
    seen = f" ({number_format.large(tokens)} tokens)" if tokens else ""
    done += f" and trained for {target.steps} steps{seen}." if target.steps else "; it was not trained afterwards."
    made.sentences.append(done)
    made.tiles.append(
        Tile("window", f"{target.original_window} → {target.window}", f"×{target.factor:.4g}, {target.method_name}")
    )


def _perplexity(
    made: Verdict, clean: Clean, states: list[Variant], base: Variant | None, target: Variant | None
) -> None:
    lineage = states[0].lineage
    group = next(
        (g for g in perplexity.groups(clean) if g.lineage == lineage and (target is None or target in g.states())), None
    )
    if group is None:
        return
    rows = group.states()
    before = group.base_row()
    if target is None or target not in rows:
        if before:
            made.sentences.append(
                f"Its perplexity at {before['window']} tokens is {number_format.perplexity(before['perplexity'])}."
            )
        return
    inside, outside = rows[target].get(target.original_window), rows[target].get(target.window)
    if before and inside:
        _original_window(made, before, inside)
    if outside:
        stretched = rows.get(base, {}).get(target.window) if base else None
        untrained = next((rows[s].get(target.window) for s in rows if _is_before(s, target)), None)
        _new_window(made, inside, outside, before, stretched, untrained)


def _is_before(state: Variant, target: Variant) -> bool:
    return state.role == "untrained" != target.role and (state.method, state.factor, state.window) == (
        target.method,
        target.factor,
        target.window,
    )


def _original_window(made: Verdict, before: Row, inside: Row) -> None:
    change = ratio(before, inside)
    if change is None:
        return
    figures = (
        f"{number_format.perplexity(before['perplexity'])}\u00a0→\u00a0{number_format.perplexity(inside['perplexity'])}"
    )
    made.sentences.append(f"Perplexity at the original {before['window']} tokens: {figures}, {change}.")
    # A tile is narrow: long figures may go on in a second line, but not be torn.
    made.tiles.append(
        Tile(
            f"perplexity at {before['window']}",
            figures.replace("\u00a0→", " →"),
            number_format.percent(change.value - 1),
        )
    )


def _new_window(
    made: Verdict, inside: Row | None, outside: Row, before: Row | None, stretched: Row | None, untrained: Row | None
) -> None:
    window, value = outside["window"], number_format.perplexity(outside["perplexity"])
    parts = []
    if stretched:
        parts.append(f"the base, extrapolating, {number_format.perplexity(stretched['perplexity'])}")
    if untrained:
        parts.append(f"before training {number_format.perplexity(untrained['perplexity'])}")
    made.sentences.append(f"At {window} tokens: {value}" + (f" ({'; '.join(parts)})." if parts else "."))
    own = ratio(inside, outside) if inside else None
    if own and inside:
        made.sentences.append(_reading(own, inside["window"], window))
    change = ratio(before, outside) if before else None
    if change and before:
        made.sentences.append(
            f"Against the base in its own window ({number_format.perplexity(before['perplexity'])}) that is {change.brief}."
        )
    made.tiles.append(Tile(f"perplexity at {window}", value, parts[0] if parts else ""))


def _reading(own: Ratio, short: int, long: int) -> str:
    """Whether the longer context helps: the same model, the same documents, more of them in sight.

    The base in its window would be the wrong yardstick: training alone can bring a model below that.
    """
    moved = f"From {short} to {long} tokens its perplexity"
    if not number_format.is_finite(own.low):
        return f"{moved} changes by {own}; the documents are too few, or not the same, for an interval."
    if own.high < 1:
        return f"{moved} falls, so the longer context is put to use: {own.brief}."
    if own.low > 1:
        return f"{moved} rises, so the longer context does harm: {own.brief}."
    return f"{moved} does not change beyond chance: {own.brief}."


def _passkey(made: Verdict, clean: Clean, base: Variant | None, target: Variant | None) -> None:
    found = passkey.summaries(clean)

    def best(state: Variant | None) -> Row | None:
        rows = found.get(state, {}) if state else {}
        return rows[max(rows)] if rows else None

    before, after = best(base), best(target)
    if after is None:
        if before is not None and target is None:
            made.sentences.append(f"Its k_max is {before['k_max']} of {before['window']} tokens.")
        return
    said = f"{after['k_max']} of {after['window']} tokens"
    if before:
        made.sentences.append(
            f"Passkey retrieval reaches k_max {said}; the base {before['k_max']} of {before['window']}."
        )
    else:
        made.sentences.append(f"Passkey retrieval reaches k_max {said}.")
    against = f"of {after['window']}" + (f"; base {before['k_max']}" if before else "")
    made.tiles.append(Tile("k_max", str(after["k_max"]), against))


def _benchmarks(made: Verdict, clean: Clean, target: Variant | None) -> None:
    found = [change for change in benchmarks.changes(clean) if change.state == target]
    if not found:
        return
    worst = min(found, key=lambda change: change.difference)
    lost = [benchmarks.name(change.task) for change in found if change.is_loss]
    mean = sum(change.difference for change in found) / len(found)
    said = f"Of {len(found)} benchmarks in the original window "
    said += f"{len(lost)} lost beyond chance ({', '.join(lost)})" if lost else "none lost beyond chance"
    made.sentences.append(f"{said}; the mean changed by {benchmarks.points(mean)} points.")
    made.tiles.append(
        Tile(
            "benchmarks",
            f"{benchmarks.points(mean)} points",
            f"on average; worst {benchmarks.name(worst.task)} {benchmarks.points(worst.difference)}",
        )
    )
