"""The command line: read the options, call the function of the same name, print its result.

commands.py  the commands and their options, which are the fields of ropewalk.settings
words.py     from what was typed, and from a run.yaml, to a command's options; options.py, what tyro reads of them; door.py, what is refused before anything is imported
completion.py  what a shell completes of it
make.py measure.py downstream.py predict.py talk.py  what each command calls
tables/      all tables
shortage.py  what is said of too little memory
terminal.py progress.py  stdout and stderr; streams.py, in whatever state they are found

Everything heavy is imported inside the command that needs it, so that `ropewalk --help` answers at once.
"""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ropewalk.cli.commands import COMMANDS
from ropewalk.cli.progress import log_to_terminal
from ropewalk.cli.shortage import out_of_memory, spare_addresses
from ropewalk.cli.streams import delivered, prepare
from ropewalk.cli.words import parse
from ropewalk.errors import UserError, is_shortage
from ropewalk.progress import ENTERED, is_first_process
from ropewalk.settings.extras import explained

__all__ = ["COMMANDS", "main", "parse"]

_logger = logging.getLogger(__name__)
_as_python_does = warnings.formatwarning


def _as_sentence(message: Any, category: type, filename: str, lineno: int, line: str | None = None) -> str:
    """Our own warnings are sentences for the user, who need not know on which line they arose; others' stay as they are."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"ropewalk: {message}\n"
    return _as_python_does(message, category, filename, lineno, line)


def _let_the_first_speak() -> None:
    """Wait ten seconds on every rank but the first, so that an error which all ranks meet is printed once.

    torchrun ends all processes when the first one exits; the error of a rank that failed alone is printed after the wait.
    """
    if not is_first_process():
        time.sleep(10)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command.

    Exit 0 done; 2 what was asked for cannot be done (a sentence, no traceback); 130 interrupted; 141 nobody reads stdout; 143 SIGTERM; 1 a fault of ours.
    """
    entered = ENTERED.set(time.monotonic())
    prepare()
    # transformers' advice on its own calls is no news to a user of ours; what matters to them we say ourselves.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # its bars would stand among ours
    # What torchao and bitsandbytes lack (kernels for other devices) as transformers imports them, and what torch says of how they are written.
    for name in ("torchao", "bitsandbytes", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # OpenMP's threads would spin while they wait, and on busy cores take them from the threads that they wait for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    spare_addresses()
    # Without it, ten gigabytes of a GPU that a large model nearly fills are lost between blocks of different sizes.
    if "PYTORCH_ALLOC_CONF" not in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    warnings.formatwarning = _as_sentence
    try:
        with _cleaned_up_when_terminated(), delivered():
            _run(arguments)
    except UserError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if (sentence := explained(error)) is error:
            raise
        _refuse(str(sentence))
    except KeyboardInterrupt:
        print("ropewalk: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            _refuse("this process may not open as many files as that takes; raise the limit with `ulimit -n`")
        if not is_shortage(error):
            raise
        _refuse(out_of_memory(error))
    finally:
        ENTERED.reset(entered)


@contextlib.contextmanager
def _cleaned_up_when_terminated() -> Iterator[None]:
    """Let SIGTERM (of `timeout`, of a batch system) end a command as Ctrl-C does, so that what is half written is removed; training has its own way (training/guard.py).

    Not under torchrun, which ends processes that wait for one another and would not come to it.
    """
    is_main_thread = threading.current_thread() is threading.main_thread()
    if not is_main_thread or "RANK" in os.environ or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one ends it at once
    # Not by the logger, which may be in the middle of a line.
    os.write(2, b"\nropewalk: ended by a signal (SIGTERM)\n")
    raise SystemExit(128 + number)


def _run(arguments: Sequence[str] | None) -> None:
    try:
        os.getcwd()
    except FileNotFoundError:
        raise UserError("the current directory was deleted; change into another one (cd)") from None
    name, options = parse(arguments)
    from ropewalk.cli import door  # not for --help

    handler = log_to_terminal(quiet=options.quiet, verbose=options.verbose)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*_stable_hash_for_caching")  # of torchao's moments
            if options.quiet:
                # Before they are imported, which is when they read it.
                os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
                warnings.simplefilter("ignore", UserWarning)
            settings = door.check(name, COMMANDS[name], options)
            for field in fields(settings):
                _logger.debug("%s: %s", field.name, getattr(settings, field.name))
            COMMANDS[name].run(options)
            if not getattr(options, "dry_run", False):
                door.keep(settings)
        if handler.failed:
            raise SystemExit(1)
    except UserError as error:
        _logger.debug("%s", name, exc_info=error)
        raise
    except Exception as error:
        if not is_shortage(error):
            raise
        raise UserError(out_of_memory(error, options)) from error
    finally:
        handler.close()


def _refuse(sentence: str) -> NoReturn:
    _let_the_first_speak()
    with contextlib.suppress(OSError):  # stderr may be full or gone as well
        print(f"ropewalk: {sentence}", file=sys.stderr, flush=True)
    with contextlib.suppress(OSError):
        _tell_torchrun(f"ropewalk: {sentence}")
    raise SystemExit(2) from None


def _tell_torchrun(sentence: str) -> None:
    """Leave it in the file from which torchrun takes the cause of a failure: its traceback of many lines then ends with the sentence.

    The file's form is that of torch.distributed.elastic.multiprocessing.errors, which is not imported for a slip of the user's.
    """
    if file := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        message = {"message": sentence, "extraInfo": {"timestamp": str(int(time.time()))}}
        Path(file).write_text(json.dumps({"message": message}), encoding="utf-8")
