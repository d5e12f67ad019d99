"""What a new checkpoint takes over from the one it was made from: its weights as links, everything else as copies of its own.

in   an open checkpoint, and the directory of the new one
out  the weights that a reader of the old one would read, the tokenizer's own files, licence, chat template, generation config

A file that is linked is the original's too, and whoever appends to it changes both. Weights are never edited but replaced (see
`link_or_copy`), so they alone are linked.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import link_or_copy, read_json, write_json
from ropewalk.checkpoint.headers import INDEX
from ropewalk.errors import UserError

_REWRITTEN = {"config.json", "tokenizer_config.json", "generation_config.json"}
_NOT_CARRIED = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx", ".safetensors")


def carry_weights(checkpoint: Checkpoint, target: Path, *, convert_pickle: bool = False) -> None:
    """Link the weights, and their index.

    Args:
        convert_pickle: if there are pickled weights only, rewrite them as safetensors.

    Raises:
        UserError: as `Checkpoint.headers`.
    """
    try:
        files = checkpoint.weight_files
    except UserError:
        if not convert_pickle:
            raise
        from ropewalk.model.pickles import convert

        convert(checkpoint.path, target)
        return
    for file in files:
        link_or_copy(file, target / file.name)
    if (checkpoint.path / INDEX).is_file():
        link_or_copy(checkpoint.path / INDEX, target / INDEX)


def carry_the_rest(source: Path, target: Path, *, old_window: int, window: int) -> None:
    """Tokenizer, generation config, licence, chat template: everything that is neither weights nor rewritten."""
    for path in sorted(source.iterdir()):
        skip = path.suffix in _NOT_CARRIED or path.name.startswith(".") or path.name.endswith(".index.json")
        if path.is_file() and not skip and path.name not in _REWRITTEN:
            shutil.copyfile(path, target / path.name)
    _lengthen(source, target, "tokenizer_config.json", {"model_max_length": window}, always=True)
    _lengthen(source, target, "generation_config.json", {"max_length": window}, old=old_window)


def _lengthen(
    source: Path, target: Path, name: str, lengths: dict[str, int], *, always: bool = False, old: int | None = None
) -> None:
    """Copy a small JSON file with its lengths raised: always, or only where it names the old window."""
    path = source / name
    if not path.is_file():
        return
    content = read_json(path, what=f"{name} is a JSON file")
    for key, value in lengths.items():
        if always or (old is not None and content.get(key) == old):
            content[key] = value
    write_json(target / name, content)
