"""What every command is asked before anything heavy is imported: a slip of the user's costs less than a second.

in   a command and its options
out  nothing; or a sentence: a value out of range, a package that is not installed, a model or a document that is not there, an --out
     that is taken
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ropewalk.checkpoint import guard
from ropewalk.checkpoint.files import is_adapter, read_config, refuse_unwritable
from ropewalk.checkpoint.headers import weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.cli.commands import Command
from ropewalk.cli.shortage import refuse_few_addresses
from ropewalk.cli.terminal import agreed
from ropewalk.errors import UserError
from ropewalk.progress import is_first_process
from ropewalk.settings import run_file
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import arguments, ask_at_start, option_name
from ropewalk.settings.downstream import EvaluateSettings
from ropewalk.settings.export import FromAdapter
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.extras import refuse_lacking
from ropewalk.settings.inputs import inputs_of, refuse_missing_files
from ropewalk.settings.mixture import sources_of
from ropewalk.settings.options import Checkpointed, MeasuringOptions, unasked
from ropewalk.settings.pages import DemoSettings
from ropewalk.settings.scaling import ScalingOptions
from ropewalk.settings.search import SearchSettings

_logger = logging.getLogger(__name__)
#: Options that name a checkpoint, and options that name documents.
_MODELS = ("model", "base", "adapter", "evaluator")
_DATA = ("data", "test", "validation", "also", "watch_data", "math", "pairs", "train_pairs", "train", "benchmarks")
#: Options that name what lies here and on no hub.
_FILES = ("scores", "questions", "needle", "file", "prompt", "converter")


def check(name: str, command: Command, options: Any) -> Any:
    """The command's settings, looked at as far as that costs nothing.

    Raises:
        UserError: the first thing that cannot be.
    """
    refuse_few_addresses(name, command, options)
    _ask(options)
    settings = command.settings(**arguments(command.settings, options))
    ask_at_start(settings)
    refuse_lacking(f"ropewalk {name}", command.needs)
    if not command.loads or not is_first_process():
        return settings  # quick by itself; or another process says it
    _look_at_out(settings)
    _look_at_inputs(settings, by_step=getattr(options, "by_step", False))
    return settings


def _look_at_inputs(settings: Any, *, by_step: bool) -> None:
    from ropewalk.data.documents import refuse_missing

    for field in _DATA:
        refuse_missing(sources_of(getattr(settings, field, None)))
    for field in _FILES:
        refuse_missing_files(option_name(field), getattr(settings, field, None))
    for model in filter(None, (getattr(settings, field, None) for field in _MODELS)):
        path = locate(model, weights=False)
        if by_step:
            from ropewalk.evals.checkpoints_of_run import refuse_without_steps

            refuse_without_steps(path)
        elif not (isinstance(settings, FromAdapter) and is_adapter(path)):
            config = read_config(path)
            if path == Path(model) and not isinstance(
                settings, ExtendSettings
            ):  # no weights of a hub's model are here yet
                weight_files(path, config)
    if isinstance(settings, ScalingOptions):
        settings.parameters  # noqa: B018  # reads the file of --factors


def _look_at_out(settings: Any) -> None:
    if isinstance(settings, Checkpointed | FromAdapter | DemoSettings | EvaluateSettings | AblateSettings):
        refuse_unwritable(settings.out)
    if isinstance(settings, Checkpointed | FromAdapter | DemoSettings) and not getattr(settings, "resume", False):
        guard.refuse_existing(settings.out, overwrite=settings.overwrite, inputs=inputs_of(settings))
    if isinstance(settings, SearchSettings):
        refuse_unwritable(Path(settings.out).parent)
    if isinstance(settings, AblateSettings):
        from ropewalk.suite.row import refuse_other_files, rows_of

        rows_of(settings)
        refuse_other_files(Path(settings.out))


def _ask(options: Any) -> None:
    """At a terminal, whether --overwrite may delete what was trained; elsewhere the settings refuse it without --yes."""
    if (at_risk := unasked(options)) and agreed(f"Delete {at_risk}?"):
        object.__setattr__(options, "yes", True)


def keep(settings: Any) -> None:
    """Write the options of a measurement or a search beside its file; what writes a directory does so itself, when it begins."""
    if isinstance(settings, MeasuringOptions | SearchSettings) and settings.out is not None:
        out = Path(settings.out)
        try:
            command = run_file.command_of(settings).replace(" ", "-")
            run_file.write_file(settings, out.with_name(f"{out.stem}.{command}.yaml"))
        except UserError as error:  # the rows themselves are there
            _logger.warning("%s", error)
