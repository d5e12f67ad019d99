"""Extend a checkpoint's window: link its weights, rewrite its config, and check that transformers now turns as asked.

in   a model and the window it shall have
out  a plain Hugging Face checkpoint, whole or not at all; no weight is loaded and none is changed
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.files import (
    link_or_copy,
    read_config,
    read_json,
    refuse_existing,
    refuse_to_lose,
    whole_directory,
)
from ropewalk.checkpoint.headers import INDEX, weight_files
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.rope_config import RopeConfig, read_rope, write_rope
from ropewalk.errors import UserError
from ropewalk.rope.scaling import Linear, Ntk, Plain, Scaling, Yarn, compose
from ropewalk.settings.command import takes
from ropewalk.settings.extend import ExtendMethod, ExtendSettings

_METHODS: dict[str, type[Linear] | type[Ntk] | type[Yarn]] = {"linear": Linear, "ntk": Ntk, "yarn": Yarn}
_REWRITTEN = {"config.json", "tokenizer_config.json", "generation_config.json"}
_NOT_CARRIED = (".bin", ".pt", ".pth", ".ckpt", ".gguf", ".msgpack", ".h5", ".onnx", ".safetensors")


@takes(ExtendSettings)
def extend(settings: ExtendSettings) -> ModelInfo:
    """Write a checkpoint with a longer window; no weight is loaded or changed.

    Returns:
        The new checkpoint, as records describe it.

    Raises:
        UserError: the window is not longer, the scalings cannot be composed, or a file is missing or damaged.
    """
    from ropewalk.model.load import model_info, refuse_remote_code
    from ropewalk.model.verify import verify_directory

    refuse_existing(settings.out, overwrite=settings.overwrite)
    source = locate(settings.model, trust_remote_code=settings.trust_remote_code)
    refuse_to_lose(settings.out, [source])
    said = read_config(source)
    refuse_remote_code(said, source, settings.trust_remote_code)
    new = extended_config(said, window=settings.window, method=settings.method, current_window=settings.current_window)
    with whole_directory(settings.out, overwrite=settings.overwrite) as beside:
        _carry_weights(source, beside, convert_pickle=settings.convert_pickle)
        _carry_the_rest(source, beside, old_window=read_rope(said).window, window=settings.window)
        (beside / "config.json").write_text(json.dumps(new, indent=2) + "\n", encoding="utf-8")
        verify_directory(beside)
    return model_info(settings.out)


def extended_config(
    said: dict[str, Any], *, window: int, method: ExtendMethod = "linear", current_window: int | None = None
) -> dict[str, Any]:
    """A config.json's dictionary with a longer window: the algebra of `extend`, without any file.

    Raises:
        UserError: as `extend`.
    """
    found = read_rope(said)
    now = current_window or found.window
    _refuse_ambiguous(found, current_window)
    if not isinstance(window, int) or window <= now:
        raise UserError(
            f"window {window} is not longer than the model's own {now}; nothing to extend (ask for more than {now} tokens)"
        )
    scaling, factor = _scaling(found, window / now, method)
    rope = found.rope
    if current_window and isinstance(found.scaling, Plain):
        rope = type(rope)(rope.head_dim, rope.base, current_window)
    step = {"method": scaling.method, "factor": factor, "from": now, "to": window, "ropewalk": version("ropewalk")}
    block = {
        "original_window": rope.window,
        "window": window,
        "method": scaling.method,
        "factor": float(scaling.factor),
        "theta": rope.base,
        "steps": 0,
        "history": [*_history(found), step],
    }
    return write_rope(said, scaling, window=window, rope=rope, block=block)


def _refuse_ambiguous(found: RopeConfig, current_window: int | None) -> None:
    """A foreign linear config does not say whether max_position_embeddings is the window before or after scaling.

    Both are in use (readers disagree on which they want), and the wrong guess squares the factor.
    """
    foreign = isinstance(found.scaling, Linear | Yarn) and not found.block and not found.local
    if foreign and current_window is None:
        grown = round(found.window * found.scaling.factor)
        raise UserError(
            f"this model is already scaled ({found.scaling.method}, factor {found.scaling.factor:g}) and its config does not say "
            f"whether max_position_embeddings {found.window} is the window before or after that; add --current-window "
            f"{found.window} or --current-window {grown}"
        )


def _history(found: RopeConfig) -> list[dict[str, Any]]:
    past = list(found.block.get("history", []))
    if past and found.block.get("steps"):
        # What was trained at the last length belongs to that length; the count of steps starts again.
        past[-1] = {**past[-1], "steps": found.block["steps"]}
    return past


def _scaling(found: RopeConfig, factor: float, method: ExtendMethod) -> tuple[Scaling, float]:
    if not math.isfinite(factor):
        raise UserError(f"the factor must be finite, got {factor}; it is new window / old window")
    if method == "auto":
        method = "linear" if isinstance(found.scaling, Plain) else found.scaling.method  # type: ignore[assignment]
    if method not in _METHODS:
        raise UserError(
            f"a method is one of {', '.join(_METHODS)} or auto, got {method}; linear is Position Interpolation"
        )
    return compose(found.scaling, _METHODS[method](factor)), factor


def _carry_weights(source: Path, target: Path, *, convert_pickle: bool) -> None:
    try:
        files = weight_files(source)
    except UserError:
        if not convert_pickle:
            raise
        from ropewalk.model.pickles import convert

        convert(source, target)
        return
    for file in files:
        link_or_copy(file, target / file.name)
    if (source / INDEX).is_file():
        link_or_copy(source / INDEX, target / INDEX)


def _carry_the_rest(source: Path, target: Path, *, old_window: int, window: int) -> None:
    """Tokenizer, generation config, licence, chat template: everything that is neither weights nor rewritten."""
    for path in sorted(source.iterdir()):
        skip = path.suffix in _NOT_CARRIED or path.name.startswith(".") or path.name.endswith(".index.json")
        if path.is_file() and not skip and path.name not in _REWRITTEN:
            link_or_copy(path, target / path.name)
    _lengthen(source, target, "tokenizer_config.json", {"model_max_length": window}, always=True)
    _lengthen(source, target, "generation_config.json", {"max_length": window}, old=old_window)


def _lengthen(
    source: Path, target: Path, name: str, lengths: dict[str, int], *, always: bool = False, old: int | None = None
) -> None:
    """Copy a small JSON file with its lengths raised: always, or only where it names the old window."""
    path = source / name
    if not path.is_file():
        return
    said = read_json(path, what=f"{name} is a JSON file")
    for key, value in lengths.items():
        if always or (old is not None and said.get(key) == old):
            said[key] = value
    (target / name).write_text(json.dumps(said, indent=2) + "\n", encoding="utf-8")
