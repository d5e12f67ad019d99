"""How likely a model finds answers after prompts: the one quantity a multiple-choice benchmark needs.

in   a model and pairs of token ids (prompt, answer)
out  for each the summed log-probability of the answer's tokens, in nats

Equal to running each pair through the model whole and reading off the answer's tokens, which is what lm-eval does, but
cheaper: a prompt that several answers share is read once (RACE: four answers to an article), logits exist only where an
answer is scored, and they are normalised in float32 whatever the model's dtype. In bfloat16 lm-eval's own sums are
rounded to 8 bits, where two answers often tie.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ropewalk.evals.likelihood import LOGIT_BYTES, rows_on

Pair = tuple[Sequence[int], Sequence[int]]

#: What reading a prompt once must save before its answers leave the big batches for passes of their own: tokens; and on a GPU, which
#: takes milliseconds for any pass of a small batch, floating-point operations.
_WORTH_SHARING, _WORTH_SHARING_ON_GPU = 256, 5e12


def fits(pair: Pair, window: int) -> bool:
    """Whether a pair is seen whole. One token more than the window is: the last is predicted, never read."""
    return len(pair[0]) + len(pair[1]) <= window + 1


def log_likelihoods(
    model: Any,
    pairs: Sequence[Pair],
    *,
    window: int,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """log p(answer | prompt) of each pair, in order.

    An answer longer than the window is scored in pieces of half a window, each after what stands before it.

    Args:
        model: a transformers causal language model.
        pairs: prompt and answer, at least one token each. Neighbours with one prompt are read together.
        window: tokens a pass may have; a longer pair loses its left part, as in lm-eval.
        batch_tokens: tokens of one forward pass; one pair always fits.
        advance: told how many pairs were done.
    """
    long = [index for index, (_, answer) in enumerate(pairs) if len(answer) > window]
    if long:
        return _with_pieces(model, pairs, set(long), window, batch_tokens, advance)
    found = [0.0] * len(pairs)
    enough = _worth_sharing(model)
    # input of a pass → the pairs it scores: answers of one token share their prompt's pass
    alone: dict[tuple[int, ...], list[int]] = {}
    for prompt, group in itertools.groupby(range(len(pairs)), key=lambda index: tuple(pairs[index][0])):
        indices = list(group)
        inputs = {(*prompt, *pairs[index][1][:-1]) for index in indices}
        whole = all(fits(pairs[index], window) for index in indices)
        if whole and len(prompt) * (len(inputs) - 1) >= enough:
            for index, value in zip(
                indices, _after_one_prompt(model, prompt, [pairs[i][1] for i in indices]), strict=True
            ):
                found[index] = value
            advance(len(indices))
            continue
        for index in indices:
            text = (*prompt, *pairs[index][1])[-(window + 1) :]
            alone.setdefault(text[:-1], []).append(index)
    for batch in _batches(sorted(alone, key=len, reverse=True), batch_tokens):
        indices = [index for ids in batch for index in alone[ids]]
        rows = [row for row, ids in enumerate(batch) for _ in alone[ids]]
        answers = [pairs[index][1] for index in indices]
        for index, value in zip(indices, _at_the_end(model, batch, rows, answers), strict=True):
            found[index] = value
        advance(len(indices))
    return found


def _worth_sharing(model: Any) -> float:
    """Tokens that reading a prompt once must save."""
    if next(model.parameters()).device.type != "cuda":
        return _WORTH_SHARING
    return max(_WORTH_SHARING, _WORTH_SHARING_ON_GPU / (2 * sum(weight.numel() for weight in model.parameters())))


def _with_pieces(
    model: Any, pairs: Sequence[Pair], long: set[int], window: int, batch_tokens: int, advance: Callable[[int], None]
) -> list[float]:
    size = max(1, window // 2)
    whole: list[Pair] = []
    owner: list[int] = []
    for index, (prompt, answer) in enumerate(pairs):
        step = size if index in long else len(answer)
        for start in range(0, len(answer), step):
            whole.append(([*prompt, *answer[:start]], answer[start : start + step]))
            owner.append(index)
    values = log_likelihoods(model, whole, window=window, batch_tokens=batch_tokens)
    found = [0.0] * len(pairs)
    for index, value in zip(owner, values, strict=True):
        found[index] += value
    advance(len(pairs))
    return found


def _batches(inputs: Sequence[tuple[int, ...]], batch_tokens: int) -> list[list[tuple[int, ...]]]:
    """Cut inputs, longest first, into batches of at most `batch_tokens` padded tokens."""
    batches: list[list[tuple[int, ...]]] = []
    for ids in inputs:
        if not batches or (len(batches[-1]) + 1) * len(batches[-1][0]) > batch_tokens:
            batches.append([])
        batches[-1].append(ids)
    return batches


@torch.inference_mode()
def _at_the_end(
    model: Any, inputs: Sequence[tuple[int, ...]], rows: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[float]:
    """Each answer's log-probability at the end of the input that `rows` names for it.

    Padding is on the right, where a causal model never looks.
    """
    longest, shortest = max(map(len, inputs)), min(map(len, inputs))
    needed = min(longest, longest - shortest + max(map(len, answers)))
    logits = model(input_ids=_padded(model, inputs), use_cache=False, logits_to_keep=needed).logits
    before = longest - needed
    starts = [len(inputs[row]) - len(answer) - before for row, answer in zip(rows, answers, strict=True)]
    return _sums(logits, rows, starts, answers)


@torch.inference_mode()
def _after_one_prompt(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """Read the prompt once, keep its keys and values, and continue it with every answer."""
    read = model(input_ids=_padded(model, [prompt]), use_cache=True, logits_to_keep=1)
    logits = read.logits[:, -1:].expand(len(answers), -1, -1)
    if max(map(len, answers)) > 1:
        read.past_key_values.batch_repeat_interleave(len(answers))
        ids = _padded(model, [answer[:-1] for answer in answers])
        later = model(input_ids=ids, past_key_values=read.past_key_values, use_cache=True).logits
        logits = torch.cat([logits, later], dim=1)
    return _sums(logits, range(len(answers)), [0] * len(answers), answers)


def _padded(model: torch.nn.Module, texts: Sequence[Sequence[int]]) -> Int[torch.Tensor, "batch n"]:
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return rows_on(next(model.parameters()).device, list(ids))


def _sums(
    logits: Float[torch.Tensor, "batch n vocabulary"],
    rows: Sequence[int],
    starts: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> list[float]:
    """Each answer's summed log-probability, its tokens' logits being those of its row from `start` on; one look at the device."""
    at = [
        (row, start + step)
        for row, start, answer in zip(rows, starts, answers, strict=True)
        for step in range(len(answer))
    ]
    places = torch.tensor(at, device=logits.device).T
    targets = torch.tensor([token for answer in answers for token in answer], device=logits.device)
    step = max(1, LOGIT_BYTES // (4 * logits.shape[-1]))
    each = [
        torch.nn.functional.cross_entropy(logits[tuple(part)].float(), targets[first : first + step], reduction="none")
        for first, part in zip(range(0, len(at), step), places.split(step, dim=1), strict=True)
    ]
    values = -torch.cat(each).cpu().numpy().astype(np.float64)
    return [float(part.sum()) for part in np.split(values, np.cumsum([len(answer) for answer in answers])[:-1])]
