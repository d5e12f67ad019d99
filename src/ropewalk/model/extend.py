"""Extend a checkpoint's window: link its weights, rewrite its config, and check that transformers computes the inv_freq asked for.

in   a model and the window it shall have
out  a plain Hugging Face checkpoint, whole or not at all; no weight is loaded and none is changed
"""

from __future__ import annotations

import dataclasses
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.disk_room import refuse_without_room
from ropewalk.checkpoint.files import refuse_existing, whole_directory, write_json
from ropewalk.checkpoint.layers import refuse_to_extend, with_raised_window
from ropewalk.checkpoint.longer import longer
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.checkpoint.own_code import without_code
from ropewalk.checkpoint.position_table import Positions, PositionTable, longer_table_config
from ropewalk.checkpoint.ropewalk_block import block_for
from ropewalk.checkpoint.tensor_problems import refuse_quantised
from ropewalk.checkpoint.write_rope import write_rope
from ropewalk.errors import UserError
from ropewalk.readers.refusals import refuse_damaged
from ropewalk.readers.spelling_checks import refuse_what_stops_transformers, warn_of_spellings
from ropewalk.records.choice import settled
from ropewalk.rope.scaling import InterpolatedTable, Linear, Rope, Scaling
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.inputs import inputs_of
from ropewalk.settings.scaling import ScalingOptions
from ropewalk.settings.windows import perhaps_thousands
from ropewalk.version import __version__

if TYPE_CHECKING:
    from ropewalk.model.carry import Written

_logger = logging.getLogger(__name__)


@takes(ExtendSettings)
def extend(settings: ExtendSettings) -> ModelInfo:
    """Write a checkpoint with a longer window; no weight is loaded or changed.

    Returns:
        The new checkpoint, as records describe it.

    Raises:
        UserError: the window is not longer, the scalings cannot be composed, or a file is missing or damaged.
    """
    extended, _ = prepared(settings)
    checkpoint, config_dict = extended.weights_of or extended, extended.config
    from ropewalk.model.carry import carry_the_rest, carry_weights, say_of_links, write_readme
    from ropewalk.model.load import refuse_what_no_reader_loads
    from ropewalk.model.position_table import interpolate_in_place
    from ropewalk.model.verify import verify_directory

    inputs = [*inputs_of(settings), checkpoint.path]
    with whole_directory(settings.out, overwrite=settings.overwrite, inputs=inputs) as beside:
        carry_weights(checkpoint, beside, convert_pickle=settings.convert_pickle)
        carry_the_rest(checkpoint, beside, window=settings.window)
        write_json(beside / "config.json", config_dict)
        if isinstance(checkpoint.positions, PositionTable):
            config_dict = interpolate_in_place(beside, checkpoint.positions, name=checkpoint.name)
        written = Checkpoint(str(checkpoint), beside, config_dict, trust_remote_code=checkpoint.trust_remote_code)
        if not checkpoint.has_weights:  # they were pickled
            refuse_damaged(written)
            refuse_quantised(written)
        refuse_what_no_reader_loads(written)
        write_readme(beside, written.info, base=checkpoint, history=config_dict["ropewalk"]["history"])
        verify_directory(beside, trust_remote_code=checkpoint.trust_remote_code)
        run_file.write(settings, beside)
    say_of_links(Path(settings.out), checkpoint)
    return Checkpoint.open(settings.out).info


def prepared(settings: ExtendSettings) -> tuple[Checkpoint, Written]:
    """The checkpoint under its longer config, looked at and proved, and what the disk was asked for; nothing is written.

    Raises:
        UserError: as `extend`, whatever can be known before.
    """
    checkpoint = Checkpoint.open(settings.model, pickles=settings.convert_pickle, **settings.opening)
    inputs = [*inputs_of(settings), checkpoint.path]
    refuse_existing(settings.out, overwrite=settings.overwrite, inputs=inputs)
    if checkpoint.has_weights:  # else they may be pickled yet
        refuse_quantised(checkpoint)
    refuse_what_stops_transformers(checkpoint)
    config_dict = extended_config(checkpoint, window=settings.window, options=settings)
    if not checkpoint.trust_remote_code:
        config_dict = without_code(config_dict)
    # Only now, so that what the config alone refuses is said before transformers is imported.
    from ropewalk.model.load import refuse_unknown_code

    refuse_unknown_code(checkpoint)  # one that needs its code is refused, so what is left can do without
    warn_of_spellings(checkpoint, makes=True)
    extended = checkpoint.with_config(config_dict)
    prove_extension(checkpoint, extended, settings)
    if not isinstance(checkpoint.positions, PositionTable):
        _logger.info("%s: %s", checkpoint.name, checkpoint.layers)
        _warn_of_readers(config_dict)
    refuse_damaged(checkpoint)
    from ropewalk.model.carry import to_be_written

    written = to_be_written(extended, settings.out, convert_pickle=settings.convert_pickle)
    refuse_without_room(settings.out, written.taken)
    return extended, written


def _warn_of_readers(config_dict: dict[str, Any]) -> None:
    """Log which readers of the directory would get it wrong without a word, as llama.cpp leaves the scaling of GPT-NeoX out."""
    from ropewalk.readers.objections import silent_fault
    from ropewalk.readers.rules import READERS

    ignoring = [name for name, reader in READERS.items() if reader.scaling_is_ignored(config_dict)]
    if ignoring:
        _logger.warning(
            "%s would leave the scaling of this model out; `ropewalk export` says what to do", ", ".join(ignoring)
        )
    for name, reader in READERS.items():
        if fault := silent_fault(reader, config_dict):
            _logger.warning("%s %s, without a word: what it computes is not this model", name, fault)


def say_of_scores(now: Scaling, new: Scaling, rope: Rope) -> None:
    """Log by how much scores were multiplied and will be, where a scaling takes another's place: its temperature goes with it."""
    before, after = (each.attention_factor(rope) ** 2 for each in (now, new))
    if now.temperature_of_all != new.temperature_of_all:
        _logger.warning(
            "mscale_all_dim, by which %s multiplied all scores by %.4g, is left out by %s; --method %s keeps it",
            now.label,
            now.temperature_of_all,
            new.label,
            now.method,
        )
    if not math.isclose(before, 1) and not math.isclose(before, after):
        _logger.warning(
            "scores of rotated coordinates: %s multiplied them by %.4g, %s by %.4g", now.label, before, new.label, after
        )


def extended_config(checkpoint: Checkpoint, *, window: int, options: ScalingOptions | None = None) -> dict[str, Any]:
    """The dictionary of a checkpoint's config.json with a longer window: the algebra of `extend`, without any file.

    Args:
        checkpoint: only its config is looked at.
        window: L', tokens.
        options: the method and its parameters; `auto` if not given.

    Raises:
        UserError: as `extend`.
    """
    options = options or ScalingOptions()
    if isinstance(checkpoint.positions, PositionTable):
        return _longer_table(checkpoint, checkpoint.positions, window, options)
    if options.raise_sliding_window:
        raised = checkpoint.with_config(with_raised_window(checkpoint.config, checkpoint.layers, window))
        checkpoint = Checkpoint.open(raised, **dataclasses.asdict(checkpoint.answers))
    rope_config = checkpoint.rope
    current = rope_config.window
    _refuse_shorter(window, current)
    refuse_to_extend(checkpoint.layers, window, rope_config.family)
    method = settled(options.method, options.parameters, checkpoint.info, window)
    new = longer(rope_config, window, method, options.parameters)
    rope, scaling = new.rope, new.scaling
    options.refuse_factors_of_other_windows(rope.window, window)
    if scaling.takes_place:
        say_of_scores(rope_config.scaling, scaling, rope)
    step = {
        "method": scaling.method,
        "factor": window / current,
        "from": current,
        "to": window,
        "ropewalk": __version__,
    }
    step |= options.parameters | ({"raised_sliding_window": True} if options.raise_sliding_window else {})
    block = block_for(scaling, rope, window=window, steps=0, history=[*history_of(rope_config), step])
    return write_rope(checkpoint.config, scaling, window=window, rope=rope, block=block)


def _refuse_shorter(window: int, current: int) -> None:
    if not isinstance(window, int) or window <= current:
        raise UserError(
            f"window {window} is not longer than the model's own {current}{perhaps_thousands(window, current)}; nothing to extend (ask for more than {current} tokens)"
        )


def _longer_table(checkpoint: Checkpoint, table: PositionTable, window: int, options: ScalingOptions) -> dict[str, Any]:
    _refuse_shorter(window, table.window)
    if options.method not in (Linear.method, "auto") or options.parameters or options.raise_sliding_window:
        raise UserError(
            f"a learned table of positions is interpolated, and other methods change rotations or sliding windows, which a {table.family} "
            "model has none of; leave --method and its parameters out"
        )
    if local := table.local_layers(window):
        _logger.warning("%s: %s, whatever its window", checkpoint.name, local)
    factor = window / table.window
    step = {
        "method": InterpolatedTable.method,
        "factor": factor,
        "from": table.window,
        "to": window,
        "ropewalk": __version__,
    }
    return longer_table_config(checkpoint.config, table, window=window, history=[*history_of(table), step])


def prove_extension(before: Checkpoint, after: Checkpoint, options: ScalingOptions) -> None:
    """Prove on a small copy what `extended_config` made of a checkpoint's config.

    Args:
        before, after: the checkpoint, and the same weights under the new config.
        options: that `extended_config` had.

    Raises:
        UserError: what `prove` raises.
    """
    from ropewalk.model.proof import prove

    if isinstance(before.positions, PositionTable) or after.rope.scaling == before.rope.scaling:
        return  # no rotation has changed
    step = after.config["ropewalk"]["history"][-1]
    if step["method"] == Linear.method and not float(step["factor"]).is_integer():
        # Positions are whole numbers: the same extension by the next whole factor is proved.
        whole = extended_config(before, window=step["from"] * math.ceil(step["factor"]), options=options)
        after = before.with_config(whole)
    prove(before, after, code=str(before.path) if before.trust_remote_code else None)


def history_of(positions: Positions) -> list[dict[str, Any]]:
    """The extensions so far, each with the steps that were taken at its window: what is trained next begins its count again."""
    past = list(positions.block.get("history", []))
    if past and positions.block.get("steps"):
        past[-1] = {**past[-1], "steps": past[-1].get("steps", 0) + positions.block["steps"]}
    return past
