"""The page put together, and written whole or not at all."""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from ropewalk.checkpoint.files import whole_directory, write_whole
from ropewalk.checkpoint.guard import refuse_existing_file
from ropewalk.errors import UserError
from ropewalk.records import (
    BOOKKEEPING,
    Adjacent,
    AttentionScores,
    Benchmark,
    BenchmarkComparison,
    Bounds,
    ContextGain,
    EffectiveLength,
    Growth,
    LongTask,
    Passkey,
    PasskeySummary,
    Perplexity,
    Records,
    Resolution,
    Retrieval,
    Row,
    Step,
    Summary,
    read,
)
from ropewalk.reports import (
    ablation,
    attention,
    benchmarks,
    cost,
    gain,
    long_context,
    losses,
    passkey,
    perplexity,
    provenance,
    retrieval,
    summaries,
    texts,
    theory,
    training,
    verdict,
    words,
)
from ropewalk.reports.content import Section, Verdict
from ropewalk.reports.files import label_of, write_figures, write_tables
from ropewalk.reports.printed import browser, printed
from ropewalk.reports.rows import Clean, clean
from ropewalk.settings.command import takes
from ropewalk.settings.inputs import inputs_of
from ropewalk.settings.pages import ReportSettings

_logger = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
_ENDINGS = (".html", ".htm", ".pdf")
#: By this in its head a page says that ropewalk made it (templates/page.html).
PAGE = b'<meta name="generator" content="ropewalk">'


@dataclass(frozen=True)
class Builder:
    """A section of the page: which rows it shows, the function that makes it (None without such rows), and whether a model card has it too."""

    kinds: tuple[type[Row], ...]
    build: Callable[[Clean], Section | None]
    on_card: bool = True


#: In the order of the page. To show a new kind of row, add a builder here.
SECTIONS: list[Builder] = [
    Builder((Perplexity,), perplexity.section),
    Builder((ContextGain,), gain.section),
    Builder((Passkey, PasskeySummary), passkey.section),
    Builder((Retrieval,), retrieval.section),
    Builder((LongTask, EffectiveLength), long_context.section),
    Builder((Benchmark, BenchmarkComparison), benchmarks.section),
    Builder((Summary,), summaries.section),
    Builder((Step,), losses.section),
    Builder((), ablation.section, on_card=False),
    Builder((AttentionScores, Adjacent), attention.section, on_card=False),
    Builder((Bounds, Growth, Resolution), theory.section, on_card=False),
    Builder((), cost.section, on_card=False),
]


def render(records: Records, title: str | None = None, left_out: Sequence[str] = (), *, paper: bool = True) -> str:
    """The page as text.

    Args:
        records: what was measured.
        title: its heading; from what was measured if not given.
        left_out: what was meant to be measured and was not, each in a sentence.
        paper: the paper's figures beside one's own.

    Raises:
        UserError: no row can be shown.
    """
    return _render(*_built(records, paper), title, left_out)


def _built(records: Records, paper: bool) -> tuple[Clean, list[Section]]:
    rows = clean(records, paper=paper)
    sections = [part for builder in SECTIONS if (part := builder.build(rows)) is not None]
    if not sections:
        if any(isinstance(m.row, BOOKKEEPING) for m in rows.measurements):
            raise UserError(
                "a report needs at least one measurement, and what is on record is part of one that was interrupted; the same command with the same "
                "--out goes on where it was"
            )
        why = "; ".join(each.rstrip(".") for each in provenance.damaged(rows))
        way_out = "record one with ropewalk perplexity or passkey and --out"
        if rows.unfinished:
            way_out = "the same ropewalk ablate, with the --out that it lies in, makes such a row again, where its settings were altered once its file is deleted"
        raise UserError(
            f"a report needs at least one measurement, but none of the {len(records.measurements)} rows found can be shown{f' ({why})' * bool(why)}; {way_out}"
        )
    _count_unshown(rows)
    return rows, sections if rows.paper else [section.alone() for section in sections]


def _render(
    rows: Clean, sections: list[Section], title: str | None, left_out: Sequence[str], *, verdict_only: bool = False
) -> str:
    verdicts = verdict.verdicts(rows)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("page.html").render(
        title=title or _title(verdicts),
        verdict_only=verdict_only,
        style=Markup((TEMPLATES / "style.css").read_text(encoding="utf-8")),
        verdicts=verdicts,
        words=list(words.words(rows)),
        cost=cost.in_words(rows),
        cautions=provenance.cautions(rows),
        unknown=provenance.unknown(rows),
        sections=sections,
        paper=rows.paper,
        not_measured=provenance.not_measured(rows) if rows.paper else [],
        left_out=left_out,
        setting=provenance.setting(rows),
    )


def _count_unshown(rows: Clean) -> None:
    """Rows of a kind that no section shows are said on the page, as those of an unknown kind are."""
    shown = {kind for builder in SECTIONS for kind in builder.kinds}
    for m in rows.measurements:
        if type(m.row) not in shown and not isinstance(m.row, BOOKKEEPING):
            rows.left_out.unknown[m.row.kind] += 1


def _title(verdicts: list[Verdict]) -> str:
    names = [item.heading for item in verdicts]
    if not any(item.extended for item in verdicts):
        return ", ".join(names)
    if len(names) > 1:
        return f"Longer windows for {', '.join(names)}"
    return f"A longer window for {names[0]}" + (f": {verdicts[0].winner}" if verdicts[0].winner else "")


@takes(ReportSettings)
def report(settings: ReportSettings) -> Path:
    """Read record files and write the page.

    Raises:
        UserError: a record file is missing, nothing in them can be shown, `out` exists and is not to be overwritten, or no browser prints it.
    """
    out = Path(settings.out)
    if out.is_dir():
        raise UserError(
            f"a report is one file, but {out} is a directory; name a file in it, such as {out / 'report.html'}"
        )

    if out.suffix.lower() not in _ENDINGS:
        raise UserError(
            f"the name of a report ends as its kind does, which is .html or .pdf, and {out} does not; write it as {out.with_suffix('.html')}"
        )

    def ask() -> None:
        refuse_existing_file(out, PAGE, overwrite=settings.overwrite, inputs=inputs_of(settings))

    ask()
    is_pdf = out.suffix.lower() == ".pdf"
    if is_pdf:
        browser()
    places = {"--out": out, "--tables": settings.tables, "--figures": settings.figures}
    _refuse_within({option: Path(os.path.realpath(place)) for option, place in places.items() if place is not None})
    rows, sections = _built(read(settings.records), settings.paper)
    for caution in [*provenance.damaged(rows), *training.not_measured(rows), *texts.other_texts(rows)]:
        _logger.warning("%s", caution)
    with contextlib.ExitStack() as stack:
        with_labels = functools.partial(write_tables, label=label_of(Path(settings.tables or ""), rows))
        for directory, write in ((settings.tables, with_labels), (settings.figures, write_figures)):
            if directory is not None:
                whole = whole_directory(directory, overwrite=settings.overwrite, inputs=inputs_of(settings))
                write(sections, stack.enter_context(whole))
        page = _render(rows, sections, settings.title, settings.left_out, verdict_only=settings.verdict_only)
        write_whole(out, printed(page, PAGE) if is_pdf else page, ask=ask)
    return out


def _refuse_within(places: dict[str, Path]) -> None:
    """A directory is replaced as a whole, and would take with it what lies there."""
    for (option, place), (other, below) in itertools.permutations(places.items(), 2):
        if place in (below, *below.parents):
            raise UserError(
                f"tables and figures are written to directories of their own, but {other} {below} lies in {option} {place}; choose another"
            )
