"""torchao's AdamW (moments in 8 bits; bfloat16 weights rounded up or down by chance), eight weights of one shape to a compiled call.

in   parameters and AdamW's settings
out  an optimiser whose states, and whose arithmetic, are torchao's

torchao calls its compiled step once for each parameter, and compiles the wrapper anew each time: of an 8B that is 290 calls a step, whose Python takes
longer than their arithmetic on a GPU (docs/log.md, 2026-11-29).
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ropewalk.errors import UserError
from ropewalk.settings.extras import bringing

#: Parameters of one shape in a compiled call. Each shape is compiled by itself, and once more for a rest.
AT_ONCE = 8


def build(
    parameters: Iterable[nn.Parameter], *, eight_bits: bool, stochastic: bool, **common: Any
) -> torch.optim.Optimizer:
    """AdamW of the parameters. eight_bits: the moments. stochastic: bfloat16 weights are rounded by chance. common: rate, betas, eps, weight decay.

    Raises:
        UserError: torchao is absent.
    """
    parameters = list(parameters)
    _torchao("precision bfloat16-stochastic" if stochastic else "optimizer adamw-8bit")
    if any(hasattr(parameter, "to_local") for parameter in parameters):  # sharded
        _compile_anew()
    return _kind(eight_bits)(parameters, bf16_stochastic_round=stochastic, **common)


class SeveralAtOnce:
    """An optimiser of torchao's with `step` replaced: the same arithmetic for lists of parameters."""

    param_groups: list[dict[str, Any]]
    state: dict[nn.Parameter, dict[str, Any]]
    bf16_stochastic_round: bool
    _new_buffer: Callable[[nn.Parameter, bool], torch.Tensor]

    def allocate_states(self) -> None:
        """Make the moments of every parameter that has none."""
        for group in self.param_groups:
            for parameter in group["params"]:
                self._state_of(parameter)

    def _state_of(self, parameter: nn.Parameter) -> dict[str, Any]:
        state, new = self.state[parameter], self._new_buffer
        if not state:
            state |= dict(step=torch.tensor(0.0), exp_avg=new(parameter, True), exp_avg_sq=new(parameter, False))
        return state

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for several in _alike(p for p in group["params"] if p.grad is not None):
                self._update(several, group)

    def _update(self, several: list[nn.Parameter], group: dict[str, Any]) -> None:
        states = [self._state_of(parameter) for parameter in several]
        for state in states:
            state["step"] += 1
        by_name = [[state[name] for state in states] for name in ("step", "exp_avg", "exp_avg_sq")]
        stochastic = self.bf16_stochastic_round and several[0].dtype is torch.bfloat16
        rule = (group["lr"], *group["betas"], group["weight_decay"], group["eps"], stochastic)
        # Shapes and dtypes of a model are few: each is worth its compilation.
        with torch._dynamo.config.patch(recompile_limit=2**16, accumulated_recompile_limit=2**16):
            # Detached, a sharded parameter brings no gradient along.
            _compiled()([p.detach() for p in several], [p.grad for p in several], *by_name, rule)


def _alike(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters of one shape, dtype and layout, AT_ONCE at a time, those of the most common shapes as whole lists."""
    kinds: dict[Any, list[nn.Parameter]] = {}
    for parameter in parameters:
        placements = getattr(parameter, "placements", None)
        kinds.setdefault((parameter.shape, parameter.dtype, parameter.device, placements), []).append(parameter)
    for alike in kinds.values():
        for start in range(0, len(alike), AT_ONCE):
            yield alike[start : start + AT_ONCE]


@functools.cache
def _compiled() -> Any:
    one: Any = importlib.import_module("torchao.optim.adam").single_param_adam

    def several(weights: Any, gradients: Any, steps: Any, averages: Any, squares: Any, rule: Any) -> None:
        lr, beta1, beta2, weight_decay, eps, stochastic = rule
        for weight, gradient, step, average, square in zip(weights, gradients, steps, averages, squares, strict=True):
            one(weight, gradient, step, average, square, None, lr, beta1, beta2, weight_decay, eps, True, stochastic)

    return torch.compile(several, fullgraph=True, dynamic=False)


@functools.cache
def _kind(eight_bits: bool) -> Any:
    optim: Any = importlib.import_module("torchao.optim")

    class AdamW(SeveralAtOnce, optim._AdamW):
        pass

    class AdamW8bit(SeveralAtOnce, optim.AdamW8bit):
        @staticmethod
        def _subclass_zeros(p: torch.Tensor, signed: bool, block_size: int) -> torch.Tensor:
            """Moments that say that they are float32, as they are computed in.

            torchao's own say bfloat16 where the weights are that, and forget it in `view`, which sharding calls: then their sharded step cannot be
            compiled (torchao 0.18 on torch 2.11 and 2.13: "unimplemented operator aten.view.dtype").
            """
            return type(optim.AdamW8bit._subclass_zeros(p, signed, block_size)).zeros(
                p.shape, signed, block_size, p.device
            )

    return AdamW8bit if eight_bits else AdamW


def _compile_anew() -> None:
    """Have the steps compiled by every process: PyTorch's cache on disk takes sharded moments in 8 bits for others of their shape, and hands the step
    of the one to the other ("'Tensor' object has no attribute 'codes'").
    """
    config: Any = importlib.import_module("torch._functorch.config")
    config.enable_autograd_cache = False


def _torchao(what: str) -> None:
    try:
        import torchao.optim  # noqa: F401  # pyrefly: ignore[missing-import]
    except ImportError:
        raise UserError(
            f"{what} comes from torchao, which is not installed: {bringing('torchao')}, or use adamw"
        ) from None
