"""What reading costs, without training: measuring a model at its window, and serving it there.

in   a model's shape, a window, a chip
out  `Measuring`: memory of a forward pass on each chip, and how many chips hold the model; `Serving`: weights and KV cache, the chips that hold them, the speed that bandwidth allows

A pass keeps nothing for a backward pass: one layer's results are there at a time. Sharded layers (distributed/spread.py) are gathered one
ahead of the other; embedding, head and norms are whole on every chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.memory import CONTEXT, CPU_CONTEXT, GIB
from ropewalk.planner.shape import Shape
from ropewalk.settings.budget import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, LOGIT_BYTES, sliding_bytes

#: Widths of the residual stream that are there while a layer's MLP or attention computes: what enters it, normalised too, and what comes out.
#: LLaMA 7B at 32768 tokens took 15.7 GiB on one H200 (docs/results.md); 16.1 are counted.
_STREAMS = 4
#: Share of a chip's memory that a server takes: vLLM's own, if not told otherwise (`--gpu-memory-utilization`, docs.vllm.ai, engine arguments).
SERVED_SHARE = 0.9


@dataclass(frozen=True)
class Measuring:
    """Bytes on each chip while the longest window is read.

    weights: of the layers here, and of what is whole everywhere. gathered: of layers that are whole for a moment, where they are sharded.
    results: of one layer, for all tokens of a pass, and a chunk of logits. context: outside of the allocator. chips: the fewest that hold the
    model; 0 where no number does.
    """

    weights: float
    gathered: float
    results: float
    context: float
    chips: int

    @property
    def total(self) -> float:
        return self.weights + self.gathered + self.results + self.context


def measuring(shape: Shape, window: int, chip: Chip) -> Measuring:
    """What measuring at a window takes: on one chip if it holds the model, else on each of as few as do; on one where no number does."""
    size, least = (4, CPU_BATCH_TOKENS) if chip.on_cpu else (2, GPU_BATCH_TOKENS)
    layers = size * shape.layers * shape.layer_weights
    rest, context = size * shape.parameters - layers, CPU_CONTEXT if chip.on_cpu else CONTEXT
    # The gate, up and their product; or queries and keys before and after rotation, values, and what attention makes of them.
    inside = max(3 * shape.active * shape.inner, 3 * shape.query_width + 3 * shape.kv_width)
    widths = _STREAMS * shape.width + inside
    results = float(size * max(window, least) * widths + 2 * LOGIT_BYTES)
    if shape.slides(window):
        results += sliding_bytes(window, 1, shape.query_width, size, alone=shape.slides_alone)
    one = Measuring(rest + layers, 0.0, results, context, chips=1)
    memory, gathered = chip.memory * GIB, 2.0 * size * shape.layer_weights
    if one.total <= memory:  # by a process alone, which shards nothing whatever share the weights take
        return one
    room = memory - (rest + gathered + results + context)
    if room <= 0 or chip.on_cpu:  # processes of one machine share its memory
        return Measuring(rest + layers, 0.0, results, context, chips=0)
    chips = max(2, -int(-layers // room))
    return Measuring(rest + layers / chips, gathered, results, context, chips)


@dataclass(frozen=True)
class Serving:
    """What serving prompts that fill the window costs, in bfloat16.

    Attributes:
        token_bytes: keys and values of a token, in all layers. window_bytes, before_bytes: of the cache at the new window and at the model's
            own; sliding layers keep no more than they see.
        weights: bytes of all weights.
        chips: the fewest that hold weights and one full window, heads shared out evenly among them; 0 where no number does.
        windows: full windows that they hold at a time.
        flops: of reading the prompt. first_token: seconds of that on these chips; None where no rates are known.
        tokens_per_second: of one stream behind a full window: each token reads the weights that it uses, and the cache, at the
            memory's bandwidth, which nothing reaches; None where that is not known. together: of all full windows at a time, whose steps read
            the weights once.
    """

    token_bytes: float
    window_bytes: float
    before_bytes: float
    weights: float
    chips: int
    windows: int
    flops: float
    first_token: float | None
    tokens_per_second: float | None
    together: float | None


def _layer_bytes(shape: Shape) -> float:
    """A key and a value of one token in one layer, of two bytes each number."""
    return 2.0 * 2 * shape.kv_width


def cache_bytes(shape: Shape, tokens: int) -> float:
    """Keys and values of one request of so many tokens, in 16 bits; sliding layers keep no more than they see."""
    attended = min(shape.sliding_window or tokens, tokens)
    return _layer_bytes(shape) * ((shape.layers - shape.sliding) * tokens + shape.sliding * attended)


def serving(shape: Shape, window: int, chip: Chip, rates: Rates) -> Serving:
    """What serving at a window costs. Keys and values are counted by their own heads, which groups of queries share."""
    # The head is asked for the last position alone.
    products = 2.0 * (shape.active_weights - shape.embedding) * window + 2.0 * shape.embedding
    attention = shape.attention_flops(window) * window
    seconds = products / rates.matrix + attention / rates.attention(shape.head_dim)[0]
    weights, room = 2.0 * shape.parameters, SERVED_SHARE * chip.memory * GIB
    counts = [count for count in range(1, 1 if chip.on_cpu else shape.heads + 1) if shape.heads % count == 0] or [1]

    def whole_cache(count: int) -> float:
        """Of one window over all chips, each of which has one head at least."""
        return cache_bytes(shape, window) * max(1.0, count / shape.kv_heads)

    chips = next((count for count in counts if weights + whole_cache(count) <= count * room), 0)
    windows = int((chips * room - weights) // whole_cache(chips)) if chips else 0

    def rate(streams: int) -> float | None:
        read = 2.0 * shape.active_weights + streams * whole_cache(chips)
        return streams * chips * chip.bandwidth / read if chips and chip.bandwidth else None

    return Serving(
        token_bytes=_layer_bytes(shape) * shape.layers,
        window_bytes=cache_bytes(shape, window),
        before_bytes=cache_bytes(shape, shape.window),
        weights=weights,
        chips=chips,
        windows=windows,
        flops=products + attention,
        first_token=seconds / chips if chips and rates.known else None,
        tokens_per_second=rate(1),
        together=rate(windows),
    )
