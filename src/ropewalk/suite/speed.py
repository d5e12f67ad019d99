"""How fast rows of an ablation are trained and measured, for an estimate before anything is run.

in   a chip by name, or a model whose shapes are timed on this machine
out  a `Speed`
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.planner.chip_names import parse
from ropewalk.planner.chips import CHIPS
from ropewalk.planner.planner import plan
from ropewalk.settings.recipe import Mode


@dataclass(frozen=True)
class Speed:
    """Of one chip, layers not compiled when it measures.

    Attributes:
        training, measuring: floating-point operations a second, nothing computed again counted.
        tokens: a second, of the smallest models, which no number of operations explains.
        beside: seconds that a row takes beside, untrained and trained.
    """

    training: float
    measuring: float
    tokens: float = math.inf
    beside: tuple[float, float] = (0.0, 0.0)


#: Measured on SmolLM2-135M: 82,000 tokens/s in training at 32768.
H100 = Speed(3.4e14, 1.5e14, 3.5e5, (5.0, 20.0))


def of_chip(name: str) -> Speed:
    """One H100's, by what the data sheets say of the two.

    Raises:
        UserError: no such chip, more than one, or one of which no rate is known.
    """
    count, chip = parse(name)
    if count != 1 or not chip.matrix:
        raise UserError(
            f"a row is estimated on one chip whose rate its maker names, got --chip {name}; name one such chip, as in --chip H100"
        )
    share = chip.matrix / CHIPS["H100"].matrix
    return dataclasses.replace(H100, training=H100.training * share, measuring=H100.measuring * share)


def of_this_machine(model: Checkpoint, window: int, mode: Mode) -> Speed:
    """Products and attention of the model at this window are timed for ten seconds, as `plan` has it."""
    time = plan(model, window=window, mode=mode, batch_size=1, steps=1).time
    return Speed(time.flops / time.seconds, time.flops / (time.products + time.attention + time.elementwise))
