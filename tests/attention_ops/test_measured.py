"""Measurements of layers that slide: transformers' eager attention under its masks is what they are held to, family by family, with caches and without."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AttentionInterface

from ropewalk import testing
from ropewalk.attention_ops import choosing, sliding
from ropewalk.attention_ops import transformers as names
from ropewalk.attention_ops.prefix import SharedPrefix
from ropewalk.attention_ops.transformers import BLOCKS, as_usual, attend_as_measured, attend_in_blocks, observed
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.evals import compile, likelihood
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.evals.loaded import open_model

#: By name, with a window in which some layers slide and do no more.
ALONE = [
    name
    for name in testing.PUBLISHED
    if (layout := read_layers(testing.tiny_config(name).get_text_config().to_dict())).slides(64) and layout.alone
]
#: Layers that all slide, and of two kinds; heads that share keys.
FEW = ["mistral-v0.1", "phi-3-mini-4k", "gemma3_text"]


@pytest.fixture
def ids() -> torch.Tensor:
    return torch.randint(0, 256, (2, 60), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def slid(monkeypatch) -> list[tuple[int, int]]:
    """(queries, keys) of each call within a reach."""
    calls, plain = [], sliding.attend
    monkeypatch.setattr(sliding, "attend", lambda q, k, *a: calls.append((q.shape[2], k.shape[2])) or plain(q, k, *a))
    return calls


def pair(name: str, **overrides: Any) -> tuple[Any, Any]:
    """A model under transformers' eager masks, and as it is measured."""
    models = [testing.tiny(name, window=64, attn_implementation=kind, **overrides) for kind in ("eager", "sdpa")]
    attend_as_measured(models[1])
    return models[0], models[1]


def close(ours: Any, expected: Any) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("name", ALONE)
def test_a_family_is_measured_as_under_its_own_mask(name: str, chunked: bool, ids, slid, monkeypatch) -> None:
    expected, model = pair(name)
    if chunked:
        monkeypatch.setattr(likelihood, "LOGIT_BYTES", 4 * 2 * 258 * 5)
    passes = [Pass(row.numpy(), scored) for scored in (1, 7, 59) for row in ids]
    values = [np.concatenate(list(negative_log_likelihoods(each, passes))) for each in (expected, model)]
    assert np.ptp(values[0]) > 0.01
    np.testing.assert_allclose(values[1], values[0], rtol=2e-5, atol=2e-5)
    assert slid and all(keys == 60 for _, keys in slid)


@pytest.mark.parametrize("cache", ["dynamic", "of the config", "static"])
@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("cuts", [[60], [30, 60], [5, 37, 60], [40, 41, 42, 60]])
def test_what_goes_on_from_a_cache_sees_what_it_saw(name: str, cache: str, cuts: list[int], ids, slid) -> None:
    expected, model = pair(name)
    whole = expected(ids).logits
    kept: Any = {
        "dynamic": lambda: transformers.DynamicCache(),
        "of the config": lambda: transformers.DynamicCache(config=model.config),
        "static": lambda: transformers.StaticCache(config=model.config, max_cache_len=70),
    }[cache]()
    parts = [
        model(ids[:, start:stop], past_key_values=kept, use_cache=True).logits
        for start, stop in zip([0, *cuts], cuts, strict=False)
    ]
    close(torch.cat(parts, dim=1), whole)
    assert cache == "static" or slid, "passes of as many tokens as the reach need no mask"


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("length", [3, 25])
def test_prompts_go_on_after_a_prefix_that_they_share(name: str, length: int, ids, slid) -> None:
    expected, model = pair(name)
    whole = expected(ids[:1]).logits[:, length:]
    with torch.inference_mode():
        prefix = SharedPrefix.read(model, ids[:1, :30])
        with prefix.before(model, length, 60 - length, 5, in_two_parts=False) as arguments:
            close(model(ids[:1, length:], **arguments).logits, whole)
    assert (60 - length, 60) in slid


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("padded", [0, 4])
def test_what_is_generated_is_the_same(name: str, padded: int, ids, slid) -> None:
    mask = torch.ones_like(ids)
    mask[0, :padded] = 0
    written = [
        each.generate(ids, attention_mask=mask, max_new_tokens=4, do_sample=False, pad_token_id=0, eos_token_id=None)
        for each in pair(name)
    ]
    assert written[0].shape == (2, 64) and written[0].equal(written[1])
    assert bool(slid) == (not padded)


@pytest.mark.parametrize("name", FEW)
@pytest.mark.parametrize("shapes", [(), [(2, 60)]])
def test_compiled_layers_say_the_same(name: str, shapes: Any, ids, monkeypatch) -> None:
    torch._dynamo.reset()
    monkeypatch.setitem(AttentionInterface._global_mapping, BLOCKS, inspect.unwrap(names._attend_in_blocks))
    for module, function in ((sliding, "attend"), (sliding, "told_reach"), (choosing, "in_autocast")):
        monkeypatch.setattr(module, function, inspect.unwrap(getattr(module, function)))  # dynamo fails on type checks
    expected, model = pair(name)
    with torch.inference_mode(), compile.compiled(model, shapes=shapes, backend="aot_eager"):
        for tokens in (60, 50):
            close(model(ids[:, :tokens], use_cache=False).logits, expected(ids[:, :tokens]).logits)


def test_a_model_that_is_opened_by_its_name_needs_no_mask_and_one_given_as_an_object_keeps_its_own(
    tmp_path, ids
) -> None:
    model = testing.tiny("gemma3_text", window=64)
    model.save_pretrained(tmp_path)
    testing.byte_tokenizer().save_pretrained(tmp_path)
    assert open_model(tmp_path, dtype="float32").model.config._attn_implementation == BLOCKS
    loaded = open_model(model, tokenizer=testing.byte_tokenizer(), original_window=64)
    assert loaded.model.config._attn_implementation == "sdpa"
    model.set_attn_implementation("eager")
    attend_as_measured(model)
    assert model.config._attn_implementation == "eager", "who asked for another attention has it"
    plain = testing.tiny("llama")
    attend_as_measured(plain)
    assert plain.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("name, usual", [("gemma3_text", BLOCKS), ("llama", "sdpa"), ("llama4_text", "sdpa")])
def test_a_look_while_training_is_a_measurement(name: str, usual: str) -> None:
    model = testing.tiny(name, window=64)
    attend_in_blocks(model)
    with as_usual(model):
        assert model.config._attn_implementation == usual
    assert model.config._attn_implementation == BLOCKS


def test_scores_are_seen_and_nothing_else_changes(ids, slid) -> None:
    expected, model = pair("gemma3_text")
    seen: list[int | None] = []
    with observed(model, lambda module, query, key, **options: seen.append(options["sliding_window"])):
        close(model(ids, use_cache=False).logits, expected(ids).logits)
    assert seen == [16, None] and slid and model.config._attn_implementation == BLOCKS
