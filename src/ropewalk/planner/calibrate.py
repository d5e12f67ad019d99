"""Ten seconds, or a busy machine's several times as many, on the machine at hand: what its products, attention and memory reach at a model's own sizes.

in   a `Job`
out  a `Chip` and its `Rates`, measured

Rates depend on shapes, so the model's own are timed: each of its products forward and backward, its attention at its window, a layer's
elementwise work, the optimiser's pass. Each is repeated for its share of the time, and the median counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from ropewalk.planner.chip_names import named
from ropewalk.planner.chips import OVERHEAD, SUSTAINED, Chip, Rates, cpu_of_memory
from ropewalk.planner.job import Job
from ropewalk.planner.memory import GIB
from ropewalk.planner.speed import UNFUSED
from ropewalk.settings.budget import CPU_CHUNK_ELEMENTS, GPU_CHUNK_BYTES, memory_here

#: Most tokens that are timed at once; more make no product faster.
_TOKENS = {"cuda": 16384, "cpu": 4096}
#: Most operations that are timed at once on a CPU, where those of a model of seven billion weights are minutes: about half a second.
_CPU_FLOPS = 3e10


def gpus() -> int:
    """How many GPUs torch sees."""
    return torch.cuda.device_count()


def has_bfloat16() -> bool:
    """Whether the GPU here knows that format; others are emulated, and what PyTorch says of itself counts those too."""
    return torch.cuda.get_device_capability() >= (8, 0)


def present(job: Job, *, seconds: float = 10.0, clock: Callable[[], float] = time.perf_counter) -> tuple[Chip, Rates]:
    """The chip at hand and what it reaches for this job.

    Args:
        job: whose sizes are timed.
        seconds: in all, about.
        clock: `time.process_time` leaves out what other programs took of a shared CPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    begun = time.perf_counter()  # which a busy machine makes longer
    dtype = torch.bfloat16 if job.regime.compute == 2 else torch.float32
    bench = _Bench(device, dtype, seconds / 5, clock)
    matrix = _products(job, bench)
    forward, backward = _attention(job, bench)
    bandwidth = _elementwise(job, bench)
    on_gpu, chip = device.type == "cuda", _chip(device)
    rates = Rates(
        matrix=matrix,
        attention_forward=forward,
        attention_backward=backward,
        bandwidth=bandwidth,
        update=_update(job, bench),
        overhead=OVERHEAD if on_gpu else 0.0,
        sustained=SUSTAINED if on_gpu else 1.0,
        host_link=chip.host_link or 25e9,
        source=f"measured here in {time.perf_counter() - begun:.0f} seconds on {torch.cuda.get_device_name() if on_gpu else _cpu()}",
    )
    return chip, rates


def _cpu() -> str:
    threads = torch.get_num_threads()
    return f"this CPU with {threads} thread{'s' if threads > 1 else ''}, as busy as it is now: other programs that come or go change every time below"


def _chip(device: torch.device) -> Chip:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return card(properties.name, properties.total_memory)
    return cpu_here()


def cpu_here() -> Chip:
    """This machine without a GPU."""
    return cpu_of_memory(memory_here() / GIB, "this machine")


def card(name: str, size: int) -> Chip:
    """A GPU of this machine, by its driver's name, of `size` bytes."""
    known = named(name) or Chip(name, 0.0, 0.0, 0.0, 32e9, 12.5e9, "")
    return replace(known, memory=size / GIB, source="this machine")


class _Bench:
    """Times things on one device: each for its share of the budget, the median of its runs."""

    def __init__(self, device: torch.device, dtype: torch.dtype, budget: float, clock: Callable[[], float]) -> None:
        self.device, self.dtype, self.budget, self.clock = device, dtype, budget, clock

    def random(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, device=self.device, dtype=self.dtype)

    def tokens(self, job: Job) -> int:
        return max(16, min(int(job.tokens), _TOKENS[self.device.type]))

    def seconds(self, call: Callable[[], object], share: float = 1.0) -> float:
        """Median seconds of one call."""
        call()
        self._wait()
        spent, runs = 0.0, []
        while (len(runs) < 3 and spent < 3 * self.budget * share) or (spent < self.budget * share and len(runs) < 200):
            begin = self.clock()
            call()
            self._wait()
            runs.append(self.clock() - begin)
            spent += runs[-1]
        return sorted(runs)[len(runs) // 2]

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _products(job: Job, bench: _Bench) -> float:
    """FLOP/s over one layer's products and the head's share of them, forward and backward."""
    shape, tokens = job.shape, bench.tokens(job)
    d, q, kv = shape.width, shape.query_width, shape.kv_width
    counts: dict[tuple[int, int], float] = {}
    pairs = [(d, q), (d, kv), (d, kv), (q, d), (d, shape.inner), (shape.inner, d)]
    pairs += [(d, shape.inner)] if shape.gated else []
    for pair in pairs:
        counts[pair] = counts.get(pair, 0) + (shape.active if shape.inner in pair else 1) * shape.layers
    counts[(d, shape.vocabulary)] = counts.get((d, shape.vocabulary), 0) + 1
    spent = flops = 0.0  # a token
    for (rows, columns), times in counts.items():
        # As the loss does, never more logits than this at a time.
        timed = max(
            16, min(tokens, (GPU_CHUNK_BYTES // 2 if bench.device.type == "cuda" else CPU_CHUNK_ELEMENTS) // columns)
        )
        if bench.device.type == "cpu":
            timed = max(16, min(timed, int(_CPU_FLOPS / (3 * 2 * rows * columns))))
        x, w, g = bench.random(timed, rows), bench.random(columns, rows), bench.random(timed, columns)
        seconds = bench.seconds(lambda x=x, w=w, g=g: (x @ w.t(), g @ w, g.t() @ x), 1 / len(counts))
        spent += times * seconds / timed
        flops += times * 3 * 2 * rows * columns
    return flops / spent


def _attention(job: Job, bench: _Bench) -> tuple[float, float]:
    """FLOP/s of causal attention forward, and backward counted as twice that."""
    shape = job.shape
    length = min(job.length, 32768 if bench.device.type == "cuda" else 4096)
    heads, kv_heads = shape.heads, shape.kv_heads
    if bench.device.type == "cpu":  # heads are alike: some of them, each with keys of its own, show the rate
        head_flops = 3 * 2.0 * length * length * shape.head_dim
        heads = kv_heads = max(1, min(heads, int(_CPU_FLOPS / head_flops)))
    q = bench.random(1, heads, length, shape.head_dim).requires_grad_()
    k, v = (bench.random(1, kv_heads, length, shape.head_dim).requires_grad_() for _ in range(2))

    def attend() -> torch.Tensor:
        return nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=kv_heads != heads)

    upstream = torch.randn_like(attend())
    forward = bench.seconds(attend, 0.4)
    both = bench.seconds(lambda: attend().backward(upstream), 0.6)
    flops = 2.0 * length * length * heads * shape.head_dim
    return flops / forward, 2 * flops / max(both - forward, 0.1 * both)


def _elementwise(job: Job, bench: _Bench) -> float:
    """Bytes/s of a layer's norms, additions and activation, as speed.py counts their traffic."""
    shape, tokens = job.shape, bench.tokens(job)
    if bench.device.type == "cuda":  # fused kernels stream; a plain addition shows how fast
        a, b = bench.random(2**28), bench.random(2**28)
        return 3 * a.numel() * a.element_size() / bench.seconds(lambda: torch.add(a, b, out=a))
    d, inner = shape.width, shape.inner
    x, y = bench.random(tokens, d).requires_grad_(), bench.random(tokens, d).requires_grad_()
    gate, up = (bench.random(tokens, inner).requires_grad_() for _ in range(2))
    weight = torch.ones(d, requires_grad=True)

    def norm(h: torch.Tensor) -> torch.Tensor:
        return weight * (h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-6))

    def work() -> None:
        out = norm(x + y)
        product = nn.functional.silu(gate) * up
        torch.autograd.backward([out, product], [out.detach(), product.detach()])

    # Half of the norms and additions, all of the activation; forward and about twice that backward; by speed.py's measure.
    counted = 3 * (2 * d + 3 * d + 3 * inner) * tokens * 4 * UNFUSED
    return counted / bench.seconds(work)


def _update(job: Job, bench: _Bench) -> float:
    """Bytes/s of AdamW's pass."""
    size = min(job.trained, 2**27 if bench.device.type == "cuda" else 2**22)
    weights = nn.Parameter(torch.zeros(size, device=bench.device))
    weights.grad = torch.zeros_like(weights)
    optimizer = torch.optim.AdamW([weights], lr=1e-5, fused=True)
    return size * 28 / bench.seconds(optimizer.step, 0.5)
