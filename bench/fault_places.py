"""Faults of what lies around a command: streams, disks, limits, kills, a second writer, code of its own, the environment, directories, names.

in   the template of fault_files.py
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import dataclasses
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench import fault_makers as make
from bench.fault_inputs import APPENDS, LINES, WRITES, every, into, out_of
from bench.fault_reading import RESUME
from bench.fault_worker import DONE, EITHER, REFUSED, Case
from ropewalk.settings.train import CHANGEABLE, TrainSettings

EXTEND, PERPLEXITY, TRAIN, PLAN, REPORT, THEORY, CHAT, GENERATE = (
    LINES[name] for name in ("extend", "perplexity", "train", "plan", "report", "theory", "chat", "generate")
)
#: Those that take seconds: of what is the same for all, they try a part.
_SLOW = ("theory", "evaluate")
_QUICK = {name: words for name, words in LINES.items() if name not in _SLOW}


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (
        _streams, _disks, _limits, _kills, _writers, _trust, _sound, _names, _talk, _environments, _directories, _settings,
    ):  # fmt: skip
        yield from table()


# Streams, disks, limits ---------------------------------------------------------------------------------------------------------

_STREAMS: dict[str, tuple[Callable[[], None], str]] = {
    "ascii": (make.encoded("ascii"), DONE), "cp1252": (make.encoded("cp1252"), DONE), "utf-16": (make.encoded("utf-16"), DONE), "closed stdout": (make.closed(1), REFUSED),
    "stdin and stderr closed": (make.closed(0, 2), DONE), "full stdout": (make.onto("/dev/full", 1), REFUSED), "full stderr": (make.onto("/dev/full", 2), EITHER),
    "a pipe nobody reads": (make.unread, EITHER), "no home": (make.without("HOME"), DONE), "a home that is a file": (make.home_is_a_file, DONE),
    "no cache": (make.cache_at("/proc/x"), DONE), "a cache that is a file": (make.cache_at("data/d0.txt"), DONE), "C locale": (make.c_locale, DONE),
}  # fmt: skip


def _streams() -> Iterator[Case]:
    first = ("extend", "plan", "perplexity", "report")
    for number, (name, (inside, expected)) in enumerate(_STREAMS.items()):
        for turn, (command, words) in enumerate(_QUICK.items()):
            if command in first or (number + turn) % 3 == 0:
                ends = EITHER if expected == REFUSED and command in ("extend", "doctor") else expected
                yield Case("streams", f"{command}: {name}", words, ends, inside=inside)


def _disks() -> Iterator[Case]:
    open_to_all = {"without permission": lambda place: place.chmod(0o755)}
    yield from every("disks", open_to_all, WRITES, inside=make.as_nobody)
    yield from every("disks", {"files of at most 1 kB": None}, WRITES, inside=make.limited(resource.RLIMIT_FSIZE, 1024))
    for kilobytes in (10, 100, 460, 600):
        quick = {name: words for name, words in WRITES.items() if name not in _SLOW} | RESUME
        limit = make.limited(resource.RLIMIT_FSIZE, kilobytes << 10)
        yield from every("disks", {f"files of at most {kilobytes} kB": None}, quick, EITHER, inside=limit, keeps=False)
    yield from every("disks", {"files of at most 100 kB": _run_at_new}, {"train --overwrite": (*TRAIN, "--save-every", "1", "--overwrite", "--yes")},
                     inside=make.limited(resource.RLIMIT_FSIZE, 100 << 10))  # fmt: skip
    for name, words in WRITES.items():
        options = ("", "--overwrite") if name not in APPENDS and name != "ablate" else ("",)
        for option in options:
            taken = {f"{name} {option}": (*words, option) if option else words}
            theirs = {
                f"--out is somebody's {what}": make.theirs_at(out_of(words), what == "file")
                for what in ("file", "directory")
            }
            yield from every("disks", theirs, taken)
    unreadable = {
        "a model without permission": lambda place: (place / "base/config.json").chmod(0),
        "data without permission": lambda place: (place / "data").chmod(0),
    }
    yield from every("disks", unreadable, {"perplexity": PERPLEXITY, "train": TRAIN}, inside=make.as_nobody)


def _run_at_new(place: Path) -> None:
    shutil.copytree(place / "run", place / "new")


def _limits() -> Iterator[Case]:
    lines = {name: LINES[name] for name in ("extend", "perplexity", "train", "plan", "report")}
    for files in (12, 24, 64):
        yield from every(
            "limits", {f"{files} open files": None}, lines, EITHER, inside=make.limited(resource.RLIMIT_NOFILE, files)
        )
    for mebibytes in (0, 16, 256):
        yield from every("limits", {f"{mebibytes} MiB more memory": None}, lines, EITHER, inside=make.memory(mebibytes))
    for window in ("2147483647", "100000000"):  # what no memory holds
        long = {
            "passkey": ("passkey", "base", "--window", window, "--depths", "1", "--trials", "1"),
            "attention": ("attention", "base", "--data", "data", "--window", window),
            "retrieval": ("retrieval", "base", "--window", window, "--trials", "1"),
            "perplexity": (*PERPLEXITY[:4], "--windows", window),
            "train": (
                "train",
                "base",
                "--data",
                "data",
                "--window",
                window,
                "--steps",
                "1",
                "--allow-short",
                "--out",
                "new",
            ),
        }
        counted = {"extend": ("extend", "base", "--window", window, "--out", "new"), "theory": (*THEORY, "--window", window),
                   "plan": ("plan", "base", "--window", window, "--gpus", "8xH100")}  # fmt: skip
        yield from every("limits", {f"a window of {window}": None}, long, inside=make.memory(2048))
        yield from every("limits", {f"a window of {window}": None}, counted, EITHER, inside=make.memory(2048))


# Kills, writers, code -----------------------------------------------------------------------------------------------------------

#: Seconds in which a command ends here; the others take one.
_TAKES = {"extend": 0.6, "train": 2.0, "perplexity": 0.6, "theory": 1.5, "export": 0.8, "evaluate": 5.0}
_GOES_ON = (*APPENDS, "evaluate", "ablate", "search")
#: Those that write anew what they wrote before, unasked.
_ANEW = ("card",)


def _kills() -> Iterator[Case]:
    moments = random.Random(0)
    for name, words in WRITES.items():
        again = (
            words
            if name in (*_GOES_ON, *_ANEW)
            else (*words, "--save-every", "1", "--resume")
            if name == "train"
            else (*words, "--overwrite")
        )
        for _ in range(2 if name in _SLOW else 6):
            moment = round(moments.uniform(0.03, _TAKES.get(name, 1.0)), 3)
            yield Case(
                "kills", f"{name}: killed after {moment} s", again, DONE, killed=moment, check=make.swept, seconds=90
            )


def _writers() -> Iterator[Case]:
    for name, words in WRITES.items():
        alone = name not in (
            *_GOES_ON,
            *_ANEW,
        )  # or the second, if it comes late enough, goes on where the first has ended
        for number in range(1 if name in _SLOW else 2):
            yield Case("two writers", f"{name}, {number}", words, EITHER, twice=True, alone=alone, seconds=90)
        if name not in (*APPENDS, *_ANEW, "ablate"):
            yield Case(
                "two writers",
                f"{name} --overwrite",
                (*words, "--overwrite"),
                EITHER,
                twice=True,
                seconds=90,
                check=make.swept,
            )


def _trust() -> Iterator[Case]:
    needless = (
        "plan",
        "theory",
        "report",
        "card",
        "push",
        "doctor",
        "merge",
        "evaluate",
        "ablate",
        "summarize",
    )  # whose model is another, or is not loaded
    loads = {name: words for name, words in LINES.items() if name not in needless}
    yes = {"untrusted, a stdin that says yes": make.brings_code}
    yield from every("code of its own", yes, loads, inside=make.stdin_says_yes, check=make.did_not_run)
    yield from every(
        "code of its own",
        yes,
        {name: LINES[name] for name in ("plan", "theory", "doctor")},
        EITHER,
        inside=make.stdin_says_yes,
        check=make.did_not_run,
    )
    trusting = {name: (*words, "--trust-remote-code") for name, words in loads.items()}
    yield from every("code of its own", {"trusted": make.brings_code}, trusting, DONE, check=make.ran)


def _sound() -> Iterator[Case]:
    """What is right is done: or refusing everything would pass."""
    yield from every(
        "nothing wrong", {"as it is": None}, LINES | {"train run": ("train", "run", *TRAIN[2:])}, DONE, seconds=60
    )


def _names() -> Iterator[Case]:
    for name in ("ä ö", "\udcff", "日本", "a'b\"c", "-x", "a" * 200, "a\nb", "a\u2028b", "a\u202eb", "%s{}"):
        line = tuple(f"./{name}" if word == "new" else word for word in EXTEND)
        yield Case("names", f"extend: --out {name[:9]!a}", line, EITHER if name == "\udcff" else DONE)
    odd = {"base": "bä se\u2028\n日", "data": "dä\u2028ta", "new": "né\u2028w"}
    lines = {name: (words[0], *(odd.get(word, word) for word in words[1:])) for name, words in _QUICK.items()}
    yield from every(
        "names", {"of any signs": make.renames(base=odd["base"], data=odd["data"])}, lines, DONE, keeps=False
    )
    surrogate = {
        name: (LINES[name][0], *("d\udcff" if word == "data" else word for word in LINES[name][1:]))
        for name in ("perplexity", "train", "gain", "data score", "attention", "search")
    }
    yield from every("names", {"of data, not UTF-8": make.renames(data="d\udcff")}, surrogate, DONE, keeps=False)


# Talk ---------------------------------------------------------------------------------------------------------------------------

_STDIN: dict[str, tuple[bytes | None, str]] = {
    "closed": (None, REFUSED), "empty": (b"", REFUSED), "binary": (b"\xff\xfe\0", REFUSED), "half a sign": (b"a\xc3", REFUSED), "a text": ("\u00e4".encode(), DONE),
}  # fmt: skip
_TEMPLATES = (
    "{{ raise_exception('no') }}", "{{ messages[7].content.x }}", "{% for i in range(10**9) %}x{% endfor %}", "{% for %}", "{# #}", "{{ 1 / 0 }}", "{{ ''.__class__ }}",
    "{{ x() }}", "{% include 'a' %}", "{% for i in range(9999) %}{% for j in range(9999) %}{% for k in range(9999) %}{% endfor %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**10 }}", "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "{{ '%9999999999d' % 1 }}", "{{ 'a' * 2**27 }}", "{{ '\ud800' }}",
)  # fmt: skip
_GENERATION: tuple[dict[str, Any], ...] = (
    {"eos_token_id": "x"}, {"eos_token_id": [[1]]}, {"eos_token_id": {}}, {"eos_token_id": 1e999}, {"cache_implementation": "zz"}, {"top_k": "a", "do_sample": "maybe"},
    {"suppress_tokens": [10**6], "bad_words_ids": 3}, {"num_beams": 10**6, "max_length": 0},
)  # fmt: skip


def _talk() -> Iterator[Case]:
    bare = CHAT[:2] + CHAT[4:]
    for name, (content, expected) in _STDIN.items():
        generate = ("generate", "base", "--max-new-tokens", "2", "--prompt", "/dev/stdin")
        yield Case("talk", f"generate: stdin is {name}", generate, expected, inside=make.stdin(content))
        yield Case("talk", f"chat: stdin is {name}", bare, DONE, inside=make.stdin(content))
    templates = {
        f"a template {text[:40]}": make.merges("base/tokenizer_config.json", {"chat_template": text})
        for text in _TEMPLATES
    }
    yield from every("talk", templates, {"chat": CHAT})
    generation = {
        f"generation_config.json has {changed}": make.merges("base/generation_config.json", changed)
        for changed in _GENERATION
    }
    yield from every("talk", generation, {"chat": CHAT, "generate": GENERATE}, EITHER)


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
        for line, check in ((PERPLEXITY, _tabled), (TRAIN, _trained)):
            yield Case("environment", f"{line[0]}: {changed}", line, expected, inside=_set(changed), check=check)
    for name, now in _CLOCKS.items():
        for line, check in ((PERPLEXITY, _tabled), (EXTEND, None), (TRAIN, _trained)):
            yield Case(
                "environment", f"{line[0]}: the clock says {name}", line, DONE, inside=make.clock(now), check=check
            )
    lines = {
        "extend": EXTEND,
        "perplexity": PERPLEXITY,
        "train": TRAIN,
        "report": REPORT,
        "theory": ("theory",),
        "doctor": ("doctor", "hemp"),
    }
    yield from every("environment", {"the directory was deleted": None}, lines, inside=make.deleted)


def _set(changed: dict[str, str]) -> Callable[[], None]:
    return lambda: os.environ.update(changed)


def _tabled(place: Path, said: str) -> str:
    return "" if any("64" in line and "1899" in line for line in said.splitlines()) else "silent: no table"


def _trained(place: Path, said: str) -> str:
    whole = (place / "new/model.safetensors").is_file() and (place / "new/.ropewalk.json").is_file()
    return "" if whole and "new:" in said else "silent: no model, or no word of it"


# Directories --------------------------------------------------------------------------------------------------------------------

_INSTEAD: dict[str, Callable[[Path], Any]] = {
    "a link": lambda path: path.symlink_to("../data/d0.txt"), "a directory": lambda path: path.mkdir(), "a pipe": os.mkfifo,
    "junk": lambda path: path.write_text("junk"), "another host's": lambda path: path.write_text('{"process": "aaaaaaaa-1-5", "pid": 1}'),
}  # fmt: skip
#: What people put beside a run's checkpoints.
_BESIDE: dict[str, Callable[[Path], Any]] = {
    "a copy": lambda steps: shutil.copytree(steps / "step-000002", steps / "step-000002 (copy)"),
    "a backup": lambda steps: shutil.copytree(steps / "step-000002", steps / "step-000002.bak"),
    "one renamed": lambda steps: (steps / "step-000001").rename(steps / "step-000007"),
    "one emptied": lambda steps: [path.unlink() for path in (steps / "step-000002").glob("*.*")],
    "a file of its name": lambda steps: (steps / "step-000003").write_text("mine"),
    "a directory of the next name": lambda steps: (steps / "step-000003/mine").mkdir(parents=True),
    "other digits": lambda steps: (steps / "step-٠٠٠٠٠٩").mkdir(),
    "a loop": lambda steps: (steps / "step-000009").symlink_to("step-000009"),
}


def _directories() -> Iterator[Case]:
    for name, instead in _INSTEAD.items():
        held = name not in ("junk", "another host's")
        for file, expected in (
            (".ropewalk.lock", REFUSED if held else DONE),
            ("README.md", EITHER),
            (".ropewalk.json", EITHER),
            ("records.jsonl", EITHER),
        ):
            fault = {f"{file} is {name}": _instead(f"run/{file}", instead)}
            yield from every("directories", fault, RESUME, expected, keeps=False, check=_theirs)
    beside = {
        f"beside its checkpoints: {name}": lambda place, put=put: put(place / "run/checkpoints") and None
        for name, put in _BESIDE.items()
    }
    yield from every("directories", beside, RESUME, DONE, keeps=False)
    gone = {
        "its checkpoints were moved away": lambda place: (
            (place / "run/checkpoints").rename(place / "elsewhere") and None
        )
    }
    yield from every("directories", gone, RESUME, REFUSED)
    links = {
        "a directory on another disk": ("elsewhere", DONE),
        "nothing yet": ("not/yet", DONE),
        "the model": ("base", REFUSED),
        "the data": ("data", REFUSED),
    }
    for name, (target, expected) in links.items():
        yield from every(
            "directories", {f"--out is a link to {name}": _links(target)}, {"extend": EXTEND, "train": TRAIN}, expected
        )
    for where in ("data/out", "data/deep/out"):
        line = (*into("train", where), "--save-every", "1", "--resume")
        yield Case(
            "directories", f"train: killed with --out {where}, among its data", line, DONE, killed=1.5, seconds=60
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


# Settings of a run that goes on -------------------------------------------------------------------------------------------------

_OTHER = {"learning_rate": "1e-3", "warmup": "7", "beta1": "0.5", "beta2": "0.5", "weight_decay": "0.5", "clip": "3", "precision": "bfloat16", "seed": "9",
          "batch_size": "2", "window": "96", "method": "ntk", "mode": "lora", "lora_rank": "2", "lora_alpha": "3", "optimizer": "adamw-8bit",
          "current_window": "64", "original_window": "64", "longce": "64"}  # fmt: skip


def _settings() -> Iterator[Case]:
    """Every setting that decides the weights, with another value; those without a row here are the flags and what methods alone have."""
    (resume,) = RESUME.values()
    for field in dataclasses.fields(TrainSettings):
        if field.name in _OTHER:
            other = (*resume, f"--{field.name.replace('_', '-')}", _OTHER[field.name], "--steps", "3")
            yield Case("another setting", f"train --resume: {field.name}", other)
            if field.name in CHANGEABLE:
                yield Case(
                    "another setting",
                    f"train --resume --allow-changes: {field.name}",
                    (*other, "--allow-changes"),
                    DONE,
                    keeps=False,
                )
