"""What the lab trained longest of what is nearest to a plan, as it was run, and what it would take here.

in   a `Plan`
out  a `MeasuredRecipe`: steps, windows, learning rate, hours, cost; or nothing where nothing like it was measured
"""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.errors import UserError
from ropewalk.planner.planned import Plan
from ropewalk.records.evidence import Training, nearest_trained, outside
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


def measured_recipe(plan: Plan) -> MeasuredRecipe | None:
    """The recipe to set beside a plan; None where no window is made longer, or no training by its method was measured."""
    info = plan.info
    if isinstance(info, UserError) or info.window == info.original_window:
        return None
    if (case := nearest_trained(info)) is None:
        return None
    figures, groups = case.budgets[case.most_trained], plan.job.dp
    batch = groups * -(-figures.batch_size // groups)
    tokens = float(figures.steps * batch * plan.job.length)
    hours = tokens / plan.time.tokens_per_second / 3600 if plan.timed else None
    cost = None if hours is None or plan.price is None else plan.price * hours * plan.job.gpus
    beyond = outside(case, info, training_of(plan))
    if beyond and info.parameters > _LARGER * case.model.parameters:
        beyond += "; Chen et al. train 7B and 13B at a rate of 2e-05"
    ran = f"{counted(figures.steps, 'step')} of {counted(figures.batch_size, 'window')}"
    evidence = f"{case}, {ran}: {figures}{beyond and f'; {beyond}'}"
    return MeasuredRecipe(
        case.model.scaling.label, figures.steps, batch, figures.learning_rate, tokens, hours, cost, evidence
    )


def training_of(plan: Plan) -> Training:
    """What of a plan is held against the trainings on record: its tokens where somebody named the steps."""
    named = plan.job.recipe.steps != Recipe.steps
    return Training(plan.job.recipe.mode, int(plan.tokens) if named else None)
