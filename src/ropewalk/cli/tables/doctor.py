"""What `ropewalk doctor` found: a line a finding, then a row a reader."""

from __future__ import annotations

import textwrap

from rich import box
from rich.table import Table

from ropewalk.cli.terminal import console, say
from ropewalk.readers.diagnosis import Diagnosis, ReaderRow
from ropewalk.sentences import joined

_MARK = "*"


def show_diagnosis(diagnosis: Diagnosis) -> None:
    """Print a diagnosis."""
    say(f"{diagnosis.name}: {diagnosis.summary}\n")
    for finding in diagnosis.findings:
        head = f"{finding.number:2}  {finding.verdict:11}  "
        say(textwrap.fill(f"{finding.check}: {finding.sentence}", 110, initial_indent=head, subsequent_indent=" " * len(head),
                          break_long_words=False, break_on_hyphens=False))  # fmt: skip
    if diagnosis.readers:
        say("")
        console().print(readers_table(diagnosis))
        refusing: dict[str, list[str]] = {}
        for row in diagnosis.readers:
            if row.refusal:
                refusing.setdefault(row.refusal.removeprefix(f"{row.reader} "), []).append(row.reader)
        for reason, names in refusing.items():
            say(f"refused by {', '.join(names)}: {reason}")
    for sentence in diagnosis.changed:
        say(f"mended: {sentence}")
    for path in diagnosis.kept:
        say(f"as it was: {path}")
    say(verdict(diagnosis))


def verdict(diagnosis: Diagnosis) -> str:
    """The last line."""
    if count := len(diagnosis.wrong):
        return f"{count} thing{'s are' if count > 1 else ' is'} wrong"
    if diagnosis.unchecked:
        return "incomplete: nothing is wrong in what was checked, and not checked is " + ", ".join(
            dict.fromkeys(finding.check for finding in diagnosis.unchecked)
        )
    if diagnosis.verdict == "noted":
        return "nothing is wrong, and noted is " + ", ".join(
            dict.fromkeys(finding.check for finding in diagnosis.noted)
        )
    starred = [row.reader for row in diagnosis.readers if row.differs]
    doubts = [f"what check {odd.number} notes was meant" for odd in diagnosis.odd[:1]]
    doubts += [f"{diagnosis.unconfirmed} is the model's own"] if diagnosis.unconfirmed else []
    doubt = f", if {joined(doubts)}" if doubts else ""
    edits = f", but changed since ropewalk wrote it: {joined(diagnosis.edited)} (check 14)" if diagnosis.edited else ""
    stars = f"; of the readers, {', '.join(starred)} would make something else of it ({_MARK})" if starred else ""
    unseen = (
        "; not confirmed: that the weights are those that were trained, of which no digest is on record (check 14): measure them, or compare them "
        "with where they come from"
    )
    return f"sound{edits}{doubt}{stars}{unseen if diagnosis.undigested else ''}"


def readers_table(diagnosis: Diagnosis) -> Table:
    """A row a reader; what differs from the model's own window or closed form is marked."""
    marked = any(row.differs for row in diagnosis.readers)
    caption = f"{_MARK} not what the model is meant for" if marked else None
    table = Table(
        title="What each reader would compute",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        caption=caption,
    )
    for heading, side in (
        ("reader", "left"),
        ("window", "right"),
        ("first inv_freq", "right"),
        ("last inv_freq", "right"),
    ):
        table.add_column(heading, justify=side)  # pyrefly: ignore[bad-argument-type]
    for row in diagnosis.readers:
        table.add_row(row.reader + _MARK * row.scores_differ, *_cells(row))
    return table


def _cells(row: ReaderRow) -> list[str]:
    if row.refusal:
        return ["refuses", "", ""]
    window = "none" if row.window is None else str(row.window)
    mark = _MARK * row.inv_freq_differs
    numbers = ["" if value is None else f"{value:.6g}{mark}" for value in (row.first, row.last)]
    return [window + _MARK * row.window_differs, *numbers]
