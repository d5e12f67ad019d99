"""Training runs: each as its steps tell it, which rows measured it, and what is to be known of it before comparing."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ropewalk.checkpoint.steps import ENDED_BY, MODEL_STEP, WATCH_STOP, rise_of
from ropewalk.records import BOOKKEEPING, Measurement, Run, Step
from ropewalk.records import format as number_format
from ropewalk.records.recipe import differing, is_same_place, is_training, place
from ropewalk.records.variant import Variant, made_variant, told_apart, trained_variant
from ropewalk.reports.rows import Clean, once
from ropewalk.sentences import counted

#: A share of the data that was left out above which the page says so.
_MUCH = 0.2


@dataclass(frozen=True)
class Training:
    """One training run, added up from its steps. A resumed step counts once: the later row holds."""

    run: Run
    measurements: list[Measurement[Step]]

    @property
    def variant(self) -> Variant:
        return trained_variant(self.run.model, self.measurements[0].recipe)

    @property
    def steps(self) -> list[Step]:
        return [m.row for m in self.measurements]

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)

    @property
    def seconds(self) -> float:
        return self.seconds_at(self.steps[-1].step) if self.steps else 0.0

    @property
    def asked(self) -> int | None:
        """Steps that were asked for, when the run was last started."""
        steps = self.measurements[-1].run.settings.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def is_finished(self) -> bool:
        """Whether all of them are on record, or whoever watched the run ended it."""
        watched = self.run.settings.get(ENDED_BY) == WATCH_STOP
        return watched or self.asked is None or self.steps[-1].step >= self.asked

    @property
    def is_cut_short(self) -> bool:
        """Whether anything but its steps ended it."""
        return not self.is_finished or self.run.settings.get(ENDED_BY) == WATCH_STOP

    @property
    def model_step(self) -> int:
        """The steps of the model that it left."""
        return self.run.settings.get(MODEL_STEP) or self.steps[-1].step

    @property
    def left(self) -> str:
        """Behind how it ended: why, where the watch ended it, and which model lies in its directory, where that is not its last or is a worse one."""
        rise, is_last = rise_of(self.run.settings), self.model_step == self.steps[-1].step
        which = (
            "that worse model" if is_last else f"the model of step {self.model_step}{', from before that' * bool(rise)}"
        )
        left = f"; what it left in {self.run.settings.get('out')} is {which}" if rise or not is_last else ""
        return (f", because {rise}" if rise else "") + left

    @property
    def ended(self) -> str:
        """How a run ended that took fewer steps than were asked for: by what its header says, which a killed one has not come to write."""
        by = self.run.settings.get(ENDED_BY)
        return f"{f'ended by {by}' if by else 'interrupted'}, {self.steps[-1].step} of {self.asked}"

    def tokens_at(self, number: int) -> int | None:
        """Tokens seen when step `number` was done; None if the run never came that far."""
        if not self.steps or number > self.steps[-1].step:
            return None
        return sum(step.tokens for step in self.steps if step.step <= number)

    def seconds_at(self, number: int) -> float:
        """Until step `number` was done."""
        return sum(s.seconds for s in self.steps if s.step <= number and number_format.is_finite(s.seconds))

    @property
    def title(self) -> str:
        return self.variant.training_title


@once
def trainings(clean: Clean) -> list[Training]:
    """One per run with steps, in the order of their start; without those of which nothing is left."""
    runs = attempts(clean)
    gone = {run.run.id for run, _ in begun_anew(runs)}
    return [run for run in runs if run.run.id not in gone]


def begun_anew(runs: Sequence[Training]) -> list[tuple[Training, str]]:
    """Runs that were killed before their first checkpoint and begun anew in the same place, which has its name beside."""
    later, gone = set[str](), []
    for run in reversed(runs):
        if is_training(run.run):
            where = place(str(run.run.settings["out"]))
            if where in later and not run.is_finished:
                gone.append((run, where))
            later.add(where)
    return gone[::-1]


@once
def attempts(clean: Clean) -> list[Training]:
    """All that was trained, in the order of its start: what cost time, though nothing may be left of it."""
    by_run: dict[str, dict[int, Measurement[Step]]] = {}
    for m in clean.of(Step):
        by_run.setdefault(m.run.id, {})[m.row.step] = m
    return [
        Training(run, [m for _, m in sorted(by_run[run.id].items())]) for run in clean.used_runs if run.id in by_run
    ]


def read_by(run: Run) -> str:
    """What a run was trained on, in words: documents that differ by a number alone are counted together."""
    names = run.settings.get("data")
    if not isinstance(names, list) or not names:
        return ""
    stems = Counter(re.sub(r"\s+\d+$", "", str(name)) for name in names)
    numbered = [f"{count} × “{stem}”" for stem, count in stems.items() if count > 1]
    others = [stem for stem, count in stems.items() if count == 1]
    if others:
        short = "/".join(others[0].split("/")[-2:])
        numbered.append(short if len(others) == 1 else f"{short} and {len(others) - 1} more")
    return " and ".join(numbered)


def devices(run: Run) -> int:
    """How many devices a run used, from its settings; one where they do not say."""
    counts = (run.settings.get(name) for name in ("world_size", "devices", "ranks", "gpus"))
    return next((count for count in counts if isinstance(count, int) and count > 0), 1)


def kind_of_device(device: str) -> str:
    """The device without its number or its threads: cuda:0 and cuda:1 are one kind, so are cpu and cpu with two threads."""
    kind = device.partition(",")[0].strip()
    return re.sub(r":\d+$", "", kind) or "not said"


def budget(variant: Variant, runs: Sequence[Training]) -> int | None:
    """Tokens a variant was trained on: what was asked for, of a row of `ablate`; else by its own training, or what those agree on that train this method to this window."""
    if (asked := variant.recipe.tokens) is not None:
        return asked
    tokens = {run.tokens_at(variant.steps) for run in trained_by(variant, runs)} - {None}
    return next(iter(tokens)) if len(tokens) == 1 else None


def trained_by(variant: Variant, runs: Sequence[Training]) -> list[Training]:
    """The training of a variant and of its other seeds; where its own is not on record, all of this method to this window."""
    goal = variant.lineage, variant.method, variant.window
    alike = [run for run in runs if (run.variant.lineage, run.variant.method, run.variant.window) == goal]
    alike = [run for run in alike if abs(run.variant.factor - variant.factor) < 1e-6]
    return [run for run in alike if run.variant.recipe == variant.recipe] if variant.recipe.facts else alike


def worse(variant: Variant, runs: Sequence[Training]) -> str:
    """What the watch of a training saw of the short window of the very model that it left; nothing where that did not get worse."""
    own = [
        run for run in runs if is_training(run.run) and _lies_in(variant, run) and run.model_step == run.steps[-1].step
    ]
    return next((rise_of(run.run.settings) for run in own if variant.steps == run.run.model.steps + run.model_step), "")


def device_seconds(variant: Variant, runs: Sequence[Training]) -> float | None:
    """Of its training up to its step, times its devices, in the mean where the same was trained several times; None unless that alone is on record."""
    alike = trained_by(variant, runs)
    own = [run for run in alike if is_same_place(variant.name, str(run.run.settings.get("out", "")))] or alike
    if not own or (len(own) > 1 and variant.recipe.seed is None):
        return None
    return fmean(run.seconds_at(variant.steps) * devices(run.run) for run in own)


def unmeasured(clean: Clean) -> list[Training]:
    """Trainings by `train` of whose checkpoints no row of these records measured any; a directory may have moved since, so that another place of the same method is taken for it."""
    runs = [run for run in trainings(clean) if is_training(run.run)]
    rows = [m for m in clean.measurements if not isinstance(m.row, (Step, *BOOKKEEPING))]
    measured = {m.model_variant for m in rows if m.model_variant.steps}
    moved = [v for v in measured if not any(_lies_in(v, run) for run in runs)]
    left = [run for run in runs if not any(_lies_in(v, run) for v in measured)]
    return [run for run in left if not any(is_like(v, run) for v in moved)]


def _lies_in(variant: Variant, run: Training) -> bool:
    """Whether a model is of a training by its place."""
    return is_same_place(variant.name, str(run.run.settings["out"]))


def is_like(variant: Variant, run: Training) -> bool:
    """Whether a model is of the method and window that a training worked towards."""
    goal = run.variant
    return (variant.lineage, variant.scaling, variant.window) == (goal.lineage, goal.scaling, goal.window)


def not_measured(clean: Clean) -> list[str]:
    """These, in a sentence each, and those of which nothing is left."""
    gone = [
        f"{where} was begun anew after {run.steps[-1].step} of {counted(run.asked or 0, 'step')} of an attempt that was interrupted: these are in no model."
        for run, where in begun_anew(attempts(clean))
    ]
    return gone + [
        f"No row of these records measured {place(str(run.run.settings['out']))}, "
        + (
            f"whose training is {'over' if run.is_finished else 'unfinished'}: {run.ended} steps{run.left}."
            if run.is_cut_short
            else f"which was trained for {number_format.steps(run.steps[-1].step)}."
        )
        for run in unmeasured(clean)
    ]


def unread(clean: Clean) -> Iterator[str]:
    """Of each training that left out much of what it was given, how much, and how often it read the rest."""
    for run, name in names(trainings(clean)):
        settings, done = run.measurements[-1].run.settings, run.steps[-1].step
        sources, planned = settings.get("sources"), settings.get("steps")
        known = [each for each in sources if isinstance(each, dict)] if isinstance(sources, list) else []
        tokens, left_out = (sum(each.get(key) or 0 for each in known) for key in ("tokens", "left_out"))
        if tokens and left_out > _MUCH * tokens:
            # On record are the passes of all steps that were asked for.
            part = done / planned if isinstance(planned, int) and planned > done else 1.0
            often = [
                f"; of the rest it read {part * each.get('passes', 0):.2g} passes" for each in known if len(known) == 1
            ]
            share = number_format.share(left_out / tokens)
            yield f"{name} left {left_out:,} of the {tokens:,} tokens of its data unread ({share}), since no answer ends there within {_length(known)}{''.join(often)}."


def _length(sources: list[dict[str, Any]]) -> str:
    lengths = {each["length"] for each in sources if each.get("left_out") and "length" in each}
    return f"{lengths.pop()} tokens" if len(lengths) == 1 else "a window"


def names(runs: list[Training]) -> list[tuple[Training, str]]:
    """Each training with a name that no other has."""
    settings = differing([run.variant.recipe for run in runs])
    made = [made_variant(run.run, run.variant.recipe) for run in runs]
    unique = told_apart({at: run.title for at, run in enumerate(runs)}, made.__getitem__, settings)
    return [(run, unique[place]) for place, run in enumerate(runs)]
