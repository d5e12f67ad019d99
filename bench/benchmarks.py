"""The five benchmarks beside plain lm-eval, over the same local files: same verdicts, and how long each takes.

python -m bench.benchmarks MODEL --data DIR [--limit N] [--tasks …]

Plain means lm-eval's own tasks by name, its own model class and its own lengths; only the download is replaced by rows made here
from the files, in the hub's fields (RACE grouped by article, as EleutherAI/race is). lm-eval has no race-middle.
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.models.huggingface import HFLM

from ropewalk.data import jsonlines
from ropewalk.evals.downstream import benchmarks, harness, tasks
from ropewalk.evals.loaded import open_model
from ropewalk.records import versions

#: Our names → lm-eval's, and the data set each asks for.
NAMES = {"boolq": "boolq", "piqa": "piqa", "race-high": "race", "winogrande": "winogrande"}
SETS = {
    "aps/super_glue": "boolq",
    "baber/piqa": "piqa",
    "EleutherAI/race": "race-high",
    "allenai/winogrande": "winogrande",
}


def published(folder: Path):
    """A stand-in for `datasets.load_dataset` that gives the hub's rows, made from the files."""

    def load(path: str, *_: Any, **__: Any) -> dict[str, datasets.Dataset]:
        name = SETS[path]
        rows = list(jsonlines.read(jsonlines.find(folder, name), ()))
        split = "validation"
        if name == "boolq":
            rows = [{"question": r["question"], "passage": r["passage"], "label": int(r["answer"])} for r in rows]
        if name == "race-high":
            articles: dict[str, list] = {}
            for row in rows:
                problem = {key: row[key] for key in ("question", "answer", "options")}
                articles.setdefault(row["article"], []).append(problem)
            rows = [{"article": article, "problems": str(problems)} for article, problems in articles.items()]
            split = "test"
        dataset = datasets.Dataset.from_list(rows)
        return {split: dataset, "train": dataset}

    return load


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--tasks", nargs="+", choices=list(NAMES), default=list(NAMES))
    parser.add_argument("--dtype", default="float32", help="float32 unless told otherwise: there the two agree exactly")
    parser.add_argument("--batch-size", type=int, default=8, help="of plain lm-eval")
    chosen = parser.parse_args()
    loaded = open_model(chosen.model, dtype=chosen.dtype)
    built = tasks.build(chosen.tasks, chosen.data)
    window = loaded.info.original_window
    ours = {
        name: benchmarks.measure_task(loaded, task, window=window, limit=chosen.limit) for name, task in built.items()
    }

    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    datasets.load_dataset = published(chosen.data)
    used = {name: versions()[name] for name in ("torch", "transformers", "lm-eval")}
    print(f"{chosen.model}, {loaded.dtype} on {loaded.device}, window {window}, {used}")
    print(f"{'':<12}{'items':>6}{'ours':>8}{'plain':>8}{'verdicts':>12}{'ours s':>9}{'plain s':>9}")
    for name in chosen.tasks:
        theirs, started = NAMES[name], time.perf_counter()
        plain = lm_eval.simple_evaluate(
            model=HFLM(
                pretrained=loaded.model,
                tokenizer=loaded.tokenizer,
                batch_size=chosen.batch_size,
                max_length=window,
                prefix_token_id=harness.prefix_of(loaded.tokenizer, loaded.model.config),
            ),
            tasks=[theirs],
            limit=chosen.limit,
            bootstrap_iters=0,
        )
        seconds = time.perf_counter() - started
        samples = sorted(plain["samples"][theirs], key=lambda sample: sample["doc_id"])
        same = sum(str(int(s["acc"])) == v for s, v in zip(samples, ours[name].answers, strict=True))
        row = ours[name]
        print(
            f"{name:<12}{row.items:>6}{row.accuracy:>8.4f}{plain['results'][theirs]['acc,none']:>8.4f}"
            f"{f'{same}/{row.items} same':>12}{row.seconds:>9.1f}{seconds:>9.1f}"
        )


if __name__ == "__main__":
    main()
