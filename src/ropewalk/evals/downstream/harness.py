"""lm-eval's interface to a model that is loaded already.

in   lm-eval's requests: prompts and answers as text
out  log-likelihoods, and which items had a prompt longer than the window
"""

from __future__ import annotations

import copy
from typing import Any

from lm_eval.models.huggingface import HFLM

from ropewalk.data.encode import check_ids
from ropewalk.distributed import ranks
from ropewalk.evals.downstream import choices
from ropewalk.evals.loaded import LoadedModel
from ropewalk.progress import Progress

#: Texts whose tokens are kept: a prompt, and it with each of an item's answers.
_ENCODED = 8


class Harness(HFLM):
    """lm-eval's own model class over a model in memory: its tokens and prompts, our window and arithmetic (choices.py).

    `truncated` holds (task, item) for every item with a prompt longer than the window. Whether an answer is what greedy
    decoding gives is not computed: it is reported as False, and `acc` does not use it.
    """

    def __init__(self, loaded: LoadedModel, *, window: int, batch_tokens: int) -> None:
        # A copy, since lm-eval adds a padding token. Long prompts are counted, so the tokenizer need not warn of them.
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
        self._requests: list[Any] = []
        # Texts encoded last, oldest first. functools' cache would hold this object, and its model, until garbage is collected.
        self._encoded: dict[str, list[int]] = {}

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        """lm-eval's tokens; the prompt that an item's answers share is encoded once and not for each of them."""
        if args or kwargs:
            return super().tok_encode(string, *args, **kwargs)
        if string not in self._encoded:
            if len(self._encoded) == _ENCODED:
                del self._encoded[next(iter(self._encoded))]
            tokenizer: Any = self.tokenizer
            self._encoded[string] = super().tok_encode(string)
            check_ids(tokenizer, self._encoded[string])
        return list(self._encoded[string])

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        self._requests = requests
        return super().loglikelihood(requests, disable_tqdm=True)

    def _loglikelihood_tokens(self, requests: list[Any], *args: Any, **kwargs: Any) -> list[tuple[float, bool]]:
        window, pairs = self.max_length, [(prompt, answer) for _, prompt, answer in requests]
        for pair, request in zip(pairs, self._requests, strict=True):
            if not choices.fits(pair, window):
                self.truncated.add((request.task_name, request.doc_id))
        # An item's answers stay together on one rank, which reads their prompt once.
        local = [at for at, request in enumerate(self._requests) if request.doc_id % ranks.size() == ranks.rank()]
        with Progress(self._requests[0].task_name, len(local)) as advance:
            values = choices.log_likelihoods(
                self.model, [pairs[at] for at in local], window=window, batch_tokens=self.batch_tokens, advance=advance
            )
        gathered = ranks.gathered(dict(zip(local, values, strict=True)))
        return [(gathered[at], False) for at in range(len(pairs))]


def prefix_of(tokenizer: Any, config: Any) -> int:
    """The token before an empty prompt, which lm-eval asks for even where no prompt is empty; 0 if nothing names one."""
    candidates = (
        tokenizer.bos_token_id,
        tokenizer.eos_token_id,
        *(getattr(config, f"{end}_token_id", None) for end in ("bos", "eos")),
    )
    return next((token for token in candidates if isinstance(token, int)), 0)
