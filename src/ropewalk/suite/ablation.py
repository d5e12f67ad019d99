"""`ropewalk ablate`: the rows of a grid, each trained and measured in one go; of each a file of records stays.

in   a model, documents, axes
out  `out/ROW.jsonl`, whole or absent; below `out/.work`, what is being made

Any number of processes share a directory: a row is held by the lock of its directory below `.work` (checkpoint/processes.py), which is free again when its
process ends, however it ends. The model that is measured is loaded once a process; each row puts its rotation and its weights into it.

The processes of one torchrun run each row together, as `train` and the measuring commands do under it; the first of them alone claims rows,
looks at clock and files, and writes.
"""

from __future__ import annotations

import atexit
import functools
import logging
import shutil
from dataclasses import replace
from pathlib import Path

from ropewalk.checkpoint import marks
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import disk_errors, refuse_unwritable
from ropewalk.checkpoint.processes import one_at_a_time
from ropewalk.data.documents import refuse_missing
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.intervals import share_interval
from ropewalk.evals.reach import few_trials
from ropewalk.model.devices import device_for
from ropewalk.model.load import refuse_unknown_code
from ropewalk.progress import is_first_process
from ropewalk.records import Rows
from ropewalk.records.format import duration, share
from ropewalk.rope.scaling import LongRope
from ropewalk.sentences import counted
from ropewalk.settings import run_file
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import takes
from ropewalk.settings.mixture import sources_of
from ropewalk.suite.claims import claimed
from ropewalk.suite.digests import warn_of_trained_texts
from ropewalk.suite.grid import Grid
from ropewalk.suite.kept import STATE
from ropewalk.suite.measurements import benchmark_tasks
from ropewalk.suite.row import NONE, Row, refuse_other_files, without_rows
from ropewalk.suite.row_files import is_whole, lack, refuse_other_rows
from ropewalk.suite.row_run import WORK, Bench, say
from ropewalk.suite.stages import Outcome, Stage, attempt
from ropewalk.training.batch import estimates_of
from ropewalk.training.setup import trained_checkpoint

_logger = logging.getLogger(__name__)
_BUSY = "another process runs it"


@takes(AblateSettings)
def ablate(settings: AblateSettings) -> Rows[Outcome]:
    """Run the rows of a grid that no other process has run or is running.

    Returns:
        What became of each row: nothing if it is whole, else why it is not. Of a dry run, about how many seconds each would take. What was measured is
        read from `out`: `records.read([out]).of(records.Perplexity).to_pandas()`.

    Raises:
        UserError: a model that cannot be read or has no rotation, a method that does not exist, an `out` that holds other rows.
    """
    for texts in (
        settings.test,
        sources_of(settings.data),
        settings.validation,
        settings.also,
        settings.scores,
        settings.benchmarks,
    ):
        refuse_missing(texts)
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    refuse_unknown_code(checkpoint)
    grid = Grid(settings, checkpoint)
    out = Path(settings.out)
    refuse_other_rows(grid, out)  # before anything is loaded
    for row in grid.rows:
        if (lacking := lack(grid, row, out)) and (path := out / f"{row.name}.jsonl").exists() and is_first_process():
            _logger.warning(f"{path} {lacking}: it is made again")
        for window in grid.windows(row):
            grid.stride(window)
        if (rounded := grid.rounded(row)) and is_first_process():
            _logger.warning(rounded)
    unreached = grid.unreached
    if is_first_process():
        for lacking in filter(None, (without_rows(settings), unreached)):
            _logger.warning(lacking)
        for option in ("test", "validation", "also"):
            warn_of_trained_texts(option, getattr(settings, option), settings.data)
        _warn_of_few_trials(settings)
    if settings.dry_run:
        return _rehearsed(grid, out)
    mesh = meshes.start(device=device_for(settings.device))
    atexit.register(mesh.close)
    # Digests are of what is read now, whatever is written there later.
    ranks.first(lambda: (_take_directory(settings, out), grid.digests))
    if "benchmarks" in settings.measure and ranks.first(lambda: not all(is_whole(grid, row, out) for row in grid.rows)):
        ranks.together(lambda: benchmark_tasks(settings.benchmarks, settings.items))  # before anything is trained
    bench = Bench(grid, mesh)
    outcomes: dict[Row, Outcome] = {}
    # Again, as long as there is something to do: what another process held may be free by now.
    while any([_take(grid, row, bench, outcomes) for row in grid.rows]):
        pass
    return Rows(outcomes[row] for row in grid.rows)


def _rehearsed(grid: Grid, out: Path) -> Rows[Outcome]:
    """What would become of each row: refused, whole already, or to do in about so many seconds."""
    to_do = [row for row in grid.rows if not is_whole(grid, row, out)]
    # What is refused is so by its rotation, whatever the budget.
    twins = {row: replace(row, tokens=0, rate=0.0, seed=0) for row in to_do}
    reasons = {twin: _refusal(grid, twin) for twin in dict.fromkeys(twins.values())}
    refused = {row: reasons[twin] for row, twin in twins.items() if reasons[twin]}
    first = next((row for row in to_do if row.tokens and row not in refused), None)
    beside = {first: _tokenising(grid, first)} if first else {}
    return Rows(
        Outcome(row.name, grid.model_name, refused[row])
        if row in refused
        else Outcome(row.name, grid.model_name, "to do" * (row in to_do), grid.seconds(row) + beside.get(row, 0.0))
        for row in grid.rows
    )


def _refusal(grid: Grid, row: Row) -> str:
    """Why a row could not be made, as far as its rotation says before anything is trained, in the words of its run; nothing of one whose factors are searched."""
    if row.method == LongRope.method:
        return ""
    try:
        trained_checkpoint(grid.recipe(row, Path(grid.settings.out), Path))
    except UserError as error:
        return str(error)
    return ""


def _tokenising(grid: Grid, row: Row) -> float:
    """Seconds in which the first row that is trained has the texts tokenised, for all rows, by the estimate that it would begin with; 0 where they are short or kept."""
    recipe = grid.recipe(
        replace(row, method=NONE, parameters=()), Path(grid.settings.out), Path
    )  # all read the same texts
    seconds = estimates_of(recipe, grid.source)[1]
    if seconds:
        _logger.info(f"{row.name} has all of --data tokenised, once: about {duration(seconds)} on this machine")
    return seconds


def _warn_of_few_trials(settings: AblateSettings) -> None:
    """Say it where no answers could tell methods apart by k_max, and how far shares would have to be apart."""
    few = few_trials(settings.depths, settings.trials) if "passkey" in settings.measure else ""
    if few:
        prompts = settings.depths * settings.trials
        low, high = map(share, share_interval(prompts / 2, prompts))
        _logger.warning(
            f"--trials {settings.trials} tells no methods apart by k_max: {few}. Of passkeys found, half of all {counted(prompts, 'prompt')} of a window "
            f"has a 95 % interval of {low} to {high}"
        )


def _take_directory(settings: AblateSettings, out: Path) -> None:
    """Mark where rows go as ropewalk's, so that nobody's texts lie among them and they are read as nobody's texts.

    Raises:
        UserError: it holds something else.
    """
    refuse_unwritable(out)
    refuse_other_files(out)
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(out):
            marks.mark(out, ["*.jsonl", f"{WORK}/*", *run_file.NAMES])
    run_file.write(settings, out)


def _take(grid: Grid, row: Row, bench: Bench, outcomes: dict[Row, Outcome]) -> bool:
    """Run a row if it is neither whole nor another process's, nor failed here; whether it was run."""
    out, at = Path(grid.settings.out), f"[{grid.rows.index(row) + 1}/{len(grid.rows)}] {grid.model_name}/{row.name}"
    tried = row in outcomes and outcomes[row].reason not in ("", _BUSY)
    if ranks.first(lambda: is_whole(grid, row, out)) or tried:
        if not tried:
            outcomes[row] = Outcome(row.name, grid.model_name)
        return False
    if not ranks.same(bench.has_time_for(row)):
        outcomes[row] = Outcome(row.name, grid.model_name, "no time was left for it")
        return False
    with claimed(out / WORK / row.name) as work:
        if work is None:
            outcomes[row] = Outcome(row.name, grid.model_name, _BUSY)
            return False
        ranks.first(lambda: refuse_other_rows(grid, out))  # another process may have put some there meanwhile
        if not ranks.first(lambda: is_whole(grid, row, out)):
            say(at)
            stage = Stage(row.name, grid.model_name, {}, functools.partial(bench.run, row, work))
            outcomes[row] = ranks.same(attempt(stage))
            say(f"{at}: {outcomes[row].reason or f'{outcomes[row].seconds:.0f} s'}")
        if ranks.rank() == 0 and (is_whole(grid, row, out) or not (work / STATE).exists()):
            shutil.rmtree(work, ignore_errors=True)
    return True
