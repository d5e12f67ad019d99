"""What the paper measured of its claims, in the unit in which the lab's figures stand beside it: nats, parts of a window, points.

in   the tables of records/paper.py, LLaMA 7B at factors 4 and 16
out  words for the claims' table
"""

from __future__ import annotations

import math

from ropewalk.records.format import fixed
from ropewalk.records.paper import TABLE_1, TABLE_2, TABLE_3, TABLE_4, TABLE_5, WINDOW, PaperTable


def _of(table: PaperTable, method: str, factor: int) -> dict[int | str, float]:
    """7B's figures by column."""
    return next(row.values for row in table.rows if (row.model, row.method, row.factor) == ("7B", method, factor))


def _step(before: float, after: float) -> str:
    """Two perplexities, and the nats that lie between them."""
    return f"{before:.2f} → {after:.2f}, {fixed(math.log(after / before), 3)} nats"


def _old_window(table: PaperTable) -> str:
    base, four, sixteen = (_of(table, *which)[WINDOW] for which in (("none", 1), ("PI", 4), ("PI", 16)))
    return f"table {table.number}: at {WINDOW} {_step(base, four)}; when ×16 {_step(base, sixteen)}"


_BASE, _PI, _NEW = _of(TABLE_1, "none", 1)[WINDOW], _of(TABLE_1, "PI", 4), 4 * WINDOW
_UNTRAINED, _REACHED = _of(TABLE_3, "PI", 4)[0], sorted(_of(TABLE_4, "FT", 4).values())
_TASKS, _TASKS_PI = _of(TABLE_5, "none", 1), _of(TABLE_5, "PI", 4)
_POINTS = ", ".join(f"{task} {fixed(_TASKS_PI[task] - before, 1)}" for task, before in _TASKS.items())
#: The paper prints "> 10^3" where a model broke.
_BROKEN = 1000

BREAKS = f"table 1, no extension: {_BASE:.2f} → above {_BROKEN}, above {fixed(math.log(_BROKEN / _BASE), 3)} nats"
DIRECT = f"table 4: k_max {_REACHED[0]:.0f} to {_REACHED[-1]:.0f}, {fixed(_REACHED[0] / WINDOW, 3)} to {fixed(_REACHED[-1] / WINDOW, 3)}"
UNTRAINED = f"tables 1 and 3, step 0, at {_NEW}: {_UNTRAINED:.2f} from above {_BROKEN}, below {fixed(math.log(_UNTRAINED / _BROKEN), 3)} nats"
TRAINED = f"table 1: {_step(_BASE, _PI[_NEW])}, at {WINDOW} and {_NEW}"
LONGER = f"table 1: {_step(_PI[WINDOW], _PI[_NEW])}, at {WINDOW} and {_NEW}"
LONGER_NATS = math.log(_PI[_NEW] / _PI[WINDOW])
PASSKEYS = "table 4: k_max the whole window, 1, after 200 steps"
OLD_WINDOW, MATHEMATICS = _old_window(TABLE_1), _old_window(TABLE_2)
BENCHMARKS = f"table 5: within 2 %, but for BoolQ; in points {_POINTS}"
