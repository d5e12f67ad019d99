"""Are neighbouring tokens told apart? Interpolation moves them closer by the factor; this measures what that does to scores.

in   one layer's rotated queries and keys
out  per head: how much a score changes from one token to the next, beside how much a query's scores differ at all; and how
     much attention the token just before gets

**Change.** A key at distance s = 0 .. 3 is moved one token farther with its content unchanged: |a(s + 1) - a(s)|, averaged
over queries and s. **Spread** is the standard deviation of a query's scores over all the keys it sees, averaged over queries.
**Resolution** is change over spread: near 1, a step of one token moves a score as much as another word does; near 0, position
no longer shows in the scores. **Previous** is the share of attention on the token before, which heads that copy or spell need.

512 queries are measured, evenly spread over the original window: every variant of a model, extended or not, is measured on
the same words with the same number of keys in sight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64, Int

from ropewalk.evals.attention import complex_pairs
from ropewalk.evals.attention.probe import Layer
from ropewalk.rope.scaling import InvFreq

ROWS = 512
#: With fewer keys in sight a query's spread means little.
_ENOUGH_KEYS = 32
#: Distances 0 .. 3 are measured.
_NEAR = 4
#: The smallest window that can be measured: its last token has a key at every such distance.
FEWEST = _NEAR


@dataclass
class Nearby:
    """One layer's sums over documents: `add` each document, then read the means, each (heads,)."""

    rows: int = 0
    _change: np.ndarray | float = 0.0
    _spread: np.ndarray | float = 0.0
    _previous: np.ndarray | float = 0.0

    def add(self, layer: Layer, key: Float[torch.Tensor, "heads n d"], inv_freq: InvFreq, within: int) -> None:
        """Take in a document.

        Args:
            layer: what attention received.
            key: its keys in float32, one head a query head.
            inv_freq: of this layer as it is now, scaled or not.
            within: queries before this position are measured: the original window.
        """
        rows = query_rows(min(within, key.shape[1])).to(key.device)
        query = layer.query[:, rows].float()
        query_pairs = complex_pairs.to_complex(query, len(inv_freq), layer.pairing)
        for s in range(_NEAR):
            key_pairs = complex_pairs.to_complex(key[:, rows - s], len(inv_freq), layer.pairing)
            moved = complex_pairs.change(query_pairs, key_pairs, inv_freq, layer.scale)
            self._change = self._change + moved.double().sum(dim=1).cpu().numpy() / _NEAR
        spread, previous = _over_keys(layer, query, key, rows)
        self._spread = self._spread + spread.double().sum(dim=1).cpu().numpy()
        self._previous = self._previous + previous.double().sum(dim=1).cpu().numpy()
        self.rows += len(rows)

    @property
    def change(self) -> Float64[np.ndarray, " heads"]:
        return np.asarray(self._change) / self.rows

    @property
    def spread(self) -> Float64[np.ndarray, " heads"]:
        return np.asarray(self._spread) / self.rows

    @property
    def resolution(self) -> Float64[np.ndarray, " heads"]:
        return self.change / self.spread

    @property
    def previous(self) -> Float64[np.ndarray, " heads"]:
        return np.asarray(self._previous) / self.rows


def query_rows(within: int) -> Int[torch.Tensor, " rows"]:
    """Up to 512 positions of queries, evenly spread; the first has 32 keys before it (fewer in a tiny window), all have four."""
    first = max(_NEAR - 1, min(_ENOUGH_KEYS, within // 2))
    return torch.linspace(first, within - 1, min(ROWS, max(1, within - first))).round().long().unique()


def _over_keys(
    layer: Layer,
    query: Float[torch.Tensor, "heads rows d"],
    key: Float[torch.Tensor, "heads n d"],
    rows: Int[torch.Tensor, " rows"],
) -> tuple[Float[torch.Tensor, "heads rows"], Float[torch.Tensor, "heads rows"]]:
    """Each query's standard deviation of scores over the keys it sees, and its share of attention on the token before."""
    last = int(rows[-1]) + 1
    distance = rows[:, None] - torch.arange(last, device=rows.device)[None]
    hidden = distance < 0
    if layer.local is not None:
        hidden |= distance >= layer.local
    visible = (~hidden).sum(dim=1)
    spreads, shares = [], []
    for head_query, head_key in zip(
        query, key, strict=True
    ):  # a head at a time: (rows, n) scores are the largest tensor
        scores = head_query @ head_key[:last].T * layer.scale
        inside = scores.masked_fill(hidden, 0.0)
        mean = inside.sum(dim=1) / visible
        squares = ((scores - mean[:, None]).masked_fill(hidden, 0.0) ** 2).sum(dim=1)
        spreads.append((squares / visible).sqrt())
        if layer.softcap is not None:
            scores = layer.softcap * torch.tanh(scores / layer.softcap)
        attention = scores.masked_fill(hidden, -torch.inf).softmax(dim=1)
        shares.append(attention.gather(1, rows[:, None] - 1)[:, 0])
    return torch.stack(spreads), torch.stack(shares)
