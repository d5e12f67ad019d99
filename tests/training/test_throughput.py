"""The products of a step, as torch counts them."""

import pytest
import torch

from ropewalk import testing
from ropewalk.training import lora, throughput


def test_the_flops_of_a_token_are_those_torch_counts():
    from torch.utils.flop_counter import FlopCounterMode

    # Attention spelled out in matrix products, which are what torch counts; the fused kernel on CPUs counts as nothing.
    shape = dict(hidden_size=128, intermediate_size=256, vocab_size=300, attn_implementation="eager")
    model = testing.tiny(window=64, **shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=torch.zeros(1, 64, dtype=torch.long))
    # torch counts the whole square of attention, 4 x window x width a layer and token; ours is causal, half of it.
    other_half = 2 * 2 * 64 * 128
    forward = counter.get_total_flops() / 64 - other_half
    # Norms are parameters, but no products: 5 x 128 of them, 2 FLOPs each in our formula.
    assert throughput.flops_per_token(model, 64) == pytest.approx(3 * (forward + 2 * 5 * 128))


def test_of_frozen_weights_two_products_count_as_torch_does_two():
    from torch.utils.flop_counter import FlopCounterMode

    shape = dict(hidden_size=128, intermediate_size=256, vocab_size=300, attn_implementation="eager")
    model, rank = testing.tiny(window=64, **shape), 4
    wrapped = lora.add(model, rank=rank, alpha=8)
    with FlopCounterMode(display=False) as counter:
        wrapped(input_ids=torch.zeros(1, 64, dtype=torch.long)).logits.sum().backward()
    other_half = 3 * 2 * 2 * 64 * 128
    adapters = sum(p.numel() for name, p in wrapped.named_parameters() if "lora_" in name)
    counted = counter.get_total_flops() / 64 - other_half - 3 * 2 * adapters
    assert throughput.flops_per_token(wrapped, 64) == pytest.approx(counted + 3 * 2 * 5 * 128)
