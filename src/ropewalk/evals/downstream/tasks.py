"""The five benchmarks of section 3.4 as lm-eval tasks, over the hub's data or over local files.

in   names, and a directory of JSON-lines files or None for the hub
out  lm-eval task objects: prompts, choices, targets and metrics are lm-eval's own, only the rows come from elsewhere

| name        | lm-eval task | local fields                          | items                        |
|-------------|--------------|---------------------------------------|------------------------------|
| boolq       | boolq        | passage, question, answer (true/false)| one a line                   |
| piqa        | piqa         | goal, sol1, sol2, label (0, 1)        | one a line                   |
| winogrande  | winogrande   | sentence, option1, option2, answer    | one a line                   |
| race-high   | race         | article, question, options, answer    | one an article: its last     |
| race-middle | race         | as race-high                          | question, the others answered|

On RACE: lm-eval's `race` reads the high-school part, makes one item of each article, asks the last of its
questions and shows the earlier ones with their answers, after GPT-3. Its data set is the published one, grouped by article
in order; `by_article` does the same grouping, which also gives `race-middle`, a task lm-eval does not have.
"""

from __future__ import annotations

import functools
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import lm_eval.api.task
import lm_eval.tasks
import lm_eval.utils
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks import TaskManager

from ropewalk.checkpoint.hub import reach_hub
from ropewalk.data import jsonlines
from ropewalk.data.jsonlines import one_of, text
from ropewalk.errors import UserError, told

TASKS = ("boolq", "piqa", "race-middle", "race-high", "winogrande")

#: Where lm-eval keeps the four definitions; scanning these alone takes milliseconds, all of them half a minute.
_FOLDERS = ("super_glue/boolq", "piqa", "race", "winogrande")


@dataclass(frozen=True)
class _Source:
    """How a local file becomes the rows that an lm-eval task expects."""

    task: str
    split: str
    fields: jsonlines.Fields
    rows: Callable[[Iterable[dict[str, Any]]], Iterable[dict[str, Any]]]


def _boolq(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for line in lines:
        yield {"passage": line["passage"], "question": line["question"], "label": int(line["answer"])}


def by_article(lines: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Group RACE's questions by article, in order; `problems` is written as lm-eval reads it, a Python literal."""
    articles: dict[str, list[dict[str, Any]]] = {}
    for line in lines:
        problem = {"question": line["question"], "answer": line["answer"], "options": list(line["options"])}
        articles.setdefault(line["article"], []).append(problem)
    for article, problems in articles.items():
        yield {"article": article, "problems": repr(problems)}


def _gap(value: Any) -> str:
    """A sentence with winogrande's gap in it."""
    if "_" not in text(value):
        raise ValueError("a sentence with a gap, written _")
    return text(value)


def _options(value: Any) -> list[str]:
    if not isinstance(value, list) or len(value) != 4:
        raise ValueError("a list of four texts")
    return [text(option) for option in value]


_RACE = _Source(
    "race",
    "test",
    {"article": text, "question": text, "options": _options, "answer": one_of("A", "B", "C", "D")},
    by_article,
)
_PIQA = {"goal": text, "sol1": text, "sol2": text, "label": one_of(0, 1)}
_WINOGRANDE = {"sentence": _gap, "option1": text, "option2": text, "answer": one_of("1", "2")}
_SOURCES = {
    "boolq": _Source("boolq", "validation", {"passage": text, "question": text, "answer": one_of(True, False)}, _boolq),
    "piqa": _Source("piqa", "validation", _PIQA, iter),
    "race-middle": _RACE,
    "race-high": _RACE,
    "winogrande": _Source("winogrande", "validation", _WINOGRANDE, iter),
}


def build(names: Iterable[str], data: str | Path | None = None) -> dict[str, ConfigurableTask]:
    """lm-eval's tasks by our names, zero-shot.

    Args:
        names: of TASKS.
        data: a directory with `<name>.jsonl` (or .xz, .gz, .zst), read without any network; None for the hub.

    Raises:
        UserError: an unknown name, a missing or damaged file, a hub that does not answer.
    """
    names = list(names)
    for name in names:
        if name not in _SOURCES:
            raise UserError(f"a benchmark is one of {', '.join(TASKS)}, got {name}; choose among those")
    if data is None:
        reach_hub(names[0], "give local files with --data, or go online")
    # All files are looked for before the first is read: a typing error in the last name should not cost a minute.
    paths = {name: None if data is None else jsonlines.find(data, name) for name in names}
    root = Path(lm_eval.tasks.__file__).parent
    with quiet():
        manager = TaskManager(include_defaults=False, include_path=[root / folder for folder in _FOLDERS])
        return {name: _task(manager, name, paths[name]) for name in names}


def _task(manager: TaskManager, name: str, path: Path | None) -> ConfigurableTask:
    source = _SOURCES[name]
    overrides: dict[str, Any] = {}
    if path is not None:
        rows = datasets.Dataset.from_list(list(source.rows(jsonlines.read(path, source.fields))))
        if not len(rows):
            raise UserError(f"{path} has no lines, and a benchmark needs at least one item; fetch it again")
        # Without a training split lm-eval reads no few-shot examples; zero-shot prompts are the same.
        overrides = {"custom_dataset": lambda **_: {source.split: rows}, "training_split": None}
    elif name == "race-middle":
        overrides = {"custom_dataset": lambda **_: {source.split: _published_race("middle")}}
    # datasets, its readers and the hub's client each raise their own kinds.
    fetching = told(f"{name} cannot be fetched from the hub", "connect, or give local files with --data", Exception)
    with fetching if path is None else nullcontext():
        # A group of one is lm-eval's public way to take a named task and change some of its keys.
        task: Any = manager.load({"group": name, "task": [{"task": source.task, **overrides}]})["tasks"][source.task]
    task.set_config("task", name)
    task.set_config("num_fewshot", 0)
    return task


@contextmanager
def cached_templates() -> Iterator[None]:
    """While the block runs, lm-eval compiles each of its few templates once, not for each item: most of a small model's time."""
    environment: Any = lm_eval.utils.env
    if "from_string" in vars(environment):  # within another such block
        yield
        return
    environment.from_string = functools.lru_cache(maxsize=1024)(environment.from_string)
    try:
        yield
    finally:
        del environment.from_string


def digest(task: ConfigurableTask, limit: int | None = None) -> str:
    """A hash of the items in order: rows with equal digests answered the same prompts with the same choices and targets."""
    items = hashlib.sha256()
    count = limit if limit is not None else len(task.eval_docs)
    with cached_templates():
        for _, item in zip(range(count), task.eval_docs, strict=False):
            row: Any = item  # datasets types a row as anything that can be indexed
            item_parts = [task.doc_to_text(row), task.doc_to_choice(row), task.doc_to_target(row)]
            items.update(json.dumps(item_parts).encode())
    return items.hexdigest()[:16]


def _published_race(part: str) -> datasets.Dataset:
    rows: Any = datasets.load_dataset("ehovy/race", part, split="test")
    return datasets.Dataset.from_list(list(by_article(rows)))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep lm-eval's log to errors, and its bar from the terminal: what it warns of (default aggregations, truncated prompts) is in the records."""
    log, drawing = logging.getLogger("lm_eval"), vars(lm_eval.api.task)
    level, bar = log.level, drawing["tqdm"]
    log.setLevel(logging.ERROR)
    drawing["tqdm"] = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        log.setLevel(level)
        drawing["tqdm"] = bar
