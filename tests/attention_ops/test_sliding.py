"""Attention within a reach is transformers' attention under its mask: kernel by kernel, family by family, step by step; and makes nothing as large."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk import testing
from ropewalk.attention_ops import choosing, sliding
from ropewalk.attention_ops.blocks import causal_blocks, padded
from ropewalk.attention_ops.transformers import BLOCKS, attend_in_blocks, attends_in_blocks, is_replaceable
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.distributed.mesh import start
from ropewalk.model.layers import layout_of
from ropewalk.model.loss import NextTokenLoss
from ropewalk.training import recompute

#: By name, with a window in which some layers slide.
SLIDING = [n for n in testing.PUBLISHED if read_layers(testing.tiny_config(n).get_text_config().to_dict()).slides(64)]
#: Which do more than slide: capped scores, sinks, chunks.
MORE = {"gemma2", "gpt_oss", "gpt-oss-20b", "llama4_text"}


def visible(tokens: int, reach: int) -> torch.Tensor:
    """By transformers' own definition of the mask."""
    from transformers.masking_utils import sliding_window_causal_mask_function

    places = torch.arange(tokens)
    return sliding_window_causal_mask_function(reach)(0, 0, places[:, None], places[None])


@pytest.mark.parametrize("at_once", [2**29, 500])
@pytest.mark.parametrize("kernel", ["cpu", "plain"])
@pytest.mark.parametrize("heads, key_heads", [(4, 4), (6, 2)])
@pytest.mark.parametrize(
    "tokens, reach", [(32, 8), (37, 8), (33, 8), (39, 8), (12, 1), (13, 2), (16, 16), (17, 16), (9, 16)]
)
def test_attention_within_a_reach_is_masked_attention(
    kernel: str, heads: int, key_heads: int, tokens: int, reach: int, at_once: int, monkeypatch
) -> None:
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    monkeypatch.setattr("ropewalk.attention_ops.block_attention.HEADS_AT_ONCE", at_once)
    generator = torch.Generator().manual_seed(tokens)
    shapes = [(2, tokens, h, 16) for h in (heads, key_heads, key_heads)]
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    q, k, v = (leaf.transpose(1, 2) for leaf in leaves)
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=visible(tokens, reach), scale=0.3, enable_gqa=True
    )
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected.detach(), *torch.autograd.grad(expected, leaves, upstream)]
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    out, _ = sliding.sliding_attention(*(leaf.transpose(1, 2) for leaf in single), reach, 0.3)
    ours = [out.detach(), *torch.autograd.grad(out, single, upstream.float())]
    for value, expected_value in zip(ours, truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("tokens, reach", [(32, 8), (37, 8), (33, 32), (9, 16), (7, 1)])
def test_no_score_is_computed_but_those_that_are_seen(tokens: int, reach: int) -> None:
    calls = sliding._calls(tokens, reach)
    triangle = lambda call: call.queries * (call.queries + 1) // 2 if call.causal else call.queries * call.keys  # noqa: E731
    assert sum(call.count * triangle(call) for call in calls) == int(visible(tokens, reach).sum())


def gradients(model: Any, ids: torch.Tensor, **given: Any) -> dict[str, torch.Tensor]:
    model.zero_grad()
    out = model(input_ids=ids, labels=ids, use_cache=False, **given).loss
    out.backward()
    return {"loss": out.detach(), **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


class Watched(TorchDispatchMode):
    """The names of the operators that ran, and the elements of the largest result."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.names.append(str(func))
        for each in out if isinstance(out, tuple | list) else [out]:
            if isinstance(each, torch.Tensor):
                self.largest = max(self.largest, each.numel(), each.untyped_storage().nbytes() // each.element_size())
        return out


@pytest.mark.parametrize("tokens", [48, 50])
@pytest.mark.parametrize("name", SLIDING)
def test_a_family_trains_as_under_its_mask_and_as_planned(name: str, tokens: int) -> None:
    """Loss and gradients of every family with layers that slide; which of them do so without a mask is what plans go by."""
    model = testing.tiny(name, window=64).train()
    alone = layout_of(model).alone
    assert alone == (name not in MORE)
    if not is_replaceable(model):
        return
    ids = torch.randint(0, 256, (2, tokens), generator=torch.Generator().manual_seed(0))
    expected = gradients(model, ids)
    attend_in_blocks(model)
    with Watched() as watched:
        ours = gradients(model, ids)
    assert ("ropewalk.sliding_attention.default" in watched.names) == alone
    assert ours.keys() == expected.keys()
    for key, value in ours.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=2e-6, msg=key)


@pytest.mark.parametrize("kernel", ["cpu", "plain"])
@pytest.mark.parametrize("same", [True, False])
def test_documents_are_sequences_for_themselves(kernel: str, same: bool, monkeypatch) -> None:
    """Rows with documents shorter and longer than the reach, against a dense mask in float64."""
    monkeypatch.setattr(choosing, "choose", lambda q, varied: kernel)
    tokens, reach, borders = 40, 8, [[0, 3, 20, 21], [0, 3, 20, 21] if same else [0, 8, 30]]
    number = torch.tensor([[sum(place >= first for first in row) for place in range(tokens)] for row in borders])
    mask = visible(tokens, reach) & (number[:, :, None] == number[:, None])
    generator = torch.Generator().manual_seed(1)
    shapes = [(2, heads, tokens, 16) for heads in (4, 2, 2)]
    leaves = [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *leaves, attn_mask=mask[:, None], scale=0.3, enable_gqa=True
    )
    upstream = torch.randn(expected.shape, generator=generator, dtype=torch.float64)
    truth = [expected.detach(), *torch.autograd.grad(expected, leaves, upstream)]
    single = [leaf.detach().float().requires_grad_() for leaf in leaves]
    blocks = padded(causal_blocks(borders, 0, 1, tokens))
    out, _ = sliding.sliding_attention(*single, reach, 0.3, blocks)
    for value, expected_value in zip([out, *torch.autograd.grad(out, single, upstream.float())], truth, strict=True):
        torch.testing.assert_close(value.double(), expected_value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", [name for name in SLIDING if name not in MORE])
def test_packed_documents_train_as_under_transformers_mask_and_hold_none(name: str) -> None:
    """Positions that begin again, through `Mesh.shard` and `Mesh.split`, as training has them; documents shorter and longer than the reach."""
    model = testing.tiny(name, window=64, attn_implementation="eager").train()
    positions = torch.stack([torch.cat([torch.arange(n) for n in lengths]) for lengths in ((5, 20, 23), (41, 7))])
    ids = torch.randint(0, 256, (2, 48), generator=torch.Generator().manual_seed(0))
    rows = {"input_ids": ids, "labels": ids, "position_ids": positions}
    root = NextTokenLoss(model)
    expected = root(**rows)
    expected.backward()
    truth = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    assert attends_in_blocks(model)
    mesh = start(device="cpu")
    mesh.shard(root)
    with Watched() as watched:
        ours = root(**mesh.split(rows))
        ours.backward()
    mesh.close()
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-4)
    assert "ropewalk.sliding_attention.default" in watched.names
    for key, gradient in truth.items():
        torch.testing.assert_close(model.get_parameter(key).grad, gradient, rtol=1e-4, atol=2e-4, msg=key)


@pytest.mark.parametrize("name", ["mistral-v0.1", "gemma3_text"])
@pytest.mark.parametrize("given", ["documents", "padding", "ones"])
def test_a_mask_that_says_more_stays(name: str, given: str, monkeypatch) -> None:
    """Packed documents and padding, as transformers has them. A mask of ones says nothing (mode pose)."""
    model = testing.tiny(name, window=64).train()
    ids = torch.randint(0, 256, (2, 48), generator=torch.Generator().manual_seed(0))
    ones, slid = torch.ones_like(ids), []
    padding = torch.cat([torch.zeros_like(ids[:, :3]), ones[:, 3:]], dim=1)
    documents = torch.cat([torch.arange(20), torch.arange(28)]).expand(2, -1)
    said = {"documents": dict(position_ids=documents), "padding": dict(attention_mask=padding)}
    said |= {"ones": dict(attention_mask=ones, position_ids=torch.cumsum(ones + (ids % 3 == 0), 1) - 1)}
    plain = sliding.sliding_attention
    monkeypatch.setattr(sliding, "sliding_attention", lambda *args: slid.append(args) or plain(*args))
    expected = gradients(model, ids, **said[given])
    attend_in_blocks(model)
    ours = gradients(model, ids, **said[given])
    assert bool(slid) == (given == "ones")
    for key, value in ours.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-5, msg=key)


@pytest.mark.parametrize("tokens, reach", [(512, 16), (510, 15)])
def test_no_call_makes_anything_of_all_pairs(tokens: int, reach: int) -> None:
    """Inside the operators, which hide it: they are called without the dispatcher."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, grad = (torch.randn(1, 2, tokens, 16, generator=generator) for _ in range(4))
    with Watched() as watched:
        out, lse = sliding.sliding_attention._init_fn(q, k, v, reach, 0.1)
        sliding._sliding_attention_backward._init_fn(grad, q, k, v, out, lse, reach, 0.1)
    assert sum("flash_attention" in name for name in watched.names) == 2 * len(sliding._calls(tokens, reach))
    assert watched.largest <= 2 * q.numel() < tokens**2


@pytest.mark.parametrize("kept", [None, frozenset(), frozenset({3})])
def test_a_step_makes_nothing_of_all_pairs_and_keeps_attention_where_it_is_told(kept: frozenset[int] | None) -> None:
    """Loss and gradients through `Mesh.shard`, as training has it, by what layers keep; 3 is attention, after queries, keys and values."""
    tokens, model = 512, testing.tiny("mistral-v0.1", window=512, hidden_size=32, intermediate_size=32).train()
    ids = torch.randint(0, 256, (1, tokens), generator=torch.Generator().manual_seed(0))
    root = NextTokenLoss(model)
    root(ids, ids).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    mesh = start(device="cpu")
    mesh.shard(root)
    checkpointing = recompute.SelectiveCheckpointing(root)
    found = checkpointing.candidates(root.body, 1, tokens)
    assert [each.op for each in found if each.index == 3] == ["ropewalk.sliding_attention.default"]
    checkpointing.keep([kept] * 2)
    with Watched() as watched:
        root(ids, ids).backward()
    mesh.close()
    assert model.config._attn_implementation == BLOCKS
    # Twice where a layer's forward pass is done again and attention is not kept.
    again = kept is not None and 3 not in kept
    assert watched.names.count("ropewalk.sliding_attention.default") == 2 * (1 + again)
    assert watched.largest < tokens**2  # logits are 512 x 258
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-4, msg=name)


def test_what_a_layer_computes_is_counted_by_the_keys_that_it_sees() -> None:
    layout = layout_of(testing.tiny("gemma3_text", window=64))
    assert layout.keys_computed(64) == layout.keys_seen(64) < 64
    assert replace(layout, alone=False).keys_computed(64) == 64 + 32


@pytest.mark.parametrize("key, value", [("attention_dropout", 0.5), ("attn_logit_softcapping", 30.0)])
def test_scores_that_are_changed_are_left_to_the_family(key: str, value: float) -> None:
    model = testing.tiny("mistral-v0.1", window=64, **{key: value}).train()
    assert not layout_of(model).alone
    attend_in_blocks(model)
    with Watched() as watched:
        model(input_ids=torch.zeros(1, 48, dtype=torch.long), use_cache=False)
    assert "ropewalk.sliding_attention.default" not in watched.names
