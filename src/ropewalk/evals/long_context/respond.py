"""What a model responds to items, as greedy decoding gives it.

in   a model in memory, items
out  texts

Where one string is the answer, one pass reads prompt and answer (evals/retrieval/forced.py): if every token of it is the argmax, greedy decoding would
give it, and the response begins with it. Only where it would not is the response generated, since an answer may stand later in it. So no item's score
differs from that of generating all responses (tests/evals/test_long_context.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ropewalk.data.encode import TokenIds
from ropewalk.evals.downstream.generation import end_marks, write
from ropewalk.evals.likelihood import default_batch_tokens
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.long_context.items import Item
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.evals.tokenize_parts import after
from ropewalk.settings.downstream import Decoding

_GREEDY = Decoding(temperature=0.0)


def respond(
    loaded: LoadedModel,
    items: Sequence[Item],
    *,
    batch_tokens: int | None = None,
    settled: Callable[[str, Sequence[str]], bool] = lambda response, answers: False,
    done: Callable[[int, str], None] = lambda place, response: None,
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
    responses: dict[int, str] = {}

    def keep(place: int, response: str) -> None:
        responses[place] = response
        done(place, response)

    single = [place for place, item in enumerate(items) if item.forced]
    size = _together(loaded, items, batch_tokens)
    for start in range(0, len(single), size):
        places = single[start : start + size]
        prompts = [Prompt(items[place].ids, after(loaded.tokenizer, ".", items[place].forced)) for place in places]
        for place, right in zip(places, verdicts(loaded.model, prompts, batch_tokens=batch_tokens), strict=True):
            if right.all():
                keep(place, items[place].forced)
    missing = [place for place in range(len(items)) if place not in responses]
    _generate(loaded, items, missing, batch_tokens, settled, keep)
    return [responses[place] for place in range(len(items))]


def _together(loaded: LoadedModel, items: Sequence[Item], batch_tokens: int | None) -> int:
    """How many prompts are read before what they gave goes on record: those of one forward pass."""
    longest = max((len(item.ids) for item in items), default=1)
    return max(1, (batch_tokens or default_batch_tokens(loaded.device)) // longest)


def _generate(
    loaded: LoadedModel,
    items: Sequence[Item],
    places: Sequence[int],
    batch_tokens: int | None,
    settled: Callable[[str, Sequence[str]], bool],
    keep: Callable[[int, str], None],
) -> None:
    """Generate the responses of some items."""
    tokenizer: Any = loaded.tokenizer
    if not places:
        return

    def said(ids: TokenIds) -> str:
        return tokenizer.decode(ids, skip_special_tokens=True)

    def written(batch: list[int], texts: Sequence[Any]) -> None:
        for at, text in zip(batch, texts, strict=True):
            keep(places[at], said(text.ids))

    write(
        loaded.model,
        [items[place].ids for place in places],
        new_tokens=max(items[place].room for place in places),
        decoding=_GREEDY,
        ends=end_marks(tokenizer, loaded.model),
        names=[f"item {place}" for place in places],
        batch=_together(loaded, items, batch_tokens) if batch_tokens else None,
        done=written,
        settled=lambda at, ids: settled(said(ids), items[places[at]].answers),
    )
