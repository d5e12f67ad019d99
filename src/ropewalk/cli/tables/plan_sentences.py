"""What is said of a plan around its tables: whether it fits, what would, and what a person could do instead."""

from __future__ import annotations

from dataclasses import replace

from ropewalk.errors import UserError
from ropewalk.planner.measured_recipe import measured_recipe, training_of
from ropewalk.planner.memory import GIB, PLAN_ERROR
from ropewalk.planner.planned import Plan
from ropewalk.records.choice import of_choice
from ropewalk.records.format import duration
from ropewalk.sentences import apart, counted, share, size_in_words
from ropewalk.settings.recipe import Recipe

#: Seconds of a night; steps below which a run only warms up; hours of a month.
_NIGHT, _STEPS, MONTH = 8 * 3600, 20, 30 * 24
#: A share of the time that another way must save to be named beside the one that is taken.
_CLEARLY = 0.1
_ELSEWHERE = "GPUs that are not here are planned for with --gpus, as in --gpus 8xH100"


def verdict(plan: Plan) -> str:
    """Whether it fits, and what would."""
    recipe = plan.job.recipe
    regime = f"--precision {recipe.precision} --optimizer {recipe.optimizer}"
    regime += f" --base-bits {recipe.base_bits}" if recipe.base_bits else ""
    if plan.fits:
        spare, host = f"{plan.spare / GIB:.1f} GiB to spare", _assumed_host(plan, plan.memory.host)
        return f"it fits by {regime}, with {spare}{_close(plan)}{host}{_faster(plan)}"
    short = -plan.spare / GIB
    kept = "every activation kept" if recipe.activations == "none" else "as little kept as can be"
    lacking = (
        f"{size_in_words(short * GIB)} short{each_chip(plan)}"
        if short > 0
        else f"too little of the host's memory{_of_assumed(plan)}"
    )
    more = "; other ways are below" if len(plan.others) > 1 else ""  # in the table, which follows
    first = next(iter([*plan.here, *plan.others]), plan)
    more += f"; the first leaves {first.spare / GIB:.1f} GiB{_close(first)}" if first.is_close else ""
    if plan.here:
        best = first.options + _assumed_host(plan, first.memory.host)
        return f"it does NOT fit as asked; it fits with: {best}{more}. By {regime} alone: {lacking} with {kept}"
    ways = plan.others[0].options + more if plan.others else _nothing_fits(plan)
    if plan.chip.on_cpu:
        ways += f"; {_ELSEWHERE}"
    if recipe.activations == "none":
        ways = f"--activations auto, if it keeps little enough; or {ways}"
    return f"it does NOT fit by {regime}: {lacking} with {kept}; what fits: {ways}"


def _close(plan: Plan) -> str:
    """That it fits by less than plans are wrong by, and what training does about it."""
    if not plan.is_close:
        return ""
    error = f", less than plans may be too low by ({share(PLAN_ERROR)})"
    if plan.least * (1 + PLAN_ERROR) <= plan.chip.memory * GIB:
        return f"{error}; a step that runs out of memory is done again with less kept, down to {plan.least / GIB:.1f} GiB by plan"
    return f"{error}; a step that runs out of memory ends the run{', its last checkpoint whole' * (plan.job.gpus > 1)}"


def _faster(plan: Plan) -> str:
    """Which of the other ways to train every weight on these chips is clearly faster: the first that fits is taken, in the order of precision."""
    same = [each for each in plan.here if each.job.recipe.mode == plan.job.recipe.mode and plan.timed]
    best = min(same, key=lambda each: each.hours, default=plan)
    saved = 1 - best.hours / plan.hours if plan.timed else 0.0
    return f"; {best.options} takes {share(saved)} less time" if saved >= _CLEARLY else ""


def _assumed_host(plan: Plan, used: float) -> str:
    """On what a plan rests that uses so many bytes of a host's memory of which nobody said how much there is."""
    return (
        f" (if the host has {plan.assumed_host} for each chip, as is assumed; --host-memory says how much there is)"
        if used and plan.assumed_host
        else ""
    )


def _of_assumed(plan: Plan) -> str:
    return f" ({plan.assumed_host} for each chip are assumed)" if plan.assumed_host else ""


def _nothing_fits(plan: Plan) -> str:
    """What is left where no option, no other number of chips and no shorter window fits."""
    need = plan.memory
    stays = (need.weights + need.gradients + need.states + need.context) / GIB
    pose = plan.job.recipe.mode == "pose"
    if stays > plan.chip.memory:
        return f"no {'chunk' * pose or 'window'}, since weights, gradients, optimiser states and the process itself ({need.context / GIB:.1f} GiB, its libraries{' and the driver' * (not plan.chip.on_cpu)}) take {stays:.1f} GiB{each_chip(plan)} before any activation; a smaller model, or more memory"
    tried = (
        "chunks tried (--chunk-window, a half, a quarter and so on)"
        if pose
        else "windows tried (a half, a quarter and so on, above the model's own)"
    )
    return f"none of the {tried}; a smaller model, or more memory"


def order_line(plan: Plan) -> str:
    """In which order other options stand."""
    fastest = ", of each the fastest first" * plan.rates.known
    return f"other options that fit, the best first: every weight on whole windows, then with positions skipped, then adapters, then those on four bits{fastest}; more host memory, more chips and a shorter window last"


def in_short(plan: Plan) -> str:
    """What a run takes, before the tables that say why."""
    steps, (need, there) = counted(plan.job.recipe.steps, "step"), apart(plan.memory.total / GIB, plan.chip.memory)
    time = f"about {duration(3600 * plan.hours)}, {part(plan.time.seconds)} each, and in " if plan.timed else ""
    memory = f"of {there} GiB" if plan.fits else f"GiB, and there are {there}: IT DOES NOT FIT so"
    return f"in short: {steps} in {time}{need} {memory}{each_chip(plan)}"


def ends_early(plan: Plan, minutes: float) -> str:
    """What `--budget` leaves of a run; empty where all of it is done by then, or where no time is known."""
    if not plan.timed or (share := minutes / 60 / plan.hours) >= 1:
        return ""
    steps = plan.job.recipe.steps
    return f"--budget {minutes:g} ends it after about {int(steps * share)} of {counted(steps, 'step')}; another time --resume goes on"


def method_line(plan: Plan) -> str:
    """The method by which the model is made longer and what was measured of it; empty of a window that is none longer, and of what training refuses."""
    info, asked = plan.info, plan.asked.method
    if isinstance(info, UserError) or info.window == info.original_window:
        return ""
    return of_choice(asked if plan.extends else info.method, info, training_of(plan))


def recipe_line(plan: Plan) -> str:
    """Whose recipe the default is, and the nearest one that was measured; empty where nothing is to be said."""
    return "; ".join(filter(None, [_papers_recipe(plan), _measured_recipe(plan)]))


def _papers_recipe(plan: Plan) -> str:
    """Whose the steps are that nobody named."""
    recipe = plan.job.recipe
    if recipe.steps != Recipe.steps:
        return ""
    whole = f" ({duration(3600 * plan.hours)})" if plan.timed else ""
    papers = replace(recipe, batch_size=None).for_model(plan.job.shape.parameters).batch == recipe.batch
    return (
        f"{counted(recipe.steps, 'step')}{f' of {recipe.batch} windows' if papers else ''}{whole} are the recipe of Chen et al. for Position Interpolation, whatever the "
        "model and the window"
    )


def _measured_recipe(plan: Plan) -> str:
    """The nearest training that was measured, and what as many steps take here."""
    beside = measured_recipe(plan)
    if beside is None:
        return ""
    price = "" if beside.cost is None else f", which cost {money(beside.cost)} by the price given"
    by_auto = plan.extends and plan.asked.method == "auto"
    train = " ".join(filter(None, ["train", plan.asked.typed]))
    takes = "" if beside.hours is None else f", about {duration(3600 * beside.hours)}{price}"
    return (
        f"measured in the lab with {beside.method}{', which --method auto takes' * by_auto}: {train} --steps {beside.steps} --batch-size {beside.batch_size} "
        f"--learning-rate {beside.learning_rate:g}, here {count(beside.tokens)} tokens{takes} ({beside.evidence})"
    )


def night_line(plan: Plan) -> str:
    """What of a run of days one chip does in a night: as many steps as warming up takes, of as many windows as that leaves; and what takes less time."""
    line = _in_a_night(plan)
    if plan.chip.on_cpu and plan.job.recipe.mode != "pose":
        line += "; --mode pose reads chunks of the old window, or of --chunk-window, at positions of the new one, in less time"
    if plan.chip.on_cpu and plan.hours > MONTH:
        line += f"\n{duration(3600 * plan.hours)} are no run for a CPU: {_ELSEWHERE}"
    return line


def _in_a_night(plan: Plan) -> str:
    batch, step = plan.job.recipe.batch, plan.time.seconds
    windows = min(batch, max(1, int(batch * _NIGHT / _STEPS / step)))
    seconds = step * windows / batch
    steps = int(_NIGHT / seconds)
    if not steps:
        return f"in a night of 8 hours not one window is trained on: it takes {duration(seconds)}; ask for a shorter --window, or a GPU"
    return (
        f"in a night of 8 hours: {counted(steps, 'step')} of {counted(windows, 'window')}, {duration(seconds)} each, by "
        f"--batch-size {windows} --budget 480"
    )


def measuring_line(plan: Plan) -> str:
    """What measuring takes."""
    need, window, chip = plan.measuring, plan.job.recipe.window, plan.chip
    total, there = apart(need.total / GIB, chip.memory)
    parts = f"{need.weights / GIB:.1f} weights, {need.results / GIB:.1f} a pass of the window"
    parts += f", {need.gathered / GIB:.1f} layers gathered" if need.gathered else ""
    need_sentence = f"measuring at {window} takes {total} GiB{each_chip(plan)} ({parts}): "
    if need.chips == 0:
        return need_sentence + f"more than {chip.name} has, {there}" + (", however many there are" * (not chip.on_cpu))
    if need.chips == 1:
        return need_sentence + ("it fits" if chip.on_cpu else "one such chip does")
    return (
        need_sentence
        + f"{need.chips} such chips do, by torchrun --nproc-per-node {need.chips} -m ropewalk perplexity … --shard on"
    )


def each_chip(plan: Plan) -> str:
    """Of a figure that is one chip's; nothing on a CPU."""
    return "" if plan.chip.on_cpu else " on each chip"


def part(seconds: float) -> str:
    """The time of a step, or of a part of it, which may be a thousandth of a second."""
    return f"{seconds:.3g} s" if seconds < 1000 else duration(seconds)


def money(amount: float) -> str:
    """In the currency of the price, which nobody named."""
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


def count(number: float) -> str:
    """Three digits and a word."""
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return f"{number:.0f}"
