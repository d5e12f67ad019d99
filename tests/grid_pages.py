"""Pages of made-up rows of `ablate`, and what their tables say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import made_up
from ropewalk import records
from ropewalk.reports import render


def trained(method: str, name: str, nll: float, windows: tuple[int, ...] = (256, 1024), **differs):
    """(model, header's settings, rows) of a row of `ablate`, as `made_up.record_rows` has no settings."""
    row = {"name": f"hemp/{name}", "method": method, "tokens": 2**20, "learning_rate": 1e-4, "seed": 0, "data": "books"}
    state = made_up.extended(4, 20, method if method not in ("cope", "p-rope") else "yarn", name=f"hemp/{name}")
    return state, {"row": row | differs}, [made_up.row(nll, window) for window in windows]


def recorded(path: Path, *states) -> records.Records:
    """The rows of the base and of these, on record in `path`."""
    base = (dataclasses.replace(made_up.BASE, name="hemp/none"), {"row": {"name": "hemp/none", "method": "none"}})
    for state, settings, rows in ((*base, [made_up.row(2.0)]), *states):
        recorder = records.Recorder(path, made_up.run(state, f"ropewalk ablate {state.name}", settings=settings))
        for row in rows:
            recorder.add(row)
    return records.read([path])


def page_of(path: Path, *states) -> str:
    return render(recorded(path, *states))


def table(page: str, caption: str) -> dict[str, list[str]]:
    """Label → the text of its cells, of the first table whose caption begins so."""
    body = re.search(rf"<caption>{caption}.*?</table>", page, re.DOTALL)
    lines = re.findall(r'<th scope="row">(.*?)</th>(.*?)</tr>', body[0], re.DOTALL)
    return {
        made_up.words(label).strip(): [made_up.words(c).strip() for c in cells.split("</td>")] for label, cells in lines
    }
