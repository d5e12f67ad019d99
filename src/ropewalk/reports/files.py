"""The page's tables as CSV, LaTeX and Markdown, and its figures as SVG, PDF and PNG: for a paper.

in   sections, what they are of, and a directory of their own
out  files called by section and number, as they follow each other on the page: `perplexity-1.csv`; `index.md` says what each is
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

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
#: Around a cell with what stands small in it, before that and between its parts; before a label and between its parts: on one line, or in LaTeX beneath
#: each other, since a table whose columns are as wide as a figure and its interval is too small to be read in one column of text.
_CELL, _SMALL, _PART, _CELL_END, _LABEL, _COMMA = "\x04", "\x05", "\x06", "\x07", "\x0e", "\x0f"
_ACROSS = 4  # columns beside the labels in LaTeX; more stand beneath each other
_BELOW_LATEX, _BESIDE_MARKDOWN = (
    dict(zip(map(ord, (_CELL, _SMALL, _PART, _CELL_END, _LABEL, _COMMA)), written, strict=True))
    for written in (
        (
            r"\begin{tabular}[t]{@{}r@{}}",
            r"\\ \scriptsize ",
            r";\\ \scriptsize ",
            r"\end{tabular}",
            r"\begin{tabular}[t]{@{}l@{}}",
            r"\\ \scriptsize ",
        ),
        ("", " ", "; ", "", "", ", "),
    )
)
#: Of graphicx: as wide as it is, and no wider than the text.
_FITTED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}"


def write_tables(sections: Sequence[Section], directory: Path, *, label: str) -> None:
    """Every table three times: numbers with the bounds of their intervals as CSV, as the page writes them as LaTeX (a float with booktabs, no wider than the text) and Markdown.

    label: how the labels of this report's tables begin (`label_of`).
    """
    for section in sections:
        for number, table in enumerate(section.tables, 1):
            name = directory / f"{section.id}-{number}"
            with name.with_suffix(".csv").open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
                csv.writer(file).writerows(_numbers(table))
            _write(name.with_suffix(".tex"), _float(_as_latex(table), table, f"{label}-{name.name}"))
            _write(name.with_suffix(".md"), f"{as_markdown(table)}\n")
    named = ((f"{s.id}-{number}", table.title) for s in sections for number, table in enumerate(s.tables, 1))
    _index(directory, ((name, f"{title} (tab:{label}-{name})") for name, title in named))


def _as_latex(table: Table) -> str:
    """Its columns, a few beside the labels at a time, none wider than the text."""
    heads, *lines = _texts(table)
    parts = []
    for at in range(1, max(len(heads), 2), _ACROSS):
        rows = [[line[0], *line[at : at + _ACROSS]] for line in (heads, *lines)]
        align = ["left", *["right"] * (len(rows[0]) - 1)]
        text = tabulate(rows[1:], rows[0], tablefmt="latex_booktabs", disable_numparse=True, colalign=align)
        parts.append(f"{_FITTED}{{%\n{text.translate(_LATEX | _BOLD_LATEX | _BELOW_LATEX)}}}")
    return "\n\n\\medskip\n".join(parts)


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


def _float(rows: str, table: Table, name: str) -> str:
    """A tabular with its caption and note, to be \\input, and a label."""
    sentences = " ".join(filter(None, [f"{_one_line(table.title).rstrip('.')}.", _one_line(_notes(table))]))
    caption = "".join(LATEX_ESCAPE_RULES.get(sign, sign) for sign in sentences).translate(_LATEX)
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{caption}}}", rf"\label{{tab:{name}}}", rows, r"\end{table}"]
    return "\n".join(lines) + "\n"


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
    yield [_text(Cell(_one_line(name), small)) for name, _, small in heads]
    for line in table.lines:
        label = f"{line.label} ({line.note})" if line.note else line.label
        label = f"{_LABEL}{label.replace(', ', _COMMA)}{_CELL_END}" if ", " in label else label
        yield [_one_line(text) for text in (label, *map(_text, line.cells))]


def _text(cell: Cell) -> str:
    small = _PART.join(part for part in cell.small.split("\n") if part)
    text = f"{_BEGIN}{cell.text}{_END}" if cell.strong and cell.text else cell.text
    return f"{_CELL}{text}{_SMALL}({small}){_CELL_END}" if small else text


def _numbers(table: Table) -> Iterator[list[object]]:
    """A column a figure, two more for the bounds of its interval and three for the least and the largest seed and how many seeds its mean is of, where it has them; words where there is no number."""
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


def _in_column(cell: Cell, name: str) -> float | str:
    """What a cell has in a further column: seeds are counted, all else is in the unit of the figure."""
    return cell.seeds or "" if name == "seeds" else _in_unit(cell, getattr(cell, name))


def _in_unit(cell: Cell, number: float) -> float | str:
    """A number as the page writes it: a difference of shares in points; nothing where it is none."""
    if not number_format.is_finite(number):
        return ""
    return 100 * number if cell.write is number_format.points else number


def _ends_of(cells: Sequence[Cell]) -> list[str]:
    """What further columns these have: the ends of intervals, what is known of seeds, or both."""
    columns = (("low", "high"), ("least", "largest", "seeds"))
    known = [names for names in columns if any(all(map(number_format.is_finite, _of(c, names))) for c in cells)]
    return [name for names in known for name in names]


def _of(cell: Cell, names: tuple[str, ...]) -> list[float | None]:
    return [getattr(cell, name) for name in names]
