"""The public names: the command line's, callable from Python, and cheap to import."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
from ropewalk import testing


@pytest.mark.parametrize("name", [name for name in ropewalk.__all__ if name != "__version__"])
def test_every_public_name_can_be_called(name: str) -> None:
    assert callable(getattr(ropewalk, name))


def test_a_name_stays_callable_after_its_module_was_imported(tmp_path: Path) -> None:
    import ropewalk.extend
    import ropewalk.train

    testing.tiny_directory(tmp_path / "a", window=64)
    assert ropewalk.extend(tmp_path / "a", window=256, out=tmp_path / "b").factor == 4.0
    assert ropewalk.extend.extended_config and ropewalk.train.TrainSettings


def test_importing_ropewalk_imports_nothing_heavy() -> None:
    code = "import sys, ropewalk; sys.exit(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)) or 0)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'stretch'"):
        ropewalk.stretch  # noqa: B018
