"""The table of readers.md with the rows of some families written anew, for a run of those alone.

in   the page as it stands, a page of a run of some families
out  the page with their rows in place of the old ones, footnotes numbered again
"""

from __future__ import annotations

import re
from collections.abc import Collection

_NOTE = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)
_MARK = re.compile(r"\b(refused|does not load) \((\d+)\)")


def with_rows_of(page: str, part: str, families: Collection[str]) -> str:
    """The page, its models' rows of these families taken from the other one; what training wrote is no family's row."""
    fresh = {family: [row for row in _rows(part) if _is_of(row, family)] for family in families}
    rows: list[str] = []
    for row in _rows(page):
        family = next((each for each in families if _is_of(row, each)), None)
        rows += [row] if family is None else fresh.pop(family, [])
    rows += [row for left in fresh.values() for row in left]
    notes = list(dict.fromkeys(found[1] for row in rows for found in re.finditer("\x00(.*?)\x00", row)))
    numbered = [re.sub("\x00(.*?)\x00", lambda found: str(notes.index(found[1]) + 1), row) for row in rows]
    head, _, rest = page.partition(_table(page))
    listed = "\n".join(f"{number}. {sentence}" for number, sentence in enumerate(notes, start=1))
    return head + "\n".join(numbered) + "\n\n" + listed + "\n" + re.sub(r"^\n\n(?:\d+\. .*\n)*", "", rest, count=1)


def _table(page: str) -> str:
    """The rows of the models, as they stand."""
    body = page[page.index("| family | method |") :]
    start = body.index("\n", body.index("\n") + 1) + 1
    return body[start : body.index("\n\n", start)]


def _rows(page: str) -> list[str]:
    """Each row, its footnotes' sentences in the place of their numbers."""
    notes = dict(_NOTE.findall(page))
    table = _table(page)
    return [_MARK.sub(lambda found: f"{found[1]} (\x00{notes[found[2]]}\x00)", row) for row in table.splitlines()]


def _is_of(row: str, family: str) -> bool:
    return row.startswith(f"| {family} | ") and ", trained" not in row and ", the adapter" not in row
