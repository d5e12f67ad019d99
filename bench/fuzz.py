"""The four readers of what others wrote, fed with what nobody would write: config.json, safetensors headers, JSON lines, records.

    python -m bench.fuzz                       a minute for each reader
    python -m bench.fuzz --seconds 600 --only config

Inputs that reach lines of ropewalk which none reached before are kept and changed further. Whatever is raised and is no UserError is printed with
the input that raised it; so is what takes longer than a second. Exit status 1 if there was any.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import dataclasses
import io
import json
import random
import struct
import sys
import tempfile
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ropewalk
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.headers import check_safetensors
from ropewalk.data import jsonlines
from ropewalk.data.documents import read_documents
from ropewalk.errors import UserError, is_shortage
from ropewalk.model.extend import extended_config
from ropewalk.planner.named import shape_of
from ropewalk.readers.rules import READERS
from ropewalk.records import read as read_records
from ropewalk.records.variant import variant_of

SOURCES = str(Path(ropewalk.__file__).parent)
ODD = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    7,
    64,
    0.5,
    1e308,
    float("inf"),
    float("nan"),
    10**30,
    "",
    "x",
    "8",
    "\ud800",
    [],
    {},
    [[]],
    [None],
    {"a": 1},
)
_BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"{",
    b"}",
    b"[",
    b"]",
    b'"',
    b",",
    b":",
    b"\n",
    b"1e999",
    b"\\ud800",
    b"null",
    b"-",
    b"\xef\xbb\xbf",
    b"9" * 40,
)


def _config(data: bytes, place: Path) -> None:
    """All that is read from a config.json without torch: its RoPE, its layers, its shape, what readers make of it, what extend would write."""
    (place / "config.json").write_bytes(data)
    checkpoint = Checkpoint.open(place)
    for reading in (
        lambda: checkpoint.rope.inv_freq(),
        lambda: str(checkpoint.layers),
        lambda: checkpoint.info.to_dict(),
        lambda: shape_of(checkpoint),
        lambda: extended_config(checkpoint, window=2 * checkpoint.rope.window),
        lambda: [
            (
                reader.refusal(checkpoint.config),
                reader.window(checkpoint.config, {}),
                reader.inv_freq(checkpoint.config),
            )
            for reader in READERS.values()
        ],
    ):
        with contextlib.suppress(UserError):
            reading()


def _header(data: bytes, place: Path) -> None:
    """A header and the tensors after it, sixteen bytes that are zero."""
    (place / "a.safetensors").write_bytes(struct.pack("<Q", len(data)) + data + bytes(16))
    check_safetensors(place / "a.safetensors")


def _lines(data: bytes, place: Path) -> None:
    (place / "a.jsonl").write_bytes(data)
    with contextlib.suppress(UserError):
        list(read_documents(place / "a.jsonl"))
    list(jsonlines.read(place / "a.jsonl", {"document": jsonlines.text, "label": jsonlines.one_of(0, 1)}))


def _records(data: bytes, place: Path) -> None:
    (place / "r.jsonl").write_bytes(data)
    for measurement in read_records([place / "r.jsonl"]).measurements:
        str(measurement)
        variant_of(measurement.run.model)


@dataclasses.dataclass(frozen=True)
class Reader:
    """What is called with an input, and inputs to begin from."""

    read: Callable[[bytes, Path], None]
    seeds: list[bytes]


def readers() -> dict[str, Reader]:
    """The four, each with sound inputs of every kind that is at hand."""
    from ropewalk import testing

    configs = []
    for family in testing.FAMILIES:
        config = testing.tiny_config(family).to_dict()
        configs += [
            config,
            config | {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}},
            config | {"rope_scaling": {"type": "linear", "factor": 2.0}},
        ]
    tensor = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}
    items = [{"text": "a", "id": 1}, {"document": "a", "label": 0, "name": "b"}, {"content": "a", "title": None}]
    records = [path.read_bytes() for path in Path(__file__).parents[1].glob("tests/**/*.jsonl")]
    return {
        "config": Reader(_config, [json.dumps(config, default=str).encode() for config in configs]),
        "header": Reader(_header, [json.dumps({"a": tensor, "__metadata__": {"format": "pt"}}).encode(), b"{}"]),
        "lines": Reader(_lines, [json.dumps(item).encode() + b"\n" for item in items]),
        "records": Reader(_records, [*records, *_made_records()]),
    }


def _made_records() -> Iterator[bytes]:
    """The records of a run of each kind that costs nothing: the theory, and a row of each class with what its fields are by type."""
    from ropewalk import records
    from ropewalk.records.kinds import KINDS
    from ropewalk.suite.theory import put_on_record

    info = records.ModelInfo("m", "llama", 64, 128, head_dim=16)
    with tempfile.TemporaryDirectory() as folder:
        put_on_record(info, Path(folder) / "r.jsonl")
        yield (Path(folder) / "r.jsonl").read_bytes()
    run = records.new_run(info, device="cpu", dtype="float32")
    yield records.to_line(run).encode()
    for kind in KINDS.values():
        fields = {field.name: 1 if "int" in str(field.type) else 0.5 for field in dataclasses.fields(kind)}
        yield (records.to_line(run) + "\n" + json.dumps({"kind": kind.kind, "run": run.id, **fields}) + "\n").encode()


def mutated(data: bytes, draw: random.Random, others: list[bytes]) -> bytes:
    """Something near it: as JSON, one value changed, moved or gone; or as bytes."""
    if draw.random() < 0.75:
        with contextlib.suppress(ValueError, RecursionError):
            lines = data.split(b"\n")
            at = draw.randrange(len(lines))
            lines[at] = json.dumps(_changed(json.loads(lines[at]), draw, others)).encode()
            return b"\n".join(lines)
    at, length = draw.randrange(len(data) + 1), draw.choice((0, 1, 1, 2, 8))
    return data[:at] + draw.choice(_BYTES) * draw.choice((1, 1, 1, 3)) + data[at + length :]


def _changed(value: Any, draw: random.Random, others: list[bytes]) -> Any:
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        what = draw.random()
        if what < 0.6:
            return value | {key: _changed(value[key], draw, others)}
        if what < 0.7:
            return {name: held for name, held in value.items() if name != key}
        if what < 0.85 and isinstance(other := json.loads(draw.choice(others).split(b"\n")[0]), dict) and other:
            borrowed = draw.choice(list(other))
            return value | {borrowed: other[borrowed]}
        return value | {key: value[draw.choice(list(value))]}
    if isinstance(value, list) and value and draw.random() < 0.7:
        at = draw.randrange(len(value))
        return [*value[:at], _changed(value[at], draw, others), *value[at + draw.choice((0, 1)) :]]
    return draw.choice(ODD)


class Coverage:
    """The lines of ropewalk that ran, while it is on."""

    def __init__(self) -> None:
        self.lines: set[tuple[str, int]] = set()

    def __enter__(self) -> set[tuple[str, int]]:
        self.lines = set()
        sys.settrace(self._call)
        return self.lines

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)

    def _call(self, frame: types.FrameType, event: str, _: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(SOURCES) else None

    def _line(self, frame: types.FrameType, event: str, _: Any) -> Any:
        if event == "line":
            self.lines.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def fuzz(reader: Reader, seconds: float, seed: int) -> tuple[int, int, dict[str, bytes]]:
    """Inputs tried, lines reached, and what went wrong: the last line of each traceback with the first input that raised it."""
    draw, corpus, reached = random.Random(seed), list(reader.seeds), set[tuple[str, int]]()
    found: dict[str, bytes] = {}
    tried, until = 0, time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        while time.monotonic() < until:
            data = (
                reader.seeds[tried] if tried < len(reader.seeds) else mutated(draw.choice(corpus), draw, reader.seeds)
            )
            began = time.monotonic()
            with Coverage() as lines:
                wrong = _wrong(reader, data, Path(folder))
            if not wrong and time.monotonic() - began > 1:
                wrong = "took longer than a second"
            if wrong:
                found.setdefault(wrong, data)
            if lines - reached:
                reached |= lines
                corpus.append(data)
            tried += 1
    return tried, len(reached), found


def _wrong(reader: Reader, data: bytes, place: Path) -> str:
    try:
        with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            reader.read(data, place)
    except UserError:
        return ""
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        where = traceback.extract_tb(error.__traceback__)[-1]
        return (
            ""
            if is_shortage(error)
            else f"{type(error).__name__}: {str(error)[:80]} at {Path(where.filename).name}:{where.lineno}"
        )
    return ""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--only", choices=["config", "header", "lines", "records"])
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    wrong = 0
    for name, reader in readers().items():
        if chosen.only in (None, name):
            tried, reached, found = fuzz(reader, chosen.seconds, chosen.seed)
            print(f"{name}: {tried} inputs, {reached} lines of ropewalk reached, {len(found)} faults", flush=True)
            for what, data in found.items():
                print(f"  {what}\n    {base64.b64encode(data[:4000]).decode()}")
            wrong += len(found)
    return int(wrong > 0)


if __name__ == "__main__":
    raise SystemExit(main())
