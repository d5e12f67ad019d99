"""The public names: the command line's, callable from Python, and cheap to import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk


@pytest.mark.parametrize("name", [name for name in ropewalk.__all__ if name != "__version__"])
def test_every_public_name_can_be_called(name: str) -> None:
    assert callable(getattr(ropewalk, name))


def test_no_room_has_the_name_of_a_public_function() -> None:
    """Importing a package sets it as an attribute of ropewalk, where it would stand in the function's place."""
    rooms = {path.stem for path in Path(ropewalk.__file__).parent.iterdir()}
    assert rooms.isdisjoint(ropewalk.__all__)


def test_a_type_checker_sees_every_public_name() -> None:
    """The names for type checkers are written out beside the table that looks them up."""
    tree = ast.parse(Path(ropewalk.__file__).read_text(encoding="utf-8"))
    seen = {
        (alias.asname, node.module)
        for block in tree.body
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(ropewalk._HOMES.items())


def test_importing_ropewalk_imports_nothing_heavy() -> None:
    code = "import sys, ropewalk; sys.exit(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stretch'"):
        ropewalk.stretch  # noqa: B018
