"""The demo's verdict as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from ropewalk.cli.terminal import console

if TYPE_CHECKING:
    from ropewalk.suite.demo import Goal


def show_demo(goals: list[Goal], seconds: float) -> None:
    """Print each goal, what was measured, and whether it was met."""
    table = Table(title="What the demo shows", show_lines=False)
    for heading in ("promised", "found", ""):
        table.add_column(heading)
    for goal in goals:
        table.add_row(goal.promise, goal.result, "yes" if goal.met else "NO")
    console().print(table)
    console().print(f"{seconds / 60:.1f} minutes")
