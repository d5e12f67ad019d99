"""Windows read twice, in the whole context and in the short one, by a model and by the evaluator if there is one.

in   places in documents
out  the sums of each window (gain_figures.py)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ropewalk.data.select import TokenizedDocument
from ropewalk.data.sliding import SlidingWindow
from ropewalk.evals.compile import faster
from ropewalk.evals.likelihood import default_batch_tokens, not_a_number
from ropewalk.evals.loaded import LoadedModel, fingerprint
from ropewalk.evals.perplexity.gain_figures import Sums, sums
from ropewalk.evals.perplexity.two_pass import Contexts, read_twice


@dataclass(frozen=True)
class Reader:
    """Reads windows twice, by the model and by the evaluator if there is one.

    Attributes:
        loaded: the model.
        judge: the evaluator; None: the model itself.
        contexts: what tokens are predicted from.
        batch_tokens: tokens of one forward pass.
    """

    loaded: LoadedModel
    judge: LoadedModel | None
    contexts: Contexts
    batch_tokens: int | None = None

    @property
    def models(self) -> list[LoadedModel]:
        return [self.loaded] if self.judge is None else [self.loaded, self.judge]

    def __call__(self, places: Sequence[tuple[TokenizedDocument, SlidingWindow]]) -> Iterator[Sums]:
        """The sums of each window.

        Raises:
            UserError: a logit was NaN; the error names the document and the window's place in it.
        """
        windows = [(document.ids, place) for document, place in places]
        read = [read_twice(each.model, windows, self.contexts, self.batch_tokens) for each in self.models]
        for (document, place), *twice in zip(places, *read, strict=True):
            if any(np.isnan(nll).any() for each in twice for nll in each):
                raise not_a_number(document.name, place)
            yield sums(place, twice[0], twice[-1].key, self.contexts)

    @contextlib.contextmanager
    def faster(self, places: Sequence[SlidingWindow]) -> Iterator[None]:
        """While the block runs, passes of the two usual shapes are compiled if these windows are worth it."""
        tokens = self.batch_tokens or default_batch_tokens(self.loaded.device)
        lengths = (self.contexts.window, self.contexts.short)
        shapes = [(max(1, tokens // length), length) for length in lengths]
        passes = self.contexts.tokens_read(places) // self.contexts.window
        with contextlib.ExitStack() as stack:
            for each in self.models:
                stack.enter_context(faster(each.model, passes=passes, window=self.contexts.window, shapes=shapes))
            yield

    def identity(self) -> str:
        """Everything about the models and the contexts that decides a document's sums."""
        weights = " ".join(f"{fingerprint(each)} {each.dtype}" for each in self.models)
        return f"gain {weights} {self.contexts.short}"
