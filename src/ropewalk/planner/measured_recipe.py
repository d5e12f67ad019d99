"""What the lab trained longest of what is nearest to a plan, as it was run, and what it would take here.

in   a `Plan`; the model as it is to be, where somebody settled that
out  a `MeasuredRecipe`: steps, windows, learning rate, hours, cost; or nothing where nothing like it was measured
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.planner.planner import Plan
from ropewalk.records.evidence import Training, nearest, outside
from ropewalk.rope.scaling import SCALINGS, Plain
from ropewalk.sentences import counted
from ropewalk.settings.recipe import Recipe

#: So many times as large, a model's learning rate is not likely to be the measured one's.
_LARGER = 10


@dataclass(frozen=True)
class MeasuredRecipe:
    """The lab's steps at this plan's window and speed.

    method: as a page calls it. steps, batch_size, learning_rate: as in the lab, but for a batch that chips share out evenly. tokens, hours, cost: of all
    steps here; hours are None where no time is known, cost also where no price is. evidence: where it was measured, what was found, and in what this is
    outside of it.
    """

    method: str
    steps: int
    batch_size: int
    learning_rate: float
    tokens: float
    hours: float | None
    cost: float | None
    evidence: str


def measured_recipe(plan: Plan, info: ModelInfo | None = None) -> MeasuredRecipe | None:
    """The recipe to set beside a plan; None where no window is made longer, or no training by its method was measured.

    Args:
        info: the model as it is to be; by the default method if not given.
    """
    info = info or _by_default(plan)
    if info is None or info.window == info.original_window or (case := nearest(info, trained=True)) is None:
        return None
    figures, groups = case.budgets[case.most_trained], plan.job.dp
    batch = groups * -(-figures.batch_size // groups)
    tokens = float(figures.steps * batch * plan.job.length)
    hours = tokens / plan.time.tokens_per_second / 3600 if plan.timed else None
    cost = None if hours is None or plan.price is None else plan.price * hours * plan.job.gpus
    named = plan.job.recipe.steps != Recipe.steps
    beyond = outside(case, info, Training(plan.job.recipe.mode, int(plan.tokens) if named else None))
    if beyond and info.parameters > _LARGER * case.model.parameters:
        beyond += "; Chen et al. train 7B and 13B at a rate of 2e-05"
    ran = f"{counted(figures.steps, 'step')} of {counted(figures.batch_size, 'window')}"
    evidence = f"{case}, {ran}: {figures}{beyond and f'; {beyond}'}"
    return MeasuredRecipe(
        case.model.scaling.label, figures.steps, batch, figures.learning_rate, tokens, hours, cost, evidence
    )


def _by_default(plan: Plan) -> ModelInfo | None:
    """What `--method auto` makes of the model, by the parameters of its class; None of one whose RoPE is not known."""
    shape, window = plan.job.shape, plan.job.recipe.window
    rope = shape.rope
    if rope is None:
        return None
    now = info_of(rope, name=shape.name, parameters=shape.parameters)
    factor = window / rope.window
    if isinstance(now.scaling, Plain):
        scaling = SCALINGS[Plain.continued_by].for_extension(rope.rope, factor)
        return replace(now, window=window, scaling=scaling, original_window=rope.window)
    scaling: Any = now.scaling
    return replace(now, window=window, scaling=replace(scaling, factor=now.factor * factor))
