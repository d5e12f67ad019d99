"""Scoring tokens: the negative log-likelihood of the last tokens of many passes, batched.

in   a transformers model and passes: token ids, and how many of the last ones count
out  per pass, the negative log-likelihood of each token that counts, in nats

Apart from perplexity.py because everybody's convention of perplexity is made of such passes (conventions.py), and so is
an estimate from a few of them (budget.py). What differs is which passes there are and how their sums are put together.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ropewalk.data.sliding import SlidingWindow
from ropewalk.errors import UserError
from ropewalk.evals.compile import reading_last
from ropewalk.model.devices import to_device
from ropewalk.model.loss import NextTokenLoss, logits_of

#: Tokens of one forward pass unless told otherwise. A GPU is busy from about 32768 on; a CPU core is fastest while the
#: activations of a small model stay near its cache (measured: docs/log.md).
GPU_BATCH_TOKENS = 32768
CPU_BATCH_TOKENS = 2048
#: Logits turned into log-likelihoods at a time: their float32 copy is at most this many bytes.
LOGIT_BYTES = 256 * 2**20


@dataclasses.dataclass(frozen=True, eq=False)
class Pass:
    """One forward pass over `ids`, of which the last `scored` tokens count; the first token never can.

    Attributes:
        ids: (n,) token ids that the model sees.
        scored: how many of the last ones count, 1 .. n - 1.
    """

    ids: Int[np.ndarray, " n"]
    scored: int

    def __post_init__(self) -> None:
        if not 1 <= self.scored < len(self.ids):
            raise ValueError(f"of {len(self.ids)} tokens 1 .. {len(self.ids) - 1} can be scored, got {self.scored}")


def default_batch_tokens(device: torch.device) -> int:
    """Tokens of one forward pass on this kind of device."""
    return GPU_BATCH_TOKENS if device.type == "cuda" else CPU_BATCH_TOKENS


def position_limit(model: torch.nn.Module) -> int | None:
    """The number of positions a learned table holds, or None for a model that turns or slopes (RoPE, ALiBi)."""
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) and ("position" in last or last in ("wpe", "pos_emb")):
            return module.num_embeddings
    return None


def check_window(model: torch.nn.Module, window: int) -> None:
    """Refuse a window that the model has no positions for. RoPE never ends: past its window it extrapolates, badly.

    Raises:
        UserError: the model looks its positions up in a table that is shorter than the window.
    """
    limit = position_limit(model)
    if limit is not None and window > limit:
        raise UserError(
            f"the window must fit the model's table of {limit} learned positions, got {window}; "
            f"ask for a window of at most {limit}, or choose a model with RoPE"
        )


def negative_log_likelihoods(
    model: Any, passes: Sequence[Pass], *, batch_tokens: int | None = None
) -> Iterator[Float[np.ndarray, " scored"]]:
    """Score passes in order.

    Neighbours of the same shape share a forward pass, up to `batch_tokens` tokens. A pass scores its last tokens, so the
    model is asked for those logits alone (`logits_to_keep`): at 32768 tokens and a vocabulary of 32000 the rest would be
    2 GiB in bfloat16 and 4 GiB more in float32. They become log-likelihoods in float32, whatever the model's dtype.

    Args:
        model: a transformers causal language model.
        passes: what to see and to score.
        batch_tokens: tokens in one forward pass; `default_batch_tokens` if not given. One pass always fits.

    Yields:
        (scored,) float32, nats: -log p(token | the tokens of its pass before it).
    """
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or default_batch_tokens(device)
    before: Float[torch.Tensor, "batch scored"] | None = None
    for batch in _batches(passes, batch_tokens):
        ids = rows_on(device, [one.ids for one in batch])
        found = _forward(model, ids, batch[0].scored)
        # One batch behind, so that a GPU has its next work before it is asked for what it has done.
        if before is not None:
            yield from before.cpu().numpy()
        before = found
    if before is not None:
        yield from before.cpu().numpy()


def rows_on(device: torch.device, rows: Sequence[Int[np.ndarray, " n"]]) -> Int[torch.Tensor, "batch n"]:
    """Token ids as one tensor there; a GPU is not waited for."""
    return to_device(torch.from_numpy(np.stack(rows).astype(np.int64)), device)


def _batches(passes: Sequence[Pass], batch_tokens: int) -> Iterator[Sequence[Pass]]:
    """Neighbours of one shape, at most `batch_tokens` tokens together (one pass always goes)."""
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
    # The logits at token i are of token i + 1: those of the last token are of nothing, hence one more and the last off.
    targets = ids[:, -scored:]
    vocabulary = model.get_output_embeddings().weight.shape[0]
    step = max(1, LOGIT_BYTES // (4 * len(ids) * vocabulary))
    if scored <= step or not head_is_linear(model):
        with reading_last(model, scored + 1):
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=scored + 1).logits[:, :-1]
        return _nll(logits, targets, step)
    # The first window of a document scores everything: all its logits at once would be most of the memory of the run.
    hidden = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[:, -scored - 1 : -1]
    head, family = model.get_output_embeddings(), logits_of(model)
    parts = [
        _nll(family(head(hidden[:, at : at + step]).float()), targets[:, at : at + step], step)
        for at in range(0, scored, step)
    ]
    return torch.cat(parts, dim=1)


def _nll(
    logits: Float[torch.Tensor, "batch n vocabulary"], targets: Int[torch.Tensor, "batch n"], step: int
) -> Float[torch.Tensor, "batch n"]:
    """Negative log-likelihoods in float32, `step` tokens a row at a time."""
    parts = [
        torch.nn.functional.cross_entropy(
            logits[:, at : at + step].float().flatten(0, 1), targets[:, at : at + step].flatten(), reduction="none"
        ).view(len(logits), -1)
        for at in range(0, targets.shape[1], step)
    ]
    return torch.cat(parts, dim=1)


@functools.lru_cache(maxsize=8)
def head_is_linear(model: torch.nn.Module) -> bool:
    """Whether hidden states, the head, a scale and a cap are all there is to the logits; tried on a few tokens."""
    try:
        NextTokenLoss(model)
    except UserError:
        return False
    return True


def exp(nats: float) -> float:
    """exp, infinite instead of an error where a broken model is beyond every float."""
    return math.inf if nats > 700 else math.exp(nats)


def not_a_number(name: str, window: SlidingWindow) -> UserError:
    """The refusal of a figure that is none; it names the document and the place."""
    return UserError(
        f"log-likelihoods must be numbers, but the model gave NaN in {name}, tokens {window.start} to {window.stop - 1}; "
        "try --dtype float32, or another copy of the model"
    )
