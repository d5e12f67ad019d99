"""What a user is meant to read: the one exception of the package, and the errors of other programs as sentences of ours."""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import resource
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

#: What Python raises where data from outside is not of the shape that the code expects: a list for a number, a key that is missing, 1e999.
STRANGE_DATA = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
#: What torch, cuBLAS, cuDNN and Triton say where they have no exception of their own for it.
_NO_MEMORY = (
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "out of memory",
    "STATUS_ALLOC_FAILED",
)
#: Libraries of GPUs, as they name themselves in errors of memory.
_OF_GPUS = ("CUDA", "CUBLAS", "CUDNN", "HIP", "MIOPEN", "MPS")
#: What the system's linker says of a library that does not come into memory.
_UNMAPPED = "failed to map segment from shared object"
#: Signs of another program's sentence; huggingface_hub's about a config that contradicts itself has 160.
_LONGEST = 300


class UserError(ValueError):
    """Something the user asked for cannot be done.

    The message is one sentence that holds the rule, the value that broke it and the way out. The command line prints
    it without a traceback and exits with 2.
    """


class Unsupported(UserError):
    """A model that may be sound, and of a kind that ropewalk does not extend."""


@contextlib.contextmanager
def told(
    what: str, way_out: str | Callable[[], str], errors: type[Exception] | tuple[type[Exception], ...] = STRANGE_DATA
) -> Iterator[None]:
    """Where the outside comes in: what is raised in this block becomes a UserError, `what (reason); way_out`.

    UserErrors and a shortage of memory pass as they are. `way_out`: a function where finding it costs
    something. `errors`: Exception where another library reads, which may raise anything.
    """
    try:
        yield
    except UserError:
        raise
    except errors as error:
        if is_shortage(error):
            raise
        way = way_out if isinstance(way_out, str) else way_out()
        raise UserError(f"{what} ({reason(error)}); {way}") from error


def reason(error: BaseException) -> str:
    """What went wrong, on one line, by the name of the exception where its text alone would say nothing."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = first_sentence(error)
    spoken = isinstance(error, ValueError | RuntimeError) and not isinstance(error, RecursionError) and " " in text
    return text if spoken else f"{type(error).__name__}: {text}".removesuffix(": ")


def first_sentence(error: BaseException) -> str:
    """What an exception says first, on one line, without control characters; a line that ends in a colon goes on in the next one, or in its cause."""
    text = ""
    for line in filter(None, map(str.strip, str(error).splitlines())):
        text = f"{text} {line}".strip()
        if not text.endswith(":"):
            break
    if text.endswith(":") and error.__cause__ is not None:
        text += f" {first_sentence(error.__cause__)}"
    shown = "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape").decode()
        for sign in text.split(". ")[0].removesuffix(".")
    )
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}…"


def nearest(word: object, known: Iterable[object], otherwise: str = "") -> str:
    """The way out for a word that is none of those that are known: the nearest of them; `otherwise` if none is near."""
    words = [str(each) for each in known]
    # Few mistype the first letter: "yam" is yarn, though difflib's own measure finds it nearer to dynamic.
    begun_alike = [each for each in words if each[:1] == str(word)[:1]]
    near = difflib.get_close_matches(str(word), begun_alike, 1, 0.5) or difflib.get_close_matches(str(word), words, 1)
    return f"did you mean {near[0]}?" if near else otherwise


def is_shortage(error: BaseException) -> bool:
    """Whether memory is what there was too little of: on a GPU, on the host, or under a limit of the process."""
    if is_unmapped(error):  # or by a file system that is mounted noexec
        return addresses_are_limited()
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    named = (
        isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    )  # torch's, which is not imported
    return named or (isinstance(error, RuntimeError) and any(words in str(error) for words in _NO_MEMORY))


def is_unmapped(error: BaseException) -> bool:
    """Whether a library did not come into memory."""
    return isinstance(error, OSError | ImportError) and _UNMAPPED in str(error)


def addresses_are_limited() -> bool:
    """Whether `ulimit -v` limits this process; asked without psutil, which memory that ran out may not let read."""
    return resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY


def is_of_gpu(error: BaseException) -> bool:
    """Whether a shortage was one of a GPU's memory: torch's own exception is of these alone, and others name their library."""
    return type(error).__name__ == "OutOfMemoryError" or any(word in str(error) for word in _OF_GPUS)


def shortage(error: BaseException) -> str:
    """First two sentences of an error of memory: what was asked for. The rest is addresses and advice."""
    return ". ".join((str(error) or type(error).__name__).split(". ")[:2])


def refuse_irregular(path: str | os.PathLike[str], what: str, *, follow: bool = True) -> None:
    """Refuse, before it is opened, what is there and is no file: a pipe waits for ever, a device never ends.

    Args:
        follow: look at what a link leads to; otherwise it is refused too.

    Raises:
        UserError: it is a directory, a pipe, a device, a socket or one of the kernel's, which may wait too. What is not there is not refused here.
    """
    try:
        status = os.stat(path, follow_symlinks=follow)
    except OSError:
        return
    mode = status.st_mode
    kinds = {
        stat.S_ISDIR: "a directory",
        stat.S_ISFIFO: "a pipe",
        stat.S_ISCHR: "a device",
        stat.S_ISBLK: "a device",
        stat.S_ISLNK: "a link",
    }
    if not stat.S_ISREG(mode):
        kind = next((name for is_kind, name in kinds.items() if is_kind(mode)), "a socket")
        raise UserError(f"{what}, but {os.fspath(path)} is {kind}; give a file")
    with contextlib.suppress(OSError):
        if status.st_dev == os.stat("/proc").st_dev and os.path.ismount("/proc"):
            raise UserError(f"{what}, but {os.fspath(path)} is made by the kernel as it is read; give a file")


def refuse_irregular_among(paths: Iterable[Path], what: str) -> None:
    """`refuse_irregular` for what lies in a directory that another library reads; directories in it pass."""
    for path in paths:
        if not path.is_dir():
            refuse_irregular(path, what)


def read_text(path: Path, what: str = "ropewalk reads files", *, errors: str = "strict") -> str:
    """A UTF-8 file that may be somebody else's; UserErrors are ValueErrors, as those of its encoding are.

    Raises:
        UserError: what `refuse_irregular` raises.
    """
    refuse_irregular(path, what)
    return path.read_text(encoding="utf-8", errors=errors)
