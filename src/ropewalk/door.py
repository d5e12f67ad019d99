"""Modules that are also their main function: `ropewalk.extend(...)` beside `ropewalk.extend.extended_config(...)`.

The same names serve on the command line and in Python, and several of them are modules here (`extend`, `train`, `report`, …). A
module's class may be set (Python's language reference, "Customizing module attribute access"), so such a module can be called.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class Door(types.ModuleType):
    """A module that passes calls on to its function of the same name."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*arguments, **options)


def open_door(name: str) -> None:
    """Make the module `name` callable; written once, at the end of the module."""
    sys.modules[name].__class__ = Door
