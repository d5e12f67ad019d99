"""How far a model holds, by retrieval and by perplexity, and what became of its short window: a sentence of the verdict."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from ropewalk.evals.intervals import over_seeds, perplexity_over_seeds
from ropewalk.records import EffectiveLength, LongTask, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import benchmarks, comparable, damage, methods, passkey, training
from ropewalk.reports.paired import Bounded, Ratio, asked_apart, over, ratio
from ropewalk.reports.rows import Clean
from ropewalk.reports.seeds import spread
from ropewalk.sentences import joined

#: Of each seed its rows by window.
Seeds = Sequence[comparable.ByWindow]
#: Times the base's perplexity in its own window: beyond it at every window, nothing holds.
_USELESS = 2.0


def sentence(
    clean: Clean, group: comparable.Group | None, near: comparable.Group | None, seeds: Sequence[Variant]
) -> str:
    """To which window it was taken, how far it holds by each measure, and what became of the short window, each with its interval. near: of the rows by which the latter is known. seeds: of one training."""
    target = seeds[0]
    short, window = target.original_window, target.window
    rows = [group.variants().get(seed, {}) for seed in seeds] if group else []
    before = group.base_row() if group else None
    parts = [
        *_by_retrieval(clean, seeds, window),
        *(_useless(before, rows, window) or _by_perplexity(rows, short, window)),
    ]
    since = any(training.is_like(target, run) for run in training.unmeasured(clean))
    done = "Trained" if target.steps else "Before its training, extended" if since else "Extended, not trained,"
    chunk = target.recipe.chunk(short) if target.steps else None
    far = f"in chunks of {chunk} tokens at positions up to {window}" if chunk else f"to {window} tokens"
    return f"{done} {far}{',' if parts else ';'} {_holds(clean, seeds, window, parts)}{_at_short(clean, near, seeds)}.{_asked_besides(clean, seeds)}"


def of_base(clean: Clean, base: Variant) -> str:
    """Of a model that nobody extended here: its window, and how far it holds by each measure; by perplexity from the shortest window measured."""
    group = next((g for g in comparable.groups(clean) if base in g.variants()), None)
    rows = group.variants()[base] if group else {}
    window = max(passkey.summaries(clean).get(base, {base.window: None}))
    by_perplexity = _by_perplexity([rows], min(rows), max(rows)) if rows else ()
    parts = [*_by_retrieval(clean, [base], window), *by_perplexity]
    return f"As it was published: window {base.window} tokens; {_holds(clean, [base], window, parts)}.{_asked_besides(clean, [base])}"


def _holds(clean: Clean, seeds: Sequence[Variant], window: int, parts: Sequence[str]) -> str:
    """To what it holds, by each of the parts; window: of its passkeys."""
    if parts:
        return f"it holds {joined(parts)}"
    asked = any(methods.k_max(clean, seed, window) for seed in seeds)
    return "how far it holds, these passkeys do not tell" if asked else "how far it holds was not measured"


def _at_short(clean: Clean, group: comparable.Group | None, seeds: Sequence[Variant]) -> str:
    """What became of the short window, by the one window at which both were measured; else why that is not known."""
    target = seeds[0]
    pairs = [damage.short_pair(group, seed) for seed in seeds if seed in group.variants()] if group else []
    short, pair = target.original_window, pairs[0] if pairs else None
    if pair:
        at = pair[0].window
        alike = [each if each and each[0].window == at else None for each in pairs]
        change, after = over([each and ratio(*each) for each in alike]), [each[1] for each in alike if each]
        moves = f"its perplexity went {moved(pair[0], after)}{f', {change}' if change else ''}{_taught(clean, group, seeds, change)}"
        if unfilled := pair[1].unfilled:
            moves = f"({unfilled}) {moves}"
        if at == short:
            return f". At the short window of {short} tokens {moves}"
        return f". Within the short window of {short} tokens it and its base were both measured at {at} at most: there {moves}"
    if by_ruler := _short_by_ruler(clean, seeds):
        return by_ruler
    if any(each.variant == target for each in benchmarks.changes(clean)):
        return ""
    if group is None:
        return f"; what became of the short window of {short} was not measured"
    measured, base = group.variants()[target], group.base_row()
    lacking = "its base" if short in measured else "it" if base else "neither it nor its base"
    verb = "was" if lacking.startswith("neither") else "was not"
    return f"; what became of the short window is not known, for {lacking} {verb} measured at {short} tokens{_elsewhere(clean, group)}, and other windows do not tell"


def _taught(clean: Clean, group: comparable.Group | None, seeds: Sequence[Variant], change: Ratio | None) -> str:
    """Of a fall in the old window after training, that the text brought it: the longer window cannot. Nothing where a control tells how much."""
    fell = change is not None and change.value < 1 and not change.high >= 1
    if group is None or not fell or not seeds[0].steps:
        return ""
    runs = training.trainings(clean)
    if any(damage.above_control(group, seed, runs) for seed in seeds if seed in group.variants()):
        return ""
    return ": what training on such text brings, not the longer window"


def _elsewhere(clean: Clean, group: comparable.Group) -> str:
    """Of what text alone the base was measured in its own window, where it was not of this one."""
    others = [each for each in comparable.groups(clean) if each.lineage == group.lineage and each.base_row()]
    if group.base_row() or not others:
        return ""
    names = [each.title if each.data == group.data else comparable.short_data(each.data) for each in others]
    return f" of {comparable.short_data(group.data)} (it was of {', '.join(dict.fromkeys(names))}, which tells nothing of this text)"


def _short_by_ruler(clean: Clean, seeds: Sequence[Variant]) -> str:
    """What became of the short window by the mean score of long-context tasks there, where no perplexity tells; with the base's, where it was asked the same tasks."""
    broadest = _effective_lengths(clean)
    rows = [broadest[seed] for seed in seeds if seed in broadest and broadest[seed].short <= seed.original_window]
    if not rows:
        return ""
    first, bases = rows[0], [v for v in broadest if v.role == "base" and not v.steps and v.lineage == seeds[0].lineage]
    after = over_seeds([score for row in rows if (score := _score(row, first))])
    before = next((score for base in bases if (score := _score(broadest[base], first))), None)
    where = f"; the short window is known by {first.measure}: at {first.short} tokens its mean score"
    if before is None:
        bounds = number_format.interval(*after[1:], _hundredths)
        return f"{where} is {_hundredths(after[0])} (95\u202f% interval {bounds}), and its base was not asked the same"
    change, low, high = asked_apart(before, after)
    bounds = number_format.interval(low, high, number_format.points)
    return f"{where} went {_hundredths(before[0])}\u00a0→\u00a0{_hundredths(after[0])}, {number_format.points(change)} points (95\u202f% interval {bounds})"


def _effective_lengths(clean: Clean) -> dict[Variant, EffectiveLength]:
    """Of each variant the measurement of the most tasks: a single one beside it decides nothing. The newest of several such."""
    ordered = sorted(clean.of(EffectiveLength), key=lambda m: (len(m.row.tasks), m.run.started))
    return {m.model_variant: m.row for m in ordered}


def _asked_besides(clean: Clean, seeds: Sequence[Variant]) -> str:
    """Scores of the long-context tasks from which no length follows, such as a needle of one's own, at the longest length that each was asked at."""
    counted = {variant: row.tasks for variant, row in _effective_lengths(clean).items()}
    rows: dict[tuple[Variant, str], LongTask] = {}
    for m in sorted(clean.of(LongTask), key=lambda m: (m.row.window, m.run.started)):
        if m.model_variant in seeds and m.row.task not in counted.get(m.model_variant, ()):
            rows[m.model_variant, m.row.task] = m.row
    told = [
        f"{row.task} {_hundredths(row.score)} of 100 at {row.window} tokens ({row.items} items, "
        f"95\u202f% interval {number_format.interval(row.low, row.high, _hundredths)})"
        for row in rows.values()
    ]
    return f" Asked besides: {joined(told)}." if told else ""


def _score(row: EffectiveLength, like: EffectiveLength) -> Bounded | None:
    """The mean with its interval at the short window of another row, of the same tasks."""
    at = [(each["score"], each["low"], each["high"]) for each in row.by_window if each["window"] == like.short]
    return at[0] if at and row.tasks == like.tasks else None


def _hundredths(value: float) -> str:
    """As RULER scores, from 0 to 100."""
    return number_format.fixed(100 * value, 1)


def _by_retrieval(clean: Clean, seeds: Sequence[Variant], window: int) -> Iterator[str]:
    reached = [reach for seed in seeds if (reach := methods.k_max(clean, seed, window))]
    value, *ends = methods.over_seeds_of("k_max", window, reached) if reached else (0, 0, window)
    if ends != [0, window]:  # an interval of everything says nothing
        around = spread([reach[0] for reach in reached], number_format.count, len(seeds))
        mean = "a mean of " if len({reach[0] for reach in reached}) > 1 else ""
        yield f"to {f'{mean}{value:.0f}' if value else 'no distance'} by k_max ({'; '.join(filter(None, [interval(*ends), around]))})"
    for seed in seeds:  # what a seed lies between is a length that was asked, and no mean of such
        if row := _effective_lengths(clean).get(seed):
            of_seed = f" (seed {seed.recipe.seed})" if len(seeds) > 1 else ""
            yield f"{row.holds}{of_seed}"


def _useless(before: Perplexity | None, rows: Seeds, window: int) -> list[str]:
    """That it holds nowhere by perplexity: where it is surely more than twice the base's in its own window, a flat curve is no good one."""
    windows = [w for w in sorted(set().union(*rows)) if before and before.window <= w <= window]
    each = {w: over([ratio(before, at[w]) if before and w in at else None for at in rows]) for w in windows}
    if not before or not each or any(change is None or not change.low > _USELESS for change in each.values()):
        return []
    worst = max(change.value for change in each.values() if change)
    return [f"to no window by perplexity (up to {number_format.times(worst)} the base's at {before.window})"]


def _by_perplexity(rows: Seeds, short: int, window: int) -> Iterator[str]:
    windows = [
        w
        for w in sorted(set().union(*rows))
        if short < w <= window
        and any(short in at and w in at for at in rows)
        and not any(at[w].unfilled for at in rows if w in at)
    ]
    ratios = {w: over([ratio(at[short], at[w]) if short in at and w in at else None for at in rows]) for w in windows}
    if any(each is not None and number_format.is_finite(each.low) for each in ratios.values()):
        held = list(itertools.takewhile(lambda each: each[1] is not None and each[1].low <= 1, ratios.items()))
        last, change = held[-1] if held else (short, None)
        if held and next(at[short] for at in rows if short in at).caveat:
            yield f"to {short} by perplexity (of longer windows the stride does not tell)"
            return
        beyond, rise = next(iter(ratios.items()))
        risen = f"from {short} to {beyond}: {rise.brief}" if rise else f"beyond {short} it rises"
        yield f"to {last} by perplexity ({f'from {short}: {change.brief}' if change else risen})"


def interval(low: float, high: float) -> str:
    return f"95\u202f% interval {number_format.interval(low, high, number_format.count)}"


def moved(before: Perplexity, inside: Sequence[Perplexity]) -> str:
    """From the base's to the mean of these seeds."""
    after, _, _ = perplexity_over_seeds([(row.perplexity, *row.bounds) for row in inside])
    return f"{number_format.perplexity(before.perplexity)}\u00a0→\u00a0{number_format.perplexity(after)}"
