"""Faults that are no options: hostile files, streams, disks, limits, kills, two writers; each a row of a small table.

in   the template: a tiny model, a training run, an adapter, texts, items, pairs, records
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import gzip
import json
import lzma
import os
import random
import resource
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from bench.fault_worker import DONE, EITHER, REFUSED, Case

EXTEND = ("extend", "base", "--window", "128", "--out", "new")
PERPLEXITY = ("perplexity", "base", "--data", "data", "--windows", "64", "--stride", "32")
TRAIN = (
    "train",
    "base",
    "--data",
    "data",
    "--window",
    "128",
    "--steps",
    "2",
    "--batch-size",
    "1",
    "--threads",
    "1",
    "--out",
    "new",
)
PLAN = ("plan", "base", "--window", "128", "--gpus", "8xH100")
THEORY = ("theory", "--model", "base", "--out", "new")
REPORT = ("report", "run/records.jsonl", "--out", "new.html")
MERGE = ("merge", "adapter", "--base", "base", "--out", "new")
SEARCH = (
    "search",
    "base",
    "--data",
    "data",
    "--window",
    "128",
    "--documents",
    "1",
    "--population",
    "4",
    "--generations",
    "1",
    "--out",
    "new.json",
)
EXPORT = ("export", "base", "--for", "vllm", "--out", "new")
#: Each reads a config in its own way.
_READS_CONFIG = {"extend": EXTEND, "perplexity": PERPLEXITY, "plan": PLAN, "theory": THEORY}
ITEM = {"goal": "To open a jar", "sol1": "turn the lid", "sol2": "eat the lid", "label": 0}


def make_template(place: Path) -> None:
    """Everything that a command may be pointed at."""
    from ropewalk import export, passkey, perplexity, testing, train

    place.mkdir()
    testing.tiny_directory(place / "base", window=64)
    (place / "data").mkdir()
    for number in range(3):
        (place / f"data/d{number}.txt").write_text(testing.prose(120, number))
    run = dict(data=[place / "data"], window=128, steps=2, batch_size=1, save_every=1, threads=1)
    train(place / "base", out=place / "run", **run)
    train(place / "base", out=place / "lora", mode="lora", **run)
    shutil.copytree(place / "lora/adapter", place / "adapter")
    export(place / "adapter", base=place / "base", reader="peft", out=place / "plain")
    perplexity(place / "base", data=[place / "data"], windows=[64], stride=32, out=place / "measured.jsonl")
    passkey(place / "base", window=256, depths=2, trials=1, out=place / "measured.jsonl")
    (place / "items").mkdir()
    (place / "items/piqa.jsonl").write_text("".join(json.dumps(ITEM) + "\n" for _ in range(3)))
    pair = {"document": testing.prose(20, 5), "summary": "A day."}
    (place / "pairs.jsonl").write_text(json.dumps(pair) + "\n")
    (place / "loop").symlink_to("loop")


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (
        _configs, _weights, _tokenizers, _texts, _items, _records, _streams, _disks, _limits, _kills, _writers, _trust, _sound,
    ):  # fmt: skip
        yield from table()


# Configs ------------------------------------------------------------------------------------------------------------------------

#: What may stand at any key of a config.json.
ODD: tuple[Any, ...] = (
    None,
    "x",
    "",
    -1,
    0,
    1.5,
    True,
    [],
    {},
    [None],
    {"a": 1},
    10**30,
    1e308,
    float("inf"),
    float("nan"),
    "8",
    "\ud800",
)
KEYS = (
    "model_type", "architectures", "max_position_embeddings", "rope_parameters", "rope_scaling", "rope_theta", "hidden_size", "head_dim",
    "num_attention_heads", "num_key_value_heads", "num_hidden_layers", "vocab_size", "intermediate_size", "rms_norm_eps", "hidden_act",
    "tie_word_embeddings", "ropewalk", "text_config", "auto_map", "layer_types", "sliding_window", "dtype", "torch_dtype",
    "quantization_config", "bos_token_id", "attention_bias", "partial_rotary_factor", "transformers_version", "original_max_position_embeddings",
)  # fmt: skip
_SCALINGS: tuple[Any, ...] = (
    {"rope_type": "linear"}, {"rope_type": "linear", "factor": 0}, {"rope_type": "linear", "factor": "x"}, {"rope_type": "linear", "factor": 1e400},
    {"rope_type": "yarn"}, {"rope_type": "yarn", "factor": -2.0}, {"rope_type": "longrope", "short_factor": [1], "long_factor": "x"},
    {"rope_type": "longrope", "short_factor": [], "long_factor": []}, {"rope_type": "llama3", "factor": 8.0}, {"rope_type": []}, {"type": {}},
    {"rope_type": "dynamic", "factor": 2.0}, {"rope_type": "new"}, {"full_attention": {"rope_type": "linear"}}, {"rope_type": "yarn", "factor": 4.0,
    "original_max_position_embeddings": "64"}, {"rope_type": "default", "rope_theta": -1}, {"rope_type": "llama3", "factor": 8.0,
    "low_freq_factor": 4.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
)  # fmt: skip
_WHOLE_CONFIGS = {
    "empty": "", "no JSON": "{", "a list": "[]", "a number": "3", "deep": "[" * 100_000, "deep objects": '{"a":' * 50_000, "binary": "\0\1\2",
    "latin-1": b'{"a": "\xe9"}', "bom": b"\xef\xbb\xbf{}", "an object": "{}", "long number": '{"hidden_size": ' + "9" * 5000 + "}",
}  # fmt: skip


def _configs() -> Iterator[Case]:
    for key in KEYS:
        for number, value in enumerate(ODD):
            command = list(_READS_CONFIG)[(len(key) + number) % len(_READS_CONFIG)]
            yield _config(f"{command}: {key} is {str(value)[:20]!r}", _READS_CONFIG[command], {key: value})
    for scaling in _SCALINGS:
        for key in ("rope_scaling", "rope_parameters"):
            for command in ("extend", "perplexity"):
                yield _config(f"{command}: {key} is {json.dumps(scaling)[:60]}", _READS_CONFIG[command], {key: scaling})
    for name, content in _WHOLE_CONFIGS.items():
        for command, line in _READS_CONFIG.items():
            yield Case("configs", f"{command}: {name}", line, REFUSED, _writes("base/config.json", content))
    for name, make in _NO_FILES.items():
        for command, line in _READS_CONFIG.items():
            yield Case(
                "configs", f"{command}: config.json is {name}", line, REFUSED, _replaces("base/config.json", make)
            )


def _merges(name: str, changed: dict[str, Any]) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / name).write_text(json.dumps(json.loads((place / name).read_text()) | changed))

    return prepare


def _all_tokens(place: Path, said: str) -> str:
    return "" if "1899" in said else "silent: not every token of the template's texts"


def _config(name: str, line: tuple[str, ...], changed: dict[str, Any]) -> Case:
    def prepare(place: Path) -> None:
        path = place / "base/config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changed))

    return Case("configs", name, line, EITHER, prepare, check=_finite, keeps=True)


def _finite(place: Path, said: str) -> str:
    return "silent: a figure that is no number" if " nan" in said.lower() or "inf " in said.lower() else ""


# Weights ------------------------------------------------------------------------------------------------------------------------


def _headers() -> dict[str, Callable[[dict[str, Any]], Any]]:
    """What may be wrong with a header; each changes it or returns what stands in its place."""

    def first(change: dict[str, Any]) -> Callable[[dict[str, Any]], Any]:
        return lambda header: next(entry for name, entry in header.items() if name != "__metadata__").update(change)

    return {
        **{f"first tensor: {json.dumps(change)[:50]}": first(change) for change in (
            {"dtype": "F17"}, {"dtype": None}, {"dtype": []}, {"shape": None}, {"shape": [-1]}, {"shape": ["a"]}, {"shape": [2**63]}, {"shape": []},
            {"shape": [10**30]}, {"data_offsets": [0]}, {"data_offsets": [8, 0]}, {"data_offsets": [-8, 8]}, {"data_offsets": "x"},
            {"data_offsets": [0, 10**30]}, {"data_offsets": [0.5, 2]}, {"data_offsets": None}, {"dtype": "I64"}, {"dtype": "BOOL"},
        )},
        "a list": lambda _: [], "a number": lambda _: 3, "empty": lambda _: {}, "a tensor that is a number": lambda header: header.update(a=3),
        "metadata of numbers": lambda header: header.update(__metadata__={"a": 3}), "metadata is a list": lambda header: header.update(__metadata__=[]),
        "no first tensor": lambda header: header.pop(next(name for name in header if name != "__metadata__")) and None,
        "another name": lambda header: header.update(other=header.pop(next(name for name in header if name != "__metadata__"))),
    }  # fmt: skip


_BYTES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda raw: b"", "eight bytes": lambda raw: raw[:8], "cut in its header": lambda raw: raw[:100], "cut in its tensors": lambda raw: raw[:-100],
    "longer": lambda raw: raw + bytes(100), "a length of 2**63": lambda raw: struct.pack("<Q", 2**63) + raw[8:], "a length of 0": lambda raw: bytes(8) + raw[8:],
    "a length of -1": lambda raw: b"\xff" * 8 + raw[8:], "zeros": lambda raw: bytes(len(raw)), "a page": lambda raw: b"<html>" * 100,
    "a pointer of Git LFS": lambda raw: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a zip": lambda raw: b"PK\3\4" + raw,
    "NaN": lambda raw: raw[:-4096] + struct.pack("<f", float("nan")) * 1024, "infinite": lambda raw: raw[:-4096] + struct.pack("<f", float("inf")) * 1024,
}  # fmt: skip
_INDICES: tuple[Any, ...] = (
    {}, [], 3, {"weight_map": []}, {"weight_map": {"a": 3}}, {"metadata": {}, "weight_map": {"a": "../base/model.safetensors"}}, {"weight_map": {"a": "missing"}},
    {"metadata": {}, "weight_map": {}}, {"metadata": None, "weight_map": {"a": None}}, {"metadata": {}, "weight_map": {"a": "/dev/zero"}},
)  # fmt: skip


def _weights() -> Iterator[Case]:
    lines = {"perplexity": PERPLEXITY, "extend": EXTEND, "train": TRAIN}
    for name, change in _headers().items():
        for command in ("perplexity", "extend"):
            expected = EITHER if "metadata" in name else REFUSED
            yield Case("weights", f"{command}: header: {name}", lines[command], expected, _header(change))
    for name, change in _BYTES.items():
        for command in lines if name in ("NaN", "infinite") else ("perplexity", "extend"):
            # extend links the weights and reads none of them: whoever loads the result is told.
            expected = DONE if command == "extend" and name in ("NaN", "infinite") else REFUSED
            yield Case(
                "weights",
                f"{command}: weights: {name}",
                lines[command],
                expected,
                _bytes("base/model.safetensors", change),
            )
    for index in _INDICES:
        for command in ("perplexity", "extend"):
            yield Case("weights", f"{command}: index: {json.dumps(index)[:50]}", lines[command], REFUSED, _index(index))
    for name, make in _NO_FILES.items():
        yield Case(
            "weights", f"perplexity: weights are {name}", PERPLEXITY, REFUSED, _replaces("base/model.safetensors", make)
        )


def _header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        path = place / "base/model.safetensors"
        raw = path.read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        header = json.loads(raw[8 : 8 + length])
        replaced = change(header)
        written = json.dumps(header if replaced is None else replaced).encode()
        path.write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])

    return prepare


def _index(content: Any) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / "base/model.safetensors").rename(place / "base/other.safetensors")
        (place / "base/model.safetensors.index.json").write_text(json.dumps(content))

    return prepare


# Tokenizers ---------------------------------------------------------------------------------------------------------------------

_TOKENIZERS = {
    "empty": "",
    "no JSON": "{",
    "a list": "[]",
    "an object": "{}",
    "deep": "[" * 100_000,
    "null": "null",
    "no model": '{"model": null}',
}
_TOKENIZER_CONFIGS = {
    "no JSON": "{", "a list": "[]", "another class": '{"tokenizer_class": "NoSuchTokenizer"}', "a class that is a number": '{"tokenizer_class": 3}',
    "a length of text": '{"model_max_length": "x"}', "tokens of numbers": '{"bos_token": 3, "eos_token": []}', "a template that is none": '{"chat_template": 3}',
    "special tokens": '{"added_tokens_decoder": {"x": 3}}', "own code": '{"auto_map": {"AutoTokenizer": ["x.Y", null]}, "tokenizer_class": "Y"}',
}  # fmt: skip


def _tokenizers() -> Iterator[Case]:
    for name, content in _TOKENIZERS.items():
        for command in (PERPLEXITY, TRAIN):
            yield Case(
                "tokenizers",
                f"{command[0]}: tokenizer.json: {name}",
                command,
                REFUSED,
                _writes("base/tokenizer.json", content),
            )
    for name, content in _TOKENIZER_CONFIGS.items():
        for command in (PERPLEXITY, EXTEND):
            yield Case(
                "tokenizers",
                f"{command[0]}: tokenizer_config.json: {name}",
                command,
                EITHER,
                _writes("base/tokenizer_config.json", content),
            )
    yield Case(
        "tokenizers",
        "ids beyond the embedding",
        PERPLEXITY,
        REFUSED,
        _bytes("base/tokenizer.json", lambda raw: raw.replace(b"256", b"9256")),
    )
    yield Case("tokenizers", "none at all", PERPLEXITY, REFUSED, lambda place: (place / "base/tokenizer.json").unlink())
    nothing = {"normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}}
    for name, changed, expected in (
        ("makes no token of any text", nothing, REFUSED),
        (
            "cuts",
            {"truncation": {"direction": "Right", "max_length": 10, "strategy": "LongestFirst", "stride": 0}},
            DONE,
        ),
    ):
        yield Case(
            "tokenizers",
            f"perplexity: one that {name}",
            PERPLEXITY,
            expected,
            _merges("base/tokenizer.json", changed),
            check=_all_tokens,
        )
    for name in ("generation_config.json", "tokenizer_config.json"):
        for content in ("{", "[]", '{"max_length": "x", "temperature": []}', "[" * 100_000):
            yield Case(
                "tokenizers", f"extend: {name}: {content[:20]}", EXTEND, EITHER, _writes(f"base/{name}", content)
            )


# Texts, items, records ----------------------------------------------------------------------------------------------------------

_TEXTS: dict[str, tuple[str, bytes]] = {
    "empty": ("a.txt", b""), "blank": ("a.txt", b" \n\n"), "binary": ("a.txt", b"a\0b" * 400), "not UTF-8": ("a.txt", b"\xff\xfe" * 400), "too short": ("a.txt", b"a"),
    "a cut gz": ("a.txt.gz", gzip.compress(b"word " * 999)[:-20]), "no gz": ("a.txt.gz", b"word" * 99), "no xz": ("a.txt.xz", b"word" * 99),
    "a cut xz": ("a.txt.xz", lzma.compress(b"word " * 999)[:-20]), "no zst": ("a.txt.zst", b"word" * 99), "a cut zst": ("a.txt.zst", zstandard.compress(b"word " * 999)[:-5]),
    "a gz bomb": ("a.txt.gz", gzip.compress(bytes(1 << 20)) * 128), "a zst bomb": ("a.jsonl.zst", zstandard.compress(b" " * (1 << 20)) * 128),
    "no JSON": ("a.jsonl", b"{"), "a list": ("a.jsonl", b"[1]"), "no text": ("a.jsonl", b'{"a": "b"}'), "a number": ("a.jsonl", b'{"text": 3}'),
    "null": ("a.jsonl", b'{"text": null}'), "deep": ("a.jsonl", b"[" * 100_000), "half a pair": ("a.jsonl", b'{"text": "\\ud83d"}'), "no Parquet": ("a.parquet", b"PAR1" * 9),
    "an empty Parquet": ("a.parquet", b""), "JSON": ("a.json", b'{"text": "a"}'), "commas": ("a.csv", b"a,b\n"), "nul in JSON": ("a.jsonl", b'{"text": "\\u0000"}'),
}  # fmt: skip
_ROWS: dict[str, bytes] = {
    "empty": b"", "no JSON": b"{", "a list": b"[]", "a number": b"3", "deep": b"[" * 100_000, "binary": bytes(range(256)), "no field": b"{}",
    "nulls": b'{"goal": null, "sol1": null, "sol2": null, "label": null, "document": null, "summary": null}', "another label": json.dumps(ITEM | {"label": "0"}).encode(),
    "a label beyond": json.dumps(ITEM | {"label": 7}).encode(), "a list for text": json.dumps(ITEM | {"goal": [3]}).encode(),
    "objects": b'{"goal": {}, "sol1": [], "sol2": 3, "label": 0, "document": {}, "summary": 3}', "latin-1": b'{"goal": "\xe9"}',
}  # fmt: skip
_LINES: tuple[bytes, ...] = (
    b"", b"{", b"[]", b"3", b"null", b"[" * 100_000, b'{"kind": "run"}', b'{"kind": 3}', b'{"kind": "run", "schema": 99}', b'{"kind": "run", "schema": "x"}',
    b'{"kind": "perplexity", "run": "x"}', b'{"kind": "perplexity", "run": []}', b'{"kind": "step", "run": null, "step": "x"}', b"\xff\xfe", b"\0" * 100,
    b'{"kind": "run", "id": {}, "model": 3}', b'{"kind": "run", "model": {"scaling": {"method": 3}}}', b'{"kind": "\\ud800"}', b'{"kind": "run", "id": 1e400}',
)  # fmt: skip


def _texts() -> Iterator[Case]:
    for name, (file, content) in _TEXTS.items():
        for command in (PERPLEXITY, TRAIN):
            line = tuple(f"hostile/{file}" if word == "data" else word for word in command)
            yield Case("texts", f"{command[0]}: {name}", line, REFUSED, _writes(f"hostile/{file}", content))
    for name, make in _NO_FILES.items():
        for file in ("a.txt", "a.jsonl", "a.parquet", "a.txt.gz"):
            line = tuple(f"data/{file}" if word == "data" else word for word in PERPLEXITY)
            yield Case("texts", f"perplexity: {file} is {name}", line, REFUSED, _replaces(f"data/{file}", make))


def _items() -> Iterator[Case]:
    benchmarks = ("benchmarks", "base", "--tasks", "piqa", "--data", "items", "--window", "64")
    summarize = ("summarize", "run", "--data", "pairs.jsonl", "--summary-tokens", "4", "--document-tokens", "8")
    for name, content in _ROWS.items():
        yield Case("items", f"benchmarks: {name}", benchmarks, REFUSED, _writes("items/piqa.jsonl", content))
        yield Case("items", f"summarize: {name}", summarize, REFUSED, _writes("pairs.jsonl", content))


def _records() -> Iterator[Case]:
    appended = (*PERPLEXITY, "--out", "run/records.jsonl")
    for line in _LINES:
        name = repr(line[:50])[2:-1]
        newer = REFUSED if b'"schema": 99' in line else DONE
        yield Case(
            "records",
            f"report: only {name}",
            ("report", "r.jsonl", "--out", "new.html"),
            EITHER,
            _writes("r.jsonl", line),
        )
        yield Case(
            "records", f"report: after {name}", REPORT, newer, _appends("run/records.jsonl", line), check=_has_page
        )
        yield Case(
            "records",
            f"perplexity: after {name}",
            appended,
            newer,
            _appends("run/records.jsonl", line),
            check=_measured,
            keeps=False,
        )


def _has_page(place: Path, said: str) -> str:
    return "" if (place / "new.html").is_file() else "silent: no page"


def _measured(place: Path, said: str) -> str:
    lines = (place / "run/records.jsonl").read_bytes().splitlines()
    return "" if b'"kind":"perplexity"' in lines[-1] else "silent: no row on record"


# Streams, disks, limits ---------------------------------------------------------------------------------------------------------


def _streams() -> Iterator[Case]:
    states: dict[str, tuple[Callable[[], None], str]] = {
        "ascii": (_encoded("ascii"), DONE), "cp1252": (_encoded("cp1252"), DONE), "utf-16": (_encoded("utf-16"), DONE), "closed stdout": (_closed(1), DONE),
        "all closed": (_closed(0, 1, 2), EITHER), "full stdout": (_onto("/dev/full", 1), REFUSED), "full stderr": (_onto("/dev/full", 2), EITHER),
        "a pipe nobody reads": (_unread, EITHER), "no home": (_without("HOME"), DONE), "a home that is a file": (_home, DONE), "no cache": (_cache("/proc/x"), DONE),
        "a cache that is a file": (_cache("data/d0.txt"), DONE), "C locale": (_locale, DONE),
    }  # fmt: skip
    for name, (inside, expected) in states.items():
        for command in (EXTEND, PLAN, PERPLEXITY, REPORT):
            wanted = EITHER if expected == REFUSED and command is EXTEND else expected
            yield Case("streams", f"{command[0]}: {name}", command, wanted, inside=inside)


def _disks() -> Iterator[Case]:
    writes = {
        "extend": EXTEND,
        "train": TRAIN,
        "theory": THEORY,
        "report": REPORT,
        "perplexity": (*PERPLEXITY, "--out", "new.jsonl"),
        "export": EXPORT,
        "merge": MERGE,
        "search": SEARCH,
    }
    for command, line in writes.items():
        yield Case(
            "disks",
            f"{command}: without permission",
            line,
            REFUSED,
            lambda place: place.chmod(0o755),
            inside=_as_nobody,
        )
        yield Case(
            "disks", f"{command}: files of at most 1 kB", line, REFUSED, inside=_limited(resource.RLIMIT_FSIZE, 1024)
        )
        for option in ("", "--overwrite") if command != "perplexity" else ("",):
            taken = (*line, option) if option else line
            for name in ("somebody's file", "somebody's directory"):
                yield Case(
                    "disks", f"{command} {option}: --out is {name}", taken, REFUSED, _theirs(line[-1], "file" in name)
                )
    for command in (PERPLEXITY, TRAIN):
        yield Case(
            "disks",
            f"{command[0]}: a model without permission",
            command,
            REFUSED,
            lambda place: (place / "base/config.json").chmod(0),
            inside=_as_nobody,
        )
        yield Case(
            "disks",
            f"{command[0]}: data without permission",
            command,
            REFUSED,
            lambda place: (place / "data").chmod(0),
            inside=_as_nobody,
        )


def _limits() -> Iterator[Case]:
    for command in (EXTEND, PERPLEXITY, TRAIN, PLAN, REPORT):
        for files in (12, 24, 64):
            yield Case(
                "limits",
                f"{command[0]}: {files} open files",
                command,
                EITHER,
                inside=_limited(resource.RLIMIT_NOFILE, files),
            )
        for mebibytes in (0, 16, 256):
            yield Case(
                "limits", f"{command[0]}: {mebibytes} MiB more memory", command, EITHER, inside=_memory(mebibytes)
            )
    # What no memory holds.
    windows = ("2147483647", "100000000")
    for window in windows:
        yield Case(
            "limits",
            f"passkey: a window of {window}",
            ("passkey", "base", "--window", window, "--depths", "1", "--trials", "1"),
            REFUSED,
            inside=_memory(2048),
        )
        yield Case(
            "limits",
            f"attention: a window of {window}",
            ("attention", "base", "--data", "data", "--window", window),
            REFUSED,
            inside=_memory(2048),
        )
        yield Case(
            "limits",
            f"retrieval: a window of {window}",
            ("retrieval", "base", "--window", window, "--trials", "1"),
            REFUSED,
            inside=_memory(2048),
        )
        yield Case(
            "limits",
            f"perplexity: a window of {window}",
            (*PERPLEXITY[:4], "--windows", window),
            REFUSED,
            inside=_memory(2048),
        )
        yield Case(
            "limits",
            f"train: a window of {window}",
            (*TRAIN[:5], window, *TRAIN[6:], "--allow-short"),
            REFUSED,
            inside=_memory(2048),
        )
        yield Case(
            "limits", f"extend: a window of {window}", (*EXTEND[:3], window, *EXTEND[4:]), EITHER, inside=_memory(2048)
        )
        yield Case(
            "limits", f"theory: a window of {window}", (*THEORY, "--window", window), EITHER, inside=_memory(2048)
        )
        yield Case(
            "limits", f"plan: a window of {window}", (*PLAN[:3], window, *PLAN[4:]), EITHER, inside=_memory(2048)
        )


# Kills, writers, code -----------------------------------------------------------------------------------------------------------


def _kills() -> Iterator[Case]:
    moments = random.Random(0)
    checkpointed = (*TRAIN, "--save-every", "1", "--resume")
    for command, least, most in (
        (EXTEND, 0.02, 0.6),
        (checkpointed, 0.05, 2.0),
        ((*PERPLEXITY, "--out", "new.jsonl"), 0.02, 0.6),
        (THEORY, 0.05, 1.5),
        (REPORT, 0.05, 1.0),
        (EXPORT, 0.05, 0.8),
        (MERGE, 0.05, 1.0),
        (SEARCH, 0.05, 1.0),
    ):
        for _ in range(6):
            moment = round(moments.uniform(least, most), 3)
            again = command if command is checkpointed or "new.jsonl" in command else (*command, "--overwrite")
            yield Case(
                "kills", f"{command[0]}: killed after {moment} s", again, DONE, killed=moment, check=_swept, seconds=60
            )


def _swept(place: Path, said: str) -> str:
    left = [path.name for path in place.iterdir() if path.name.endswith((".partial", ".old", ".new"))]
    return f"left behind: {left[0]}" if left else ""


def _writers() -> Iterator[Case]:
    lines = {
        "extend": EXTEND,
        "train": TRAIN,
        "theory": THEORY,
        "report": REPORT,
        "perplexity": (*PERPLEXITY, "--out", "new.jsonl"),
    }
    for command, line in lines.items():
        for number in range(2):
            yield Case("two writers", f"{command}, {number}", line, EITHER, twice=True, seconds=60)


def _trust() -> Iterator[Case]:
    lines = {"extend": EXTEND, "perplexity": PERPLEXITY, "train": TRAIN, "export": EXPORT,
             "passkey": ("passkey", "base", "--window", "256", "--depths", "1", "--trials", "1")}  # fmt: skip
    for command, line in lines.items():
        yield Case(
            "code of its own",
            f"{command}, untrusted, a stdin that says yes",
            line,
            REFUSED,
            _own_code,
            inside=_yes,
            check=_did_not_run,
        )
        yield Case(
            "code of its own", f"{command}, trusted", (*line, "--trust-remote-code"), DONE, _own_code, check=_ran
        )


def _sound() -> Iterator[Case]:
    """What is right is done: or refusing everything would pass."""
    train_again = ("train", "run", *TRAIN[2:])
    for line in (EXTEND, PERPLEXITY, TRAIN, PLAN, THEORY, REPORT, EXPORT, train_again, ("doctor", "base"), ("merge", "adapter", "--base", "base", "--out", "new"),
                 ("generate", "base", "--text", "Once", "--max-new-tokens", "4"), ("benchmarks", "base", "--tasks", "piqa", "--data", "items")):  # fmt: skip
        yield Case("nothing wrong", " ".join(line[:2]), line, DONE)
    for name in ("ä ö", "\udcff", "日本", "a'b\"c", "-x", "a" * 200, "a\nb"):
        line = tuple(f"./{name}" if word == "new" else word for word in EXTEND)
        yield Case("nothing wrong", f"extend: --out {name[:9]!r}", line, EITHER if name == "\udcff" else DONE)


# The faults themselves ----------------------------------------------------------------------------------------------------------

#: What is no file, by what makes it.
_NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/urandom": lambda path: path.symlink_to("/dev/urandom"),
    "a directory": lambda path: path.mkdir(),
    "a loop": lambda path: path.symlink_to(path.name),
    "gone": lambda path: path.symlink_to("nowhere"),
}


def _writes(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content

    def prepare(place: Path) -> None:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(raw)

    return prepare


def _appends(name: str, line: bytes) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes() + line + b"\n") and None


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes())) and None


def _replaces(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        make(place / name)

    return prepare


def _theirs(name: str, is_file: bool) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        if is_file:
            (place / name).write_text("mine\n")
        else:
            (place / name).mkdir()
            (place / name / "thesis.tex").write_text("mine\n")

    return prepare


def _own_code(place: Path) -> None:
    path = place / "base/config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    (place / "base/own.py").write_text(
        f"from pathlib import Path\nfrom transformers import LlamaConfig, LlamaForCausalLM\nPath({str(place / 'ran')!r}).touch()\n"
        'class C(LlamaConfig):\n    model_type = "own"\nclass M(LlamaForCausalLM):\n    config_class = C\n'
    )


def _did_not_run(place: Path, said: str) -> str:
    return "silent: its code ran" if (place / "ran").exists() else ""


def _ran(place: Path, said: str) -> str:
    return "" if (place / "ran").exists() else "its code did not run"


def _yes() -> None:
    Path("yes").write_text("y\n" * 50)
    os.dup2(os.open("yes", os.O_RDONLY), 0)
    sys.stdin = open(0, closefd=False)


def _encoded(encoding: str) -> Callable[[], None]:
    def inside() -> None:
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)
        sys.stderr = open(2, "w", encoding=encoding, closefd=False)

    return inside


def _closed(*numbers: int) -> Callable[[], None]:
    def inside() -> None:
        for number in numbers:
            os.close(number)
        if 1 in numbers:
            sys.stdout = None  # as the interpreter starts without one
        if 2 in numbers:
            sys.stderr = None

    return inside


def _onto(path: str, number: int) -> Callable[[], None]:
    return lambda: os.dup2(os.open(path, os.O_WRONLY), number) and None


def _unread() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)


def _without(name: str) -> Callable[[], None]:
    return lambda: os.environ.pop(name, None) and None


def _home() -> None:
    os.environ["HOME"] = str(Path("data/d0.txt").absolute())


def _cache(path: str) -> Callable[[], None]:
    return lambda: os.environ.update(ROPEWALK_CACHE=path)


def _locale() -> None:
    os.environ |= {"LC_ALL": "C", "LANG": "C", "TERM": "dumb"}
    _encoded("ascii")()


def _limited(what: int, most: int) -> Callable[[], None]:
    def inside() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(what, (most, most))

    return inside


def _memory(mebibytes: int) -> Callable[[], None]:
    """So much address space more than the process has now."""

    def inside() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = now + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return inside


def _as_nobody() -> None:
    """Another user, who may read what is here and write nothing; root itself is refused nothing."""
    os.environ["ROPEWALK_CACHE"] = "/nowhere"
    os.setgid(65534)
    os.setuid(65534)
