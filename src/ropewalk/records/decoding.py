"""One line of a record file as the class that was written: its schema, older names, null where a number was not finite, scalings.

in   a line of JSON, and the class that its kind names
out  a `Run` or a row; `ValidationError` where the line does not fit its kind
"""

from __future__ import annotations

import functools
import inspect
import math
from dataclasses import dataclass
from types import NoneType
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from ropewalk.errors import UserError
from ropewalk.records.files import SCHEMA
from ropewalk.records.rows import Run
from ropewalk.rope.scaling import SCALINGS, InvFreq, Rope, Scaling

R = TypeVar("R")


@dataclass(frozen=True)
class Unspecified(Scaling):
    """A scaling of which a record names the method and the factor, but not every parameter, such as Llama 3's thresholds.

    Records from before schema 1 are like this, and those of a newer version with a method that this one does not know.
    """

    method: str  # pyrefly: ignore[bad-override] (one class for many methods)
    factor: float

    def __post_init__(self) -> None:
        if not 0 < self.factor < math.inf:
            raise ValueError(f"a factor is above 0 and finite, got {self.factor}")

    @property
    def label(self) -> str:  # pyrefly: ignore[bad-override] (one class for many methods)
        return SCALINGS[self.method].label if self.method in SCALINGS else self.method

    def inv_freq(self, rope: Rope) -> InvFreq:
        raise UserError(
            f"the frequencies of {self.method} scaling follow from its thresholds, which are not on record; measure again"
        )


#: kind → what a field was called before schema 1, and is called now.
_RENAMED = {"attention": {"strays": "deviation"}, "theory_bounds": {"base": "rope_theta"}}


def decode_header(text: bytes, place: str) -> Run:
    """The header of a run.

    Args:
        place: where the line stands, for errors.

    Raises:
        UserError: a newer version of ropewalk wrote it in a format that this one does not know.
    """
    entry = msgspec.json.decode(text)
    schema = entry.get("schema", 0)
    if isinstance(schema, int) and schema > SCHEMA:
        raise UserError(
            f"this version of ropewalk reads record files up to schema {SCHEMA}, but {place} has schema {schema}; "
            "install the version that wrote it, or a newer one"
        )
    run = msgspec.convert(_as_schema_1(entry), Run, dec_hook=_scaling)
    if not (0 < run.model.original_window < 10**12 and 0 < run.model.window < 10**12):
        raise msgspec.ValidationError(f"windows are above 0, got {run.model.original_window} and {run.model.window}")
    return run


def decode_row(kind: type[R], text: bytes) -> R:
    """A row from its line: decoded straight; where that fails, with older names converted and null read as NaN where no None is allowed."""
    try:
        return _decoder(kind).decode(text)
    except msgspec.ValidationError:
        entry = _as_schema_1(msgspec.json.decode(text))
        optional = _optional(kind)
        entry = {name: value if name in optional else _nan_for_null(value) for name, value in entry.items()}
        return msgspec.convert(entry, kind, dec_hook=_scaling)


@functools.cache
def _decoder(kind: type[R]) -> msgspec.json.Decoder[R]:
    return msgspec.json.Decoder(kind, dec_hook=_scaling)


@functools.cache
def _optional(kind: type) -> frozenset[str]:
    """The fields whose type allows None. In all others null stands for a number that was not finite."""
    return frozenset(name for name, hint in get_type_hints(kind).items() if NoneType in get_args(hint))


def _nan_for_null(value: Any) -> Any:
    if isinstance(value, list):
        return [_nan_for_null(item) for item in value]
    if isinstance(value, dict):
        return {name: _nan_for_null(item) for name, item in value.items()}
    return math.nan if value is None else value


def _as_schema_1(entry: dict[str, Any]) -> dict[str, Any]:
    """A line of before schema 1 as schema 1 has it: a scaling with all its parameters, and the fields by their present names."""
    if isinstance(model := entry.get("model"), dict) and "scaling" not in model:
        return entry | {"model": {"rope_theta": model.get("theta", 10000.0), **model, "scaling": _scaling_entry(model)}}
    if entry["kind"] == "theory_resolution" and "scaling" not in entry:
        return entry | {"scaling": _scaling_entry(entry)}
    renamed = _RENAMED.get(entry["kind"], {})
    return entry | {new: entry[old] for old, new in renamed.items() if old in entry}


def _scaling_entry(entry: dict[str, Any]) -> dict[str, Any]:
    return {"method": entry.get("method", "plain"), "factor": entry.get("factor", 1.0)}


def _scaling(kind: type, entry: Any) -> Scaling:
    """What `rope.scaling.to_dict` wrote, for msgspec: checked like every other field, and `Unspecified` if parts are missing."""
    if kind is not Scaling:
        raise NotImplementedError(f"no field of a record is a {kind.__name__}")
    known = SCALINGS.get(msgspec.convert(entry, dict[str, Any]).get("method", ""))
    # None, which leaves a parameter to its class, is not written.
    needed = () if known is None else inspect.signature(known).parameters.values()
    if known is None or {parameter.name for parameter in needed if parameter.default is not None} - entry.keys():
        return msgspec.convert(entry, Unspecified)
    return msgspec.convert(entry, known)
