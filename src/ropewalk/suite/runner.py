"""Everything the paper measures, in one command: a suite of stages that goes on where it was killed, and ends in a page.

in   a model, the base it came from if there is one, and what to measure on
out  a directory: records.jsonl, stages.jsonl (what was run, and what was left out and why), report.html

| stage       | of which models               | section of Chen et al. 2023 |
|-------------|-------------------------------|-----------------------------|
| perplexity  | base, PI untrained, model, its checkpoints | 3.2, tables 1 to 3 |
| passkey     | the same                      | 3.3, table 4                |
| retrieval   | base, model                   | a harder test than 3.3      |
| benchmarks  | base and model, paired        | 3.4, table 5                |
| attention   | base and model                | what 2.3 supposes           |
| theory      | the model's rotation          | 2.3, theorem 2.1, figure 5  |
| summaries   | model, or what is made of it  | 3.5, table 6                |

A stage that cannot be run here (no data, not enough memory, a window too small) is left out, and the reason is said and written
down; the others go on. A stage that is done under the same settings, weights and versions is not run again.

    size.py    how much is measured: the paper's, or what two cores do
    suite.py   which stages, in which order, with which settings
    stages.py  running them, and going on after a kill
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import disk_errors, refuse_existing
from ropewalk.data.stdlib import standard_library
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.pairing import refuse_other_base
from ropewalk.model.devices import device_for
from ropewalk.suite.paper import Sources, Suite
from ropewalk.suite.size import SIZES, Size, SizeName
from ropewalk.suite.stages import JOURNAL, Outcome, Stage, run

__all__ = ["SIZES", "Outcome", "Size", "SizeName", "Stage", "evaluate"]


def evaluate(
    model: str | Path,
    *,
    out: str | Path,
    suite: str = "paper",
    base: str | Path | None = None,
    size: SizeName = "auto",
    data: Sources | None = None,
    math: Sources | None = None,
    benchmarks: str | Path | None = None,
    pairs: Sources | None = None,
    train_pairs: Sources | None = None,
    budget: float | None = None,
    dtype: str | None = None,
    device: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    change: dict[str, Any] | None = None,
) -> list[Outcome]:
    """Run the suite.

    Args:
        model: `hemp`, a local directory or a hub id.
        out: directory; if it holds a suite already, that goes on.
        suite: "paper" is the only one.
        base: the model before its extension.
        size: "full" is the paper's, "small" for a CPU; "auto" is full where there is a GPU.
        data: long documents for perplexity and attention; the standard library's held-out modules if not given.
        math: further documents for perplexity, in a row of their own (the paper's proof-pile).
        benchmarks: directory of benchmark files; the hub's sets if not given.
        pairs: documents and summaries to measure on; no summaries if not given.
        train_pairs: pairs to fine-tune on before summarising.
        budget: minutes for each perplexity; then an estimate (see perplexity).
        dtype, device: as in `model.load`.
        seed: of everything that is drawn.
        overwrite: throw an earlier suite in `out` away.
        change: fields of Size to set otherwise.

    Returns:
        What became of each stage.

    Raises:
        UserError: an unknown suite, numbers that ask for nothing, a model or base that cannot be read, a base that the model was
            not made from, an `out` that holds something else.
    """
    if suite != "paper":
        raise UserError(f"a suite is paper, got {suite}; leave --suite out")
    _refuse_nothing(budget=budget, **{name: (change or {}).get(name) for name in ("documents", "items")})
    if base is not None:
        refuse_other_base(model, base)
    out = Path(out)
    if ranks.rank() == 0:
        _directory(out, overwrite)
    ranks.same(None)  # no rank reads the directory before it is there
    on_gpu = device_for(device).type == "cuda"
    chosen = dataclasses.replace(
        SIZES["full" if size == "full" or (size == "auto" and on_gpu) else "small"], **(change or {})
    )
    suite_of = Suite(
        model=model,
        base=base,
        out=out,
        size=chosen,
        data=data if data is not None else [str(path) for path in standard_library("held_out")],
        math=math,
        benchmarks=benchmarks,
        pairs=pairs,
        train_pairs=train_pairs,
        budget=budget,
        loading={"dtype": dtype, "device": device},
        seed=seed,
    )
    if ranks.rank() == 0:
        suite_of.prepare()
    ranks.same(None)
    outcomes = run(list(suite_of.stages()), out)
    if ranks.rank() == 0:
        _page(model, out, outcomes)
    return outcomes


def _refuse_nothing(budget: float | None, documents: int | None, items: int | None) -> None:
    """What asks for nothing would leave every stage out, one by one."""
    if budget is not None and not budget > 0:
        raise UserError(f"a budget is a number of minutes above 0, got {budget}; leave --budget out for exact figures")
    for name, number in (("documents", documents), ("items", items)):
        if number is not None and number < 1:
            raise UserError(f"--{name} is at least 1, got {number}; leave it out for the size's own number")


def _directory(out: Path, overwrite: bool) -> None:
    """A fresh directory, or one that holds a suite."""
    ours = (out / JOURNAL).is_file()
    if out.exists() and not ours:
        refuse_existing(out, overwrite=False)
    if ours and overwrite:
        shutil.rmtree(out)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        (out / JOURNAL).touch()


def _page(model: str | Path, out: Path, outcomes: Sequence[Outcome]) -> None:
    """The page over everything recorded, the model's own training beside it; and what was left out."""
    from ropewalk.reports import report

    records = [out / "records.jsonl"]
    if not records[0].is_file():
        raise UserError(
            f"no stage of the suite could be run, so there is nothing to report; {out / 'stages.jsonl'} has the reasons"
        )
    training = Path(model) / "records.jsonl"
    if training.is_file():
        records.append(training)
    left_out = [f"{one.name}, {one.subject}: {one.reason}" for one in outcomes if one.reason]
    report(records, out / "report.html", overwrite=True, left_out=left_out)
