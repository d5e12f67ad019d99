"""`ropewalk train`, and what it watches on the way: perplexity and passkeys, at the window that is left and at the one that is entered.

in   settings
out  what training makes, its card with what was seen; `out/watch.jsonl`, rows of the model after so many steps, as the measuring commands would have
     written them
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from ropewalk.checkpoint.model_card import NOT_MEASURED, README, is_theirs
from ropewalk.checkpoint.steps import CHECKPOINTS, WATCHED, step_name, steps_in
from ropewalk.errors import UserError, read_text
from ropewalk.evals.digits import digits
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.perplexity import measure as perplexities
from ropewalk.evals.retrieval import passkey
from ropewalk.records import ModelInfo, Perplexity, read
from ropewalk.reports.card import card
from ropewalk.settings.command import takes
from ropewalk.settings.measure import PasskeySettings, PerplexitySettings
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.digests import warn_of_trained_texts
from ropewalk.training.loop import Loop
from ropewalk.training.retry import told_as_whole
from ropewalk.training.run import run

_logger = logging.getLogger(__name__)
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
    warn_of_trained_texts("watch-data", settings.watch_data, settings.data)
    info = run(settings, Watch(settings) if settings.watch else None)
    readme = Path(settings.out) / README
    # Not one that `card` has written since, of a run that had nothing left to do.
    if settings.watch and readme.is_file() and not is_theirs(readme) and NOT_MEASURED in read_text(readme):
        with told_as_whole(
            settings.out, f"its card alone, which `ropewalk card {shlex.quote(str(settings.out))}` writes,"
        ):
            card(model=settings.out, trust_remote_code=settings.trust_remote_code)
    return info


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
            depths, found = passkey.measure(loaded, keys)
            right = digits(found, depths)
            of_digits = f" ({right[0]:.0%} of their digits)" if right else ""
            figures.append(f"{found.accuracy:.0%} of the passkeys at {window}{of_digits}")
        _logger.info(f"step {loop.done}: {', '.join(figures)}")
        return self._too_much(loop, windows[0])

    def _too_much(self, loop: Loop, window: int) -> str | None:
        """Whether the perplexity at the old window has risen by more than is allowed, by what is on record, of a run that goes on too; and what is better."""
        limit = self.settings.watch_stop
        if limit is None:
            return None
        begun = loop.start.info.steps or 0
        looks = [
            (step, each.row.perplexity)
            for each in read([loop.out / WATCHED]).of(Perplexity)
            # Not of later steps, which a run that was resumed has on record.
            if each.row.window == window and (step := (each.run.model.steps or 0) - begun) <= loop.done
        ]
        last, least = looks[-1][1], min(perplexity for _, perplexity in looks)
        most = least * (1 + limit / 100)
        if last <= most:
            return None
        loop.watching.rise = window, least, last
        good = max(step for step, perplexity in looks if perplexity <= most)
        rise = f"the perplexity at {window} tokens is {last:.4g}, more than {limit:g} % above {least:.4g}. What it leaves in {self.settings.out} is"
        if step := loop.watching.leave(loop, good):
            return f"{rise} the model of step {step}, {_use(self.settings.out, good)}"
        return f"{rise} that worse model; {self._better(loop.out, good)}"

    def _better(self, out: Path, good: int) -> str:
        """What there is of a run before its old window suffered, where nothing can be gone back to, and how to go on. out: where it lies. good: the last step at which it had not."""
        if not good:
            return "nothing was better but the model it began with: begin again (--overwrite) at a lower --learning-rate, or look more often (--watch-every)"
        saved = max((step for step in steps_in(out / CHECKPOINTS) if step <= good), default=None)
        if saved is None:
            return (
                f"it was within that after step {good}, and no checkpoint was kept until then: begin again (--overwrite) with --save-every "
                f"{self.settings.watch_every}, which keeps every model that is looked at"
            )
        place = Path(self.settings.out) / CHECKPOINTS / step_name(saved)
        return f"{place} is {_use(place, good)}"


def _use(place: Path | str, good: int) -> str:
    """What a saved model is, and what can be done with it. place: where it lies. good: as in `Watch._better`."""
    return (
        f"the last that is saved of the steps to {good}, which kept within: use it, or train it on at a lower --learning-rate (ropewalk train "
        f"{shlex.quote(str(place))} …)"
    )


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
