"""How much memory a step needs on each chip, part by part, and when.

in   a `Job`
out  `Memory`: bytes by part at the moment of the step when most is held

The largest of these moments counts. At the end of the forward pass all kept activations exist, and the loss's chunk of logits. In the
backward pass activations are freed layer by layer while gradients are made. At its end all gradients exist, and one layer's workspace.
With several micro batches a step, gradients of the first exist during all others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ropewalk.errors import addresses_are_limited
from ropewalk.planner.chips import Chip
from ropewalk.planner.job import NONE, Job, hosted_bytes, hosted_layer_bytes, kept_bytes, recomputed_bytes, tensors
from ropewalk.settings.budget import (
    CHUNK_ELEMENTS,
    CPU_CHUNK_ELEMENTS,
    CPU_LOGIT_BYTES,
    ON_THE_WAY,
    calls_bytes,
    mask_bytes,
    shared_window_bytes,
    unpacked_bytes,
    unsharded_bytes,
)

GIB = 2**30
#: What the driver and the libraries hold outside of PyTorch's allocator: CUDA context, cuBLAS and NCCL buffers. An assumption.
CONTEXT = 1.0 * GIB
#: cuBLAS workspaces and the like that PyTorch's allocator counts.
WORKSPACE = 0.1 * GIB
#: What PyTorch's allocator reserves beyond what is in use, because blocks do not fit each other. Measured on one H100 with the expandable segments
#: that the command line asks for: 0.08 to 0.35 GiB of 77 (docs/log.md); beside them 0.8 GiB of `CONTEXT` were in use.
FRAGMENTATION = 0.005
#: The same of a CPU process, which gives freed blocks back to its own heap: of all that is held; and where layers compute again, of all their results, since each
#: layer's input lies between what that layer gave back. Of blocks below 32 MiB: to larger ones glibc gives a mapping of their own, which the system has
#: again at once. Other allocators were not measured. Under a limit of addresses all threads have one heap (cli/shortage.py), and layers that compute again
#: leave next to none in that.
CPU_FRAGMENTATION, CPU_RECOMPUTED_FRAGMENTATION, ONE_HEAP_FRAGMENTATION, HEAP_BLOCK = 0.32, 0.45, 0.06, 2**25
#: And beside adapters, and those on four bits, where one heap is hardly better: a product's two ways, their sum and unpacked weights are given back between
#: results that stay.
ADAPTER_FRAGMENTATION, ADAPTER_RECOMPUTED_FRAGMENTATION = 0.85, 0.6
FOUR_BIT_FRAGMENTATION, FOUR_BIT_RECOMPUTED_FRAGMENTATION = 1.1, 1.55
#: So many times those where everything is kept and a step has several micro batches, each of which begins among the holes of the one before.
NEXT_FRAGMENTATION = 1.3
#: And what such a process takes for Python, torch and transformers. Both measured (docs/plan.md, the CPU's rows; docs/log.md, 2026-11-30).
CPU_CONTEXT = 0.48 * GIB

#: How far plans of memory may be from what is measured, as a share of the plan: tests/planner/test_points.py holds every measured point to it.
PLAN_ERROR = 0.10


@dataclass(frozen=True)
class Memory:
    """Bytes on one chip at the moment when most is held.

    weights, gradients, states: of the model and its optimiser. cast: weights in the precision of the arithmetic. activations: kept from
    forward to backward. logits: the loss's chunk and gradients. workspace: what one layer's backward pass needs for itself.
    context: outside of the allocator. slack: between blocks. host: in the host's memory, for each chip.
    moment: "forward", "backward", "end" (of the backward pass) or "update", whichever it is.
    """

    weights: float
    gradients: float
    states: float
    cast: float
    activations: float
    logits: float
    workspace: float
    context: float
    slack: float
    host: float
    moment: str

    @property
    def allocated(self) -> float:
        """What `torch.cuda.max_memory_allocated` would say."""
        return self.weights + self.gradients + self.states + self.cast + self.activations + self.logits + self.workspace

    @property
    def total(self) -> float:
        """What the chip must have."""
        return self.allocated + self.slack + self.context


def step_memory(job: Job, *, cpu: bool = False) -> Memory:
    """Bytes of one training step on each chip, or of one process on a CPU (`cpu`), at the moment when most is held."""
    shape, regime = job.shape, job.regime
    # Adapters are trained in float32 whatever the precision of the weights they sit on (training/lora.py).
    adapters = job.recipe.mode == "lora"
    weight, gradient = (4, 4) if adapters else (regime.weight, regime.gradient)
    moments_of_adam = 8 if adapters and regime.states == 4 else regime.states
    weights = (job.trained * weight + job.frozen_bytes * adapters) / job.shards
    gradients, states = job.trained * gradient / job.shards, job.trained * moments_of_adam / job.shards
    moment, parts = max(_moments(job, gradients, cpu=cpu).items(), key=lambda entry: sum(entry[1].values()))
    parts["workspace"] += 0.0 if cpu else WORKSPACE
    held = dict(weights=weights, states=states, **parts)
    return Memory(
        **held,
        context=CPU_CONTEXT if cpu else CONTEXT,
        slack=_holes(job, held) if cpu else FRAGMENTATION * sum(held.values()),
        host=job.trained * regime.host / job.shards + shape.layers * hosted_bytes(job) * job.tokens,
        moment=moment,
    )


def fits(job: Job, chip: Chip) -> bool:
    """Whether the chip has the memory that the job needs, and the host what is kept there."""
    need = step_memory(job)
    return need.total <= chip.memory * GIB and need.host <= job.host


def _moments(job: Job, gradients: float, *, cpu: bool) -> dict[str, dict[str, float]]:
    """Moment of the step → bytes of each part that comes and goes; `gradients` is the size of all of them."""
    held = job.micros > 1  # gradients of former micro batches
    layer_kept, layers = kept_bytes(job) * job.tokens, job.shape.layers
    on_the_way = min(job.activations.hosted * layers, ON_THE_WAY) * hosted_layer_bytes(job) * job.tokens
    kept = layers * (layer_kept - hosted_bytes(job) * job.tokens) + on_the_way
    gathered_forward, gathered_layer = _copies(job)
    # Made once, before the layers, and theirs until the last of them is done.
    mask = mask_bytes(job.length, 0, 0) if job.shape.is_masked(job.length) else 0.0
    layer = _workspace(job) + mask
    return {
        "forward": dict(
            gradients=gradients if held else 0.0,
            cast=gathered_forward,
            activations=kept,
            logits=loss_bytes(job, cpu=cpu),
            workspace=mask,
        ),
        "backward": dict(
            gradients=gradients if held else _head_gradient(job),
            cast=gathered_layer,
            activations=kept,
            logits=0.0,
            workspace=layer,
        ),
        "end": dict(
            gradients=gradients if held else gradients - _last_gradients(job),
            cast=gathered_layer,
            activations=max(layer_kept, on_the_way),
            logits=0.0,
            workspace=layer,
        ),
        "update": dict(gradients=gradients, cast=0.0, activations=0.0, logits=0.0, workspace=0.0),
    }


def _holes(job: Job, held: dict[str, float]) -> float:
    """What lies free between a CPU process's blocks, of the parts that are held."""
    of_results = _in_heap([size * job.tokens for size in tensors(job).values()])
    share, again = CPU_FRAGMENTATION, CPU_RECOMPUTED_FRAGMENTATION
    if job.packed:
        share, again = FOUR_BIT_FRAGMENTATION, FOUR_BIT_RECOMPUTED_FRAGMENTATION
    elif job.recipe.mode == "lora":
        share, again = ADAPTER_FRAGMENTATION, ADAPTER_RECOMPUTED_FRAGMENTATION
    elif addresses_are_limited():
        again = ONE_HEAP_FRAGMENTATION
    if job.activations.recompute:
        return again * of_results * kept_bytes(replace(job, activations=NONE)) * job.tokens * job.shape.layers
    of_weights = _in_heap([float(weights * job.regime.weight) for weights in job.shape.products.values()])
    of_logits = _in_heap([4.0 * min(job.tokens * job.shape.vocabulary, CPU_CHUNK_ELEMENTS)])
    weights = held["weights"] + held["states"] + held["gradients"] + held["cast"]
    results = held["activations"] + held["workspace"]
    share *= NEXT_FRAGMENTATION if job.micros > 1 else 1
    return share * (of_weights * weights + of_results * results + of_logits * held["logits"])


def _in_heap(blocks: list[float]) -> float:
    """The share of blocks of so many bytes that the heap has."""
    return sum(size for size in blocks if size < HEAP_BLOCK) / sum(blocks)


def loss_bytes(job: Job, *, cpu: bool = False) -> float:
    """What the loss takes while it is computed: the last norm, hidden states and their gradient, logits, the head's gradient."""
    shape, b = job.shape, job.regime.compute
    if job.whole_logits:  # the logits, their float32 log-softmax and two gradients of it (transformers' loss)
        return (b + 4 + 4 + 4) * job.tokens * shape.vocabulary
    # On a GPU float32 logits and the copy that logsumexp makes.
    most, each = (CPU_CHUNK_ELEMENTS, CPU_LOGIT_BYTES) if cpu else (CHUNK_ELEMENTS, 8)
    chunk = min(job.tokens * shape.vocabulary, max(128 * shape.vocabulary, most))
    states = (tensors(job)["norms"] / 2 + job.stream * shape.width) * job.tokens
    head = 0 if job.recipe.mode == "lora" else shape.embedding
    # The head's gradient summed in float32, one chunk's beside it, the cast head.
    return states + each * chunk + head * (4 + b) + shape.embedding * (b if b != job.regime.weight else 0)


def _head_gradient(job: Job) -> float:
    """Of the gradients, only the head's exists when the backward pass begins with the last layer."""
    return 0.0 if job.recipe.mode == "lora" else job.shape.embedding * job.regime.gradient / job.shards


def _last_gradients(job: Job) -> float:
    """Gradients that do not exist yet while the first layer runs backward: its own and the embedding's, if that is not the head's."""
    if job.recipe.mode == "lora":
        return job.shape.embedding * 4 / job.shards
    late = job.shape.layer_weights + (0 if job.shape.tied else job.shape.embedding)
    return late * job.regime.gradient / job.shards


def _copies(job: Job) -> tuple[float, float]:
    """Bytes of weights in the precision of the arithmetic: through the forward pass, and while one layer runs backward."""
    shape, regime = job.shape, job.regime
    if job.gpus == 1:  # the embedding is looked up, not multiplied
        layer = job.copied(job.trained_of_layer)
        return shape.layers * layer, layer
    # Sharded: this layer and the next, gathered, beside the embedding and the head, which stay for the whole micro batch. A layer's
    # gradient is whole before it is scattered, and is summed in float32.
    tables = shape.embedding * (1 if shape.tied else 2)
    return (2 * shape.layer_weights + tables) * regime.compute, unsharded_bytes(
        shape.layer_weights, tables, regime.compute
    )


def _workspace(job: Job) -> float:
    """Bytes that one layer's backward pass needs beyond what was kept: its tensors computed again, and gradients of a few of them."""
    every = tensors(job)
    # A tile is not compiled, and has three gradients of its width and the activation beside what is computed again.
    widths = 3 + job.fused if job.tiles > 1 else 2 - job.fused
    gradients = every["up"] / job.tiles * widths + 2 * every["input"]
    # One weight gradient in the precision of the arithmetic before it is added to the others.
    largest = max(job.shape.products.values()) / job.shape.active * job.regime.compute
    summed = 0.0
    # Of the MLP's weights, over tiles: in float32, and a tile's. Of a sharded layer as much is reckoned with as whole gradients.
    if job.tiles > 1 and job.recipe.mode != "lora" and job.gpus == 1:
        mlp = sum(job.shape.products.get(name, 0.0) for name in ("gate", "up", "down"))
        summed = mlp * (4 + job.regime.compute)
    unpacked = unpacked_bytes(job.packed, job.regime.compute, compiled=job.fused)
    shape, gathered = job.shape, 0.0
    if job.cp > 1:
        gathered = shared_window_bytes(job.tokens * job.cp, shape.kv_width, shape.query_width)
    if job.slides_alone:
        # When attention's turn comes, those of the MLP and their gradients are gone.
        gone = (
            sum(every[name] for name in ("gate", "up", "act", "product")) / job.tiles + gradients - 2 * every["input"]
        )
        calls = calls_bytes(job.tokens, shape.query_width, job.regime.compute)
        gathered = max(0.0, calls - gone * job.tokens)
    return (
        (recomputed_bytes(job) + gradients) * job.tokens
        + largest * (job.regime.compute != job.regime.gradient)
        + summed
        + unpacked
        + gathered
    )
