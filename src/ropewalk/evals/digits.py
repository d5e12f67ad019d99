"""The digits of the keys of a passkey test, beside the keys: one with a single wrong digit is not found, and may have been read all the same.

in   the test's summary and its depths
out  the share of digits that were right, with its 95 % interval
"""

from __future__ import annotations

from collections.abc import Iterable

from ropewalk.evals.intervals import share_interval
from ropewalk.records import Passkey, PasskeySummary
from ropewalk.records.retrieval import KEY_DIGITS


def digits(row: PasskeySummary, depths: Iterable[Passkey]) -> tuple[float, float, float] | None:
    """The share of digits right, and its interval; None where tokens of the key are not its digits, or these are not on record.

    The digits of a prompt depend on each other, so a prompt is one trial with a score from 0 to 1, and the interval wider than need be: two shares are not held
    against each other by it. Which digit was wrong is on no record.

    Args:
        depths: of this test; of other windows they are passed over, and one that stands twice, of a run that went on, counts once.
    """
    own = {each.k: each for each in depths if each.window == row.window}.values()
    keys, prompts = sum(each.digits_right for each in own) / KEY_DIGITS, sum(each.trials for each in own)
    return (keys / prompts, *share_interval(keys, prompts)) if row.key_tokens == KEY_DIGITS and prompts else None
