"""Pages of made-up rows of `ablate`, and what their tables say."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import made_up
from ropewalk import records
from ropewalk.reports import render
from ropewalk.reports.comparable import groups
from ropewalk.reports.contests import contest
from ropewalk.reports.methods import Contest
from ropewalk.reports.rows import clean


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


def keys(share: float, depths: int = 32, trials: int = 10) -> list[records.Passkey]:
    """A passkey test at 1024 tokens of which this share is right, the nearest keys."""
    reach = round(share * depths)
    return [records.Passkey(1024, 32 * (d + 1), trials, trials if d < reach else 0) for d in range(depths)]


def passkeys(share: float) -> list:
    return [*keys(share), records.PasskeySummary(1024, round(32 * share) * 32, 32, 10, share)]


def with_keys(state, share: float):
    return (*state[:2], [*state[2], *passkeys(share)])


def contest_of(path: Path) -> Contest:
    page = clean(records.read([path]))
    (group,) = groups(page)
    compared = contest(page, group.lineage)
    assert compared is not None
    return compared
