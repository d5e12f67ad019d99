"""Faults of what chooses, mixes and asks: scores, weights after sources, conversations, questions, needles; and the options for them as they work.

in   the template of fault_files.py
out  a `Case` for each fault and each command that meets it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from bench.fault_files import finite
from bench.fault_inputs import LINES, every
from bench.fault_makers import NO_FILES, appends, flips, replaces, rewrites, writes
from bench.fault_worker import DONE, EITHER, REFUSED, Case
from ropewalk.settings.measure import LongTaskName

TRAIN, RULER, SCORE = (LINES[name] for name in ("train", "ruler", "data score"))
SCORED = {
    "train --scores": (*TRAIN, "--scores", "scores.jsonl"),
    "train --weigh": (*TRAIN, "--scores", "scores.jsonl", "--weigh"),
}


def cases() -> Iterator[Case]:
    """All of them."""
    for table in (_scores, _mixtures, _talks, _asked, _as_they_work):
        yield from table()


# Scores -------------------------------------------------------------------------------------------------------------------------


def _documents(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    """Every scored document changed."""

    def changed(raw: bytes) -> bytes:
        lines = [json.loads(line) for line in raw.splitlines()]
        for line in lines:
            for document in line.get("per_document", ()):
                change(document)
        return "".join(json.dumps(line) + "\n" for line in lines).encode()

    return rewrites("scores.jsonl", changed)


def _scores() -> Iterator[Case]:
    whole: dict[str, Any] = {
        "empty": writes("scores.jsonl", ""), "no JSON": writes("scores.jsonl", "{"), "a list": writes("scores.jsonl", "[]"), "a page": writes("scores.jsonl", "<html>"),
        "of perplexity": rewrites("scores.jsonl", lambda raw: raw.replace(b"context_gain", b"perplexity")), "deep": writes("scores.jsonl", "[" * 100_000),
        "of two windows": rewrites("scores.jsonl", lambda raw: raw + raw.splitlines()[-1].replace(b'"window":64', b'"window":65') + b"\n"),
        "without documents": rewrites("scores.jsonl", lambda raw: b"".join(line for line in raw.splitlines(True) if b"context_gain" not in line)),
    }  # fmt: skip
    values: tuple[Any, ...] = (None, "x", "", -1, 0, [], {}, 1e308, 10**30, float("nan"), float("inf"), True)
    fields = ("tokens", "nll", "short_nll", "text")
    odd: dict[str, Any] = {
        f"every {name} is {value!r}": (_documents(lambda each, n=name, v=value: each.update({n: v})), EITHER)
        for name in fields
        for value in values
    }
    odd |= {f"no {name}": (_documents(lambda each, n=name: each.pop(n)), EITHER) for name in fields}
    odd |= {"a line after them": (appends("scores.jsonl", b'{"kind": "context_gain"'), DONE)}
    yield from every("scores", whole, SCORED)
    yield from every("scores", odd, SCORED, check=finite)
    no_files = {f"it is {name}": replaces("scores.jsonl", make) for name, make in NO_FILES.items()}
    yield from every("scores", no_files, {"train --scores": SCORED["train --scores"]})
    for seed in range(4):
        yield from every("scores", {f"a bit is another, {seed}": flips("scores.jsonl", seed)}, SCORED, EITHER)


# Mixtures -----------------------------------------------------------------------------------------------------------------------

_WORDS: dict[str, tuple[tuple[str, ...], str]] = {
    "a weight of nothing": (("data", "0"), REFUSED), "a length of nothing": (("data", "1@0"), REFUSED), "no source": (("0.5",), REFUSED), "no source again": (("data", "1", "0.5"), REFUSED),
    "one of two has none": (("data", "0.5", "pairs.jsonl"), REFUSED), "a length beyond the window": (("data", "@129"), REFUSED), "a length of letters": (("data", "1@x"), REFUSED),
    "no number": (("data", "0,5"), REFUSED), "no number, of digits": (("data", "1.2.3"), REFUSED), "a negative weight": (("data", "-0.5"), REFUSED), "a name like a weight": (("data", "data/0.5"), REFUSED),
    "a huge weight": (("data", "9" * 400), EITHER), "one of no size beside it": (("data", "9" * 400, "talks.jsonl", "1"), EITHER), "digits of another script": (("data", "٠.٥"), EITHER),
    "a length of one": (("data", "1@1"), EITHER), "the same twice": (("data", "1", "data", "1"), DONE), "lengths alone": (("data", "@64", "talks.jsonl", "@128"), DONE),
    "weights and a length": (("data", "0.5", "talks.jsonl", "0.5@64"), DONE),
}  # fmt: skip


def _mixtures() -> Iterator[Case]:
    for name, (words, ends) in _WORDS.items():
        for packing in ("concat", "best-fit"):
            at = TRAIN.index("--data")
            line = (*TRAIN[: at + 1], *words, *TRAIN[at + 2 :], "--packing", packing)
            yield Case("mixtures", f"train --packing {packing}: {name}", line, ends, check=finite)


# Conversations ------------------------------------------------------------------------------------------------------------------

_TURN = {"role": "assistant", "content": "He is."}
_ROWS: dict[str, Any] = {
    "no turns": {"messages": []}, "null": {"messages": None}, "a text": {"messages": "Who?"}, "a number": {"messages": 3}, "null turns": {"messages": [None]},
    "no role": {"messages": [{"content": "a"}]}, "another role": {"messages": [{"role": "king", "content": "a"}]}, "a role that is a list": {"messages": [{"role": [], "content": "a"}]},
    "no content": {"messages": [{"role": "user"}, {"role": "assistant"}]}, "an empty answer": {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": " "}]},
    "a picture": {"messages": [{"role": "user", "content": [{"type": "image"}]}, _TURN]}, "content that is a number": {"messages": [{"role": "user", "content": 3}, _TURN]},
    "nobody answers": {"messages": [{"role": "user", "content": "Who?"}]}, "a pair with a null": {"instruction": "Who?", "output": None}, "a pair of lists": {"prompt": [], "completion": []},
    "a pair of numbers": {"prompt": 1, "completion": 2}, "a history of texts": {"instruction": "a", "output": "b", "history": ["x"]}, "half a pair": {"messages": [{"role": "user", "content": "\ud83d"}, _TURN]},
}  # fmt: skip


def _talks() -> Iterator[Case]:
    at = TRAIN.index("--data")
    lines = {
        f"train --loss {loss}": (*TRAIN[: at + 1], "talks.jsonl", *TRAIN[at + 2 :], "--loss", loss)
        for loss in ("answers", "all")
    }
    only = {
        f"only {name}": writes("talks.jsonl", json.dumps(row)) for name, row in _ROWS.items() if name != "half a pair"
    }
    after = {
        f"after {name}": appends("talks.jsonl", json.dumps(row).encode())
        for name, row in _ROWS.items()
        if name != "half a pair"
    }
    half = {"half a pair": (writes("talks.jsonl", json.dumps(_ROWS["half a pair"])), DONE)}
    long = {"messages": [{"role": "user", "content": "a " * 999}, _TURN]}
    yield from every("conversations", only | after | half, lines)
    yield from every("conversations", {"an answer beyond the window": writes("talks.jsonl", json.dumps(long))}, lines)
    yield from every(
        "conversations",
        {"one beyond the window among others": appends("talks.jsonl", json.dumps(long).encode())},
        lines,
        DONE,
    )


# Questions and needles ----------------------------------------------------------------------------------------------------------

_FILES: dict[str, bytes] = {
    "empty": b"", "no JSON": b"{", "a list": b"[]", "a number": b"3", "deep": b"[" * 100_000, "binary": bytes(range(256)), "no field": b"{}", "latin-1": b'{"question": "\xe9"}',
    "nulls": b'{"question": null, "answer": null, "context": null, "needle": null}', "numbers": b'{"question": 1, "answer": 2, "context": 3, "needle": 4}',
    "empty texts": b'{"question": " ", "answer": "", "context": "", "needle": ""}', "no answer": b'{"question": "Who?", "answer": [], "context": ["a"], "needle": "b"}',
    "objects": b'{"question": {}, "answer": {}, "context": {}, "needle": {}}',
}  # fmt: skip
_LONG = json.dumps({"question": "Who?", "answer": "oak", "context": ["oak " * 9999, "b"], "needle": "oak " * 9999})


def _asked() -> Iterator[Case]:
    for option, file, task in (("--questions", "questions.jsonl", "qa_1"), ("--needle", "needles.jsonl", "needle")):
        at = RULER.index("--tasks")
        line = (*RULER[: at + 1], task, *RULER[at + 2 :], "--data", "data", option)
        lines = {f"ruler {option}": (*line, file)}
        yield from every("questions", {name: writes(file, raw) for name, raw in _FILES.items()}, lines)
        yield from every("questions", {"longer than the window": writes(file, _LONG)}, lines)
        yield from every("questions", {f"it is {name}": replaces(file, make) for name, make in NO_FILES.items()}, lines)
        whole = {f"a file of {name}": writes("q.json", raw) for name, raw in _FILES.items()}
        whole |= {
            f"a file of {text[:30]}": writes("q.json", text)
            for text in (
                '{"data": 3}',
                '{"data": [{"paragraphs": [{}]}]}',
                '[{"question": "a"}]',
                '[{"question": "a", "answer": "b", "context": [["t"]]}]',
            )
        }
        yield from every("questions", whole, {f"ruler {option} q.json": (*line, "q.json")})


# As they work -------------------------------------------------------------------------------------------------------------------


def _as_they_work() -> Iterator[Case]:
    """Each of the options above, and each of ruler's tasks: what is right is done."""
    at, place = TRAIN.index("--data"), RULER.index("--tasks")
    talks = (*TRAIN[: at + 1], "talks.jsonl", *TRAIN[at + 2 :])
    lines = SCORED | {
        "train --keep": (*SCORED["train --scores"], "--keep", "0.9"),
        "train --packing best-fit": (*TRAIN, "--packing", "best-fit", "--mask-documents"),
        "train --longce": (*TRAIN, "--longce", "32", "--longce-stride", "16", "--longce-most", "3"),
        "train --longce --weigh": (*SCORED["train --weigh"], "--longce", "32", "--packing", "best-fit"),
        "train of conversations": talks, "train --loss all": (*talks, "--loss", "all"),
        "data score --json": (*SCORE, "--json"),
        "ruler --interval": (*RULER, "--interval", "20"),
    }  # fmt: skip
    asked = ("--questions", "questions.jsonl")
    given = {"qa_1": asked, "qa_2": asked, "needle": ("--needle", "needles.jsonl")}
    for task in get_args(LongTaskName):
        words = (*RULER[: place + 1], task, *RULER[place + 2 :], "--data", "data", *given.get(task, ()))
        lines[f"ruler --tasks {task}"] = tuple("2048" if word == "1024" else word for word in words)
    yield from every("choices", {"as it is": None}, lines, DONE, seconds=90, check=finite)
