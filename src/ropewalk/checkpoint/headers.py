"""What safetensors files promise, from their headers: which tensors, of which shape and dtype, and how long the file must be.

in   a checkpoint's directory
out  a header a file; or a sentence that says which file is wrong and how

Nothing here imports torch, and no weight is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import read_json
from ropewalk.errors import UserError

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
#: safetensors' own limit on the header (its format documentation), so that a broken length is not believed.
_HEADER_LIMIT = 100_000_000


def weight_headers(directory: Path) -> dict[str, dict[str, Any]]:
    """The header of each safetensors file of a checkpoint, by the file's name, each file found whole.

    Raises:
        UserError: pickled weights only, no weights, a missing shard, a truncated or damaged file.
    """
    index = directory / INDEX
    names = [SINGLE]
    if index.is_file():
        names = sorted(set(read_json(index, what="an index of shards is a JSON file").get("weight_map", {}).values()))
    missing = [name for name in names if not (directory / name).is_file()]
    if names and not missing:
        return {name: check_safetensors(directory / name) for name in names}
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
            ends = [entry["data_offsets"][1] for _, entry in tensors(header)]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise UserError(f"{file} has a damaged safetensors header; fetch it again") from None
    promised = 8 + length + max(ends, default=0)
    if size != promised:
        raise UserError(f"{file} is {'truncated' if size < promised else 'too long'}: {size} bytes, its header says {promised}; "
                        "fetch it again")  # fmt: skip
    return header


def tensors(header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, {"dtype", "shape", "data_offsets"}) of each tensor in a header."""
    return ((name, entry) for name, entry in header.items() if name != "__metadata__")
