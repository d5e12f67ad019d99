"""Faults of files: configs, weights, tokenizers, texts, items, records and adapters, each a row of a small table.

in   the template: a tiny model, a training run, an adapter, texts, items, pairs, records
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import zstandard

from bench.fault_inputs import LINES, READS_CONFIG, every, into
from bench.fault_makers import NO_FILES, Prepare, appends, flips, holds, hub_cache, merges, replaces, rewrites, writes
from bench.fault_worker import DONE, EITHER, REFUSED, Case

EXTEND, PERPLEXITY, TRAIN = (LINES[name] for name in ("extend", "perplexity", "train"))
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
    for table in (_configs, _weights, _tokenizers, _texts, _items, _records, _adapters, _irregular, _damage):
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
    commands = list(READS_CONFIG)
    for key in KEYS:
        for number, value in enumerate(ODD):
            command = commands[(len(key) + number) % len(commands)]
            yield _config(f"{command}: {key} is {str(value)[:20]!r}", command, {key: value})
    for scaling in _SCALINGS:
        for key in ("rope_scaling", "rope_parameters"):
            for command in ("extend", "perplexity"):
                yield _config(f"{command}: {key} is {json.dumps(scaling)[:60]}", command, {key: scaling})
    yield from every(
        "configs", {name: writes("base/config.json", raw) for name, raw in _WHOLE_CONFIGS.items()}, READS_CONFIG
    )
    newer = {"model_type": "llama9", "architectures": ["Llama9ForCausalLM"], "transformers_version": "9.0.0"}

    def all_newer(place: Path) -> None:
        for folder in ("base", "run", "adapter"):
            merges(f"{folder}/config.json", newer)(place)

    needless = ("plan", "theory", "report", "doctor", "evaluate", "ablate")
    loads = {name: words for name, words in LINES.items() if name not in needless}
    yield from every("configs", {"a newer model_type": all_newer}, loads)


def _config(name: str, command: str, changed: dict[str, Any]) -> Case:
    return Case("configs", name, LINES[command], EITHER, merges("base/config.json", changed), check=_finite)


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
    reads = {"perplexity": PERPLEXITY, "extend": EXTEND}
    headers = {
        f"header: {name}": (_header(change), EITHER if "metadata" in name else REFUSED)
        for name, change in _headers().items()
    }
    raw = {f"weights: {name}": rewrites("base/model.safetensors", change) for name, change in _BYTES.items()}
    numbers = {name: raw.pop(name) for name in ("weights: NaN", "weights: infinite")}
    indices = {f"index: {json.dumps(index)[:50]}": _index(index) for index in _INDICES}
    yield from every("weights", headers | raw | indices, reads)
    yield from every("weights", numbers, {"perplexity": PERPLEXITY, "train": TRAIN})
    # extend links the weights and reads none of them: whoever loads the result is told.
    yield from every("weights", numbers, {"extend": EXTEND}, DONE)


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


_CUTS = {"truncation": {"direction": "Right", "max_length": 10, "strategy": "LongestFirst", "stride": 0}}
_SWALLOWS = {"normalizer": {"type": "Replace", "pattern": {"Regex": "."}, "content": ""}}


def _tokenizers() -> Iterator[Case]:
    def of(name: str, contents: dict[str, str]) -> dict[str, Prepare]:
        return {f"{name}: {what[:20]}": writes(f"base/{name}", content) for what, content in contents.items()}

    json_files = {text: text for text in ("{", "[]", '{"max_length": "x", "temperature": []}', "[" * 100_000)}
    ids = rewrites("base/tokenizer.json", lambda raw: raw.replace(b"256", b"9256"))
    alone: dict[str, Any] = {
        "ids beyond the embedding": ids,
        "none at all": holds("base/tokenizer.json", None),
        "makes no token of any text": merges("base/tokenizer.json", _SWALLOWS),
        "cuts": (merges("base/tokenizer.json", _CUTS), DONE),
    }
    yield from every("tokenizers", of("tokenizer.json", _TOKENIZERS), {"perplexity": PERPLEXITY, "train": TRAIN})
    yield from every(
        "tokenizers",
        of("tokenizer_config.json", _TOKENIZER_CONFIGS),
        {"perplexity": PERPLEXITY, "extend": EXTEND},
        EITHER,
    )
    yield from every("tokenizers", alone, {"perplexity": PERPLEXITY}, check=_all_tokens)
    for name in ("generation_config.json", "tokenizer_config.json"):
        yield from every("tokenizers", of(name, json_files), {"extend": EXTEND}, EITHER)


def _all_tokens(place: Path, said: str) -> str:
    return "" if "1899" in said else "silent: not every token of the template's texts"


# Texts, items, records ----------------------------------------------------------------------------------------------------------


def _parquet(text: str) -> bytes:
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": [text]}), buffer, compression="zstd")
    return buffer.getvalue()


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
    yield from every("records", figures, page, EITHER, keeps=False)
    yield from every("records", ends, page, DONE, keeps=False)


def _has_page(place: Path, said: str) -> str:
    return "" if (place / "new.html").is_file() else "silent: no page"


def _measured(place: Path, said: str) -> str:
    lines = (place / "run/records.jsonl").read_bytes().splitlines()
    return "" if b'"kind":"perplexity"' in lines[-1] else "silent: no row on record"


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
                "flipped bits", {f"{file}, {seed}": flips(file, seed)}, {command: LINES[command]}, EITHER, check=_finite
            )
        for file in _SNAPSHOT[seed % 2 :: 2]:
            fault = {f"{file} of the last step, {seed}": flips(f"run/checkpoints/step-000002/{file}", seed)}
            yield from every("flipped bits", fault, RESUME, DONE, keeps=False)
