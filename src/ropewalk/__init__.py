"""ropewalk: give a RoPE language model a longer context window.

    import ropewalk

    ropewalk.extend("hemp", window=1024, out="longer")
    ropewalk.train("longer", data=["books/"], window=1024, steps=200, out="trained")
    rows = ropewalk.perplexity("trained", data=["books/test.txt"], windows=[256, 1024])

The names are the command line's. Each is imported when it is first used, so that `import ropewalk` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

#: Where each public name lives. Those that are modules themselves can be called (door.py).
_HOMES = {
    "benchmarks": "ropewalk.evals.downstream.benchmarks",
    "attention": "ropewalk.evals.attention",
    "passkey": "ropewalk.evals.retrieval.passkey",
    "perplexity": "ropewalk.evals.perplexity",
    "retrieval": "ropewalk.evals.retrieval",
    "summarize": "ropewalk.evals.downstream.summary",
    "load": "ropewalk.model",
    "UserError": "ropewalk.errors",
}
_MODULES = ("extend", "train", "report", "evaluate", "plan", "demo")
__all__ = ["__version__", *_HOMES, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"ropewalk.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'ropewalk' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
