"""What docs/method.md, section 7, says of hemp's scores before any training, on one module of this machine's standard library.

The text differs with the Python version, so bounds are wide: what is tested is what the section concludes, not its digits.
"""

from __future__ import annotations

import pytest

from ropewalk.data.stdlib import standard_library
from ropewalk.evals.attention import attention
from ropewalk.records.attention_summary import Gist, gist


@pytest.fixture(scope="module")
def states() -> dict[str, Gist]:
    """Base inside its window, base beyond it, PI before training."""
    measured = attention("hemp", data=list(standard_library("held_out"))[:6], window=1024)
    base = measured[0].rows
    return {name: gist(one.rows, 256, base) for name, one in zip(("base", "beyond", "pi"), measured, strict=True)}


def test_beyond_its_window_most_heads_score_above_all_that_they_did_inside(states):
    assert states["beyond"].out_of_range > 0.5
    assert states["beyond"].worst > 2
    assert states["beyond"].beyond > 1.5 * states["base"].inside
    # Far keys, which inside the window scored next to nothing in the median head.
    assert states["beyond"].typical_beyond > 3 * states["base"].typical_inside


def test_interpolated_every_head_stays_in_range_before_any_training(states):
    assert states["pi"].out_of_range <= 1 / 16
    assert states["pi"].beyond < states["base"].inside
    assert states["pi"].typical_beyond < states["beyond"].typical_beyond / 2


def test_interpolation_costs_resolution_by_about_the_factor_and_the_token_before(states):
    assert 2.5 < states["base"].resolution / states["pi"].resolution < 4.5
    assert states["pi"].previous < states["base"].previous / 2
    assert states["beyond"].resolution == pytest.approx(states["base"].resolution, rel=1e-3)


def test_no_head_breaks_the_theorem_even_as_printed_and_the_extrapolation_bound_is_far_off(states):
    for found in states.values():
        assert found.of_corrected < found.of_printed < 1
        assert found.of_trivial < 1
        assert found.slack > 10
