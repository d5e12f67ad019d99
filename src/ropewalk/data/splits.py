"""Splits of a data set in a directory or an archive: `train` is read, the others are not; and which files are a saved data set's rows.

in   what lies in one folder of a `Directory`, or of an archive's `Contents`: files and folders that `datasets` saved (`save_to_disk`), or that are named by their splits, as on the hub
out  names of folders and files
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import PurePath

from ropewalk.data.archives import ARCHIVES, Tree, suffix_of
from ropewalk.data.rows import ROWS
from ropewalk.errors import UserError
from ropewalk.sentences import joined

#: What stands beside the folders of splits.
SPLITS_FILE = "dataset_dict.json"
#: What stands beside the rows of one data set.
STATE_FILE = "state.json"
#: Words in names → the split, by what `datasets.load_dataset` goes by (datasets/data_files.py, SPLIT_KEYWORDS and NON_WORDS_CHARS).
_SPLITS = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "dev": "validation", "val": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
_BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")
#: Files that are named by splits. Not those of code, where train.py beside test.py is no data set.
_DATA = (*ROWS, *ARCHIVES, ".txt")


def is_saved_in_splits(tree: Tree, folder: PurePath) -> bool:
    """Whether `datasets` saved a data set of several splits there."""
    folders, names = tree.listed(folder)
    return SPLITS_FILE in names and any(_is_saved(tree, folder / name) for name in folders)


def other_splits(tree: Tree, folder: PurePath) -> dict[str, list[str]]:
    """Split → its folders or files, of the splits in a folder that are not read, since `train` is; none where there is one split at most.

    Raises:
        UserError: several splits and nothing else, and `train` is none of them.
    """
    folders, names = tree.listed(folder)
    if is_saved_in_splits(tree, folder):
        parts = [name for name in folders if _is_saved(tree, folder / name)]
        by_split = {name: [name] for name in parts}
    elif STATE_FILE in names:
        return {}
    else:
        parts = list(folders)
        by_split = _by_split(
            parts, lambda name: _SPLITS.get(name.lower()) if _holds_data(tree, folder / name) else None
        )
        if len(by_split) < 2:
            parts = [name for name in names if _is_data(name)]
            by_split = _by_split(parts, _split_named)
    if len(by_split) < 2:
        return {}
    if "train" in by_split:
        return {split: by_split[split] for split in sorted(by_split) if split != "train"}
    if sum(map(len, by_split.values())) < len(parts):  # among many files a name may have such a word by chance
        return {}
    example = as_typed(folder, by_split[min(by_split)])
    raise UserError(
        f"of a data set's splits train is read where no other is named, and {tree.named(folder)} has {', '.join(sorted(by_split))}; {tree.first}name one, "
        f"as in {example}"
    )


def said_of(tree: Tree, others: dict[str, str]) -> str:
    """What is said of the splits that are left out. others: split → how one is named."""
    return (
        f"{tree.path}: of the splits of a data set train is read, and {joined(sorted(others))} left out; to read another, {tree.first}name it: "
        f"{others[min(others)]}"
    )


def as_typed(folder: PurePath, names: Sequence[str]) -> str:
    """How the files or folders of one split are named in a shell."""
    common = os.path.commonprefix(list(names))
    return str(folder / (names[0] if len(names) == 1 or not common else f"{common}*"))


def files_of_rows(tree: Tree, folder: PurePath) -> Sequence[str]:
    """The files of a data set's rows; what else lies there is a cache, or about them. All files, where state.json is not one of `datasets`."""
    try:
        state = json.loads(tree.text(folder / STATE_FILE))
        return [str(file["filename"]) for file in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError):
        return tree.listed(folder)[1]


def _by_split(names: Sequence[str], split_of: Callable[[str], str | None]) -> dict[str, list[str]]:
    by_split: dict[str, list[str]] = {}
    for name in sorted(names):
        if split := split_of(name):
            by_split.setdefault(split, []).append(name)
    return by_split


def _split_named(name: str) -> str | None:
    """The split that a file's name has among its words: of wiki-train-00000-of-00001.parquet train."""
    return next((_SPLITS[word] for word in _BETWEEN_WORDS.split(name.lower()) if word in _SPLITS), None)


def _is_saved(tree: Tree, folder: PurePath) -> bool:
    return STATE_FILE in tree.listed(folder)[1]


def _is_data(name: str) -> bool:
    return suffix_of(name) in _DATA and not name.startswith(".")


def _holds_data(tree: Tree, folder: PurePath) -> bool:
    """Whether a folder has files of data, and no others: a folder called test may as well be one of code."""
    shown = [name for name in tree.listed(folder)[1] if not name.startswith(".")]
    return bool(shown) and all(map(_is_data, shown))
