"""Which window a config names: one rule, one question, and original window x factor = window."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.ropewalk_block import block_for
from ropewalk.checkpoint.window import Answers
from ropewalk.checkpoint.write_rope import write_rope
from ropewalk.errors import UserError
from ropewalk.rope.scaling import Linear, Plain, Rope

BASE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "rope_theta": 10000.0,
}
#: As vicuna-7b-v1.5-16k is published, in small: interpolated by 4, max_position_embeddings left at the original window.
VICUNA = BASE | {"rope_scaling": {"factor": 4.0, "type": "linear"}}
UNNAMED = {key: value for key, value in BASE.items() if key != "max_position_embeddings"}
YARN = {"factor": 4.0, "original_max_position_embeddings": 256, "type": "yarn", "finetuned": True}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
GEMMA = BASE | {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}


def windows(config: dict[str, Any], **answers: int) -> tuple[int, int]:
    """(original window, window), which must not be open."""
    found = read_rope(config, answers=Answers(**answers)).answered()
    return found.rope.window, found.window


#: What a config says → its original window and its window, tokens.
SAID: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "plain": (BASE, (256, 256)),
    "vicuna 16k, a second key has the longer window": (VICUNA | {"max_sequence_length": 1024}, (256, 1024)),
    "a second key has the shorter window": (VICUNA | {"max_sequence_length": 64}, (64, 256)),
    "model_max_length of the config": (VICUNA | {"model_max_length": 1024}, (256, 1024)),
    "the original window named beside a linear factor": (
        BASE | {"rope_scaling": {"factor": 4.0, "type": "linear", "original_max_position_embeddings": 64}},
        (64, 256),
    ),
    "Yarn-Llama-2-64k (R6)": (BASE | {"max_position_embeddings": 1024, "rope_scaling": YARN}, (256, 1024)),
    "YaRN as Qwen's instructions have it (R6)": (BASE | {"rope_scaling": YARN}, (256, 1024)),
    "YaRN as Qwen3's instructions have it (R6)": (
        BASE | {"max_position_embeddings": 320, "rope_scaling": YARN},
        (256, 1024),
    ),
    "gpt-oss (R6)": (
        BASE
        | {"max_position_embeddings": 131072, "initial_context_length": 4096}
        | {"rope_scaling": YARN | {"factor": 32.0, "original_max_position_embeddings": 4096, "truncate": False}},
        (4096, 131072),
    ),
    "YaRN by an older word, put into a config that transformers 5 saved": (
        BASE | {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "rope_scaling": YARN},
        (256, 1024),
    ),
    "Llama 3.1": (
        BASE | {"max_position_embeddings": 4096, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 256}},
        (256, 4096),
    ),
    "gemma-3-4b (R10)": (GEMMA | {"max_position_embeddings": 131072}, (32768, 131072)),
    "a small model of Gemma 3's": (GEMMA, (32, 256)),
    "no max_position_embeddings, but another length": (UNNAMED | {"max_sequence_length": 1024}, (1024, 1024)),
    "no length at all: what transformers takes for a Llama": (UNNAMED, (2048, 2048)),
    "factor 1 scales nothing": (BASE | {"rope_scaling": {"factor": 1.0, "type": "linear"}}, (256, 256)),
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_config_says_of_its_windows(name: str) -> None:
    config, expected = SAID[name]
    assert windows(config) == expected


@pytest.mark.parametrize(
    "config",
    [VICUNA, VICUNA | {"max_sequence_length": 256}, VICUNA | {"max_sequence_length": 1024, "seq_length": 64}],
    ids=["nothing", "a copy", "two that disagree"],
)
def test_r3_a_window_that_is_left_open_is_asked_for_with_both_answers(config: dict[str, Any]) -> None:
    found = read_rope(config)
    assert found.question is not None and len(found.question.readings) == 2
    with pytest.raises(
        UserError, match=r"--current-window 256 \(original window 64\) or --current-window 1024 \(original"
    ):
        found.answered()
    for answers, expected in [
        ({"current_window": 1024}, (256, 1024)),
        ({"current_window": 256}, (64, 256)),
        ({"original_window": 256}, (256, 1024)),
        ({"original_window": 64, "current_window": 256}, (64, 256)),
        ({"original_window": 512, "current_window": 2048}, (512, 2048)),
    ]:
        assert windows(config, **answers) == expected


@pytest.mark.parametrize(
    ("config", "answers"),
    [
        (VICUNA, {"current_window": 512}),
        (VICUNA, {"original_window": 128}),
        (VICUNA, {"original_window": 64, "current_window": 1024}),
        (BASE | {"rope_scaling": YARN}, {"current_window": 256}),
        (BASE | {"rope_scaling": YARN}, {"original_window": 512, "current_window": 2048}),
        (BASE, {"original_window": 512}),
    ],
    ids=str,
)
def test_an_answer_that_contradicts_the_config_is_refused(config: dict[str, Any], answers: dict[str, int]) -> None:
    with pytest.raises(UserError, match="original window x factor = window, and .* does not fit .* say --current-win"):
        windows(config, **answers)


def test_a_plain_model_may_have_windows_that_its_config_does_not_name() -> None:
    assert windows(BASE, current_window=128) == (128, 128)
    assert windows(BASE, original_window=64) == (64, 256)


def test_r10_the_pretraining_window_of_gemma_3_can_be_said() -> None:
    config = GEMMA | {"max_position_embeddings": 131072}
    assert windows(config, original_window=32768) == (32768, 131072)
    assert windows(config, original_window=16384) == (16384, 131072)


def _written(config: dict[str, Any], original: int, window: int, factor: float) -> dict[str, Any]:
    rope = Rope(64, 10000.0, original)
    block = block_for(Linear(factor), rope, window=window, steps=0, history=[])
    return write_rope(config, Linear(factor), window=window, rope=rope, block=block)


def test_r3_windows_that_contradict_the_factor_are_not_written() -> None:
    with pytest.raises(UserError, match="1024 x 8 is not 32768"):
        _written(VICUNA, 1024, 32768, 8.0)


def test_r3_a_block_that_contradicts_its_factor_is_asked_about() -> None:
    config = _written(VICUNA, 4096, 32768, 8.0)
    config["ropewalk"]["original_window"] = 1024  # as ropewalk wrote it until it asked
    with pytest.raises(UserError, match="1024 and 32768.* --current-window 32768 .original window 4096. or --current-"):
        read_rope(config).answered()
    assert windows(config, original_window=4096) == (4096, 32768)


def test_r8_every_length_that_a_config_names_is_rewritten() -> None:
    stale = dict.fromkeys(
        ("max_sequence_length", "model_max_length", "seq_length", "max_seq_len", "n_positions", "max_seq_length"), 256
    )
    written = _written(BASE | stale | {"initial_context_length": 256, "seq_len": None}, 256, 1024, 4.0)
    assert {key: written[key] for key in stale} == dict.fromkeys(stale, 1024)
    assert written["initial_context_length"] == 256 and written["seq_len"] is None
    assert windows(written) == (256, 1024)


def test_the_key_that_answers_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VICUNA))
    with pytest.raises(UserError, match="add --current-window"):
        Checkpoint.open(tmp_path).rope  # noqa: B018
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 1024}))
    with caplog.at_level(logging.INFO, "ropewalk"):
        assert Checkpoint.open(tmp_path).rope.window == 1024
    assert "tokenizer's model_max_length says that the window is 1024, interpolated from 256" in caplog.text


def test_without_max_position_embeddings_the_users_word_stands_for_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scaled = UNNAMED | {"rope_scaling": VICUNA["rope_scaling"]}
    assert windows(scaled, current_window=1024) == windows(scaled, original_window=256) == (256, 1024)
    assert windows(UNNAMED, current_window=512) == (512, 512)
    with pytest.raises(UserError, match="its class's default of max_position_embeddings 2048 is the window before or"):
        windows(scaled)
    two = UNNAMED | {"seq_length": 512, "max_seq_len": 256}
    with pytest.raises(UserError, match="disagree .*; add --current-window 256 or --current-window 512"):
        windows(two)
    assert windows(two, current_window=512) == (512, 512)
    (tmp_path / "config.json").write_text(json.dumps(UNNAMED))
    with caplog.at_level(logging.INFO, "ropewalk"):
        assert Checkpoint.open(tmp_path).rope.window == 2048
    assert caplog.messages == [
        f"{tmp_path}: its class's default of max_position_embeddings says that the window is 2048"
    ]


def test_a_window_that_a_factor_settles_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "config.json").write_text(json.dumps(BASE | {"max_position_embeddings": 320, "rope_scaling": YARN}))
    with caplog.at_level(logging.INFO, "ropewalk"):
        assert Checkpoint.open(tmp_path).rope.window == 1024
    assert "yarn factor 4 says that the window is 1024, interpolated from 256" in caplog.text


@pytest.mark.parametrize(
    "changes",
    [
        {"max_position_embeddings": 10**400},
        {"rope_scaling": {"type": "linear", "factor": 1e300}},
        {"rope_scaling": {"type": "linear", "factor": 10**400}},
        {"rope_scaling": YARN | {"beta_fast": 1e308}},
        {"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [10**400]}},
        {
            "ropewalk": {
                "original_window": float("inf"),
                "window": 256,
                "scaling": {"method": "plain"},
                "rope_theta": 1e4,
            }
        },
    ],
    ids=str,
)
def test_numbers_that_no_model_has_are_a_sentence(changes: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        read_rope(BASE | changes)


def test_answers_go_with_the_checkpoint_and_its_base_takes_the_original_window(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(VICUNA))
    model = Checkpoint.open(tmp_path, current_window=1024)
    assert Checkpoint.open(model) is model and model.info.original_window == 256
    assert model.open_base(tmp_path).info.window == 1024
    assert Checkpoint.open(model, current_window=256).info.original_window == 64


def test_a_model_trained_past_its_window_unscaled_is_interpolated_from_there() -> None:
    rope = Rope(64, 10000.0, 256)
    block = block_for(Plain(), rope, window=1024, steps=10, history=[])
    config = write_rope(BASE, Plain(), window=1024, rope=rope, block=block)
    assert windows(config) == (256, 1024)
