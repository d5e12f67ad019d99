"""What a verdict and a section of the page are made of; the template knows these shapes and nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import compress, zip_longest
from typing import Any, TypeVar

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from ropewalk.evals.intervals import over_seeds
from ropewalk.figures import style
from ropewalk.records import format as number_format

#: Pixels of the style sheet: the least width of a table's first column, and one of two columns of a page 70rem wide.
_LABEL, _HALF_A_PAGE = 136, 505
#: What stands small in a line of several seeds.
_OF_SEEDS = "In a line of several seeds: their mean, its interval for other documents or prompts and other seeds, and the least and the largest seed."


@dataclass(frozen=True)
class Cell:
    """A figure with what stands small beneath it, line by line: its interval, how far it is from the base.

    `value` is the number itself and `low`, `high` its interval, as files of tables have them; `write` makes its text. `least`
    and `largest` are of the seeds of a mean. `seeds` is how many a mean is of. `within` is what such a figure can be at all, `over_seeds` how several seeds' become one; `averaged` is False of one whose mean over seeds says nothing, `of_seed`
    of one that has no seed, such as a model before its training, which is measured once. `unit` is of `value`, where the text has one of its own.
    """

    text: str
    small: str = ""
    tone: str = ""  # "good", "bad" or nothing
    strong: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    write: Callable[[Any], str] = str
    least: float | None = None
    largest: float | None = None
    seeds: int | None = None
    within: tuple[float, float] = (-np.inf, np.inf)
    over_seeds: Callable[[Sequence[Sequence[Any]]], tuple[float, float, float]] = over_seeds
    averaged: bool = True
    of_seed: bool = True
    unit: str = ""

    @classmethod
    def of(
        cls,
        value: Any,
        write: Callable[[Any], str],
        low: Any = None,
        high: Any = None,
        *,
        beside: str = "",
        **looks: Any,
    ) -> Cell:
        """A number, its interval and what else stands small beneath it."""
        small = "\n".join(part for part in (number_format.interval(low, high, write), beside) if part)
        return cls(write(value), small, value=value, low=low, high=high, write=write, **looks)


@dataclass(frozen=True)
class Line:
    """A table row. `paper` rows are the paper's own figures and are set apart; `colour` is the variant's in the figures."""

    label: str
    cells: Sequence[Cell]
    note: str = ""
    paper: bool = False
    colour: str = ""


@dataclass(frozen=True)
class Table:
    """A caption, a head (first column's name, then the others') and lines.

    `beside` and `beside_note` are what caption and note say of the paper's rows, where there are any.
    """

    caption: str
    head: Sequence[str]
    lines: Sequence[Line]
    note: str = ""
    first: str = ""
    under: bool = False  # belongs under the table before it, wherever that one stands
    beside: str = ""
    beside_note: str = ""

    @property
    def title(self) -> str:
        """The caption in full."""
        return self.caption + (self.beside if self._has_paper else "")

    @property
    def _has_paper(self) -> bool:
        return any(line.paper for line in self.lines)

    @property
    def notes(self) -> str:
        """The note in full."""
        several = any(cell.least is not None for line in self.lines for cell in line.cells)
        of_seeds = _OF_SEEDS if several and "interval" in self.note else ""
        return " ".join(filter(None, [self.note, of_seeds, self.beside_note if self._has_paper else ""]))

    @property
    def alone(self) -> Table:
        """One's own rows, and no word of the paper's."""
        return replace(self, lines=[line for line in self.lines if not line.paper])

    @property
    def filled(self) -> Table:
        """Without the columns in which nothing stands."""
        full = [any(line.cells[column].text for line in self.lines) for column in range(len(self.head))]
        lines = [replace(line, cells=list(compress(line.cells, full))) for line in self.lines]
        return replace(self, head=list(compress(self.head, full)), lines=lines)

    @property
    def is_wide(self) -> bool:
        """Whether it needs more than half a desktop page: an estimate in pixels from the widest text of each column.

        Labels of lines wrap, down to the width that the style sheet leaves them (8.5rem); figures do not.
        """
        heads = [name.partition("\n") for name in self.head]
        rows = [[Cell(name, small) for name, _, small in heads], *(line.cells for line in self.lines)]
        columns = zip_longest(*rows, fillvalue=Cell(""))
        figures = sum(
            max(max(7.8 * len(c.text), *(6.3 * len(part) for part in c.small.split("\n"))) for c in column) + 18
            for column in columns
        )
        return _LABEL + figures > _HALF_A_PAGE


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, with the sentence that says what to see in it. under: it goes with the one before."""

    svg: Markup
    drawing: Drawing
    caption: str
    title: str = ""
    under: bool = False


_Part = TypeVar("_Part", Table, Picture)


@dataclass
class Section:
    """One subject: a lead, figures and tables. `kinds` are the row kinds it shows."""

    id: str
    title: str
    lead: str = ""
    pictures: list[Picture] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def alone(self) -> Section:
        """Without the paper's rows."""
        return replace(self, tables=[table.alone for table in self.tables if table.alone.lines])

    @property
    def is_beside(self) -> bool:
        """Whether its words stand beside the one figure over wide tables, or beside its only table, which is narrow."""
        widths = [any(table.is_wide for table in stack) for stack in self.stacks]
        return all(widths) if len(self.pictures) == 1 else not self.pictures and widths == [False]

    @property
    def stacks(self) -> list[list[Table]]:
        """Tables that must stay together."""
        return _stacked(self.tables)

    @property
    def groups(self) -> list[list[Picture]]:
        """Figures that must stay together."""
        return _stacked(self.pictures)

    def draw(self, drawing: Drawing, caption: str, title: str = "", *, under: bool = False) -> None:
        """Add a figure. Its SVG is ours, drawn by matplotlib, which escapes what it writes; hence Markup."""
        name = f"{self.id}-{len(self.pictures) + 1}"
        svg = style.svg(drawing, name, f"{self.title}: {title}" if title else self.title, caption)
        self.pictures.append(Picture(Markup(svg), drawing, caption, title, under))


def _stacked(parts: Iterable[_Part]) -> list[list[_Part]]:
    """Each with those that go under it."""
    stacks: list[list[_Part]] = []
    for part in parts:
        if part.under and stacks:
            stacks[-1].append(part)
        else:
            stacks.append([part])
    return stacks


def cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def seeds_together(lines: Iterable[Line]) -> list[Line]:
    """Lines that differ in their seed alone (`records.variant.labels` calls them the same) as one: their mean.

    A figure that only some of them have does not set them apart; words do, such as the window that a line is of.
    """
    rows: dict[tuple, list[Line]] = {}
    for line in lines:
        texts = tuple((i, cell.text) for i, cell in enumerate(line.cells) if cell.value is None and cell.text)
        rows.setdefault((line.label, line.note, texts), []).append(line)
    return [_together(seeds) if len(seeds) > 1 else seeds[0] for seeds in rows.values()]


def _together(seeds: list[Line]) -> Line:
    columns = zip(*(line.cells for line in seeds), strict=True)
    note = f"{seeds[0].note} mean".strip()  # how many stands in the label
    return replace(seeds[0], cells=[_mean(cells) for cells in columns], note=note)


def _mean(cells: Sequence[Cell]) -> Cell:
    measured = [cell for cell in cells if cell.text]
    values = [cell.value for cell in measured if number_format.is_finite(cell.value)]
    if len(values) < len(measured) or not values:  # words, or a figure that is no number: all that was said
        return replace(cells[0], text=", ".join(dict.fromkeys(cell.text for cell in cells)), small="")
    like = measured[0]
    if not like.of_seed:
        return like
    if not like.averaged:
        return Cell("")
    bounds = [[np.nan if end is None else end for end in (cell.low, cell.high)] for cell in measured]
    mean, *ends = like.over_seeds([(value, *of_seed) for value, of_seed in zip(values, bounds, strict=True)])
    low, high = np.clip(ends, *like.within).tolist()
    least, largest = (like.write(end(values)) for end in (min, max))
    beside = [f"seeds {least} to {largest}"] if least != largest else []
    beside += [f"{len(values)} of {len(cells)} seeds"] if len(values) < len(cells) else []
    signed = any(cell.tone for cell in measured)  # set bold for being above or below zero
    strong = low > 0 or high < 0 if signed else like.strong
    of_seeds = dict(least=min(values), largest=max(values), seeds=len(values))
    return Cell.of(mean, like.write, low, high, beside="\n".join(beside), strong=strong, within=like.within, **of_seeds)


@dataclass(frozen=True)
class Tile:
    """One figure to see first: what it is, its value, and what it is held against."""

    name: str
    value: str
    against: str = ""


@dataclass
class Verdict:
    """One base model and the furthest it was taken."""

    heading: str
    extended: bool
    sentences: list[str] = field(default_factory=list)
    tiles: list[Tile] = field(default_factory=list)
    winner: str = ""

    def says(self, text: str) -> bool:
        """Whether a sentence has this already, so that no figure stands twice."""
        return any(text in sentence for sentence in self.sentences)
