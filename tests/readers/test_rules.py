"""The rules of ropewalk.readers against what the readers themselves answered (answers.json, made by ask.py), and transformers here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import shelf
import sick_shelf
from readers import ask
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.exports.checkpoints import spelled_out
from ropewalk.model.extend import extended_config
from ropewalk.readers.rules import READERS
from ropewalk.settings.scaling import ScalingOptions

ANSWERS: dict[str, dict[str, Any]] = json.loads(ask.ANSWERS.read_text(encoding="utf-8"))
#: Where a rule is meant to differ: it gives the inv_freq at the end of the window, where longrope has its long factors.
AT_THE_END = {("transformers 4", "phi_3_128k"), ("transformers 5", "phi_3_128k")}
#: Nonsense that a reader computes with all the same (a length of 0, no number, the window of a model that it cannot run): the rule
#: refuses it.
NONSENSE = {"factor 0", "rope_theta 0", "rope_theta not a number", "heads of 10^12 coordinates"}


def differs(name: str, kind: str, config: dict[str, Any], answer: dict[str, Any]) -> str:
    """How a rule and its reader differ; empty if they do not."""
    reader = READERS[name]
    if "refuses" in answer:
        return "" if reader.refusal(config) else f"the reader refuses: {answer['refuses']}"
    if "inv_freq" not in answer:  # asked for the window alone
        refused = reader.refusal(config) is not None
        return "" if refused or reader.window(config) == answer["window"] else f"window {answer['window']}"
    if refusal := reader.refusal(config):
        return f"the rule refuses: {refusal}"
    if "window" in answer and reader.window(config) != int(answer["window"]):
        return f"window {answer['window']}, the rule {reader.window(config)}"
    computed = reader.inv_freq(config)
    assert computed is not None
    if computed.size != answer["pairs"]:
        return f"{answer['pairs']} pairs, the rule {computed.size}"
    sampled = computed[[at * (computed.size - 1) // 4 for at in range(5)]]
    # Readers compute in float32: a few units in the last place (6e-8 each), more for angles taken from a cosine and a sine.
    near = np.allclose(sampled, answer["inv_freq"], rtol=2e-5, atol=0) or (name, kind) in AT_THE_END
    return "" if near else f"inv_freq {answer['inv_freq']}, the rule {sampled}"


@pytest.mark.parametrize("name", ANSWERS)
def test_a_rule_says_what_its_reader_answered(name: str) -> None:
    configs = ask.configs()
    assert set(ANSWERS[name]) == set(configs), "the shelf has changed: ask again (tests/readers/ask.py)"
    found = {
        kind: how
        for kind, answer in ANSWERS[name].items()
        if kind not in NONSENSE and (how := differs(name, kind, configs[kind], answer))
    }
    assert not found


@pytest.mark.parametrize("kind", sorted(NONSENSE))
def test_a_rule_refuses_what_cannot_be_meant(kind: str) -> None:
    config = sick_shelf.SICK[kind][0]
    assert all(reader.refusal(config) for reader in READERS.values())


def test_the_installed_transformers_answers_as_the_recorded_one() -> None:
    pytest.importorskip("transformers")
    for kind in ("llama_31", "gemma_3_4b", "gpt_oss", "pythia"):
        here, recorded = ask.transformers(ask.configs()[kind]), ANSWERS["transformers 5"][kind]
        assert (here["window"], here["pairs"]) == (recorded["window"], recorded["pairs"])
        assert here["inv_freq"] == pytest.approx(recorded["inv_freq"], rel=1e-6)


def test_a_float_length_and_a_tokenizers_length_are_what_lm_eval_goes_by() -> None:
    config = shelf.llama_2()
    del config["max_position_embeddings"]
    assert READERS["lm-eval"].window(config, {"model_max_length": 1024}) == 1024


def test_readers_that_leave_a_scaling_out_say_so() -> None:
    """R2: GPT-NeoX in llama.cpp and MLX; R13: YaRN on Llama and linear on Qwen in Ollama."""
    neox = shelf.extended(shelf.pythia())
    assert READERS["llama.cpp"].scaling_is_ignored(neox) and READERS["mlx"].scaling_is_ignored(neox)
    assert not READERS["vllm"].scaling_is_ignored(neox)
    assert READERS["ollama"].scaling_is_ignored(shelf.extended_yarn())
    assert READERS["ollama"].refusal(shelf.extended(shelf.qwen25()))
    assert READERS["ollama"].refusal(shelf.extended()) is None


def test_a_reader_that_leaves_a_temperature_of_the_scores_out_is_refused() -> None:
    """Run on tiny models: transformers 4.57's DeepSeek-V2 was 0.92 nats off, vLLM 0.32's Ministral 3 0.55, past the original window."""
    lite, ministral = (
        Checkpoint(name, Path(), testing.tiny_config(name, 64).to_dict())
        for name in ("deepseek-v2-lite", "ministral-3")
    )
    yarn = ScalingOptions(method="yarn")
    longer = extended_config(lite, window=256, options=yarn)
    assert "mscale_all_dim" in str(READERS["transformers 4"].refusal(longer))
    del longer["rope_scaling"]["mscale_all_dim"]
    assert READERS["transformers 4"].refusal(longer) is None
    assert "llama_4_scaling" in str(READERS["vllm"].refusal(ministral.config))
    for written in (spelled_out(ministral), extended_config(ministral, window=256, options=yarn)):
        assert READERS["vllm"].refusal(written) is None
        assert written["llama_4_scaling"] == {"original_max_position_embeddings": 16, "beta": 0.1}


def test_a_reader_that_refuses_a_scaling_is_not_said_to_leave_it_out() -> None:
    """p-RoPE: transformers 4 knows no such word and stops; vLLM passes over it outside Gemma 4."""
    standing = shelf.llama_2()
    standing["rope_parameters"] = {"rope_type": "proportional", "partial_rotary_factor": 0.5, "rope_theta": 1e4}
    standing["rope_scaling"] = {"type": "proportional", **standing["rope_parameters"]}
    assert READERS["transformers 4"].refusal(standing) and not READERS["transformers 4"].scaling_is_ignored(standing)
    assert READERS["vllm"].scaling_is_ignored(standing)
