"""The digits of keys: by hand, and of rows that others measured."""

from pathlib import Path

import pytest
from scipy.stats import binomtest

from ropewalk.evals.digits import digits
from ropewalk.records import Passkey, PasskeySummary, read

GEMMA = Path(__file__).resolve().parents[2] / "lab/records/e/gemma-3-270m"


def summary(key_tokens: int) -> PasskeySummary:
    return PasskeySummary(600, 0, 2, 5, 0.0, key_tokens=key_tokens)


def test_digits_are_a_share_of_five_a_prompt_with_the_exact_interval_over_prompts():
    """Ten prompts, 20 + 15 digits right of 50, as seven prompts of ten would have; another window's do not count, and a depth that stands twice counts once."""
    depths = [Passkey(600, 300, 5, 0, 20), Passkey(600, 600, 5, 1, 15), Passkey(300, 300, 5, 5, 25)]
    value, *ends = digits(summary(5), [*depths, depths[0]])
    assert value == pytest.approx(35 / 50)
    assert ends == pytest.approx([*binomtest(7, 10).proportion_ci(method="exact")])


@pytest.mark.parametrize("key_tokens", [0, 2])
def test_tokens_that_are_no_digits_or_are_not_on_record_have_no_share_of_digits(key_tokens):
    assert digits(summary(key_tokens), [Passkey(600, 300, 5, 0, 2), Passkey(600, 600, 5, 0, 2)]) is None


def test_of_every_key_that_gemma_fails_in_its_own_window_four_digits_are_right():
    """So 10 of 40 keys, and 170 of 200 digits."""
    rows = read([GEMMA / "none.jsonl"])
    (found,) = (m.row for m in rows.of(PasskeySummary) if m.row.window == 32768)
    assert found.found == 10 and digits(found, [m.row for m in rows.of(Passkey)])[0] == pytest.approx(170 / 200)
