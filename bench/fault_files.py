"""Faults of a model's files: configs, weights, tokenizers, each a row of a small table; and the template that all cases start from.

in   the template: a tiny model, a training run, an adapter, texts, items, pairs, records
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.fault_inputs import LINES, READS_CONFIG, every
from bench.fault_makers import Prepare, holds, merges, rewrites, writes
from bench.fault_worker import DONE, EITHER, REFUSED, Case

EXTEND, PERPLEXITY, TRAIN = (LINES[name] for name in ("extend", "perplexity", "train"))
ITEM = {"goal": "To open a jar", "sol1": "turn the lid", "sol2": "eat the lid", "label": 0}


def make_template(place: Path) -> None:
    """Everything that a command may be pointed at."""
    from ropewalk import data_score, export, passkey, perplexity, testing, train

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
    data_score([place / "data"], model=place / "base", window=64, short=32, out=place / "scores.jsonl")
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": testing.prose(9, 6)}]
    (place / "talks.jsonl").write_text(f"{json.dumps({'messages': talk})}\n" * 9)
    asked = [{"question": f"Who {n}?", "answer": "He", "context": testing.prose(9, n)} for n in range(3)]
    asked.append({"question": "Who?", "answer": "He", "context": [testing.prose(9, n) for n in (4, 5)]})
    (place / "questions.jsonl").write_text("".join(json.dumps(each) + "\n" for each in asked))
    needle = {"needle": "The key is oak.", "question": "What is the key?", "answer": "oak"}
    (place / "needles.jsonl").write_text(json.dumps(needle) + "\n")
    (place / "loop").symlink_to("loop")


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (_configs, _weights, _tokenizers):
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
    10**9,
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
    "tie_word_embeddings", "ropewalk", "text_config", "auto_map", "layer_types", "sliding_window", "dtype", "torch_dtype", "_attn_implementation",
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

    needless = ("plan", "theory", "report", "card", "push", "doctor", "evaluate", "ablate")
    loads = {name: words for name, words in LINES.items() if name not in needless}
    yield from every("configs", {"a newer model_type": all_newer}, loads)


def _config(name: str, command: str, changed: dict[str, Any]) -> Case:
    return Case("configs", name, LINES[command], EITHER, merges("base/config.json", changed), check=finite)


def finite(place: Path, said: str) -> str:
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
            {"data_offsets": [0, 10**30]}, {"data_offsets": [0.5, 2]}, {"data_offsets": None}, {"dtype": "I64"}, {"dtype": "BOOL"}, {"dtype": "I32"}, {"dtype": "U32"},
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
    templates = of(
        "chat_template.jinja", {text: text for text in ("{% if x %}", "{{ 'a' * 10**12 }}", "{{ (" * 10_000)}
    )
    yield from every("tokenizers", templates, {"extend": EXTEND}, EITHER)
    for name in ("generation_config.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"):
        yield from every("tokenizers", of(name, json_files), {"extend": EXTEND, "generate": LINES["generate"]}, EITHER)


def _all_tokens(place: Path, said: str) -> str:
    return "" if "1899" in said else "silent: not every token of the template's texts"
