"""The tables of docs/results.md: Markdown from rows of the lab.

in   `Row`s, or the directory of a grid
out  text; a figure with its 95 % interval in brackets
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from rows import Row, at_chosen_rate, base_of, chosen_rates, control_of, rows_in

from ropewalk.evals.intervals import over_seeds, perplexity_over_seeds, share_interval
from ropewalk.records import format as number_format
from ropewalk.records.format import fixed, interval, share
from ropewalk.reports.paired import Bounded, Ratio
from ropewalk.rope.scaling import SCALINGS
from ropewalk.sentences import joined


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Columns in which nothing stands are left out."""
    columns = [column for column in zip(heads, ["---"] * len(heads), *lines, strict=True) if any(column[2:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in zip(*columns, strict=True))


def budget(number: int) -> str:
    return f"{number / 2**20:g} M" if number >= 2**20 else f"{number / 2**10:g} k" if number else "none"


def nats(*seeds: Ratio | None) -> str:
    """Ratios of perplexities as a difference of losses: their mean over seeds, with its interval for other documents and other seeds."""
    known = [ratio.nats for ratio in seeds if ratio]
    if not known:
        return ""
    value, low, high = over_seeds(known)
    return bounded(fixed(value, 3), low, high, lambda bound: fixed(bound, 3))


def bounded(figure: str, low: float, high: float, write: Callable[[Any], str]) -> str:
    bounds = interval(low, high, write)
    return f"{figure} ({bounds})" if bounds else figure


def shares(found: tuple[int, int] | None) -> str:
    return bounded(share(found[0] / found[1]), *share_interval(*found), share) if found else ""


def keys_found(seeds: Sequence[Row], window: int) -> str:
    """The share of passkeys, in the mean over seeds, and that of their digits."""
    keys = [each for row in seeds if (each := row.passkeys.get(window))]
    right = [row.digits[window][0] for row in seeds if window in row.digits]
    of_keys = _mean([(each.accuracy, each.low, each.high) for each in keys], 1, share)
    return f"{of_keys}, digits {share(fmean(right))}" if right else of_keys


def digits_of(row: Row, window: int) -> str:
    """Behind the passkeys found there, how many of their digits, with their interval."""
    if window not in row.digits:
        return ""
    right, *ends = row.digits[window]
    return f" and {bounded(share(right), *ends, share)} of their digits"


def _reach(seeds: Sequence[Row], window: int) -> str:
    """k_max, in the mean over seeds."""
    keys = [found for row in seeds if (found := row.passkeys.get(window))]
    return _mean([(each.k_max, each.k_low, each.k_high) for each in keys], window, lambda value: f"{value:.0f}")


def _retrieved(seeds: Sequence[Row], window: int) -> str:
    """The share of right answers, in the mean over seeds."""
    known = [found for row in seeds if (found := row.retrieval.get(window))]
    return _mean([(right / tried, *share_interval(right, tried)) for right, tried in known], 1, share)


def order(row: Row) -> tuple:
    words = ("none", "control", "direct", *SCALINGS, "p-rope", "cope")
    return row.asked["tokens"], words.index(row.asked["method"]), row.asked["factor"], row.asked["seed"]


def method_map(model: str, rows: Iterable[Row], rates: dict[str, float]) -> str:
    """A line a method and budget, at its chosen rate, of seeds the mean."""
    shown = at_chosen_rate(rows, rates)
    base = base_of(shown)
    if base is None:
        return ""
    windows = sorted(base.perplexities)
    old, new = base.window, base.new_window
    heads = [
        "training tokens",
        "method",
        "seeds",
        *(f"perplexity {window}" for window in windows),
        f"damage at {old}, nats",
        f"gain at {new}, nats",
    ]
    heads += [f"passkey, k_max at {window}" for window in (old, new)] + [f"retrieval {window}" for window in (old, new)]
    heads += ["rate", "seconds"]
    lines = []
    for seeds in grouped(sorted(shown, key=order), lambda row: (row.method, row.asked["factor"], row.asked["tokens"])):
        tokens = seeds[0].asked["tokens"]
        gains = [(gain.gain, gain.low, gain.high) for row in seeds if (gain := row.gain)]
        lines.append([
            budget(tokens), seeds[0].method, str(len(seeds)) if len(seeds) > 1 else "",
            *(_perplexity(seeds, window).partition(" ")[0] for window in windows),
            nats(*(row.damage(base) for row in seeds if row is not base)),
            _bounded_mean(gains, over_seeds, lambda value: fixed(value, 3)),
            *(", ".join(filter(None, [keys_found(seeds, window), _reach(seeds, window)])) for window in (old, new)),
            *(_retrieved(seeds, window) for window in (old, new)),
            _rate(seeds[0], rates),
            _taken(seeds) if tokens else "",
        ])  # fmt: skip
    first = base.perplexities[old]
    machines = joined(sorted({row.device() for row in shown}))
    about = (
        f"{model}, {old} → {new} tokens. {first.documents} documents of {base.asked['test']}, cut to {base.asked['test_tokens']} tokens; stride half a "
        f"window, so that perplexities of two windows and the gain tell of context beyond {old // 2}, not beyond {old}. The base at {old}: {bounded(number_format.perplexity(first.perplexity), first.low, first.high, number_format.perplexity)}. Machine: {machines}."
    )
    return f"{about}\n\n{table(heads, lines)}"


def _rate(row: Row, rates: dict[str, float]) -> str:
    """Its learning rate, and the chosen one of its method where that is another; empty of what was not trained."""
    rate, best = row.asked["learning_rate"], rates.get(row.asked["method"])
    other = "" if best in (None, rate) else f" (best on validation: {best:g}, not measured in full)"
    return f"{rate:g}{other}" if row.asked["tokens"] else ""


def beside_control(pairs: Sequence[tuple[Row, Row | None]], difference: Callable[[Row, Row], Ratio | None]) -> str:
    """Losses above those of the controls, of (row, control) by seed: of which seeds, where others have no control, and the control's rate, where it is not the row's."""
    known = [(row, control, found) for row, control in pairs if control and (found := difference(control, row))]
    seeds = ", ".join(f"seed {row.asked['seed']}" for row, _, _ in known) if len(known) < len(pairs) else ""
    rates = dict.fromkeys(control_rate(row, control) for row, control, _ in known)
    return ", ".join(filter(None, [nats(*(found for *_, found in known)), seeds, *rates]))


def control_rate(row: Row, control: Row) -> str:
    """The control's learning rate, where it is not the row's."""
    rate = control.asked["learning_rate"]
    return "" if rate == row.asked["learning_rate"] else f"control at {rate:g}"


def grouped(rows: Iterable[Row], key: Callable[[Row], Any]) -> list[list[Row]]:
    groups: dict[Any, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return list(groups.values())


def rates_table(directory: Path) -> str:
    """Validation loss by method and learning rate, and of which methods the best lies at an end of what was tried."""
    rows = [row for row in rows_in(directory) if row.validation is not None and row.asked["seed"] == 0]
    rates, best = sorted({row.asked["learning_rate"] for row in rows}), chosen_rates(directory)
    lines = []
    for group in grouped(sorted(rows, key=order), lambda row: (row.method, row.asked["tokens"])):
        losses = {row.asked["learning_rate"]: fixed(row.validation, 4) for row in group}
        chosen = best.get(group[0].asked["method"])
        cells = [f"**{losses[rate]}**" if rate == chosen and rate in losses else losses.get(rate, "") for rate in rates]
        lines.append([group[0].method, budget(group[0].asked["tokens"]), *cells])
    if len(rates) < 2:
        return ""
    return f"{table(['method', 'training tokens', *(f'{rate:g}' for rate in rates)], lines)}\n\n{_at_ends(rows, best)}".rstrip()


def _at_ends(rows: list[Row], best: dict[str, float]) -> str:
    """Which methods were best at the highest or the lowest rate that was tried of them, in sentences; empty where none was."""
    groups, ends = grouped(rows, lambda row: row.method), []
    for word, end in (("highest", max), ("lowest", min)):
        at_end = [
            group[0].method
            for group in groups
            if best.get(group[0].asked["method"]) == end(row.asked["learning_rate"] for row in group)
        ]
        if at_end:
            ends.append(f"The {word} rate that was tried was the best of {'; '.join(at_end)}.")
    return " ".join([*ends, "Beyond it nothing was tried, so part of what these lack may be the rate."] if ends else [])


def at_other_rates(rows: Iterable[Row], directory: Path) -> str:
    """Of which methods the tables have, of these rows, one at another rate than the best of the directory, and by how much it is worse on validation; empty
    where of none."""
    best, words = chosen_rates(directory), []
    losses = {
        tuple(row.asked[name] for name in ("method", "tokens", "learning_rate")): row.validation
        for row in rows_in(directory)
    }
    for row in sorted(at_chosen_rate(rows, best), key=order):
        method, tokens, rate = (row.asked[name] for name in ("method", "tokens", "learning_rate"))
        least = losses.get((method, tokens, best.get(method)))
        if tokens and rate != best.get(method) and None not in (row.validation, least) and row.validation > least:
            words.append(f"{row.method} {fixed(row.validation - least, 3)}")
    return ", ".join(words)


def factors_table(rows: list[Row], base: Row) -> str:
    """Passkey and loss by factor."""
    prompts, lines = base.asked["prompt_windows"], []
    for row in sorted(rows, key=order):
        own = row.perplexities.get(row.new_window) if row is not base else None
        lines.append([
            budget(row.asked["tokens"]), row.method, f"{row.asked['factor']:g}" if row is not base else "1",
            *(keys_found([row], window) for window in prompts or (row.window, row.new_window)),
            nats(row.damage(base)) if row is not base else "", number_format.perplexity(own.perplexity) if own else "",
        ])  # fmt: skip
    heads = [f"passkey at {window}" for window in prompts or (base.window, "L'")]
    return table(["training tokens", "method", "factor", *heads, "damage, nats", "perplexity at L'"], lines)


def budgets_table(rows: Iterable[Row], methods: set[str], rates: dict[str, float]) -> str:
    """What more tokens buy, of these methods: at the chosen rates, of seeds the mean."""
    rows = at_chosen_rate(rows, rates)
    base = base_of(rows)
    if base is None or not methods:
        return ""
    shown = sorted((row for row in rows if row.method in methods), key=lambda row: (order(row)[1:], order(row)[0]))
    lines = [
        _budget_line(group, base, rows, rates)
        for group in grouped(shown, lambda row: (row.method, row.asked["tokens"]))
    ]
    heads = ["method", "training tokens", "rate", "seeds", f"perplexity {base.window}", f"perplexity {base.new_window}", f"damage at {base.window}, nats"]  # fmt: skip
    heads += [
        "the same above the control",
        f"passkey {base.window}",
        f"passkey {base.new_window}",
        "by seed",
        "k_max",
        f"retrieval {base.new_window}",
        "seconds",
    ]
    return table(heads, lines)


def _budget_line(group: list[Row], base: Row, rows: list[Row], rates: dict[str, float]) -> list[str]:
    """One method at one budget."""
    old, new, first = base.window, base.new_window, group[0].asked
    by_seed = [[found.accuracy for row in group if (found := row.passkeys.get(new))]]
    by_seed += [[row.digits[new][0] for row in group if new in row.digits]]
    keys, right = (", ".join(map(share, each)) if len({*each}) > 1 else "" for each in by_seed)
    controls = [control_of(row, rows) if first["tokens"] and first["method"] != "control" else None for row in group]
    return [
        group[0].method, budget(first["tokens"]), _rate(group[0], rates), str(len(group)),
        *(_perplexity(group, window) for window in (old, new)),
        nats(*(row.damage(base) if row is not base else None for row in group)),
        beside_control(list(zip(group, controls, strict=True)), lambda control, row: row.damage(control)),
        *(keys_found(group, window) for window in (old, new)),
        keys and f"{keys}; digits {right}" if right else keys,
        _reach(group, new),
        _retrieved(group, new),
        seconds(group) if first["tokens"] else "",
    ]  # fmt: skip


def seconds(rows: Sequence[Row]) -> str:
    """GPU seconds of training, of the quickest and the slowest seed, and the cards they are of."""
    return f"{_taken(rows)}, {' and '.join(sorted({row.cards for row in rows}))}"


def _taken(rows: Sequence[Row]) -> str:
    taken = sorted(row.training_seconds for row in rows)
    return " to ".join(dict.fromkeys(f"{end:.0f}" for end in (taken[0], taken[-1])))


def _perplexity(seeds: Sequence[Row], window: int) -> str:
    """In the mean over seeds."""
    known = [(found.perplexity, *found.bounds) for row in seeds if (found := row.perplexities.get(window))]
    return _bounded_mean(known, perplexity_over_seeds, number_format.perplexity)


def _mean(seeds: Sequence[Bounded], most: float, write: Callable[[Any], str]) -> str:
    """The mean over seeds of a figure from 0 to `most`."""

    def clipped(each: Sequence[Bounded]) -> Bounded:
        value, low, high = over_seeds(each)
        return value, max(low, 0.0), min(high, most)

    return _bounded_mean(seeds, clipped, write)


def _bounded_mean(
    seeds: Sequence[Bounded], mean: Callable[[Sequence[Bounded]], Bounded], write: Callable[[Any], str]
) -> str:
    """With its 95 % interval for other documents or prompts and other seeds; empty without any."""
    if not seeds:
        return ""
    value, low, high = mean(seeds)
    return bounded(write(value), low, high, write)
