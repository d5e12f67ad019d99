"""What a model responds to items, as greedy decoding gives it.

in   a model in memory, items
out  texts

Where one string is the answer, one pass reads prompt and answer (evals/retrieval/forced.py): if every token of it is the argmax, greedy decoding would
give it, and the response begins with it. Only where it would not is the response generated, since an answer may stand later in it: from the keys
and values of that pass (greedy.py), or, where a model keeps others, by transformers. So no item's score differs from that of generating all
responses (tests/evals/test_long_context.py).
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from ropewalk.data.encode import TokenIds
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.downstream.generation import end_marks, write
from ropewalk.evals.likelihood import default_batch_tokens
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.long_context.greedy import Continuing, reads_once, responses
from ropewalk.evals.long_context.items import Item
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.evals.tokenize_parts import after
from ropewalk.sentences import counted
from ropewalk.settings.downstream import Decoding
from ropewalk.training.retry import until_it_fits

_logger = logging.getLogger(__name__)
_GREEDY = Decoding(temperature=0.0)
#: Whether a response and the answers to it have their score for good; and what takes an item's place and its response.
Settled = Callable[[str, Sequence[str]], bool]
Keep = Callable[[int, str], None]


def respond(
    loaded: LoadedModel,
    items: Sequence[Item],
    *,
    batch_tokens: int | None = None,
    settled: Settled = lambda response, answers: False,
    done: Keep = lambda place, response: None,
) -> list[str]:
    """The responses, in the items' order.

    Args:
        loaded: the model and its tokenizer.
        items: of any lengths.
        batch_tokens: tokens of one forward pass.
        settled: whether nothing that may follow a response changes its score, so that it need not go on.
        done: called with an item's place and its response as soon as it is there.

    Raises:
        UserError: a logit was NaN.
    """
    kept: dict[int, str] = {}

    def keep(place: int, response: str) -> None:
        kept[place] = response
        done(place, response)

    if reads_once(loaded.model):
        _read_once(loaded, items, batch_tokens, settled, keep)
    else:
        _read_twice(loaded, items, batch_tokens, settled, keep)
    return [kept[place] for place in range(len(items))]


def _read_once(
    loaded: LoadedModel, items: Sequence[Item], batch_tokens: int | None, settled: Settled, keep: Keep
) -> None:
    """Judge and generate from one pass over each prompt, those of one length together."""
    tokenizer: Any = loaded.tokenizer
    ends = end_marks(tokenizer, loaded.model)
    alike: dict[tuple[int, int], list[int]] = {}
    for place, item in enumerate(items):
        alike.setdefault((len(item.ids), item.room), []).append(place)
    for (_, room), places in alike.items():
        _read_alike(
            loaded,
            items,
            places,
            batch_tokens,
            Continuing(room, ends, lambda place, ids: settled(_text(tokenizer, ids), items[place].answers)),
            keep,
        )


def _read_alike(
    loaded: LoadedModel,
    items: Sequence[Item],
    places: list[int],
    batch_tokens: int | None,
    continuing: Continuing,
    keep: Keep,
) -> None:
    """The responses to items of one length, half as many of them at once as often as memory runs out; a process among several cannot try again alone."""
    waiting, most = list(places), len(places)

    def read() -> None:
        asked = list(waiting)
        prompts = [Prompt(items[place].ids, _forced(loaded.tokenizer, items[place])) for place in asked]
        here = dataclasses.replace(continuing, settled=lambda at, ids: continuing.settled(asked[at], ids))
        for at, ids in responses(loaded.model, prompts, here, batch_tokens=batch_tokens, most_rows=most):
            keep(asked[at], items[asked[at]].forced if ids is None else _text(loaded.tokenizer, ids))
            waiting.remove(asked[at])

    def halve(shortage: str) -> None:
        nonlocal most
        if most == 1 or ranks.size() > 1:
            ways = ["smaller --windows", "a smaller --batch-tokens"]
            ways += ["--dtype bfloat16"] * (loaded.model.dtype == torch.float32)
            ways += ["--device cpu"] * (loaded.model.device.type == "cuda")
            raise UserError(
                f"a prompt of {len(items[places[0]].ids)} tokens takes more memory than there is ({shortage}); {', or '.join(ways)}"
            )
        most //= 2
        _logger.info(f"memory ran out ({shortage}); {counted(most, 'prompt')} at most held at once from now on")

    until_it_fits(read, halve)


def _forced(tokenizer: Any, item: Item) -> TokenIds:
    """Token ids of the one string that is right; none where there is none."""
    return after(tokenizer, ".", item.forced) if item.forced else np.empty(0, dtype=np.int64)


def _text(tokenizer: Any, ids: TokenIds) -> str:
    return tokenizer.decode(ids, skip_special_tokens=True)


def _read_twice(
    loaded: LoadedModel, items: Sequence[Item], batch_tokens: int | None, settled: Settled, keep: Keep
) -> None:
    """Judge first; then generate the responses that were not right, by transformers, whatever the model keeps of what it read."""
    single = [place for place, item in enumerate(items) if item.forced]
    size, missing = _together(loaded, items, batch_tokens), {*range(len(items))}
    for start in range(0, len(single), size):
        places = single[start : start + size]
        prompts = [Prompt(items[place].ids, _forced(loaded.tokenizer, items[place])) for place in places]
        for place, right in zip(places, verdicts(loaded.model, prompts, batch_tokens=batch_tokens), strict=True):
            if right.all():
                keep(place, items[place].forced)
                missing.remove(place)
    _generate(loaded, items, sorted(missing), batch_tokens, settled, keep)


def _together(loaded: LoadedModel, items: Sequence[Item], batch_tokens: int | None) -> int:
    """How many prompts are read before what they gave goes on record: those of one forward pass."""
    longest = max((len(item.ids) for item in items), default=1)
    return max(1, (batch_tokens or default_batch_tokens(loaded.device)) // longest)


def _generate(
    loaded: LoadedModel,
    items: Sequence[Item],
    places: Sequence[int],
    batch_tokens: int | None,
    settled: Settled,
    keep: Keep,
) -> None:
    """Generate the responses of some items."""
    tokenizer: Any = loaded.tokenizer
    if not places:
        return

    def written(batch: list[int], texts: Sequence[Any]) -> None:
        for at, text in zip(batch, texts, strict=True):
            keep(places[at], _text(tokenizer, text.ids))

    write(
        loaded.model,
        [items[place].ids for place in places],
        new_tokens=max(items[place].room for place in places),
        decoding=_GREEDY,
        ends=end_marks(tokenizer, loaded.model),
        names=[f"item {place}" for place in places],
        batch=_together(loaded, items, batch_tokens) if batch_tokens else None,
        done=written,
        settled=lambda at, ids: settled(_text(tokenizer, ids), items[places[at]].answers),
    )
