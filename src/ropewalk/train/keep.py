"""`--memory`: what the layers keep for the backward pass, settled on the first micro batch (memory.py does the choosing).

in   the loss module, the shape of a micro batch, the device
out  forward and backward passes that fit into the memory there is

    auto   on a GPU what saves most work in the memory that is left, found by trying on the first micro batch; on a CPU everything
    full   nothing but each layer's input: a third more work, least memory
    none   everything: no work twice, most memory
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ropewalk import memory
from ropewalk.errors import UserError

Memory = Literal["auto", "full", "none"]
CHOICES = ("auto", "full", "none")
#: From here on compiling the layers, a minute or two, is small beside what it saves in a run.
_WORTH_COMPILING = 1e9


class Keeping:
    """Runs a step's passes; the first one settles what is kept.

    root: the loss module. how: "auto", "full" or "none". arithmetic: the context that passes run in (autocast, or none).
    shape: of a micro batch, (windows, tokens).
    """

    def __init__(
        self,
        root: Any,
        how: str,
        device: torch.device,
        arithmetic: Callable[[], contextlib.AbstractContextManager[Any]],
        shape: tuple[int, int],
    ) -> None:
        if how not in CHOICES:
            raise UserError(
                f"memory is one of {', '.join(CHOICES)}, got {how!r}; auto chooses by what is left on the GPU"
            )
        self._root, self._device, self._arithmetic, self._shape = root, device, arithmetic, shape
        self._settled = how == "none" or (how == "auto" and device.type != "cuda")
        self._kept: memory.Activations | None = None
        if how == "full" or not self._settled:
            large = sum(parameter.numel() for parameter in root.parameters()) >= _WORTH_COMPILING
            self._kept = memory.Activations(root, compiled=device.type == "cuda" and large)
        if how == "full" and self._kept is not None:
            self._kept.keep([memory.NOTHING] * len(self._kept.layers))
            self._settled = True

    def __call__(self, passes: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> Tensor:
        """`passes()`, one forward and backward pass. The first time it may be run more than once, from gradients of zero."""
        if self._settled or self._kept is None:
            return passes()
        self._settled = True
        with self._arithmetic():
            candidates = self._kept.candidates(self._root.body, *self._shape)

        def afresh() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            return passes()

        return self._kept.fit(afresh, candidates, self._room(candidates, len(self._kept.layers)))

    def _room(self, candidates: list[memory.Candidate], layers: int) -> int:
        parameters = list(self._root.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        config = self._root.model.config.get_text_config()
        tokens = self._shape[0] * self._shape[1]
        # Not there yet and there to stay: gradients, AdamW's two moments, and under autocast the copies in bfloat16.
        reserved = sum(3 * _local(p) * p.element_size() for p in trained)
        if torch.float32 in {parameter.dtype for parameter in parameters}:
            reserved += sum(2 * _local(p) for p in parameters)
        stream = tokens * config.hidden_size * parameters[0].element_size()
        head = memory.head_bytes(tokens, config.hidden_size, config.vocab_size)
        return memory.room(self._device, candidates, layers=layers, stream=stream, head=head, reserved=reserved)


def _local(parameter: nn.Parameter) -> int:
    """Elements on this device: all of them, or a shard's."""
    whole: Any = parameter
    return whole.to_local().numel() if hasattr(whole, "to_local") else whole.numel()
