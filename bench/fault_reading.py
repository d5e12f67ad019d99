"""Faults of what is read beside a model: texts, items, records, adapters; and of all of it, what is no file and what has a bit flipped.

in   the template of fault_files.py
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import zstandard

from bench.fault_files import ITEM, finite
from bench.fault_inputs import LINES, READS_CONFIG, every, into
from bench.fault_makers import NO_FILES, appends, flips, holds, hub_cache, merges, replaces, rewrites, writes
from bench.fault_worker import DONE, EITHER, REFUSED, Case

PERPLEXITY = LINES["perplexity"]


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (_texts, _items, _records, _adapters, _irregular, _damage):
        yield from table()


# Texts, items, records ----------------------------------------------------------------------------------------------------------


def _parquet(text: str) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), buffer, compression="zstd")
    return buffer.getvalue()


_TEXTS: dict[str, tuple[str, bytes]] = {
    "empty": ("a.txt", b""), "blank": ("a.txt", b" \n\n"), "binary": ("a.txt", b"a\0b" * 400), "not UTF-8": ("a.txt", b"na\xefve " * 400), "marks alone": ("a.txt", b"\xff\xfe" * 400), "too short": ("a.txt", b"a"),
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


_BOMBS = {
    "a gz bomb": ("a.txt.gz", lambda: gzip.compress(bytes(1 << 27))), "an xz bomb": ("a.txt.xz", lambda: lzma.compress(bytes(1 << 27), preset=0)),
    "a zst bomb of one frame": ("a.txt.zst", lambda: zstandard.compress(bytes(1 << 28))), "bz2": ("a.txt.bz2", lambda: bz2.compress(bytes(1 << 20))),
    "a Parquet bomb": ("a.parquet", lambda: _parquet("a" * (1 << 27))),
}  # fmt: skip


def _texts() -> Iterator[Case]:
    tables: dict[str, tuple[str, Callable[[], bytes]]] = {
        name: (file, lambda raw=raw: raw) for name, (file, raw) in _TEXTS.items()
    }
    for name, (file, content) in (tables | _BOMBS).items():
        lines = {
            word: tuple(f"hostile/{file}" if each == "data" else each for each in LINES[word])
            for word in ("perplexity", "train")
        }
        yield from every(
            "texts",
            {name: lambda place, file=file, content=content: writes(f"hostile/{file}", content())(place)},
            lines,
        )
    for file in ("a.txt", "a.jsonl", "a.parquet", "a.txt.gz"):
        of_it = {"perplexity": tuple(f"data/{file}" if word == "data" else word for word in PERPLEXITY)}
        yield from every(
            "texts", {f"{file} is {name}": replaces(f"data/{file}", make) for name, make in NO_FILES.items()}, of_it
        )


def _items() -> Iterator[Case]:
    for command, file in (("benchmarks", "items/piqa.jsonl"), ("summarize", "pairs.jsonl")):
        yield from every(
            "items", {name: writes(file, content) for name, content in _ROWS.items()}, {command: LINES[command]}
        )


def _records() -> Iterator[Case]:
    for text in _LINES:
        name, ends = repr(text[:50])[2:-1], REFUSED if b'"schema": 99' in text else DONE
        after = {f"after {name}": (appends("run/records.jsonl", text), ends)}
        only = {f"only {name}": writes("r.jsonl", text)}
        yield from every("records", only, {"report": ("report", "r.jsonl", "--out", "new.html")}, EITHER)
        yield from every("records", after, {"report": LINES["report"]}, check=_has_page)
        yield from every(
            "records", after, {"perplexity": into("perplexity", "run/records.jsonl")}, check=_measured, keeps=False
        )
    page = {"report": ("report", "measured.jsonl", "--out", "new.html")}
    figures = {
        f"every figure is {value!r}": _figures(value)
        for value in (1e308, -1e308, 10**30, -1, "7", None, [], {"a": 1}, True)
    }
    ends = {
        "a byte order mark": rewrites("measured.jsonl", lambda raw: b"\xef\xbb\xbf" + raw),
        "Windows' line ends": rewrites("measured.jsonl", lambda raw: raw.replace(b"\n", b"\r\n")),
    }
    edited = {f"a document's tokens are {tokens}": _edited_tokens(tokens) for tokens in (-633, 0, 7, 10**30)}
    again = {"perplexity": into("perplexity", "measured.jsonl")}
    yield from every("records", edited, again, DONE, check=_all_tokens, keeps=False)
    yield from every("records", figures, page, EITHER, keeps=False)
    yield from every("records", ends, page, DONE, keeps=False)


def _has_page(place: Path, said: str) -> str:
    return "" if (place / "new.html").is_file() else "silent: no page"


def _measured(place: Path, said: str) -> str:
    lines = (place / "run/records.jsonl").read_bytes().splitlines()
    return "" if b'"kind":"perplexity"' in lines[-1] else "silent: no row on record"


def _edited_tokens(tokens: int) -> Callable[[Path], None]:
    return rewrites("measured.jsonl", lambda raw: raw.replace(b'"tokens":633', f'"tokens":{tokens}'.encode(), 1))


def _all_tokens(place: Path, said: str) -> str:
    return "" if "1899" in said else "silent: another figure than without the edit"


def _figures(value: Any) -> Callable[[Path], None]:
    def changed(raw: bytes) -> bytes:
        lines = [json.loads(line) for line in raw.splitlines()]
        for number, line in enumerate(lines):
            if line["kind"] != "run":
                figures = [name for name, held in line.items() if isinstance(held, float)]
                lines[number] = line | {name: value for name in figures}
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    return rewrites("measured.jsonl", changed)


# Adapters -----------------------------------------------------------------------------------------------------------------------

#: What an adapter_config.json may say that neither peft nor ropewalk can do, or that the adapter's weights do not have.
_ADAPTER: tuple[dict[str, Any], ...] = (
    {"r": "x"}, {"r": 0}, {"r": -1}, {"r": None}, {"r": [8]}, {"r": 3}, {"r": 10**9}, {"lora_alpha": float("nan")}, {"lora_alpha": "x"},
    {"lora_alpha": None}, {"lora_alpha": []}, {"target_modules": "("}, {"target_modules": 3}, {"target_modules": ["zzz"]}, {"target_modules": ["q_proj"]},
    {"peft_type": "BOGUS"}, {"peft_type": []}, {"peft_type": None}, {"peft_type": "IA3"}, {"use_dora": True}, {"rank_pattern": [1]},
    {"rank_pattern": {"q_proj": 4}}, {"alpha_pattern": {"q_proj": "a"}}, {"modules_to_save": 3}, {"modules_to_save": ["lm_head"]}, {"layers_to_transform": 99},
    {"layers_to_transform": [0]}, {"fan_in_fan_out": True}, {"bias": 3}, {"lora_bias": True}, {"eva_config": 3}, {"arrow_config": 3},
    {"alora_invocation_tokens": [1]}, {"trainable_token_indices": [10**6]}, {"brand_new": True},
)  # fmt: skip
_WEIGHTS: dict[str, bytes | None] = {
    "gone": None,
    "empty": b"",
    "no safetensors": b"x" * 99,
    "no tensor": b"\2\0\0\0\0\0\0\0{}",
}


def _adapters() -> Iterator[Case]:
    for folder, base in (("adapter", "base"), ("plain", "plain/base")):
        merge = {f"merge {folder}": ("merge", folder, "--base", base, "--out", "new")}
        config, weights = f"{folder}/adapter_config.json", f"{folder}/adapter_model.safetensors"
        yield from every("adapters", {json.dumps(changed): merges(config, changed) for changed in _ADAPTER}, merge)
        yield from every(
            "adapters", {f"weights {name}": holds(weights, content) for name, content in _WEIGHTS.items()}, merge
        )
        nameless = {"a base that is a number": merges(config, {"base_model_name_or_path": 3})}
        yield from every("adapters", nameless, {f"merge {folder}": ("merge", folder, "--out", "new")})
        yield from every("adapters", {"nothing wrong": None}, merge, DONE)


# What is no file, and what is damaged -------------------------------------------------------------------------------------------

#: Files that a reader of a model opens if they are there, and those that it needs.
_OPENED = ("generation_config.json", "chat_template.jinja", "tokenizer.model", "merges.txt", "special_tokens_map.json", "README.md", "own.py",
           "model.safetensors.index.json", "additional_chat_templates/a.jinja")  # fmt: skip
_NEEDED = ("config.json", "model.safetensors", "tokenizer.json")
_SNAPSHOT = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "state/manifest.json",
    "state/weights.safetensors",
    "state/optimizer.safetensors",
)
_ENDLESS = ("a pipe", "/dev/zero", "/dev/urandom")
RESUME = {"train --resume": (*into("train", "run"), "--save-every", "1", "--resume")}


def _irregular() -> Iterator[Case]:
    reads = {name: LINES[name] for name in ("extend", "perplexity", "doctor")}
    for what, make in NO_FILES.items():
        for number, file in enumerate((*_NEEDED, *_OPENED)):
            command = list(reads)[number % len(reads)] if file in _OPENED else "perplexity"
            ends = REFUSED if what in _ENDLESS or file in _NEEDED else EITHER
            yield from every(
                "no files", {f"base/{file} is {what}": replaces(f"base/{file}", make)}, {command: reads[command]}, ends
            )
        for command, words in READS_CONFIG.items():
            yield from every(
                "no files", {f"config.json is {what}": replaces("base/config.json", make)}, {command: words}
            )
        for file in ("adapter_config.json", "adapter_model.safetensors", "config.json"):
            yield from every(
                "no files", {f"adapter/{file} is {what}": replaces(f"adapter/{file}", make)}, {"merge": LINES["merge"]}
            )
        for file in _SNAPSHOT:  # it is passed over for the one before
            fault = {f"{file} of the last step is {what}": replaces(f"run/checkpoints/step-000002/{file}", make)}
            yield from every("no files", fault, RESUME, DONE, keeps=False)
    for file in ("refs/main", "snapshots/one/config.json", "snapshots/one/model.safetensors"):
        for command in ("perplexity", "plan", "doctor"):
            fetched = {command: tuple("owner/name" if word == "base" else word for word in LINES[command])}
            fault = {
                f"{file} in the hub's cache is a pipe": replaces(f"hub/models--owner--name/{file}", NO_FILES["a pipe"])
            }
            yield from every("no files", fault, fetched, inside=hub_cache("hub"))


def _damage() -> Iterator[Case]:
    """One bit is another: a sentence, or a result."""
    reads = {"base/config.json": "extend", "base/model.safetensors": "perplexity", "base/tokenizer.json": "perplexity", "run/records.jsonl": "report",
             "adapter/adapter_config.json": "merge", "adapter/adapter_model.safetensors": "merge", "base/tokenizer_config.json": "chat"}  # fmt: skip
    for seed in range(6):
        for file, command in reads.items():
            yield from every(
                "flipped bits", {f"{file}, {seed}": flips(file, seed)}, {command: LINES[command]}, EITHER, check=finite
            )
        for file in _SNAPSHOT[seed % 2 :: 2]:
            fault = {f"{file} of the last step, {seed}": flips(f"run/checkpoints/step-000002/{file}", seed)}
            yield from every("flipped bits", fault, RESUME, DONE, keeps=False)
