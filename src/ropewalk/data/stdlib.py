"""The standard library's own source as documents: real text that every Python machine has.

in   a split: "train", "validation" or "held_out"
out  the paths of its modules, in order of their names

The split is decided by a module's top-level name (`assets/hemp/held_out.json` lists those of validation and held-out, all
others are training), so it is the same on every Python from 3.11 on, although the files differ a little from version to
version. `hemp`'s pretraining read none of them (docs/decisions/002); the demo and hemp's own fine-tuning read the training modules. They, the tests and hemp's recipe take
the split from here.
"""

from __future__ import annotations

import functools
import json
import sysconfig
from importlib import resources
from pathlib import Path
from typing import Literal, get_args

from ropewalk.errors import UserError

Split = Literal["train", "validation", "held_out"]

#: Tests, tables, generated files, and packages that come and go between Python versions or copy other modules.
LEFT_OUT = frozenset(
    """__phello__ _sysconfigdata antigravity distutils encodings ensurepip idlelib lib2to3 lib-dynload msilib
    pydoc_data site-packages dist-packages stringprep this turtledemo""".split()
)
_TEST_FOLDERS = frozenset({"test", "tests", "idle_test"})


@functools.cache
def split_names() -> dict[Split, frozenset[str]]:
    """The top-level names of the validation and of the held-out modules."""
    text = resources.files("ropewalk").joinpath("assets/hemp/held_out.json").read_text(encoding="utf-8")
    return {split: frozenset(names) for split, names in json.loads(text).items()}


def split_of(relative: Path) -> Split | None:
    """The split of a module, from its path below the library's root; None if it belongs to no split."""
    top = relative.parts[0].removesuffix(".py")
    if top in LEFT_OUT or top.startswith(("_sysconfigdata", "config-")) or _TEST_FOLDERS & set(relative.parts[:-1]):
        return None
    for split, names in split_names().items():
        # `_pydatetime` or `_strptime` beside `datetime`: the pure-Python twin of a module belongs where the module does.
        if {top, top.removeprefix("_"), top.removeprefix("_py")} & names:
            return split
    return "train"


def standard_library(split: str, root: Path | None = None) -> list[Path]:
    """The modules of one split of the standard library's source.

    Args:
        split: "train", "validation" or "held_out".
        root: the library's folder; that of the running interpreter if None.

    Returns:
        Paths of non-empty `.py` files, sorted by their place in the library.

    Raises:
        UserError: there is no such split, or the folder holds no modules of it.
    """
    if split not in get_args(Split):
        raise UserError(f"a split is one of {', '.join(get_args(Split))}; got {split!r}")
    root = Path(root or sysconfig.get_path("stdlib"))
    modules: list[Path] = []
    for top in root.iterdir() if root.is_dir() else ():
        # Whole folders are left out before they are walked: site-packages may hold a hundred thousand files.
        if top.name not in LEFT_OUT | _TEST_FOLDERS:
            modules += top.rglob("*.py") if top.is_dir() else [top] * (top.suffix == ".py")
    of_split = (path for path in modules if split_of(path.relative_to(root)) == split)
    paths = sorted(path for path in of_split if path.stat().st_size > 0)
    if not paths:
        raise UserError(
            f"{root} holds no source of the standard library for the split {split!r}; "
            "use a Python that was installed with its .py files"
        )
    return paths
