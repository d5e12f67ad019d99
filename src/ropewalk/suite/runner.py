"""Everything the paper measures, in one command: a suite of stages that continues where it was killed, and ends in a page.

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

A stage that cannot be run here (no data, not enough memory, a window too small) is left out, and the reason is logged and written
down; the others go on. A stage that is done under the same settings, weights and versions is not run again.

    size.py    how much is measured: the paper's, or what two cores do
    paper.py   which stages, in which order, with which settings
    stages.py  running them, and going on after a kill
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import disk_errors
from ropewalk.checkpoint.guard import refuse_existing_file
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.data.documents import refuse_missing
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.loaded import opened
from ropewalk.evals.pairing import refuse_other_base
from ropewalk.model.devices import device_for
from ropewalk.model.load import refuse_unknown_code
from ropewalk.records import Rows, check_file, rename_in
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.downstream import JOURNAL, EvaluateSettings
from ropewalk.settings.inputs import inputs_of
from ropewalk.suite.paper import Suite
from ropewalk.suite.size import SIZES, Size
from ropewalk.suite.stages import Outcome, Stage, run

RECORDS, PAGE_NAME = "records.jsonl", "report.html"
#: What a suite writes into its directory; the models in it have marks of their own.
_HOLDS = (RECORDS, JOURNAL, PAGE_NAME, "untrained/*", "summarizer/*")

__all__ = ["SIZES", "Outcome", "Size", "Stage", "evaluate"]


@takes(EvaluateSettings)
def evaluate(settings: EvaluateSettings) -> Rows[Outcome]:
    """Run the suite, and write its page; a suite that lies in `out` already goes on.

    Returns:
        What became of each stage.

    Raises:
        UserError: a model or base that cannot be read or brings code of its own that is not trusted, a base that the model was not made from, an
            `out` that holds something else.
    """
    size = _size(settings)
    _refuse_missing(settings)
    model, base = opened(settings.model, settings.base, **settings.opening)
    for each in (model, base):
        if isinstance(each, Checkpoint):  # or every stage would be left out, one by one
            refuse_unknown_code(each)
    asked, settings = settings, dataclasses.replace(settings, model=model, base=base)
    if base is not None:
        refuse_other_base(model, base)
    ranks.join()
    with contextlib.ExitStack() as stack:
        suite = Suite(settings, size, ranks.first(lambda: stack.enter_context(_directory(settings))))
        ranks.first(lambda: _begin(suite, asked))
        outcomes = run(list(suite.stages()), suite.work)
        if ranks.rank() == 0:
            _page(suite.model, suite.work, outcomes)
            for file in (RECORDS, JOURNAL) if suite.work != suite.out else ():
                rename_in(suite.work / file, str(suite.work), str(suite.out))
    return outcomes


def stages_in(settings: EvaluateSettings, work: Path) -> list[Stage]:
    """What `evaluate` would do, were its files in `work`."""
    _refuse_missing(settings)
    model, base = opened(settings.model, settings.base, **settings.opening)
    if base is not None:
        refuse_other_base(model, base)
    suite = Suite(dataclasses.replace(settings, model=model, base=base), _size(settings), work)
    suite.prepare()
    return list(suite.stages())


def _directory(settings: EvaluateSettings) -> contextlib.AbstractContextManager[Path]:
    """A fresh directory, or one that holds a suite; to replace one, another beside it."""
    return run_directory(
        settings.out,
        holds=_HOLDS,
        signs=(JOURNAL,),
        overwrite=settings.overwrite,
        go_on=not settings.overwrite,
        inputs=inputs_of(settings),
    )


def _begin(suite: Suite, asked: EvaluateSettings) -> None:
    """Make the directory ready, after what would only be found out at the end: that something else lies where records and page go."""
    from ropewalk.reports.page import PAGE

    check_file(suite.records)
    refuse_existing_file(suite.work / PAGE_NAME, PAGE, overwrite=True)
    with disk_errors(suite.out):
        (suite.work / JOURNAL).touch()
    suite.prepare()
    run_file.write(asked, suite.work)


def _refuse_missing(settings: EvaluateSettings) -> None:
    """Raises UserError for data that is not there: its stage would be left out, hours later."""
    for name in ("data", "math", "benchmarks", "pairs", "train_pairs"):
        refuse_missing(getattr(settings, name))


def _size(settings: EvaluateSettings) -> Size:
    """The size asked for, or the one for this device, with the numbers that were given apart."""
    on_gpu = device_for(settings.device).type == "cuda"
    full = settings.size == "full" or (settings.size == "auto" and on_gpu)
    change = dict(settings.change or {})
    change |= {name: value for name in ("documents", "items") if (value := getattr(settings, name)) is not None}
    known = [field.name for field in dataclasses.fields(Size)]
    if unknown := [name for name in change if name not in known]:
        raise UserError(f"change names fields of a size, {', '.join(known)}, got {unknown[0]}; leave it out")
    return dataclasses.replace(SIZES["full" if full else "small"], **change)


def _page(model: Checkpoint, out: Path, outcomes: Sequence[Outcome]) -> None:
    """The page over everything recorded, the model's own training beside it; and what was left out."""
    from ropewalk.reports import report

    records = [out / RECORDS]
    if not records[0].is_file():
        raise UserError(
            f"no stage of the suite could be run, so there is nothing to report; {out / JOURNAL} has the reasons"
        )
    training = model.path / RECORDS
    if training.is_file():
        records.append(training)
    left_out = [f"{outcome.name}, {outcome.model}: {outcome.reason}" for outcome in outcomes if outcome.reason]
    report(records, out / PAGE_NAME, overwrite=True, left_out=left_out)
