"""A checkpoint as files: find it, check it without loading it, link it, and write directories that are whole or absent.

in   a model's name or directory
out  paths that hold; or a sentence that says which file is wrong and how

Nothing here imports torch, and no weight is ever read into memory: a safetensors file says in its header how long it must be.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import read_json
from ropewalk.errors import UserError

INDEX = "model.safetensors.index.json"


SINGLE = "model.safetensors"


_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


#: safetensors' own limit on the header (its format documentation), so that a broken length is not believed.
_HEADER_LIMIT = 100_000_000


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files of a checkpoint, each found whole: the size its header promises is the size it has.

    Raises:
        UserError: pickled weights only, no weights, a missing shard, a truncated or damaged file.
    """
    index = directory / INDEX
    if index.is_file():
        shards = read_json(index, what="an index of shards is a JSON file").get("weight_map", {}).values()
        files = [directory / name for name in sorted(set(shards))]
    else:
        files = [directory / SINGLE]
    missing = [file.name for file in files if not file.is_file()]
    if not missing and files:
        for file in files:
            check_safetensors(file)
        return files
    pickles = sorted(
        path.name for pattern in _PICKLES for path in directory.glob(pattern) if path.name != "training_args.bin"
    )
    if pickles and not index.is_file():
        raise UserError(
            f"ropewalk reads safetensors only, and {directory} has pickled weights ({pickles[0]}), which can run code when "
            "loaded; if you trust them, `--convert-pickle` rewrites them as safetensors through a weights-only load"
        )
    raise UserError(f"{directory} lacks {', '.join(missing) or 'its weights'}; fetch the checkpoint again, whole")


def check_safetensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file, after checking that the file is as long as the header says.

    The format: 8 bytes of header length, little-endian, then that many bytes of JSON, then the tensors.
    """
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT, max(size - 8, 0)):
            raise UserError(f"{file} is no whole safetensors file (its header is cut off or damaged); fetch it again")
        try:
            header = json.loads(stream.read(length))
            ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file} has a damaged safetensors header; fetch it again") from None
    promised = 8 + length + max(ends, default=0)
    if size != promised:
        raise UserError(f"{file} is {'truncated' if size < promised else 'too long'}: {size} bytes, its header says {promised}; "
                        "fetch it again")  # fmt: skip
    return header


def count_parameters(files: list[Path]) -> int:
    """How many weights the files hold, from their headers."""
    total = 0
    for file in files:
        for name, entry in check_safetensors(file).items():
            if name != "__metadata__":
                count = 1
                for length in entry["shape"]:
                    count *= length
                total += count
    return total
