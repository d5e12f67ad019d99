"""The tutorials run: every command of a page, in its order and in one directory, in small.

What stands in the place of what is written in `SMALL`, a row a page: options by value, windows by a divisor, models and documents by made-up ones,
torchrun by one process. A line that is neither a command of ours nor one of `ELSEWHERE` fails, so that none is passed over.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from command_lines import arguments_of, lines_of_code
from ropewalk import cli, testing
from ropewalk.data.conversations import Conversation
from ropewalk.data.documents import read_texts
from ropewalk.data.reading import Reading

PAGES = Path(__file__).resolve().parents[2] / "docs/tutorials"
#: Not run here: installing (tests/test_wheel.py does it), a shell's variable, Slurm (test_distributed_recipes.py), what is made of a whole library (below).
ELSEWHERE = ("pip install ", "STDLIB=$(python3 ", "sbatch recipes/slurm.sbatch ", "python3 examples/stdlib_chats.py")
#: Most of RULER's tasks are longer than these windows.
ADDED = {"ruler": ["--tasks", "niah_single_1"]}


@dataclass(frozen=True)
class Small:
    """options: `--option`, or `command --option`, and what it has here. divided: windows. models: names on the hub, and the windows they have here."""

    options: dict[str, str]
    divided: int
    models: dict[str, int] = field(default_factory=dict)

    def of(self, arguments: list[str]) -> list[str]:
        """A command in small."""
        options = [at for at, word in enumerate(arguments) if word.startswith("--")]
        words = arguments[: min(options, default=len(arguments))]
        for start, end in pairwise([*options, len(arguments)]):
            option, *values = arguments[start:end]
            words += [option, *self._values(arguments[0], option, values)]
        return words + [word for word in ADDED.get(arguments[0], []) if "--tasks" not in words]

    def _values(self, command: str, option: str, values: list[str]) -> list[str]:
        if (given := self.options.get(f"{command} {option}", self.options.get(option))) is not None:
            return given.split()
        if option in ("--window", "--windows"):
            return [
                str(int(value.replace("k", "")) * (1024 if "k" in value else 1) // self.divided) for value in values
            ]
        return [value.removesuffix("::test") for value in values]


_FEW = {
    "--steps": "2",
    "--batch-size": "2",
    "--save-every": "1",
    "--budget": "0.01",
    "--depths": "2",
    "--trials": "1",
    "--items": "1",
    "--max-new-tokens": "2",
    "--cp": "1",
}
_RULER = {"ruler --windows": "800", "ruler --interval": "40"}
SMALL = {
    "laptop": Small(_FEW | {"--steps": "1", "--batch-size": "1"}, divided=2),
    "one-gpu": Small(_FEW | _RULER, divided=128, models={"HuggingFaceTB/SmolLM2-135M": 64}),
    "chats": Small(
        _FEW
        | {
            "--chunk-window": "96",
            "--max-tokens": "128",
            "--stride": "16",
            "--budget": "5",
            "export --for": "transformers",
            "passkey --window": "320",
        },
        divided=128,
        models={"HuggingFaceTB/SmolLM2-135M-Instruct": 64},
    ),
    "eight-gpus": Small(_FEW | _RULER, divided=64, models={"meta-llama/Llama-2-7b-hf": 64}),
    "doubt": Small(_FEW | {"ruler --windows": "512"}, divided=2),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a tutorial is followed: books, a book that is short enough to ask about, and what looks like a standard library."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(
        ("emozilla/pg19/a", "books/b", "stdlib/asyncio/c", "stdlib/email/d", "stdlib/logging/e")
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).with_suffix(".txt").write_text(testing.prose(400, number))
    (tmp_path / "stdlib/json").mkdir()
    (tmp_path / "stdlib/json/scanner.py").write_text(testing.prose(400, 9))
    (tmp_path / "book.txt").write_text(testing.prose(9))
    (tmp_path / "notes.txt").write_text(testing.prose(9))
    for name in ("chats", "held-out"):
        turns = [{"role": ("user", "assistant")[at % 2], "content": testing.prose(3, at)} for at in range(40)]
        rows = [json.dumps({"messages": turns[at:]}) for at in (0, 2, 4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    return tmp_path


def follow(line: str, small: Small) -> int:
    """Do what a line says, in small; its exit status."""
    if line.startswith("python3 "):
        return subprocess.run([sys.executable, *shlex.split(line)[1:]], timeout=200).returncode
    arguments = arguments_of(line.replace("$STDLIB", "stdlib"))
    assert arguments is not None, f"not a command: {line}"
    try:
        cli.main(small.of(arguments))
    except SystemExit as stopped:
        return int(stopped.code or 0)
    return 0


@pytest.mark.parametrize("name", [page.stem for page in sorted(PAGES.glob("*.md"))])
def test_every_command_of_a_tutorial_runs(name: str, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    text, small = (PAGES / f"{name}.md").read_text(encoding="utf-8"), SMALL[name]
    for model, window in small.models.items():
        testing.tiny_directory(folder / model, window=window)
    lines = [line for line in lines_of_code(text, fenced=False) if not line.startswith(ELSEWHERE)]
    assert len(lines) >= 6
    for line in lines:
        expected = 1 if "# exit status 1" in line else 0
        assert follow(line, small) == expected, f"{line}\n{capfd.readouterr().err}"
    pages = [page.read_text(encoding="utf-8") for page in folder.glob("*.html")]  # each ends with one
    assert pages and not any("not the same tokens were scored" in page for page in pages)
    if name == "chats":
        assert "In short, did training help?" in pages[0] and "it cannot be told" not in pages[0]
    assert "the card says of" not in capfd.readouterr().err  # that it was not measured: an export sends nobody back


def test_the_chats_that_the_standard_library_is_made_into_are_conversations(tmp_path: Path) -> None:
    """Many short ones and some long ones, as the page says, and others to measure on."""
    subprocess.run(
        [sys.executable, PAGES.parents[1] / "examples/stdlib_chats.py"], cwd=tmp_path, check=True, timeout=200
    )
    chats, held_out = (
        list(read_texts(tmp_path / name, Reading(conversations="also"))) for name in ("chats.jsonl", "held-out.jsonl")
    )
    turns = [len(each.messages) for each in chats if isinstance(each, Conversation)]
    assert len(turns) == len(chats) > 200 and turns.count(2) > 100 and max(turns) > 60
    assert len(held_out) == 3 and not {each.text for each in held_out} & {each.text for each in chats}
