"""How sure k_max is, from passkeys found and missed by depth; and how many prompts it takes for that to say anything.

in   successes and trials by depth
out  a 95 % interval of the reach, and the fewest trials a depth of which it leaves something out

`scipy` is imported where it is needed, since the page and `--help` import this module too (evals/intervals.py).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from ropewalk.records import PasskeySummary, paper
from ropewalk.sentences import counted


def reach_interval(
    distances: Sequence[int], successes: Sequence[int], trials: Sequence[int], *, threshold: float
) -> tuple[int, int]:
    """A 95 % interval of how far successes reach without a gap: of k_max, in the unit of `distances` (ascending).

    All that is assumed is that trials are independent: success may break off, fade slowly or come back. A reach is in the
    interval if neither of two tests rejects it, each at 2.5 %. *The reach is no farther* is rejected if the next depth's chance
    is above the threshold (exact binomial test, as Clopper and Pearson's interval of that depth has it: 2 of 2 say nothing against 20 %). *It is as far* is rejected if some run of neighbouring depths within it
    has fewer successes than chances at the threshold would leave (`_scan`; the critical value is simulated at the threshold, where the
    scan is most likely to reject wrongly). From 0 to the last distance is an interval that says nothing.
    """
    from scipy.special import bdtr

    right, tried = np.asarray(successes), np.asarray(trials)
    too_far = _scan(right[None], tried, threshold)[0] < _critical(tuple(trials), threshold)
    tail = 1 - bdtr(right - 1, tried, threshold)  # P(as many, or more)
    possible = ~np.append(False, too_far) & ~np.append(tail <= 0.025, False)
    ends = np.array([0, *distances])[possible]
    return int(ends[0]), int(ends[-1])


@functools.lru_cache(maxsize=64)
def enough_trials(depths: int, threshold: float = paper.PASSKEY_THRESHOLD) -> int:
    """The fewest trials a depth of which `reach_interval` leaves something out both where all are right and where all are wrong.

    Three of three right have a chance of 0.8 % at a threshold of 20 %, two of two one of 4 %; that all are wrong is as unlikely only of many prompts:
    of few depths it takes more trials.
    """
    distances = range(1, depths + 1)

    def tells(trials: int, right: int) -> bool:
        return reach_interval(distances, [right] * depths, [trials] * depths, threshold=threshold) != (0, depths)

    return next(trials for trials in itertools.count(1) if tells(trials, trials) and tells(trials, 0))


def few_trials(depths: int, trials: int) -> str:
    """What so few prompts leave open whatever the answers; nothing where there are enough."""
    if trials >= (enough := enough_trials(depths)):
        return ""
    return f"with {counted(trials, 'prompt')} a depth every k_max stays possible; {counted(depths, 'depth')} take {enough} each at least (--trials {enough})"


def leaves_open(row: PasskeySummary) -> str:
    """What is said of passkeys that leave every k_max possible."""
    if few := few_trials(row.depths, row.trials):
        return few
    return f"answers so mixed leave every k_max possible; more than {counted(row.trials, 'prompt')} a depth can tell (--trials)"


@functools.lru_cache(maxsize=64)
def _critical(trials: tuple[int, ...], threshold: float) -> Float[np.ndarray, " depths"]:
    """The 2.5 % quantile of `_scan` at the threshold, for each depth."""
    draws = max(400, min(4000, 2**20 // len(trials)))
    right = np.random.default_rng(0).binomial(trials, threshold, size=(draws, len(trials)))
    return np.quantile(_scan(right, np.asarray(trials), threshold), 0.025, axis=0, method="lower")


def _scan(
    right: Integer[np.ndarray, "draws depths"], tried: Integer[np.ndarray, " depths"], chance: float
) -> Float[np.ndarray, "draws depths"]:
    """For each depth the smallest P(as few successes | `chance`) of any run of neighbouring depths up to it.

    Runs of 1, 2, 3, 4, 6, 8, 12, … depths are tried: all lengths would find hardly more, and take long where there are many depths.

    Args:
        right: successes.
        tried: trials.
        chance: of one trial.
    """
    from scipy.special import bdtr

    right_so_far, tried_so_far = (np.insert(counts.cumsum(-1), 0, 0, axis=-1) for counts in (right, tried))
    smallest = np.ones(right.shape)
    lengths = {part * 2**power // 2 for power in range(tried.size.bit_length() + 1) for part in (2, 3)}
    for length in sorted(length for length in lengths if length <= tried.size):
        counts, which = np.unique(tried_so_far[length:] - tried_so_far[:-length], return_inverse=True)
        table = bdtr(np.arange(counts.max() + 1), counts[:, None], chance)  # NaN above a run's own trials, never read
        tails = table[which, right_so_far[:, length:] - right_so_far[:, :-length]]
        smallest[:, length - 1 :] = np.minimum(smallest[:, length - 1 :], tails)
    return np.minimum.accumulate(smallest, axis=1)
