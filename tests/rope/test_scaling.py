"""The oracle against oracles that are not ours: complex numbers, transformers, and properties any rotation must have."""

from __future__ import annotations

import cmath
import json
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_rotate
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from ropewalk.errors import UserError
from ropewalk.rope.rotate import rotate
from ropewalk.rope.scaling import (
    EXTENDING,
    SCALINGS,
    Abf,
    Dynamic,
    Factors,
    InterpolatedTable,
    Linear,
    Llama3,
    LongRope,
    Ntk,
    Plain,
    Proportional,
    Rope,
    Scaling,
    Yarn,
    compose,
    from_dict,
    to_dict,
)
from ropewalk.settings.scaling import ALIASES, ExtendMethod, TrainMethod

# float64 on both sides, a handful of operations: 1e-12 leaves four digits of slack.
EXACT = 1e-12
ropes = st.builds(
    Rope,
    head_dim=st.integers(2, 96).map(lambda half: 2 * half),
    rope_theta=st.floats(2.0, 1e7),
    window=st.integers(64, 131072),
)
factors = st.floats(1.0, 64.0)


@given(ropes, st.integers(0, 100_000))
def test_a_pair_is_multiplied_by_a_unit_complex_number(rope: Rope, position: int) -> None:
    x = np.random.default_rng(0).standard_normal((1, rope.head_dim))
    ours = rotate(x, np.array([position]), rope.inv_freq(), pairing="interleaved")[0]
    for j in range(rope.head_dim // 2):
        theta = math.exp(-2 * j / rope.head_dim * math.log(rope.rope_theta))
        turned = complex(x[0, 2 * j], x[0, 2 * j + 1]) * cmath.exp(1j * position * theta)
        # theta by exp-log differs from a power in the last place or two; a position of 1e5 radians multiplies that.
        assert ours[2 * j] == pytest.approx(turned.real, abs=1e-9)
        assert ours[2 * j + 1] == pytest.approx(turned.imag, abs=1e-9)


@given(ropes, factors, st.sampled_from(["half", "interleaved"]))
def test_length_is_kept(rope: Rope, factor: float, pairing: str) -> None:
    x = np.random.default_rng(1).standard_normal((5, rope.head_dim))
    turned = rotate(x, np.arange(5) * 1000, Linear(factor).inv_freq(rope), pairing=pairing)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=-1), np.linalg.norm(x, axis=-1), rtol=EXACT)


@given(ropes, st.integers(0, 4096), st.integers(0, 4096), st.integers(0, 4096))
def test_the_score_depends_on_distance_alone(rope: Rope, m: int, n: int, shift: int) -> None:
    rng = np.random.default_rng(2)
    q, k = rng.standard_normal((2, 1, rope.head_dim))
    theta = rope.inv_freq()

    def score(a: int, b: int) -> float:
        return float(rotate(q, np.array([a]), theta)[0] @ rotate(k, np.array([b]), theta)[0])

    # Phases up to 8192 radians carry 8192 * 2^-53 of rounding each; d terms of size about 1.
    assert score(m, n) == pytest.approx(score(m + shift, n + shift), abs=1e-9)


@given(ropes)
def test_pairings_differ_by_a_permutation(rope: Rope) -> None:
    x = np.random.default_rng(3).standard_normal((4, rope.head_dim))
    order = np.concatenate([np.arange(0, rope.head_dim, 2), np.arange(1, rope.head_dim, 2)])
    positions, theta = np.arange(4) * 37, rope.inv_freq()
    half = rotate(x[:, order], positions, theta, pairing="half")
    interleaved = rotate(x, positions, theta, pairing="interleaved")
    np.testing.assert_array_equal(half, interleaved[:, order])


@given(ropes, factors, st.integers(0, 100_000))
def test_slower_turning_is_squeezed_positions(rope: Rope, factor: float, position: int) -> None:
    x = np.random.default_rng(4).standard_normal((1, rope.head_dim))
    slower = rotate(x, np.array([position]), Linear(factor).inv_freq(rope))
    squeezed = rotate(x, np.array([position / factor]), rope.inv_freq())
    # (m / f) theta and m (theta / f) round apart by 2^-52 of a phase of up to 1e5.
    np.testing.assert_allclose(slower, squeezed, atol=1e-9)


@given(ropes)
def test_factor_one_changes_nothing(rope: Rope) -> None:
    for scaling in (Plain(), Linear(1.0), Ntk(1.0), Yarn(1.0), Llama3(1.0, 1.0, 4.0, rope.window)):
        np.testing.assert_allclose(scaling.inv_freq(rope), rope.inv_freq(), rtol=EXACT)


@given(ropes, factors)
def test_the_last_position_of_the_new_window_turns_no_farther_than_the_old_ones(rope: Rope, factor: float) -> None:
    longer = math.floor(rope.window * factor)
    assert np.all((longer - 1) * Linear(factor).inv_freq(rope) <= rope.window * rope.inv_freq() + 1e-9)


@given(ropes, factors)
def test_every_method_stays_between_plain_and_linear(rope: Rope, factor: float) -> None:
    fast, slow = rope.inv_freq(), Linear(factor).inv_freq(rope)
    for scaling in (Ntk(factor), Yarn(factor), Llama3(factor, 1.0, 4.0, rope.window)):
        found = scaling.inv_freq(rope)
        assert np.all(found <= fast * (1 + EXACT)) and np.all(found >= slow * (1 - EXACT)), scaling


@given(ropes, factors, factors)
def test_linear_composes_by_multiplying(rope: Rope, first: float, second: float) -> None:
    both = compose(Linear(first), Linear(second))
    np.testing.assert_allclose(both.inv_freq(rope), rope.inv_freq() / (first * second), rtol=EXACT)


@given(ropes, factors, factors)
def test_ntk_composes_by_multiplying(rope: Rope, first: float, second: float) -> None:
    grown = Rope(rope.head_dim, Ntk(first).rope_theta(rope), rope.window)
    np.testing.assert_allclose(compose(Ntk(first), Ntk(second)).inv_freq(rope), Ntk(second).inv_freq(grown), rtol=1e-10)


@pytest.mark.parametrize("now", [Yarn(2.0), Llama3(8.0, 1.0, 4.0, 8192), Ntk(2.0), LongRope(2.0, (1.0,), (2.0,))])
def test_linear_on_top_of_another_family_is_refused(now) -> None:
    with pytest.raises(UserError, match="cannot be put on top of"):
        compose(now, Linear(2.0))


@given(ropes, factors, factors, st.floats(1.01, 100.0), st.floats(1.01, 100.0))
def test_abf_on_abf_or_ntk_has_its_own_rope_theta(
    rope: Rope, first: float, second: float, by: float, by_more: float
) -> None:
    rope_theta = rope.rope_theta * by
    further = Abf(second, rope_theta * by_more)
    for now in (Abf(first, rope_theta), Ntk(first)):
        assert compose(now, further) == Abf(first * second, rope_theta * by_more)
    with pytest.raises(UserError, match="must be above the model's own"):
        compose(further, Abf(2.0, rope_theta))


@pytest.mark.parametrize(
    ("by", "sentence"),
    [
        (Linear(2.0), "linear scaling cannot be put on top of abf .* extend the original model"),
        (Yarn(2.0), "yarn scaling cannot be put on top of abf"),
        (Ntk(2.0), "ntk scaling on top of abf .* say it so, with --method abf"),
    ],
)
def test_what_cannot_be_put_on_top_of_abf_is_refused_with_the_reason(by: Scaling, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        compose(Abf(4.0, 500000.0), by)


@pytest.mark.parametrize("now", [Linear(2.0), Yarn(2.0), Llama3(8.0, 1.0, 4.0, 8192)])
def test_abf_on_top_of_what_squeezes_positions_is_refused(now: Scaling) -> None:
    with pytest.raises(UserError, match="abf scaling cannot be put on top of"):
        compose(now, Abf(2.0, 500000.0))


@given(ropes.filter(lambda rope: rope.head_dim >= 4), factors, st.floats(1.01, 1000.0))
def test_abf_turns_as_transcribed(rope: Rope, factor: float, by: float) -> None:
    """Xiong et al. 2023, section 4.1: theta_j = b^(-2j/d) with another b; here by logarithms, a pair at a time."""
    base = rope.rope_theta * by
    turns = [math.exp(-2 * j / rope.head_dim * math.log(base)) for j in range(rope.head_dim // 2)]
    # exp and log round a few units of 2^-53 each, times an exponent of up to ln(1e10) = 23.
    np.testing.assert_allclose(Abf(factor, base).inv_freq(rope), turns, rtol=1e-13)


@pytest.mark.parametrize("factor", [2.0, 8.0])
def test_abf_at_the_rope_theta_of_ntk_is_ntk(factor: float) -> None:
    rope = Rope(64)
    np.testing.assert_array_equal(Abf(factor, Ntk(factor).rope_theta(rope)).inv_freq(rope), Ntk(factor).inv_freq(rope))


@pytest.mark.parametrize("rope_theta", [500000.0, 26914.0])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
def test_abf_is_what_transformers_computes_with_that_rope_theta(head_dim: int, rope_theta: float) -> None:
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": rope_theta},
    )
    theirs = LlamaRotaryEmbedding(config).inv_freq.double().numpy()
    # Theirs is float32, through one power and one division: a few units of 6e-8.
    np.testing.assert_allclose(theirs, Abf(4.0, rope_theta).inv_freq(Rope(head_dim, 10000.0, 2048)), rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (
            {},
            "needs a --rope-theta above the model's own 10000, got none; what was measured, at factor 4, is 50 times that: --rope-theta 500000 ",
        ),
        (
            {"rope_theta": 10000.0},
            "above the model's own 10000, got 10000; what was measured, at factor 4, is 50 times that: --rope-theta 500000 ",
        ),
        ({"rope_theta": 2.0}, "above the model's own 10000, got 2;"),
        ({"rope_theta": 0.5}, "finite and above the model's own, got 0.5; the paper"),
        ({"rope_theta": math.inf}, "finite and above the model's own, got inf; the paper"),
        ({"rope_theta": math.nan}, "finite and above the model's own, got nan; the paper"),
        ({"rope_theta": 5e5, "beta_fast": 16.0}, "abf scaling has no --beta-fast; leave it out"),
    ],
)
def test_a_rope_theta_that_is_none_is_refused_with_a_way_out(wrong: dict, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        Abf.for_extension(Rope(64), 4.0, **wrong)


@pytest.mark.parametrize("parameters", [{}, {"rope_theta": 5e5}])
def test_abf_of_a_single_pair_is_refused_since_it_changes_nothing(parameters: dict) -> None:
    with pytest.raises(UserError, match="abf scaling needs at least 4 rotated coordinates, got 2; use linear"):
        Abf.for_extension(Rope(2), 4.0, **parameters)


CASES = [
    (Plain(), {"rope_type": "default"}),
    (Linear(8.0), {"rope_type": "linear", "factor": 8.0}),
    (Yarn(8.0), {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 2048}),
    (
        Yarn(4.0, truncate=False),
        {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 2048, "truncate": False},
    ),
    (
        Llama3(8.0, 1.0, 4.0, 2048),
        {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 2048,
        },
    ),
]


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("head_dim", [32, 64, 128])
@pytest.mark.parametrize(("scaling", "parameters"), CASES, ids=lambda case: str(case)[:24])
def test_frequencies_are_those_transformers_computes(scaling, parameters, head_dim: int, base: float) -> None:
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=2048,
        rope_parameters={**parameters, "rope_theta": base},
    )
    theirs = LlamaRotaryEmbedding(config).inv_freq.double().numpy()
    # Theirs is float32, through one power and one or two divisions: a few units of 6e-8.
    np.testing.assert_allclose(theirs, scaling.inv_freq(Rope(head_dim, base, 2048)), rtol=1e-6)


def test_static_ntk_is_the_first_step_of_transformers_dynamic() -> None:
    rope, factor = Rope(64, 10000.0, 2048), 4.0
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "dynamic", "factor": factor, "rope_theta": 10000.0},
    )
    # Dynamic at a length n has the ratio factor * n / L - (factor - 1), which is `factor` at n = L (2 - 1 / factor).
    length = int(2048 * (2 - 1 / factor))
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=length)
    np.testing.assert_allclose(theirs.double().numpy(), Ntk(factor).inv_freq(rope), rtol=1e-6)


@pytest.mark.parametrize("factor", [1.0, 4.0, 16.0])
def test_rotated_heads_are_those_of_transformers(factor: float) -> None:
    rope = Rope(64)
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        max_position_embeddings=2048,
        rope_parameters={"rope_type": "linear", "factor": factor, "rope_theta": 10000.0},
    )
    x = torch.randn(1, 1, 300, 64, generator=torch.Generator().manual_seed(0))
    positions = torch.arange(300)[None] * 100
    theirs, _ = apply_rotary_pos_emb(x, x, *LlamaRotaryEmbedding(config)(x, positions))
    ours = rotate(x[0, 0].double().numpy(), positions[0].numpy(), Linear(factor).inv_freq(rope))
    # float32 phases: 30000 radians * 6e-8 = 2e-3 radians of error at the fastest pair, times |x| of up to 4.
    np.testing.assert_allclose(theirs[0, 0].double().numpy(), ours, atol=1e-2)
    np.testing.assert_allclose(theirs[0, 0, :3].double().numpy(), ours[:3], atol=1e-4)


def test_partial_rotary_leaves_the_rest_alone_as_gpt_neox_does() -> None:
    rope = Rope(16)
    x = torch.randn(1, 1, 50, 64, generator=torch.Generator().manual_seed(1))
    angle = torch.arange(50)[:, None] * torch.tensor(rope.inv_freq(), dtype=torch.float32)
    table = torch.cat([angle, angle], -1)[None]
    theirs, _ = neox_rotate(x, x, table.cos(), table.sin())
    ours = rotate(x[0, 0].double().numpy(), np.arange(50), rope.inv_freq())
    np.testing.assert_allclose(theirs[0, 0].double().numpy(), ours, atol=1e-5)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda: Rope(7), "even"),
        (lambda: Rope(0), "at least 2"),
        (lambda: Rope(64, 1.0), "above 1"),
        (lambda: Rope(64, float("nan")), "finite"),
        (lambda: Rope(64, 1e4, 0), "window"),
        (lambda: Linear(0.5), "at least 1, got 0.5"),
        (lambda: Linear(float("inf")), "finite"),
        (lambda: Yarn(float("nan")), "finite"),
        (lambda: Llama3(8.0, 4.0, 1.0, 8192), "low_freq_factor below"),
        (lambda: Ntk(2.0).inv_freq(Rope(2)), "at least 4"),
    ],
)
def test_what_makes_no_rotation_is_refused_in_a_sentence(wrong, said: str) -> None:
    with pytest.raises(UserError, match=said):
        wrong()


@pytest.mark.parametrize(
    "scaling",
    [
        Plain(),
        Linear(8.0),
        Ntk(2.0),
        Abf(8.0, 5e5),
        Yarn(4.0, 64.0, 4.0),
        Yarn(4.0, temperature=0.8, mscale=0.7, mscale_all_dim=1.0),
        Llama3(8.0, 1.0, 4.0, 8192),
        LongRope(4.0, (1.0, 1.5), (2.0, 4.0), attention=1.2),
        Factors(4.0, (1.0, 4.0)),
        Proportional(4.0, 0.75),
        Dynamic(2.0),
    ],
)
def test_a_scaling_comes_back_from_json_with_all_its_parameters(scaling) -> None:
    assert from_dict(json.loads(json.dumps(to_dict(scaling)))) == scaling


@pytest.mark.parametrize(
    "entry", [{}, {"method": "linnear"}, {"method": "linear"}, {"method": "linear", "faktor": 2.0}]
)
def test_a_scaling_that_is_none_is_refused_in_a_sentence(entry) -> None:
    with pytest.raises(UserError, match="scaling"):
        from_dict(entry)


def test_the_words_that_a_type_checker_knows_are_those_of_the_table() -> None:
    assert get_args(ExtendMethod) == (*ALIASES, *EXTENDING, "auto")
    assert set(get_args(TrainMethod)) == {*ALIASES, *EXTENDING, "auto", Plain.method}
    assert set(ALIASES.values()) <= set(EXTENDING)


def test_no_two_scalings_share_a_word() -> None:
    words = [word for kind in SCALINGS.values() for word in kind.rope_types]
    assert len(words) == len(set(words)) and len({kind.label for kind in SCALINGS.values()}) == len(SCALINGS)


#: What must be given beside a factor.
VECTOR = [1 + 3 * j / 31 for j in range(32)]
GIVEN = {
    "abf": {"rope_theta": 5e5},
    "factors": {"factors": VECTOR},
    "longrope": {"factors": {"short_factor": [1.0] * 32, "long_factor": VECTOR}},
    "proportional": {"rotated_share": 0.75},
}


@pytest.mark.parametrize("kind", [kind for kind in SCALINGS.values() if kind is not InterpolatedTable])
def test_what_a_config_says_of_a_scaling_is_read_back(kind: type[Scaling]) -> None:
    rope, factor = Rope(64, 10000.0, 2048), 4.0
    if kind is InterpolatedTable:  # nothing rotates: its length stands in the config, its rows in the weights
        with pytest.raises(UserError, match="does not write it"):
            kind(factor).config_entry(rope)
        return
    if kind is Dynamic:
        with pytest.raises(UserError, match="measured and not made: its inv_freq changes with the length"):
            kind.for_extension(rope, factor)
        with pytest.raises(UserError, match="does not write it"):
            Dynamic(factor).config_entry(rope)
        return
    scaling = kind.for_extension(rope, factor, **GIVEN.get(kind.method, {}))
    entry, rope_theta = scaling.config_entry(rope)
    scaled = Rope(rope.head_dim, rope_theta, rope.window)
    if kind is Factors:  # longrope with two equal lists, which has a word of its own here
        written = LongRope.from_config(entry, window=8192, original=8192)
        assert written == Factors(1.0, tuple(VECTOR))
        return
    if not kind.rope_types:  # the config shows another rope_theta alone
        np.testing.assert_allclose(scaled.inv_freq(), scaling.inv_freq(rope), rtol=EXACT)
        return
    window = round(rope.window * scaling.factor)
    assert kind.from_config(entry, window=window, original=rope.window) == scaling


@given(factors)
def test_plain_changes_no_scaling_and_is_changed_into_any(factor: float) -> None:
    for scaling in (Linear(factor), Ntk(factor), Abf(factor, 5e5), Yarn(factor), Llama3(factor, 1.0, 4.0, 2048)):
        assert compose(Plain(), scaling) == scaling == compose(scaling, Plain())


def test_a_parameter_of_another_scaling_is_refused_by_its_option() -> None:
    with pytest.raises(UserError, match="linear scaling has no --beta-fast; leave it out"):
        Linear.for_extension(Rope(64), 4.0, beta_fast=16.0)
    with pytest.raises(UserError, match="linear scaling has no --rope-theta; leave it out"):
        Linear.for_extension(Rope(64), 4.0, rope_theta=5e5)
    assert Yarn.for_extension(Rope(64), 4.0, beta_fast=16.0) == Yarn(4.0, beta_fast=16.0)
