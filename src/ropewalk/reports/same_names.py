"""Texts of one name that are not the same: from here on each has a letter, so that nothing joins or compares them by name.

in   headers and measurements as they were read
out  the same; where one name stands for several texts, in headers of `ablate` and in rows `data/b.jsonl[A]` and `data/b.jsonl[B]`
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from ropewalk.records import Measurement, Row, Run

#: The settings of a row of `ablate` that name texts.
_NAMED = ("test", "data", "also", "validation")


@dataclass(frozen=True)
class Text:
    """By what a text is known: digests of its files, hashes of what was read of it as a whole, and of each document; empty where that is not on record."""

    digests: frozenset[str] = frozenset()
    readings: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()

    @property
    def is_known(self) -> bool:
        return bool(self.digests or self.readings or self.documents)

    def is_same(self, other: Text) -> bool:
        """The same documents were read, or the files are the same; where the files of one are not on record, some documents are the same."""
        if self.readings & other.readings or self.digests & other.digests:
            return True
        return not (self.digests and other.digests) and bool(self.documents & other.documents)

    def __or__(self, other: Text) -> Text:
        return Text(self.digests | other.digests, self.readings | other.readings, self.documents | other.documents)


def apart(
    runs: dict[str, Run], measurements: list[Measurement[Row]]
) -> tuple[dict[str, Run], list[Measurement[Row]], dict[str, list[Text]]]:
    """Headers, measurements, and the names that stand for several texts, with these, the oldest first."""
    texts: dict[str, list[Text]] = {}
    for run in sorted(runs.values(), key=lambda run: run.started):
        for _, name, text in _of_header(run):
            _join(texts.setdefault(name, []), text)
    for m in sorted(measurements, key=lambda m: m.run.started):
        if (name := getattr(m.row, "data", "")) and (text := _of_row(m)).is_known:
            _join(texts.setdefault(name, []), text)
    several = {name: each for name, each in texts.items() if len(each) > 1}
    return (
        {key: _header(run, several) for key, run in runs.items()},
        [dataclasses.replace(m, row=_row(m, several)) for m in measurements] if several else measurements,
        several,
    )


def lettered(name: str, place: int) -> str:
    """A name with its letter, behind the first of several sources."""
    first, space, others = name.partition(" ")
    return f"{first}[{ascii_uppercase[place] if place < len(ascii_uppercase) else place}]{space}{others}"


def _of_header(run: Run) -> Iterator[tuple[str, str, Text]]:
    """(setting, name, text) of the header of a row of `ablate`, where a digest is on record."""
    row = run.settings.get("row")
    row = row if isinstance(row, dict) else {}
    digests = row.get("digests")
    digests = digests if isinstance(digests, dict) else {}
    for setting in _NAMED:
        if isinstance(row.get(setting), str) and digests.get(setting):
            yield setting, row[setting], Text(digests=frozenset({str(digests[setting])}))


def _of_row(m: Measurement[Row]) -> Text:
    """What a row read."""
    digests = [text.digests for _, name, text in _of_header(m.run) if name == getattr(m.row, "data", "")]
    each = [document.get("text", "") for document in getattr(m.row, "per_document", [])]
    listed = m.run.settings.get("texts")  # of a measurement of attention
    documents = each or (listed if isinstance(listed, list) else [])
    whole = getattr(m.row, "texts", "")
    return Text(frozenset().union(*digests), frozenset({whole} - {""}), frozenset(map(str, documents)) - {""})


def _join(texts: list[Text], text: Text) -> None:
    """Add a text to those of its name: to the one that it is, or as another. Two become one where it shows that they are: a digest of the one, the documents of the other."""
    known: list[Text] = []
    for other in texts:
        if other.is_same(text):
            text |= other
        else:
            known.append(other)
    place = next((i for i, other in enumerate(texts) if other not in known), len(known))
    texts[:] = [*known[:place], text, *known[place:]]


def _called(name: str, text: Text, several: dict[str, list[Text]]) -> str:
    """Its name, with a letter where it needs one; what cannot be told stays without, and so apart from all of them."""
    places = [place for place, other in enumerate(several.get(name, [])) if other.is_same(text)]
    return lettered(name, places[0]) if places else name


def _header(run: Run, several: dict[str, list[Text]]) -> Run:
    """A header whose names tell texts apart, so that their digests are no longer needed: a run of which none is on record is no other for that."""
    names = {setting: _called(name, text, several) for setting, name, text in _of_header(run)}
    if not names:
        return run
    row = run.settings["row"]
    digests = {name: digest for name, digest in row["digests"].items() if name not in names}
    return dataclasses.replace(run, settings={**run.settings, "row": {**row, **names, "digests": digests}})


def _row(m: Measurement[Row], several: dict[str, list[Text]]) -> Any:
    name = getattr(m.row, "data", "")
    renamed: dict[str, Any] = {"data": _called(name, _of_row(m), several)}
    return dataclasses.replace(m.row, **renamed) if name in several else m.row
