"""Cheaper passes say what whole ones say."""

import contextlib

import pytest
import torch
import transformers

from ropewalk.attention_ops import flash_4
from ropewalk.errors import UserError
from ropewalk.evals import compile
from ropewalk.model.layers import decoder_layers
from ropewalk.testing import FAMILIES, tiny


@pytest.fixture(autouse=True)
def nothing_compiled():
    """The limit of recompilations is the process's own, whatever was compiled before."""
    torch._dynamo.reset()


@pytest.fixture
def ids():
    return torch.randint(0, 256, (2, 50), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("kept", [1, 7, 50, 80])
def test_reading_only_the_last_positions_changes_nothing_there(family, kept, ids):
    model = tiny(family)
    with torch.inference_mode():
        whole = model(ids, logits_to_keep=min(kept, 50)).logits
        with compile.reading_last(model, kept):
            narrow = model(ids, logits_to_keep=min(kept, 50)).logits
        after = model(ids).logits
    # A product over fewer rows may be summed in another order.
    torch.testing.assert_close(narrow, whole, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(after[:, -min(kept, 50) :], whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", ["bloom", "gemma4_text"])
def test_norms_before_the_layers_see_every_position(family, ids):
    torch.manual_seed(0)
    bloom = transformers.BloomConfig(vocab_size=258, hidden_size=64, n_layer=2, n_head=4)
    model = transformers.BloomForCausalLM(bloom).eval() if family == "bloom" else tiny(family)
    with torch.inference_mode():
        whole = model(ids, logits_to_keep=7).logits
        with compile.reading_last(model, 7):
            narrow = model(ids, logits_to_keep=7).logits
    torch.testing.assert_close(narrow, whole, rtol=1e-5, atol=1e-6)


def test_the_last_feed_forward_part_sees_the_last_positions_alone(ids):
    model, seen = tiny(), []
    for layer in model.model.layers:
        layer.mlp.gate_proj.register_forward_hook(lambda module, args, output: seen.append(args[0].shape[1]))
    with torch.inference_mode(), compile.reading_last(model, 7):
        model(ids)
    assert seen == [50, 7]


def test_the_last_attention_is_asked_from_the_last_positions_alone(ids, monkeypatch):
    model, seen = tiny(), []
    usual = torch.nn.functional.scaled_dot_product_attention

    def watched(query, *args, **kwargs):
        seen.append(query.shape[2])
        return usual(query, *args, **kwargs)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    with torch.inference_mode(), compile.reading_last(model, 7):
        model(ids)
    assert seen == [50, 7]
    assert model.model.layers[-1].self_attn.config is model.model.layers[0].self_attn.config


def test_a_model_without_such_a_part_is_left_alone():
    with compile.reading_last(torch.nn.Linear(2, 2), 1):
        pass
    assert decoder_layers(torch.nn.Linear(2, 2), required=False) == []
    with pytest.raises(UserError, match="Linear has none"):
        decoder_layers(torch.nn.Linear(2, 2))


def test_the_experts_of_a_layer_are_no_decoder_layers():
    model = tiny()
    for layer in model.model.layers:
        layer.experts = torch.nn.ModuleList(torch.nn.Linear(2, 2) for _ in range(5))
    assert decoder_layers(model) == list(model.model.layers)


@pytest.mark.parametrize("shapes", [[], [(2, 50)]])
def test_compiled_layers_say_the_same_and_leave_no_trace(shapes, ids):
    model = tiny(num_hidden_layers=3)
    with torch.inference_mode():
        plain = model(ids).logits
        # "eager" traces as inductor does and generates no code, which takes half a minute where cores are shared.
        with compile.compiled(model, shapes=shapes, backend="eager"), compile.reading_last(model, 9):
            fused = model(ids, logits_to_keep=9).logits
        assert all("forward" not in vars(module) for module in model.modules())
    torch.testing.assert_close(fused, plain[:, -9:], rtol=1e-5, atol=1e-6)


def test_little_work_or_no_gpu_compiles_nothing(ids):
    model = tiny()
    with compile.faster(model, passes=10**9, window=64, shapes=[(1, 64)]):
        assert all("forward" not in vars(module) for module in model.modules())


def test_passes_of_another_shape_go_uncompiled(ids):
    model, traced = tiny(num_hidden_layers=3), []

    def backend(graph, inputs):
        traced.append(graph)
        return graph.forward

    with torch.inference_mode(), compile.compiled(model, shapes=[(2, 50), (1, 20)], backend=backend):
        model(ids[:1, :30])
        assert not traced
        for shape in (ids, ids[:1, :20]):
            before = len(traced)
            model(shape)
            assert len(traced) > before


def test_work_counts_two_operations_a_weight_and_token():
    model = tiny()
    weights = sum(weight.numel() for weight in model.parameters())
    assert compile.work(model, passes=3, window=10) == 3 * 10 * (2 * weights + 2 * 2 * 64 * 10)


def test_graphs_traced_with_another_attention_are_kept_apart(monkeypatch):
    """What a layer was traced to names the kernel; PyTorch's caches must not give it to a run with another."""
    monkeypatch.setattr(flash_4, "_is_here", lambda device, size: True)
    monkeypatch.setattr(flash_4, "_switched_on", contextlib.nullcontext)
    monkeypatch.setattr(flash_4, "_problem", lambda device, size: "")
    with torch.compiler.config.patch(cache_key_tag="mine"):
        with flash_4.fastest(torch.device("cpu"), 64) as name:
            assert torch.compiler.config.cache_key_tag == f"mine {name}"
        assert torch.compiler.config.cache_key_tag == "mine"
