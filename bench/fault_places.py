"""Faults of what lies around a command: adapters, standard input, the environment, other things where a run or its data lie.

in   the template of fault_cases.py
out  a `Case` for each
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.fault_worker import DONE, EITHER, REFUSED, Case

EXTEND = ("extend", "base", "--window", "128", "--out", "new")
PERPLEXITY = ("perplexity", "base", "--data", "data", "--windows", "64", "--stride", "32")
_QUICK = ("--window", "128", "--steps", "2", "--batch-size", "1", "--save-every", "1", "--threads", "1")
TRAIN = ("train", "base", "--data", "data", *_QUICK, "--out", "new")
RESUME = ("train", "base", "--data", "data", *_QUICK, "--out", "run", "--resume")
REPORT = ("report", "run/records.jsonl", "--out", "new.html")
CHAT = ("chat", "base", "--max-new-tokens", "2")
GENERATE = ("generate", "base", "--max-new-tokens", "2")


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (_adapters, _talk, _environments, _directories, _rows):
        yield from table()


def _changes(name: str, changed: dict[str, Any]) -> Callable[[Path], None]:
    """Keys of a JSON file as they should not be."""

    def prepare(place: Path) -> None:
        about = json.loads((place / name).read_text()) if (place / name).exists() else {}
        (place / name).write_text(json.dumps(about | changed))

    return prepare


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
        line = ("merge", folder, "--base", base, "--out", "new")
        for changed in _ADAPTER:
            prepare = _changes(f"{folder}/adapter_config.json", changed)
            yield Case("adapters", f"merge {folder}: {json.dumps(changed)}", line, REFUSED, prepare)
        for name, content in _WEIGHTS.items():
            yield Case(
                "adapters",
                f"merge {folder}: weights {name}",
                line,
                REFUSED,
                _holds(f"{folder}/adapter_model.safetensors", content),
            )
        number = _changes(f"{folder}/adapter_config.json", {"base_model_name_or_path": 3})
        yield Case(
            "adapters", f"merge {folder}: a base that is a number", ("merge", folder, "--out", "new"), REFUSED, number
        )
        yield Case("adapters", f"merge {folder}", line, DONE)


def _holds(name: str, content: bytes | str | None) -> Callable[[Path], None]:
    """A file of this content, or none."""

    def prepare(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        if content is not None:
            (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return prepare


# Talk ---------------------------------------------------------------------------------------------------------------------------

_STDIN: dict[str, tuple[bytes | None, str]] = {
    "closed": (None, REFUSED), "empty": (b"", REFUSED), "binary": (b"\xff\xfe\0", REFUSED), "half a sign": (b"a\xc3", REFUSED), "a text": ("\u00e4".encode(), DONE),
}  # fmt: skip
_TEMPLATES = (
    "{{ raise_exception('no') }}", "{{ messages[7].content.x }}", "{% for i in range(10**9) %}x{% endfor %}", "{% for %}", "{# #}", "{{ 1 / 0 }}", "{{ ''.__class__ }}",
    "{{ x() }}", "{% include 'a' %}",
)  # fmt: skip
_GENERATION: tuple[dict[str, Any], ...] = (
    {"eos_token_id": "x"}, {"eos_token_id": [[1]]}, {"eos_token_id": {}}, {"eos_token_id": 1e999}, {"cache_implementation": "zz"}, {"top_k": "a", "do_sample": "maybe"},
    {"suppress_tokens": [10**6], "bad_words_ids": 3}, {"num_beams": 10**6, "max_length": 0},
)  # fmt: skip


def _talk() -> Iterator[Case]:
    for name, (content, expected) in _STDIN.items():
        generate = (*GENERATE, "--prompt", "/dev/stdin")
        yield Case("talk", f"generate: stdin is {name}", generate, expected, inside=_stdin(content))
        yield Case("talk", f"chat: stdin is {name}", CHAT, DONE, inside=_stdin(content))
    for template in _TEMPLATES:
        prepare = _changes("base/tokenizer_config.json", {"chat_template": template})
        yield Case("talk", f"chat: a template {template[:30]}", (*CHAT, "--question", "a"), REFUSED, prepare)
    for changed in _GENERATION:
        prepare = _changes("base/generation_config.json", changed)
        for line in ((*CHAT, "--question", "a"), (*GENERATE, "--text", "a")):
            yield Case("talk", f"{line[0]}: generation_config.json has {changed}", line, EITHER, prepare)


def _stdin(content: bytes | None) -> Callable[[], None]:
    def inside() -> None:
        if content is None:
            os.close(0)
            sys.stdin = None  # as the interpreter starts without one
            return
        Path("typed").write_bytes(content)
        os.dup2(os.open("typed", os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)

    return inside


# The environment ----------------------------------------------------------------------------------------------------------------

_TORCHRUN = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
_ENVIRONMENTS: tuple[tuple[dict[str, str], str], ...] = (
    ({"COLUMNS": "0"}, DONE), ({"COLUMNS": "1"}, DONE), ({"COLUMNS": "x"}, DONE), ({"COLUMNS": "99999999"}, DONE), ({"TERM": "", "NO_COLOR": "1"}, DONE),
    ({"HOME": ""}, DONE), ({"TMPDIR": "/nowhere"}, DONE), ({"TZ": "No/Where"}, DONE), ({"OMP_NUM_THREADS": "x"}, DONE), ({"OMP_NUM_THREADS": "-1"}, DONE),
    ({"ROPEWALK_CACHE": ""}, DONE), ({"ROPEWALK_CACHE": "\udcff"}, DONE), ({"ROPEWALK_CACHE": "relative"}, DONE), ({"CUDA_VISIBLE_DEVICES": "99"}, DONE),
    ({"HF_HOME": "/proc/x", "HF_HUB_OFFLINE": "maybe"}, DONE), ({"RANK": "1"}, DONE), ({"RANK": "x"}, DONE), ({"LOCAL_RANK": "5"}, DONE), ({"WORLD_SIZE": "2"}, REFUSED),
    ({"WORLD_SIZE": "x"}, REFUSED), ({"WORLD_SIZE": "0"}, REFUSED), (_TORCHRUN, REFUSED), (_TORCHRUN | {"RANK": "-1"}, REFUSED), ({"WORLD_SIZE": "1", "RANK": "7"}, DONE),
)  # fmt: skip
_CLOCKS = {"before 1970": -5.0, "1970": 10.0, "2286": 1e10}


def _environments() -> Iterator[Case]:
    for changed, expected in _ENVIRONMENTS:
        for line in (PERPLEXITY, TRAIN):
            check = _tabled if line is PERPLEXITY else _trained
            yield Case("environment", f"{line[0]}: {changed}", line, expected, inside=_set(changed), check=check)
    for name, now in _CLOCKS.items():
        for line, check in ((PERPLEXITY, _tabled), (EXTEND, None), (TRAIN, _trained)):
            yield Case("environment", f"{line[0]}: the clock says {name}", line, DONE, inside=_clock(now), check=check)
    for line in (EXTEND, PERPLEXITY, TRAIN, REPORT, ("theory",), ("doctor", "hemp")):
        yield Case("environment", f"{line[0]}: the directory was deleted", line, REFUSED, inside=_deleted)


def _set(changed: dict[str, str]) -> Callable[[], None]:
    return lambda: os.environ.update(changed)


def _clock(now: float) -> Callable[[], None]:
    def inside() -> None:
        real = time.time
        behind = now - real()
        time.time = lambda: real() + behind

    return inside


def _deleted() -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    os.rmdir("../gone")


def _tabled(place: Path, said: str) -> str:
    return "" if any("64" in line and "1899" in line for line in said.splitlines()) else "silent: no table"


def _trained(place: Path, said: str) -> str:
    whole = (place / "new/model.safetensors").is_file() and (place / "new/.ropewalk.json").is_file()
    return "" if whole and "new:" in said else "silent: no model, or no word of it"


# Directories --------------------------------------------------------------------------------------------------------------------


def _directories() -> Iterator[Case]:
    instead = {"a link": lambda path: path.symlink_to("../data/d0.txt"), "a directory": lambda path: path.mkdir(), "a pipe": os.mkfifo,
               "junk": lambda path: path.write_text("junk"), "another host's": lambda path: path.write_text('{"process": "aaaaaaaa-1-5", "pid": 1}')}  # fmt: skip
    for name, make in instead.items():
        for file, expected in ((".ropewalk.lock", DONE if "junk" in name or "host" in name else REFUSED), ("README.md", EITHER), (".ropewalk.json", EITHER), ("records.jsonl", EITHER)):  # fmt: skip
            yield Case(
                "directories",
                f"train --resume: {file} is {name}",
                RESUME,
                expected,
                _instead(f"run/{file}", make),
                keeps=False,
                check=_theirs,
            )
    links = {
        "a directory on another disk": ("elsewhere", DONE),
        "nothing yet": ("not/yet", DONE),
        "the model": ("base", REFUSED),
        "the data": ("data", REFUSED),
    }
    for name, (target, expected) in links.items():
        for line in (EXTEND, TRAIN):
            yield Case("directories", f"{line[0]}: --out is a link to {name}", line, expected, _links(target))
    for where in ("data/out", "data/deep/out"):
        line = (*TRAIN[:-1], where)
        yield Case(
            "directories",
            f"train: killed with --out {where}, among its data",
            (*line, "--resume"),
            DONE,
            killed=1.5,
            keeps=True,
            seconds=60,
        )
    yield Case("directories", "train: strange things among the data", TRAIN, DONE, _strange_data)


def _instead(name: str, make: Callable[[Path], Any]) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / name).unlink(missing_ok=True)
        make(place / name)
        shutil.copyfile(place / "data/d0.txt", place / "d0.copy")

    return prepare


def _theirs(place: Path, said: str) -> str:
    return (
        "" if (place / "data/d0.txt").read_bytes() == (place / "d0.copy").read_bytes() else "lost: what a link led to"
    )


def _links(target: str) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / "elsewhere").mkdir()
        (place / "new").symlink_to(target)

    return prepare


def _strange_data(place: Path) -> None:
    data = place / "data"
    os.mkfifo(data / "pipe.txt")
    (data / "loop.txt").symlink_to("loop.txt")
    (data / "dead.txt").symlink_to("nowhere")
    (data / "up").symlink_to("..")
    (data / "\udcff.md").write_text("word " * 40)
    (data / "a\nb.md").write_text("words " * 40)
    (data / "binary.bin").write_bytes(bytes(9))


# Rows ---------------------------------------------------------------------------------------------------------------------------


def _rows() -> Iterator[Case]:
    """Figures that no measurement gives, in every field of a row that holds one."""
    for value in (1e308, -1e308, 10**30, -1, "7", None, [], {"a": 1}, True):
        yield Case(
            "rows",
            f"report: every figure is {value!r}",
            ("report", "measured.jsonl", "--out", "new.html"),
            EITHER,
            _figures(value),
            keeps=False,
        )
    first = _rewritten(lambda raw: b"\xef\xbb\xbf" + raw)
    yield Case(
        "rows", "report: a byte order mark", ("report", "measured.jsonl", "--out", "new.html"), DONE, first, keeps=False
    )
    windows = _rewritten(lambda raw: raw.replace(b"\n", b"\r\n"))
    yield Case(
        "rows",
        "report: Windows' line ends",
        ("report", "measured.jsonl", "--out", "new.html"),
        DONE,
        windows,
        keeps=False,
    )


def _figures(value: Any) -> Callable[[Path], None]:
    def changed(raw: bytes) -> bytes:
        lines = [json.loads(line) for line in raw.splitlines()]
        for number, line in enumerate(lines):
            if line["kind"] != "run":
                figures = [name for name, held in line.items() if isinstance(held, float)]
                lines[number] = line | {name: value for name in figures}
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    return _rewritten(changed)


def _rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda place: (
        (place / "measured.jsonl").write_bytes(change((place / "measured.jsonl").read_bytes())) and None
    )
