"""Summaries (the paper's table 6) beside the first words of each document, which any model should beat.

    ropewalk summarize … --data PAIRS --out lab/records/summaries/NAME.jsonl
    python lab/summaries.py lab/records/summaries/NAME.jsonl --data PAIRS --words 250     # adds the first words, to the same records
    python lab/summaries.py … --tokenizer MODEL     # and the documents' lengths, to a row of first words of records that lack them

in   lab/records/summaries/NAME.jsonl, as `ropewalk summarize` writes it; the pairs that it was measured on
out  a row of ROUGE of the first words of each document; Markdown
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from rows import whole_records
from tables import bounded, table

from ropewalk import UserError
from ropewalk.evals.downstream.pairs import document_length, first
from ropewalk.evals.downstream.rouge import SCORES, rouge
from ropewalk.evals.intervals import documents_interval, scores_interval
from ropewalk.model.load import load_tokenizer
from ropewalk.records import Recorder, Summary
from ropewalk.records.format import fixed
from ropewalk.records.measurement import Measurement
from ropewalk.rope.scaling import SCALINGS
from ropewalk.sentences import counted
from ropewalk.settings.downstream import SummarizeSettings

LEVEL = "summaries"
#: Below so many documents the page still says that the paper's summaries were never run; it had 972.
DOCUMENTS = 100
_WORDS = "first {} words"


def add_first_words(path: Path, data: list[str], words: int, tokenizer: str | None = None) -> Summary:
    """Score the first words of the documents that a file has summaries of, and put the row beside them, where it is not.

    tokenizer: of the model, which counts the documents' tokens where the summaries' row does not have them.

    Raises:
        UserError: the file is damaged or has no summaries, or they are of other documents; words are not above 0.
    """
    if words < 1:
        raise UserError(f"a summary of the first words has 1 of them or more, got {words}; give other --words")
    known = whole_records(path).of(Summary)
    measured = [each for each in known if not _is_lead(each.row)]
    if not measured:
        raise UserError(f"{path} has no summaries; write them by `ropewalk summarize --out {path}`")
    row, run = measured[-1].row, measured[-1].run
    chosen = first(data, row.documents)
    names = _documents(row)
    if [pair.name for pair in chosen] != names:
        raise UserError(
            f"{path} has summaries of other documents than {', '.join(data)}; give the --data that they are of"
        )
    for each in known:
        if each.row.decoding == _WORDS.format(words) and _documents(each.row) == names:
            return each.row
    scores = [rouge(" ".join(pair.document.split()[:words]), pair.summary) for pair in chosen]
    columns = {name: np.array([each[name] for each in scores]) for name in SCORES}
    lengths = _lengths([row])
    if not lengths and tokenizer:
        counting = load_tokenizer(tokenizer)
        lengths = {pair.name: document_length(counting, pair) for pair in chosen}
    beside = dataclasses.replace(
        row,
        **{name: float(values.mean()) for name, values in columns.items()},
        intervals={name: list(scores_interval(values)) for name, values in columns.items()},
        per_document=[{"name": name, "tokens": 0, **each, **_length(name, lengths)} for name, each in zip(names, scores, strict=True)],
        decoding=_WORDS.format(words), unfinished=0, temperature=None, top_p=None, trained_on="", seconds=0.0, generated_tokens=0,
    )  # fmt: skip
    Recorder(path, run).add(beside)
    return beside


def _is_lead(row: Summary) -> bool:
    """Whether a row is of first words, which no model wrote."""
    return row.decoding.startswith(_WORDS.partition("{")[0])


def most_documents(records: Path, parameters: int) -> int:
    """Of how many documents that are known to be longer than its old window a model of so many parameters or more wrote summaries at most, and read them beyond it."""
    files = [whole_records(path).of(Summary) for path in (records / LEVEL).glob("*.jsonl")]
    return max(
        (
            len(_longer(m.row, _lengths(each.row for each in measured), m.run.model.original_window))
            for measured in files
            for m in measured
            if m.run.model.parameters >= parameters and not _is_lead(m.row)
        ),
        default=0,
    )


def _longer(row: Summary, lengths: dict[str, int], window: int) -> list[int | None]:
    """The lengths of the documents that are longer than a window and read beyond it; None of those that were cut, which are longer, where no length is on record."""
    if row.document_tokens <= window:
        return []
    known = [lengths[name] for name in _documents(row) if name in lengths]
    return sorted(length for length in known if length > window) if known else [None] * row.cut


def _lengths(rows: Iterable[Summary]) -> dict[str, int]:
    """By document its tokens, of rows that have them."""
    each = [document for row in rows for document in row.per_document]
    return {document["name"]: document["document_tokens"] for document in each if "document_tokens" in document}


def _length(name: str, lengths: dict[str, int]) -> dict[str, int]:
    return {"document_tokens": lengths[name]} if name in lengths else {}


def _documents(row: Summary) -> list[str]:
    return [document["name"] for document in row.per_document]


def section(records: Path) -> str:
    """A table a file, each decoding above the first words; nothing without any."""
    tables = [_table(path) for path in sorted((records / LEVEL).glob("*.jsonl"))]
    if not tables:
        return ""
    about = (
        "ROUGE of summaries against the reference, in points: `rougeLsum` is by lines, `rougeL` over the whole text, as published tables near the paper's 29.5 have it. In brackets the 95 % interval over "
        "documents. Below each way of decoding stand the first words of the same documents, taken for a summary; the difference is paired. Unfinished are summaries that the longest length cut, whose ROUGE is of the cut."
    )
    return "\n\n".join(["### Summaries (table 6)", about, *tables])


def _table(path: Path) -> str:
    measured = whole_records(path).of(Summary)
    rows = [each.row for each in measured]
    lead = next((row for row in rows if _is_lead(row)), None)
    names = {"rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "rouge_l": "rougeLsum", "rouge_l_plain": "rougeL"}
    lines, worse = [], lead is not None
    for row in rows:
        above = ""
        if lead and not _is_lead(row):
            difference, ends = _above(row, lead)
            above = _points(difference, ends)
            worse &= ends[1] < 0
        scores = [_points(getattr(row, name), row.intervals[name]) for name in names]
        ended = f"{row.unfinished} of {row.documents}" if not _is_lead(row) else ""
        lines.append([row.decoding, row.trained_on, *scores, above, ended])
    first_row = rows[0]
    about = f"{path.stem}: {first_row.documents} documents of {first_row.data}, {first_row.cut} of them cut to {first_row.document_tokens} tokens; summaries of at most {first_row.summary_tokens}. {_long(measured)} {_made(measured[0])}"
    heads = [
        "summary",
        "fine-tuned on",
        *names.values(),
        f"ROUGE-1 above the {lead.decoding}" if lead else "",
        "unfinished",
    ]
    no = (
        f" **No:** what it writes is below the {lead.decoding} in ROUGE-1, whichever way it is decoded, at the upper end of the interval too."
        if worse
        else ""
    )
    return f"{about}{no}\n\n{table(heads, lines)}"


def _long(measured: Sequence[Measurement[Summary]]) -> str:
    """How many of the documents tell of a longer window, as far as lengths are on record."""
    row, window = measured[0].row, measured[0].run.model.original_window
    known = _lengths(each.row for each in measured)
    lengths = {name: known[name] for name in _documents(row) if name in known}
    longer = _longer(row, lengths, window)
    if not lengths:
        return f"How long they were is not on record, but that {len(longer)} {'is' if len(longer) == 1 else 'are'} longer than the old window of {window} tokens."
    rest = sorted(set(lengths.values()) - {*longer})
    others = f", the others {_range(rest)}: on these a longer window has nothing to tell" if rest else ""
    beyond = f" ({_range(longer)})" if longer else ""
    return f"By the model's tokenizer {len(longer)} of them {'is' if len(longer) == 1 else 'are'} longer than the old window of {window} tokens and read beyond it{beyond}{others}."


def _range(lengths: Sequence[int | None]) -> str:
    return " to ".join(dict.fromkeys(str(end) for end in (lengths[0], lengths[-1])))


def _made(measured: Measurement[Summary]) -> str:
    """How the model came about, by the header of its run."""
    model, row = measured.run.model, measured.row
    before = model.earlier_steps + model.steps_before + model.steps * (not row.trained_on)
    parts = [f"extended by {SCALINGS[model.method].label} × {model.factor:g} to {model.window} tokens in {counted(before, 'step')}"] * (model.factor > 1)  # fmt: skip
    if row.trained_on:
        given = re.search(r"--epochs[ =](\d+)", measured.run.command)
        epochs = int(given[1]) if given else SummarizeSettings.epochs
        parts.append(f"fine-tuned on pairs for {counted(epochs, 'epoch')}, {counted(model.steps, 'step')} (the paper: 10 epochs)")  # fmt: skip
    return f"The model is {', '.join([model.base or model.name, *parts])}."


def _points(value: float, ends: list[float]) -> str:
    return bounded(fixed(100 * value, 1), *(100 * end for end in ends), lambda end: fixed(end, 1))


def _above(row: Summary, lead: Summary) -> tuple[float, list[float]]:
    """The paired difference of ROUGE-1 over documents, and its interval."""
    changes = np.array([after["rouge_1"] - before["rouge_1"] for after, before in zip(row.per_document, lead.per_document, strict=True)])  # fmt: skip
    return float(changes.mean()), list(documents_interval(changes, np.ones(changes.size)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("records", type=Path)
    parser.add_argument("--data", nargs="+", required=True, help="the pairs that the summaries are of")
    parser.add_argument("--words", type=int, default=250)
    parser.add_argument("--tokenizer", help="of the model: counts the documents' tokens, of records that lack them")
    arguments = parser.parse_args()
    try:
        found = add_first_words(arguments.records, arguments.data, arguments.words, arguments.tokenizer)
    except UserError as error:
        parser.error(str(error))
    print(f"{found.decoding}: " + ", ".join(f"{name} {100 * getattr(found, name):.1f}" for name in SCORES))


if __name__ == "__main__":
    main()
