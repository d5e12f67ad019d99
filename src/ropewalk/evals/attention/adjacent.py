"""Are neighbouring tokens told apart? Interpolation squeezes them together by the factor; here is what that does to scores.

in   one layer's rotated queries and keys
out  per head: how much a score changes from one token to the next, beside how much a query's scores differ at all; and how
     much attention the token just before gets

**Change.** A key at distance s = 0 .. 3 is moved one token farther with its content left alone: |a(s + 1) - a(s)|, the mean
over queries and s. **Spread** is the standard deviation of a query's scores over all the keys it sees, the mean over queries.
**Resolution** is change over spread: near 1, a step of one token moves a score as far as changing the word does; near 0,
position is drowned. **Previous** is the share of attention on the token before, which heads that copy or spell live on.

512 queries are looked at, evenly spread over the original window: every state of a model, extended or not, is asked about
the same words with the same number of keys in sight.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from ropewalk.evals.attention import complex_pairs
from ropewalk.evals.attention.probe import Layer
from ropewalk.rope.scaling import InvFreq

ROWS = 512
#: A query with fewer keys in sight says little of a spread.
_ENOUGH = 32
_NEAR = 4
#: A window in which one token has keys at every distance that is looked at.
FEWEST = _NEAR


@dataclass
class Nearby:
    """One layer's sums over documents; `add` documents, then read the means, each (heads,)."""

    rows: int = 0
    _change: np.ndarray | float = 0.0
    _spread: np.ndarray | float = 0.0
    _previous: np.ndarray | float = 0.0

    def add(self, layer: Layer, key: Float[torch.Tensor, "heads n d"], speeds: InvFreq, within: int) -> None:
        """Take in a document.

        Args:
            layer: what attention received.
            key: its keys in float32, one head a query head.
            speeds: how this layer turns now.
            within: queries before this position are asked: the original window.
        """
        rows = chosen(min(within, key.shape[1]))
        rows = rows.to(key.device)
        query = layer.query[:, rows].float()
        turned = complex_pairs.planes(query, len(speeds), layer.pairing)
        for s in range(_NEAR):
            other = complex_pairs.planes(key[:, rows - s], len(speeds), layer.pairing)
            moved = complex_pairs.change(turned, other, speeds, layer.scale)
            self._change = self._change + moved.double().sum(dim=1).cpu().numpy() / _NEAR
        spread, previous = _over_keys(layer, query, key, rows)
        self._spread = self._spread + spread.double().sum(dim=1).cpu().numpy()
        self._previous = self._previous + previous.double().sum(dim=1).cpu().numpy()
        self.rows += len(rows)

    @property
    def change(self) -> np.ndarray:
        return np.asarray(self._change) / self.rows

    @property
    def spread(self) -> np.ndarray:
        return np.asarray(self._spread) / self.rows

    @property
    def resolution(self) -> np.ndarray:
        return self.change / self.spread

    @property
    def previous(self) -> np.ndarray:
        return np.asarray(self._previous) / self.rows


def chosen(within: int) -> Int[torch.Tensor, " rows"]:
    """Up to 512 positions, evenly spread, the first with 32 keys before it (fewer in a tiny window) and all with four."""
    first = max(_NEAR - 1, min(_ENOUGH, within // 2))
    return torch.linspace(first, within - 1, min(ROWS, max(1, within - first))).round().long().unique()


def _over_keys(
    layer: Layer,
    query: Float[torch.Tensor, "heads rows d"],
    key: Float[torch.Tensor, "heads n d"],
    rows: Int[torch.Tensor, " rows"],
) -> tuple[Float[torch.Tensor, "heads rows"], Float[torch.Tensor, "heads rows"]]:
    """Each query's standard deviation over the keys it sees, and its share of attention on the token before; head by head."""
    last = int(rows[-1]) + 1
    distance = rows[:, None] - torch.arange(last, device=rows.device)[None]
    hidden = distance < 0
    if layer.local is not None:
        hidden |= distance >= layer.local
    seen = (~hidden).sum(dim=1)
    spreads, shares = [], []
    for one_query, one_key in zip(query, key, strict=True):
        scores = one_query @ one_key[:last].T * layer.scale
        inside = scores.masked_fill(hidden, 0.0)
        mean = inside.sum(dim=1) / seen
        squares = ((scores - mean[:, None]).masked_fill(hidden, 0.0) ** 2).sum(dim=1)
        spreads.append((squares / seen).sqrt())
        if layer.softcap is not None:
            scores = layer.softcap * torch.tanh(scores / layer.softcap)
        attention = scores.masked_fill(hidden, -torch.inf).softmax(dim=1)
        shares.append(attention.gather(1, rows[:, None] - 1)[:, 0])
    return torch.stack(spreads), torch.stack(shares)
