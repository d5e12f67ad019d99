"""What is planned: a model's shape, a training recipe, and how they are laid over the chips.

in   a shape, and the recipe out of the settings of a training run
out  a `Job`; the tensors that the backward pass of one layer needs, and which of them are kept
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from ropewalk.errors import UserError
from ropewalk.planner.shape import Shape
from ropewalk.settings.budget import EIGHT_BIT_MOMENTS, FOUR_BITS, copied_bytes, mlp_tiles, stream_size
from ropewalk.settings.recipe import Recipe


@dataclass(frozen=True)
class Regime:
    """Bytes a trained weight (training/optimizer.py): itself, its gradient, its optimiser states; on the host; in arithmetic."""

    weight: float
    gradient: float
    states: float
    compute: int
    host: float = 0.0


def regime(precision: str, optimizer: str) -> Regime:
    """The regime of a precision and an optimiser, by the names of `TrainSettings`.

    Raises:
        UserError: no such precision or optimiser, or two that do not go together.
    """
    plain = {
        "float32": Regime(4, 4, 8, compute=4),
        "bfloat16": Regime(4, 4, 8, compute=2),
        "bfloat16-stochastic": Regime(2, 2, 4, compute=2),
    }.get(precision)
    if plain is None or optimizer not in ("adamw", "adamw-8bit", "adamw-offload"):
        raise UserError(
            f"a plan needs a precision (float32, bfloat16, bfloat16-stochastic) and an optimiser (adamw, adamw-8bit, adamw-offload), got "
            f"{precision!r} and {optimizer!r}; name one of each"
        )
    weight, gradient, states = plain.weight, plain.gradient, plain.states
    if optimizer == "adamw-8bit":
        states = EIGHT_BIT_MOMENTS
    if optimizer == "adamw-offload":
        if precision == "bfloat16-stochastic":
            raise UserError(
                "adamw-offload keeps float32 states beside float32 weights; plan it with precision bfloat16, or take adamw"
            )
        return Regime(weight, gradient, 0, compute=plain.compute, host=states)  # both, float32 and pinned
    return Regime(weight, gradient, states, compute=plain.compute)


@dataclass(frozen=True)
class ActivationChoice:
    """Which results of a layer are kept from its forward pass to its backward pass.

    name: as --activations has it, or what is kept in words. shares: by the product's name, the share of layers in which its output is kept.
    recompute: whether what is not kept is computed again in the backward pass; if not, everything is kept. away: by the product's name, the share of
    layers in which it is kept on the host. hosted: the share of layers whose input is there. short: so little that the MLP goes in small tiles.
    """

    name: str
    shares: Mapping[str, float] = field(default_factory=dict)
    recompute: bool = True
    away: Mapping[str, float] = field(default_factory=dict)
    hosted: float = 0.0
    short: bool = False


#: By the names of --activations: full checkpointing keeps nothing but each layer's input; none keeps everything.
FULL, NONE = ActivationChoice("full"), ActivationChoice("none", recompute=False)


@dataclass(frozen=True)
class Job:
    """One training run on paper.

    Attributes:
        shape: of the model.
        recipe: as training takes it; its precision is settled, not "auto".
        gpus, cp: chips in all, and how many share one window; dp = gpus / cp.
        replicas: copies of the weights, each sharded over its own chips (HSDP).
        micro: windows on one group of cp chips at a time.
        activations: what is kept for the backward pass.
        fused: norms, rotation and SwiGLU run as one kernel each.
        whole_logits: the loss is computed from the logits of a whole sequence, as transformers does.
        host: bytes of the host's memory that each chip may take; 0 where nothing is kept there.
        bfloat16: whether the chips know that format.
        tiled: the MLP goes through a long sequence in tiles, as training does on a GPU.
    """

    shape: Shape
    recipe: Recipe
    gpus: int = 1
    cp: int = 1
    micro: int = 1
    activations: ActivationChoice = FULL
    fused: bool = True
    whole_logits: bool = False
    replicas: int = 1
    host: float = 0.0
    tiled: bool = False
    bfloat16: bool = True

    def with_recipe(self, recipe: Recipe) -> Job:
        """The same job by another recipe, whose batch is the paper's if it leaves that open."""
        return replace(self, recipe=recipe.for_model(self.shape.parameters))

    def with_micro(self, micro: int) -> Job:
        """The same job with so many windows at a time."""
        return replace(self, micro=micro)

    @property
    def tiles(self) -> int:
        """Tiles of the sequence that a layer's MLP goes through one after the other; 1 for none."""
        tiled = self.tiled and self.shape.experts == 1 and self.activations.recompute
        return mlp_tiles(self.tokens, short=self.activations.short) if tiled else 1

    @cached_property
    def regime(self) -> Regime:
        """Bytes a weight."""
        return regime(self.recipe.precision, self.recipe.optimizer)

    @property
    def shards(self) -> int:
        """Chips that the weights, gradients and states of one copy are shared out over."""
        return self.gpus // self.replicas

    @property
    def dp(self) -> int:
        return self.gpus // self.cp

    @property
    def length(self) -> int:
        """Tokens of one sequence in memory."""
        recipe = self.recipe
        return min(recipe.chunk_window or self.shape.window, recipe.window) if recipe.mode == "pose" else recipe.window

    @property
    def tokens(self) -> float:
        """Tokens on one chip in one micro batch."""
        return self.micro * self.length / self.cp

    @property
    def slides_alone(self) -> bool:
        """Whether layers slide in this window, and have no mask for it."""
        return self.shape.slides(self.length) and self.shape.slides_alone

    @property
    def stream(self) -> float:
        """Bytes of a number in the residual stream."""
        adapters, regime = self.recipe.mode == "lora", self.regime
        return stream_size(regime.weight, regime.compute, adapters=adapters, devices=self.gpus)

    @property
    def frozen(self) -> float:
        """Bytes of a weight that is not trained: adapters sit on bfloat16 weights, but a sharded layer has one dtype (training/setup.py)."""
        return self.regime.compute if self.gpus == 1 else self.regime.weight

    @property
    def packed(self) -> list[int]:
        """Weights in each of a layer's matrices that are in four bits, where that is asked for, experts excepted (training/low_bits.py)."""
        weights, single = self.shape.products, self.shape.experts == 1
        packed = [size for name, size in weights.items() if single or name in ("q", "k", "v", "o")]
        return packed if self.recipe.base_bits else []

    @property
    def frozen_bytes(self) -> float:
        """Of all weights that are not trained."""
        frozen, low = self.shape.parameters - self.trained, self.shape.layers * sum(self.packed)
        return low * FOUR_BITS + (frozen - low) * self.frozen

    def copied(self, weights: float) -> float:
        """Bytes of autocast's copies of so many of the trained weights; those that are frozen have the arithmetic's precision on one chip."""
        return copied_bytes(weights, 4 if self.recipe.mode == "lora" else self.regime.weight, self.regime.compute)

    @property
    def unmoved(self) -> int:
        """Weights that a token is multiplied by and that are not trained."""
        return self.shape.frozen_beside_adapters if self.recipe.mode == "lora" else 0

    @property
    def flops(self) -> float:
        """Operations of one step over all chips, nothing computed again."""
        return self.shape.flops(self.length, self.unmoved) * self.recipe.batch * self.length

    @property
    def micros(self) -> int:
        """Micro batches in a step, one after the other."""
        return -(-self.recipe.batch // (self.dp * self.micro))

    @property
    def trained(self) -> int:
        """Weights that move: all of them, or the adapters on attention, the embedding and the norms (training/lora.py)."""
        if self.recipe.mode != "lora":
            return self.shape.parameters
        return self.trained_of_layer * self.shape.layers + self.shape.embedding + self.shape.small + self.shape.last

    @property
    def trained_of_layer(self) -> int:
        """Of the weights that move those that a layer multiplies by."""
        if self.recipe.mode != "lora":
            return self.shape.layer_weights
        d, q, kv = self.shape.width, self.shape.query_width, self.shape.kv_width
        return self.recipe.lora_rank * ((d + q) + 2 * (d + kv) + (q + d))


def tensors(job: Job) -> dict[str, float]:
    """Bytes a token of what one layer's backward pass reads, by name, on the chip that holds the token.

    "input" and "middle" are the residual stream before the attention and after it. "norms" is what enters the projections; a norm that
    is not fused leaves its normalised values too, a float32 copy of a bfloat16 stream, and under autocast a copy for each projection.
    "act" is the gate after its nonlinearity, "product" what enters the down projection. "mask" is of a layer that slides alone: a query's row of what
    PyTorch makes of transformers' mask for the kernel.
    """
    shape, b, d = job.shape, job.regime.compute, job.shape.width
    q, kv, inner = shape.query_width, shape.kv_width, shape.active * shape.inner
    norms = 2 * b * d
    if not job.fused:
        copies = b * (3 + (2 if shape.gated else 1)) if job.stream != b else 2 * b
        norms = (copies + 2 * job.stream + (2 * 4 if job.stream == 2 else 0)) * d
    sizes: dict[str, float] = {
        "input": job.stream * d,
        "norms": norms,
        "q": b * q,
        "k": b * kv,
        "v": b * kv,
        "attention": b * q + 4 * shape.heads,  # and the logarithm of each row's sum, float32
        "middle": job.stream * d,
        "gate": b * inner if shape.gated else 0,
        "up": b * inner,
        "act": 0 if job.fused and shape.gated else b * inner,
        "product": b * inner if shape.gated else 0,
        # Keys and values, one for each query's head: what the kernel for float32 is given (attention_ops/transformers.py).
        "repeated": 2 * b * q if b == 4 and job.tiled and kv < q else 0,
        "mask": b * job.length if shape.is_masked(job.length) else 0,
    }
    if shape.experts > 1:  # each token's rows are copied out for its experts, and their outputs before they are summed
        sizes["routed"] = 2 * b * shape.active * d
    return sizes


def products(job: Job) -> dict[str, float]:
    """Bytes a token of the results of one layer's products and attention that can be kept."""
    every = tensors(job)
    names = ("q", "k", "v", "attention", "gate", "up")
    return {name: every[name] for name in names if every[name]} | {"o": job.regime.compute * job.shape.width}


def kept_bytes(job: Job) -> float:
    """Bytes a token and layer, on average over layers, that live from the forward pass to the backward pass."""
    if not job.activations.recompute:
        every = tensors(job)
        return sum(every.values()) - every["mask"] * (1 - job.shape.sliding / job.shape.layers) - _unread_bytes(job)
    sizes = products(job)
    return tensors(job)["input"] + sum(share * sizes.get(name, 0.0) for name, share in job.activations.shares.items())


def _unread_bytes(job: Job) -> float:
    """Of `tensors` what enters the products of the MLP alone, which nothing reads again where their weights are frozen, as adapters on attention leave them."""
    if job.recipe.mode != "lora":
        return 0.0
    every, gated, b = tensors(job), job.shape.gated, job.regime.compute
    copies = 1 + gated if job.stream != b and not job.fused else 1
    return every["product" if gated else "act"] + copies * b * job.shape.width


def hosted_bytes(job: Job) -> float:
    """Bytes a token and layer, on average over layers, that are in the host's memory meanwhile."""
    sizes, choice = products(job), job.activations
    return choice.hosted * tensors(job)["input"] + sum(share * sizes[name] for name, share in choice.away.items())


def hosted_layer_bytes(job: Job) -> float:
    """Bytes a token of one layer that sends most of its results to the host."""
    sizes = products(job)
    return tensors(job)["input"] + sum(sizes[name] for name in job.activations.away)


def recomputed_bytes(job: Job) -> float:
    """Bytes a token that a layer's backward pass must have beside what was kept. Queries and keys are kept before their rotation.

    Of an MLP in tiles one tile's results are there at a time.
    """
    if not job.activations.recompute:
        return 0.0
    shares = {name: job.activations.shares.get(name, 0.0) for name in ("v", "attention", "gate", "up")}
    again = {name: size * (1 - shares.get(name, 0.0)) for name, size in tensors(job).items()}
    again |= {name: again[name] / job.tiles for name in ("gate", "up", "act", "product")}
    return sum(again.values()) - again["input"]
