"""AdamW and its learning rate, in forms whose small updates survive.

in   parameters and settings
out  an optimiser; the rate of a step as a pure function of its number

At 2e-5 an AdamW update of a weight near 0.02 is about 0.1 % of it, and bfloat16 keeps 8 bits: weights rounded to nearest would
not move. Hence float32 weights, or bfloat16 weights whose updates are rounded up or down by chance, so that they are right on
average. Bytes a parameter (docs/method.md): float32 16, with 8-bit states 10, bfloat16-stochastic 8, both 6.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from ropewalk.errors import UserError
from ropewalk.sentences import counted
from ropewalk.settings.budget import EIGHT_BIT_MOMENTS
from ropewalk.settings.recipe import Recipe
from ropewalk.settings.train import TrainSettings
from ropewalk.training import torchao_adamw
from ropewalk.training.host_adamw import HostAdamW


def learning_rate(step: int, peak: float, warmup: int) -> float:
    """The rate of step `step` (from 0): linear from 10 % of `peak` to `peak` over `warmup` steps, then constant (3.1).

    >>> [round(learning_rate(step, 1.0, 20), 3) for step in (0, 10, 20, 1000)]
    [0.1, 0.55, 1.0, 1.0]
    """
    return peak if step >= warmup else peak * (0.1 + 0.9 * step / warmup)


def short_warmup(steps: int, peak: float, warmup: int) -> str:
    """What is said of a run that ends before its rate has risen."""
    last = learning_rate(steps - 1, peak, warmup)
    return (
        f"the rate rises over {counted(warmup, 'step')} (--warmup), and there are {steps}: it reaches {last:.3g} of the {peak:.3g} asked for; a shorter "
        f"--warmup reaches it"
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group the rate; torchao keeps it in a tensor so that its compiled step is not compiled again."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def build(parameters: Iterable[nn.Parameter], settings: TrainSettings, peak: float) -> torch.optim.Optimizer:
    """The optimiser that the settings name.

    Raises:
        UserError: torchao is needed and absent.
    """
    parameters = list(parameters)
    common: dict[str, Any] = dict(
        lr=peak, betas=(settings.beta1, settings.beta2), eps=1e-8, weight_decay=settings.weight_decay
    )
    stochastic = settings.precision == "bfloat16-stochastic"
    if settings.optimizer in ("auto", "adamw") and not stochastic:
        # One fused pass over memory instead of a dozen; torch has it for CPU and GPU, DTensors included.
        return torch.optim.AdamW(parameters, fused=True, **common)
    if settings.optimizer == "adamw-offload":
        return HostAdamW(parameters, **common)
    return torchao_adamw.build(
        parameters, eight_bits=settings.optimizer == "adamw-8bit", stochastic=stochastic, **common
    )


def refuse_offload(recipe: Recipe, device: torch.device, world: int) -> None:
    """Refuse states in the host's memory where there are none to be sent there; before a model is loaded.

    Raises:
        UserError: no GPU or several.
    """
    if recipe.optimizer == "adamw-offload" and (device.type != "cuda" or world > 1):
        raise UserError(
            "adamw-offload keeps float32 states in the host's memory while one GPU trains float32 weights; use it on one GPU with "
            "precision bfloat16, or use adamw or adamw-8bit"
        )


def allocate_states(optimizer: torch.optim.Optimizer) -> None:
    """Make AdamW's states, which its first step would make, now: what a step takes then shows in its passes, before any weight moves.

    A step of one parameter after the other, with a gradient of zero and a rate of 0, leaves weights and moments as a first step finds
    them, and its count is set back; an optimiser of ours makes them without a step. States that are there already (a resumed run's) are left alone.
    """
    if isinstance(optimizer, torchao_adamw.SeveralAtOnce):
        optimizer.allocate_states()
        return
    rate = float(optimizer.param_groups[0]["lr"])
    set_rate(optimizer, 0.0)
    for parameter in [p for group in optimizer.param_groups for p in group["params"] if p not in optimizer.state]:
        parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        parameter.grad = None
        optimizer.state[parameter]["step"].zero_()
    set_rate(optimizer, rate)


def saved_bytes(name: str, parameter: nn.Parameter) -> float:
    """Bytes of AdamW's two moments, an element of this parameter, wherever they are."""
    return EIGHT_BIT_MOMENTS if name == "adamw-8bit" else 2.0 * parameter.element_size()
