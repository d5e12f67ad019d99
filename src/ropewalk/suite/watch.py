"""`ropewalk train`, and what it watches on the way: perplexity and passkeys, at the window that is left and at the one that is entered.

in   settings
out  what training makes; `out/watch.jsonl`, rows of the model after so many steps, as the measuring commands would have written them
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

from ropewalk.errors import UserError
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.perplexity import measure as perplexities
from ropewalk.evals.retrieval import passkey
from ropewalk.records import ModelInfo, Perplexity, read
from ropewalk.settings.command import takes
from ropewalk.settings.measure import PasskeySettings, PerplexitySettings
from ropewalk.settings.train import TrainSettings
from ropewalk.training.loop import Loop
from ropewalk.training.run import run

_logger = logging.getLogger(__name__)
WATCHED = "watch.jsonl"
#: Enough to see which way it goes, in seconds on a small model: documents; places of the key, and keys for each.
_DOCUMENTS, _DEPTHS, _TRIALS = 8, 8, 2


@takes(TrainSettings)
def train(settings: TrainSettings) -> ModelInfo:
    """Fine-tune a model at a window, after extending it there if its own is shorter.

    Its steps are records of the logger "ropewalk" (docs/training.md).

    Returns:
        The trained model, as records describe it.

    Raises:
        UserError: settings, model, data or disk are not as they must be, or the loss diverged; one sentence.
    """
    return run(settings, Watch(settings) if settings.watch else None)


@dataclass(frozen=True)
class Watch:
    """Looks at a run; shown it again, says why it should end, if it should."""

    settings: TrainSettings

    def __call__(self, loop: Loop) -> str | None:
        """Measure the model as it is.

        Raises:
            UserError: the run has several processes, or the documents are too short for the window.
        """
        if loop.mesh.world > 1:
            raise UserError("a model that is spread over several processes cannot be watched; leave --watch out")
        loaded, place, asked = _as_it_is(loop), loop.out / WATCHED, self.settings
        watched = asked.watch or ()
        windows = sorted({loaded.info.original_window, loaded.info.window})
        common = {"model": loaded.model, "tokenizer": loaded.tokenizer, "out": place}
        figures = []
        if asked.watch_data is not None and "perplexity" in watched:
            texts = {"data": asked.watch_data, "limit": _DOCUMENTS, "max_tokens": windows[-1]}
            rows = perplexities.measure(loaded, PerplexitySettings(**common, **texts, windows=windows))
            figures += [f"perplexity {row.perplexity:.4g} at {row.window}" for row in rows]
        for window in windows if "passkey" in watched else ():
            keys = PasskeySettings(**common, window=window, depths=_DEPTHS, trials=_TRIALS)
            _, found = passkey.measure(loaded, keys)
            figures.append(f"{found.accuracy:.0%} of the passkeys at {window}")
        _logger.info(f"step {loop.done}: {', '.join(figures)}")
        return self._too_much(place, windows[0])

    def _too_much(self, place: Path, window: int) -> str | None:
        """Whether the perplexity at the old window has risen by more than is allowed, by what is on record, of a run that goes on too."""
        limit = self.settings.watch_stop
        if limit is None:
            return None
        perplexities_so_far = [
            each.row.perplexity for each in read([place]).of(Perplexity) if each.row.window == window
        ]
        if perplexities_so_far[-1] <= min(perplexities_so_far) * (1 + limit / 100):
            return None
        return f"the perplexity at {window} tokens is {perplexities_so_far[-1]:.4g}, more than {limit:g} % above {min(perplexities_so_far):.4g}"


def _as_it_is(loop: Loop) -> LoadedModel:
    """The model in training, told apart by what decides its weights: where it started, settings, data, steps."""
    info, start = loop.start.info, loop.start
    of_step = f"{start.fingerprint} {loop.settings.identity()} {loop.batches.windows.digest} {loop.done}"
    info = dataclasses.replace(
        info,
        name=str(loop.settings.out),
        steps=(info.steps or 0) + loop.done,
        fingerprint=hashlib.sha256(of_step.encode()).hexdigest()[:16],
    )
    return LoadedModel(start.model, start.tokenizer, info)
