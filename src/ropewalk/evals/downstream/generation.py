"""Generating text after prompts, many at a time.

in   a model, prompts as token ids, how the next token is chosen
out  for each prompt the new tokens, and whether the model itself ended

transformers' `generate` does the work (batches, cache, padding). Sampling is ropewalk's: each prompt has a random generator of
its own, so that its text does not depend on which prompts share its batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from jaxtyping import Bool, Float
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopPLogitsWarper,
)

from ropewalk.data.encode import TokenIds
from ropewalk.errors import UserError
from ropewalk.model.devices import free_bytes
from ropewalk.model.layers import head_size
from ropewalk.settings.downstream import Decoding


@dataclass(frozen=True, eq=False)
class Written:
    """A generated text: its tokens without the end token; `finished` if the model ended it."""

    ids: TokenIds
    finished: bool


class Draw(LogitsProcessor):
    """Makes the greedy choice a sample: the maximum of log p + Gumbel noise is each token with its own probability.

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
    """A row of a batch has NaN logits; `generate` by itself would go on with an arbitrary token."""

    def __init__(self, row: int) -> None:
        super().__init__(row)
        self.row = row


class _RefuseNaN(LogitsProcessor):
    def __call__(self, input_ids: torch.Tensor, scores: Float[torch.Tensor, "batch vocabulary"]) -> torch.Tensor:
        broken = scores.isnan().any(dim=1)
        if broken.any():
            raise _NotANumber(int(broken.nonzero()[0, 0]))
        return scores


class _Settled(StoppingCriteria):
    """Ends the rows of a batch whose texts need not go on."""

    def __init__(self, places: Sequence[int], prompt: int, of_place: Callable[[int, TokenIds], bool] | None) -> None:
        self.places, self.prompt, self.of_place = places, prompt, of_place

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> Bool[torch.Tensor, " batch"]:
        rows = input_ids[:, self.prompt :].cpu().numpy()
        ended = [self.of_place is not None and self.of_place(*each) for each in zip(self.places, rows, strict=True)]
        return torch.tensor(ended, device=input_ids.device)


def end_marks(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end a text: the tokenizer's, else the config's; none if neither names one."""
    configs = model.config, model.config.get_text_config()
    for eos in (tokenizer.eos_token_id, *(getattr(config, "eos_token_id", None) for config in configs)):
        if eos is not None:
            return list(eos) if isinstance(eos, list | tuple) else [eos]
    return []


def write(
    model: Any,
    prompts: Sequence[TokenIds],
    *,
    new_tokens: int,
    decoding: Decoding,
    ends: Sequence[int],
    keys: Sequence[int] | None = None,
    names: Sequence[str] | None = None,
    batch: int | None = None,
    done: Callable[[list[int], list[Written]], None] = lambda places, texts: None,
    settled: Callable[[int, TokenIds], bool] | None = None,
) -> list[Written]:
    """Continue every prompt.

    Args:
        model: a transformers causal language model.
        prompts: token ids, of any lengths.
        new_tokens: the most tokens that are generated after a prompt.
        decoding: how tokens are chosen.
        ends: tokens that end a text.
        keys: a number for each prompt that its sampling depends on, beside the seed; its place if not given.
        names: what an error calls each prompt; its place if not given.
        batch: prompts at a time; as many as the memory holds keys and values for if not given.
        done: called after each batch with the places and the texts, so that they can be recorded.
        settled: whether a prompt's text, by its place and its new tokens, need not go on; what follows it then is arbitrary.

    Raises:
        UserError: a logit was NaN; the error names the prompt.
    """
    keys = list(range(len(prompts))) if keys is None else list(keys)
    # Prompts of like length together, to save padding; the longest first, so that too large a batch fails at once.
    places = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
    written: dict[int, Written] = {}
    while places:
        longest = len(prompts[places[0]]) + new_tokens
        size = batch or batch_for(model, longest)
        batch_places, places = places[:size], places[size:]
        try:
            texts = _write_together(
                model,
                [prompts[place] for place in batch_places],
                new_tokens,
                decoding,
                ends,
                [_generator(decoding.seed, keys[place]) for place in batch_places],
                _Settled(batch_places, longest - new_tokens, settled),
            )
        except _NotANumber as error:
            place = batch_places[error.row]
            raise UserError(
                f"logits must be numbers, but the model gave NaN after {names[place] if names else f'prompt {place}'}; "
                "try --dtype float32, or load the weights again from where they came"
            ) from error
        written.update(zip(batch_places, texts, strict=True))
        done(batch_places, texts)
    return [written[place] for place in range(len(prompts))]


@torch.inference_mode()
def write_one(
    model: Any,
    prompt: TokenIds,
    *,
    new_tokens: int,
    decoding: Decoding,
    ends: Sequence[int],
    streamer: Any = None,
    cache: Any = None,
) -> Written:
    """Continue one prompt as it is heard.

    Args:
        model, new_tokens, decoding, ends: as in `write`.
        prompt: token ids.
        streamer: transformers' `BaseStreamer`, which is given the tokens one by one.
        cache: transformers' `Cache` of the first tokens of the prompt, which are not read again; it grows.

    Raises:
        UserError: a logit was NaN.
    """
    ids = torch.from_numpy(np.asarray(prompt, dtype=np.int64))[None].to(next(model.parameters()).device)
    processors = _processors(decoding, [_generator(decoding.seed, len(prompt))])
    try:
        with _fixed_generation_config(model, new_tokens, ends, ends[0] if ends else 0):
            whole = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                logits_processor=processors,
                streamer=streamer,
                past_key_values=cache,
            )
    except _NotANumber:
        raise UserError(
            "logits must be numbers, but the model gave NaN; try --dtype float32, or load the weights again from where they came"
        ) from None
    return _cut(whole[0, len(prompt) :].cpu().numpy(), ends)


def _generator(seed: int, key: int) -> torch.Generator:
    return torch.Generator().manual_seed(int(np.random.SeedSequence([seed, key]).generate_state(1, np.uint64)[0] >> 1))


def batch_for(model: Any, tokens: int) -> int:
    """How many texts of so many tokens share a KV cache: what half of a GPU's free memory holds, at most 32; 4 on a CPU."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return 4
    return int(min(32, max(1, free_bytes(device) // 2 // (cache_bytes(model) * tokens))))


def cache_bytes(model: Any) -> int:
    """Bytes of one token's keys and values in all layers."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    return 2 * config.num_hidden_layers * heads * head_size(model) * next(model.parameters()).element_size()


@torch.inference_mode()
def _write_together(
    model: Any,
    prompts: Sequence[TokenIds],
    new_tokens: int,
    decoding: Decoding,
    ends: Sequence[int],
    generators: Sequence[torch.Generator],
    settled: _Settled,
) -> list[Written]:
    device, longest = next(model.parameters()).device, max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.from_numpy(np.asarray(prompt, dtype=np.int64))
        mask[row, longest - len(prompt) :] = 1
    processors = _processors(decoding, generators)
    pad = ends[0] if ends else 0
    with _fixed_generation_config(model, new_tokens, ends, pad):
        whole = model.generate(
            ids.to(device),
            attention_mask=mask.to(device),
            logits_processor=processors,
            stopping_criteria=StoppingCriteriaList([settled] if settled.of_place else []),
        )
    return [_cut(row, ends) for row in whole[:, longest:].cpu().numpy()]


#: Logits are divided by no less, so that float32 holds the quotients; two that differ are far apart by then.
_COLDEST = 1e-30


def _processors(decoding: Decoding, generators: Sequence[torch.Generator]) -> LogitsProcessorList:
    """What logits go through before the likeliest token is taken, a generator a row."""
    processors = LogitsProcessorList([_RefuseNaN()])
    if decoding.temperature:
        processors.append(TemperatureLogitsWarper(max(decoding.temperature, _COLDEST)))
        if decoding.top_p < 1:
            processors.append(TopPLogitsWarper(decoding.top_p))
        processors.append(Draw(generators))
    return processors


def _cut(row: TokenIds, ends: Sequence[int]) -> Written:
    stops = np.flatnonzero(np.isin(row, list(ends)))
    return Written(row[: stops[0]], True) if len(stops) else Written(row, False)


@contextmanager
def _fixed_generation_config(model: Any, new_tokens: int, ends: Sequence[int], pad: int) -> Iterator[None]:
    """While the block runs, `generate` has these settings alone and none of the checkpoint's (a repetition penalty, say)."""
    usual = model.generation_config
    model.generation_config = transformers.GenerationConfig(
        max_new_tokens=new_tokens, do_sample=False, use_cache=True, eos_token_id=list(ends) or None, pad_token_id=pad
    )
    try:
        yield
    finally:
        model.generation_config = usual
