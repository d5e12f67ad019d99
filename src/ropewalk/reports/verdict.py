"""The first paragraph and the tiles above everything: what came of the extension, worked out from the rows.

Every sentence is a comparison of two rows of the same page. None is written where one of the two is missing.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from ropewalk.checkpoint.model_card import by_skipping
from ropewalk.records import EffectiveLength, PasskeySummary, Perplexity, Step
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import ablation, benchmarks, damage, methods, passkey, perplexity, training
from ropewalk.reports.paired import Ratio, ratio
from ropewalk.reports.rows import Clean

#: Times the base's perplexity in its own window: beyond it at every window, nothing holds.
_USELESS = 2.0


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
    winner: str = ""

    def says(self, text: str) -> bool:
        """Whether a sentence has this already, so that no figure stands twice."""
        return any(text in sentence for sentence in self.sentences)


def verdicts(clean: Clean) -> list[Verdict]:
    """One for each base model on the page."""
    variants = {m.model_variant for m in clean.measurements}
    lineages = sorted({variant.lineage for variant in variants}, key=str)
    return [_verdict(clean, [v for v in variants if v.lineage == lineage]) for lineage in lineages]


def _verdict(clean: Clean, variants: list[Variant]) -> Verdict:
    measured = {m.model_variant for m in clean.measurements if not isinstance(m.row, Step)}
    bases = [v for v in variants if v.role == "base" and not v.steps]  # what a training began from, too
    base = min(bases, key=lambda v: (v not in measured, v.name), default=None)
    target = _target(clean, [v for v in variants if v.extended and v in measured])
    verdict = Verdict(base_name(base or variants[0]), extended=target is not None)
    found, seeds = _contest(clean, variants[0].lineage), list[Variant]()
    if found is not None:
        target, *seeds = found.leader.variants
        verdict.winner = found.headline
        verdict.sentences.append(found.sentence)
    if target is None:
        verdict.sentences.append(
            f"Only the base model was measured ({variants[0].original_window} tokens); nothing was extended."
            if base
            else "No extended model was measured."
        )
        runs = [run for run in training.trainings(clean) if run.variant.lineage == variants[0].lineage]
        verdict.sentences += _unfinished(runs)
    else:
        _extension(verdict, clean, base, target)
        if found is not None and seeds:
            verdict.sentences.append(
                f"What follows is of seed {target.recipe.seed}, one of {1 + len(seeds)}; the tables have their mean."
            )
        _holds(verdict, clean, target)
        group = next((g for g in perplexity.groups(clean) if target in g.variants()), None)
        priced = damage.sentence(group, [target, *seeds], training.trainings(clean)) if group else ""
        verdict.sentences += [priced] if priced else []
    _perplexity(verdict, clean, variants[0].lineage, base, target)
    _passkey(verdict, clean, base, target)
    _benchmarks(verdict, clean, target)
    return verdict


def base_name(variant: Variant) -> str:
    """What a page calls a model: as its base is called; where nothing says that, by family and size, since directories are nobody's name."""
    if variant.base or variant.role == "base":
        return variant.base or variant.short_name
    family, *_, parameters = variant.lineage
    return f"a {family} model" + (f" of {number_format.large(parameters)} parameters" if parameters else "")


def _contest(clean: Clean, lineage: tuple) -> methods.Contest | None:
    """Methods beside each other on the text on which most were measured."""
    runs = training.trainings(clean)
    for group in perplexity.groups(clean):
        blocks = ablation.blocks({v: rows for v, rows in group.variants().items() if v.extended}, runs)
        if group.lineage == lineage and (found := methods.contest(clean, blocks)):
            return found
    return None


def _target(clean: Clean, extended: list[Variant]) -> Variant | None:
    """The variant the page is about: trained, by PI, measured in the most ways, then the longest window, the most steps."""
    kinds: dict[Variant, set[str]] = {}
    for m in clean.measurements:
        kinds.setdefault(m.model_variant, set()).add(m.row.kind)
    return max(
        extended,
        key=lambda v: (v.role == "trained", v.method == "linear", len(kinds[v]), v.window, v.steps),
        default=None,
    )


def _extension(verdict: Verdict, clean: Clean, base: Variant | None, target: Variant) -> None:
    name, label = base_name(base or target), target.method_label
    method = "Position Interpolation" if target.method == "linear" else label
    if target.method == "plain":
        done = f"{name} was trained directly at {target.window} tokens, its rotation unchanged"
    else:
        done = f"{name} was extended from {target.original_window} to {target.window} tokens (×{target.factor:.4g}) by {method}"
    runs = training.trainings(clean)
    tokens = training.budget(target, runs)
    budget = f" ({number_format.large(tokens)} tokens)" if tokens else ""
    chunk = target.recipe.chunk(target.original_window)
    how = f" {by_skipping(chunk, target.window)}" if chunk else ""
    done += (
        f" and trained for {target.steps} steps{budget}{how}." if target.steps else "; it was not trained afterwards."
    )
    verdict.sentences.append(done)
    if target.steps:
        verdict.sentences += _unfinished(training.trained_by(target, runs))
    verdict.tiles.append(
        Tile("window", f"{target.original_window} → {target.window}", f"×{target.factor:.4g}, {label}")
    )


def _unfinished(runs: list[training.Training]) -> list[str]:
    """How far trainings came that took fewer steps than were asked for."""
    return [f"Its training to {run.variant.window} tokens: {run.ended} steps." for run in runs if not run.is_finished]


def _perplexity(verdict: Verdict, clean: Clean, lineage: tuple, base: Variant | None, target: Variant | None) -> None:
    group = next(
        (g for g in perplexity.groups(clean) if g.lineage == lineage and (target is None or target in g.variants())),
        None,
    )
    if group is None:
        return
    rows = group.variants()
    before = group.base_row()
    if target is None or target not in rows:
        if before:
            verdict.sentences.append(
                f"Its perplexity at {before.window} tokens is {number_format.perplexity(before.perplexity)}."
            )
        return
    inside, outside = rows[target].get(target.original_window), rows[target].get(target.window)
    if before and inside:
        _original_window(verdict, before, inside)
    if outside:
        stretched = rows.get(base, {}).get(target.window) if base else None
        untrained = next((rows[v].get(target.window) for v in rows if _is_before(v, target)), None)
        _new_window(verdict, inside, outside, before, stretched, untrained)


def _holds(verdict: Verdict, clean: Clean, target: Variant) -> None:
    """To which window it was taken, how far it holds by each measure, and what became of the short window, each with its interval."""
    short, window = target.original_window, target.window
    group = next((g for g in perplexity.groups(clean) if target in g.variants()), None)
    rows = group.variants()[target] if group else {}
    before, inside = group.base_row() if group else None, rows.get(short)
    parts = [*_reach(clean, target), *(_useless(before, rows, window) or _far_by_perplexity(rows, short, window))]
    change = ratio(before, inside) if before and inside else None
    done = "Trained" if target.steps else "Extended, not trained,"
    holds = f"it holds to {' and to '.join(parts)}" if parts else "how far it holds was not measured"
    at_short = ""
    if before and inside and change:
        at_short = f"; at the short window of {short} tokens its perplexity went {_moved(before, inside)}, {change}"
    elif not any(each.variant == target for each in benchmarks.changes(clean)):
        at_short = f"; what became of the short window of {short} was not measured"
    verdict.sentences.append(f"{done} to {window} tokens, {holds}{at_short}.")


def _reach(clean: Clean, target: Variant) -> Iterator[str]:
    reach = methods.k_max(clean, target, target.window)
    if reach and reach[1:] != (0, target.window):  # an interval of everything says nothing
        yield f"{reach[0]:.0f} by k_max ({_interval(reach[1], reach[2])})"
    by_ruler = [m for m in clean.of(EffectiveLength) if m.model_variant == target]
    if by_ruler:
        row = max(by_ruler, key=lambda m: m.run.started).row
        yield f"{row.tokens(row.effective)} by {row.measure} (95\u202f% interval {row.tokens(row.effective_low)} to {row.tokens(row.effective_high)})"


def _useless(before: Perplexity | None, rows: perplexity.ByWindow, window: int) -> list[str]:
    """That it holds nowhere by perplexity: where it is surely more than twice the base's in its own window, a flat curve is no good one."""
    each = {w: ratio(before, rows[w]) for w in sorted(rows) if before and before.window <= w <= window}
    if not before or not each or any(change is None or not change.low > _USELESS for change in each.values()):
        return []
    worst = max(change.value for change in each.values() if change)
    return [f"no window by perplexity (up to {number_format.times(worst)} the base's at {before.window})"]


def _far_by_perplexity(rows: perplexity.ByWindow, short: int, window: int) -> Iterator[str]:
    ratios = {w: ratio(rows[short], rows[w]) for w in sorted(rows) if short in rows and short < w <= window}
    if any(each is not None and number_format.is_finite(each.low) for each in ratios.values()):
        held = list(itertools.takewhile(lambda each: each[1] is not None and each[1].low <= 1, ratios.items()))
        last, change = held[-1] if held else (short, None)
        beyond, rise = next(iter(ratios.items()))
        risen = f"from {short} to {beyond}: {rise.brief}" if rise else f"beyond {short} it rises"
        yield f"{last} by perplexity ({f'from {short}: {change.brief}' if change else risen})"


def _interval(low: float, high: float) -> str:
    return f"95\u202f% interval {number_format.interval(low, high, number_format.count)}"


def _moved(before: Perplexity, inside: Perplexity) -> str:
    return f"{number_format.perplexity(before.perplexity)}\u00a0→\u00a0{number_format.perplexity(inside.perplexity)}"


def _is_before(variant: Variant, target: Variant) -> bool:
    alike = (variant.scaling, variant.window) == (target.scaling, target.window)
    return variant.role == "untrained" != target.role and alike


def _original_window(verdict: Verdict, before: Perplexity, inside: Perplexity) -> None:
    change = ratio(before, inside)
    if change is None:
        return
    figures = _moved(before, inside)
    # A tile is narrow: long figures may go on in a second line, but not be torn.
    verdict.tiles.append(
        Tile(
            f"perplexity at {before.window}",
            figures.replace("\u00a0→", " →"),
            number_format.percent(change.value - 1),
        )
    )


def _new_window(
    verdict: Verdict,
    inside: Perplexity | None,
    outside: Perplexity,
    before: Perplexity | None,
    stretched: Perplexity | None,
    untrained: Perplexity | None,
) -> None:
    window, value = outside.window, number_format.perplexity(outside.perplexity)
    parts = []
    if stretched:
        parts.append(f"the base, extrapolating, {number_format.perplexity(stretched.perplexity)}")
    if untrained:
        parts.append(f"before training {number_format.perplexity(untrained.perplexity)}")
    change = ratio(before, outside) if before else None
    finding = f"At {window} tokens: {value}" + (f" ({'; '.join(parts)})" if parts else "")
    verdict.sentences.append(finding + (f"; against the base in its own window {change.brief}." if change else "."))
    longer = ratio(inside, outside) if inside else None
    if longer and inside:
        figures = "" if verdict.says(f": {longer.brief})") else f": {longer.brief}"
        verdict.sentences.append(_reading(longer, inside.window, window, figures))
    verdict.tiles.append(Tile(f"perplexity at {window}", value, parts[0] if parts else ""))


def _reading(longer: Ratio, short: int, long: int, figures: str) -> str:
    """Whether the longer context helps: the same model, the same documents, more of them in sight.

    The base in its window would be the wrong yardstick: training alone can bring a model below that.
    """
    moved = f"From {short} to {long} tokens its perplexity"
    if not number_format.is_finite(longer.low):
        return f"{moved} changes by {longer}; the documents are too few, or not the same, for an interval."
    if longer.high < 1:
        return f"{moved} falls, so the longer context is put to use{figures}."
    if longer.low > 1:
        return f"{moved} rises, so the longer context does harm{figures}."
    return f"{moved} does not change beyond chance{figures}."


def _passkey(verdict: Verdict, clean: Clean, base: Variant | None, target: Variant | None) -> None:
    rows = passkey.summaries(clean)

    def longest(variant: Variant | None) -> PasskeySummary | None:
        by_window = rows.get(variant, {}) if variant else {}
        return by_window[max(by_window)] if by_window else None

    before, after = longest(base), longest(target)
    if after is None:
        if before is not None and target is None:
            verdict.sentences.append(f"Its k_max is {before.reach}.")
        return
    k_max = methods.k_max(clean, target, after.window) if target else None
    sure = _interval(*k_max[1:]) if k_max else ""
    sure = f", {sure}" if sure and not verdict.says(f"by k_max ({sure})") else ""
    reach = f"Passkey retrieval reaches k_max {after.reach}{sure}"
    verdict.sentences.append(f"{reach}; the base {before.reach}." if before else f"{reach}.")
    against = f"of {after.window}" + (f"; base {before.k_max}" if before else "")
    verdict.tiles.append(Tile("k_max", str(after.k_max), against))


def _benchmarks(verdict: Verdict, clean: Clean, target: Variant | None) -> None:
    changes = [change for change in benchmarks.changes(clean) if change.variant == target]
    if not changes:
        return
    worst = min(changes, key=lambda change: change.difference)
    lost = [benchmarks.name(change.task) for change in changes if change.is_loss]
    mean = sum(change.difference for change in changes) / len(changes)
    text = f"Of {len(changes)} benchmarks in the original window "
    text += f"{len(lost)} lost beyond chance ({', '.join(lost)})" if lost else "none lost beyond chance"
    verdict.sentences.append(f"{text}; the mean changed by {number_format.points(mean)} points.")
    verdict.tiles.append(
        Tile(
            "benchmarks",
            f"{number_format.points(mean)} points",
            f"on average; worst {benchmarks.name(worst.task)} {number_format.points(worst.difference)}",
        )
    )
