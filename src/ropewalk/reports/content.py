"""What a section of the page is made of; the template knows these shapes and nothing of models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import zip_longest

from markupsafe import Markup
from matplotlib.figure import Figure as Drawing

from ropewalk.figures import style

#: Pixels of the style sheet: the least width of a table's first column, and one of two columns of a page 70rem wide.
_LABEL, _HALF_A_PAGE = 136, 505


@dataclass(frozen=True)
class Cell:
    """A figure with what stands small beneath it: its interval, or how far it is from the base."""

    text: str
    small: str = ""
    tone: str = ""  # "good", "bad" or nothing
    strong: bool = False


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
    """A caption, a head (first column's name, then the others') and lines."""

    caption: str
    head: Sequence[str]
    lines: Sequence[Line]
    note: str = ""
    first: str = ""
    under: bool = False  # belongs under the table before it, wherever that one stands

    @property
    def is_wide(self) -> bool:
        """Whether it needs more than half a desktop page: an estimate in pixels from the widest text of each column.

        Labels of lines wrap, down to the width that the style sheet leaves them (8.5rem); figures do not.
        """
        heads = [name.partition("\n") for name in self.head]
        rows = [[Cell(name, small) for name, _, small in heads], *(line.cells for line in self.lines)]
        columns = zip_longest(*rows, fillvalue=Cell(""))
        figures = sum(max(max(7.8 * len(c.text), 6.3 * len(c.small)) for c in column) + 18 for column in columns)
        return _LABEL + figures > _HALF_A_PAGE


@dataclass(frozen=True)
class Picture:
    """A figure as SVG, with the sentence that says what to see in it."""

    svg: Markup
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
        self.pictures.append(Picture(Markup(svg), caption, title))


def cells(*texts: str) -> list[Cell]:
    return [Cell(text) for text in texts]
