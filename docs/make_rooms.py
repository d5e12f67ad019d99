"""Draw docs/figures/rooms.svg, the rooms of src/ropewalk floor by floor, from the contract and the code itself.

python docs/make_rooms.py

in   the layers in pyproject.toml, the first sentence of each package's docstring, the imports of its modules
out  an SVG; tests/docs/test_architecture.py holds it to the code
"""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "ropewalk"
PICTURE = ROOT / "docs" / "figures" / "rooms.svg"
WIDTH, MARGIN, GAP, LINE = 1080, 16, 10, 17


def floors() -> list[list[str]]:
    """The layers of the import contract, from the top: rooms of one floor may not import each other."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return [[room.strip() for room in layer.split("|")] for layer in layers if layer != "__main__"]


def modules_of(room: str) -> list[Path]:
    """The files of a room: a package's modules, or the one file it is."""
    return sorted((PACKAGE / room).rglob("*.py")) or [PACKAGE / f"{room}.py"]


def imports_of(room: str) -> set[str]:
    """What a room's modules import, lazily or not, as full names."""
    names: set[str] = set()
    for path in modules_of(room):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def purpose_of(room: str) -> str:
    """The first sentence of a room's docstring."""
    docstring = ast.get_docstring(ast.parse(modules_of(room)[0].read_text(encoding="utf-8"))) or ""
    first = " ".join(docstring.split("\n\n")[0].split())
    return re.split(r"(?<=[.])\s", first)[0].rstrip(".")


def lines_of(room: str, columns: int) -> list[tuple[str, str]]:
    """(style, text) of each line in a room's box."""
    imported = imports_of(room)
    lower = [other for floor in floors() for other in floor if other != room]
    uses = [other for other in lower if any(name.startswith(f"ropewalk.{other}") for name in imported)]
    wrapped = [("purpose", line) for line in textwrap.wrap(purpose_of(room), columns)]
    below = textwrap.wrap(f"imports {', '.join(uses)}" if uses else "imports no other room", columns)
    return [("name", room), *wrapped, *(("uses", line) for line in below)]


def box(room: str, left: float, top: float, width: float, height: float) -> str:
    """One room as SVG: filled where it computes with torch."""
    torch = any(name == "torch" or name.startswith("torch.") for name in imports_of(room))
    parts = [
        f'<rect x="{left:g}" y="{top:g}" width="{width:g}" height="{height:g}" rx="6" class="{"torch" if torch else "plain"}"/>'
    ]
    for number, (style, text) in enumerate(lines_of(room, int((width - 20) / 6.6)), start=1):
        parts.append(f'<text x="{left + 10:g}" y="{top + 4 + LINE * number:g}" class="{style}">{escape(text)}</text>')
    return "\n".join(parts)


def picture() -> str:
    """The whole SVG."""
    body, top = [], float(MARGIN)
    for floor in floors():
        width = (WIDTH - 2 * MARGIN - GAP * (len(floor) - 1)) / len(floor)
        height = LINE * max(len(lines_of(room, int((width - 20) / 6.6))) for room in floor) + 12
        body += [box(room, MARGIN + at * (width + GAP), top, width, height) for at, room in enumerate(floor)]
        top += height + GAP
    note = f'<text x="{MARGIN}" y="{top + 14:g}" class="uses">Imports go down only. Shaded rooms compute with torch; the others start without it.</text>'
    style = (
        "text{font-family:system-ui,sans-serif;font-size:13px;fill:#1d2733}.name{font-weight:700}.uses{fill:#5b6b7b}"
        "rect{stroke:#8fa3b8}.plain{fill:#fbfcfd}.torch{fill:#e6eef7}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top + 26:g}" role="img"><title>The rooms of ropewalk</title>'
    return "\n".join([head, f"<style>{style}</style>", *body, note, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
