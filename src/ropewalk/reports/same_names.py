"""Texts and their names: one text that has several names gets one of them, and texts of one name that are not the same have a letter each, so that nothing
joins, compares or sets apart by name what is not so by content.

in   headers and measurements as they were read
out  the same; in headers of `ablate` and `train` and in rows, a text that was called `train` and `x/train` is `train`, the shortest of its names, and where
     one name stands for several texts they are `data/b.jsonl[A]` and `data/b.jsonl[B]`
"""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from string import ascii_uppercase
from typing import Any

from ropewalk.records import Measurement, Row, Run
from ropewalk.records.recipe import ablated, is_training
from ropewalk.records.sources import read_names, with_letter, write_names

#: The settings of a row of `ablate`, or of a training, that name texts.
_NAMED = ("test", "data", "also", "validation")


@dataclass(frozen=True)
class Text:
    """By what a text is known: digests of its files, hashes of what was read of it as a whole, and of each document; empty where that is not on record.
    names: what it is called, the oldest first. letter: behind the name, where others have the same.
    """

    digests: frozenset[str] = frozenset()
    readings: frozenset[str] = frozenset()
    documents: frozenset[str] = frozenset()
    names: tuple[str, ...] = ()
    letter: str = ""

    @property
    def called(self) -> str:
        """Its name with its letter, behind the first of several sources."""
        return with_letter(self.name, self.letter)

    @property
    def name(self) -> str:
        """The shortest of its names, of several the oldest."""
        return min(self.names, key=len)

    @property
    def is_known(self) -> bool:
        return bool(self.digests or self.readings or self.documents)

    def is_same(self, other: Text) -> bool:
        """Of two texts of one name: the same documents were read, or the files are the same; where the files of one are not on record, some documents are the same."""
        if self.readings & other.readings or self.digests & other.digests:
            return True
        return not (self.digests and other.digests) and bool(self.documents & other.documents)

    def contradicts(self, other: Text) -> bool:
        """Of two texts of one name: both are known in the same way, and are not the same. A digest and documents alone say nothing of each other."""
        kinds = (self.digests, other.digests), (self.readings, other.readings), (self.documents, other.documents)
        return not self.is_same(other) and any(mine and theirs for mine, theirs in kinds)

    def is_copy(self, other: Text) -> bool:
        """Of two texts of different names: the files are the same, or all that was read of them is; a directory and one document of it are two texts."""
        return bool(self.digests & other.digests or (self.readings and self.readings == other.readings))

    def __or__(self, other: Text) -> Text:
        names = tuple(dict.fromkeys((*self.names, *other.names)))
        return Text(
            self.digests | other.digests, self.readings | other.readings, self.documents | other.documents, names
        )


def apart(
    runs: dict[str, Run], measurements: list[Measurement[Row]]
) -> tuple[dict[str, Run], list[Measurement[Row]], dict[str, list[Text]]]:
    """Headers, measurements, and the names that stand for several texts, with these, the oldest first."""
    by_name: dict[str, list[Text]] = {}
    for run in sorted(runs.values(), key=lambda run: run.started):
        for _, name, text in _of_header(run):
            if text.is_known:
                _join(by_name.setdefault(name, []), text)
    for m in sorted(measurements, key=lambda m: m.run.started):
        if (name := getattr(m.row, "data", "")) and (text := _of_row(m)).is_known:
            _join(by_name.setdefault(name, []), text)
    by_name = _with_letters(_of_any_name(itertools.chain.from_iterable(by_name.values())))
    texts = [text for each in by_name.values() for text in each]
    return (
        {key: _header(run, texts) for key, run in runs.items()},
        [replace(m, row=_row(m, texts)) for m in measurements],
        {name: each for name, each in by_name.items() if len(each) > 1},
    )


def _of_any_name(texts: Iterable[Text]) -> list[Text]:
    """Each text once, with all its names; where the first of them stood."""
    groups: list[list[Text]] = []
    for text in texts:
        copies = [group for group in groups if any(map(text.is_copy, group))]
        joined = [*itertools.chain.from_iterable(copies), text]
        place = groups.index(copies[0]) if copies else len(groups)
        groups[place : place + 1] = [joined]
        groups = [group for group in groups if group not in copies[1:]]
    return [functools.reduce(operator.or_, group) for group in groups]


def _with_letters(texts: Iterable[Text]) -> dict[str, list[Text]]:
    """Texts by name; those of one name that contradict each other have a letter each, in their order."""
    by_name: dict[str, list[Text]] = {}
    for text in texts:
        by_name.setdefault(text.name, []).append(text)
    for several in by_name.values():
        different = [text for text in several if any(map(text.contradicts, several))]
        several[:] = different or [functools.reduce(operator.or_, several)]
    for several in (each for each in by_name.values() if len(each) > 1):
        letters = [*ascii_uppercase, *map(str, range(len(ascii_uppercase), len(several)))]
        several[:] = [replace(text, letter=f"[{letter}]") for text, letter in zip(several, letters, strict=False)]
    return by_name


def _of_header(run: Run) -> Iterator[tuple[str, str, Text]]:
    """(setting, name, text) of each setting of a row of `ablate`, or of a training, that names texts; of what has no digest on record nothing is known."""
    row = _settings(run)
    digests = row.get("digests")
    digests = digests if isinstance(digests, dict) else {}
    for setting in _NAMED:
        words = _words(row.get(setting))
        if name := write_names(words, len(words)) if isinstance(row.get(setting), list) else "".join(words):
            text = frozenset({str(digests[setting])} if digests.get(setting) else ())
            yield setting, name, Text(digests=text, names=(name,))


def _settings(run: Run) -> dict[str, Any]:
    """What was asked for: the row of `ablate`, or the settings of a training."""
    return ablated(run) or (run.settings if is_training(run) else {})


def _words(value: Any) -> list[str]:
    """What a setting names: in a row of `ablate` a text, in a training the list of its sources, each here with the folder that it is in."""
    if isinstance(value, list):
        return ["/".join(str(word).rstrip("/").split("/")[-2:]) for word in value]
    return [value] if isinstance(value, str) else []


def _of_row(m: Measurement[Row]) -> Text:
    """What a row read, by its name."""
    called = getattr(m.row, "data", "")
    digests = [text.digests for _, name, text in _of_header(m.run) if name == called]
    each = [document.get("text", "") for document in getattr(m.row, "per_document", [])]
    listed = m.run.settings.get("texts")  # of a measurement of attention
    hashes = each or (listed if isinstance(listed, list) else [])
    whole = getattr(m.row, "texts", "")
    documents = frozenset(map(str, hashes)) - {""}
    return Text(frozenset().union(*digests), frozenset({whole} - {""}), documents, (called,))


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


def _called(name: str, text: Text, texts: list[Text]) -> str:
    """What a text is called from here on; one of several of its name that cannot be told stays without a letter, and so apart from all of them."""
    named = [each for each in texts if name in each.names]
    known = named if len(named) == 1 else [each for each in named if each.is_same(text)]
    return known[0].called if known else name


def _header(run: Run, texts: list[Text]) -> Run:
    """A header whose names tell texts apart, so that their digests are no longer needed: a run of which none is on record is no other for that."""
    row, known = _settings(run), {name for text in texts for name in text.names}
    names = dict[str, Any]()
    for setting, name, text in _of_header(run):
        if name in known:
            called = _called(name, text, texts)
            words = _words(row[setting]) if called == name else read_names(called).names
            names[setting] = words if isinstance(row[setting], list) else called
    if not names:
        return run
    digests = {name: digest for name, digest in (row.get("digests") or {}).items() if name not in names}
    changed = {**row, **names, "digests": digests}
    return replace(run, settings={**run.settings, "row": changed} if ablated(run) else changed)


def _row(m: Measurement[Row], texts: list[Text]) -> Any:
    if not (name := getattr(m.row, "data", "")):
        return m.row
    row: Any = m.row
    return replace(row, data=_called(name, _of_row(m), texts))
