"""What is said where there is too little memory: before anything heavy is imported, and where it ran out.

in   a command, its options, the error
out  a sentence that names options which this command has
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

from ropewalk.cli.commands import Command
from ropewalk.errors import UserError, addresses_are_limited, is_of_gpu, is_unmapped, shortage
from ropewalk.settings.budget import LEAST_ADDRESSES, LEAST_EVAL_ADDRESSES, LEAST_LIGHT_ADDRESSES, address_space_left

#: glibc's mallopt: how many heaps threads have.
_M_ARENA_MAX = -8
#: Dtypes that take no more than the one that is proposed.
_NARROW = ("bfloat16", "float16")
#: Options of commands that compute, by which they take less.
_SMALLER = {
    "window": "a smaller --window",
    "windows": "smaller --windows",
    "batch_tokens": "a smaller --batch-tokens",
    "batch_size": "a smaller --batch-size",
}


def spare_addresses() -> None:
    """Where addresses are limited (`ulimit -v`), have libraries set fewer aside; called before any of them is imported."""
    if not addresses_are_limited():
        return
    # Arrow's allocator takes 1 GiB of addresses as it begins, if there are as many: torch then lacks them.
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_ARENA_MAX, 1)  # else glibc sets addresses aside for a heap of each thread


def refuse_few_addresses(name: str, command: Command, options: Any) -> None:
    """Refuse a command under a limit (`ulimit -v`) within which its libraries do not come into memory.

    They end raw there, or never: OpenBLAS, as SciPy has it, asks for memory again and again and lets no signal through.
    """
    library, least = ("torch", LEAST_ADDRESSES) if command.opens(options) else ("numpy", LEAST_LIGHT_ADDRESSES)
    least = LEAST_EVAL_ADDRESSES if "eval" in command.needs else least
    if library not in sys.modules and (left := address_space_left()) < least:
        raise UserError(
            f"ropewalk {name} needs {least // 2**20} MiB of addresses to begin, and ulimit -v leaves {left // 2**20:.0f}; "
            "raise that (ulimit -v unlimited)"
        )


def out_of_memory(error: Exception, options: Any = None) -> str:
    """The sentence for an error of memory. options: of the command in which it was raised; None before they are read."""
    on_gpu = is_of_gpu(error)
    limited = not on_gpu and addresses_are_limited()
    # A library that does not come into memory takes as much whatever is asked for.
    ways = _ways(options, on_gpu=on_gpu) if hasattr(options, "device") and not is_unmapped(error) else []
    ways = ways or ["a smaller model"] * (not limited)
    out = [f"what takes less: {', or '.join(ways)}"] * bool(ways) + ["raise the limit (ulimit -v)"] * limited
    return f"what is asked for takes more memory than there is ({shortage(error)}); {'; or '.join(out)}"


def _ways(options: Any, *, on_gpu: bool) -> list[str]:
    """Options by which a command that computes takes less."""
    if hasattr(options, "micro_batch"):  # training, outside of its steps, which have a sentence of their own
        several = 1 not in (options.micro_batch, options.batch_size)
        ways = ["--micro-batch 1"] * several + ["--mode lora"] * (options.mode == "full")
    else:
        ways = [way for option, way in _SMALLER.items() if hasattr(options, option)]
    wide = hasattr(options, "dtype") and options.dtype not in (_NARROW + ("auto", None) * on_gpu)
    return ways + ["--dtype bfloat16"] * wide + ["--device cpu"] * on_gpu
