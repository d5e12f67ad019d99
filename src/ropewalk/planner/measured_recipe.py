"""A smaller recipe beside the paper's: the most that the default method was trained for in the lab.

in   a `Plan` of the default steps, which are the paper's
out  a `MeasuredRecipe`: steps, windows, hours, cost; or nothing where it takes no less
"""

from __future__ import annotations

from dataclasses import dataclass

from ropewalk.planner.planner import Plan
from ropewalk.rope.evidence import most_trained
from ropewalk.rope.scaling import Yarn
from ropewalk.settings.recipe import Recipe

#: Windows a step of the lab's trainings (docs/results.md), and the fewest steps that a recipe has: after 20 the rate has risen.
_WINDOWS, _FEWEST_STEPS = 4, 100


@dataclass(frozen=True)
class MeasuredRecipe:
    """As many windows as the lab's longest training of the default method read, at this plan's window and speed.

    steps, batch_size: at least 100 steps of as many windows as chips share out evenly. tokens, hours, cost: of all steps; hours are None
    where no time is known, cost also where no price is. evidence: where it was measured and how far that reaches.
    """

    steps: int
    batch_size: int
    tokens: float
    hours: float | None
    cost: float | None
    evidence: str


def measured_recipe(plan: Plan) -> MeasuredRecipe | None:
    """The recipe to set beside a plan of the default steps; None where steps were named, or where it would take as much."""
    if plan.job.recipe.steps != Recipe.steps:
        return None
    most = most_trained(Yarn.method)
    groups = plan.job.dp
    batch = groups * -(-_WINDOWS // groups)
    steps = max(_FEWEST_STEPS, round(most.tokens / most.window / batch))
    tokens = float(steps * batch * plan.job.length)
    if tokens >= plan.tokens:
        return None
    hours = tokens / plan.time.tokens_per_second / 3600 if plan.timed else None
    cost = None if hours is None or plan.price is None else plan.price * hours * plan.job.gpus
    return MeasuredRecipe(steps, batch, tokens, hours, cost, str(most))
