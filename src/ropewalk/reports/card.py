"""The model card of a checkpoint, written from what is on record of it, of its base and of its training.

in   a directory, and record files
out  its README.md: what was done, how far it holds, figures with their intervals, commands; nothing that no row says
"""

from __future__ import annotations

import dataclasses
import logging
import os
import re
import shlex
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ropewalk.checkpoint import marks
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import write_whole
from ropewalk.checkpoint.model_card import README, ModelCard, base_in, is_theirs, not_measured
from ropewalk.checkpoint.processes import refuse_locked
from ropewalk.checkpoint.replacement import refuse_unfinished
from ropewalk.checkpoint.steps import WATCHED
from ropewalk.errors import UserError
from ropewalk.readers.spelling_checks import warn_of_other_readers
from ropewalk.records import BOOKKEEPING, Records, Run, Step, read
from ropewalk.records.recipe import is_training, of_no_machine, place, recipe_of
from ropewalk.records.variant import variant_of
from ropewalk.reports import provenance
from ropewalk.reports.comparable import groups, other_tokens
from ropewalk.reports.content import Section
from ropewalk.reports.files import as_markdown
from ropewalk.reports.page import SECTIONS
from ropewalk.reports.rows import Clean, clean
from ropewalk.reports.verdict import verdicts
from ropewalk.settings.command import takes
from ropewalk.settings.pages import CardSettings

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """The checkpoint that a card is about.

    Attributes:
        checkpoint: it.
        base: what it was made from, as its README says; empty where that does not.
        trained_by: the training runs on record in its own directory, or in that of the run whose checkpoint it is.
        watched: the fingerprint by which that run's last look at it (`--watch`), before it was saved, is on record; empty without one.
    """

    checkpoint: Checkpoint
    base: str
    trained_by: frozenset[str] = frozenset()
    watched: str = ""

    def is_it(self, run: Run) -> bool:
        """Whether a run measured this model: the same weights, or by its name where a header has no fingerprint of them."""
        if run.model.fingerprint:
            return run.model.fingerprint in (self.checkpoint.fingerprint, self.watched)
        return _is_same(run.model.name, self.checkpoint.path) and run.model.steps == self.checkpoint.info.steps

    def trained_in(self, run: Run) -> bool:
        """Whether a run trained it."""
        return is_training(run) and (
            run.id in self.trained_by or _is_same(str(run.settings["out"]), run_of(self.checkpoint.path))
        )

    def came_from(self, run: Run, starts: Collection[str]) -> bool:
        """Whether a run measured what could be its base, or itself before it was trained. starts: fingerprints of what its trainings began from, which may have been trained before."""
        variant, info = variant_of(run.model), self.checkpoint.info
        alike = variant.lineage == variant_of(info).lineage and (not variant.steps or variant.fingerprint in starts)
        return alike and (variant.role == "base" or (variant.scaling, variant.window) == (info.scaling, info.window))

    def named(self, run: Run) -> Run:
        """A run that measured or trained this model, which since may have been moved: by the name that the model has now."""
        name = str(self.checkpoint.path)
        if is_training(run):
            return dataclasses.replace(run, settings={**run.settings, "out": place(name)})
        return dataclasses.replace(run, model=dataclasses.replace(run.model, name=name))


def run_of(directory: Path) -> Path:
    """The directory of the run whose model or checkpoint lies in a directory; else that itself."""
    return Path(place(str(directory)))


def _is_same(name: str, path: Path) -> bool:
    return os.path.exists(name) and os.path.samefile(name, path)


@takes(CardSettings)
def card(settings: CardSettings) -> Path:
    """Write a checkpoint's model card from records.

    Returns:
        Where it lies.

    Raises:
        UserError: no model there, records that cannot be read, or a README that ropewalk did not write.
    """
    directory = Path(settings.model)
    refuse_locked(directory)
    refuse_unfinished(directory)
    checkpoint = Checkpoint.open(_local(directory), **settings.opening)
    out = Path(settings.out) if settings.out is not None else directory / README
    refuse_theirs(out)
    warn_of_other_readers(checkpoint)
    records, trained_by = _read(settings, run_of(directory.absolute()))
    is_measured = any(run.model.fingerprint == checkpoint.fingerprint for run in records.runs.values())
    watched = "" if is_measured else _watched(run_of(directory.absolute()), checkpoint.info.steps)
    subject = Subject(checkpoint, base_in(directory / README), trained_by, watched)
    text = composed(subject, records).text(directory)
    write_whole(out, text, ask=lambda: refuse_theirs(out))
    if out.resolve() == (directory / README).resolve():
        marks.mark_again(directory, README)
    return out


def refuse_theirs(readme: Path) -> None:
    """Raises UserError where a README, or whatever lies there, is not as ropewalk wrote it."""
    if readme.is_dir():
        raise UserError(f"a card is one file, but {readme} is a directory; name a file in it with --out")
    if is_theirs(readme):
        raise UserError(
            f"{readme} was not written by ropewalk, or was edited since, and stays; have the card written to another --out, or move it away"
        )


def _local(directory: Path) -> Path:
    if not directory.is_dir():
        raise UserError(f"a card is written for a directory, and there is no directory {directory}; name a checkpoint")
    return directory


def _read(settings: CardSettings, own: Path) -> tuple[Records, frozenset[str]]:
    """The records that were named, or those of the run's own directory; and which runs of the latter are trainings, whose steps are read in any case."""
    here = read([own]) if any(own.rglob("*.jsonl")) else Records({}, [])
    trainings = frozenset(key for key, run in here.runs.items() if is_training(run))
    if settings.records is None:
        return here, trainings
    named = read(settings.records)
    steps = [m for m in here.measurements if m.run.id in trainings - named.runs.keys()]
    return Records(
        here.runs | named.runs, [*named.measurements, *steps], named.left_out, here.commands | named.commands
    ), trainings


def _watched(own: Path, steps: int) -> str:
    """What a run's last look at its model of so many steps is known by: it was taken before the weights were rounded and saved, whose fingerprint is another."""
    looks = read([own / WATCHED]).runs.values() if steps and (own / WATCHED).is_file() else ()
    return next((run.model.fingerprint for run in reversed([*looks]) if run.model.steps == steps), "")


def composed(subject: Subject, records: Records) -> ModelCard:
    """The card of a checkpoint from these records; those of other models are left aside."""
    rows = clean(_about(subject, records), paper=False)
    info = subject.checkpoint.info
    for caution in [*provenance.damaged(rows), *other_tokens(groups(rows))]:
        _logger.warning("%s", caution)
    measured = any(subject.is_it(m.run) and not isinstance(m.row, (Step, *BOOKKEEPING)) for m in rows.measurements)
    if not measured:
        _logger.warning(
            "no row of these records measured %s; its card says that it was not measured. Name the file of its measurements: ropewalk card %s "
            "--records FILE.jsonl",
            subject.checkpoint,
            shlex.quote(str(subject.checkpoint)),
        )
    recipes = [recipe_of(run) for run in records.runs.values() if subject.trained_in(run)]
    chunk = next((recipe.chunk(info.original_window) for recipe in recipes), None)
    sentences = (
        [s for verdict in verdicts(rows) for s in verdict.sentences] if measured else [not_measured(info, chunk)]
    )
    history = subject.checkpoint.positions.block.get("history", [])
    listed = "\n".join(f"- {sentence}" for sentence in sentences[1:])
    sentences_listed = "\n\n".join(filter(None, [sentences[0], listed]))
    return ModelCard(_base(subject, rows), info, history, sentences_listed, tuple(_sections(rows)))


def _about(subject: Subject, records: Records) -> Records:
    """The rows of this model, of its training and of its base; of several that could be its base, the one that its README names."""
    known, candidates = {}, {}
    starts = {recipe_of(run).start for run in records.runs.values() if subject.trained_in(run)} - {""}
    for key, run in records.runs.items():
        if subject.trained_in(run) if is_training(run) else subject.is_it(run):
            known[key] = subject.named(run)
        elif not is_training(run) and subject.came_from(run, starts):
            candidates[key] = run
    known |= _of_one_base(subject, candidates)
    rows = [dataclasses.replace(m, run=known[m.run.id]) for m in records.measurements if m.run.id in known]
    return Records(known, rows, records.left_out, records.commands)


def _of_one_base(subject: Subject, runs: dict[str, Run]) -> dict[str, Run]:
    """Of runs that measured what could be the base those of one model, and those of the model before it was trained."""
    bases = {key: variant_of(run.model) for key, run in runs.items() if variant_of(run.model).role == "base"}
    chosen = {key for key, base in bases.items() if base.short_name == subject.base}
    if not chosen and len({(base.name, base.fingerprint) for base in bases.values()}) > 1:
        names = ", ".join(sorted({base.short_name for base in bases.values()}))
        _logger.warning("%s could have been made from any of %s; it is compared with none", subject.checkpoint, names)
    elif not chosen:
        chosen = bases.keys()
    return {key: run for key, run in runs.items() if key in chosen or key not in bases}


def _base(subject: Subject, rows: Clean) -> str:
    measured = (m.model_variant.short_name for m in rows.measurements if m.model_variant.role == "base")
    return subject.base or next(measured, f"a {subject.checkpoint.info.family} model")


def _sections(rows: Clean) -> Iterator[str]:
    built = (builder.build(rows) for builder in SECTIONS if builder.on_card)
    yield from (_markdown(section.alone()) for section in built if section is not None)
    if doubts := [*provenance.cautions(rows), *provenance.unknown(rows)]:
        yield "\n".join(["## Doubts", "", *(f"- {doubt}" for doubt in doubts)])
    if rows.used_runs:
        yield _commands(rows)


def _markdown(section: Section) -> str:
    tables = map(as_markdown, section.tables)
    return "\n\n".join(part for part in (f"## {section.title}", section.lead, *tables, *section.notes) if part)


def _commands(rows: Clean) -> str:
    commands = list(dict.fromkeys(_of_no_machine(each) for run in rows.used_runs for each in rows.commands_of(run)))
    fence = "`" * max(3, 1 + max(len(run) for run in re.findall("`*", " ".join(commands))))
    shared = "; ".join(f"{name} {value}" for name, value in provenance.setting(rows).shared if name != "platform")
    where = "; ".join(dict.fromkeys(f"{run.device}, {run.dtype}" for run in rows.used_runs))
    return "\n".join(
        ["## How it was made and measured", "", f"{fence}sh", *commands, fence, "", f"On {where}. {shared}."]
    )


def _of_no_machine(command: str) -> str:
    """A command without the places of one machine."""
    try:
        words = shlex.split(command)
    except ValueError:  # edited by somebody: its first word, the program, is known
        return command.partition(" ")[0]
    return shlex.join(map(of_no_machine, words))
