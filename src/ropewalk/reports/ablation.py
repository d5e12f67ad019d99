"""Which method, which factor, how many steps: variants side by side that were given the same number of training tokens."""

from __future__ import annotations

from ropewalk.figures import compare, style
from ropewalk.records import Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant
from ropewalk.reports import benchmarks, passkey, perplexity
from ropewalk.reports.content import Cell, Line, Section, Table
from ropewalk.reports.perplexity import ByWindow, Group
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import Training, budget, trainings

Block = dict[Variant, ByWindow]


def section(clean: Clean) -> Section | None:
    """The ablation, or None unless two methods or two factors were measured."""
    part = Section(
        "ablation",
        "Methods and factors at a fixed budget",
        "Each block holds states that were trained on the same number of tokens; within a block only the method, the factor "
        "and the model's own chance differ.",
    )
    for group in perplexity.groups(clean):
        variants = {v: rows for v, rows in group.variants().items() if v.extended}
        if len({(v.method, v.factor) for v in variants}) < 2:
            continue
        blocks = _blocks(variants, trainings(clean))
        level = group.base_level()
        points = [
            (v, name, rows[v.window].perplexity)
            for name, block in blocks.items()
            for v, rows in block.items()
            if v.window in rows and number_format.is_finite(rows[v.window].perplexity)
        ]
        if len({variant.factor for variant, _, _ in points}) > 1:
            caption = "Perplexity in each state's own new window by factor" + (
                "; 1 is the base in its window." if level else "."
            )
            part.draw(compare.ablation(points, base=level), caption)
        for name, block in blocks.items():
            part.tables.append(_table(clean, group, name, block))
    return part if part.tables else None


def _blocks(variants: Block, runs: list[Training]) -> dict[str, Block]:
    """Budget in words → its variants; tokens where the training is on record, else steps. Blocks of one are left out."""
    by_budget: dict[tuple, Block] = {}
    for variant, rows in variants.items():
        tokens = budget(variant, runs) if variant.steps else 0
        key = (0, "before training") if not variant.steps else (1, tokens) if tokens else (2, variant.steps)
        by_budget.setdefault(key, {})[variant] = rows
    words = {
        0: lambda _: "before training",
        1: lambda n: f"{number_format.large(n)} training tokens",
        2: lambda n: f"{n} steps",
    }
    return {words[kind](value): block for (kind, value), block in sorted(by_budget.items()) if len(block) > 1}


def _table(clean: Clean, group: Group, name: str, block: Block) -> Table:
    lines = [_line(clean, group, variant, rows) for variant, rows in sorted(block.items(), key=lambda v: v[0].order)]
    return Table(
        f"{name[0].upper()}{name[1:]}; {group.title}",
        ["window", "steps", "perplexity at L", "at the window", "k_max", "benchmarks"],
        lines,
        first="method",
        note="Small figures: change against the base in its own window; k_max as a part of the window. Benchmarks: mean change in points.",
    )


def _line(clean: Clean, group: Group, variant: Variant, rows: ByWindow) -> Line:
    base = group.base_row()
    passkeys = passkey.summaries(clean).get(variant, {}).get(variant.window)
    changes = [change.difference for change in benchmarks.changes(clean) if change.variant == variant]
    return Line(
        variant.method_and_factor,
        [
            Cell(str(variant.window)),
            Cell(str(variant.steps)),
            _perplexity(rows.get(variant.original_window), base),
            _perplexity(rows.get(variant.window), base),
            Cell(str(passkeys.k_max), number_format.share(passkeys.k_max / variant.window)) if passkeys else Cell(""),
            Cell(benchmarks.points(sum(changes) / len(changes))) if changes else Cell(""),
        ],
        colour=style.colour(variant, clean.colours),
    )


def _perplexity(row: Perplexity | None, base: Perplexity | None) -> Cell:
    if row is None:
        return Cell("")
    if base is None:
        return Cell(number_format.perplexity(row.perplexity))
    return perplexity.cell(row, base)
