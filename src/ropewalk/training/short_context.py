"""The loss of a batch's labels in a short context, by the model that is trained, before it reads them in the whole one (LongCE).

in   rows of a micro batch; how long a short context is, and by how much it slides
out  the rows with `short`: of each label its loss in nats, NaN where the whole context is no longer than the short one

The short context slides as context gain's does (evals/perplexity/two_pass.py): a pass over `short` tokens gives the loss of its last `stride`, so
that each is predicted from short - stride to short - 1 tokens before it. The last pass ends where the row ends. In a row of several
documents no context reaches beyond its own; passes in which no label has a longer one are left out. A pass is read from position 0, by one
device, even where several share the window: these share out the passes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ropewalk.data.packing import IGNORED
from ropewalk.distributed.mesh import Mesh

#: Of a micro batch: row and first token of each pass.
_Places = Int[Tensor, "passes 2"]


@dataclass(frozen=True)
class ShortContext:
    """How labels are read in a short context.

    Attributes:
        short: tokens of a pass.
        stride: labels whose loss it gives.
    """

    short: int
    stride: int

    def starts(self, window: int) -> list[int]:
        """First tokens of the passes over a row of so many inputs, which has one token more, the last label."""
        last = window + 1 - self.short
        return [min(start, last) for start in range(self.stride, last + self.stride, self.stride)]

    def add(
        self, rows: dict[str, Tensor], loss: Callable[..., Tensor], mesh: Mesh, *, in_blocks: bool
    ) -> dict[str, Tensor]:
        """The rows with `short`, float32 [batch, tokens]. All processes take part, each with its own rows.

        loss: `NextTokenLoss`, sharded or not. in_blocks: whether it attends by attention_ops/block_attention.py.
        """
        places, wanted = self._passes(rows)
        share = slice(mesh.context_rank, None, mesh.context_size)
        places, wanted = places[share], wanted[share]
        at_once = max(1, rows["input_ids"].numel() // mesh.context_size // self.short)
        # Sharded weights are gathered by all processes together, so all make as many passes; and all of one shape, for which layers are
        # compiled once. Further ones read the beginning of the first row, for nothing.
        most = -(-mesh.most(len(places)) // at_once) * at_once
        places = torch.cat([places, places.new_zeros(most - len(places), 2)])
        wanted = torch.cat([wanted, wanted.new_zeros(most - len(wanted), wanted.shape[1])])
        short_losses = torch.zeros_like(rows["labels"], dtype=torch.float32)
        known = torch.zeros_like(rows["labels"], dtype=torch.bool)
        for begin in range(0, most, at_once):
            some, scored = places[begin : begin + at_once], wanted[begin : begin + at_once]
            inputs = self._inputs(rows, some, scored)
            with torch.no_grad():
                losses = loss(**(mesh.split(inputs, whole=True) if in_blocks else inputs), each=True)
            row, token = self._cells(some)
            short_losses[row[scored], token[scored]] = losses[scored]
            known[row[scored], token[scored]] = True
        known = mesh.sum_over_window(known.float()) > 0
        return {**rows, "short": torch.where(known, mesh.sum_over_window(short_losses), torch.nan)}

    def _cells(self, places: _Places) -> tuple[Int[Tensor, "passes tokens"], Int[Tensor, "passes tokens"]]:
        """Rows and places in them of the inputs, and so of the labels, that passes read."""
        within = torch.arange(self.short - 1, device=places.device)
        return places[:, :1].expand(-1, self.short - 1), places[:, 1:] + within

    def _passes(self, rows: dict[str, Tensor]) -> tuple[_Places, Bool[Tensor, "passes tokens"]]:
        """Those that give a loss, and of which of their labels."""
        batch, window = rows["labels"].shape
        starts = self.starts(window)
        device = rows["labels"].device
        places = torch.cartesian_prod(torch.arange(batch, device=device), torch.tensor(starts, device=device))
        row, token = self._cells(places)
        # A label is scored by the first pass that has its last `stride` labels there; the last pass begins earlier than it would.
        ends = torch.tensor([0, *(start + self.short - 1 for start in starts)], device=device)
        fresh = token >= torch.maximum(ends[:-1], ends[1:] - self.stride).repeat(batch)[:, None]
        longer = _begins(rows, row, token) < places[:, 1:]
        wanted = fresh & longer & (rows["labels"][row, token] != IGNORED)
        kept = wanted.any(dim=1)
        return places[kept], wanted[kept]

    def _inputs(
        self, rows: dict[str, Tensor], places: _Places, scored: Bool[Tensor, "passes tokens"]
    ) -> dict[str, Tensor]:
        row, token = self._cells(places)
        inputs = {"input_ids": rows["input_ids"][row, token]}
        inputs["labels"] = torch.where(scored, rows["labels"][row, token], IGNORED)
        if "position_ids" in rows:
            # What began before the pass begins at 0 in it.
            inputs["position_ids"] = token - torch.maximum(_begins(rows, row, token), places[:, 1:])
        return inputs


def _begins(
    rows: dict[str, Tensor], row: Int[Tensor, "passes tokens"], token: Int[Tensor, "passes tokens"]
) -> Int[Tensor, "passes tokens"]:
    """Where in its row the context of each token begins."""
    if "position_ids" not in rows:
        return torch.zeros_like(token)
    return token - rows["position_ids"][row, token]
