"""The page's tables as CSV, LaTeX and Markdown, and its figures as SVG, PDF and PNG: for a paper.

in   sections, what they are of, and a directory of their own
out  files called by section and number, as they follow each other on the page: `perplexity-1.csv`; `index.md` says what each is
"""

from __future__ import annotations

import csv
import hashlib
import re
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TypeVar

from tabulate import LATEX_ESCAPE_RULES, tabulate

from ropewalk.figures.measured import save_thrice
from ropewalk.records import format as number_format
from ropewalk.reports.content import Cell, Section, Table
from ropewalk.reports.rows import Clean

#: What LaTeX's own fonts have under another name.
_LATEX = str.maketrans({
    "−": "$-$", "×": r"$\times$", "≈": r"$\approx$", "→": r"$\to$", "–": "--", "’": "'", "…": r"\ldots{}", "“": "``", "”": "''", "\u202f": r"\,", "\u00a0": "~",
    **{sign: f"$^{{{place}}}$" for place, sign in enumerate("⁰¹²³⁴⁵⁶⁷⁸⁹")}, "⁻": "$^{-}$",
})  # fmt: skip
#: Around what stands bold on the page, until it is known how that is written.
_BEGIN, _END = "\x02", "\x03"
_BOLD_LATEX, _BOLD_MARKDOWN = (
    {ord(_BEGIN): begin, ord(_END): end} for begin, end in ((r"\textbf{", "}"), ("**", "**"))
)
#: Around a cell with what stands small in it, before that and between its parts; before a label and between its parts, and where words may break: on one
#: line, or in LaTeX beneath each other, since columns as wide as a figure and its interval are soon wider than a page.
_CELL, _SMALL, _PART, _CELL_END, _LABEL, _COMMA, _BREAK = "\x04", "\x05", "\x06", "\x07", "\x0e", "\x0f", "\x10"
_BEGINNINGS, _BREAKS = f"{_CELL}{_LABEL}{_CELL_END}{_BEGIN}{_END}", f"[{_SMALL}{_PART}{_COMMA}{_BREAK}]"
_BELOW_LATEX, _BESIDE_MARKDOWN = (
    dict(zip(map(ord, (_CELL, _SMALL, _PART, _CELL_END, _LABEL, _COMMA, _BREAK)), written, strict=True))
    for written in (
        (r"\begin{tabular}[t]{@{}r@{}}", r"\\ ", r";\\ ", r"\end{tabular}", r"\begin{tabular}[t]{@{}l@{}}", r"\\ ", r"\\ "),
        ("", " ", "; ", "", "", ", ", " "),
    )
)  # fmt: skip
#: Points: the text of an article of 10 pt, in which tables are set in 8 pt (\footnotesize); a sign of these, about; and what stands beside a column.
_LINE, _SIGN, _BESIDE = 345, 4.1, 4
_PAGE = 42  # lines of a tabular, beside a long caption
_WORDS = 24  # signs, after which labels and heads go on beneath
#: Of graphicx: as wide as it is, and no wider than the text.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"

_Part = TypeVar("_Part")


def write_tables(sections: Sequence[Section], directory: Path, *, label: str) -> None:
    """Every table three times: numbers with the bounds of their intervals as CSV, as the page writes them as LaTeX (floats with booktabs, no larger than a page) and Markdown.

    label: how the labels of this report's tables begin (`label_of`).
    """
    for section in sections:
        for number, table in enumerate(section.tables, 1):
            name = directory / f"{section.id}-{number}"
            with name.with_suffix(".csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                csv.writer(file).writerows(_numbers(table))
            _write(name.with_suffix(".tex"), _as_latex(table, f"{label}-{name.name}"))
            _write(name.with_suffix(".md"), f"{as_markdown(table)}\n")
    named = ((f"{s.id}-{number}", table.title) for s in sections for number, table in enumerate(s.tables, 1))
    _index(directory, ((name, f"{title} (tab:{label}-{name})") for name, title in named))


def _as_latex(table: Table, name: str) -> str:
    """Floats, to be \\input: the columns beside the labels as many at a time as a line holds, the rows as many as a page does."""
    labels, *columns = map(list, zip_longest(*_texts(table), fillvalue=""))
    lines = [max(map(_lines, row)) for row in zip(labels, *columns, strict=True)]
    tabulars = [
        _tabular([[column[row] for row in (0, *rows)] for column in (labels, *beside)])
        for beside in _packed(columns, list(map(_points, columns)), _LINE - _points(labels)) or [[]]
        for rows in _packed(range(1, len(labels)), lines[1:], _PAGE - lines[0])
    ]
    notes = " ".join(filter(None, [f"{_one_line(table.title).rstrip('.')}.", _one_line(_notes(table))]))
    captions = [_escaped(notes)]
    for part in range(2, len(tabulars) + 1):
        captions.append(rf"{_escaped(_one_line(table.title).rstrip('.'))}, part {part} of Table~\ref{{tab:{name}}}.")
    labelled = (f"{name}-part-{part}" if part > 1 else name for part in range(1, len(tabulars) + 1))
    return "\n".join(map(_float, tabulars, captions, labelled))


def _packed(parts: Sequence[_Part], sizes: Sequence[float], room: float) -> list[list[_Part]]:
    """Neighbours that fit in there together; what is larger stands alone."""
    packed, left = list[list[_Part]](), 0.0
    for part, size in zip(parts, sizes, strict=True):
        if size > left or not packed:
            packed.append([])
            left = room
        packed[-1].append(part)
        left -= size
    return packed


def _points(column: Iterable[str]) -> float:
    """How wide a column is about, by its longest line."""
    lines = (line.strip(_BEGINNINGS) for text in column for line in re.split(_BREAKS, text))
    return _SIGN * max(map(len, lines)) + 2 * _BESIDE


def _lines(text: str) -> int:
    return len(re.split(_BREAKS, text))


def _tabular(columns: Sequence[Sequence[str]]) -> str:
    heads, *rows = zip(*columns, strict=True)
    align = ["left", *["right"] * (len(heads) - 1)]
    text = tabulate(rows, heads, tablefmt="latex_booktabs", disable_numparse=True, colalign=align)
    return f"{_FITTED}{{%\n{text.translate(_LATEX | _BOLD_LATEX | _BELOW_LATEX)}}}"


def _float(tabular: str, caption: str, name: str) -> str:
    """table*: across both columns, if there are two."""
    size = rf"\footnotesize\setlength{{\tabcolsep}}{{{_BESIDE}pt}}"
    return f"\\begin{{table*}}\n\\centering\n\\caption{{{caption}}}\n\\label{{tab:{name}}}\n{size}\n{tabular}\n\\end{{table*}}\n"


def _escaped(text: str) -> str:
    return "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in text).translate(_LATEX)


def label_of(directory: Path, clean: Clean) -> str:
    """What tells the labels of one report from those of another: the last two names of a directory, in signs that LaTeX takes in labels, and six of a hash
    of which states were measured on which texts; figures are not in it, so that it stays when the report is made again.

    directory: as the user named it.
    """
    names = [name for name in directory.parts if name not in (directory.anchor, "..")]
    states = ((m.model_variant, getattr(m.row, "data", "")) for m in clean.measurements)
    content = {repr((v.lineage, v.short_name, v.label, v.window, v.recipe.seed, v.recipe.data, data)) for v, data in states}  # fmt: skip
    digest = hashlib.sha256("\n".join(sorted(content)).encode(errors="backslashreplace")).hexdigest()[:6]
    label = "-".join([*names[-2:], digest])
    return re.sub(r"[^A-Za-z0-9.-]", lambda sign: "-" if sign[0].isascii() else f"{ord(sign[0]):x}", label)


def _notes(table: Table) -> str:
    return table.notes.replace("Small figures:", "In brackets:")  # as `_text` has them


def as_markdown(table: Table) -> str:
    """A table as the page writes it, with its caption and its note."""
    heads, *lines = ([_plain(text).replace("|", r"\|") for text in line] for line in _texts(table))
    text = tabulate(lines, heads, tablefmt="pipe", disable_numparse=True).translate(_BOLD_MARKDOWN | _BESIDE_MARKDOWN)
    return "\n\n".join(filter(None, [f"**{_plain(table.title)}**", text, _plain(_notes(table))]))


def _plain(text: str) -> str:
    """Text in which Markdown reads no tag, link, code or emphasis, whatever a name holds."""
    return re.sub(r"([`*\[\]])", r"\\\1", text).replace("&", "&amp;").replace("<", "&lt;")


def write_figures(sections: Sequence[Section], directory: Path) -> None:
    """Every figure three times; text stays text."""
    for section in sections:
        for number, picture in enumerate(section.pictures, 1):
            save_thrice(picture.drawing, directory, f"{section.id}-{number}")
    captions = (
        (f"{s.id}-{number}", ". ".join(filter(None, [p.title or s.title, p.caption])))
        for s in sections
        for number, p in enumerate(s.pictures, 1)
    )
    _index(directory, captions)


def _index(directory: Path, said: Iterable[tuple[str, str]]) -> None:
    """What is what, a file a line."""
    _write(directory / "index.md", "".join(f"- `{name}`: {_plain(_one_line(text))}\n" for name, text in said))


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _texts(table: Table) -> Iterator[list[str]]:
    """The table as the page has it, what stands small in brackets."""
    heads = (head.partition("\n") for head in (table.first, *table.head))
    yield [_text(Cell(_broken(_one_line(name)), _broken(small))) for name, _, small in heads]
    for line in table.lines:
        label = f"{line.label} ({line.note})" if line.note else line.label
        label = _COMMA.join(_broken(_one_line(part)) for part in label.split(", "))
        label = f"{_LABEL}{label}{_CELL_END}" if re.search(_BREAKS, label) else label
        yield [label, *(_one_line(_text(cell)) for cell in line.cells)]


def _broken(text: str) -> str:
    """Words that may stand beneath each other."""
    return _BREAK.join(textwrap.wrap(text, _WORDS, break_long_words=False, break_on_hyphens=False))


def _text(cell: Cell) -> str:
    small = _PART.join(part for part in cell.small.split("\n") if part)
    text = f"{_BEGIN}{cell.text}{_END}" if cell.strong and cell.text else cell.text
    text = f"{text}{_SMALL}({small})" if small else text
    return f"{_CELL}{text}{_CELL_END}" if re.search(_BREAKS, text) else text


def _numbers(table: Table) -> Iterator[list[object]]:
    """A column a figure, two more for the bounds of its interval, three for the least and the largest seed and how many seeds its mean is of, and one for the words that stand small beside it, where it has them; words where there is no number."""
    columns = range(len(table.head))
    stacks = [[line.cells[i] for line in table.lines if len(line.cells) > i] for i in columns]
    bounds = list(map(_ends_of, stacks))
    units = [next((f", {cell.unit}" for cell in stack if cell.unit), "") for stack in stacks]
    names = [_one_line(name) + unit for name, unit in zip(table.head, units, strict=True)]
    heads: list[object] = [table.first, "note"]
    for name, ends in zip(names, bounds, strict=True):
        heads += [name, *(f"{name} {end}" for end in ends)]
    yield heads
    for line in table.lines:
        values: list[object] = [line.label, line.note]
        for cell, ends in zip(line.cells, bounds, strict=False):
            values.append(cell.text if cell.value is None else _in_unit(cell, cell.value))
            known = _ends_of([cell])
            values += [_in_column(cell, end) if end in known else "" for end in ends]
        yield values


def _beside(cell: Cell) -> str:
    """What stands small beside a figure and its interval, as the change from the base does, with its own interval."""
    interval = number_format.interval(cell.low, cell.high, cell.write)
    parts = (part for part in cell.small.split("\n") if part and part != interval)
    return "; ".join(part for part in parts if not part.startswith("seeds "))  # these have columns


def _in_column(cell: Cell, name: str) -> float | str:
    """What a cell has in a further column: seeds are counted, words are as on the page, all else is in the unit of the figure."""
    if name == "beside":
        return _beside(cell)
    return cell.seeds or "" if name == "seeds" else _in_unit(cell, getattr(cell, name))


def _in_unit(cell: Cell, number: float) -> float | str:
    """A number as the page writes it: a difference of shares in points; nothing where it is none."""
    if not number_format.is_finite(number):
        return ""
    return 100 * number if cell.write is number_format.points else number


def _ends_of(cells: Sequence[Cell]) -> list[str]:
    """What further columns these have: the ends of intervals, what is known of seeds, words beside."""
    columns = (("low", "high"), ("least", "largest", "seeds"))
    known = [names for names in columns if any(all(map(number_format.is_finite, _of(c, names))) for c in cells)]
    return [name for names in known for name in names] + ["beside"] * any(map(_beside, cells))


def _of(cell: Cell, names: tuple[str, ...]) -> list[float | None]:
    return [getattr(cell, name) for name in names]
