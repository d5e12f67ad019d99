"""Scoring tokens: the negative log-likelihood of the last tokens of many forward passes, batched.

in   a transformers model and `Pass`es: token ids, and how many of the last ones are scored
out  per pass, the negative log-likelihood of each scored token, in nats

Every perplexity is made of such passes: the exact one (perplexity/measure.py), its estimate from a sample of windows
(perplexity/sampled.py) and other projects' conventions (perplexity/conventions.py). They differ in which passes they make and
how they combine the results.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.data.encode import TokenIds
from ropewalk.data.sliding import SlidingWindow
from ropewalk.errors import UserError
from ropewalk.evals.by_layer import by_layer
from ropewalk.evals.compile import reading_last
from ropewalk.model.architecture import body_of
from ropewalk.model.devices import free_bytes, to_device
from ropewalk.model.logits import logits_transform
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.position_table import learned_tables
from ropewalk.model.verify import positions_of
from ropewalk.sentences import sizes_apart
from ropewalk.settings.budget import CPU_BATCH_TOKENS, GPU_BATCH_TOKENS, LOGIT_BYTES

_logger = logging.getLogger(__name__)

#: Tokens that an answer to a prompt of the retrieval tests takes at most.
ANSWER = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass over `ids`, of which the last `scored` tokens are scored; the first token never can be.

    Attributes:
        ids: (n,) token ids that the model sees.
        scored: how many of the last ones are scored, 1 .. n - 1.
    """

    ids: TokenIds
    scored: int

    def __post_init__(self) -> None:
        if not 1 <= self.scored < len(self.ids):
            raise ValueError(f"of {len(self.ids)} tokens 1 .. {len(self.ids) - 1} can be scored, got {self.scored}")


#: What a token of one window takes at least: the residual stream and what a layer makes of it; its text and ids.
_COPIES, _TEXT_BYTES = 4, 64
#: Attention that no kernel of PyTorch does has all scores of a layer at once, and their softmax in float32.
_SOFTMAX_BYTES = 4


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of one forward pass on this kind of device."""
    return GPU_BATCH_TOKENS if device.type == "cuda" else CPU_BATCH_TOKENS


def position_limit(model: torch.nn.Module) -> int | None:
    """The number of positions in a learned table, or None for a model without one (RoPE, ALiBi)."""
    positions = positions_of(model) if learned_tables(model) else None
    return positions.window if isinstance(positions, PositionTable) else None


def check_window(model: torch.nn.Module, window: int, *, answer: int = 0) -> None:
    """Refuse a window that a learned table has no positions for, or the memory no room. RoPE has positions for any window.

    answer: tokens that the model reads after the window.

    Raises:
        UserError: the model looks its positions up in a table that is too short; one window alone is more than the device holds.
    """
    weight = next(model.parameters())
    config = getattr(model.config, "get_text_config", lambda: model.config)()
    least = window * (_COPIES * getattr(config, "hidden_size", 1) * weight.element_size() + _TEXT_BYTES)
    if getattr(config, "_attn_implementation", None) == "eager":
        least += getattr(config, "num_attention_heads", 1) * window**2 * (weight.element_size() + _SOFTMAX_BYTES)
    free = free_bytes(weight.device)
    if least > free:
        takes, has = sizes_apart(least, free)
        raise UserError(
            f"a window of {window} tokens takes {takes} here and more, and {has} are free on {weight.device}; ask for a smaller --window"
        )
    limit = position_limit(model)
    if limit is not None and window + answer > limit:
        raise UserError(
            f"the window{f' and {answer} tokens of an answer' * bool(answer)} must fit the model's table of {limit} learned positions, got "
            f"{window}; ask for a window of at most {limit - answer}, or choose a model with RoPE"
        )


def prompt_window(model: torch.nn.Module, own: int) -> int:
    """The window of a prompt where none is asked for: the model's own, less what an answer takes if positions end there.

    own: tokens, the model's window.
    """
    return own if position_limit(model) is None else max(1, own - ANSWER)


def negative_log_likelihoods(
    model: Any, passes: Sequence[Pass], *, batch_tokens: int | None = None
) -> Iterator[Float[np.ndarray, " scored"]]:
    """Score passes in order.

    Consecutive passes of the same shape are batched, up to `batch_tokens` tokens. Only the logits of scored tokens are
    computed (`logits_to_keep`): at 32768 tokens and a vocabulary of 32000 all of them would be 2 GiB in bfloat16 and 4 GiB
    more in float32. The log-softmax is in float32, whatever the model's dtype.

    Args:
        model: a transformers causal language model.
        passes: what the model sees and which tokens are scored.
        batch_tokens: tokens in one forward pass; `default_batch_tokens` if not given. One pass always fits.

    Yields:
        (scored,) float32, nats: -log p(token | the tokens of its pass before it).
    """
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or default_batch_tokens(device)
    pending: Float[torch.Tensor, "batch scored"] | None = None
    for batch in _batches(passes, batch_tokens):
        ids = rows_on(device, [item.ids for item in batch])
        scores = _forward(model, ids, batch[0].scored)
        # Read one batch late, so that a GPU already has its next batch when the CPU waits for this one.
        if pending is not None:
            yield from pending.cpu().numpy()
        pending = scores
    if pending is not None:
        yield from pending.cpu().numpy()


def rows_on(device: torch.device, rows: Sequence[TokenIds]) -> Int[torch.Tensor, "batch n"]:
    """Rows of token ids, all of one length, as a tensor on a device; the copy to a GPU is not waited for."""
    return to_device(torch.from_numpy(np.stack(rows).astype(np.int64)), device)


def _batches(passes: Sequence[Pass], batch_tokens: int) -> Iterator[Sequence[Pass]]:
    """Runs of consecutive passes of one shape, at most `batch_tokens` tokens each, and at least one pass."""
    start = 0
    for at in range(1, len(passes) + 1):
        first = passes[start]
        if (
            at == len(passes)
            or len(passes[at].ids) != len(first.ids)
            or passes[at].scored != first.scored
            or (at + 1 - start) * len(first.ids) > batch_tokens
        ):
            yield passes[start:at]
            start = at


@torch.inference_mode()
def _forward(model: Any, ids: Int[torch.Tensor, "batch n"], scored: int) -> Float[torch.Tensor, "batch scored"]:
    # The logits at position i predict token i + 1. Scoring the last n tokens takes n + 1 logits, the last of them unused.
    targets = ids[:, -scored:]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    step = max(1, LOGIT_BYTES // (4 * len(ids) * vocabulary))
    if scored <= step or not head_is_linear(model):  # which may run the model itself: before a pass is shown
        with reading_last(model, scored + 1), by_layer(model, ids):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=scored + 1).logits[:, :-1]
        return _nll(logits, targets, step)
    # The first window of a document scores all its tokens: its logits at once would be most of the run's memory.
    with by_layer(model, ids):
        hidden = body_of(model)(input_ids=ids, use_cache=False).last_hidden_state[:, -scored - 1 : -1]
    head, scale_and_cap = model.get_output_embeddings(), logits_transform(model)
    parts = [
        _nll(scale_and_cap(head(hidden[:, at : at + step]).float()), targets[:, at : at + step], step)
        for at in range(0, scored, step)
    ]
    return torch.cat(parts, dim=1)


def _nll(
    logits: Float[torch.Tensor, "batch n vocabulary"], targets: Int[torch.Tensor, "batch n"], step: int
) -> Float[torch.Tensor, "batch n"]:
    """Negative log-likelihoods in float32, computed for `step` tokens of each row at a time."""
    parts = [
        token_nlls(logits[:, at : at + step].float(), targets[:, at : at + step])
        for at in range(0, targets.shape[1], step)
    ]
    return torch.cat(parts, dim=1)


def token_nlls(
    logits: Float[torch.Tensor, "*batch vocabulary"], targets: Int[torch.Tensor, "*batch"]
) -> Float[torch.Tensor, "*batch"]:
    """-log p of each target, in the logits' precision.

    `cross_entropy` adds up a row's exponentials one after the other in float32, and loses of them: at 256000 tokens its mean is 1e-5 nats
    too low on a CPU. `logsumexp` adds them up in pairs.
    """
    return logits.logsumexp(-1) - logits.gather(-1, targets[..., None]).squeeze(-1)


#: What `head_is_linear` found of each model. Weak: a cache must not keep a model in memory.
_linear_heads: weakref.WeakKeyDictionary[torch.nn.Module, bool] = weakref.WeakKeyDictionary()


def head_is_linear(model: torch.nn.Module) -> bool:
    """Whether logits are the head's product with the hidden states, but for a scale and a cap; tried on a few tokens once a model."""
    if model not in _linear_heads:
        try:
            NextTokenLoss(model)
            _linear_heads[model] = True
        except UserError:
            _linear_heads[model] = False
    return _linear_heads[model]


def warn_of_guessing(model: Any, perplexity: float) -> None:
    """Say so where a token's perplexity is that of every token being as likely, or above: a loss of less than 0.02 nats below it counts as that."""
    vocabulary = model.get_output_embeddings().weight.shape[0]
    if math.log(perplexity) > math.log(vocabulary) - 0.02:
        _logger.warning(
            f"a perplexity of {perplexity:.0f} is no better than guessing among the {vocabulary} tokens of the vocabulary: the model is untrained or "
            "damaged, or the text nothing like what it was trained on; run ropewalk doctor on it"
        )


def not_a_number(name: str, window: SlidingWindow) -> UserError:
    """The error for a NaN log-likelihood; it names the document and the window's place in it."""
    return UserError(
        f"log-likelihoods must be numbers, but the model gave NaN in {name}, tokens {window.start} to {window.stop - 1}; "
        "try --dtype float32, or another copy of the model"
    )
