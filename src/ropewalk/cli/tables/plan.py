"""A plan on the terminal: memory by part, layout, time, cost."""

from __future__ import annotations

from rich import box
from rich.table import Table

from ropewalk.checkpoint.architecture import in_words
from ropewalk.cli.tables.plan_sentences import (
    MONTH,
    count,
    each_chip,
    measuring_line,
    money,
    night_line,
    order_line,
    part,
    recipe_line,
    verdict,
)
from ropewalk.cli.terminal import console, tell
from ropewalk.planner.job import NONE, Job
from ropewalk.planner.memory import GIB
from ropewalk.planner.planned import ASSUMED_FACTOR, Plan
from ropewalk.planner.reading import SERVED_SHARE
from ropewalk.records.format import duration
from ropewalk.sentences import counted, size_in_words
from ropewalk.settings.budget import mask_bytes
from ropewalk.settings.recipe import Recipe

_MOMENTS = {
    "forward": "after the forward pass",
    "backward": "as the backward pass begins",
    "end": "as the backward pass ends",
    "update": "while the weights move",
}


def show_plan(plan: Plan) -> None:
    """Print a plan."""
    terminal = console()
    tell("\n".join(_what_is_planned(plan)))
    # Before all tables where it is what a person can do; on one chip a run of days is one of nights.
    of_days = plan.timed and plan.hours > 24 and plan.job.gpus == 1
    at_once = of_days and (plan.chip.on_cpu or plan.hours > MONTH)
    if at_once:
        tell(night_line(plan))
    recipe = recipe_line(plan)
    if at_once and recipe:
        tell(recipe)
    if not plan.fits:  # before every table
        tell(verdict(plan))
    terminal.print(memory_table(plan))
    if plan.fits:
        tell(verdict(plan))
        terminal.print(time_table(plan))
    if plan.others:
        tell(order_line(plan))
        terminal.print(others_table(plan))
    after = [night_line(plan)] * (of_days and not at_once) + [recipe] * (not at_once and bool(recipe))
    tell("\n".join([*after, measuring_line(plan)]))
    terminal.print(serving_table(plan))


def _what_is_planned(plan: Plan) -> list[str]:
    """The model, the chips, and what of them a plan goes by; a sentence each."""
    job, shape, chip = plan.job, plan.job.shape, plan.chip
    where = f"{job.gpus} × {chip.shown}" if chip.matrix or job.gpus > 1 else chip.shown
    source = "counted from the config" if shape.stored is None else "counted from the files"
    lines = [
        f"{shape.name}: {count(shape.parameters)} weights ({source}), window {shape.window} → {job.recipe.window}",
        f"on {where}; rates: {plan.rates.source}",
    ]
    if not job.bfloat16:
        lines.append("in float32: these GPUs know no bfloat16, and training has no float16")
    if plan.assumed_window:
        lines.insert(
            0,
            f"no --window was named, so {ASSUMED_FACTOR} times the model's own is planned for: --window {job.recipe.window}",
        )
    if shape.layout is not None:
        lines.append(str(shape.layout.within(job.recipe.window)))
    if shape.slides(job.length):
        size = mask_bytes(job.length, job.micro, job.regime.compute) / GIB
        lines.append(
            f"layers that slide are given a mask of all pairs, {size:.1f} GiB, and attention computes all of them: they save no time"
            if shape.is_masked(job.length)
            else "layers that slide compute what they see alone"
        )
    lines.append(in_words(shape.hurdles))
    if chip.on_cpu and chip.name != "cpu":
        whose = "as --gpu-memory says, are" if chip.limit else "three quarters of its memory, are"
        lines.append(
            f"on a Mac training and measuring run on its CPU cores (--device mps goes to PyTorch as it is and was never tried); {chip.memory:g} GiB, "
            f"{whose} the GPU's and the host's in one"
        )
    if shape.assumed:
        lines.append(f"the family {shape.family or '(unnamed)'} is not known by name and was counted as Llama's")
    return lines


def others_table(plan: Plan) -> Table:
    """The same run by other options that fit."""
    timed = ("tokens/s", "time", *(["cost"] if plan.price is not None else [])) if plan.rates.known else ()
    table = _table(
        f"By other options that fit, {counted(plan.job.recipe.steps, 'step')}", "options", "GiB", "host GiB", *timed
    )
    for other in plan.others:
        figures = f"{other.time.tokens_per_second:,.0f}", duration(3600 * other.hours), money(other.cost or 0)
        table.add_row(
            other.options + _other_batch(plan, other) + _why_more(plan, other),
            f"{other.memory.total / GIB:.1f}",
            f"{other.memory.host / GIB:.1f}",
            *figures[: len(timed)],
        )
    return table


def _other_batch(plan: Plan, other: Plan) -> str:
    """The batch, where the default is another at another window."""
    batch = other.job.recipe.batch
    return f" ({counted(batch, 'window')} a step)" if batch != plan.job.recipe.batch else ""


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


def memory_table(plan: Plan) -> Table:
    """Bytes on one chip by part, when most is held."""
    need, when = plan.memory, _MOMENTS[plan.memory.moment]
    table = _table(f"Memory{each_chip(plan)}, {when}", "", "GiB")
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
        "between blocks in the heap, and the process itself"
        if plan.chip.on_cpu
        else "between blocks, and outside of PyTorch": need.slack + need.context,
    }
    for name, size in parts.items():
        table.add_row(name, f"{size / GIB:.2f}")
    table.add_section()
    table.add_row("needed", f"{need.total / GIB:.2f}")
    table.add_row(f"available on {plan.chip.shown}", f"{plan.chip.memory:.2f}")
    if need.host:
        assumed = f" (of {plan.assumed_host}, if --host-memory is not given)" if plan.assumed_host else ""
        table.add_row(f"and in the host's memory, a chip{assumed}", f"{need.host / GIB:.2f}")
    return table


def serving_table(plan: Plan) -> Table:
    """What serving takes, and what a chip's operations and bandwidth alone allow."""
    cost, before, window, chip = plan.serving, plan.job.shape.window, plan.job.recipe.window, plan.chip
    table = _table(f"Serving at {window} tokens, in bfloat16")
    table.add_row("weights", size_in_words(cost.weights, 2))
    cache = f"{_decimals(cost.token_bytes / 1024)} KiB a token; {size_in_words(cost.before_bytes, 2)} at {before}"
    table.add_row(f"keys and values ({cache})", size_in_words(cost.window_bytes, 2))
    holders = f"{cost.chips} × {chip.name}" if cost.chips else f"no number of {chip.name}"
    table.add_row(f"held, in {100 * SERVED_SHARE:.0f} % of the memory, by", holders)
    if not cost.chips:
        return table
    table.add_row("full windows at a time", f"{cost.windows:,}")
    if cost.first_token is not None:
        table.add_row(f"first token by operations alone ({_operations(cost.flops)})", duration(cost.first_token))
    streams = {"one stream": cost.tokens_per_second}
    if cost.windows > 1:
        streams[f"{cost.windows:,} streams together"] = cost.together
    for who, rate in streams.items():
        if rate is not None:
            table.add_row(f"tokens/s of {who} by bandwidth alone, windows full", _rate(rate))
            if plan.price is not None:
                million = plan.price * cost.chips * 1e6 / rate / 3600
                table.add_row(f"a million generated tokens of {who} cost, at least", money(million))
    return table


def _operations(flops: float) -> str:
    return f"{flops / 1e12:,.0f} TFLOP" if flops >= 1e12 else f"{flops / 1e9:,.3g} GFLOP"


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
        "a step": f"{counted(job.recipe.batch, 'window')}, {time.tokens:,.0f} tokens, {part(time.seconds)}",
        "  products, attention": f"{part(time.products)}, {part(time.attention)}",
        "  computed again": part(time.recomputed),
        **({"  short contexts (LongCE)": part(time.short)} if time.short else {}),
        "  elementwise, optimiser, waiting": ", ".join(
            map(part, (time.elementwise, time.update, time.idle + time.links))
        ),
        "tokens/s": f"{time.tokens_per_second:,.0f} ({time.tokens_per_second / job.gpus:,.0f} a chip)",
        **{f"share {of}": f"{share:.3f}" for of, share in plan.mfu.shares.items()},
        f"{counted(job.recipe.steps, 'step')}{whose}": f"{count(plan.tokens)} tokens, {duration(3600 * plan.hours)}",
        "chip hours": f"{plan.gpu_hours:,.0f}" if plan.gpu_hours >= 10 else f"{plan.gpu_hours:.2g}",
    }
    if plan.cost is not None:
        rows["cost"] = f"{money(plan.cost)} at {plan.price:g} a chip and hour"
    return rows


def _rate(per_second: float) -> str:
    return f"{per_second:,.0f}" if per_second >= 1000 else f"{per_second:.3g}"


def _decimals(size: float) -> str:
    """A size with one decimal, where it is no whole number and below a hundred."""
    return f"{size:,.1f}" if size < 100 and round(size, 1) % 1 else f"{size:,.0f}"


def _copies(job: Job) -> str:
    return f", {job.replicas} copies of {job.shards} shards" if job.replicas > 1 else ""
