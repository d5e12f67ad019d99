"""What a section of the page is made of; the template knows these shapes and nothing of models."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from statistics import fmean
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from ropewalk.figures import style
from ropewalk.records import format as number_format

#: Pixels of the style sheet: the least width of a table's first column, and one of two columns of a page 70rem wide.
_LABEL, _HALF_A_PAGE = 136, 505
#: What stands small in a line of several seeds.
_OF_SEEDS = "In a line of several seeds: no interval, but the least and the largest seed beside their mean."


@dataclass(frozen=True)
class Cell:
    """A figure with what stands small beneath it, line by line: its interval, how far it is from the base.

    `value` is the number itself and `low`, `high` its interval, as files of tables have them; `write` makes its text. Of a mean over `seeds` the two are
    no interval but the least and the largest of them.
    """

    text: str
    small: str = ""
    tone: str = ""  # "good", "bad" or nothing
    strong: bool = False
    value: float | None = None
    low: float | None = None
    high: float | None = None
    write: Callable[[Any], str] = str
    seeds: bool = False

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
        return self.caption + self.beside

    @property
    def notes(self) -> str:
        """The note in full."""
        several = any(cell.seeds for line in self.lines for cell in line.cells)
        of_seeds = _OF_SEEDS if several and "interval" in self.note else ""
        return " ".join(filter(None, [self.note, of_seeds, self.beside_note]))

    @property
    def alone(self) -> Table:
        """One's own rows, and no word of the paper's."""
        return replace(self, lines=[line for line in self.lines if not line.paper], beside="", beside_note="")

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
    """A figure as SVG, with the sentence that says what to see in it."""

    svg: Markup
    drawing: Drawing
    caption: str
    title: str = ""


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
        stacks: list[list[Table]] = []
        for table in self.tables:
            if table.under and stacks:
                stacks[-1].append(table)
            else:
                stacks.append([table])
        return stacks

    def draw(self, drawing: Drawing, caption: str, title: str = "") -> None:
        """Add a figure. Its SVG is ours, drawn by matplotlib, which escapes what it writes; hence Markup."""
        name = f"{self.id}-{len(self.pictures) + 1}"
        svg = style.svg(drawing, name, title or self.title, caption)
        self.pictures.append(Picture(Markup(svg), drawing, caption, title))


def cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]


def seeds_together(lines: Iterable[Line]) -> list[Line]:
    """Lines that differ in their seed alone (`records.variant.labels` calls them the same) as one: mean, and least to largest."""
    rows: dict[tuple, list[Line]] = {}
    for line in lines:
        texts = tuple(cell.text for cell in line.cells if cell.value is None)
        rows.setdefault((line.label, line.note, texts), []).append(line)
    return [_together(seeds) if len(seeds) > 1 else seeds[0] for seeds in rows.values()]


def _together(seeds: list[Line]) -> Line:
    columns = zip(*(line.cells for line in seeds), strict=True)
    note = f"{seeds[0].note} mean, least to largest".strip()  # how many stands in the label
    return replace(seeds[0], cells=[_mean(cells) for cells in columns], note=note)


def _mean(cells: Sequence[Cell]) -> Cell:
    values = [cell.value for cell in cells if number_format.is_finite(cell.value)]
    if len(values) < len(cells):  # words, or a seed that has no figure: all that was said
        return replace(cells[0], text=", ".join(dict.fromkeys(cell.text for cell in cells)), small="")
    return Cell.of(fmean(values), cells[0].write, min(values), max(values), strong=cells[0].strong, seeds=True)
