"""Greedy responses to prompts of one length, each of which is read once.

in   a model whose layers are all plain causal attention, prompts with the answers that would be right, if one string is
out  per prompt, that its answer is what greedy decoding gives, or else what it does give

A pass over prompt and answer says whether greedy decoding would give the answer (evals/retrieval/forced.py), and its keys and values stay in a row
of a cache (attention_ops/cached_rows.py). A prompt whose answer is right gives its row to the next one. The others are continued together once
all rows are taken; one that is done leaves, and costs the others nothing more. All prompts have one length, so nothing is padded.

**What prompts share.** Facts are hidden in the same text, so a prompt is alike another one up to the first fact of either. As much of it as a row
holds already is copied and not read. Those that share most go first: the ones after them find what they share in a row.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ropewalk.attention_ops.cached_rows import CachedRows
from ropewalk.attention_ops.prefix import keeps_positions
from ropewalk.attention_ops.transformers import attends_in_two_parts
from ropewalk.data.encode import TokenIds
from ropewalk.errors import UserError
from ropewalk.evals.by_layer import by_layer
from ropewalk.evals.compile import reading_last
from ropewalk.evals.downstream.generation import cache_bytes
from ropewalk.evals.likelihood import default_batch_tokens, rows_on
from ropewalk.evals.retrieval.forced import Prompt
from ropewalk.evals.tokenize_parts import common_length
from ropewalk.model.devices import free_bytes
from ropewalk.model.verify import follows_length
from ropewalk.settings.budget import MARGIN

#: Rows of the cache on a CPU, where large batches gain nothing.
_CPU_ROWS = 4
#: Tokens between two looks at what was written; a text that is done goes on until then.
_LOOK = 8
#: A prefix of less than this part of a prompt is read again: a pass over a whole prompt has the faster kernel.
_WORTH_SHARING = 1 / 16
#: Places of the mask that attention after a prefix has on a CPU; larger ones are not made, and the prompt is read from its beginning.
_CPU_MASK = 2**26
#: What a pass holds at once of each token, in residual streams and in activations of the MLP.
_STREAMS, _MLPS = 4, 3


def reads_once(model: Any) -> bool:
    """Whether this model's prompts can be read once and continued: not if another cache, or a table that goes by the prompt's length, is needed."""
    return attends_in_two_parts(model) and keeps_positions(model) and not any(map(follows_length, model.modules()))


@dataclass(frozen=True, eq=False)
class Continuing:
    """How prompts are continued.

    Attributes:
        room: the most tokens of a response.
        ends: tokens that end one.
        settled: whether a response, by its prompt's place and its tokens, need not go on.
    """

    room: int
    ends: Sequence[int]
    settled: Callable[[int, TokenIds], bool]

    def response(self, place: int, tokens: TokenIds) -> TokenIds | None:
        """Tokens up to the one that ends them; None for a response that goes on."""
        stops = np.flatnonzero(np.isin(tokens, list(self.ends)))
        cut = tokens[: stops[0]] if len(stops) else tokens
        return cut if len(stops) or len(tokens) >= self.room or self.settled(place, cut) else None


@torch.inference_mode()
def responses(
    model: Any,
    prompts: Sequence[Prompt],
    continuing: Continuing,
    *,
    batch_tokens: int | None = None,
    most_rows: int | None = None,
) -> Iterator[tuple[int, TokenIds | None]]:
    """The response to each prompt, as soon as it is there.

    Args:
        model: one that `reads_once`.
        prompts: of one length; an answer of no tokens where not one string alone is right.
        continuing: how a response goes on and ends.
        batch_tokens: tokens of one forward pass over prompts.
        most_rows: prompts whose keys and values are held at once; as many as memory is reckoned to hold if not given.

    Yields:
        A prompt's place, and its new tokens; None for them if its answer is what greedy decoding gives.

    Raises:
        UserError: a logit was NaN.
    """
    length = len(prompts[0].ids)
    batch = max(1, (batch_tokens or default_batch_tokens(next(model.parameters()).device)) // length)
    # One number for all passes, so that a kernel plans for one shape.
    count = max(1, *(len(prompt.answer) for prompt in prompts))
    tokens = length + max(continuing.room, count)
    rows = min(len(prompts), rows_for(model, tokens, batch * length), most_rows or len(prompts))
    cache = CachedRows(model, rows, tokens)
    waiting, held, firsts = _by_shared(prompts), list[int](), list[Tensor]()
    while waiting or held:
        free = cache.rows - len(held)
        if not waiting or not free:
            yield from _continue(model, cache, held, torch.stack(firsts), length, continuing)
            held, firsts = [], []
            continue
        places, waiting = waiting[: min(batch, free)], waiting[min(batch, free) :]
        before = len(held)
        right, first = _read(model, cache, before, [prompts[place] for place in places], count)
        for row, place in enumerate(places):
            if right[row]:
                yield place, None
            else:
                cache.copy(before + row, len(held), length)
                held.append(place)
                firsts.append(first[row])


def rows_for(model: Any, tokens: int, pass_tokens: int) -> int:
    """How many texts of so many tokens a GPU's free memory holds keys and values for, beside a pass over `pass_tokens`; few on a CPU."""
    weight = next(model.parameters())
    if weight.device.type != "cuda":
        return _CPU_ROWS
    config = model.config.get_text_config()
    width = _STREAMS * config.hidden_size + _MLPS * (getattr(config, "intermediate_size", None) or config.hidden_size)
    room = free_bytes(weight.device) - MARGIN - pass_tokens * width * weight.element_size()
    return int(max(1, room // (cache_bytes(model) * tokens)))


def _read(
    model: Any, cache: CachedRows, row: int, prompts: Sequence[Prompt], count: int
) -> tuple[Bool[np.ndarray, " batch"], Int[Tensor, " batch"]]:
    """Read prompts with their answers, of up to `count` tokens, into the rows from `row` on.

    Returns:
        Whose answer is right, and the first token that greedy decoding gives.
    """
    device, length = next(model.parameters()).device, len(prompts[0].ids)
    # Answers of unequal lengths are filled up behind, where no token of the answer looks.
    answers = rows_on(device, [np.pad(prompt.answer, (0, count - len(prompt.answer))) for prompt in prompts])
    counted = torch.tensor([len(prompt.answer) for prompt in prompts], device=device)[:, None]
    start = _copy_shared(cache, row, prompts, device)
    ids = torch.cat([rows_on(device, [prompt.ids[start:] for prompt in prompts]), answers[:, :-1]], dim=1)
    with cache.attending(), reading_last(model, count), by_layer(model, ids):
        place = cache.at(slice(row, row + len(prompts)), start, ids.shape[1], count)
        logits = model(input_ids=ids, **place).logits
    cache.prompts[row : row + len(prompts)] = [prompt.ids for prompt in prompts]
    _refuse_nan(logits.isnan().any(), f"at the end of a prompt of {length} tokens")
    chosen = logits.argmax(-1)
    right = (chosen == answers) | (torch.arange(count, device=device) >= counted)
    return (right.all(1) & (counted[:, 0] > 0)).cpu().numpy(), chosen[:, 0]


def _by_shared(prompts: Sequence[Prompt]) -> list[int]:
    """Places of the prompts, those first that share the longest prefix with another one."""
    # In the order of a dictionary, the one that a prompt shares most with stands beside it.
    order = sorted(range(len(prompts)), key=lambda place: prompts[place].ids.astype(">i8").tobytes())
    shared = [0] * len(prompts)
    for one, other in itertools.pairwise(order):
        length = common_length([prompts[one].ids, prompts[other].ids])
        shared[one], shared[other] = max(shared[one], length), max(shared[other], length)
    return sorted(range(len(prompts)), key=lambda place: -shared[place])


def _copy_shared(cache: CachedRows, row: int, prompts: Sequence[Prompt], device: torch.device) -> int:
    """Copy what all of these prompts share with some row into theirs, if that is worth it; how many tokens need not be read."""
    length = len(prompts[0].ids)
    shared, source = max(
        (min(common_length([prompt.ids, there]) for prompt in prompts), at) for at, there in enumerate(cache.prompts)
    )
    shared = min(shared, length - 1)
    if shared < _WORTH_SHARING * length or (device.type == "cpu" and (length - shared) * length > _CPU_MASK):
        return 0
    for target in range(row, row + len(prompts)):
        cache.copy(source, target, shared)
    return shared


def _continue(
    model: Any, cache: CachedRows, places: list[int], first: Int[Tensor, " rows"], length: int, continuing: Continuing
) -> Iterator[tuple[int, TokenIds]]:
    """Continue the prompts in the first rows of the cache, after the first token of each."""
    written = first[:, None]
    with cache.attending():
        while True:
            texts = [continuing.response(*each) for each in zip(places, written.cpu().numpy(), strict=True)]
            yield from ((place, text) for place, text in zip(places, texts, strict=True) if text is not None)
            rows = _filled_up([row for row, text in enumerate(texts) if text is None])
            if not rows:
                return
            for row, source in enumerate(rows):
                cache.copy(source, row, length + written.shape[1] - 1)
            places, written = [places[row] for row in rows], written[rows]
            written = _further(model, cache, written, length, min(_LOOK, continuing.room - written.shape[1]))


def _further(
    model: Any, cache: CachedRows, written: Int[Tensor, "rows n"], length: int, steps: int
) -> Int[Tensor, "rows n_plus_steps"]:
    """So many tokens more, each the likeliest."""
    broken = torch.zeros((), dtype=torch.bool, device=written.device)
    for _ in range(steps):
        place = cache.at(slice(0, len(written)), length + written.shape[1] - 1, 1, 1)
        logits = model(input_ids=written[:, -1:], **place).logits[:, -1]
        broken = broken | logits.isnan().any()
        written = torch.cat([written, logits.argmax(-1, keepdim=True)], dim=1)
    _refuse_nan(broken, f"after a prompt of {length} tokens")
    return written


def _filled_up(rows: list[int]) -> list[int]:
    """Rows that stay, in an order in which as many as possible are at their own places: the last ones fill the gaps of those that left."""
    count = len(rows)
    later = [row for row in rows if row >= count]
    return [row if row in rows else later.pop() for row in range(count)]


def _refuse_nan(broken: Tensor, where: str) -> None:
    if bool(broken):
        raise UserError(
            f"logits must be numbers, but the model gave NaN {where}; try --dtype float32, or another copy of the model"
        )
