"""How long a step takes: products, attention, what is computed again, elementwise work, the optimiser, the links.

in   a `Job`, a `Chip` and its `Rates`
out  `Time`: seconds of one step by part; tokens/s

Products and attention run at their own rates: at 32768 tokens a LLaMA 7B spends as long on attention as on products, and their rates
differ. Traffic between chips is hidden behind arithmetic as far as it fits there.
"""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.planner.chips import Chip, Rates
from ropewalk.planner.job import Job, hosted_bytes
from ropewalk.settings.budget import CONTENTION

#: Elementwise kernels of transformers' own layers move this much more than fused ones: fitted to one measured pair (docs/plan.md).
UNFUSED = 4.5
#: How much longer attention takes when a window of 65,536 tokens is split over many chips: smaller pieces, waiting for keys. From 5796 tokens/s on one H200
#: and 5414 on each of two (docs/results.md). What is waited for grows as the window does and attention as its square, so that longer ones lose less.
SHARED, SHARED_AT = 0.23, 65536
#: How often attention within a reach moves its queries, or as much, forward and backward: to lay stretches out as rows, to turn them round and to merge what
#: two calls give (attention_ops/sliding.py). From one H200: 62 by counting, 170 to 206 by the clock (docs/log.md, 2026-11-29).
SLIDING_PASSES = 190
#: Kernels of a layer run about three times a forward pass's launches: forward, again, and twice in the backward pass.
_PASSES = 4


@dataclass(frozen=True)
class Time:
    """Seconds of one optimiser step.

    products, attention: forward and backward, nothing recomputed. recomputed: what is done again. elementwise: norms, rotation,
    activations, additions. short: what LongCE reads in short contexts. idle: launches that arithmetic does not hide. update: the optimiser. links: traffic that arithmetic does not hide.
    tokens: of one step, over all chips. flops: of one step, counted without recomputation.
    """

    products: float
    attention: float
    recomputed: float
    elementwise: float
    idle: float
    update: float
    links: float
    tokens: float
    flops: float
    short: float = 0.0

    @property
    def seconds(self) -> float:
        arithmetic = (self.products, self.attention, self.recomputed, self.elementwise, self.short)
        return sum(arithmetic) + self.idle + self.update + self.links

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds


def step_time(job: Job, rates: Rates, chip: Chip | None = None) -> Time:
    """Time of one step.

    Args:
        job: what is done.
        rates: what the chips reach.
        chip: their links; None for one chip alone.
    """
    shape, tokens, micros = job.shape, job.tokens, job.micros
    matrix, activations = rates.matrix * rates.sustained, job.activations
    layer, head = sum(shape.products.values()) * shape.layers, shape.embedding
    one_pass = 2 * (layer + head) * tokens / matrix
    # Frozen weights get no gradient: two products instead of three.
    products = 3 * one_pass - 2 * job.unmoved * tokens / matrix
    attention = shape.attention_work(job.length) * tokens
    split = (1 + min(1.0, SHARED * SHARED_AT / job.length) * (1 - 1 / job.cp)) / rates.sustained
    forward_rate, backward_rate = rates.attention(shape.head_dim)
    forward = split * attention / forward_rate
    backward = split * 2 * attention / backward_rate
    again = _products_again(job) * tokens / matrix
    if activations.recompute:
        again += (1 - activations.shares.get("attention", 0)) * forward
    moved = _elementwise(job) * tokens / rates.bandwidth
    busy = products + forward + backward + again + moved
    idle = max(0.0, _PASSES * shape.layers * rates.overhead - busy)
    links = _links(job, chip, busy) if chip is not None and job.gpus > 1 else 0.0
    links += _host_link(job, rates, one_pass + moved * one_pass / products + forward, busy)
    return Time(
        products=micros * products,
        attention=micros * (forward + backward),
        recomputed=micros * again,
        elementwise=micros * moved,
        idle=micros * idle,
        update=_update(job, rates),
        links=micros * links,
        tokens=job.recipe.batch * job.length,
        flops=job.flops,
        short=micros * _short_contexts(job, rates),
    )


def _short_contexts(job: Job, rates: Rates) -> float:
    """Seconds of a micro batch's forward passes over short contexts (training/short_context.py); the head's products are of scored labels alone."""
    recipe, shape = job.recipe, job.shape
    if recipe.longce is None:
        return 0.0
    passes = -(-(job.length + 1 - recipe.longce) // recipe.longce_step)
    tokens = job.tokens * passes * recipe.longce / job.length
    layers = 2 * sum(shape.products.values()) * shape.layers * tokens
    products = (layers + 2 * shape.embedding * job.tokens) / (rates.matrix * rates.sustained)
    attention = shape.attention_work(recipe.longce) * tokens / (rates.attention(shape.head_dim)[0] * rates.sustained)
    return products + attention + _elementwise(job) / 4 * tokens / rates.bandwidth


def _host_link(job: Job, rates: Rates, forward: float, busy: float) -> float:
    """Seconds of a micro batch in which arithmetic waits for results on their way to the host or back; each pass hides its own direction.

    forward: seconds of the forward pass. busy: of both.
    """
    one_way = hosted_bytes(job) * job.shape.layers * job.tokens / rates.host_link
    return max(0.0, one_way - forward) + max(0.0, one_way - (busy - forward)) + 2 * CONTENTION * one_way


def _products_again(job: Job) -> float:
    """Operations a token of products computed again; the down projection's output is never asked for, but a tile computes it all the same."""
    if not job.activations.recompute:
        return 0.0
    products = {name: weights for name, weights in job.shape.products.items() if name != "down" or job.tiles > 1}
    again = sum(weights * (1 - job.activations.shares.get(name, 0.0)) for name, weights in products.items())
    return 2.0 * again * job.shape.layers


def _elementwise(job: Job) -> float:
    """Bytes a token that elementwise kernels move: forward, again, and about twice that in the backward pass."""
    shape, b = job.shape, job.regime.compute
    d, inner = shape.width, shape.active * shape.inner
    norms_and_sums = 2 * 2 * d + 2 * 3 * d
    rotation = 2 * (shape.query_width + shape.kv_width)
    activation = (3 if shape.gated else 2) * inner
    layer = (norms_and_sums + rotation + activation) * b * shape.layers * (1 if job.fused else UNFUSED)
    logits = shape.vocabulary * 4 * (4 if job.fused else 8)
    sliding = SLIDING_PASSES * b * shape.query_width * shape.sliding * job.slides_alone
    return layer * (4 if job.activations.recompute else 3) + sliding + logits


def _update(job: Job, rates: Rates) -> float:
    """Seconds of clipping and AdamW: gradients read twice and written, everything read, weights and states written."""
    regime, trained = job.regime, job.trained / job.shards
    clipping, gradient = 3 * regime.gradient, regime.gradient
    moving = (gradient + 2 * regime.weight + 2 * (regime.states + regime.host)) / rates.update
    # States on the host come and go at once, while weights move.
    return trained * (clipping / rates.update + max(moving, regime.host / rates.host_link))


def _links(job: Job, chip: Chip, busy: float) -> float:
    """Seconds of a micro batch's traffic that its arithmetic does not hide.

    Sharded weights are gathered for the forward pass and again for the backward pass, and gradients are scattered once, in float32; between
    copies of the weights each chip's own share of them is summed. Context parallelism passes keys and values round the ring: once forward, twice
    backward. Across machines the network is the narrower way.
    """
    shape, regime = job.shape, job.regime
    weights = shape.parameters * (1 - 1 / job.shards) * (2 * regime.compute + 4)
    bandwidth = chip.link if job.shards <= chip.peers else min(chip.link, chip.network * chip.peers)
    seconds = weights / bandwidth
    if job.replicas > 1:
        all_reduced = 2 * (1 - 1 / job.replicas) * 4 * shape.parameters / job.shards
        seconds += all_reduced / (chip.link if job.gpus <= chip.peers else chip.network)
    if job.cp > 1:
        pairs = 2 * shape.kv_width * regime.compute * job.micro * job.length * shape.layers * (job.cp - 1) / job.cp
        seconds += 3 * pairs / (chip.link if job.cp <= chip.peers else chip.network)
    hidden = 0.9 * busy  # the first gather and the last scatter have nothing to hide behind
    return max(0.0, seconds - hidden) + 0.02 * min(seconds, hidden)
