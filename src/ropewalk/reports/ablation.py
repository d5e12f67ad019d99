"""Which method, which factor, how many steps: variants side by side that were given the same number of training tokens."""

from __future__ import annotations

from dataclasses import replace

from ropewalk.figures import compare, style
from ropewalk.records import ContextGain
from ropewalk.records import format as number_format
from ropewalk.records.recipe import differing
from ropewalk.records.variant import Variant, labels
from ropewalk.reports import benchmarks, comparable, contenders, damage, pairs, perplexity
from ropewalk.reports.comparable import ByWindow, Group
from ropewalk.reports.content import Cell, Line, Section, Table, seeds_together
from ropewalk.reports.contests import Block, blocks, contests
from ropewalk.reports.paired import Ratio
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import budget, device_seconds, trained_by, trainings

#: What is said of a column, by the beginning of its head, where it has a figure.
_NOTES = {
    "loss at L": "Loss at L: in the base's own window, paired over documents.",
    "loss at L\nnats above the control": "The control read as many tokens of the same text there.",
    "k_max": "k_max and passkeys are of prompts of their own, not of this text.",
    "benchmarks": "Benchmarks: mean change in points, paired over items; of questions of their own.",
    "device time": "Device time: of the training, times its devices; at as many tokens in windows of one length it differs by the machine, not by the method.",
}


def section(clean: Clean) -> Section | None:
    """The ablation, or None unless two methods or two factors were measured."""
    part = Section(
        "ablation",
        "Methods and factors at a fixed budget",
        "Each block holds states that were trained on the same number of tokens; within a block only the method, the factor, "
        "what a line says in brackets and the model's own chance differ, as far as settings are on record.",
    )
    groups = comparable.groups(clean)
    compared = contests(clean)
    for group in groups:
        variants = {v: rows for v, rows in group.variants().items() if v.extended}
        if len({(v.method, v.factor) for v in variants}) < 2:
            continue
        by_budget = blocks(variants, trainings(clean))
        level = group.base_level()
        points = [
            (v, name, rows[v.window].perplexity)
            for name, block in by_budget.items()
            for v, rows in block.items()
            if v.window in rows and number_format.is_finite(rows[v.window].perplexity)
        ]
        if len({variant.factor for variant, _, _ in points}) > 1:
            caption = "Perplexity in each state's own new window by factor" + (
                "; 1 is the base in its window." if level else "."
            )
            caution = f" {perplexity.not_across(group)}" if group.caveat else ""
            part.draw(compare.ablation(points, base=level), caption + caution)
        tables = [_table(clean, group, name, block) for name, block in by_budget.items()]
        part.tables += [table for table in tables if len(table.head) > 1]  # a window alone compares nothing
        part.tables += [pairs.table(clean, each) for each in compared if each.group == group]
    return part if part.tables else None


def _table(clean: Clean, group: Group, name: str, block: Block) -> Table:
    names = labels(list(block), always=differing([variant.recipe for variant in block]))
    lines = [
        _line(clean, group, variant, rows, names[variant])
        for variant, rows in sorted(block.items(), key=lambda v: v[0].order)
    ]
    filled = Table(
        f"{name[0].upper()}{name[1:]}; {group.heading}",
        [
            "window",
            "loss at L\nnats above the base",
            "loss at L\nnats above the control",
            "perplexity\nat the window",
            "k_max",
            "passkeys found",
            "context gain\nnats a token",
            "benchmarks",
            "tokens",
            "device time",
        ],
        seeds_together(lines),
        first="method",
    ).filled
    told = (note for column, note in _NOTES.items() if any(head.startswith(column) for head in filled.head))
    return replace(filled, note=" ".join(["Small figures: 95 % intervals.", *told]))


def _line(clean: Clean, group: Group, variant: Variant, rows: ByWindow, name: str) -> Line:
    own, all_runs = rows.get(variant.window), trainings(clean)
    reach = contenders.k_max(clean, variant, variant.window)
    found = contenders.passkeys_found(clean, variant, variant.window)
    gain = next(
        (
            m.row
            for m in clean.of(ContextGain)
            if (m.model_variant, m.row.window, m.row.data) == (variant, variant.window, group.data)
        ),
        None,
    )
    runs = trained_by(variant, all_runs) if variant.steps else []
    tokens = budget(variant, runs)
    seconds = device_seconds(variant, runs)
    change = benchmarks.mean_change([each for each in benchmarks.changes(clean) if each.variant == variant])
    return Line(
        name,
        [
            Cell(str(variant.window)),
            _nats_of(damage.above_base(group, variant)),
            _nats_of(damage.above_control(group, variant, all_runs)),
            perplexity.cell(own, None) if own else Cell(""),
            Cell.of(reach[0], number_format.count, *reach[1:], within=(0, variant.window)) if reach else Cell(""),
            Cell.of(found[0], number_format.share, *found[1:], within=(0, 1)) if found else Cell(""),
            Cell.of(gain.gain, _nats, gain.low, gain.high) if gain else Cell(""),
            Cell.of(change[0], number_format.points, *change[1:]) if change else Cell(""),
            Cell.of(tokens, number_format.tokens, beside="of the last extension" * bool(variant.recipe.earlier))
            if tokens
            else Cell(""),
            Cell.of(seconds, number_format.duration, unit="s") if seconds else Cell(""),
        ],
        colour=style.colour(variant, clean.colours),
    )


def _nats_of(change: Ratio | None) -> Cell:
    if change is None:
        return Cell("")
    value, low, high = change.nats
    return Cell.of(value, number_format.signed, low, high)


def _nats(value: float) -> str:
    return number_format.fixed(value, 3)
