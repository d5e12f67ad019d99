"""What a config.json says of RoPE, and a sentence where it says what no rotation is. Writing is in test_extend.py."""

from __future__ import annotations

import math
from typing import Any

import pytest

from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.errors import UserError
from ropewalk.rope.scaling import Linear, Rope, Yarn

SAID: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
}


def scaled(kind: str, **block: Any) -> dict[str, Any]:
    return {"rope_scaling": {"rope_type": kind, **block}}


LLAMA3 = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=64)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        # 0 is no way of leaving a head's size out: read so, the model would be given another head.
        ({"head_dim": 0}, "head_dim as a whole number above 0, got 0"),
        ({"head_dim": 63}, "must be even and at least 2, got 63"),
        ({"head_dim": -64}, "head_dim as a whole number above 0, got -64"),
        ({"head_dim": 64.5}, "head_dim as a whole number above 0, got 64.5"),
        ({"head_dim": "64"}, "head_dim as a whole number above 0, got '64'"),
        ({"head_dim": math.nan}, "head_dim as a whole number above 0, got nan"),
        ({"qk_rope_head_dim": 0}, "qk_rope_head_dim as a whole number above 0, got 0"),
        ({"hidden_size": math.inf}, "hidden_size as a whole number above 0, got inf"),
        ({"max_position_embeddings": math.nan}, "max_position_embeddings as a whole number above 0, got nan"),
        ({"rope_theta": "1e4"}, "rope_theta as a number, got '1e4'"),
        ({"rope_theta": [1e4]}, "rope_theta as a number"),
        ({"rope_theta": math.nan}, "rope_theta as a number, got nan"),
        ({"rope_theta": 1}, "above 1, got 1"),
        ({"partial_rotary_factor": "half"}, "partial_rotary_factor as a number, got 'half'"),
        ({"partial_rotary_factor": 2.0}, "above 0 and at most 1, got 2"),
        ({"partial_rotary_factor": 0}, "above 0 and at most 1, got 0"),
        ({"partial_rotary_factor": 0.33}, "must be even and at least 2, got 21"),
        ({"rope_scaling": "linear"}, "rope_scaling as an object or null, got 'linear'"),
        ({"rope_parameters": [1]}, r"rope_parameters as an object or null, got \[1\]"),
        (scaled("linear", factor="4"), "factor as a number, got '4'"),
        (scaled("linear", factor=0.5), "at least 1, got 0.5"),
        (scaled("yarn", factor=0, original_max_position_embeddings=64), "at least 1, got 0"),
        (scaled("yarn", original_max_position_embeddings="64"), "original_max_position_embeddings as a whole number"),
        (scaled("yarn", beta_fast="32", original_max_position_embeddings=64), "beta_fast as a number, got '32'"),
        (scaled("yarn", beta_slow=0, original_max_position_embeddings=64), "beta_slow above 0"),
        (scaled("llama3", **(LLAMA3 | {"low_freq_factor": None})), "low_freq_factor as a number, got None"),
        (scaled("llama3", **(LLAMA3 | {"original_max_position_embeddings": 0})), "as a whole number above 0, got 0"),
        (scaled("longrope", short_factor=["x"], long_factor=["x"]), "short_factor as a number, got 'x'"),
    ],
    ids=str,
)
def test_a_value_that_is_no_rotation_is_named_in_a_sentence(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        read_rope(SAID | wrong)


def test_null_leaves_a_value_out() -> None:
    nothing = dict.fromkeys(("head_dim", "rope_scaling", "rope_parameters", "partial_rotary_factor"))
    assert read_rope(SAID | nothing).rope == Rope(64, 10000.0, 256)


def test_whole_numbers_may_be_written_as_floats() -> None:
    found = read_rope(SAID | {"head_dim": 32.0, "max_position_embeddings": 512.0} | scaled("linear", factor=2))
    assert (found.rope, found.scaling, found.window) == (Rope(32, 10000.0, 256), Linear(2.0), 512)


def test_yarn_without_a_factor_has_the_ratio_of_its_windows() -> None:
    found = read_rope(SAID | scaled("yarn", original_max_position_embeddings=64, truncate=False, beta_fast=16))
    assert (found.rope.window, found.scaling) == (64, Yarn(4.0, beta_fast=16.0, truncate=False))
