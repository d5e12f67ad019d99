"""Hooks of mkdocs (mkdocs.yml): what the site has beside the pages of docs/, so that every link of a page leads to a page of the same site.

README.md is the first page. A file outside docs/ that a page links to becomes a page below source/: Markdown as it is, other text as a block of
code, a directory as a list of its files. Links are rewritten to match, since on a disk and in a repository they lead to the files themselves.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(?<=\]\()([^)#:\s]+)(?=[#)])")
FENCE = re.compile(r"^\s*```.*?^\s*```", re.M | re.S)
#: A list straight after a line of text: a list where this is read on a disk, and more text to Python-Markdown unless a blank line stands between.
LIST_AFTER_TEXT = re.compile(r"^(?!\s*(?:[-*] |\d+\. |[|>#])|    )(.*\S.*)\n(?=(?:[-*]|\d+\.) )", re.M)
LEXERS = {".md": "markdown", ".sh": "bash", ".sbatch": "bash", "Dockerfile": "docker", ".ipynb": "json"}


def on_files(files: Files, *, config: Any) -> Files:
    """Add README.md as the first page, and whatever pages link to outside docs/, and what those link to."""
    docs = [Path(file.abs_src_path) for file in files.documentation_pages() if file.abs_src_path]
    known, waiting = set(docs), [*docs, ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page not in docs:
            files.append(File.generated(config, place(page), content=content(page)))
        linked = {target for target in targets(page) if not target.is_relative_to(ROOT / "docs") or target.is_dir()}
        waiting += sorted(linked - known - {ROOT / "README.md"})
        known |= linked
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Links to where the site has what they lead to; lists that Python-Markdown sees."""
    here = origin(page.file.src_uri)
    if here.suffix != ".md":
        return markdown  # made by `content`
    base = posixpath.dirname(page.file.src_uri) or "."

    def rewritten(text: str) -> str:
        linked = LINK.sub(lambda link: posixpath.relpath(place(resolved(here, link[1])), base), text)
        return LIST_AFTER_TEXT.sub(r"\1\n\n", linked)

    prose, fences = FENCE.split(markdown), FENCE.findall(markdown)
    return "".join(rewritten(text) + code for text, code in zip_longest(prose, fences, fillvalue=""))


def place(path: Path) -> str:
    """Where the site has a file of the repository, as the name of a page's source."""
    if path == ROOT / "README.md":
        return "index.md"
    if path.is_relative_to(ROOT / "docs") and not path.is_dir():
        return path.relative_to(ROOT / "docs").as_posix()
    name = f"source/{path.relative_to(ROOT).as_posix()}"
    return f"{name}/index.md" if path.is_dir() else name if path.suffix == ".md" else f"{name}.md"


def origin(uri: str) -> Path:
    """The file of the repository that a page was made of."""
    if uri == "index.md":
        return ROOT / "README.md"
    if not uri.startswith("source/"):
        return ROOT / "docs" / uri
    path = ROOT / uri.removeprefix("source/")
    return path if path.is_file() else path.parent if path.name == "index.md" else path.with_suffix("")


def resolved(page: Path, link: str) -> Path:
    return Path(os.path.normpath(page.parent / link))


def targets(page: Path) -> Iterator[Path]:
    """What a page of Markdown links to; of what is not there mkdocs says so."""
    if page.suffix == ".md":
        links = LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
        yield from (path for link in links if (path := resolved(page, link)).exists())


def content(path: Path) -> str:
    """A page of a file or a directory."""
    if path.suffix == ".md":
        return path.read_text(encoding="utf-8")
    # Neither found by the search, which is for words, nor among what is written for readers.
    head = f"---\nsearch: {{exclude: true}}\n---\n\n# {path.relative_to(ROOT)}\n\n"
    if path.is_dir():
        return head + "".join(
            f"- {listed(each, path)}\n" for each in sorted(path.iterdir()) if each.name[0] not in "._"
        )
    lexer = LEXERS.get(path.suffix or path.name, path.suffix[1:])
    return f"{head}~~~~ {lexer}\n{path.read_text(encoding='utf-8')}\n~~~~\n"


def listed(path: Path, folder: Path) -> str:
    """A line of a directory: pages of docs/ are linked, the rest is named."""
    name = path.relative_to(folder).as_posix() + "/" * path.is_dir()
    if not path.is_relative_to(ROOT / "docs") or path.suffix != ".md":
        return f"`{name}`"
    title = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
    base = posixpath.dirname(place(folder))
    return f"[{title}]({posixpath.relpath(place(path), base)})"
