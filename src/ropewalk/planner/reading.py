"""What reading costs, without training: measuring a model at its window, and serving it there.

in   a model's shape, a window, a chip
out  `Measuring`: memory of a forward pass on each chip, and how many chips hold the model; `Serving`: the KV cache, and the operations of a prompt

A pass keeps nothing for a backward pass: one layer's results are there at a time. Sharded layers (distributed/spread.py) are gathered one
ahead of the other; embedding, head and norms are whole on every chip.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.memory import CONTEXT, CPU_CONTEXT, GIB
from ropewalk.planner.shape import Shape
from ropewalk.settings.budget import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, LOGIT_BYTES, WHOLE_SHARE

#: Widths of the residual stream that are there while a layer's MLP or attention computes: what enters it, normalised too, and what comes out.
#: LLaMA 7B at 32768 tokens took 15.7 GiB on one H200 (docs/results.md); 16.1 are counted.
_STREAMS = 4


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
    on_cpu = chip.name == "cpu"
    size, least = (4, CPU_BATCH_TOKENS) if on_cpu else (2, GPU_BATCH_TOKENS)
    layers = size * shape.layers * shape.layer_weights
    rest, context = size * shape.parameters - layers, CPU_CONTEXT if on_cpu else CONTEXT
    # The gate, up and their product; or queries and keys before and after rotation, values, and what attention makes of them.
    inside = max(3 * shape.active * shape.inner, 3 * shape.query_width + 3 * shape.kv_width)
    widths = _STREAMS * shape.width + inside
    results = float(size * max(window, least) * widths + 2 * LOGIT_BYTES)
    one = Measuring(rest + layers, 0.0, results, context, chips=1)
    memory, gathered = chip.memory * GIB, 2.0 * size * shape.layer_weights
    if one.total <= memory and one.weights <= WHOLE_SHARE * memory:
        return one
    room = memory - (rest + gathered + results + context)
    if room <= 0 or on_cpu:  # processes of one machine share its memory
        return Measuring(rest + layers, 0.0, results, context, chips=0)
    chips = max(2, -int(-layers // room))
    return Measuring(rest + layers / chips, gathered, results, context, chips)


@dataclass(frozen=True)
class Serving:
    """What one prompt that fills the window costs a server, in bfloat16.

    token_bytes: keys and values of a token, in all layers. window_bytes, before_bytes: of the cache at the new window and at the model's own;
    sliding layers keep no more than they see. flops: of reading the prompt. first_token: seconds of that on one chip, at the rates of the plan;
    None where none are known.
    """

    token_bytes: float
    window_bytes: float
    before_bytes: float
    flops: float
    first_token: float | None


def serving(shape: Shape, window: int, rates: Rates) -> Serving:
    """What serving at a window costs. Keys and values are counted by their own heads, which groups of queries share."""
    layer = 2.0 * 2 * shape.kv_width  # a key and a value, of two bytes each number

    def cache(tokens: int) -> float:
        attended = min(shape.sliding_window or tokens, tokens)
        return layer * ((shape.layers - shape.sliding) * tokens + shape.sliding * attended)

    # The head is asked for the last position alone.
    products = 2.0 * (shape.active_weights - shape.embedding) * window + 2.0 * shape.embedding
    attention = shape.attention_flops(window) * window
    seconds = products / rates.matrix + attention / rates.attention_forward
    return Serving(
        token_bytes=layer * shape.layers,
        window_bytes=cache(window),
        before_bytes=cache(shape.window),
        flops=products + attention,
        first_token=seconds if rates.known else None,
    )
