"""A directory that ropewalk made, with what a run writes there; and what lies in one."""

from __future__ import annotations

from pathlib import Path

from ropewalk.checkpoint.files import whole_directory

HOLDS, SIGNS = ("records.jsonl", "checkpoints/step-*"), ("records.jsonl",)


def made(out: Path, **files: str) -> Path:
    """A directory that ropewalk made."""
    with whole_directory(out) as beside:
        for name, text in (files or {"config": "{}"}).items():
            (beside / name).write_text(text)
    return out


def tree(directory: Path) -> dict[str, str]:
    return {str(path.relative_to(directory)): path.read_text() for path in directory.rglob("*") if path.is_file()}
