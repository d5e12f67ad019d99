"""Log-probabilities of answers given their prompts: all that a multiple-choice benchmark needs of a model.

in   a model and choices: token ids of a prompt and of one of its answers
out  for each the summed log-probability of the answer's tokens, in nats

The figures equal those of running each choice through the model whole, as lm-eval does, at less cost: a prompt that several
answers share is read once (RACE: four answers to an article), and logits are computed only where an answer is scored. The
log-softmax is in float32 whatever the model's dtype; lm-eval adds up in bfloat16, whose 8 bits often leave two answers equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from ropewalk.attention_ops.prefix import keeps_positions
from ropewalk.evals.likelihood import rows_on
from ropewalk.settings.budget import LOGIT_BYTES

#: A prompt and one of its answers.
Choice = tuple[Sequence[int], Sequence[int]]

#: Reading a prompt once takes small passes of its own instead of a share of a large batch. It must save at least so many tokens; on
#: a GPU, where any small pass takes milliseconds, so many floating-point operations.
_TOKENS_WORTH_SHARING, _FLOPS_WORTH_SHARING = 256.0, 5e12


def fits(choice: Choice, window: int) -> bool:
    """Whether a choice is seen whole. It may have a token more than the window: the last one is predicted, not read."""
    return len(choice[0]) + len(choice[1]) <= window + 1


def log_likelihoods(
    model: Any,
    choices: Sequence[Choice],
    *,
    window: int,
    batch_tokens: int,
    advance: Callable[[int], None] = lambda done: None,
) -> list[float]:
    """log p(answer | prompt) of each choice, in order.

    An answer longer than the window is scored in parts of half a window, each after the text before it.

    Args:
        model: a transformers causal language model.
        choices: prompt and answer, at least one token each. Consecutive choices with one prompt are read together.
        window: tokens a pass may have; a longer choice loses its left part, as in lm-eval.
        batch_tokens: tokens of one forward pass; one choice always fits.
        advance: called with the number of choices done.
    """
    if any(len(answer) > window for _, answer in choices):
        return _in_parts(model, choices, window, batch_tokens, advance)
    values = [0.0] * len(choices)
    alone = _share_prompts(model, choices, window, values, advance)
    for batch in _batches(sorted(alone, key=len, reverse=True), batch_tokens):
        indices = [index for ids in batch for index in alone[ids]]
        rows = [row for row, ids in enumerate(batch) for _ in alone[ids]]
        answers = [choices[index][1] for index in indices]
        for index, value in zip(indices, _at_the_end(model, batch, rows, answers), strict=True):
            values[index] = value
        advance(len(indices))
    return values


def _share_prompts(
    model: Any, choices: Sequence[Choice], window: int, values: list[float], advance: Callable[[int], None]
) -> dict[tuple[int, ...], list[int]]:
    """Score in `values` the choices whose prompt is worth reading once; return the others by their pass's input.

    Answers of one token share their prompt's pass, so one input may score several choices.
    """
    least = _tokens_worth_sharing(model)
    alone: dict[tuple[int, ...], list[int]] = {}
    for prompt, group in itertools.groupby(range(len(choices)), key=lambda index: tuple(choices[index][0])):
        indices = list(group)
        answers = [choices[index][1] for index in indices]
        inputs = {(*prompt, *answer[:-1]) for answer in answers}
        whole = all(fits(choices[index], window) for index in indices)
        if whole and len(prompt) * (len(inputs) - 1) >= least:
            for index, value in zip(indices, _after_one_prompt(model, prompt, answers), strict=True):
                values[index] = value
            advance(len(indices))
            continue
        for index, answer in zip(indices, answers, strict=True):
            text = (*prompt, *answer)[-(window + 1) :]
            alone.setdefault(text[:-1], []).append(index)
    return alone


def _tokens_worth_sharing(model: Any) -> float:
    """Tokens that reading a prompt once must save on the model's device; infinitely many where what is kept of it cannot be shared."""
    if not keeps_positions(model):
        return math.inf
    if next(model.parameters()).device.type != "cuda":
        return _TOKENS_WORTH_SHARING
    flops_a_token = 2 * sum(weight.numel() for weight in model.parameters())
    return max(_TOKENS_WORTH_SHARING, _FLOPS_WORTH_SHARING / flops_a_token)


def _in_parts(
    model: Any, choices: Sequence[Choice], window: int, batch_tokens: int, advance: Callable[[int], None]
) -> list[float]:
    """As `log_likelihoods`; answers longer than the window are cut into choices of their own, whose values are summed."""
    size = max(1, window // 2)
    parts: list[Choice] = []
    owners: list[int] = []
    for index, (prompt, answer) in enumerate(choices):
        step = size if len(answer) > window else len(answer)
        for start in range(0, len(answer), step):
            parts.append(([*prompt, *answer[:start]], answer[start : start + step]))
            owners.append(index)
    totals = [0.0] * len(choices)
    part_values = log_likelihoods(model, parts, window=window, batch_tokens=batch_tokens)
    for index, value in zip(owners, part_values, strict=True):
        totals[index] += value
    advance(len(choices))
    return totals


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
    """Each answer's log-probability at the end of its input, `inputs[row]`.

    Padding is on the right, where a causal model never looks.
    """
    longest, shortest = max(map(len, inputs)), min(map(len, inputs))
    needed = min(longest, longest - shortest + max(map(len, answers)))
    logits = model(input_ids=_padded(model, inputs), use_cache=False, logits_to_keep=needed).logits
    before = longest - needed
    starts = [len(inputs[row]) - len(answer) - before for row, answer in zip(rows, answers, strict=True)]
    return _summed_log_probabilities(logits, rows, starts, answers)


@torch.inference_mode()
def _after_one_prompt(model: Any, prompt: Sequence[int], answers: Sequence[Sequence[int]]) -> list[float]:
    """Read the prompt once into a KV cache, and continue it with every answer."""
    outputs = model(input_ids=_padded(model, [prompt]), use_cache=True, logits_to_keep=1)
    logits = outputs.logits[:, -1:].expand(len(answers), -1, -1)
    if max(map(len, answers)) > 1:
        outputs.past_key_values.batch_repeat_interleave(len(answers))
        ids = _padded(model, [answer[:-1] for answer in answers])
        later = model(input_ids=ids, past_key_values=outputs.past_key_values, use_cache=True).logits
        logits = torch.cat([logits, later], dim=1)
    return _summed_log_probabilities(logits, range(len(answers)), [0] * len(answers), answers)


def _padded(model: torch.nn.Module, texts: Sequence[Sequence[int]]) -> Int[torch.Tensor, "batch n"]:
    ids = np.zeros((len(texts), max(map(len, texts))), dtype=np.int64)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = text
    return rows_on(next(model.parameters()).device, list(ids))


def _summed_log_probabilities(
    logits: Float[torch.Tensor, "batch n vocabulary"],
    rows: Sequence[int],
    starts: Sequence[int],
    answers: Sequence[Sequence[int]],
) -> list[float]:
    """Each answer's summed log-probability; the logits of its tokens are those of its row from its start on.

    All answers' tokens are gathered first, so that a GPU is waited for once.
    """
    positions = [
        (row, start + step)
        for row, start, answer in zip(rows, starts, answers, strict=True)
        for step in range(len(answer))
    ]
    places = torch.tensor(positions, device=logits.device).T
    targets = torch.tensor([token for answer in answers for token in answer], device=logits.device)
    step = max(1, LOGIT_BYTES // (4 * logits.shape[-1]))
    nll = [
        torch.nn.functional.cross_entropy(logits[tuple(part)].float(), targets[first : first + step], reduction="none")
        for first, part in zip(range(0, len(positions), step), places.split(step, dim=1), strict=True)
    ]
    values = -torch.cat(nll).cpu().numpy().astype(np.float64)
    return [float(part.sum()) for part in np.split(values, np.cumsum([len(answer) for answer in answers])[:-1])]
