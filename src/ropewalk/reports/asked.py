"""What models were asked and what not, and what was begun and not ended.

in   clean rows
out  sentences
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ropewalk.records import (
    Benchmark,
    BenchmarkComparison,
    ContextGain,
    DocumentGain,
    DocumentScore,
    DocumentSummary,
    EffectiveLength,
    LongItem,
    LongTask,
    Measurement,
    Passkey,
    PasskeySummary,
    Perplexity,
    Retrieval,
    Row,
    Step,
    Summary,
)
from ropewalk.reports.rows import Clean
from ropewalk.sentences import joined


@dataclass(frozen=True)
class Asked:
    """Something that a model may be asked.

    Attributes:
        shown: kinds of row that tell of it.
        parts: kinds of row of which each is a part of another one, and the fields in which the two agree; a part without it is of a
            measurement that was interrupted.
    """

    shown: tuple[type, ...]
    parts: tuple[tuple[type, type, tuple[str, ...]], ...] = ()


_ASKED = {
    "perplexity": Asked((Perplexity,), ((DocumentScore, Perplexity, ("window",)),)),
    "context gain": Asked((ContextGain,), ((DocumentGain, ContextGain, ()),)),
    "passkeys": Asked((Passkey, PasskeySummary)),
    "harder retrieval": Asked((Retrieval,)),
    "RULER": Asked(
        (LongTask, EffectiveLength), ((LongItem, LongTask, ("window", "task")), (LongTask, EffectiveLength, ()))
    ),
    "benchmarks of the short window": Asked((Benchmark, BenchmarkComparison)),
    "summaries": Asked((Summary,), ((DocumentSummary, Summary, ("decoding",)),)),
}


def interrupted(clean: Clean) -> Iterable[str]:
    """What was begun and not ended, of any model."""
    begun = [f"{what} of {joined(names)}" for what, asked in _ASKED.items() if (names := _without_whole(clean, asked))]
    if begun:
        yield f"Begun and not ended: {'; '.join(begun)}. The same command with the same --out goes on where it was."


def _without_whole(clean: Clean, asked: Asked) -> list[str]:
    """The models of which parts of a measurement are on record and the whole is not."""
    models = {}
    for part, whole, fields in asked.parts:
        ended = {_key(m, fields) for m in clean.of(whole)}
        models |= dict.fromkeys(m.model_variant.label for m in clean.of(part) if _key(m, fields) not in ended)
    return list(models)


def _key(m: Measurement[Row], fields: tuple[str, ...]) -> tuple[Any, ...]:
    return (m.model_variant, *(getattr(m.row, name) for name in fields))


def not_on_record(clean: Clean) -> Iterable[str]:
    """What no extended model was asked, and what only its base was not."""
    extended = [m for m in clean.measurements if m.model_variant.extended]
    kinds = {type(m.row) for m in extended}
    on_record = {
        what for what, asked in _ASKED.items() if kinds & {*asked.shown, *(part for part, _, _ in asked.parts)}
    }
    missing = [what for what in _ASKED if extended and what not in on_record]
    lineages = dict.fromkeys(m.model_variant.lineage for m in extended)
    parts = [", ".join(missing), *(_not_of_base(clean, lineage) for lineage in lineages)]
    if any(parts):
        whose = "" if kinds - {Step} else " of the extended model"  # of which training alone is on record
        yield f"Not on record{whose}{':' if missing else ''} {'; '.join(filter(None, parts))}."


def _not_of_base(clean: Clean, lineage: tuple) -> str:
    """What extended models of a base were asked and it was not, so that what the extension changed is not known there; which base, where the page has several."""
    rows = [m for m in clean.measurements if m.model_variant.lineage == lineage]
    of_base = {
        type(m.row) for m in rows if m.model_variant.role in ("base", "extrapolation") and not m.model_variant.steps
    }
    of_others = {type(m.row) for m in rows if m.model_variant.extended}
    of_base |= {BenchmarkComparison} & of_others  # which holds both
    unasked = [what for what, asked in _ASKED.items() if of_others & {*asked.shown} and not of_base & {*asked.shown}]
    return f"of the base {clean.base_of(lineage)}".rstrip() + f": {', '.join(unasked)}" if unasked else ""
