"""How fast a step was, against what the device can do.

in   a model's shape, a window, a device
out  floating-point operations a token; the rate of a large matrix product measured here and now; their ratio, MFU
"""

from __future__ import annotations

import functools
import resource
import statistics
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import torch

from ropewalk.model.architecture import decoder_of
from ropewalk.model.devices import device_name
from ropewalk.model.layers import layout_of, query_width
from ropewalk.planner.chip_names import named
from ropewalk.planner.chips import Chip, mfu
from ropewalk.planner.shape import needed_flops
from ropewalk.records import Step
from ropewalk.training import low_bits

#: Edge of the square product that is timed, and how often: 1.1e12 FLOPs each, long enough to hide the launch.
_EDGE = 8192
_TIMES = 20


def flops_per_token(model: Any, window: int) -> float:
    """3 x (2 x parameters without the embedding + 4 x layers x keys x width), of frozen parameters 2 x: forward and backward, nothing recomputed.

    A weight is one multiplication and one addition a token. Attention's two products cost 4 x keys x width a layer and token, width being heads x
    head size, and a query seeing half the window on average, or less where a layer slides. The backward pass is twice the forward. Looking an
    embedding up costs nothing; an output head that shares its weights is a product all the same.
    """
    body = model.get_base_model() if hasattr(model, "get_base_model") else model
    embedding = body.get_input_embeddings().weight
    head = body.get_output_embeddings()
    parts = [decoder_of(body), *([] if head is None else [head])]  # of a multimodal model, the language model
    counted = {p: p.numel() for part in parts for name, p in part.named_parameters() if "lora_" not in name}
    if head is None or head.weight is not embedding:
        counted.pop(embedding, None)
    in_codes = low_bits.uncounted(body)
    frozen = sum(size for p, size in counted.items() if not p.requires_grad) + in_codes
    attention = 4.0 * layout_of(model).keys_seen(window) * query_width(model)
    return needed_flops(sum(counted.values()) + in_codes, frozen, attention)


@functools.cache
def matrix_rate(device: torch.device, dtype: torch.dtype) -> float | None:
    """FLOP/s of a large square matrix product, measured once; None on a CPU, whose rate moves with whatever else runs there."""
    if device.type != "cuda":
        return None
    a = torch.randn(_EDGE, _EDGE, device=device, dtype=dtype)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize(device)
    begin = time.perf_counter()
    for _ in range(_TIMES):
        a @ a
    torch.cuda.synchronize(device)
    return _TIMES * 2 * _EDGE**3 / (time.perf_counter() - begin)


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: on the GPU, or by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reserved_bytes(device: torch.device) -> int:
    """The most that PyTorch's allocator held of a GPU so far, holes between blocks included; 0 on a CPU."""
    return torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0


def tight_allocations(device: torch.device) -> int:
    """How often PyTorch got memory of a GPU only after it gave back every block that it held unused: the last thing before it fails."""
    return torch.cuda.memory_stats(device).get("num_alloc_retries", 0) if device.type == "cuda" else 0


@dataclass(frozen=True)
class StepResult:
    """Of one step: loss in nats a token, gradient norm before clipping, learning rate, tokens read, how often it was begun again for memory."""

    loss: float
    gradient_norm: float
    learning_rate: float
    tokens: int
    retries: int


@dataclass
class Pace:
    """How fast a run goes, as its rows say it.

    device: of this process. flops: a token. rate: FLOP/s of a large product on one device; None where MFU is not told. steps: of the
    whole run. devices: like this one, that take part.
    """

    device: torch.device
    flops: float
    rate: float | None
    steps: int
    devices: int = 1
    _durations: deque[float] = field(default_factory=lambda: deque(maxlen=20))

    @functools.cached_property
    def _chip(self) -> Chip | None:
        return named(device_name(self.device))

    def row(self, step: int, result: StepResult, seconds: float) -> Step:
        """One step on record."""
        self._durations.append(seconds)
        speed = result.tokens / seconds
        shares = mfu(speed * self.flops, self._chip, self.rate, self.devices)
        return Step(
            step=step,
            loss=result.loss,
            learning_rate=result.learning_rate,
            grad_norm=result.gradient_norm,
            tokens=result.tokens,
            tokens_per_second=speed,
            seconds=seconds,
            mfu=shares.measured,
            mfu_of_data_sheet=shares.sheet,
            peak_bytes=peak_bytes(self.device),
            reserved_bytes=reserved_bytes(self.device),
            seconds_left=(self.steps - step) * statistics.fmean(self._durations),
            retries=result.retries,
        )


def spare_bytes(device: torch.device) -> int:
    """Bytes of a GPU that were free all the time so far: what PyTorch never had in use, holes between its blocks apart."""
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.max_memory_allocated(device)
    return free + max(0, unused)
