"""A chat template is a program that came with a tokenizer: it is run in a process of its own, which may not run for ever nor fill the memory.

in   a tokenizer, a conversation
out  the prompt as text; or the sentence why there is none
"""

from __future__ import annotations

import os
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

from ropewalk.errors import UserError, reason

#: Far more than any template needs, and than a model reads: seconds, bytes of memory, bytes of text.
_SECONDS, _MEMORY, _LONGEST = 10.0, 1 << 30, 1 << 26
_TEXT, _FAULT = b"t", b"f"


def prompt_of(tokenizer: Any, messages: list[dict[str, str]]) -> str:
    """What the template makes of a conversation.

    Raises:
        UserError: the template raises, does not end, takes too much memory, or makes no text.
    """

    def render() -> str:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)

    kind, text = _apart(render) if hasattr(os, "fork") else _rendered(render)
    if kind != _TEXT:
        why = (
            text.decode() or f"it takes more than {_SECONDS:.0f} s, {_MEMORY >> 30} GiB or {_LONGEST >> 20} MiB of text"
        )
        raise UserError(
            f"the tokenizer's chat template cannot be used ({why}); mend it, or give the question as it should stand to `ropewalk generate`"
        )
    return text.decode("utf-8", "surrogatepass")


def _rendered(render: Callable[[], str]) -> tuple[bytes, bytes]:
    try:
        return _TEXT, render().encode("utf-8", "surrogatepass")
    except MemoryError:
        return _FAULT, b""
    except Exception as error:  # noqa: BLE001 - a program of somebody's, which may raise anything
        return _FAULT, reason(error).encode("utf-8", "backslashreplace")


def _apart(render: Callable[[], str]) -> tuple[bytes, bytes]:
    """`_rendered` in a process forked from this one, which has the tokenizer and ends with its answer, or is ended."""
    answer, written = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: the child runs jinja alone
        child = os.fork()
    if not child:
        try:
            os.close(answer)
            _limit_memory()
            with os.fdopen(written, "wb") as pipe:
                for part in _rendered(render):
                    pipe.write(part)
        finally:
            os._exit(0)
    os.close(written)
    try:
        said = _read(answer, time.monotonic() + _SECONDS)
    finally:
        os.close(answer)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return said[:1], said[1:]


def _read(pipe: int, until: float) -> bytes:
    """All of it; empty if it does not end in time, or is too long."""
    said = bytearray()
    while len(said) <= _LONGEST and select.select([pipe], [], [], max(0.0, until - time.monotonic()))[0]:
        if not (piece := os.read(pipe, 1 << 20)):
            return bytes(said)
        said += piece
    return b""


def _limit_memory() -> None:
    import resource
    from pathlib import Path

    try:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:  # no Linux: its time is limited alone
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + _MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
