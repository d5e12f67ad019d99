"""Every method of extension against transformers and against a transcription of its paper: inv_freq and attention factor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.errors import UserError
from ropewalk.rope.scaling import (
    SCALINGS,
    Abf,
    Dynamic,
    Factors,
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
)

WINDOW = 2048
factors = st.floats(1.0, 64.0)


def vector(pairs: int, last: float = 8.0) -> tuple[float, ...]:
    return tuple(1 + (last - 1) * j / (pairs - 1) for j in range(pairs))


def scalings(pairs: int) -> dict[str, Scaling]:
    """Scalings by name, whose entries in a config transformers computes."""
    return {
        "linear": Linear(8.0),
        "yarn": Yarn(8.0),
        "yarn, its temperature": Yarn(8.0, temperature=0.7),
        "yarn without a temperature": Yarn(8.0, temperature=1.0),
        "yarn, thresholds": Yarn(8.0, beta_fast=16.0, beta_slow=2.0, truncate=False),
        "yarn, DeepSeek-V2": Yarn(40.0, mscale=0.707, mscale_all_dim=0.707),
        "yarn, DeepSeek-V2 Lite": Yarn(40.0, mscale=1.0, mscale_all_dim=0.8),
        "llama3": Llama3(8.0, 1.0, 4.0, WINDOW),
        "longrope": LongRope(8.0, vector(pairs, 2.0), vector(pairs)),
        "longrope, its attention factor": LongRope(8.0, vector(pairs, 2.0), vector(pairs), attention=1.5),
        "factors": Factors(8.0, vector(pairs)),
        "proportional": Proportional(8.0, 0.75),
        "NoPE": Proportional(8.0, 0.0),
        "ntk": Ntk(8.0),
        "abf": Abf(8.0, 5e6),
    }


def computed(head_dim: int, scaling: Scaling, rope: Rope, length: int) -> tuple[np.ndarray, float]:
    """inv_freq and attention factor that transformers computes from the config entry of a scaling."""
    entry, rope_theta = scaling.config_entry(rope)
    config = LlamaConfig(
        hidden_size=2 * head_dim,
        num_attention_heads=2,
        max_position_embeddings=round(rope.window * scaling.factor),
        rope_parameters={**entry, "rope_theta": rope_theta},
    )
    if entry["rope_type"] == "default":
        return rope_theta ** (-np.arange(0, head_dim, 2) / head_dim), 1.0
    inv_freq, attention = ROPE_INIT_FUNCTIONS[entry["rope_type"]](config, torch.device("cpu"), seq_len=length)
    return inv_freq.double().numpy(), attention


@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("head_dim", [32, 128])
@pytest.mark.parametrize("name", scalings(16))
def test_transformers_computes_the_closed_form(name: str, head_dim: int, base: float) -> None:
    scaling, rope = scalings(head_dim // 2)[name], Rope(head_dim, base, WINDOW)
    for length in (WINDOW, round(WINDOW * scaling.factor)):
        inv_freq, attention = computed(head_dim, scaling, rope, length)
        # Theirs is float32, through one power and one or two divisions: a few units of 6e-8.
        np.testing.assert_allclose(inv_freq, scaling.inv_freq_at(rope, length), rtol=1e-6, atol=0)
        assert attention == pytest.approx(scaling.attention_factor(rope), rel=1e-12)


def transcribed_yarn(d: int, base: float, window: int, s: float, alpha: float, beta: float) -> list[float]:
    """Peng et al. 2023, section 3.2 (definition 2), a pair at a time; the ramp's ends rounded as in their code, by pairs."""

    def pair(rotations: float) -> float:
        return d * math.log(window / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low, high = max(math.floor(pair(beta)), 0), min(math.ceil(pair(alpha)), d - 1)
    turns = []
    for j in range(d // 2):
        theta = base ** (-2 * j / d)
        ramp = min(max((j - low) / (high - low), 0.0), 1.0)
        turns.append((1 - ramp) * theta + ramp * theta / s)
    return turns


def transcribed_llama3(d: int, base: float, window: int, s: float, low: float, high: float) -> list[float]:
    """Meta's llama-models, `apply_scaling` of llama3/model.py, a pair at a time."""
    turns = []
    for j in range(d // 2):
        freq = base ** (-2 * j / d)
        wavelen = 2 * math.pi / freq
        if wavelen < window / high:
            turns.append(freq)
        elif wavelen > window / low:
            turns.append(freq / s)
        else:
            smooth = (window / wavelen - low) / (high - low)
            turns.append((1 - smooth) * freq / s + smooth * freq)
    return turns


@given(st.sampled_from([32, 64, 128]), st.sampled_from([1e4, 5e5]), factors)
def test_yarn_and_llama3_turn_as_transcribed(d: int, base: float, s: float) -> None:
    rope = Rope(d, base, 8192)
    # float64 on both sides, a dozen operations each.
    np.testing.assert_allclose(Yarn(s).inv_freq(rope), transcribed_yarn(d, base, 8192, s, 1, 32), rtol=1e-12)
    ours = Llama3(s, 1.0, 4.0, 8192).inv_freq(rope)
    np.testing.assert_allclose(ours, transcribed_llama3(d, base, 8192, s, 1, 4), rtol=1e-12)


def test_attention_factors_by_hand() -> None:
    rope = Rope(64, 1e4, 4096)
    assert Yarn(16.0).attention_factor(rope) == pytest.approx(1.2772588722239782)  # 0.1 ln 16 + 1
    assert Yarn(16.0, temperature=0.25).attention_factor(rope) == 2.0
    assert Yarn(40.0, mscale=1.0, mscale_all_dim=1.0).attention_factor(rope) == 1.0
    # DeepSeek-V3's get_mscale(40, 0.5) / get_mscale(40, 1.0): 1.184444 / 1.368888.
    assert Yarn(40.0, mscale=0.5, mscale_all_dim=1.0).attention_factor(rope) == pytest.approx(0.8652601, rel=1e-6)
    # Phi-3-mini-128k: sqrt(1 + ln 32 / ln 4096), ln 32 = 5 ln 2, ln 4096 = 12 ln 2.
    longrope = LongRope(32.0, (1.0,) * 32, (32.0,) * 32)
    assert longrope.attention_factor(rope) == pytest.approx(math.sqrt(17 / 12))
    for scaling in (Plain(), Linear(4.0), Ntk(4.0), Llama3(4.0, 1.0, 4.0, 64), Proportional(4.0, 0.5), Dynamic(4.0)):
        assert scaling.attention_factor(rope) == 1.0


@given(st.integers(64, 100_000), st.floats(1.0, 16.0))
def test_dynamic_ntk_is_what_transformers_computes_at_each_length(length: int, factor: float) -> None:
    rope = Rope(64, 10000.0, WINDOW)
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=1,
        max_position_embeddings=WINDOW,
        rope_parameters={"rope_type": "dynamic", "factor": factor, "rope_theta": 10000.0},
    )
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](config, torch.device("cpu"), seq_len=length)
    # float32 powers of a base of up to 1e7.
    np.testing.assert_allclose(theirs.double().numpy(), Dynamic(factor).inv_freq_at(rope, length), rtol=3e-6)


def test_dynamic_ntk_leaves_the_original_window_as_it_is() -> None:
    rope = Rope(64, 10000.0, WINDOW)
    np.testing.assert_array_equal(Dynamic(4.0).inv_freq_at(rope, WINDOW), rope.inv_freq())


@given(factors, factors)
def test_yarn_and_llama3_of_the_same_thresholds_multiply(first: float, second: float) -> None:
    assert compose(Yarn(first), Yarn(second)) == Yarn(first * second)
    assert compose(Yarn(first, 16.0), Yarn(second, 16.0, temperature=0.5)) == Yarn(
        first * second, 16.0, temperature=0.5
    )
    both = compose(Llama3(first, 1.0, 4.0, 8192), Llama3(second, 1.0, 4.0, 8192))
    assert both == Llama3(first * second, 1.0, 4.0, 8192)


@pytest.mark.parametrize(
    ("now", "by"),
    [
        (Yarn(4.0), Yarn(2.0, beta_fast=16.0)),
        (Yarn(4.0, truncate=False), Yarn(2.0)),
        (Llama3(8.0, 1.0, 4.0, 8192), Llama3(2.0, 1.0, 8.0, 8192)),
        (Proportional(2.0, 0.5), Proportional(2.0, 0.25)),
    ],
    ids=str,
)
def test_other_thresholds_do_not_compose(now: Scaling, by: Scaling) -> None:
    with pytest.raises(UserError, match="a second .* scaling has the parameters of the first; leave them out"):
        compose(now, by)


@given(factors, factors)
def test_interpolation_on_a_vector_or_on_p_rope_divides_once_more(first: float, second: float) -> None:
    rope = Rope(64, 10000.0, WINDOW)
    for now in (Factors(first, vector(32)), Proportional(first, 0.75)):
        both = compose(now, Linear(second))
        np.testing.assert_allclose(both.inv_freq(rope), now.inv_freq(rope) / second, rtol=1e-12)
        assert both.factor == first * second


def test_any_scaling_that_leaves_attention_is_a_vector_of_factors() -> None:
    rope = Rope(64, 10000.0, WINDOW)
    for scaling in (Linear(4.0), Ntk(4.0), Llama3(4.0, 1.0, 4.0, WINDOW)):
        alike = Factors(4.0, tuple(rope.inv_freq() / scaling.inv_freq(rope)))
        np.testing.assert_allclose(alike.inv_freq(rope), scaling.inv_freq(rope), rtol=1e-12)


@pytest.mark.parametrize(
    ("method", "given", "sentence"),
    [
        ("yarn", {"temperature": 0.0}, "temperature of yarn scaling is finite and above 0, got 0"),
        ("yarn", {"beta_slow": 64.0}, "beta_slow above 0 and at most beta_fast, got 64.0 and 32"),
        ("llama3", {"low_freq_factor": 8.0}, "low_freq_factor below high_freq_factor, got 8.0 and 4.0"),
        ("linear", {"temperature": 0.5}, "linear scaling has no --temperature; leave it out"),
        ("longrope", {}, "longrope scaling needs --factors, got none; give 32 numbers"),
        ("factors", {"factors": [1.0] * 31}, "rotates 32 pairs, got 31 factors; give as many"),
        ("factors", {"factors": [1.0] * 31 + [0.0]}, "finite and above 0, got 0.0 to 1.0"),
        ("factors", {"factors": ["1"] * 32}, "factor as a number, got '1'"),
        (
            "factors",
            {"factors": {"long_factor": [1.0] * 32}},
            "an object with short_factor and long_factor, got long_fac",
        ),
        (
            "factors",
            {"factors": {"short_factor": [1.0] * 32, "long_factor": [2.0] * 32}},
            "two that differ; use --meth",
        ),
        ("longrope", {"factors": {"short_factor": [1.0] * 9, "long_factor": [2.0] * 32}}, "got 9 factors"),
        ("proportional", {}, r"needs a --rotated-share, got none; 0\.6562 of this model's pairs complete a turn"),
        ("proportional", {"rotated_share": 1.5}, "between 0 and 1, got 1.5"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused_with_a_way_out(
    method: str, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        SCALINGS[method].for_extension(Rope(64, 10000.0, WINDOW), 4.0, **given)


@pytest.mark.parametrize(
    ("entry", "window", "original", "expected"),
    [
        # Phi-3-mini-128k, in small: no factor, the ratio of the windows.
        (
            {"type": "su", "short_factor": [1.0, 1.5], "long_factor": [1.0, 9.0]},
            131072,
            4096,
            LongRope(32.0, (1.0, 1.5), (1.0, 9.0)),
        ),
        # A factor that is not that ratio: transformers 5 takes the attention factor from it.
        (
            {"rope_type": "longrope", "factor": 4.0, "short_factor": [1.0], "long_factor": [9.0]},
            131072,
            4096,
            LongRope(32.0, (1.0,), (9.0,), attention=math.sqrt(1 + math.log(4) / math.log(4096))),
        ),
        ({"rope_type": "longrope", "short_factor": [4.0, 4.0], "long_factor": [4.0, 4.0]}, 256, 256, Linear(4.0)),
        (
            {"rope_type": "longrope", "short_factor": [1.0, 4.0], "long_factor": [1.0, 4.0]},
            256,
            256,
            Factors(1.0, (1.0, 4.0)),
        ),
        (
            {"rope_type": "longrope", "short_factor": [4.0], "long_factor": [4.0], "attention_factor": 1},
            256,
            64,
            Linear(4.0),
        ),
    ],
)
def test_longrope_is_read_with_its_attention_factor(
    entry: dict[str, Any], window: int, original: int, expected: Scaling
) -> None:
    assert LongRope.from_config(entry, window=window, original=original) == expected


def test_an_attention_factor_of_yarn_is_a_temperature_unless_it_is_the_rule() -> None:
    entry = {"rope_type": "yarn", "factor": 4.0, "attention_factor": 0.1 * math.log(4) + 1}
    assert Yarn.from_config(entry, window=8192, original=2048) == Yarn(4.0)
    found = Yarn.from_config(entry | {"attention_factor": 2.0}, window=8192, original=2048)
    assert found == Yarn(4.0, temperature=0.25)
    with pytest.raises(UserError, match="attention_factor is finite and above 0, got 0"):
        Yarn.from_config(entry | {"attention_factor": 0.0}, window=8192, original=2048)
