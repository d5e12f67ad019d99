"""`--optimizer adamw-offload`: AdamW whose two moments lie in the host's memory and pass through the GPU while the weights move.

in   float32 weights on one GPU
out  the weights that torch's fused AdamW would make, to the last bit, without eight bytes a weight of the GPU's memory

The arithmetic is the GPU's: a piece of the moments comes, the same piece of the weights moves, and it goes back, while the next one comes
on a stream of its own. Gradients stay on the GPU, so that they can be added up, clipped and dropped as with any optimiser; and the state is
AdamW's own, so that its checkpoints are AdamW's. (torchao's CPUOffloadOptimizer takes each gradient away before it is clipped, and what it saves
lacks the weights: docs/log.md, 2026-11-26.)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from ropewalk.training.host_link import beside, pinned, reached, stream, wait

#: Elements of a piece, 64 MiB of each moment, and how many are on the GPU at a time: one comes, one is computed with, one goes.
_PIECE, _SLOTS = 2**24, 3
_MOMENTS = ("exp_avg", "exp_avg_sq")


class HostAdamW(torch.optim.AdamW):
    """AdamW with `exp_avg` and `exp_avg_sq` in pinned host memory; options as AdamW's. On a CPU, in tests, its plain equal."""

    def __init__(self, parameters: Iterable[nn.Parameter], **options: Any) -> None:
        super().__init__(parameters, fused=True, **options)
        self.device: torch.device = self.param_groups[0]["params"][0].device
        self._come, self._go = stream(self.device), stream(self.device)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # pyrefly: ignore[bad-override]
        """Move every weight that has a gradient; what a step needs of the GPU is taken before the first one moves."""
        loss = None if closure is None else closure()
        moving = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        size = min(_PIECE, max((p.numel() for _, p in moving), default=0))
        slots = [torch.empty(2, size, device=self.device, dtype=torch.float32) for _ in range(_SLOTS)]
        free = [reached(self.device)] * _SLOTS  # what used their memory before may not be done
        turn = itertools.cycle(range(_SLOTS))
        for group, parameter in moving:
            state = self._state(parameter)
            for weight, gradient, *host in self._pieces(parameter, state):
                slot = next(turn)
                moments = [row[: weight.numel()] for row in slots[slot]]
                with beside(self._come, free[slot]):
                    _copy(moments, host)
                    come = reached(self.device)
                wait(self.device, come)
                _move(group, weight, gradient, moments, state["step"].clone())
                with beside(self._go, reached(self.device)):
                    _copy(host, moments)
                    free[slot] = reached(self.device)
            state["step"] += 1
        if self.device.type == "cuda":  # whoever reads the moments next finds them whole
            torch.cuda.synchronize(self.device)
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As AdamW's, which would put the moments on the GPU."""
        super().load_state_dict({"state": {}, "param_groups": state_dict["param_groups"]})
        parameters = [p for group in self.param_groups for p in group["params"]]
        for number, saved in state_dict["state"].items():
            state = self._state(parameters[number])
            for name, value in saved.items():
                state[name].copy_(torch.as_tensor(value))

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), device=parameter.device)
            for name in _MOMENTS:  # pinned memory begins as zeros
                buffer = pinned(parameter.numel() * parameter.element_size(), parameter.device)
                state[name] = buffer.view(parameter.dtype).view(parameter.shape)
        return state

    def _pieces(self, parameter: nn.Parameter, state: dict[str, Tensor]) -> Iterator[tuple[Tensor, ...]]:
        assert parameter.grad is not None
        whole = parameter.detach(), parameter.grad.contiguous(), *(state[name] for name in _MOMENTS)
        return zip(*(each.view(-1).split(_PIECE) for each in whole), strict=True)


def _copy(there: Iterable[Tensor], here: Iterable[Tensor]) -> None:
    for target, source in zip(there, here, strict=True):
        target.copy_(source, non_blocking=True)


def _move(group: dict[str, Any], weight: Tensor, gradient: Tensor, moments: list[Tensor], step: Tensor) -> None:
    beta1, beta2 = group["betas"]
    options = {name: group[name] for name in ("lr", "weight_decay", "eps", "amsgrad", "maximize")}
    exp_avg, exp_avg_sq = moments
    adamw([weight], [gradient], [exp_avg], [exp_avg_sq], [], [step], fused=True, beta1=beta1, beta2=beta2, **options)
