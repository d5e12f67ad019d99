"""From tokens to one number: a causal language model's summed loss, without ever holding the logits of a whole sequence.

in   a transformers causal language model; token ids and already shifted labels [batch, tokens]
out  the float32 sum of -log p(label) over the labels that count (label != -100); its gradient, where labels are weighed, is the weighed sum's

At 32768 tokens and a vocabulary of 128256 the float32 logits are 15.7 GiB, several times over in the backward pass. Here the
head and the loss go through the sequence in chunks, and each chunk's gradient is made on the spot, so that
the backward pass has nothing to do again. `NextTokenLoss` is also the module that is sharded: everything from tokens to
loss is inside its `forward`, so the head's weight is whole when it is used.
"""

from __future__ import annotations

import functools
from typing import Any, no_type_check

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recompute

from ropewalk.attention_ops.blocks import Attend
from ropewalk.attention_ops.transformers import BLOCKS
from ropewalk.checkpoint.read_layers import layers_of
from ropewalk.data.packing import IGNORED
from ropewalk.errors import UserError
from ropewalk.model.architecture import body_of
from ropewalk.model.label_weights import LabelWeights, OfPart, weights_of
from ropewalk.model.logits import LogitsTransform, logits_transform
from ropewalk.settings.budget import CHUNK_ELEMENTS, CPU_CHUNK_ELEMENTS, GPU_CHUNK_BYTES


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Sum of cross-entropies of `hidden @ weight.T`; the gradient of each chunk is computed while its logits exist.

    One product more in the forward pass than a plain head has in it, one less in the backward pass than recomputation would
    take: three in all, the fewest there are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        labels: Tensor,
        logits: LogitsTransform,
        weigh: LabelWeights | None,
    ) -> Tensor:
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        compute = hidden.dtype
        cast_weight, cast_bias = weight.to(compute), None if bias is None else bias.to(compute)
        hidden_grad = torch.empty_like(hidden) if wants_hidden else None
        # Summed in float32: a sum of bf16 chunks would lose what small chunks add.
        weight_grad = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if wants_weight else None
        bias_grad = torch.zeros(weight.shape[0], dtype=torch.float32, device=weight.device) if wants_bias else None
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        for part in _chunks(len(hidden), weight.shape[0], _made_on_the_spot(hidden)):
            weights = None if weigh is None else weigh.of_part(part)
            nll, grad = _nll_and_gradient(hidden[part], cast_weight, cast_bias, labels[part], logits, weights)
            total += nll
            if hidden_grad is not None:
                torch.mm(grad, cast_weight, out=hidden_grad[part])
            if weight_grad is not None:
                _add_product(weight_grad, grad.t(), hidden[part])
            if bias_grad is not None:
                bias_grad += grad.sum(0, dtype=torch.float32)
            del grad  # or it is there beside the next chunk's logits
        ctx.save_for_backward(
            hidden_grad,
            None if weight_grad is None else weight_grad.to(weight.dtype),
            None if bias is None or bias_grad is None else bias_grad.to(bias.dtype),
        )
        return total

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        grads = (None if grad is None else grad * upstream[0].to(grad.dtype) for grad in ctx.saved_tensors)
        return *grads, None, None, None


def _add_product(total: Float[Tensor, "m n"], a: Float[Tensor, "m k"], b: Float[Tensor, "k n"]) -> None:
    """total += a @ b, into float32; on a GPU without writing the product, which is as large as the head."""
    if a.is_cuda and a.dtype in (torch.float16, torch.bfloat16):  # the only ones with products in float32
        torch.addmm(total, a, b, out_dtype=torch.float32, out=total)
    else:
        total += a @ b


def _made_on_the_spot(hidden: Tensor) -> int:
    """Logits of a chunk whose gradients are made while they exist."""
    return GPU_CHUNK_BYTES // hidden.element_size() if hidden.is_cuda else CPU_CHUNK_ELEMENTS


def _at_once(hidden: Tensor) -> int:
    """Logits of a chunk that is computed again, or has no gradient."""
    return CHUNK_ELEMENTS if hidden.is_cuda else CPU_CHUNK_ELEMENTS


def _chunks(tokens: int, vocabulary: int, elements: int) -> list[slice]:
    """Whole-sequence slices of at most so many logits, in multiples of 128 tokens (the matrix unit's tile)."""
    size = max(128, elements // vocabulary // 128 * 128)
    return [slice(start, min(start + size, tokens)) for start in range(0, tokens, size)]


def _nll_and_gradient(
    hidden: Float[Tensor, "tokens width"],
    weight: Float[Tensor, "vocabulary width"],
    bias: Float[Tensor, " vocabulary"] | None,
    labels: Int[Tensor, " tokens"],
    transform: LogitsTransform,
    weights: OfPart | None = None,
) -> tuple[Tensor, Tensor]:
    """The summed loss of a chunk, and the gradient of its weighed sum with respect to the head's output in `hidden`'s dtype."""
    product = nn.functional.linear(hidden, weight, bias)
    if not product.is_cuda:
        return _from_product(product, labels, transform, weights)
    return _compiled_in_place()(product, labels, transform, weights), product


@no_type_check  # for a type checker's wrapper would be compiled with it
def _from_product(
    product: Tensor, labels: Tensor, transform: LogitsTransform, weights: OfPart | None
) -> tuple[Tensor, Tensor]:
    """`_nll_and_gradient` from the logits before the family's transformation."""
    counts = labels != IGNORED
    target = labels.clamp(min=0)[:, None]
    logits = transform(product.float())
    slope = transform.slope(logits)
    lse = torch.logsumexp(logits, dim=-1, keepdim=True)
    nll = torch.where(counts, (lse - logits.gather(1, target)).squeeze(1), 0.0)
    one_hot = torch.arange(logits.shape[1], device=logits.device) == target
    grad = ((logits - lse).exp() - one_hot.float()) * slope * counts[:, None]
    if weights is not None:
        grad = grad * weights_of(nll, weights)[:, None]
    return nll.sum(), grad.to(product.dtype)


@functools.cache
def _compiled_in_place() -> Any:
    """Fused, two passes over the logits instead of a dozen, on a GPU half of what the loss costs; the gradient takes their place."""

    @no_type_check
    def in_place(product: Tensor, labels: Tensor, transform: LogitsTransform, weights: OfPart | None) -> Tensor:
        loss, grad = _from_product(product, labels, transform, weights)
        product.copy_(grad)
        return loss

    return torch.compile(in_place, dynamic=False)


def cross_entropy(
    hidden: Float[Tensor, "tokens width"],
    head: nn.Module,
    labels: Int[Tensor, " tokens"],
    logits: LogitsTransform,
    weigh: LabelWeights | None = None,
) -> Float[Tensor, ""]:
    """Summed cross-entropy of `logits(head(hidden))` against `labels`, in chunks; float32. `weigh`: labels of the gradient, not of the figure.

    A plain linear head gets its gradients during the forward pass; any other (a LoRA on the head, say) is run chunk by chunk
    and once more in the backward pass.
    """
    if torch.is_autocast_enabled(hidden.device.type):
        # The stream is float32 under autocast, which casts single operations only; the head's three products are meant to be cast.
        hidden = hidden.to(torch.get_autocast_dtype(hidden.device.type))
    module: Any = head  # torch's stubs: an attribute of a module is a tensor or a module
    if type(head) is nn.Linear or type(head).__name__ == "FSDPLinear":
        weight, bias = module.weight, module.bias
        if not torch.is_grad_enabled():  # or the function would make gradients that nobody wants
            hidden, weight, bias = hidden.detach(), weight.detach(), None if bias is None else bias.detach()
        return _ChunkedCrossEntropy.apply(hidden, weight, bias, labels, logits, weigh)

    def chunk(part: slice) -> Tensor:
        product = logits(head(hidden[part]).float())
        if weigh is None:
            return nn.functional.cross_entropy(product, labels[part], ignore_index=IGNORED, reduction="sum")
        nll = nn.functional.cross_entropy(product, labels[part], ignore_index=IGNORED, reduction="none")
        figure = nll.detach()
        weighed = nll * weights_of(figure, weigh.of_part(part))
        return (figure + (weighed - weighed.detach())).sum()

    parts = _chunks(len(hidden), _rows(module), _at_once(hidden))
    return torch.stack([recompute(chunk, part, use_reentrant=False) for part in parts]).sum()


def _rows(head: Any) -> int:
    """Of a head's vocabulary."""
    return (head.weight if hasattr(head, "weight") else head.base_layer.weight).shape[0]


@torch.no_grad()
def each_loss(
    hidden: Float[Tensor, "tokens width"], head: nn.Module, labels: Int[Tensor, "batch length"], logits: LogitsTransform
) -> Float[Tensor, "batch length"]:
    """The loss of each label by itself, in nats, in chunks and without a gradient; 0 where a label does not count. float32."""
    flat = labels.flatten()
    (counts,) = (flat != IGNORED).nonzero(as_tuple=True)
    losses = torch.zeros(flat.shape, dtype=torch.float32, device=hidden.device)
    for part in _chunks(len(counts), _rows(head), _at_once(hidden)):
        each = logits(head(hidden[counts[part]]).float())
        target = each.gather(1, flat[counts[part]][:, None]).squeeze(1)
        losses[counts[part]] = torch.logsumexp(each, dim=-1) - target
    return losses.view(labels.shape)


class NextTokenLoss(nn.Module):
    """Tokens in, summed loss out: the root module of training, the one that is sharded and compiled.

    model: a transformers causal language model (or a peft model around one).

    Raises UserError, naming the family, when the family does something to its hidden states or logits that the chunked loss
    does not do: a few tokens are run through both to find out.
    """

    model: Any  # and not "Tensor or Module", as torch's stubs have it

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._logits = logits_transform(self._inner)
        self._slides = bool(layers_of(self._inner.config).sliding)
        if not any(p.is_meta or hasattr(p, "placements") for p in model.parameters()):
            self._check_family()

    @property
    def _inner(self) -> Any:
        """The transformers model, inside peft's wrapper or as it is."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    @property
    def body(self) -> nn.Module:
        """Everything below the head: token ids to hidden states; without what a multimodal model has beside that."""
        return body_of(self._inner)

    @property
    def head(self) -> nn.Module:
        """From hidden states to the vocabulary."""
        return self._inner.get_output_embeddings()

    def forward(
        self,
        input_ids: Int[Tensor, "batch tokens"],
        labels: Int[Tensor, "batch tokens"],
        position_ids: Int[Tensor, "batch tokens"] | None = None,
        attend: Attend | None = None,
        *,
        weigh: LabelWeights | None = None,
        each: bool = False,
        **kwargs: Any,
    ) -> Float[Tensor, "*shape"]:
        """Sum of -log p(labels[b, t] | input_ids[b, :t + 1]) over labels that are not -100; float32.

        Labels are shifted already: labels[b, t] is the token after input_ids[b, t]. Divide by the number of counted labels
        over all ranks and accumulation steps, once, so that every token weighs the same however the batch was split.

        attend: who attends to what, from `distributed.mesh.Mesh.split`; plain causal attention if not given.
        weigh: how much each label counts in the gradient. The sum is the same: nats, as without weights.
        each: the loss of each label [batch, tokens] instead of the sum, without a gradient.
        """
        if attend is not None:
            if self._inner.config._attn_implementation != BLOCKS:
                raise RuntimeError("the module was not made ready by Mesh.shard, and would ignore `attend`")
            # Of ones, so that transformers makes none from the positions. It takes one of four dimensions as it is; by one for each token it
            # tells layers that slide how far they see.
            shape = input_ids.shape if self._slides else (1, 1, 1, 1)
            mask = torch.ones(shape, dtype=torch.bool, device=input_ids.device)
            kwargs |= dict(attend=attend, attention_mask=mask)
        hidden = self._hidden(input_ids, position_ids, **kwargs)
        if each:
            return each_loss(hidden.flatten(0, 1), self.head, labels, self._logits)
        return cross_entropy(hidden.flatten(0, 1), self.head, labels.flatten(), self._logits, weigh)

    def _hidden(self, input_ids: Tensor, position_ids: Tensor | None, **kwargs: Any) -> Tensor:
        return self.body(input_ids=input_ids, position_ids=position_ids, use_cache=False, **kwargs).last_hidden_state

    @torch.no_grad()
    def _check_family(self) -> None:
        """Compare `head` and `LogitsTransform` on eight tokens with the logits of the model's own forward pass.

        Raises:
            UserError: they differ; it names the family.
        """
        inner, was_training = self._inner, self.model.training
        device, vocabulary = next(self.model.parameters()).device, inner.config.get_text_config().vocab_size
        ids = torch.arange(8, device=device)[None] % vocabulary
        self.model.eval()
        logits = inner(input_ids=ids, use_cache=False).logits
        expected = logits.float()
        computed = self._logits(self.head(self._hidden(ids, None)).float())
        self.model.train(was_training)
        # The same products in the same precision, autocast's if it is on: only the order of scale, cap and cast may differ, so one rounding.
        step = torch.finfo(logits.dtype).eps
        if not torch.allclose(expected, computed, rtol=4 * step, atol=4 * step * float(expected.abs().max())):
            raise UserError(
                f"the loss of a {inner.config.model_type} model cannot be computed in chunks: its head does more than one "
                f"linear layer, a scale and a cap; train another family"
            )
