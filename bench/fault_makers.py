"""What makes a fault: of files before a command runs, of the process that it runs in, and what is looked at afterwards.

in   a directory to spoil, or a process that was just forked
out  functions for a `Case`: `prepare`, `inside`, `check`
"""

from __future__ import annotations

import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Prepare = Callable[[Path], Any]

#: What is no file, by what makes it.
NO_FILES: dict[str, Callable[[Path], None]] = {
    "a pipe": lambda path: os.mkfifo(path),
    "/dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "/dev/urandom": lambda path: path.symlink_to("/dev/urandom"),
    "a directory": lambda path: path.mkdir(),
    "a loop": lambda path: path.symlink_to(path.name),
    "gone": lambda path: path.symlink_to("nowhere"),
}


def writes(name: str, content: str | bytes) -> Callable[[Path], None]:
    raw = content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content

    def prepare(place: Path) -> None:
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(raw)

    return prepare


def appends(name: str, line: bytes) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes((place / name).read_bytes() + line + b"\n") and None


def rewrites(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda place: (place / name).write_bytes(change((place / name).read_bytes())) and None


def replaces(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).unlink(missing_ok=True)
        make(place / name)

    return prepare


def theirs_at(name: str, is_file: bool) -> Callable[[Path], None]:
    def prepare(place: Path) -> None:
        if is_file:
            (place / name).write_text("mine\n")
        else:
            (place / name).mkdir()
            (place / name / "thesis.tex").write_text("mine\n")

    return prepare


def brings_code(place: Path) -> None:
    path = place / "base/config.json"
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    (place / "base/own.py").write_text(
        f"from pathlib import Path\nfrom transformers import LlamaConfig, LlamaForCausalLM\nPath({str(place / 'ran')!r}).touch()\n"
        'class C(LlamaConfig):\n    model_type = "own"\nclass M(LlamaForCausalLM):\n    config_class = C\n'
    )


def did_not_run(place: Path, said: str) -> str:
    return "silent: its code ran" if (place / "ran").exists() else ""


def ran(place: Path, said: str) -> str:
    return "" if (place / "ran").exists() else "its code did not run"


def stdin_says_yes() -> None:
    Path("yes").write_text("y\n" * 50)
    os.dup2(os.open("yes", os.O_RDONLY), 0)
    sys.stdin = open(0, closefd=False)


def encoded(encoding: str) -> Callable[[], None]:
    def inside() -> None:
        sys.stdout = open(1, "w", encoding=encoding, closefd=False)
        sys.stderr = open(2, "w", encoding=encoding, closefd=False)

    return inside


def closed(*numbers: int) -> Callable[[], None]:
    def inside() -> None:
        for number in numbers:
            os.close(number)
        if 1 in numbers:
            sys.stdout = None  # as the interpreter starts without one
        if 2 in numbers:
            sys.stderr = None

    return inside


def onto(path: str, number: int) -> Callable[[], None]:
    return lambda: os.dup2(os.open(path, os.O_WRONLY), number) and None


def unread() -> None:
    read, write = os.pipe()
    os.close(read)
    os.dup2(write, 1)
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)


def without(name: str) -> Callable[[], None]:
    return lambda: os.environ.pop(name, None) and None


def home_is_a_file() -> None:
    os.environ["HOME"] = str(Path("data/d0.txt").absolute())


def cache_at(path: str) -> Callable[[], None]:
    return lambda: os.environ.update(ROPEWALK_CACHE=path)


def c_locale() -> None:
    os.environ |= {"LC_ALL": "C", "LANG": "C", "TERM": "dumb"}
    encoded("ascii")()


def limited(what: int, most: int) -> Callable[[], None]:
    def inside() -> None:
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(what, (most, most))

    return inside


def memory(mebibytes: int) -> Callable[[], None]:
    """So much address space more than the process has now."""

    def inside() -> None:
        now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = now + (mebibytes << 20)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))

    return inside


def as_nobody() -> None:
    """Another user, who may read what is here and write nothing; root itself is refused nothing."""
    os.environ["ROPEWALK_CACHE"] = "/nowhere"
    os.setgid(65534)
    os.setuid(65534)


def merges(name: str, changed: dict[str, Any]) -> Prepare:
    """Keys of a JSON file as they should not be."""

    def prepare(place: Path) -> None:
        about = json.loads((place / name).read_text()) if (place / name).exists() else {}
        (place / name).write_text(json.dumps(about | changed))

    return prepare


def holds(name: str, content: bytes | str | None) -> Prepare:
    """A file of this content, or none."""
    return lambda place: (place / name).unlink(missing_ok=True) if content is None else writes(name, content)(place)


def flips(name: str, seed: int, first: int = 2000) -> Prepare:
    """One bit of its beginning is another."""

    def change(raw: bytes) -> bytes:
        draw, flipped = random.Random(seed), bytearray(raw)
        flipped[draw.randrange(min(first, len(raw)))] ^= 1 << draw.randrange(8)
        return bytes(flipped)

    return rewrites(name, change)


def renames(**names: str) -> Prepare:
    return lambda place: [(place / old).rename(place / new) for old, new in names.items()]


def stdin(content: bytes | None) -> Callable[[], None]:
    def inside() -> None:
        if content is None:
            os.close(0)
            sys.stdin = None  # as the interpreter starts without one
            return
        Path("typed").write_bytes(content)
        os.dup2(os.open("typed", os.O_RDONLY), 0)
        sys.stdin = open(0, encoding="utf-8", closefd=False)

    return inside


def clock(now: float) -> Callable[[], None]:
    def inside() -> None:
        real = time.time
        behind = now - real()
        time.time = lambda: real() + behind

    return inside


def deleted() -> None:
    Path("gone").mkdir()
    os.chdir("gone")
    os.rmdir("../gone")


def hub_cache(folder: str) -> Callable[[], None]:
    """Where the hub's library looks for what it has fetched."""

    def inside() -> None:
        from huggingface_hub import constants

        constants.HF_HUB_CACHE = os.path.abspath(folder)

    return inside


def swept(place: Path, said: str) -> str:
    left = [path.name for path in place.iterdir() if path.name.endswith((".partial", ".old", ".new"))]
    return f"left behind: {left[0]}" if left else ""
