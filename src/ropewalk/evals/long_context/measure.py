"""Measuring long-context tasks: RULER's thirteen and others, by length.

in   a model, lengths (tokens), tasks, a number of items; documents, questions and needles of the user's
out  records: every response with its score, the score of each task at each length, and how long a context is used

**A task that does not fit a length** is left out there, and named; `effective.py` says which tasks then count.

**Items** are made anew for each length, each from a seed of its own (the seed, task, length and number), so that more items only add some. Tasks
that need what the user did not give are named, and left out.

**Equal prompts** count once: of a short length and few needles, items may be few, which is said.

**Early end.** With an interval asked for, a task is measured in steps of eight items, until half its interval is at most so many points.

**A killed run** goes on: each response is on record when it is there, under a key made of the weights, the dtype, the prompt and the task's version.
Under torchrun, the items of each step are shared out over the ranks.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from ropewalk import records
from ropewalk.distributed import ranks
from ropewalk.evals.compile import faster
from ropewalk.evals.intervals import share_interval
from ropewalk.evals.likelihood import check_window, prompt_window
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.long_context.drawing import item, lengths, nothing_fits, of_what
from ropewalk.evals.long_context.effective import effective
from ropewalk.evals.long_context.greedy import reads_once
from ropewalk.evals.long_context.items import Item, TooSmall
from ropewalk.evals.long_context.respond import respond
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS, THIRTEEN
from ropewalk.progress import Progress
from ropewalk.records.resume import already_recorded, by_key, on_record
from ropewalk.sentences import counted, joined
from ropewalk.settings.command import takes
from ropewalk.settings.measure import RulerSettings

_logger = logging.getLogger(__name__)

#: Items between two looks at the interval.
_STEP = 8

Result = tuple[records.Rows[records.LongTask], records.EffectiveLength]


@takes(RulerSettings)
def ruler(settings: RulerSettings) -> Result:
    """Measure long-context tasks; the protocol heads this module.

    Returns:
        One row a task and length, and the summary; the same on every rank.

    Raises:
        UserError: lengths too small for every task, or one too large for the model; no task that can be made; files that cannot be read.
    """
    loaded = open_model(
        settings.model, tokenizer=settings.tokenizer, data=settings.data, **settings.loading, **settings.opening
    )
    return measure(loaded, settings)


def measure(loaded: LoadedModel, settings: RulerSettings) -> Result:
    """`ruler` of a model that is loaded already."""
    own = prompt_window(loaded.model, loaded.info.window)
    windows = sorted(set(settings.windows or lengths(own, loaded.info.original_window)))
    check_window(loaded.model, windows[-1])
    source = Source(loaded.tokenizer, windows[-1], settings.data, settings.questions, settings.needle)
    names, reasons = of_what(settings.tasks, source, windows)
    run = ranks.same(
        loaded.run(
            seed=settings.seed,
            windows=windows,
            tasks={name: TASKS[name].rule for name in names},
            items=settings.items,
            interval=settings.interval,
        )
    )
    recorder, recorded = records.Recorder(settings.out, run), on_record(settings.out)
    kept, old_rows, old = ranks.same(
        (by_key(recorded, records.LongItem), recorded.of(records.LongTask), recorded.of(records.EffectiveLength))
    )
    measuring = Measuring(loaded, fingerprint(loaded), source, settings, recorder, kept)
    rows: list[records.LongTask] = []
    unfit: list[records.Unfit] = []
    with _fast(loaded.model, len(names) * settings.items // ranks.size(), windows):
        for window in windows:
            for name in names:
                row = measuring.row(name, window)
                if not isinstance(row, records.LongTask):
                    unfit.append(row)
                    continue
                if ranks.rank() == 0 and not already_recorded(row, old_rows, run, ignore=("seconds",)):
                    recorder.add(row)
                rows.append(row)
            _tell_time_left(rows, windows)
    if not rows:
        raise nothing_fits(unfit, windows[-1])
    measured = {row.task for row in rows}
    summary = effective(
        rows, loaded.info.original_window, reasons, [*THIRTEEN] if measured & set(THIRTEEN) else names, unfit
    )
    if ranks.rank() == 0 and not already_recorded(summary, old, run):
        recorder.add(summary)
    return records.Rows(rows), summary


def _tell_time_left(rows: Sequence[records.LongTask], windows: Sequence[int]) -> None:
    """After a length: what the longer ones will take, so that one can stop and ask for less. Nothing of less than a minute."""
    window = rows[-1].window if rows else windows[-1]
    longer = [each for each in windows if each > window]
    seconds = sum(row.seconds for row in rows if row.window == window) / ranks.size()
    minutes = seconds * sum(longer) / window / 60
    if minutes >= 1 and ranks.rank() == 0:
        _logger.info(
            "%d tokens took %.0f s; by their tokens %s will take about %s, and more where attention is most of the work. "
            "Stopped, it goes on where it was, with fewer --items or an --interval too.",
            *(window, seconds, joined(longer), counted(round(minutes), "minute")),
        )


def _fast(model: Any, items: int, windows: Sequence[int]) -> AbstractContextManager[None]:
    """Compiled layers and the fastest kernel, if there is enough to read; transformers' caches would have every layer compiled for itself."""
    if not reads_once(model):
        return nullcontext()
    return faster(model, passes=items * sum(windows) // windows[-1], window=windows[-1])


@dataclass(frozen=True)
class Measuring:
    """One measurement: the model, a hash of its weights, what items are made of, what was asked for, and where responses go and are on record."""

    loaded: LoadedModel
    weights: str
    source: Source
    settings: RulerSettings
    recorder: records.Recorder
    kept: dict[str, records.LongItem]

    def row(self, name: str, window: int) -> records.LongTask | records.Unfit:
        """The score of a task at a length, or that one of its items, which differ, does not fit it."""
        found: dict[int, records.LongItem] = {}
        for numbers in self._steps():
            items, unfit = self._drawn(name, window, numbers[ranks.rank() :: ranks.size()])
            if unfit := min(filter(None, ranks.everyones(unfit)), default=None):  # of the first, as one process has it
                return records.Unfit(task=name, window=window, least=unfit[1])
            found |= ranks.gathered(self._measured(name, window, items))
            # At short lengths one needle has few places: the same prompt again is no further evidence.
            scores = [each.score for each in {each.texts: each for _, each in sorted(found.items())}.values()]
            low, high = share_interval(sum(scores), len(scores))
            if self.settings.interval is not None and 50 * (high - low) <= self.settings.interval:
                break
        if len(scores) < len(found) and ranks.rank() == 0:
            _logger.info(
                "%s at %d tokens: %d of %d prompts differ, and each counts once", name, window, len(scores), len(found)
            )
        self._warn_of_empty([each.response for each in found.values()], name, window)
        digest = hashlib.sha256("".join(each.texts for _, each in sorted(found.items())).encode()).hexdigest()[:16]
        return records.LongTask(
            window=window,
            task=name,
            rule=TASKS[name].rule,
            items=len(scores),
            score=sum(scores) / len(scores),
            low=low,
            high=high,
            scores=scores,
            seconds=sum(each.seconds for each in found.values()),
            texts=digest,
            extrapolation=self.loaded.extrapolates(window),
        )

    @staticmethod
    def _warn_of_empty(responses: Sequence[str], name: str, window: int) -> None:
        """Where half of the responses or more are empty, of what that may come."""
        empty = sum(not response.strip() for response in responses)
        if 2 * empty >= len(responses) and ranks.rank() == 0:
            _logger.warning(
                "%s at %d tokens: %d of %d responses are empty: the model ends where an answer should begin, as chat models may behind a prompt that is plain text "
                "and not a turn of a conversation, and the score says little of what it finds",
                name,
                window,
                empty,
                len(responses),
            )

    def _steps(self) -> Iterator[list[int]]:
        """Numbers of items, step by step."""
        items = self.settings.items
        size = _STEP if self.settings.interval is not None else items
        for start in range(0, items, size):
            yield list(range(start, min(start + size, items)))

    def _drawn(self, name: str, window: int, numbers: Sequence[int]) -> tuple[dict[int, Item], tuple[int, int] | None]:
        """Items by their numbers; or the number of the first that does not fit, and the tokens that it takes."""
        items: dict[int, Item] = {}
        with Progress(f"making {name}, {window} tokens", len(numbers)) as advance:
            for number in numbers:
                try:
                    items[number] = item(self.source, name, window, self.settings.seed, number)
                except TooSmall as small:
                    return {}, (number, small.least)
                advance()
        return items, None

    def _measured(self, name: str, window: int, items: dict[int, Item]) -> dict[int, records.LongItem]:
        """Items by their numbers, answered now or on record."""
        keys = {number: self._key(name, each) for number, each in items.items()}
        responses = {number: self.kept[keys[number]] for number in items if keys[number] in self.kept}
        missing = [number for number in items if number not in responses]
        last = time.perf_counter()

        def done(place: int, response: str) -> None:
            nonlocal last
            number, now = missing[place], time.perf_counter()
            row = records.LongItem(
                key=keys[number],
                task=name,
                window=window,
                number=number,
                score=TASKS[name].score(response, items[number].answers),
                response=response,
                answers=list(items[number].answers),
                texts=_texts(items[number]),
                seconds=now - last,
            )
            responses[number], last = row, now
            self.recorder.add(row)
            advance(1)

        with Progress(f"{name}, {window} tokens", len(missing)) as advance:
            respond(
                self.loaded,
                [items[number] for number in missing],
                batch_tokens=self.settings.batch_tokens,
                settled=TASKS[name].settled,
                done=done,
            )
        return responses

    def _key(self, name: str, each: Item) -> str:
        """A short hash of everything that decides a response and its score."""
        parts: list[Any] = [self.weights, self.loaded.dtype, name, TASKS[name].rule, each.room, _texts(each)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:20]


def _texts(each: Item) -> str:
    """A hash of a prompt and its answers."""
    return hashlib.sha256(each.ids.astype("<i8").tobytes() + json.dumps(each.answers).encode()).hexdigest()[:16]
