"""What import-linter cannot say of parts of other packages: torch.distributed and print stay in their rooms."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCES = Path(__file__).resolve().parents[2] / "src/ropewalk"
#: Beside the room of processes: collectives inside attention; shards of adapters and of the training state, which torch cuts.
DISTRIBUTED = {"attention_ops/collectives.py", "training/lora.py", "training/training_state.py"}


def _imported(path: Path) -> Iterator[str]:
    """Every module that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _files() -> list[Path]:
    return sorted(SOURCES.rglob("*.py"))


def test_torch_distributed_is_imported_in_its_rooms_alone() -> None:
    found = {
        str(path.relative_to(SOURCES))
        for path in _files()
        if any(name.startswith("torch.distributed") for name in _imported(path))
    }
    assert found - {name for name in found if name.startswith("distributed/")} <= DISTRIBUTED


@pytest.mark.parametrize("name", ["rich", "tqdm"])
def test_nothing_but_the_command_line_draws(name: str) -> None:
    found = {
        path.relative_to(SOURCES).parts[0] for path in _files() if name in {n.split(".")[0] for n in _imported(path)}
    }
    assert found <= {"cli"}
