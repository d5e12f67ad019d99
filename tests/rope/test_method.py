"""docs/method.md, sections 1 to 5: the tables and figures that it quotes, reckoned again from the definitions alone."""

import math
import re
from pathlib import Path

import numpy as np
import pytest

from ropewalk.rope.bounds import abel_sum, bounds, interpolation_bound_printed, sum_of_squares
from ropewalk.rope.growth import features, growth
from ropewalk.rope.resolution import resolution
from ropewalk.rope.rotate import rotate
from ropewalk.rope.scaling import Linear, Llama3, Ntk, Plain, Rope, Yarn

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "method.md").read_text(encoding="utf-8")
LLAMA = Rope(128, 10000.0, 2048)


def table(first: str) -> list[list[str]]:
    """The cells of the table whose heading begins with these words, without heading and rule."""
    start = TEXT.index(f"\n| {first}")
    lines = TEXT[start + 1 :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def digits(cell: str) -> float:
    return float(cell.replace("*", "").replace("×", "").replace("%", "").strip())


def inv_freq(d: int, c: float) -> np.ndarray:
    return np.array([c ** (-2 * j / d) for j in range(d // 2)])


# 1


def test_coordinates_that_do_not_turn_add_a_constant_to_the_score():
    """A head of 16 of which 8 turn: however the key moves, its score differs from that of the turning part by one number."""
    rope, draw = Rope(8), np.random.default_rng(0)
    q, k = draw.standard_normal((2, 1, 16))
    pretrained, places = rope.inv_freq(), np.linspace(0, 100, 41)
    whole = [float(q[0] @ rotate(k, np.array([-s]), pretrained)[0]) for s in places]
    part = [float(q[0, :8] @ rotate(k[:, :8], np.array([-s]), pretrained)[0]) for s in places]
    np.testing.assert_allclose(np.subtract(whole, part), q[0, 8:] @ k[0, 8:], atol=1e-12)
    assert np.ptp(whole) > 1


# 2.3, 2.4


def test_the_table_of_heads_is_what_the_definitions_give():
    rows = table("d, c |")
    assert len(rows) == 6
    for name, *cells in rows:
        d, c = (float(x) for x in name.split(" (")[0].split(","))
        pretrained = inv_freq(int(d), c)
        printed, holds, exact = d / (32 * math.log(c)), np.sum(pretrained**2) / 8, np.sum(1 - np.cos(pretrained / 2))
        assert [digits(cell) for cell in cells] == pytest.approx([printed, holds, exact, exact / printed], abs=5.1e-4)
        assert [digits(cell) for cell in cells[:3]] == pytest.approx([printed, holds, exact], abs=5.1e-5)
        computed = bounds(Rope(int(d), c), 4096)
        assert (computed.interpolation_printed, computed.interpolation) == pytest.approx((printed, holds), rel=1e-9)
        assert computed.interpolation_exact == pytest.approx(exact, rel=1e-9)


def test_what_is_printed_is_13_7_percent_too_small_and_what_holds_1_2_percent_too_large():
    computed = bounds(LLAMA, 32768)
    assert computed.interpolation_exact / computed.interpolation_printed == pytest.approx(1.137, abs=5e-4)
    assert computed.interpolation / computed.interpolation_exact == pytest.approx(1.012, abs=5e-4)
    closed = 128 / (4 * math.log(1e4)) + 1 / 2 + math.log(1e4) / (3 * 128)
    assert (sum_of_squares(inv_freq(128, 1e4)), closed) == pytest.approx((3.9983, 3.9983), abs=5e-5)


def test_how_wide_a_head_must_be_for_the_printed_theorem_to_hold_on_the_shortest_intervals():
    """2 (c^2 - 1) ln c is 455.9 for c = 10, but for a term of order ln c / d in (2.5)."""
    length = 1e-3
    for d, holds in ((2, False), (64, False), (454, False), (460, True)):
        s = np.array([length / 2])
        exact = np.abs(
            np.exp(1j * np.outer(s, inv_freq(d, 10.0))) - (1 + np.exp(1j * length * inv_freq(d, 10.0))) / 2
        ).sum()
        printed = interpolation_bound_printed(Rope(d, 10.0), s, 0, length)[0]
        assert bool(exact <= printed) == holds, d


# 3.2, 3.3


def test_out_to_a_million_tokens_b_is_never_a_quarter_of_d():
    pretrained, least = LLAMA.inv_freq(), math.inf
    for start in range(0, 1 << 20, 1 << 16):
        least = min(least, abel_sum(pretrained, np.arange(start, start + (1 << 16))).min() / 128)
    assert least == pytest.approx(0.5349, abs=5e-5)


def test_heads_of_64_lie_below_one_on_13_percent_of_the_range_that_the_paper_extends_to():
    curve = np.abs(np.cumsum(np.exp(1j * np.outer(np.arange(32768), inv_freq(64, 1e4))), axis=1)).sum(axis=1) / 64
    assert (curve[:4096].argmin(), (curve < 1).mean()) == (3901, pytest.approx(0.131, abs=5e-4))
    computed = bounds(Rope(64, 10000.0, 2048), 32768)
    assert (computed.b_min_plotted_at, computed.b_below_one) == (3901, (curve < 1).mean())


# 4


def test_the_columns_of_figure_2_are_dependent_to_working_precision():
    basis = features(LLAMA.inv_freq(), np.arange(2048))
    assert np.linalg.cond(basis) > 1 / np.finfo(np.float64).eps


def test_numpy_solves_in_float64_what_it_is_given_in_float32():
    basis = features(LLAMA.inv_freq(), np.arange(2048), np.float32).astype(np.float64)
    gram, right = (basis.T @ basis).astype(np.float32), (basis.T @ np.sin(np.arange(2048.0))).astype(np.float32)
    wide = np.linalg.solve(gram.astype(np.float64), right.astype(np.float64))
    np.testing.assert_array_equal(np.linalg.solve(gram, right), wide.astype(np.float32))


def test_the_table_of_solvers_is_what_growth_finds():
    rows = {name: cells for name, *cells in table("solved by")}
    computed = {row.solver: row for row in growth(LLAMA, 4096, seeds=20)}
    # Where rounding does not decide, or is done once, the figures are the same on every machine. Three digits are given.
    for name, solver in (
        ("normal equations, sums rounded to float32 once", "normal equations, float32"),
        ("ridge 1.0, float64", "ridge 1.0, float64"),
    ):
        inside, outside, extremes = rows[name]
        row = computed[solver]
        printed = [digits(inside), digits(outside), *map(digits, extremes.split(","))]
        assert [row.inside, row.outside, row.lowest, row.highest] == pytest.approx(printed, rel=1e-2), solver
    inside, _, extremes = rows["least squares by singular values, float64"]
    assert computed["least squares, float64"].inside == pytest.approx(digits(inside), rel=1e-2)
    least, most = map(digits, extremes.split(","))
    assert least / 3 < computed["least squares, float64"].lowest < computed["least squares, float64"].highest < 3 * most


# 5


def by_each_papers_formula(factor: float) -> dict[str, np.ndarray]:
    """NTK (bloc97), YaRN (Peng et al. 2023, eqs. 17 to 23, and its published code's rounding), Llama 3 (Meta's apply_scaling)."""
    pretrained, d, length = inv_freq(128, 1e4), 128, 2048
    low, high = (d * math.log(length / (rotations * 2 * math.pi)) / (2 * math.log(1e4)) for rotations in (32, 1))
    ramp = np.clip((np.arange(64) - math.floor(low)) / (math.ceil(high) - math.floor(low)), 0, 1)
    smooth = (length * pretrained / (2 * math.pi) - 1) / (4 - 1)
    wavelength = 2 * math.pi / pretrained
    mixed = (1 - smooth) * pretrained / factor + smooth * pretrained
    return {
        "unscaled": pretrained,
        "PI": pretrained / factor,
        "NTK": inv_freq(128, 1e4 * factor ** (128 / 126)),
        "YaRN": pretrained / factor * ramp + pretrained * (1 - ramp),
        "Llama 3": np.where(
            wavelength < length / 4, pretrained, np.where(wavelength > length / 1, pretrained / factor, mixed)
        ),
    }


def test_the_table_of_methods_is_what_each_papers_formula_gives():
    names = [cell.strip() for cell in re.search(r"\n\| \| (unscaled .*) \|\n", TEXT)[1].split("|")]
    rows = {name: cells for name, *cells in table("| unscaled")}
    ours = (Plain(), Linear(16.0), Ntk(16.0), Yarn(16.0), Llama3(16.0, 1.0, 4.0, 2048))
    for column, (name, scaling) in enumerate(zip(names, ours, strict=True)):
        pretrained, after = inv_freq(128, 1e4), by_each_papers_formula(16)[name]
        never = 2048 * pretrained < 2 * math.pi
        over = np.where(never, 32768 * after / (2048 * pretrained), 1)
        over = np.where(over > 1 + 1e-9, over, 1)
        told = [after.mean(), 100 * after.mean() / pretrained.mean(), 100 * (over > 1).mean(), over.max()]
        rounded = {"radians a token, mean": 5e-5, "kept": 0.05, "pairs at unseen angles": 0.05, "the farthest": 5e-3}
        for (row, half), expected in zip(rounded.items(), told, strict=True):
            assert digits(rows[row][column]) == pytest.approx(expected, abs=1.001 * half), (name, row)
        computed = resolution(LLAMA, scaling, 32768)
        assert [computed.mean_angle, 100 * computed.kept, 100 * computed.unseen, computed.overshoot] == pytest.approx(
            told
        ), name
        assert computed.incomplete == pytest.approx(0.359, abs=5e-4)
        assert computed.incomplete_after == pytest.approx((32768 * after < 2 * math.pi).mean()), name
        assert computed.separation == pytest.approx(np.sqrt(np.mean(np.abs(np.exp(1j * after) - 1) ** 2))), name
        rotations = 2048 * pretrained / (2 * math.pi)
        for band, inside in zip(
            computed.bands, (rotations >= 32, (rotations >= 1) & (rotations < 32), rotations < 1), strict=True
        ):
            assert (band.pairs, band.after) == (inside.sum(), pytest.approx(after[inside].mean())), (name, band.name)
