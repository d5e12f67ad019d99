"""stdin, stdout and stderr as they are found: closed, full, a pipe that nobody reads, or in an encoding without our signs.

in   whatever the process was started with
out  streams that take any text; a result that cannot be delivered ends in a sentence
"""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from collections.abc import Iterator

from ropewalk.errors import UserError, reason

#: How our signs are written where there are none; any other becomes a question mark.
_PLAIN = str.maketrans(
    {"→": "->", "×": "x", "–": "-", "—": "-", "−": "-", "…": "...", "±": "+-", "²": "^2", "’": "'", "·": ".", "≤": "<="}
)


#: Streams in whose place ours stand: thrown away, one would close the file that it shares with ours.
_KEPT: list[io.TextIOWrapper] = []


class _Undelivered(Exception):
    """stdout took no more."""


class _Stdout(io.TextIOWrapper):
    """Raises `_Undelivered` in place of an OSError, which could be that of any file."""

    def write(self, text: str) -> int:
        return _or_undelivered(super().write, text)

    def flush(self) -> None:
        return _or_undelivered(super().flush)


class _Stderr(io.TextIOWrapper):
    """Where it takes no more, there is nobody who could be told."""

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return super().write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            super().flush()


def _or_undelivered(call, *arguments):
    try:
        return call(*arguments)
    except OSError as error:
        raise _Undelivered from error


def prepare() -> None:
    """Open what is closed, so that no file of ours takes its number; write any text in any encoding."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            # Takes the lowest free number, which is this one. A result is not thrown away: it meets a stdout that cannot be written.
            os.open(os.devnull, os.O_RDONLY if number == 1 else os.O_RDWR)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")
    codecs.register_error("ropewalk", _replaced)
    for name, kind in (("stdout", _Stdout), ("stderr", _Stderr)):
        stream = getattr(sys, name)
        if stream is None:
            number = ("stdin", "stdout", "stderr").index(name)
            setattr(sys, name, kind(open(number, "wb", closefd=False), "utf-8", errors="ropewalk"))
        elif type(stream) is io.TextIOWrapper:  # the interpreter's own; not a notebook's, a test's or ours
            encoding, buffering = stream.encoding, stream.line_buffering
            setattr(sys, name, kind(stream.buffer, encoding, errors="ropewalk", line_buffering=buffering))
            _KEPT.append(stream)


def _replaced(error: UnicodeError) -> tuple[str | bytes, int]:
    """What an encoding lacks: bytes of a path that are no Unicode as they are, our signs in ASCII."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    text = error.object[error.start : error.end]
    if all("\udc80" <= letter <= "\udcff" for letter in text):
        return bytes(ord(letter) - 0xDC00 for letter in text), error.end
    return text.translate(_PLAIN).encode("ascii", "replace").decode("ascii"), error.end


@contextlib.contextmanager
def delivered() -> Iterator[None]:
    """Whatever this block prints has reached stdout at its end, or the user hears why not.

    Raises:
        UserError: stdout takes no more (a full disk).
        SystemExit: whoever read it has gone (`| head`); quietly, with the exit status of a program that SIGPIPE ended.
    """
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except _Undelivered as failed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for the interpreter's own flush at its end
        if isinstance(failed.__cause__, BrokenPipeError):
            raise SystemExit(141) from None
        cause = failed.__cause__
        is_closed = isinstance(cause, OSError) and cause.errno == errno.EBADF
        why = "it is closed" if is_closed else reason(cause or failed)
        way_out = "open it" if is_closed else "free some space"
        raise UserError(
            f"the result could not be written to standard output ({why}); {way_out} and run the command again, with another --out if it writes one"
        ) from None
