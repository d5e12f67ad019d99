"""Text written by a model after prompts, many at a time.

in   a model, prompts as token ids, how to choose the next token
out  for each prompt the new tokens, and whether the model itself ended

transformers' `generate` does the work (batches, cache, padding). What is ours is the draw: each prompt has a random
generator of its own, so that its text does not hang on which prompts shared its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Float, Int
from transformers import LogitsProcessor, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from ropewalk.errors import UserError


@dataclass(frozen=True)
class Decoding:
    """How the next token is chosen: the likeliest (temperature 0), or drawn.

    Attributes:
        temperature: logits are divided by it; 0.5 in section 3.5.
        top_p: drawn from the likeliest tokens that together have this share; 0.95 in section 3.5.
        seed: of the draws; not used without them.
    """

    temperature: float = 0.5
    top_p: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < float("inf"):
            raise UserError(
                f"a temperature is at least 0, got {self.temperature}; 0 takes the likeliest token, 0.5 is the paper's"
            )
        if not 0 < self.top_p <= 1:
            raise UserError(f"top-p is a share in (0, 1], got {self.top_p}; the paper has 0.95")

    @property
    def name(self) -> str:
        return "sampled" if self.temperature else "greedy"


@dataclass(frozen=True, eq=False)
class Written:
    """What a model wrote: its tokens without the end mark; `finished` if it ended by itself."""

    ids: Int[np.ndarray, " n"]
    finished: bool


class Draw(LogitsProcessor):
    """Turns the greedy choice into a draw: the maximum of log p + Gumbel noise falls on a token with its probability.

    Row i draws from `generators[i]` alone (Gumbel 1954; the "Gumbel-max trick").
    """

    def __init__(self, generators: Sequence[torch.Generator]) -> None:
        self.generators = generators

    def __call__(self, input_ids: torch.Tensor, scores: Float[torch.Tensor, "batch vocabulary"]) -> torch.Tensor:
        # On the CPU, so that a seed means the same on every device.
        noise = torch.stack(
            [-torch.empty(scores.shape[1]).exponential_(generator=generator).log() for generator in self.generators]
        )
        return scores.float() + noise.to(scores.device)


class _NotANumber(ValueError):
    """A row of a batch has logits that are not numbers; `generate` would go on with some token."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class _RefuseNaN(LogitsProcessor):
    def __call__(self, input_ids: torch.Tensor, scores: Float[torch.Tensor, "batch vocabulary"]) -> torch.Tensor:
        broken = scores.isnan().any(dim=1)
        if broken.any():
            raise _NotANumber(int(broken.nonzero()[0, 0]))
        return scores


def end_marks(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end a text: the tokenizer's, else the config's; none if neither names one."""
    for found in (tokenizer.eos_token_id, model.config.eos_token_id):
        if found is not None:
            return list(found) if isinstance(found, list | tuple) else [found]
    return []


def write(
    model: Any,
    prompts: Sequence[Int[np.ndarray, " n"]],
    *,
    new_tokens: int,
    decoding: Decoding,
    ends: Sequence[int],
    keys: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    batch: int | None = None,
    done: Callable[[list[int], list[Written]], None] = lambda places, texts: None,
) -> list[Written]:
    """Continue every prompt.

    Args:
        model: a transformers causal language model.
        prompts: token ids; longest and shortest may differ.
        new_tokens: the most a prompt is continued by.
        decoding: how tokens are chosen.
        ends: tokens that end a text.
        keys: a number for each prompt that its draws depend on, beside the seed; its place if not given.
        names: what an error calls each prompt; its place if not given.
        batch: prompts at a time; from the memory their keys and values need if not given.
        done: told after each batch, so that it can be put on record.

    Raises:
        UserError: a logit was not a number; the sentence names the prompt.
    """
    keys = list(range(len(prompts))) if keys is None else list(keys)
    # Of one length together: padding is attention over nothing. The longest first, so that what does not fit fails at once.
    places = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    found: dict[int, Written] = {}
    while places:
        longest = len(prompts[places[0]]) + new_tokens
        size = batch or batch_for(model, longest)
        now, places = places[:size], places[size:]
        try:
            texts = _write_together(
                model,
                [prompts[p] for p in now],
                new_tokens,
                decoding,
                ends,
                [_generator(decoding.seed, keys[p]) for p in now],
            )
        except _NotANumber as error:
            place = now[error.row]
            raise UserError(
                f"logits must be numbers, but the model gave NaN after {names[place] if names else f'prompt {place}'}; "
                "try --dtype float32, or load the weights again from where they came"
            ) from error
        found.update(zip(now, texts, strict=True))
        done(now, texts)
    return [found[place] for place in range(len(prompts))]


def _generator(seed: int, key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)[0] >> 1))


def batch_for(model: Any, tokens: int) -> int:
    """How many texts of so many tokens may share a cache: half of what is free on a GPU, at most 32; 4 on a CPU."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return 4
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    bytes_a_token = 2 * config.num_hidden_layers * heads * size * next(model.parameters()).element_size()
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(32, max(1, free // 2 // (bytes_a_token * tokens))))


@torch.inference_mode()
def _write_together(
    model: Any,
    prompts: Sequence[Int[np.ndarray, " n"]],
    new_tokens: int,
    decoding: Decoding,
    ends: Sequence[int],
    generators: Sequence[torch.Generator],
) -> list[Written]:
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    seen = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
        seen[row, longest - len(prompt) :] = 1
    processors = LogitsProcessorList([_RefuseNaN()])
    if decoding.temperature:
        processors.append(TemperatureLogitsWarper(float(decoding.temperature)))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(Draw(generators))
    pad = ends[0] if ends else 0
    with _own_generation_config(model, new_tokens, ends, pad):
        whole = model.generate(ids.to(device), attention_mask=seen.to(device), logits_processor=processors)
    return [_cut(row, ends) for row in whole[:, longest:].cpu().numpy()]


def _cut(row: Int[np.ndarray, " n"], ends: Sequence[int]) -> Written:
    stops = np.flatnonzero(np.isin(row, list(ends)))
    return Written(row[: stops[0]], True) if len(stops) else Written(row, False)


@contextmanager
def _own_generation_config(model: Any, new_tokens: int, ends: Sequence[int], pad: int) -> Iterator[None]:
    """A checkpoint may bring settings of its own (a repetition penalty, say), which `generate` would mix into ours."""
    before = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, use_cache=True, eos_token_id=list(ends) or None, pad_token_id=pad
    )
    try:
        yield
    finally:
        model.generation_config = before
