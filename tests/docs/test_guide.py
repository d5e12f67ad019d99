"""The commands that the guide, the README and the pages on measuring print are commands: each is parsed by the command line as it is, and not run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from command_lines import parsed

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs/guide.md", ROOT / "docs/plan.md", ROOT / "docs/training.md"]
PAGES += [ROOT / "docs/evaluation.md", ROOT / "docs/report.md"]


def commands(text: str) -> list[list[str]]:
    """The arguments of every `ropewalk …` in a page's code blocks, `torchrun … -m ropewalk …` included."""
    found, fenced, blank = [], False, True
    code: list[str] = []
    for line in text.splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        elif fenced or (line.startswith("    ") and (blank or code and code[-1] is not None)):
            code.append(line.strip().removeprefix("$ "))
        elif line.strip():
            code.append("")
        blank = not line.strip() or (blank and line.startswith("    "))
    joined = "\n".join(code).replace("\\\n", " ")
    for line in joined.splitlines():
        match = re.match(r"(?:[A-Z_]+=\S+ )*(?:torchrun .*-m |(?:\S*/)?python3? -m )?(?:\S*/)?ropewalk (.+)", line)
        if match and "…" not in line:  # three dots say that something is left out
            found.append(shlex.split(match[1], comments=True))
    return found


LINES = [
    pytest.param(line, id=f"{page.name}: {' '.join(line)[:60]}")
    for page in PAGES
    if page.exists()
    for line in commands(page.read_text(encoding="utf-8"))
]


@pytest.mark.parametrize("line", LINES)
def test_a_command_on_a_page_is_one_that_the_command_line_takes(line: list[str]) -> None:
    assert parsed(line)["command"] == line[0]


def test_the_guide_shows_the_five_commands_and_torchrun() -> None:
    guide = (ROOT / "docs/guide.md").read_text(encoding="utf-8")
    shown = {line[0] for line in commands(guide)}
    assert {"extend", "train", "perplexity", "passkey", "report", "plan", "evaluate"} <= shown
    assert sum("torchrun" in line for line in guide.splitlines() if line.startswith("    ")) >= 2


def test_the_guide_leaves_nothing_out_of_a_command() -> None:
    for page in PAGES[:2]:
        code = [line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("    ropewalk")]
        assert not [line for line in code if "…" in line]


def test_commands_are_found_where_they_stand_and_nowhere_else() -> None:
    page = "Run `ropewalk nothing` or\n\n    torchrun --nproc-per-node 2 -m ropewalk train hemp --window 8  # two\n\n```\n$ ropewalk plan hemp \\\n  --window 9\n```\n"
    assert commands(page) == [["train", "hemp", "--window", "8"], ["plan", "hemp", "--window", "9"]]


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(SystemExit):
        parsed(["train", "hemp", "--windoww", "8"])


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in (ROOT / "docs/guide.md", ROOT / "docs/plan.md"):
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
