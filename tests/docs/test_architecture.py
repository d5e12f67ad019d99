"""docs/architecture.md and its picture are of the code as it is."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "architecture.md"


def test_the_picture_is_of_these_rooms() -> None:
    rooms = runpy.run_path(str(ROOT / "docs" / "make_rooms.py"))
    drawn = rooms["PICTURE"].read_text(encoding="utf-8")
    assert drawn == rooms["picture"](), "run `make docs`"


def test_every_file_and_name_of_the_page_exists() -> None:
    """A link leads to a file; `name` in `file.py` is defined there."""
    text = PAGE.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    for link in links:
        assert (PAGE.parent / link).exists(), link
    for name, link in re.findall(r"`(\w+)` in \[[^\]]+\]\(([^)]+\.py)\)", text):
        assert re.search(
            rf"\b(class|def) {name}\b|^{name}\b", (PAGE.parent / link).read_text(encoding="utf-8"), re.M
        ), (name, link)
