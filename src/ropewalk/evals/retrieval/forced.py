"""Teacher-forced verdicts: would greedy decoding give this answer? One forward pass says it, and many share a prefix.

in   prompts with their answers (token ids), and a prefix that many of them begin with
out  per prompt, which tokens of the answer are the argmax where they stand

Greedy decoding gives the answer exactly if every token of it is the argmax after the prompt and the answer's tokens before
it: up to the first wrong token, both see the same tokens. So the answer is fed with its prompt and all its tokens are
judged at once, where `generate` would take a pass for each.

**The shared prefix.** Prompts of a retrieval test are alike up to where the hidden fact stands. Their common text is
read once, its keys and values are kept, and each prompt is read from its first own token on (attention_ops/prefix.py). No value that a
token depends on is left out: the verdicts are those of whole passes (tests/evals/test_passkey.py). Over depths spread evenly this
is half the work.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Integer
from torch import Tensor

from ropewalk.attention_ops.prefix import SharedPrefix, keeps_positions
from ropewalk.attention_ops.transformers import attends_in_two_parts
from ropewalk.errors import UserError
from ropewalk.evals.by_layer import by_layer
from ropewalk.evals.compile import reading_last
from ropewalk.evals.likelihood import check_window, default_batch_tokens, rows_on
from ropewalk.evals.time_needed import Passes

#: A prefix shorter than this is read again with each prompt: keeping it would cost more than it saves.
_WORTH_SHARING = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids of a prompt and of the answer that greedy decoding ought to give."""

    ids: Integer[np.ndarray, " n"]
    answer: Integer[np.ndarray, " m"]

    @property
    def fed(self) -> Integer[np.ndarray, " n_plus_m_minus_1"]:
        """What the model sees: the prompt and the answer but for its last token, which nothing comes after."""
        return np.concatenate([self.ids, self.answer[:-1]])


@dataclasses.dataclass(frozen=True)
class _Shape:
    """What prompts of one batch have in common: tokens of the prefix, tokens fed after it, tokens of the answer."""

    shared: int
    tokens: int
    scored: int


@torch.inference_mode()
def verdicts(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    prefix: Integer[np.ndarray, " n"] | None = None,
    batch_tokens: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Bool[np.ndarray, " m"]]:
    """Judge prompts, in their order.

    Args:
        model: a transformers causal language model.
        prompts: of any lengths; those with the same lengths and the same share of the prefix go through together.
        prefix: a text that prompts begin with; each shares as much of it as it has. None: nothing is shared.
        batch_tokens: tokens of one forward pass.
        advance: called with the number of prompts done.

    Returns:
        Per prompt (m,) booleans: is answer token i the argmax after the prompt and answer tokens 0 .. i - 1?

    Raises:
        UserError: a logit was not a number, which no argmax would tell.
    """
    if prompts:
        largest = max(prompts, key=lambda prompt: len(prompt.fed))
        check_window(model, len(largest.ids), answer=len(largest.fed) - len(largest.ids))
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or default_batch_tokens(device)
    prefix = np.empty(0, dtype=np.int64) if prefix is None or not keeps_positions(model) else prefix
    shapes = [_shape(prompt, prefix) for prompt in prompts]
    longest = max((shape.shared for shape in shapes), default=0)
    shared_prefix = SharedPrefix.read(model, rows_on(device, [prefix[:longest]]))
    in_two_parts = attends_in_two_parts(model)
    judged: list[Any] = [None] * len(prompts)

    def settle(batch: list[int], right: Tensor, damaged: Tensor) -> None:
        if bool(damaged):
            raise UserError(
                f"logits must be numbers, but the model gave NaN at the end of a prompt of {len(prompts[batch[0]].ids)} tokens; "
                "try --dtype float32, or another copy of the model"
            )
        for number, verdict in zip(batch, right.cpu().numpy(), strict=True):
            judged[number] = verdict
        advance(len(batch))

    before: tuple[list[int], Tensor, Tensor] | None = None
    for batch in _batches(shapes, batch_tokens):
        shape = shapes[batch[0]]
        ids = rows_on(device, [prompts[number].fed[shape.shared :] for number in batch])
        answers = rows_on(device, [prompts[number].answer for number in batch])
        with (
            shared_prefix.before(
                model, shape.shared, shape.tokens, shape.scored, in_two_parts=in_two_parts
            ) as arguments,
            reading_last(model, shape.scored),
            by_layer(model, ids),
        ):
            logits = model(input_ids=ids, logits_to_keep=shape.scored, **arguments).logits
        # One batch behind, so that a GPU has its next work before it is asked for what it has done.
        if before is not None:
            settle(*before)
        before = (batch, logits.argmax(-1) == answers, logits.isnan().any())
    if before is not None:
        settle(*before)
    return judged


def passes_of(model: Any, prompts: Sequence[Prompt], prefix: Integer[np.ndarray, " n"] | None = None) -> Passes:
    """What `verdicts` reads: of each prompt what it does not share with others, and what they share once."""
    if not keeps_positions(model):
        prefix = None
    shapes = [_shape(prompt, np.empty(0, dtype=np.int64) if prefix is None else prefix) for prompt in prompts]
    passes = Counter((shape.shared + shape.tokens, shape.scored) for shape in shapes)
    passes.subtract(Counter((shape.shared, 0) for shape in shapes))
    passes[max((shape.shared for shape in shapes), default=0), 0] += 1
    return Counter({(tokens, scored): count for (tokens, scored), count in passes.items() if tokens})


def _shape(prompt: Prompt, prefix: Integer[np.ndarray, " n"]) -> _Shape:
    """How a prompt goes through: with as much of the prefix as it begins with, if that is worth it, and the rest as its own."""
    fed, scored = prompt.fed, len(prompt.answer)
    length = min(len(prefix), len(fed) - scored)
    differs = np.flatnonzero(prefix[:length] != fed[:length])
    same = int(differs[0]) if len(differs) else length
    shared = same if same >= _WORTH_SHARING else 0
    return _Shape(shared, len(fed) - shared, scored)


def _batches(shapes: Sequence[_Shape], batch_tokens: int) -> Iterator[list[int]]:
    """Numbers of prompts of one shape, at most `batch_tokens` tokens of their own together (one prompt always goes).

    Longest first: if the memory does not hold the largest batch, that shows at once.
    """
    order = sorted(range(len(shapes)), key=lambda n: (shapes[n].shared, -shapes[n].tokens, shapes[n].scored, n))
    batch: list[int] = []
    for number in order:
        shape = shapes[number]
        if batch and (shape != shapes[batch[0]] or (len(batch) + 1) * shape.tokens > batch_tokens):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch
