"""What a new checkpoint takes over from the one it was made from: its weights as links, everything else as copies of its own.

in   an open checkpoint, and the directory of the new one
out  the weights that a reader of the old one would read, the tokenizer's own files, licence, chat template, generation config; a
     README that says what was done

A file that is linked is the original's too, and whoever writes into it changes both. ropewalk never edits weights but replaces them (see
`link_or_copy`), so they alone are linked; whoever makes a model is told. Tokenizers are copied, not saved again: what transformers 5 writes, version 4 and
llama.cpp's converter cannot read, and a SentencePiece model would be lost.
"""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import safe_open
from safetensors.torch import save_file

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.digests import same_bytes, weights_in
from ropewalk.checkpoint.disk_room import beside_weights, nearest
from ropewalk.checkpoint.files import link_or_copy, read_json, write_json
from ropewalk.checkpoint.headers import INDEX, PICKLES, SINGLE, check_safetensors, tensors
from ropewalk.checkpoint.links import outside
from ropewalk.checkpoint.model_card import BASE_README, README, ModelCard, called, is_theirs, not_measured
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.own_code import carried_code, names_code, own_code, without_code
from ropewalk.checkpoint.position_table import PositionTable
from ropewalk.checkpoint.tokenizer_config import for_both
from ropewalk.errors import UserError
from ropewalk.model.own_files import is_of_a_run

_logger = logging.getLogger(__name__)

_REWRITTEN = ("config.json", "tokenizer_config.json", "generation_config.json", README)
#: Weights of any kind, records and pages.
_NOT_CARRIED = (*PICKLES, ".safetensors", ".gguf", ".msgpack", ".h5", ".onnx", ".npz", ".jsonl", ".html", ".index.json")
#: The only directory of a checkpoint, beside those of its shards, that transformers reads from.
_TEMPLATES = "additional_chat_templates"
_LEFT_OUT = "model-left-out.safetensors"


def link_weights(checkpoint: Checkpoint, target: Path, link: Callable[[Path, Path], Any] = link_or_copy) -> None:
    """Link the files that weights are read from, each under its own name; an index is written anew, from what the shards hold.

    Raises:
        UserError: as `Checkpoint.headers`.
    """
    files, headers = checkpoint.files, checkpoint.headers
    for name in files.names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        with same_bytes(checkpoint.path / name):
            link(checkpoint.path / name, target / name)
    if files.index is not None:
        _write_index(target / files.index, headers, files.metadata)


def _write_index(path: Path, headers: dict[str, dict[str, Any]], metadata: dict[str, Any]) -> None:
    weight_map = {tensor: name for name, header in headers.items() for tensor, _ in tensors(header)}
    write_json(path, {"metadata": metadata, "weight_map": weight_map})


def carry_tensors(checkpoint: Checkpoint, names: Collection[str], target: Path) -> None:
    """Add tensors of a checkpoint to a saved one, as they are: a shard of their own, and an index over all shards."""
    if not names:
        return
    if (target / SINGLE).is_file():
        (target / SINGLE).rename(target / "model-00001-of-00002.safetensors")
    kept: dict[str, Any] = {}
    for file, header in checkpoint.headers.items():
        with safe_open(checkpoint.path / file, framework="pt") as stored:
            kept |= {name: stored.get_tensor(name) for name, _ in tensors(header) if name in names}
    save_file(kept, target / _LEFT_OUT, metadata={"format": "pt"})
    headers = {path.name: check_safetensors(path) for path in sorted(target.glob("*.safetensors"))}
    size = sum(
        entry["data_offsets"][1] - entry["data_offsets"][0] for each in headers.values() for _, entry in tensors(each)
    )
    _write_index(target / INDEX, headers, {"total_size": size})


@dataclass(frozen=True)
class Written:
    """What an extended model's directory will have.

    Attributes:
        weights: bytes of its weights.
        how: they come there, in words.
        taken: bytes of the disk that all of it takes.
    """

    weights: int
    how: str
    taken: int


def to_be_written(extended: Checkpoint, out: str | Path, *, convert_pickle: bool) -> Written:
    """What a model that `model.extend.prepared` returned comes to at `out`: weights are links, or copies on another file system."""
    is_rewritten = convert_pickle and not extended.has_weights
    pickles = (file for file in extended.path.iterdir() if file.name.endswith(PICKLES))
    files = list(pickles) if is_rewritten else extended.weight_files
    sizes, place = [file.stat().st_size for file in files], nearest(Path(out))
    is_linked = not is_rewritten and all(file.resolve().parent.stat().st_dev == place.stat().st_dev for file in files)
    copies = "as safetensors" if is_rewritten else f"as copies, since {place} is another file system"
    # A learned table is written anew with all of its file.
    anew = max(sizes) if isinstance(extended.positions, PositionTable) else 0
    taken = beside_weights(extended.path) + (anew if is_linked else sum(sizes))
    return Written(sum(sizes), "as links" if is_linked else copies, taken)


def carry_weights(checkpoint: Checkpoint, target: Path, *, convert_pickle: bool = False) -> None:
    """Link the weights, or rewrite pickled ones as safetensors where there are no others and it was asked for.

    Raises:
        UserError: as `Checkpoint.headers`; pickles that hold more than weights.
    """
    try:
        link_weights(checkpoint, target)
    except UserError:
        if not convert_pickle or checkpoint.has_weights:
            raise
        from ropewalk.model.pickles import convert

        convert(checkpoint.path, target)


def say_of_links(out: Path, model: object) -> None:
    """Log that the weights of what was written are another model's files, where they are."""
    if any(path.stat().st_nlink > 1 for path in weights_in(out)):
        _logger.info(
            "weights: the same files on the disk as those of %s (hard links), so that they take no further room; a program that writes into these "
            "files, as saving with safetensors before 0.8 does, changes both models. To have a model of its own, copy the directory (cp -r)",
            model,
        )


def carry_the_rest(checkpoint: Checkpoint, target: Path, *, window: int) -> None:
    """Copy tokenizer, licence, chat templates: everything that is neither weights nor rewritten; raise the lengths that are said.

    Code that comes with the checkpoint is carried where it is trusted; else it is left behind, configs name it no more, and that is said.
    """
    source, trusted = checkpoint.path, checkpoint.trust_remote_code
    _say_what_becomes_of_code(checkpoint)
    for path in sorted(source.iterdir()):
        skip = path.name.endswith((*_NOT_CARRIED, ".py")) or path.name.startswith(".") or path.name in _REWRITTEN
        if skip or is_of_a_run(path.name) or not lies_in(checkpoint, path):
            continue
        if path.name.endswith("config.json") and not trusted and names_code(path):
            write_json(target / path.name, without_code(read_json(path, what=f"{path.name} is a JSON file")))
        else:
            shutil.copyfile(path, target / path.name)
    code = [source / name for name in carried_code(source)] if trusted else []
    for path in [*sorted(source.glob(f"{_TEMPLATES}/*.jinja")), *code]:
        if lies_in(checkpoint, path):
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)
    theirs = lies_in(checkpoint, source / README) and is_theirs(source / README)
    if theirs:  # the card of the model that was given, and not the one of what that was made from
        shutil.copyfile(source / README, target / BASE_README)
    _lengthen(checkpoint, target, "tokenizer_config.json", {"model_max_length": window}, always=True)
    _lengthen(checkpoint, target, "generation_config.json", {"max_length": window})


def lies_in(checkpoint: Checkpoint, path: Path) -> bool:
    """Whether a checkpoint has such a file; one that is a link out of its directory is left behind, which is said."""
    if not path.is_file():
        return False
    if place := outside(path, checkpoint.path):
        warnings.warn(
            f"{path} is a link out of the model's directory, to {place}, and is left behind; if that is the model's own, put a copy in its place",
            stacklevel=1,  # once, whoever asks
        )
    return not place


def _say_what_becomes_of_code(checkpoint: Checkpoint) -> None:
    code = own_code(checkpoint.path, carried_code)
    if code and checkpoint.trust_remote_code:
        _logger.info("%s: its code is carried along: %s", checkpoint.name, ", ".join(code))
    elif code:
        warnings.warn(
            f"{checkpoint.name}: code that comes with it is left behind, and none of it ran: {', '.join(code)}; read it, then add "
            "--trust-remote-code if it is needed",
            stacklevel=3,
        )


def _lengthen(
    checkpoint: Checkpoint, target: Path, name: str, lengths: dict[str, int], *, always: bool = False
) -> None:
    """Copy a small JSON file in words of every reader, its lengths raised: always, or only where it names the old window."""
    path, old = checkpoint.path / name, checkpoint.positions.window
    if not lies_in(checkpoint, path):
        return
    content = for_both(read_json(path, what=f"{name} is a JSON file"), checkpoint.path)
    if not checkpoint.trust_remote_code:
        content = without_code(content)
    for key, value in lengths.items():
        if always or content.get(key) == old:
            content[key] = value
    write_json(target / name, content)


def save_tokenizer(tokenizer: transformers.PreTrainedTokenizerBase, directory: Path) -> None:
    """Save a tokenizer that has no files of its own, under a class that transformers 4 knows as well."""
    tokenizer.save_pretrained(directory)
    path = directory / "tokenizer_config.json"
    content = read_json(path, what="a tokenizer has a tokenizer_config.json")
    write_json(path, for_both(content, directory))


def write_readme(
    target: Path, info: ModelInfo, *, base: Checkpoint, history: list[dict[str, Any]], chunk: int | None = None
) -> None:
    """A README of the new checkpoint's own; `ropewalk card` writes the fuller one, once something was measured.

    Args:
        info: of the new checkpoint.
        chunk: as `not_measured` has it.
        base: what it was made from.
        history: of the `ropewalk` block: every extension, oldest first.
    """
    text = ModelCard(called(base.name, base.path), info, history, not_measured(info, chunk)).text(target)
    (target / README).write_text(text, encoding="utf-8")
