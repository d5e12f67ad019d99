"""Code that comes with a checkpoint: which files it is, and which configs name it.

in   a checkpoint's directory, or the dictionary of a config
out  names for a sentence; a config that names no code

It is run, and carried into what is made of the checkpoint, with `--trust-remote-code` alone: what nobody trusted here, nobody should
find in a directory that looks like ropewalk's own.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.links import files_below
from ropewalk.errors import STRANGE_DATA, read_text

#: The key by which transformers finds a class in a file that lies with the model.
AUTO_MAP = "auto_map"


def without_code(config_dict: dict[str, Any]) -> dict[str, Any]:
    """A config that names no code of its own; transformers then takes its own class of that family."""
    return {key: value for key, value in config_dict.items() if key != AUTO_MAP}


def names_code(path: Path) -> bool:
    """Whether a JSON file names code of its own."""
    try:
        content = json.loads(read_text(path))
    except (OSError, *STRANGE_DATA):
        return False
    return isinstance(content, dict) and bool(content.get(AUTO_MAP))


def code_files(directory: Path) -> list[str]:
    """A checkpoint's files of code, below it too: transformers runs custom_generate/generate.py of a model that it is told to trust."""
    return [path.relative_to(directory).as_posix() for path in files_below(directory) if path.suffix == ".py"]


def carried_code(directory: Path) -> list[str]:
    """Those that belong to the checkpoint itself, and not to another one below it, as a run's directory has."""
    return [
        name
        for name in code_files(directory)
        if not any((directory / above / "config.json").is_file() for above in list(Path(name).parents)[:-1])
    ]


def configs_with_code(directory: Path) -> list[str]:
    """The names of the configs that name a class in such a file, or in another repository."""
    return sorted(path.name for path in directory.glob("*config.json") if path.is_file() and names_code(path))


def own_code(directory: Path, files: Callable[[Path], list[str]] = code_files) -> list[str]:
    """All that a checkpoint brings of code, as sentences list it. files: which of its files."""
    return [*files(directory), *(f"{AUTO_MAP} of {name}" for name in configs_with_code(directory))]
