"""The chunked loss against transformers' own, and against float64."""

from __future__ import annotations

import pytest
import torch
import transformers

from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.model import loss
from ropewalk.model.logits import LogitsTransform
from ropewalk.model.loss import IGNORED, NextTokenLoss, cross_entropy


def batch(tokens: int, rows: int = 2, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 256, (rows, tokens + 1), generator=generator)
    labels = ids[:, 1:].clone()
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORED
    return ids[:, :-1], labels


def transformers_loss(model: torch.nn.Module, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """What transformers' logits and torch's cross-entropy give, summed."""
    logits = model(input_ids=ids, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum"
    )


@pytest.mark.parametrize("family", [*testing.FAMILIES, "llama4_text"])
def test_loss_and_gradients_are_those_of_transformers(family: str) -> None:
    model = testing.tiny(family)
    ids, labels = batch(37)
    expected = transformers_loss(model, ids, labels)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    ours = NextTokenLoss(model)(ids, labels)
    ours.backward()
    # float32 sums of 74 losses in another order: a few units in the last place of a number near 400.
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    for name, p in model.named_parameters():
        torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-5 * gradients[name].abs().max().item())


def test_families_that_cap_or_scale_their_logits_are_honoured() -> None:
    shape = dict(vocab_size=258, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
    shape |= dict(num_key_value_heads=2)
    capped = transformers.Gemma2Config(**shape, head_dim=16, final_logit_softcapping=1.5)
    scaled = transformers.CohereConfig(**shape, logit_scale=0.25)
    divided = transformers.GraniteConfig(**shape, logits_scaling=8.0)
    ids, labels = batch(23)
    for config in (capped, scaled, divided):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(8)  # so that a cap or a scale that were forgotten would show
            module = NextTokenLoss(model)
            assert not module._logits.plain
            torch.testing.assert_close(module(ids, labels), transformers_loss(model, ids, labels), rtol=1e-5, atol=0)


@pytest.mark.parametrize("family", ["gemma2", "gemma4_text"])
def test_logits_that_are_capped_in_bfloat16_are_those_of_the_family(family: str) -> None:
    """Under autocast transformers caps bfloat16 logits of float32 weights, whose rounding they were held to: Gemma 2 was refused."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        NextTokenLoss(testing.tiny(family))


def test_an_unknown_treatment_of_the_logits_is_refused_by_name() -> None:
    model = testing.tiny()
    model.config.output_logit_soft_cap = 30.0
    with pytest.raises(UserError, match="llama.*output_logit_soft_cap"):
        NextTokenLoss(model)


def test_a_head_that_does_more_is_refused_by_name() -> None:
    model = testing.tiny()
    forward = model.forward

    def doubled(**kwargs):
        out = forward(**kwargs)
        out.logits = out.logits * 2
        return out

    model.forward = doubled
    with pytest.raises(UserError, match="llama"):
        NextTokenLoss(model)


@pytest.mark.parametrize("tokens, width, vocabulary", [(1, 8, 11), (252, 48, 507), (507, 123, 252), (129, 64, 1009)])
@pytest.mark.parametrize("dtype, constant", [(torch.float32, 5e-4), (torch.bfloat16, 1e-2)])
@pytest.mark.parametrize(
    "family",
    [LogitsTransform(), LogitsTransform(scale=0.5), LogitsTransform(cap=2.0), LogitsTransform(scale=3.0, cap=5.0)],
)
def test_the_chunked_loss_errs_no_more_than_the_plain_one(
    tokens: int, width: int, vocabulary: int, dtype: torch.dtype, constant: float, family: LogitsTransform, monkeypatch
) -> None:
    """Truth in float64, the plain computation in the working precision, ours: odd shapes, several chunks."""
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", 128 * vocabulary)
    generator = torch.Generator().manual_seed(tokens)
    hidden = torch.randn(tokens, width, generator=generator).to(dtype)
    weight = (torch.randn(vocabulary, width, generator=generator) * width**-0.5).to(dtype)
    bias = torch.randn(vocabulary, generator=generator).to(dtype)
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[::7] = IGNORED

    def plain(precision: torch.dtype) -> list[torch.Tensor]:
        leaves = [t.to(precision).requires_grad_() for t in (hidden, weight, bias)]
        logits = family(torch.nn.functional.linear(*leaves).to(torch.promote_types(precision, torch.float32)))
        out = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED, reduction="sum")
        return [out.detach(), *torch.autograd.grad(out, leaves)]

    head = torch.nn.Linear(width, vocabulary, dtype=dtype)
    head.weight.data, head.bias.data = weight.clone(), bias.clone()
    leaf = hidden.clone().requires_grad_()
    out = cross_entropy(leaf, head, labels, family)
    ours = [out.detach(), *torch.autograd.grad(out, [leaf, head.weight, head.bias])]
    for truth, naive, mine in zip(plain(torch.float64), plain(dtype), ours, strict=True):
        naive_error = (naive.double() - truth).abs().max()
        error = (mine.double() - truth).abs().max()
        assert error <= naive_error + constant * max(1.0, truth.abs().max().item() ** 0.5), (error, naive_error)


def test_a_head_with_lora_gives_the_same_loss_and_gradients() -> None:
    peft = pytest.importorskip("peft")
    model = testing.tiny()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["lm_head", "q_proj"]))
    with torch.no_grad():
        for name, p in wrapped.named_parameters():
            if "lora_B" in name:
                p.normal_()
    ids, labels = batch(37)
    expected = transformers_loss(wrapped, ids, labels)
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in wrapped.named_parameters() if p.grad is not None}
    wrapped.zero_grad()
    ours = NextTokenLoss(wrapped)(ids, labels)
    ours.backward()
    torch.testing.assert_close(ours, expected, rtol=1e-6, atol=0)
    assert gradients
    for name, p in wrapped.named_parameters():
        if name in gradients:
            torch.testing.assert_close(p.grad, gradients[name], rtol=1e-4, atol=1e-4)


def test_labels_that_do_not_count_add_nothing() -> None:
    module = NextTokenLoss(testing.tiny())
    ids, labels = batch(16)
    out = module(ids, torch.full_like(labels, IGNORED))
    out.backward()
    assert out.item() == 0
    assert all(p.grad is None or not p.grad.any() for p in module.parameters())


def test_logits_of_the_whole_sequence_are_never_formed(monkeypatch) -> None:
    monkeypatch.setattr(loss, "CPU_CHUNK_ELEMENTS", 128 * 258)
    seen = []
    original = torch.nn.functional.linear

    def watch(*arguments):
        out = original(*arguments)
        seen.append(out.shape)
        return out

    module = NextTokenLoss(testing.tiny(window=512))
    monkeypatch.setattr(torch.nn.functional, "linear", watch)
    ids, labels = batch(512, rows=1)
    module(ids, labels)
    assert max(shape[0] for shape in seen if shape[-1] == 258) == 128
