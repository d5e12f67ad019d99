"""Directories that `doctor` looks at, and the numbers of what it finds wrong."""

from __future__ import annotations

import json
from pathlib import Path


def write(directory: Path, config: object, **others: object) -> Path:
    """A directory with a config.json and other JSON files, by their names."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in {"config": config, **others}.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def wrong(diagnosis) -> set[int]:
    return {finding.number for finding in diagnosis.wrong}
