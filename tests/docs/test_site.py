"""The documentation as a site: built without a warning, whole, and readable without a network."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk

ROOT = Path(__file__).resolve().parents[2]
#: What a browser fetches by itself when it shows a page; a link is only followed by whoever clicks.
FETCHED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//|<link\b[^>]*\bhref=[\"']?(?:https?:)?//"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python"):
        pytest.importorskip(package, reason="the site needs mkdocs: pip install -c constraints.txt -e '.[docs]'")
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(out)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr  # mkdocs.yml: a warning is an error
    return out


def test_no_page_fetches_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 50
    for page in pages:
        assert not FETCHED.search(page.read_text(encoding="utf-8")), page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8")), style


def test_every_page_of_the_docs_is_one_of_the_site(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


def test_a_function_is_shown_with_the_arguments_that_it_takes(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    words = re.sub(r"<[^>]+>", "", page)
    assert "the window is not longer, the scalings cannot be composed" in words  # extend, Raises
    assert re.search(r"extend\(\s*model,\s*\*,\s*window,\s*out,\s*method=", words)
    assert "settings)" not in words


def test_every_public_name_is_on_the_page_for_python() -> None:
    shown = re.findall(r"^::: ropewalk\.(\w+)$", (ROOT / "docs/api.md").read_text(encoding="utf-8"), re.M)
    assert sorted(["__version__", *shown]) == sorted(ropewalk.__all__)
