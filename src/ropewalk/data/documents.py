"""Documents: files, directories and data sets read as text.

in   paths, directories, data-set ids
out  `Document(name, text)`, one at a time and in a fixed order; where they are asked for, `Conversation`s

A document is one file, or one row of a file of rows (rows.py) or of a data set; an archive is read as the files in it (archives.py). Where
a document begins and ends matters at long windows, so nothing here joins or cuts any (packing.py does). Nothing is skipped silently: a file
that the user named stops the run with an error, a file met in a directory is read, or left out, counted and told of. Needs neither torch
nor transformers: encode.py turns the text into token ids.
"""

from __future__ import annotations

import collections
import functools
import hashlib
import logging
import os
import string
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from ropewalk.checkpoint import digests
from ropewalk.checkpoint.hub import reach_hub
from ropewalk.data.archives import ARCHIVES, Contents, Directory, OpenFile, Tree, suffix_of
from ropewalk.data.compression import SUFFIXES
from ropewalk.data.conversations import Conversation
from ropewalk.data.folders import below
from ropewalk.data.foreign import foreign
from ropewalk.data.left_out import LeftOut
from ropewalk.data.reading import Document, NoText, Reading, from_rows
from ropewalk.data.rows import ROWS, Unreadable, decoded, line_ends, marked, rows_of
from ropewalk.data.splits import said_of
from ropewalk.errors import UserError, refuse_irregular, told
from ropewalk.sentences import counted

_logger = logging.getLogger(__name__)
#: Files that are one document each.
PLAIN = (".txt", ".md", ".py", ".tex", ".rst")


def read_documents(
    sources: str | Path | Sequence[str | Path], *, field: str | None = None, seed: int | None = None
) -> Iterator[Document]:
    """Every document of the sources: sources in the order given, files in a directory in the order of their paths.

    Args:
        sources: files (plain text, `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`, `.arrow`; packed as .gz, .xz, .bz2 or .zst, or several in a
            .zip or .tar), directories, also as `datasets` saves them, or data-set ids as `owner/name`, `owner/name:config` or
            `owner/name:config:split` (streamed; the split is `train` if not given).
        field: a row's field that holds the text; if not given, the first of `text`, `content`, `document` that it has.
        seed: shuffle a streamed data set through a buffer, the same way for the same seed; in its own order if not given.

    Raises:
        UserError: a source that does not exist, a named file that is empty, binary or not UTF-8, a damaged archive, a row
            without the field, or a source without any document.
    """
    for document in read_texts(sources, Reading(field), seed=seed):
        assert isinstance(document, Document)
        yield document


def read_texts(
    sources: str | Path | Sequence[str | Path], reading: Reading, *, seed: int | None = None
) -> Iterator[Document | Conversation]:
    """As `read_documents`, and conversations where they are asked for."""
    for source in _listed(sources):
        empty = True
        for document in _read_source(source, reading, seed):
            empty = False
            yield document
        if empty:
            raise UserError(
                f"{source} holds no text to read; name files that do, in {', '.join(PLAIN + ROWS + ARCHIVES)}"
            )


def _read_source(source: str | Path, reading: Reading, seed: int | None) -> Iterator[Document | Conversation]:
    kind = kind_of(source)
    if kind == "hub":
        return _from_hub(str(source), reading, seed)
    path = Path(source)
    if kind == "directory":
        return _from_many(Directory(path), reading)
    return _from_many(Contents(path), reading) if suffix_of(path.name) in ARCHIVES else _from_named_file(path, reading)


def _listed(sources: str | Path | Sequence[str | Path]) -> list[str | Path]:
    listed = [sources] if isinstance(sources, str | Path) else list(sources)
    if not listed:
        raise UserError("documents come from at least one file, directory or data-set id, but none was named; name one")
    return listed


def refuse_missing(given: Any) -> None:
    """Raises UserError for a file or a list of them that is not there, or is none, before hours are spent on what comes first."""
    for source in [] if given is None else given if isinstance(given, list | tuple) else [given]:
        if kind_of(source) == "file":
            refuse_irregular(source, "data is read from files")


def kind_of(source: str | Path) -> Literal["file", "directory", "hub"]:
    """What a source is: a file, a directory, or a data set on the hub.

    Raises:
        UserError: it does not exist and is not written like a data-set id.
    """
    path = Path(source)
    if not str(source).strip():
        raise UserError(
            "documents are given as a file, a directory, or a data-set id, but a name is empty; name what is to be read"
        )
    if path.is_dir():
        return "directory"
    if path.exists():
        return "file"
    if path.is_symlink():
        raise UserError(f"{source} is a link to {path.readlink()}, and nothing lies there; name a file that does")
    name = str(source).split(":")[0]
    is_id = not name.startswith((".", "/", "~")) and name.count("/") == 1 and all(name.split("/")) and "\\" not in name
    if is_id and not name.endswith(PLAIN + ROWS + ARCHIVES + SUFFIXES):
        return "hub"
    raise UserError(
        f"{source} does not exist; documents are given as a file, a directory, or a data-set id written owner/name (check the spelling)"
    )


def files_of(source: str | Path) -> list[Path]:
    """The files a local source is read from, in reading order: the file itself, or those in a directory that hold documents."""
    path = Path(source)
    if not path.is_dir():
        refuse_irregular(path, "data is read from files")
        return [path]
    files = map(Path, below(Directory(path)).files)
    return [file for file in files if suffix_of(file.name) in _READ and os.path.isfile(file)]


def digest_of(source: str | Path) -> str:
    """A hash of what the files of a local source hold, in reading order, whatever they are called."""
    return hashlib.sha256(" ".join(digests.digest_of(path) for path in files_of(source)).encode()).hexdigest()[:16]


def digest_of_all(words: Iterable[str | Path]) -> str:
    """16 hexadecimal digits of what several words name together: of the bytes of their files, in order, wherever these lie; a word that names no file (a
    weight in a mixture, a data set of the hub) counts as it is written."""
    parts = [digest_of(word) if Path(word).exists() else str(word) for word in words]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]


def copies_among(files: Iterable[Path], others: Iterable[Path]) -> dict[Path, Path]:
    """Of these files those that are one of the others, or hold the same → that one. Only files of one size are read, and what was read before is not."""
    by_size: dict[int, list[Path]] = {}
    for other in others:
        by_size.setdefault(other.stat().st_size, []).append(other)

    @functools.cache
    def by_digest(size: int) -> dict[str, Path]:
        return {digests.digest_of(other): other for other in reversed(by_size[size])}

    copies = {}
    for file in files:
        alike = by_size.get(size := file.stat().st_size, [])
        twin = next((other for other in alike if file.samefile(other)), None)
        if twin is None and alike:
            twin = by_digest(size).get(digests.digest_of(file))
        if twin is not None:
            copies[file] = twin
    return copies


_READ = PLAIN + ROWS + ARCHIVES


def _from_named_file(path: Path, reading: Reading) -> Iterator[Document | Conversation]:
    try:
        yield from _from_file(OpenFile(path), str(path), reading)
    except Unreadable as error:
        raise UserError(f"a document is non-empty UTF-8 text, but {error}; convert it or leave it out") from None


def _files_in(tree: Tree, name: str, others: collections.Counter[str]) -> Iterator[tuple[OpenFile, str]]:
    """The files of a directory or an archive that may be read, also those in archives there, and what messages call them; says of which splits none are.

    name: of the tree, in front of its files' names. others: takes how many files are left out, by their kind.
    """
    found = below(tree)
    others.update(found.others)
    if found.splits:  # said first: who has read enough reads on no further
        _logger.info(said_of(tree, found.splits))
    for file in tree.opened(found.files):
        own = f"{name}{file.inside if file.member else file.path.relative_to(tree.path)}"
        if file.suffix in ARCHIVES and not file.member and os.path.isfile(file.path):
            yield from _files_in(Contents(file.path), f"{own}:", others)
        else:
            yield file, own


def _from_many(tree: Tree, reading: Reading) -> Iterator[Document | Conversation]:
    """The documents of files that the user did not name one by one; says how many of them were not read."""
    others: collections.Counter[str] = collections.Counter()
    name = "" if isinstance(tree, Directory) else f"{tree.path}:"
    left_out = LeftOut()
    read = 0
    for file, own in _files_in(tree, name, others):
        if file.suffix not in PLAIN + ROWS:
            others[file.suffix or "without a suffix"] += 1
            continue
        try:
            if file.opened is None and not os.path.isfile(file.path):
                raise Unreadable(f"{file} is not a file, or is a link to one that is gone")
            yield from _from_file(file, own, reading)
            read += 1
        except (Unreadable, NoText) as error:
            left_out.add((str(file), own), str(error))
    if left_out.count:
        warnings.warn(left_out.said_of(tree.path), stacklevel=3)
    others["empty or unreadable"] += left_out.count
    if others.total():
        kinds = ", ".join(f"{number} {kind}" for kind, number in others.most_common() if number)
        _logger.info(f"{tree.path}: {counted(read, 'file')} read, {others.total()} left out ({kinds})")


def _from_file(file: OpenFile, name: str, reading: Reading) -> Iterator[Document | Conversation]:
    if file.suffix in ROWS:
        place = "line" if file.suffix in (".jsonl", ".ndjson") else "row"
        yield from from_rows(rows_of(file, reading.columns), name, reading, place)
    else:
        yield Document(name, _plain_text(file))


def _plain_text(file: OpenFile) -> str:
    raw = file.read()
    if what := foreign(raw):
        raise Unreadable(f"{file} {what}")
    if b"\0" in raw and not marked(raw):
        raise Unreadable(f"{file} is binary (it has a zero byte at {raw.index(0)})")
    text = decoded(raw, file)
    if not text.strip(f"{string.whitespace}\ufeff\0"):
        raise Unreadable(f"{file} is empty")
    return line_ends(text)


def _from_hub(name: str, reading: Reading, seed: int | None) -> Iterator[Document | Conversation]:
    identity, _, rest = name.partition(":")
    config, _, split = rest.partition(":")
    way_out = "check the id, the config after the first colon, the split after the second, and the network"
    with told(f"{name} is not a path here, and could not be read as a data set", way_out, Exception):
        rows = streamed(identity, "check the path, or go online", split=split or "train", config=config or None)
        if seed is not None:
            rows = rows.shuffle(seed=seed, buffer_size=1000)
        yield from from_rows(enumerate(rows, start=1), name, reading, place="row")


def streamed(name: str, way_out: str, *, split: str, config: str | None = None) -> Any:
    """Rows of a data set, streamed through `datasets`, so that no more is fetched than is read.

    Raises:
        UserError: it is not here, and the hub does not answer; with `way_out`.
        Exception: datasets, its readers and the hub's client each raise their own kinds.
    """
    if not Path(name).exists():
        reach_hub(name, way_out)
    import datasets

    return datasets.load_dataset(name, config, split=split, streaming=True)
