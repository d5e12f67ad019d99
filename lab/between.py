"""Methods held against each other where only the method differs: one learning rate, the same tokens, seed and documents.

in   rows of one model and factor
out  sentences
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from rows import FINDS, Row, base_of, chosen_rates, rows_in
from tables import bounded, budget, digits_of, grouped, nats, order

from ropewalk.evals.intervals import documents_interval
from ropewalk.records import Passkey
from ropewalk.records.choice import settled
from ropewalk.records.format import fixed, share
from ropewalk.records.retrieval import KEY_DIGITS
from ropewalk.reports.paired import Bounded, Ratio, asked_apart, ratio
from ropewalk.rope.scaling import EXTENDING, Linear, Yarn
from ropewalk.sentences import counted, joined
from ropewalk.settings.ablate import AblateSettings


def at_one_rate(directory: Path) -> str:
    """The method that `auto` takes beside the others at a rate that is not its best, where it was measured in full at that too; empty where it was not."""
    rows, best = rows_in(directory), chosen_rates(directory)
    base, trained = base_of(rows), [row for row in rows if row.asked["tokens"] and row.asked["method"] in EXTENDING]
    whole = [row for row in trained if row.perplexities]
    mine = next((row for row in whole if _is_auto(row, best)), None)
    others = sorted((row for row in whole if mine and _alike(row, mine)), key=order)
    finding = [row for row in others if _share(row) > FINDS]
    if base is None or mine is None or not finding:
        return ""
    asked, rest = mine.asked, [row for row in others if row not in finding]
    fewer = joined(f"{row.method} ({fixed(row.damage(base).nats[0], 3)} nats, {share(_share(row))})" for row in rest)
    cheaper = ", and some of these lose less" * any(row.damage(base).value < mine.damage(base).value for row in rest)
    at_best = {row.asked["method"]: row.validation for row in trained if _rate(row) == best[row.asked["method"]]}
    higher = joined(f"{fixed(at_best[row.asked['method']] - at_best[Yarn.method], 3)} higher for {row.method}" for row in finding)  # fmt: skip
    return (
        f"**At one rate.** The table has {mine.method} at its best, {best[Yarn.method]:g}, and the others of `extend` at {_rate(mine):g}; at that one, after {budget(asked['tokens'])} tokens (seed {asked['seed']}), those that find more than half of the passkeys at {mine.new_window} are {_figures(mine, base)}; "
        f"{'; '.join(f'{_figures(row, base)}, beside which {mine.method} reads {_beside(mine, row)}' for row in finding)}."
        + f" {fewer} find fewer{cheaper}." * bool(rest)
        + f" Each at the best rate that was tried of it, the mean validation loss is {higher} than for {mine.method} (one seed, without an interval)."
    )


def _rate(row: Row) -> float:
    return row.asked["learning_rate"]


def _is_auto(row: Row, best: dict[str, float]) -> bool:
    """Whether it is of what `auto` takes, at another rate than its best."""
    return row.asked["method"] == Yarn.method and Yarn.method in best and _rate(row) != best[Yarn.method]


def _alike(row: Row, mine: Row) -> bool:
    return row is not mine and all(row.asked[name] == mine.asked[name] for name in ("tokens", "learning_rate", "seed"))


def _share(row: Row) -> float:
    return row.passkeys[row.new_window].accuracy


def _figures(row: Row, base: Row) -> str:
    keys = row.passkeys[row.new_window]
    return f"{row.method}, {nats(row.damage(base))} nats of damage and {keys.found} of {keys.prompts} passkeys"


def _beside(mine: Row, row: Row) -> str:
    """Its loss less another's, paired, in both windows."""
    below = {window: ratio(row.perplexities[window], mine.perplexities[window]) for window in (mine.window, mine.new_window)}  # fmt: skip
    return joined(f"{nats(found)} at {window}" for window, found in below.items())


def without_choice(rows: Sequence[Row], other: Row | None) -> str:
    """Of the rows of a model of which no rate was chosen: what was tried, how the methods lie in the new window, and what its base says of them.

    other: the base of another model, beside which this one breaks or does not.
    """
    base = base_of(rows)
    trained = sorted((row for row in rows if row.asked["tokens"]), key=order)
    if base is None or not trained:
        return ""
    of_auto = _of_auto(rows, base)
    return " ".join([_tried(trained), *_in_the_new_window(trained), *([of_auto] if of_auto else []), _of_the_base(base), *_keys_inside(trained), _how_it_breaks(base, other)])  # fmt: skip


def _tried(trained: Sequence[Row]) -> str:
    """How many rates and seeds."""
    rates, seeds = sorted({*map(_rate, trained)}), {row.asked["seed"] for row in trained}
    usual = ", the default of `ropewalk ablate`" * (tuple(rates) == tuple(AblateSettings.learning_rates))
    one = len(rates) == 1
    return (
        f"{'No learning rate was chosen here: all have' if one else 'Of each method no best rate was chosen; tried were'} {joined(f'{rate:g}' for rate in rates)}{usual}, of {counted(len(seeds), 'seed')}. "
        "A method that does best at another rate is at a disadvantage."
    )


def _in_the_new_window(trained: Sequence[Row]) -> Iterable[str]:
    """Of each budget the other methods beside the one that reads best there."""
    for rows in grouped(trained, lambda row: row.asked["tokens"]):
        new = rows[0].new_window
        best, *others = sorted(rows, key=lambda row: row.perplexities[new].perplexity)
        above = joined(f"{row.method} {nats(ratio(best.perplexities[new], row.perplexities[new]))}" for row in others)
        yield f"After {budget(best.asked['tokens'])} tokens {best.method} reads best at {new}; above it, paired, lie {above} nats."


def _of_auto(rows: Sequence[Row], base: Row) -> str:
    """Where `auto` takes interpolation for this model, by how much YaRN lies above it; empty where it does not."""
    model = next(iter(base.records.runs.values())).model
    if settled("auto", {}, model, rows[-1].new_window) != Linear.method:
        return ""
    found = {(row.asked["method"], row.asked["tokens"]): row for row in rows}
    pairs = [(tokens, found[Linear.method, tokens], found[Yarn.method, tokens]) for tokens in sorted({row.asked["tokens"] for row in rows})]  # fmt: skip
    each = joined(
        f"{_beside(yarn, linear)} {f'after {budget(tokens)} tokens' if tokens else 'untrained'}"
        for tokens, linear, yarn in pairs
    )
    return f"So `--method auto` takes PI for this very model: YaRN lies above it, paired, by {each} (nats)."


def _of_the_base(base: Row) -> str:
    """What it finds itself, and whether few keys are then lost ones."""
    inside = base.passkeys[base.window]
    told = f"The base finds {bounded(share(inside.accuracy), inside.low, inside.high, share)} of {inside.prompts} passkeys{digits_of(base, base.window)} in its own window"
    lost = inside.prompts - inside.found
    told += (
        f": each of the {lost} keys that it does not find lacks one digit of five, so that few keys found here do not say that keys are not read"
        * (lost > 0 and _lacks_one(base, base.window))
    )
    return f"{told}."


def _keys_inside(trained: Sequence[Row]) -> Iterable[str]:
    """Of each budget the keys and digits of the methods in the old window, and which of them can be told apart."""
    for rows in grouped(trained, lambda row: row.asked["tokens"]):
        old = rows[0].window
        keys = {row.method: (found.accuracy, found.low, found.high) for row in rows for found in [row.passkeys[old]]}
        right = {row.method: row.digits[old] for row in rows if old in row.digits}
        told = joined(f"{method} {bounded(share(value), *ends, share)}" for method, (value, *ends) in keys.items())
        yield f"After {budget(rows[0].asked['tokens'])} tokens the keys found there are {told}; {_apart(keys, lambda one, other, of=keys: asked_apart(of[other], of[one]))}."
        if right:
            told = joined(f"{method} {bounded(share(value), *ends, share)}" for method, (value, *ends) in right.items())
            same = "the same evidence once more, since each key that is not found lacks one digit of five; " * all(_lacks_one(row, old) for row in rows)  # fmt: skip
            scores = {row.method: _scores(row, old) for row in rows if old in row.digits}
            yield f"Their digits are {told}: {same}paired by depth, {_apart(scores, lambda one, other, of=scores: _above(of[one], of[other]))}."


def _lacks_one(row: Row, window: int) -> bool:
    """Whether each key that it does not find there lacks one digit alone, so that digits say what keys do. One lacks one at least."""
    keys = row.passkeys[window]
    return window in row.digits and round((1 - row.digits[window][0]) * KEY_DIGITS * keys.prompts) == keys.prompts - keys.found  # fmt: skip


def _scores(row: Row, window: int) -> dict[int, float]:
    """Of each depth of the window the share of digits right."""
    depths = (m.row for m in row.records.of(Passkey) if m.row.window == window)
    return {each.k: each.digits_right / (KEY_DIGITS * each.trials) for each in depths}


def _above(mine: Mapping[int, float], other: Mapping[int, float]) -> Bounded:
    """By how much one's digits are above another's, of the same keys at each depth; the intervals of both would hide a difference, as they are of each alone and of fractions wider than need be."""
    changes = np.array([mine[k] - other[k] for k in mine if k in other])
    return float(changes.mean()), *documents_interval(changes, np.ones(changes.size))


def _apart(methods: Collection[str], above: Callable[[str, str], Bounded]) -> str:
    """Which of them the interval of their difference tells apart. above: by how much the first of two has more."""
    more = {one: [other for other in methods if other != one and above(one, other)[1] > 0] for one in methods}
    told = [f"{one} more than {joined(others)}" for one, others in more.items() if others]
    return f"beyond chance {joined(told)}" if told else "no two of these can be told apart"


def _how_it_breaks(base: Row, other: Row | None) -> str:
    """Whether it breaks beyond its window, and whether another does."""
    broken = [f"{nats(_beyond(row))} nats above its own at {row.window}" for row in (base, other) if row]
    beside = f", where {other.name} at {other.new_window} reads {broken[1]}" if other else ""
    return f"At {base.new_window} the base reads {broken[0]}{beside}: how much a model breaks beyond its window is not the same for all."


def _beyond(base: Row) -> Ratio:
    return ratio(base.perplexities[base.window], base.perplexities[base.new_window])
