"""What the README and the pages print is there: each command is parsed by the command line as it is, and not run; each link leads somewhere; each name can be imported."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from command_lines import commands, parsed
from ropewalk.cli import completion
from ropewalk.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/guide.md", ROOT / "docs/plan.md", ROOT / "docs/training.md"]
PAGES += sorted(ROOT.glob("docs/tutorials/*.md"))
PAGES += [
    ROOT / f"docs/{name}.md"
    for name in ("api", "beside", "distributed", "doctor", "evaluation", "report", "method", "results")
]


LINES = [
    pytest.param(line, id=f"{page.name}: {' '.join(line)[:60]}")
    for page in PAGES
    if page.exists()
    for line in commands(page.read_text(encoding="utf-8"))
    if line[0] != completion.FLAG  # no command: tests/cli/test_completion.py
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_on_a_page_is_one_that_the_command_line_takes(line: list[str]) -> None:
    command = parsed(line)["command"].split()  # some have two words
    assert line[: len(command)] == command


def test_the_tutorials_show_the_whole_way() -> None:
    shown = {
        line[0] for page in ROOT.glob("docs/tutorials/*.md") for line in commands(page.read_text(encoding="utf-8"))
    }
    assert {
        "plan",
        "theory",
        "extend",
        "train",
        "perplexity",
        "passkey",
        "ruler",
        "report",
        "export",
        "doctor",
    } <= shown


def test_the_guide_leaves_nothing_out_of_a_command() -> None:
    for page in [*PAGES[:2], *ROOT.glob("docs/tutorials/*.md")]:
        code = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ropewalk")]
        assert not [line for line in code if "…" in line]


def test_commands_are_found_where_they_stand_and_nowhere_else() -> None:
    page = "Run `ropewalk nothing` or\n\n    torchrun --nproc-per-node 2 -m ropewalk train hemp --window 8  # two\n\n```\n$ ropewalk plan hemp \\\n  --window 9\n```\n"
    assert commands(page) == [["train", "hemp", "--window", "8"], ["plan", "hemp", "--window", "9"]]


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(UserError, match="did you mean --window"):
        parsed(["train", "hemp", "--windoww", "8"])


@pytest.mark.parametrize("page", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_of_ours_that_a_page_imports_is_there(page: Path) -> None:
    """`from ropewalk.… import name` and `ropewalk.name(` in code; the rest of a program is not run."""
    text = re.sub(r"\s+", " ", page.read_text(encoding="utf-8"))
    for module, names in re.findall(r"from (ropewalk[\w.]*) import (\w+(?:, \w+)*)", text):
        for name in names.split(", "):
            assert hasattr(importlib.import_module(module), name), f"{page.name}: {module}.{name}"
    for path in re.findall(r"\b(ropewalk(?:\.\w+)+)\(", text):
        module, _, name = path.rpartition(".")
        assert callable(getattr(importlib.import_module(module), name)), f"{page.name}: {path}"
