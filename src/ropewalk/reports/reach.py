"""How far a model holds, by retrieval and by perplexity, and what became of its short window: a sentence of the verdict."""

from __future__ import annotations

import dataclasses
import itertools
import shlex
from collections.abc import Iterator, Sequence

from ropewalk.checkpoint.model_card import not_measured
from ropewalk.records import LongTask, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.recipe import of_no_machine, place
from ropewalk.records.variant import Variant
from ropewalk.reports import comparable, contenders, long_context, passkey, retrieval, short_window, training
from ropewalk.reports.paired import over, ratio
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
    first, last, asked = short, window, window
    if not target.extended:  # in its own window, beyond which it may have been measured
        measured = set().union(*rows) or {window}
        first, last, asked = min(measured), max(measured), max(passkey.summaries(clean).get(target, {window: None}))
    parts = [*_by_retrieval(clean, seeds, asked)]
    is_worse = any(training.worse(seed, training.trainings(clean)) for seed in seeds)
    if not is_worse:
        parts += _useless(before, rows, last) or _by_perplexity(rows, first, last)
    since = any(training.is_like(target, run) for run in training.unmeasured(clean))
    done = "Trained" if target.steps else "Before its training, extended" if since else "Extended, not trained,"
    chunk = target.recipe.chunk(short) if target.steps else None
    far = f"in chunks of {chunk} tokens at positions up to {window}" if chunk else f"to {window} tokens"
    holds = "" if is_worse and not parts else f"{',' if parts else ';'} {_holds(clean, seeds, window, parts)}"
    return f"{done} {far}{holds}{short_window.sentence_end(clean, near, seeds)}.{_asked_besides(clean, seeds)}"


def of_base(clean: Clean, base: Variant) -> str:
    """Of a model that nobody extended here: its window, and how far it holds by each measure; by perplexity from the shortest window measured."""
    group = next((g for g in comparable.groups(clean) if base in g.variants()), None)
    rows = group.variants()[base] if group else {}
    window = max(passkey.summaries(clean).get(base, {base.window: None}))
    by_perplexity = _by_perplexity([rows], min(rows), max(rows)) if rows else ()
    parts = [*_by_retrieval(clean, [base], window), *by_perplexity]
    return f"As it was published: window {base.window} tokens; {_holds(clean, [base], window, parts)}.{_asked_besides(clean, [base])}"


def of_unmeasured(run: training.Training) -> str:
    """Of a training of which no model was measured: to what window, and what would tell the rest. As its model card has it."""
    variant, out = run.variant, run.run.settings.get("out")
    info = dataclasses.replace(run.run.model, window=variant.window, steps=run.model_step)
    model = shlex.quote(of_no_machine(place(str(out)))) if out else "MODEL"
    return not_measured(info, variant.recipe.chunk(variant.original_window), model=model)


def _holds(clean: Clean, seeds: Sequence[Variant], window: int, parts: Sequence[str]) -> str:
    """To what it holds, by each of the parts; window: of its passkeys."""
    if parts:
        return f"it holds {joined(parts)}"
    asked = ["these passkeys do not"] * any(contenders.k_max(clean, seed, window) for seed in seeds)
    asked += ["harder retrieval at one length does not"] * bool(retrieval.windows(clean, seeds))
    return f"how far it holds, {' tell, and '.join(asked)} tell" if asked else "how far it holds was not measured"


def _asked_besides(clean: Clean, seeds: Sequence[Variant]) -> str:
    """Scores of the long-context tasks from which no length follows, such as a needle of one's own, at each length at which they were asked, in order."""
    counted = {variant: row.tasks for variant, row in long_context.broadest(clean).items()}
    rows: dict[tuple[Variant, str], dict[int, LongTask]] = {}
    for m in sorted(clean.of(LongTask), key=lambda m: (m.row.window, m.run.started)):
        if m.model_variant in seeds and m.row.task not in counted.get(m.model_variant, ()):
            rows.setdefault((m.model_variant, m.row.task), {})[m.row.window] = m.row
    told = [
        f"{task} {joined([_of_100(row, ' of 100' * (number == 0)) for number, row in enumerate(by_window.values())])}"
        for (_, task), by_window in rows.items()
    ]
    return f" Asked besides: {'; '.join(told)}." if told else ""


def _of_100(row: LongTask, of: str) -> str:
    interval = number_format.interval(row.low, row.high, _hundredths)
    return f"{_hundredths(row.score)}{of} at {row.window} tokens ({row.items} items, 95\u202f% interval {interval})"


def _hundredths(value: float) -> str:
    """As RULER scores, from 0 to 100."""
    return number_format.fixed(100 * value, 1)


def _by_retrieval(clean: Clean, seeds: Sequence[Variant], window: int) -> Iterator[str]:
    reached = [reach for seed in seeds if (reach := contenders.k_max(clean, seed, window))]
    value, *ends = contenders.over_seeds_of("k_max", window, reached) if reached else (0, 0, window)
    if ends != [0, window]:  # an interval of everything says nothing
        around = spread([reach[0] for reach in reached], number_format.count, len(seeds))
        mean = "a mean of " if len({reach[0] for reach in reached}) > 1 else ""
        yield f"to {f'{mean}{value:.0f}' if value else 'no distance'} by k_max ({'; '.join(filter(None, [interval(*ends), around]))})"
    for seed in seeds:  # what a seed lies between is a length that was asked, and no mean of such
        if row := long_context.broadest(clean).get(seed):
            of_seed = f" (seed {seed.recipe.seed})" if len(seeds) > 1 else ""
            yield f"{row.holds}{of_seed}"
    if held := retrieval.holds(clean, seeds):
        yield held


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
