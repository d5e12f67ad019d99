"""A plan on the terminal: memory by part, layout, time, cost."""

from __future__ import annotations

from dataclasses import replace

from rich import box
from rich.table import Table

from ropewalk.checkpoint.architecture import in_words
from ropewalk.cli.terminal import console
from ropewalk.planner.job import NONE, Job
from ropewalk.planner.measured_recipe import measured_recipe
from ropewalk.planner.memory import GIB
from ropewalk.planner.planner import ASSUMED_FACTOR, Plan
from ropewalk.planner.reading import SERVED_SHARE
from ropewalk.records.format import duration
from ropewalk.sentences import counted, share
from ropewalk.settings.recipe import Recipe

#: Seconds of a night; steps below which a run only warms up; hours of a month.
_NIGHT, _STEPS, _MONTH = 8 * 3600, 20, 30 * 24
#: A share of the time that another way must save to be named beside the one that is taken.
_CLEARLY = 0.1
_ELSEWHERE = "GPUs that are not here are planned for with --gpus, as in --gpus 8xH100"
_MOMENTS = {
    "forward": "after the forward pass",
    "backward": "as the backward pass begins",
    "end": "as the backward pass ends",
    "update": "while the weights move",
}


def show_plan(plan: Plan) -> None:
    """Print a plan."""
    terminal = console()
    job, shape, chip = plan.job, plan.job.shape, plan.chip
    where = f"{job.gpus} × {chip.name}" if chip.matrix or job.gpus > 1 else chip.name
    source = "counted from the config" if shape.stored is None else "counted from the files"
    lines = [
        f"{shape.name}: {_count(shape.parameters)} weights ({source}), window {shape.window} → {job.recipe.window}",
        f"on {where}; rates: {plan.rates.source}",
    ]
    if plan.assumed_window:
        lines.insert(
            0,
            f"no --window was named, so {ASSUMED_FACTOR} times the model's own is planned for: --window {job.recipe.window}",
        )
    if shape.layout is not None:
        lines.append(str(shape.layout))
    lines.append(in_words(shape.hurdles))
    if chip.on_cpu and chip.name != "cpu":
        lines.append(
            f"on a Mac training and measuring run on its CPU cores (--device mps goes to PyTorch as it is and was never tried); {chip.memory:g} GiB are "
            "three quarters of its memory, which is the GPU's and the host's in one"
        )
    if shape.assumed:
        lines.append(f"the family {shape.family or '(unnamed)'} is not known by name and was counted as Llama's")
    terminal.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    # Before all tables where it is what a person can do; on one chip a run of days is one of nights.
    of_days = plan.timed and plan.hours > 24 and plan.job.gpus == 1
    at_once = of_days and (chip.on_cpu or plan.hours > _MONTH)
    if at_once:
        terminal.print(night_line(plan), markup=False, highlight=False, soft_wrap=True)
    recipe = recipe_line(plan)
    if at_once and recipe:
        terminal.print(recipe, markup=False, highlight=False, soft_wrap=True)
    if not plan.fits:  # before every table
        terminal.print(verdict(plan), markup=False, highlight=False, soft_wrap=True)
    terminal.print(memory_table(plan))
    if plan.fits:
        terminal.print(verdict(plan), markup=False, highlight=False, soft_wrap=True)
        terminal.print(time_table(plan))
    if plan.others:
        terminal.print(others_table(plan))
    after = [night_line(plan)] * (of_days and not at_once) + [recipe] * (not at_once and bool(recipe))
    terminal.print("\n".join([*after, measuring_line(plan)]), markup=False, highlight=False, soft_wrap=True)
    terminal.print(serving_table(plan))


def others_table(plan: Plan) -> Table:
    """The same run by other options that fit."""
    timed = ("tokens/s", "time", *(["cost"] if plan.price is not None else [])) if plan.rates.known else ()
    table = _table(
        f"By other options that fit, {counted(plan.job.recipe.steps, 'step')}", "options", "GiB", "host GiB", *timed
    )
    for other in plan.others:
        figures = f"{other.time.tokens_per_second:,.0f}", duration(3600 * other.hours), _money(other.cost or 0)
        table.add_row(
            other.options + _why_more(plan, other),
            f"{other.memory.total / GIB:.1f}",
            f"{other.memory.host / GIB:.1f}",
            *figures[: len(timed)],
        )
    return table


def _why_more(plan: Plan, other: Plan) -> str:
    """Why another way takes more memory, where what it saves lets it keep what the run itself computes again."""
    keeps_all = other.job.activations == NONE != plan.job.activations
    return (
        " (all activations kept, since they fit: faster)"
        if keeps_all and other.memory.total > plan.memory.total
        else ""
    )


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, show_header=bool(headings))
    for index, heading in enumerate(headings or ("", "")):
        table.add_column(heading, justify="right" if index else "left")
    return table


def _each(plan: Plan) -> str:
    return "" if plan.chip.on_cpu else " on each chip"


def memory_table(plan: Plan) -> Table:
    """Bytes on one chip by part, when most is held."""
    need, when = plan.memory, _MOMENTS[plan.memory.moment]
    table = _table(f"Memory{_each(plan)}, {when}", "", "GiB")
    name = plan.job.activations.name
    kept = {"full": "each layer's input", "none": "everything"}.get(name, name)
    if plan.job.tiles > 1:
        kept += f"; the MLP in {plan.job.tiles} tiles"
    parts = {
        "weights": need.weights,
        "gradients": need.gradients,
        f"optimiser states ({plan.job.recipe.optimizer})": need.states,
        "weights in the arithmetic's precision": need.cast,
        f"kept activations ({kept})": need.activations,
        "the loss and its logits": need.logits,
        "one layer's workspace": need.workspace,
        "between blocks, and outside of PyTorch": need.slack + need.context,
    }
    for name, size in parts.items():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row("needed", f"{need.total / GIB:.2f}")
    table.add_row(f"available on {plan.chip.name}", f"{plan.chip.memory:.2f}")
    if need.host:
        assumed = f" (of {plan.assumed_host}, if --host-memory is not given)" if plan.assumed_host else ""
        table.add_row(f"and in the host's memory, a chip{assumed}", f"{need.host / GIB:.2f}")
    return table


def verdict(plan: Plan) -> str:
    """Whether it fits, and what would."""
    recipe = plan.job.recipe
    regime = f"--precision {recipe.precision} --optimizer {recipe.optimizer}"
    regime += f" --base-bits {recipe.base_bits}" if recipe.base_bits else ""
    if plan.fits:
        spare = plan.chip.memory - plan.memory.total / GIB
        return (
            f"it fits by {regime}, with {spare:.1f} GiB to spare{_assumed_host(plan, plan.memory.host)}{_faster(plan)}"
        )
    short = plan.memory.total / GIB - plan.chip.memory
    kept = "every activation kept" if recipe.activations == "none" else "as little kept as can be"
    lacking = (
        f"{short:.1f} GiB short{_each(plan)}" if short > 0 else f"too little of the host's memory{_of_assumed(plan)}"
    )
    more = "; other ways are below" if len(plan.others) > 1 else ""  # in the table, which follows
    if plan.here:
        best = plan.here[0].options + _assumed_host(plan, plan.here[0].memory.host)
        return f"it does NOT fit as asked; it fits with: {best}{more}. By {regime} alone: {lacking} with {kept}"
    ways = plan.others[0].options + more if plan.others else _nothing_fits(plan)
    if plan.chip.on_cpu:
        ways += f"; {_ELSEWHERE}"
    if recipe.activations == "none":
        ways = f"--activations auto, if it keeps little enough; or {ways}"
    return f"it does NOT fit by {regime}: {lacking} with {kept}; what fits: {ways}"


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
    if plan.job.recipe.mode == "pose":
        return "a shorter --chunk-window, or a smaller model"
    if stays > plan.chip.memory:
        return f"no window, since weights, gradients and optimiser states alone take {stays:.1f} GiB{_each(plan)}; a smaller model, or more memory"
    return "none of the windows tried (a half, a quarter and so on, above the model's own); a smaller model, or more memory"


def in_short(plan: Plan) -> str:
    """What a run takes, before the tables that say why."""
    steps, need, there = counted(plan.job.recipe.steps, "step"), plan.memory.total / GIB, plan.chip.memory
    time = f"about {duration(3600 * plan.hours)}, {_part(plan.time.seconds)} each, and in " if plan.timed else ""
    memory = f"of {there:.1f} GiB" if plan.fits else f"GiB, and there are {there:.1f}: IT DOES NOT FIT so"
    return f"in short: {steps} in {time}{need:.1f} {memory}{_each(plan)}"


def ends_early(plan: Plan, minutes: float) -> str:
    """What `--budget` leaves of a run; empty where all of it is done by then, or where no time is known."""
    if not plan.timed or (share := minutes / 60 / plan.hours) >= 1:
        return ""
    steps = plan.job.recipe.steps
    return f"--budget {minutes:g} ends it after about {int(steps * share)} of {counted(steps, 'step')}; another time --resume goes on"


def recipe_line(plan: Plan) -> str:
    """Whose recipe the default is, and one that was measured beside it; empty where the steps were named."""
    beside, recipe = measured_recipe(plan), plan.job.recipe
    if beside is None:
        return ""
    whole = f" ({duration(3600 * plan.hours)})" if plan.timed else ""
    papers = replace(recipe, batch_size=None).for_model(plan.job.shape.parameters).batch == recipe.batch
    price = "" if beside.cost is None else f", which cost {_money(beside.cost)} by the price given"
    takes = "" if beside.hours is None else f", about {duration(3600 * beside.hours)}{price}"
    return (
        f"{counted(recipe.steps, 'step')}{f' of {recipe.batch} windows' if papers else ''}{whole} are the recipe of Chen et al. for Position Interpolation, whatever the "
        f"model and the window; measured in the lab with YaRN, the default method: --steps {beside.steps} --batch-size {beside.batch_size}, "
        f"{_count(beside.tokens)} tokens{takes} ({beside.evidence}; for a larger model, another factor or window it is a first guess)"
    )


def night_line(plan: Plan) -> str:
    """What of a run of days one chip does in a night: as many steps as warming up takes, of as many windows as that leaves; and what takes less time."""
    line = _in_a_night(plan)
    if plan.chip.on_cpu and plan.job.recipe.mode != "pose":
        line += "; --mode pose reads chunks of the old window, or of --chunk-window, at positions of the new one, in less time"
    if plan.chip.on_cpu and plan.hours > _MONTH:
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
        f"--batch-size {windows} --budget 480; YaRN, the default method, needs the least training"
    )


def measuring_line(plan: Plan) -> str:
    """What measuring takes."""
    need, window, chip = plan.measuring, plan.job.recipe.window, plan.chip
    parts = f"{need.weights / GIB:.1f} weights, {need.results / GIB:.1f} a pass of the window"
    parts += f", {need.gathered / GIB:.1f} layers gathered" if need.gathered else ""
    need_sentence = f"measuring at {window} takes {need.total / GIB:.1f} GiB{_each(plan)} ({parts}): "
    if need.chips == 0:
        return (
            need_sentence
            + f"more than {chip.name} has, {chip.memory:.1f}"
            + (", however many there are" * (not chip.on_cpu))
        )
    if need.chips == 1:
        return need_sentence + ("it fits" if chip.on_cpu else "one such chip does")
    return (
        need_sentence
        + f"{need.chips} such chips do, by torchrun --nproc-per-node {need.chips} -m ropewalk perplexity … --shard on"
    )


def serving_table(plan: Plan) -> Table:
    """What serving takes, and what a chip's operations and bandwidth alone allow."""
    cost, before, window, chip = plan.serving, plan.job.shape.window, plan.job.recipe.window, plan.chip
    table = _table(f"Serving at {window} tokens, in bfloat16")
    table.add_row("weights", f"{cost.weights / GIB:.2f} GiB")
    cache = f"{_decimals(cost.token_bytes / 1024)} KiB a token; {cost.before_bytes / GIB:.2f} GiB at {before}"
    table.add_row(f"keys and values ({cache})", f"{cost.window_bytes / GIB:.2f} GiB")
    holders = f"{cost.chips} × {chip.name}" if cost.chips else f"no number of {chip.name}"
    table.add_row(f"held, in {100 * SERVED_SHARE:.0f} % of the memory, by", holders)
    if not cost.chips:
        return table
    table.add_row("full windows at a time", f"{cost.windows:,}")
    if cost.first_token is not None:
        table.add_row(f"first token by operations alone ({cost.flops / 1e12:,.0f} TFLOP)", duration(cost.first_token))
    streams = {"one stream": cost.tokens_per_second}
    if cost.windows > 1:
        streams[f"{cost.windows:,} streams together"] = cost.together
    for who, rate in streams.items():
        if rate is not None:
            table.add_row(f"tokens/s of {who} by bandwidth alone, windows full", _rate(rate))
            if plan.price is not None:
                million = plan.price * cost.chips * 1e6 / rate / 3600
                table.add_row(f"a million generated tokens of {who} cost, at least", _money(million))
    return table


def time_table(plan: Plan) -> Table:
    """Layout, time and cost; the layout alone where no time can be told."""
    table = _table("Training")
    for name, value in {**_layout(plan.job), **(_times(plan) if plan.timed else {})}.items():
        table.add_row(name, value)
    return table


def _layout(job: Job) -> dict[str, str]:
    return {
        "layout": f"{job.dp} × data parallel, {job.cp} × context parallel" + _copies(job),
        "micro batch": f"{job.micro} × {job.length} tokens on {job.cp} chip{'s' if job.cp > 1 else ''}, {job.micros} a step",
        "which train is told by": f"--micro-batch {job.micro} --cp {job.cp}"
        + (f" --replicas {job.replicas}" if job.replicas > 1 else ""),
        "precision, optimiser": f"{job.recipe.precision}, {job.recipe.optimizer}",
    }


def _times(plan: Plan) -> dict[str, str]:
    job, time = plan.job, plan.time
    whose = ", the paper's" if job.recipe.steps == Recipe.steps else ""
    rows = {
        "a step": f"{counted(job.recipe.batch, 'window')}, {time.tokens:,.0f} tokens, {_part(time.seconds)}",
        "  products, attention": f"{_part(time.products)}, {_part(time.attention)}",
        "  computed again": _part(time.recomputed),
        **({"  short contexts (LongCE)": _part(time.short)} if time.short else {}),
        "  elementwise, optimiser, waiting": ", ".join(
            map(_part, (time.elementwise, time.update, time.idle + time.links))
        ),
        "tokens/s": f"{time.tokens_per_second:,.0f} ({time.tokens_per_second / job.gpus:,.0f} a chip)",
        "MFU": str(plan.mfu).removeprefix("MFU "),
        f"{counted(job.recipe.steps, 'step')}{whose}": f"{_count(plan.tokens)} tokens, {duration(3600 * plan.hours)}",
        "chip hours": f"{plan.gpu_hours:,.0f}" if plan.gpu_hours >= 10 else f"{plan.gpu_hours:.2g}",
    }
    if plan.cost is not None:
        rows["cost"] = f"{_money(plan.cost)} at {plan.price:g} a chip and hour"
    return rows


def _part(seconds: float) -> str:
    """The time of a step, or of a part of it, which may be a thousandth of a second."""
    return f"{seconds:.3g} s" if seconds < 1000 else duration(seconds)


def _money(amount: float) -> str:
    """In the currency of the price, which nobody named."""
    return f"{amount:,.2f}" if amount < 10 else f"{amount:,.0f}"


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 1000 else f"{per_second:.3g}"


def _decimals(size: float) -> str:
    """A size with one decimal, where it is no whole number and below a hundred."""
    return f"{size:,.1f}" if size < 100 and round(size, 1) % 1 else f"{size:,.0f}"


def _copies(job: Job) -> str:
    return f", {job.replicas} copies of {job.shards} shards" if job.replicas > 1 else ""


def _count(number: float) -> str:
    """Three digits and a word."""
    for size, word in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= size:
            return f"{number / size:.3g}{word}"
    return f"{number:.0f}"
