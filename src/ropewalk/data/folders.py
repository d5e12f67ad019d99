"""Which files of a directory, or of an archive, may be read, and which are left out: one rule for both.

in   a `Directory`, or an archive's `Contents`
out  `Found`: files in the order of their paths, and how many are left out of which kind
"""

from __future__ import annotations

import collections
from dataclasses import dataclass, field
from pathlib import PurePath

from ropewalk.checkpoint.marks import MARK
from ropewalk.data.archives import Tree
from ropewalk.data.splits import STATE_FILE, as_typed, files_of_rows, is_saved_in_splits, other_splits


@dataclass
class Found:
    """Files below a directory, or in an archive.

    Attributes:
        files: that may be read, whatever they are called.
        splits: of a data set, that are left out, and how one is named.
        others: how many files are left out, by their kind.
    """

    files: list[PurePath] = field(default_factory=list)
    splits: dict[str, str] = field(default_factory=dict)
    others: collections.Counter[str] = field(default_factory=collections.Counter)


def below(tree: Tree) -> Found:
    """What is found there. Raises UserError: splits of a data set, and none of them is the one that is read."""
    found = Found()
    found.others["links"] += tree.links
    folders = [tree.top]
    for folder in folders:
        if folder != tree.top and MARK in tree.listed(folder)[1]:
            # What ropewalk wrote among the texts is none: a run that lies there would change its own data.
            found.others["written by ropewalk"] += _count(tree, folder)
        else:
            folders += _looked_at(tree, folder, found)
    found.files.sort()
    return found


def _looked_at(tree: Tree, folder: PurePath, found: Found) -> list[PurePath]:
    """Take the files of a folder, but not those of the folders in it, of which those are returned that are to be looked at."""
    folders, names = tree.listed(folder)
    about = is_saved_in_splits(tree, folder)  # else they are read, or other splits' rows
    not_read = other_splits(tree, folder)
    of_other_splits = {name for parts in not_read.values() for name in parts}
    for split, parts in not_read.items():
        found.splits.setdefault(split, as_typed(folder, parts))
    to_come = []
    for name in sorted(folders):
        path = folder / name
        if kind := "of other splits" if name in of_other_splits else _kind_left_out(tree, path):
            found.others[kind] += 1 if tree.is_link(path) else _count(tree, path)
        else:
            to_come.append(path)
    kept = [] if about else files_of_rows(tree, folder) if STATE_FILE in names else names
    found.others["about a data set"] += len(names) - len(kept)
    of_train = [name for name in kept if name not in of_other_splits]
    found.others["of other splits"] += len(kept) - len(of_train)
    shown = [name for name in of_train if not name.startswith(".")]
    found.others["hidden"] += len(of_train) - len(shown)
    found.files += [folder / name for name in shown]
    return to_come


def _kind_left_out(tree: Tree, folder: PurePath) -> str:
    """What a folder's files are called that are not read; empty where they are."""
    if tree.is_link(folder):
        return "behind links to folders"
    return "hidden" if folder.name.startswith(".") else "in __pycache__" * (folder.name == "__pycache__")


def _count(tree: Tree, folder: PurePath) -> int:
    """How many files lie below a folder."""
    folders, names = tree.listed(folder)
    return len(names) + sum(_count(tree, path) for name in folders if not tree.is_link(path := folder / name))
