"""Which safetensors files a reader takes a checkpoint's weights from, and what their headers promise: tensors, shapes, dtypes.

in   a checkpoint's directory and config
out  the files, a header each; or a sentence that says which file is wrong and how

The rule is that of transformers' `from_pretrained`, and whatever reads a checkpoint here goes by it. Nothing here imports torch,
and no weight is read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

from ropewalk.checkpoint.files import is_adapter, no_adapter, read_json
from ropewalk.errors import STRANGE_DATA, UserError, refuse_irregular

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
PICKLE_INDEX = "pytorch_model.bin.index.json"
PICKLE = "pytorch_model.bin"
#: Weights in formats that can run code when they are loaded, or that another program reads.
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
#: safetensors' own limit on the header (its format documentation), so that a broken length is not believed.
_HEADER_LIMIT = 100_000_000


@dataclass(frozen=True)
class WeightFiles:
    """The files that weights are read from.

    Attributes:
        names: relative to the checkpoint's directory, in the order they are read; of a tensor that two of them have, the last counts.
        index: the name of the index that names them; None where one file holds everything.
        metadata: the index's.
        weight_map: the index's: tensor → file.
    """

    names: list[str]
    index: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    weight_map: dict[str, str] = field(default_factory=dict)


def weight_files(directory: Path, config: dict[str, Any]) -> WeightFiles:
    """The files that `from_pretrained` reads: what the config names, else model.safetensors, else the shards that the index names.

    Raises:
        UserError: pickled weights only, no weights, a missing shard, an index that cannot be used.
    """
    named = config.get("transformers_weights")
    name = named if isinstance(named, str) else SINGLE if (directory / SINGLE).is_file() else INDEX
    _refuse_outside([name], "config.json names", directory)
    if not (directory / name).is_file():
        raise _no_weights(directory, name)
    return _shards(directory, name) if name.endswith(".index.json") else WeightFiles([name])


def _shards(directory: Path, index: str) -> WeightFiles:
    content = read_json(directory / index, what="an index of shards is a JSON file")
    weight_map, metadata = content.get("weight_map"), content.get("metadata")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise UserError(f"{directory / index} has no weight_map from tensors to files; fetch it again")
    names = sorted(set(weight_map.values()))
    _refuse_outside(names, f"{index} names", directory)
    missing = [name for name in names if not (directory / name).is_file()]
    if missing or not names:
        raise UserError(f"{directory} lacks {', '.join(missing) or 'its weights'}; fetch the checkpoint again, whole")
    if not isinstance(metadata, dict):
        raise UserError(
            f'{directory / index} has no "metadata", without which transformers reads no index; add "metadata": {{}}'
        )
    return WeightFiles(names, index, metadata, weight_map)


def _refuse_outside(names: list[str], said: str, directory: Path) -> None:
    for name in names:
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise UserError(f"weights lie in their checkpoint's directory, but in {directory} {said} {name}; move it")


def _no_weights(directory: Path, name: str) -> UserError:
    pickled = sorted(
        path.name for path in directory.glob("*") if path.suffix in PICKLES and path.name != "training_args.bin"
    )
    if pickled:
        return UserError(
            f"ropewalk reads safetensors only, and {directory} has pickled weights ({pickled[0]}), which can run code when "
            "loaded; if you trust them, `--convert-pickle` rewrites them as safetensors through a weights-only load"
        )
    if gguf := sorted(path.name for path in directory.glob("*.gguf")):
        return no_gguf(f"{directory} has its weights in {gguf[0]} alone")
    if "snapshots" in directory.parts:  # of the hub's cache, which holds what was fetched and not all there is
        return UserError(
            f"{directory} has no safetensors; if its repository has pickled weights (*.bin) that you trust, "
            "`ropewalk extend --convert-pickle` fetches and rewrites them"
        )
    if is_adapter(directory):
        return no_adapter(directory)
    lacks = SINGLE if name == INDEX else name
    return UserError(f"{directory} lacks {lacks}; fetch the checkpoint again, whole")


def no_gguf(found: str) -> UserError:
    """That a GGUF file is the end of the way; `found` says where there is one."""
    return UserError(
        f"ropewalk reads safetensors, and {found}: a GGUF file is made for llama.cpp, mostly quantised; start from the model it was made from "
        "(ropewalk doctor examines the file itself)"
    )


def weight_headers(directory: Path, files: WeightFiles) -> dict[str, dict[str, Any]]:
    """The header of each file, by its name, each file found whole.

    Raises:
        UserError: a truncated or damaged file.
    """
    return {name: check_safetensors(directory / name) for name in files.names}


def check_safetensors(file: Path) -> dict[str, Any]:
    """The header of a safetensors file, after checking that the file is as long as the header says and that safetensors takes it.

    The format: 8 bytes of header length, little-endian, then that many bytes of JSON, then the tensors.
    """
    try:
        header, promised = _header(file)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); mend its permissions, or fetch it again") from None
    except STRANGE_DATA:
        raise UserError(f"{file} has a damaged safetensors header; fetch it again") from None
    size = file.stat().st_size
    if size != promised:
        raise UserError(f"{file} is {'truncated' if size < promised else 'too long'}: {size} bytes, its header says {promised}; "
                        "fetch it again")  # fmt: skip
    try:
        with safe_open(file, framework="numpy"):  # dtypes, shapes and offsets against each other
            return header
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"safetensors cannot read {file} ({str(error).splitlines()[0][:120]}); fetch it again"
        ) from None


def _header(file: Path) -> tuple[dict[str, Any], int]:
    """The header, and how many bytes it says the file has."""
    refuse_irregular(file, "weights are read from files")
    size = file.stat().st_size
    with open(file, "rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(_HEADER_LIMIT, max(size - 8, 0)):
            raise UserError(f"{file} is no whole safetensors file (its header is cut off or damaged); fetch it again")
        header = json.loads(stream.read(length))
    ends = [int(entry["data_offsets"][1]) for _, entry in tensors(header)]
    return header, 8 + length + max(ends, default=0)


def begin_of_data(file: Path) -> int:
    """Where in a file the tensors begin, from which `data_offsets` count, in bytes."""
    with open(file, "rb") as stream:
        return 8 + int.from_bytes(stream.read(8), "little")


def tensors(header: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, {"dtype", "shape", "data_offsets"}) of each tensor in a header."""
    return ((name, entry) for name, entry in header.items() if name != "__metadata__")
