"""Rows as a table: a pandas frame, or what a notebook shows of them.

in   rows, or measurements, which are rows with their runs
out  a line a row, a column a field; of attention a line a head, or a head and distance; other lists (documents, places) are left to the rows
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, TypeVar

from ropewalk.errors import UserError
from ropewalk.records.measurement import Measurement

if TYPE_CHECKING:
    import pandas

R = TypeVar("R")
#: Columns that an untrained model has nothing in: pandas would make decimals of whole numbers, and objects of a column without any.
_WITH_GAPS = {"seed": "Int64", "training_tokens": "Int64", "learning_rate": "float64"}
#: Lines that a notebook shows; a frame has all.
_SHOWN = 100


class Rows(list[R]):
    """A list of rows or measurements that shows as a table in a notebook."""

    def to_pandas(self) -> pandas.DataFrame:
        """A line a row, a column a field; of measurements first the model and what tells it apart: its state (base, PI ×4 before training, …), method, factor, steps and the seed of its training.

        An untrained model has 0 training tokens, and seed and learning rate missing (`pandas.NA`, NaN); `groupby` leaves such lines out unless told `dropna=False`.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise UserError("to_pandas needs pandas, which is not installed: pip install pandas") from None
        frame = pandas.DataFrame(_lines(self))
        return frame.astype({name: dtype for name, dtype in _WITH_GAPS.items() if name in frame})

    def _repr_html_(self) -> str:
        lines = _lines(self)
        heads = list(dict.fromkeys(name for line in lines for name in line))
        rows = [
            f"<tr>{''.join(f'<td>{_shown(line.get(name))}</td>' for name in heads)}</tr>" for line in lines[:_SHOWN]
        ]
        more = f"<p>{len(lines)} lines in all</p>" if len(lines) > _SHOWN else ""
        return f"<table><thead><tr>{''.join(f'<th>{escape(name)}</th>' for name in heads)}</tr></thead><tbody>{''.join(rows)}</tbody></table>{more}"


def _lines(rows: Sequence[Any]) -> list[dict[str, Any]]:
    singly = [single for each in rows for single in getattr(each, "measurements", [each])]
    return [
        (_of_run(each) if isinstance(each, Measurement) else {}) | line
        for each in singly
        for line in _fields(each.row if isinstance(each, Measurement) else each)
    ]


def _of_run(measurement: Measurement[Any]) -> dict[str, Any]:
    """What rows are grouped by; `seed` is the training's, and nothing where none is on record; an untrained model has read 0 tokens."""
    variant = measurement.variant
    return {
        "model": measurement.run.model.name,
        "state": variant.label,
        "base": variant.short_name if variant.role in ("base", "extrapolation") else variant.base,
        "method": variant.recipe.word
        or ("direct" if variant.extended and variant.method == "plain" else variant.method),
        "factor": variant.factor,
        "steps": variant.steps,
        "seed": variant.recipe.seed,
        "learning_rate": _number(dict(variant.recipe.facts).get("learning_rate")),
        "training_tokens": variant.recipe.tokens if variant.steps else 0,
    }


def _number(text: str | None) -> float | None:
    return None if text is None else float(text)


def _fields(row: Any) -> list[dict[str, Any]]:
    values = {"kind": row.kind, **{field.name: getattr(row, field.name) for field in dataclasses.fields(row)}}
    single = {name: value for name, value in values.items() if not isinstance(value, list | dict | tuple)}
    return [single | line for line in getattr(row, "lines", [{}])]


def _shown(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return escape(f"{value:.4g}" if isinstance(value, float) else str(value))
