"""lm-eval's harness around a model that is loaded already.

in   lm-eval's requests: prompts and answers as text
out  log-likelihoods, and which items had a prompt longer than the window
"""

from __future__ import annotations

import copy
from typing import Any

from lm_eval.models.huggingface import HFLM

from ropewalk.distributed import ranks
from ropewalk.evals.downstream import choices
from ropewalk.evals.loaded import LoadedModel
from ropewalk.progress import Progress

#: Texts whose tokens are kept: a prompt, and it with each of an item's answers.
_ENCODED = 8


class Harness(HFLM):
    """lm-eval's own model around one that is loaded already: its tokens and prompts, our window and arithmetic (choices.py).

    `truncated` holds (task, item) for every item with a prompt longer than the window. Whether an answer is also the
    greedy one is not computed: it is reported as False, and `acc` does not look at it.
    """

    def __init__(self, loaded: LoadedModel, *, window: int, batch_tokens: int) -> None:
        # lm-eval gives the tokenizer a padding token; and a long prompt is no news, it is counted. Its copy's business.
        tokenizer = copy.deepcopy(loaded.tokenizer)
        tokenizer.model_max_length = 2**62
        super().__init__(
            pretrained=loaded.model,
            tokenizer=tokenizer,
            max_length=window,
            prefix_token_id=prefix_of(loaded.tokenizer, loaded.model.config),
        )
        self.batch_tokens = batch_tokens
        self.truncated: set[tuple[str, int]] = set()
        self._asked: list[Any] = []
        # What was encoded last, oldest first. Not functools' cache, which would hold this object, and its model, until a collection.
        self._encoded: dict[str, list[int]] = {}

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """As lm-eval does it; but an item's answers follow the same prompt, which is encoded once and not for each of them."""
        if args or kwargs:
            return super().tok_encode(string, *args, **kwargs)
        if string not in self._encoded:
            if len(self._encoded) == _ENCODED:
                del self._encoded[next(iter(self._encoded))]
            self._encoded[string] = super().tok_encode(string)
        return list(self._encoded[string])

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._asked = requests
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        window, pairs = self.max_length, [(prompt, answer) for _, prompt, answer in requests]
        for pair, asked in zip(pairs, self._asked, strict=True):
            if not choices.fits(pair, window):
                self.truncated.add((asked.task_name, asked.doc_id))
        # An item's answers stay together on one rank, which reads their prompt once.
        mine = [at for at, asked in enumerate(self._asked) if asked.doc_id % ranks.size() == ranks.rank()]
        with Progress(self._asked[0].task_name, len(mine)) as advance:
            values = choices.log_likelihoods(
                self.model,
                [pairs[at] for at in mine],
                window=window,
                batch_tokens=self.batch_tokens,
                advance=advance,
            )
        found = ranks.gathered(dict(zip(mine, values, strict=True)))
        return [(found[at], False) for at in range(len(pairs))]


def prefix_of(tokenizer: Any, config: Any) -> int:
    """lm-eval asks for the token before an empty prompt even where none is empty; some tokenizers name neither."""
    known = (tokenizer.bos_token_id, tokenizer.eos_token_id, config.bos_token_id, config.eos_token_id)
    return next((token for token in known if isinstance(token, int)), 0)
