"""`ropewalk export`: a checkpoint for one reader, read back by that reader's rule, and the line to type.

in   a checkpoint or an adapter, the reader's name
out  a directory, whole or absent; `Exported`, which says what to type
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.disk_room import refuse_without_room
from ropewalk.checkpoint.file_limit import refuse_above_limit
from ropewalk.checkpoint.files import (
    read_config,
    read_json,
    refuse_existing,
    strange_config,
    whole_directory,
    write_json,
)
from ropewalk.checkpoint.model_card import EXPORT, NOT_MEASURED, README, say_export
from ropewalk.errors import UserError
from ropewalk.exports import adapters, gguf_rope
from ropewalk.exports.checkpoints import full_layers, refuse_unreadable, write_checkpoint
from ropewalk.exports.converter import convert, converter_directory
from ropewalk.exports.pretokenizers import pre_tokenizer_name
from ropewalk.model.carry import say_of_links, to_be_written
from ropewalk.model.load import refuse_unknown_code, refuse_without_tokenizer
from ropewalk.planner.reading import cache_bytes
from ropewalk.planner.shape import read_shape
from ropewalk.readers.refusals import refuse_damaged
from ropewalk.readers.rules import READERS
from ropewalk.readers.spelling_checks import refuse_what_stops_transformers, warn_of_spellings
from ropewalk.readers.window_checks import warn_of_window
from ropewalk.records import format as number_format
from ropewalk.sentences import sizes_apart
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.export import ExportSettings
from ropewalk.settings.inputs import inputs_of
from ropewalk.version import __version__

GGUF_FILE = "model.gguf"
#: Bytes of a weight in a GGUF file; 16 bits where no type is named, as `auto` keeps them. q8_0 has 34 bytes for 32 weights.
_GGUF_BYTES = {"f32": 4, "q8_0": 34 / 32}

#: What a reader is told where it would serve another window by itself.
_LONGER = {"vllm": " --max-model-len {}", "sglang": " --context-length {}"}

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        out: the directory.
        reader: its name, as for `--for`.
        window: tokens that the reader serves when nothing else is said, computed from what was written.
        command: the line to type, or the line of Python.
        says: what to know before typing it; empty if nothing.
        cost: memory of a request that fills the window, and of one that filled the original; empty where layers are not counted.
    """

    out: Path
    reader: str
    window: int
    command: str
    says: str = ""
    cost: str = ""


@dataclass(frozen=True)
class _Target:
    """A reader to write for.

    Attributes:
        write: puts the export into an empty directory and gives the window that the reader serves.
        line: what to type, of the quoted directory and the promised window.
        says: what to know of it.
        perhaps: a reader of the same files that may not know this scaling, which is then said.
    """

    write: Callable[[Checkpoint, Path, ExportSettings], int]
    line: str
    says: str = ""
    perhaps: str = ""


@takes(ExportSettings)
def export(settings: ExportSettings) -> Exported:
    """Write a checkpoint as one reader needs it. What the reader cannot do is refused; what was written is read back by its rule.

    Returns:
        What was written, and the line to type.

    Raises:
        UserError: the reader cannot turn as the model does or serve its window; or what `extend` raises.
    """
    target, out = _TARGETS[settings.reader], Path(settings.out)
    inputs = inputs_of(settings)
    refuse_existing(out, overwrite=settings.overwrite, inputs=inputs)
    with (
        _checkpoint(settings) as checkpoint,
        whole_directory(out, overwrite=settings.overwrite, inputs=[*inputs, checkpoint.path]) as beside,
    ):
        served = target.write(checkpoint, beside, settings)
        promised = checkpoint.rope.window
        longer = _LONGER.get(settings.reader, "").format(promised) if served != promised else ""
        line, here = (
            target.line.format(out=shlex.quote(str(place)), repr=repr(str(place)), name=_name(out), window=promised)
            + longer
            for place in (out, ".")
        )
        says = _warning(target, beside, checkpoint) or target.says
        exported = Exported(out, settings.reader, served, line, says, _cost(checkpoint))
        write_json(beside / EXPORT, _manifest(checkpoint, exported) | {"here": here})
        _say_of_card(checkpoint, beside, out)
        run_file.write(settings, beside)
    say_of_links(out, settings.model)  # only now: a model that was merged for it is gone
    return exported


def _say_of_card(checkpoint: Checkpoint, directory: Path, out: Path) -> None:
    """Have the card name the export's own form; log what it does not say."""
    readme = directory / README
    if not readme.is_file():
        return
    if not say_export(directory):
        _logger.info("%s is as somebody wrote it, and does not say what this export is; %s does", out / README, EXPORT)
    elif NOT_MEASURED in readme.read_text(encoding="utf-8"):
        name = shlex.quote(str(checkpoint))
        is_adapter = adapters.adapter_in(Path(str(checkpoint))) is not None
        merging, model = (f"ropewalk merge {name} --out MODEL, ", "MODEL") if is_adapter else ("", name)
        _logger.info(
            f"the card says of {checkpoint} that it was not measured; if it was, run {merging}ropewalk card {model} --records FILE.jsonl, the file "
            f"of its measurements, and export {'that' if is_adapter else 'again'}"
        )


@contextlib.contextmanager
def _checkpoint(settings: ExportSettings) -> Iterator[Checkpoint]:
    """What is exported: the model, or an adapter added into its base; plain peft gets the adapter as it is."""
    adapter = adapters.adapter_in(Path(settings.model))
    if settings.reader != "peft" and adapter is not None:
        with adapters.merged_beside(adapter, settings) as merged:
            yield merged
        return
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    refuse_unknown_code(checkpoint)
    refuse_what_stops_transformers(checkpoint)
    if settings.reader != "peft":  # which refuses what is no adapter, and is about its base otherwise
        refuse_damaged(checkpoint)
    warn_of_spellings(checkpoint, makes=True)
    warn_of_window(checkpoint)
    yield checkpoint


def _cost(checkpoint: Checkpoint) -> str:
    """What serving the window takes beside the weights."""
    rope = checkpoint.rope
    windows = {"window": rope.window, "original_window": rope.original_window}
    try:
        with strange_config(checkpoint.name):
            shape = read_shape(checkpoint.config, name=checkpoint.name, **windows)
    except UserError:
        return ""
    whole, before = (number_format.memory(cache_bytes(shape, tokens)) for tokens in windows.values())
    grown = f", and {before} at {rope.original_window}" if rope.window > rope.original_window else ""
    return f"keys and values of a request of {rope.window} tokens take {whole} in 16 bits{grown}"


def _warning(target: _Target, directory: Path, checkpoint: Checkpoint) -> str:
    """What another reader of the same files would get wrong."""
    if target.perhaps:
        try:
            refuse_unreadable(READERS[target.perhaps], read_config(directory), checkpoint.rope)
        except UserError as error:
            return str(error).split("; ")[0]
    return ""


def _safetensors(*readers: str) -> Callable[[Checkpoint, Path, ExportSettings], int]:
    rows = [READERS[name] for name in readers]

    def write(checkpoint: Checkpoint, directory: Path, settings: ExportSettings) -> int:
        refuse_without_room(settings.out, to_be_written(checkpoint, settings.out, convert_pickle=False).taken)
        return write_checkpoint(checkpoint, directory, rows)

    return write


def _peft(checkpoint: Checkpoint, directory: Path, settings: ExportSettings) -> int:
    adapter = adapters.adapter_in(checkpoint.path) or adapters.adapter_in(checkpoint.path / "adapter")
    if adapter is None:
        raise UserError(
            f"peft reads adapters, and {checkpoint} is a whole model; train one with `ropewalk train --mode lora`, or export for transformers"
        )
    return adapters.write_plain(adapter, directory, settings)


def _gguf(checkpoint: Checkpoint, directory: Path, settings: ExportSettings) -> int:
    """A GGUF file, and beside it the licence and what else is no weight."""
    rope = checkpoint.rope
    if reason := READERS["llama.cpp"].refusal(checkpoint.config):
        raise UserError(f"{reason}, and every position would be wrong without a word; export for vllm or transformers")
    refuse_without_tokenizer(checkpoint.path, str(checkpoint))
    _refuse_too_large(checkpoint, directory, settings)
    program = converter_directory(settings.converter)
    whole = directory / "whole"
    whole.mkdir()
    write_checkpoint(checkpoint, whole, [READERS["transformers 5"]])
    convert(
        whole,
        directory / GGUF_FILE,
        name=_name(Path(str(settings.model))),
        gguf_type=settings.gguf_type,
        pre_tokenizer=_pre_tokenizer(whole),
        directory=program,
        size=_gguf_bytes(checkpoint, settings),
    )
    gguf = gguf_rope.mend(directory / GGUF_FILE, rope)
    for path in whole.iterdir():
        if path.suffix == ".safetensors" or path.name.endswith(".index.json"):
            path.unlink()
        else:
            path.rename(directory / path.name)
    whole.rmdir()
    return gguf.window


def _gguf_bytes(checkpoint: Checkpoint, settings: ExportSettings) -> float:
    """About how large the GGUF file will be: its weights are nearly all of it."""
    return checkpoint.parameters * _GGUF_BYTES.get(settings.gguf_type, 2)


def _refuse_too_large(checkpoint: Checkpoint, directory: Path, settings: ExportSettings) -> None:
    """Raises UserError where a disk has no room for the GGUF file, whose weights take nearly all of it."""
    needed = _gguf_bytes(checkpoint, settings)
    refuse_above_limit("the GGUF file", needed)
    elsewhere = [file for file in checkpoint.weight_files if file.stat().st_dev != directory.stat().st_dev]
    needed += sum(
        file.stat().st_size for file in elsewhere
    )  # they are copied for the converter, and linked on one disk
    free = shutil.disk_usage(directory).free
    if needed > free:
        takes, has = sizes_apart(needed, free)
        raise UserError(
            f"{settings.out} could not be written: the GGUF file{' and a copy of the weights beside it take' if elsewhere else ' takes'} about {takes}, and its disk has {has} free; "
            "free some space, choose another --out, or a smaller --gguf-type"
        )


def _ollama(checkpoint: Checkpoint, directory: Path, settings: ExportSettings) -> int:
    """A GGUF file whatever the family: Ollama's own reading of safetensors panics on some scalings and drops others."""
    window = _gguf(checkpoint, directory, settings)
    lines = f"FROM ./{GGUF_FILE}\nPARAMETER num_ctx {window}\n"
    (directory / "Modelfile").write_text(lines, encoding="utf-8")
    return window


def _pre_tokenizer(directory: Path) -> str | None:
    """llama.cpp's name for the tokenizer's first step, for a vocabulary that its converter does not recognise."""
    if not (directory / "tokenizer.json").is_file():
        return None
    return pre_tokenizer_name(read_json(directory / "tokenizer.json", what="a tokenizer.json is a JSON file"))


def _name(out: Path) -> str:
    return out.absolute().name


def _manifest(checkpoint: Checkpoint, exported: Exported) -> dict[str, object]:
    """What a person or a script that finds the directory wants to know."""
    rope = checkpoint.rope
    return {
        "reader": exported.reader,
        "read_by": READERS[exported.reader].version if exported.reader in READERS else "",
        "model": str(checkpoint),
        "window": rope.window,
        "served": exported.window,
        "scaling": str(rope),
        "first_and_last_inv_freq": [float(full_layers(rope)[end]) for end in (0, -1)],
        "command": exported.command,
        "ropewalk": __version__,
    }


_TARGETS = {
    "transformers": _Target(
        _safetensors("lm-eval", "transformers 5"),
        "AutoModelForCausalLM.from_pretrained({repr})",
        perhaps="transformers 4",
    ),
    "vllm": _Target(_safetensors("vllm"), "vllm serve {out}"),
    "sglang": _Target(_safetensors("sglang"), "python -m sglang.launch_server --model-path {out}"),
    "mlx": _Target(_safetensors("mlx"), "mlx_lm.generate --model {out} --max-tokens 100 --prompt …"),
    "llama.cpp": _Target(_gguf, "llama-server -m {out}/" + GGUF_FILE + " -c {window}"),
    "ollama": _Target(_ollama, "ollama create {name} -f {out}/Modelfile && ollama run {name}"),
    "peft": _Target(
        _peft,
        "AutoPeftModelForCausalLM.from_pretrained({repr})",
        "the base is named by its place; after moving the directory, put the new one into adapter_config.json",
    ),
}
