"""Frozen weights in four bits under adapters (QLoRA, arXiv 2305.14314): quantised while an ordinary checkpoint is loaded, never on disk.

in   a checkpoint, a device
out  its model, verified as any other is, with the linear layers of its decoder layers in NF4; what is saved has the checkpoint's own weights again (frozen.py)

bitsandbytes rounds, and undoes it for each product. Its codes and scales are plain parameters here, not its own subclass of a tensor: what
traces, recomputes, tiles and moves layers knows nothing of them. Scales are bfloat16, one for every 64 weights, and codes were chosen for
float32 ones, which costs less than rounding bfloat16 weights does. Embedding, norms and head stay as they are.
"""

from __future__ import annotations

import importlib
import logging
from typing import Any, no_type_check

import torch
from torch import Tensor, nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model.layers import decoder_layers
from ropewalk.model.load import load_model
from ropewalk.model.verify import verify_positions

_logger = logging.getLogger(__name__)
_BLOCK, _KIND = 64, "nf4"
#: Dtypes of two bytes, by safetensors' words.
_HALVES = {"BF16": torch.bfloat16, "F16": torch.float16}
#: Linear layers that choose a token's experts: a few numbers, of which each counts.
_ROUTERS = ("gate", "router", "shared_expert_gate")


@no_type_check  # as of the two below: a type checker's wrapper would be compiled with them
class Linear4bit(nn.Linear):
    """A linear layer whose weight is frozen codes of four bits.

    weight: two codes a byte. scales: of each block of 64 weights.
    """

    def __init__(self, linear: nn.Linear, device: torch.device) -> None:
        nn.Module.__init__(self)
        quantize_4bit: Any = importlib.import_module("bitsandbytes.functional").quantize_4bit
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.compute = linear.weight.dtype
        codes, state = quantize_4bit(linear.weight.detach().to(device), blocksize=_BLOCK, quant_type=_KIND)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scales = nn.Parameter(state.absmax.bfloat16(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:
        """[..., in_features] → [..., out_features], in the dtype of the weights as they were loaded."""
        shape = [self.out_features, self.in_features]
        product = _Product.apply(input.to(self.compute), self.weight, self.scales, shape)
        return product if self.bias is None else product + self.bias.to(self.compute)


@no_type_check
class _Product(torch.autograd.Function):
    """A product that keeps the codes for its backward pass, and not the weights made of them."""

    @staticmethod
    def forward(input: Tensor, codes: Tensor, scales: Tensor, shape: list[int]) -> Tensor:
        return nn.functional.linear(input, _weight(codes, scales, shape, input.dtype))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        _, codes, scales, ctx.shape = inputs
        ctx.save_for_backward(codes, scales)

    @staticmethod
    def backward(ctx: Any, *upstreams: Tensor) -> Any:
        (upstream,), (codes, scales) = upstreams, ctx.saved_tensors
        return upstream @ _weight(codes, scales, ctx.shape, upstream.dtype), None, None, None


@no_type_check
def _weight(codes: Tensor, scales: Tensor, shape: list[int], dtype: torch.dtype) -> Tensor:
    return torch.ops.bitsandbytes.dequantize_4bit(codes, scales.float(), _BLOCK, _KIND, shape, dtype)


def load(checkpoint: Checkpoint, *, dtype: torch.dtype, device: torch.device) -> Any:
    """As `distributed.load.load` by one process.

    Weights that become float32 are loaded as they are stored, which are pages of the files and take no memory of their own; each does so as it is rounded.

    Raises:
        UserError: what `load_model` raises; no linear layers, or no bitsandbytes for this device.
    """
    stored = stored_dtype(checkpoint) if dtype == torch.float32 else dtype
    model: Any = load_model(checkpoint, dtype=stored, device="cpu", attention="sdpa")
    every, count = sum(p.numel() for p in model.parameters()), quantise(model, device, dtype)
    for module in model.modules():
        for weight in () if isinstance(module, Linear4bit) else module.parameters(recurse=False):
            weight.data = weight.data.to(dtype if weight.dtype == stored else weight.dtype)
    model = model.to(device)
    verify_positions(model, checkpoint.positions)
    names = sorted({name.rpartition(".")[2] for name in quantised(model)})
    _logger.info(
        f"{len(quantised(model))} linear layers ({', '.join(names)}) are in 4 bits: {count:,} weights of {every:,}; everything else stays in "
        f"{str(dtype).removeprefix('torch.')}"
    )
    return model


def quantise(model: Any, device: torch.device, dtype: torch.dtype | None = None) -> int:
    """Put every linear layer of the decoder layers on the device in four bits, one after the other. How many weights they have.

    dtype: of their arithmetic; each one's own if not given.
    """
    linears = [
        (layer.get_submodule(path), last)
        for layer in decoder_layers(model)
        for name, module in layer.named_modules()
        for path, _, last in [name.rpartition(".")]
        if type(module) is nn.Linear and last not in _ROUTERS
    ]
    if not linears:
        raise UserError(
            f"--base-bits quantises linear layers, and the layers of a {model.config.model_type} model have none; leave it out"
        )
    count = 0
    for parent, last in linears:
        linear = getattr(parent, last)
        count += linear.weight.numel()
        setattr(parent, last, Linear4bit(linear.to(dtype), device))
    return count


def quantised(model: nn.Module) -> dict[str, Linear4bit]:
    """The layers of a model that are in four bits, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


def packed(model: nn.Module) -> list[int]:
    """Weights in each matrix of a model, or of a layer, that is in four bits."""
    return [each.in_features * each.out_features for each in quantised(model).values()]


def uncounted(model: nn.Module) -> int:
    """Weights of a model beyond the numbers that its parameters hold."""
    held = sum(each.weight.numel() + each.scales.numel() for each in quantised(model).values())
    return sum(packed(model)) - held


def stored_dtype(source: Checkpoint) -> torch.dtype:
    """In which a checkpoint's weights lose nothing."""
    return next((dtype for word, dtype in _HALVES.items() if source.dtypes <= {word}), torch.float32)
