"""The table of long-context tasks.

in   a task's name
out  how its items are made and scored, and what it needs of the user

To add one: a function (or an object) that makes an `Item` from a source, a random generator and a length, its entry here, and its word in
`LongTask` in settings/measure.py.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from ropewalk.evals.long_context import counting, needles, reading, scoring, tracing
from ropewalk.evals.long_context.items import Item
from ropewalk.evals.long_context.needles import Needles
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.turns import Turns

Make = Callable[[Source, random.Random, int], Item]
Score = Callable[[str, Sequence[str]], float]
#: Whose items the RULER tasks are made like: the prompts of NVIDIA/RULER as of this commit's date.
RULER = "RULER 2026-07"


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        make: an item of so many tokens.
        score: of a response.
        needs: what of the user's it is made of, by the option that gives it; empty for none.
        after: whose task it is like.
        version: of the items made here; another one, other items.
    """

    make: Make
    score: Score = scoring.match_all
    needs: Literal["", "data", "questions", "needle"] = ""
    after: str = RULER
    version: int = 1

    def settled(self, response: str, answers: Sequence[str]) -> bool:
        """Whether a response has its score for good, whatever may follow it: every answer, or a whole list of nodes."""
        if self.score is scoring.nodes:
            return "]" in response
        return self.score is not scoring.repetition and self.score(response, answers) == 1

    @property
    def rule(self) -> str:
        """As the record has it."""
        return f"{self.after}, items v{self.version}"


TASKS: dict[str, Task] = {
    "niah_single_1": Task(Needles("noise")),
    "niah_single_2": Task(Needles("essays"), needs="data", version=2),
    "niah_single_3": Task(Needles("essays", value="uuids"), needs="data", version=2),
    "niah_multikey_1": Task(Needles("essays", keys=4), needs="data", version=2),
    "niah_multikey_2": Task(Needles("needles"), version=2),
    "niah_multikey_3": Task(Needles("needles", key="uuids", value="uuids"), version=2),
    "niah_multivalue": Task(Needles("essays", values=4), needs="data", version=2),
    "niah_multiquery": Task(Needles("essays", asked=4), needs="data", version=2),
    "vt": Task(tracing.variables),
    "cwe": Task(counting.common_words, version=2),
    "fwe": Task(counting.frequent_words),
    "qa_1": Task(reading.one_document, scoring.match_part, needs="questions", version=2),
    "qa_2": Task(reading.several_documents, scoring.match_part, needs="questions", version=2),
    "key_value": Task(needles.look_up, after="Lost in the Middle", version=3),
    "mrcr_2": Task(Turns(2), scoring.repetition, after="MRCR", version=3),
    "mrcr_4": Task(Turns(4), scoring.repetition, after="MRCR", version=3),
    "mrcr_8": Task(Turns(8), scoring.repetition, after="MRCR", version=3),
    "graphwalks_bfs": Task(tracing.breadth_first, scoring.nodes, after="GraphWalks", version=2),
    "graphwalks_parents": Task(tracing.parents, scoring.nodes, after="GraphWalks", version=2),
    "needle": Task(needles.own, needs="needle", after="one's own needle", version=2),
}
#: RULER's thirteen, of which its effective length is made.
THIRTEEN = tuple(name for name, task in TASKS.items() if task.after == RULER)


def left_out(asked: Sequence[str] | None, source: Source) -> tuple[list[str], dict[str, str]]:
    """The tasks that can be made of what the user gave, and why the others cannot.

    asked: names; if None, RULER's thirteen, and one's own needle where one is given.
    """
    names = asked or [*THIRTEEN, *(["needle"] if source.needle is not None else [])]
    reasons = {name: reason for name in names if (reason := _missing(TASKS[name], name, source))}
    return [name for name in names if name not in reasons], reasons


def _missing(task: Task, name: str, source: Source) -> str:
    """What a task lacks, in words with a way out; empty for nothing."""
    if task.needs in ("data", "needle") and source.data is None:
        return "it hides facts in documents: give --data"
    if task.needs and getattr(source, task.needs) is None:
        return f"it is made of the user's {task.needs}: give --{task.needs}"
    if task.needs == "needle":
        _ = source.needles  # wrong ones are refused before the first item of any task
    several = {"qa_1": False, "qa_2": True}
    if name in several and not any((len(asked.documents) > 1) == several[name] for asked in source.asked):
        return (
            f"no question of --questions has {'several documents' if several[name] else 'one document'} as its context"
        )
    return ""
