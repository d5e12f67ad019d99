"""Data sets as `datasets` saves them (`save_to_disk`): which split is read, and which files are its rows.

in   a directory with dataset_dict.json (a folder for each split) or with state.json (one data set)
out  names of folders and files
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

from ropewalk.errors import UserError

#: What stands beside the folders of splits.
SPLITS_FILE = "dataset_dict.json"
#: What stands beside the rows of one data set.
STATE_FILE = "state.json"


def split_read(folder: Path, folders: Sequence[str]) -> str:
    """Of the splits in a folder the one that is read: `train`, or the only one; empty where there is none.

    Raises:
        UserError: several, and `train` is none of them.
    """
    splits = sorted(name for name in folders if (folder / name / STATE_FILE).is_file())
    if len(splits) > 1 and "train" not in splits:
        raise UserError(
            f"of a data set's splits train is read where no other is named, and {folder} has {', '.join(splits)}; name the directory of one, as in {folder / splits[0]}"
        )
    return "train" if "train" in splits else "".join(splits)


def files_of_rows(folder: Path) -> list[str]:
    """The files of a data set's rows; what else lies there is a cache, or about them. All files, where state.json is not one of `datasets`."""
    try:
        state = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
        return [str(file["filename"]) for file in state["_data_files"]]
    except (OSError, ValueError, LookupError, TypeError):
        return [path.name for path in folder.iterdir() if os.path.isfile(path)]
