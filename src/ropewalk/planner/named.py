"""From a model's name to its shape, without loading anything.

in   `hemp`, a directory, a hub id (of which the config.json alone is fetched), or a model that is known by name (known_models.py)
out  a `Shape`
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Unpack

from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.files import read_json, strange_config
from ropewalk.checkpoint.hub import refuse_irregular_cache
from ropewalk.checkpoint.layers import with_raised_window
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.checkpoint.window import Answers
from ropewalk.errors import UserError
from ropewalk.planner.known_models import known_model
from ropewalk.planner.shape import Shape, read_shape
from ropewalk.readers.spelling_checks import warn_of_spellings
from ropewalk.settings.windows import WindowAnswers


def shape_of(
    model: ModelName, *, raised: int | None = None, trust_remote_code: bool = False, **answers: Unpack[WindowAnswers]
) -> Shape:
    """The shape of a model by its name; weights are counted from the files' headers where they lie here.

    raised: tokens that its sliding layers are to see (--raise-sliding-window). trust_remote_code: no code is run for a plan; taken as every command takes
        it. answers: as in `Checkpoint.open`, of its windows.
    """
    if isinstance(model, Checkpoint):
        return _shape(Checkpoint.open(model, **answers), raised)
    name = str(model)
    if (known := known_model(name)) is not None:
        return _of_config(*known, Answers(**answers), raised)
    if name == "hemp" or Path(name).exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        return _shape(Checkpoint.open(name, **answers), raised)
    return _of_config(name, _hub_config(name), Answers(**answers), raised)


def _raised(config: dict[str, Any], window: int) -> dict[str, Any]:
    """A config's dictionary once each of its layers, which all slide, sees `window` tokens."""
    layout = read_layers({**text_section(config), "model_type": text_type(config)})
    return with_raised_window(config, layout, window)


def _of_config(name: str, config: dict[str, Any], answers: Answers, raised: int | None) -> Shape:
    config = _raised(config, raised) if raised else config
    rope = read_rope(config, answers=answers).answered()
    return _with_rope(config, rope, name)


def _shape(checkpoint: Checkpoint, raised: int | None) -> Shape:
    """A config.json is enough for a plan; where weights lie beside it, they are counted."""
    warn_of_spellings(checkpoint)
    stored = checkpoint.parameters if checkpoint.has_weights else None
    if raised:
        answers = asdict(checkpoint.answers)
        checkpoint = Checkpoint.open(checkpoint.with_config(_raised(checkpoint.config, raised)), **answers)
    with strange_config(checkpoint.name):
        return _with_rope(checkpoint.config, checkpoint.rope, checkpoint.name, stored)


def _with_rope(config: dict[str, Any], rope: RopeConfig, name: str, stored: int | None = None) -> Shape:
    shape = read_shape(config, name=name, stored=stored, window=rope.window, original_window=rope.original_window)
    return replace(shape, rope=rope)


def _known_here(name: str) -> str:
    """The way out for a hub id whose model is known without the hub."""
    with contextlib.suppress(UserError):
        if known := known_model(name.rpartition("/")[2].lower().removeprefix("meta-")):
            return f", or plan for {known[0]}, whose config is known here"
    return ""


def _hub_config(name: str) -> dict[str, Any]:
    """A hub model's config.json and nothing else of it."""
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    sentences: tuple[tuple[type[Exception], Callable[[Any], str]], ...] = (
        (HFValidationError, lambda _: "is no valid hub id; check the spelling"),
        (
            LocalEntryNotFoundError,
            lambda _: (
                "is no directory here, and the hub could not be reached for its config.json; check the path, or go online"
            ),
        ),
        (
            HfHubHTTPError,
            lambda error: (
                f"was refused by the hub ({getattr(error.response, 'status_code', 'no answer')}): misspelt, private or gated; check the "
                "id, or log in with `hf auth login`"
            ),
        ),
        (OSError, lambda _: "is no directory here, and the hub could not be reached; check the path, or go online"),
    )
    try:
        refuse_irregular_cache(name)
        # Not hf_hub_download, which asks six times, seconds apart, where there is no network.
        directory = Path(huggingface_hub.snapshot_download(name, allow_patterns=["config.json"]))
    except tuple(kind for kind, _ in sentences) as error:
        sentence = next(sentence for kind, sentence in sentences if isinstance(error, kind))
        raise UserError(f"{name} {sentence(error)}{_known_here(name)}") from None
    if not (directory / "config.json").is_file():
        raise UserError(f"{name} has no config.json on the hub; choose a model in Hugging Face format")
    return read_json(directory / "config.json", what="a model has a config.json")
