"""The page put together, and written whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from ropewalk.checkpoint.files import disk_errors, refuse_existing
from ropewalk.errors import UserError
from ropewalk.records import Records, read
from ropewalk.reports import (
    ablation,
    attention,
    benchmarks,
    passkey,
    perplexity,
    provenance,
    retrieval,
    summaries,
    theory,
    training,
    verdict,
)
from ropewalk.reports.content import Section
from ropewalk.reports.rows import KINDS, Clean, clean, is_bookkeeping
from ropewalk.settings.command import takes
from ropewalk.settings.pages import ReportSettings

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Builder:
    """A section of the page: which kinds of rows it shows, and the function that makes it (None without such rows)."""

    kinds: tuple[str, ...]
    build: Callable[[Clean], Section | None]


#: In the order of the page. To show a new kind of row, add a builder here.
SECTIONS: list[Builder] = [
    Builder(("perplexity",), perplexity.section),
    Builder(("passkey", "passkey_summary"), passkey.section),
    Builder(("retrieval",), retrieval.section),
    Builder(("benchmark", "benchmark_comparison"), benchmarks.section),
    Builder(("summary",), summaries.section),
    Builder(("step",), training.section),
    Builder((), ablation.section),
    Builder(("attention", "adjacent"), attention.section),
    Builder(("theory_bounds", "theory_growth", "theory_resolution"), theory.section),
    Builder((), training.cost),
]


def render(records: Records, title: str | None = None, left_out: Sequence[str] = ()) -> str:
    """The page as text.

    Args:
        records: what was measured.
        title: its heading; from what was measured if not given.
        left_out: what was meant to be measured and was not, each in a sentence.

    Raises:
        UserError: no row can be shown.
    """
    rows = clean(records)
    shown = {kind for builder in SECTIONS for kind in builder.kinds}
    sections = [made for builder in SECTIONS if (made := builder.build(rows)) is not None]
    if not sections:
        raise UserError(
            f"a report needs at least one measurement, but none of the {len(records.rows)} rows found can be shown "
            f"({records.damaged} damaged lines); record one with ropewalk perplexity or passkey and --out"
        )
    for kind in KINDS.keys() - shown:
        if (number := len(rows.of(kind))) and not is_bookkeeping(kind):
            rows.unknown[kind] += number
    found = verdict.verdicts(rows)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title=title or _title(found),
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        verdicts=found,
        cautions=provenance.cautions(rows),
        sections=sections,
        not_measured=provenance.not_measured(rows),
        left_out=left_out,
        setting=provenance.setting(rows),
    )


def _title(found: list[verdict.Verdict]) -> str:
    names = [item.heading for item in found]
    if not any(item.extended for item in found):
        return ", ".join(names)
    return f"A longer window for {names[0]}" if len(names) == 1 else f"Longer windows for {', '.join(names)}"


@takes(ReportSettings)
def report(settings: ReportSettings) -> Path:
    """Read record files and write the page.

    Raises:
        UserError: a record file is missing, nothing in them can be shown, or `out` exists and is not to be overwritten.
    """
    out = Path(settings.out)
    if out.is_dir():
        raise UserError(
            f"a report is one file, but {out} is a directory; name a file in it, such as {out / 'report.html'}"
        )
    refuse_existing(out, overwrite=settings.overwrite)
    _write_whole(out, render(read(settings.records), settings.title, settings.left_out))
    return out


def _write_whole(out: Path, text: str) -> None:
    """Beside its place first, then renamed: a reader, or a full disk, never sees half a page."""
    beside = out.with_name(f".{out.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            beside.write_text(text, encoding="utf-8")
            beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
