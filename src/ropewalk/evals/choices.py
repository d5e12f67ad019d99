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

import torch
from jaxtyping import Float, Int

Pair = tuple[Sequence[int], Sequence[int]]

#: Tokens that reading a prompt once must save before its answers leave the big batches for a pass of their own.
_WORTH_SHARING = 256


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
    # input of a pass → the pairs it scores: answers of one token share their prompt's pass
    alone: dict[tuple[int, ...], list[int]] = {}
    for prompt, group in itertools.groupby(range(len(pairs)), key=lambda index: tuple(pairs[index][0])):
        indices = list(group)
        inputs = {(*prompt, *pairs[index][1][:-1]) for index in indices}
        whole = all(fits(pairs[index], window) for index in indices)
        if whole and len(prompt) * (len(inputs) - 1) >= _WORTH_SHARING:
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
        logits = _at_the_end(model, batch, 1 + max(len(pairs[i][1]) - 1 for ids in batch for i in alone[ids]))
        for ids, row in zip(batch, logits, strict=True):
            for index in alone[ids]:
                answer = pairs[index][1]
                found[index] = _sum(row[len(row) - len(answer) :], answer)
            advance(len(alone[ids]))
    return found


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
    model: Any, inputs: Sequence[tuple[int, ...]], keep: int
) -> list[Float[torch.Tensor, "keep vocabulary"]]:
    """The logits at the last `keep` tokens of each input. Padding is on the right, where a causal model never looks."""
    longest, shortest = max(map(len, inputs)), min(map(len, inputs))
    ids = torch.zeros(len(inputs), longest, dtype=torch.long, device=_device(model))
    for row, text in zip(ids, inputs, strict=True):
        row[: len(text)] = torch.tensor(text, device=ids.device)
    needed = min(longest, longest - shortest + keep)
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=needed).logits
    before = longest - needed
    return [
        row[max(0, len(text) - keep - before) : len(text) - before] for row, text in zip(logits, inputs, strict=True)
    ]


@torch.inference_mode()
def _after_one_prompt(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """Read the prompt once, keep its keys and values, and continue it with every answer."""
    ids = torch.tensor([prompt], device=_device(model))
    read = model(input_ids=ids, use_cache=True, logits_to_keep=1)
    longest = max(len(answer) - 1 for answer in answers)
    later: Any = [read.logits[0, :0]] * len(answers)
    if longest:
        read.past_key_values.batch_repeat_interleave(len(answers))
        ids = torch.zeros(len(answers), longest, dtype=torch.long, device=ids.device)
        for row, answer in zip(ids, answers, strict=True):
            row[: len(answer) - 1] = torch.tensor(answer[:-1], device=ids.device)
        later = model(input_ids=ids, past_key_values=read.past_key_values, use_cache=True).logits
    return [
        _sum(torch.cat([read.logits[0, -1:], rest[: len(answer) - 1]]), answer)
        for answer, rest in zip(answers, later, strict=True)
    ]


def _sum(logits: Float[torch.Tensor, "n vocabulary"], answer: Sequence[int]) -> float:
    targets: Int[torch.Tensor, " n"] = torch.tensor(list(answer), device=logits.device)
    return -torch.nn.functional.cross_entropy(logits.float(), targets, reduction="sum").item()


def _device(model: torch.nn.Module) -> torch.device:
    return next(model.parameters()).device
