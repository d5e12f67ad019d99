"""Load a model, whole and verified, and its tokenizer.

in   a name (`hemp`, a directory, a hub id) or an open checkpoint
out  a transformers model whose every `inv_freq` equals the closed form of rope/, on the device and in the dtype asked for
"""

from __future__ import annotations

import contextlib
import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.families import refuse_without_rope
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.position_table import PositionTable, read_table
from ropewalk.checkpoint.tensor_problems import Problem, doubts, embedding_rows, names_larger_tensors
from ropewalk.checkpoint.tokenizer_config import has_tokenizer
from ropewalk.data.encode import limit_ids
from ropewalk.errors import STRANGE_DATA, Unsupported, UserError, read_text, told
from ropewalk.model.architecture import auto_class, has_attention, in_transformers
from ropewalk.model.devices import device_for, dtype_for
from ropewalk.model.fit import misfits, refuse_not_finite
from ropewalk.model.position_table import refuse_unfit_table
from ropewalk.model.verify import by_transformers, verify_positions
from ropewalk.readers.spelling_checks import refuse_what_stops_transformers, warn_of_spellings
from ropewalk.settings.command import takes
from ropewalk.settings.load import LoadSettings


@takes(LoadSettings)
def load_model(settings: LoadSettings) -> transformers.PreTrainedModel:
    """Load a causal language model, whole and verified, in evaluation mode. Rotary tables are float32 whatever the dtype.

    Raises:
        UserError: files missing or damaged, weights that do not fit the config, remote code, an inv_freq that is not the config's.
    """
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    refuse_unusable(checkpoint)
    device = device_for(settings.device)
    settle(doubts(checkpoint))
    if names_larger_tensors(checkpoint):
        settle(laid_out(checkpoint))
    loaded, report = _from_pretrained(
        checkpoint, dtype=dtype_for(settings.dtype, device), attn_implementation=settings.attention
    )
    settle(misfits(loaded, report, checkpoint))
    loaded = loaded.to(device).eval()
    way_out = "fetch it again, or mend the program that wrote it"
    refuse_not_finite(loaded.named_parameters(), str(checkpoint), way_out)
    verify_positions(loaded, checkpoint.positions)
    return loaded


def settle(problems: list[Problem]) -> None:
    """Raises UserError for the first problem that stops; warns of the others."""
    for problem in problems:
        if problem.stops:
            raise UserError(problem.sentence)
    for problem in problems:
        warnings.warn(problem.sentence, stacklevel=2)


def refuse_what_no_reader_loads(checkpoint: Checkpoint) -> None:
    """Hold a checkpoint's tensors against its model, reading none, and open its tokenizer, if any.

    Raises:
        UserError: tensors are missing, of other shapes, or have no place in the model that the config describes; a broken tokenizer.
    """
    if encodes_only(checkpoint):
        return
    settle(laid_out(checkpoint))
    if has_tokenizer(checkpoint.path):
        load_tokenizer(checkpoint)


def encodes_only(checkpoint: Checkpoint) -> bool:
    """Whether it predicts no next token: it may come with any head, or none, and only its table of positions is checked, elsewhere."""
    return isinstance(checkpoint.positions, PositionTable) and not checkpoint.positions.causal


def laid_out(checkpoint: Checkpoint) -> list[Problem]:
    """What does not fit where transformers lays a checkpoint's tensors out on the meta device, which reads none of them."""
    model, report = _from_pretrained(checkpoint, dtype=torch.bfloat16, device_map="meta")
    return misfits(model, report, checkpoint)


def refuse_unusable(checkpoint: Checkpoint) -> None:
    """Refuse, before any weight is loaded, what config and headers show to be unusable.

    Raises:
        UserError: a family that transformers does not know, code of its own that was not trusted, no positions that ropewalk knows, a model
            that predicts no next token, layers that slide by nobody knows how far, weights missing or damaged.
    """
    refuse_unknown_code(checkpoint)
    refuse_what_stops_transformers(checkpoint)
    if isinstance(checkpoint.positions, PositionTable):
        refuse_unfit_table(checkpoint, checkpoint.positions)
    else:
        checkpoint.layers  # noqa: B018  # as below
    checkpoint.headers  # noqa: B018  # a cached property: reading it raises
    warn_of_spellings(checkpoint)


def _from_pretrained(checkpoint: Checkpoint, **options: Any) -> tuple[Any, dict[str, Any]]:
    """A model, and transformers' report of the tensors it missed, could not place or found of another shape."""
    chosen = {name: value for name, value in options.items() if value is not None}
    if not has_attention(checkpoint, chosen.get("attn_implementation", "")):
        chosen.pop("attn_implementation", None)
    with by_transformers(checkpoint), without_bars():
        return auto_class(checkpoint.config).from_pretrained(
            checkpoint.path,
            local_files_only=True,
            trust_remote_code=checkpoint.trust_remote_code,  # never None, or transformers asks on stdin
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
            **chosen,
        )


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """transformers draws a progress bar for every load and save, and a table of what does not fit, which we say in sentences."""
    shown = transformers.utils.logging.is_progress_bar_enabled()
    transformers.utils.logging.disable_progress_bar()
    tables = logging.getLogger("transformers.modeling_utils")
    disabled, tables.disabled = tables.disabled, True
    try:
        yield
    finally:
        tables.disabled = disabled
        if shown:
            transformers.utils.logging.enable_progress_bar()


def refuse_unknown_code(checkpoint: Checkpoint) -> None:
    """Raises UserError for a family that transformers does not know, unless the checkpoint brings its code and that is trusted."""
    known = in_transformers(checkpoint.config.get("model_type"))
    if "auto_map" in checkpoint.config and not known and not checkpoint.trust_remote_code:
        raise Unsupported(
            f"{checkpoint} brings model code of its own, which ropewalk does not run unasked; read that code, then add "
            "--trust-remote-code, or choose a family that transformers has"
        )
    if known and read_table(checkpoint.config) is not None:  # encoders too have a table that can be made longer
        return
    refuse_without_rope(
        checkpoint.text_config, text_type(checkpoint.config)
    )  # what it has instead says more than what it is
    auto_class(checkpoint.config)


def _own_code(directory: Path) -> dict[str, Any]:
    """What a tokenizer's config maps to code beside it."""
    try:
        mapped = json.loads(read_text(directory / "tokenizer_config.json")).get("auto_map")
    except (OSError, *STRANGE_DATA):
        return {}
    return mapped if isinstance(mapped, dict) else {}


def refuse_without_tokenizer(directory: Path, name: object) -> None:
    """Raises UserError where no tokenizer lies with a model."""
    if not has_tokenizer(directory):
        raise UserError(
            f"{name} has no tokenizer (tokenizer.json or tokenizer.model); copy the original model's into it"
        )


def load_tokenizer(model: ModelName, *, trust_remote_code: bool = False) -> transformers.PreTrainedTokenizerBase:
    """The tokenizer that lies with a model.

    Raises:
        UserError: there is none, or it cannot be loaded.
    """
    trusted = trust_remote_code or (isinstance(model, Checkpoint) and model.trust_remote_code)
    directory = model.path if isinstance(model, Checkpoint) else locate(model, trust_remote_code=trusted)
    name = str(model) if isinstance(model, Checkpoint) else directory
    refuse_without_tokenizer(directory, name)

    def way_out() -> str:
        copy = "copy the original model's files again"
        if trusted or "AutoTokenizer" not in _own_code(directory):
            return copy
        return f"it brings code of its own: read that, then add --trust-remote-code, or {copy}"

    with told(f"the tokenizer in {name} cannot be loaded", way_out, Exception):
        tokenizer: Any = transformers.AutoTokenizer.from_pretrained(
            directory, local_files_only=True, trust_remote_code=trusted
        )
        tokenizer("a")  # some settings that it cannot have show only when it is used
    if isinstance(model, Checkpoint):
        with contextlib.suppress(UserError):  # damaged weights are told of by whoever reads them
            limit_ids(tokenizer, embedding_rows(model))
    return tokenizer
