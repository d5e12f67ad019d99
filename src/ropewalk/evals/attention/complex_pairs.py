"""A head's rotated coordinates as complex numbers, one a plane: h_j, its sizes, and what a step of distance does to a score.

in   a layer's rotated queries and keys, float32
out  per head: max|h_j| of every frequency, how far scores stray from their chords, how much they change from token to token

With z the complex coordinates, a score's rotated part is Re sum_j z_q conj(z_k): the phase s theta_j is already in it, since
the queries and keys were turned to their positions. So any multiplier w_j in sum_j h_j exp(i s theta_j) w_j can be put on
the queries, and the sum is an ordinary inner product again.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float

from ropewalk.evals.attention import distances
from ropewalk.rope.scaling import InvFreq


def planes(
    x: Float[torch.Tensor, "heads n d"], count: int, pairing: Literal["half", "interleaved"]
) -> Complex[torch.Tensor, "heads n count"]:
    """The first 2 count coordinates as complex numbers, paired as in `rope.rotate`; the others do not turn."""
    turned = x[..., : 2 * count]
    if pairing == "interleaved":
        return torch.complex(turned[..., 0::2].contiguous(), turned[..., 1::2].contiguous())
    return torch.complex(turned[..., :count].contiguous(), turned[..., count:].contiguous())


def flat(z: Complex[torch.Tensor, "heads n count"]) -> Float[torch.Tensor, "heads n twice"]:
    """Back to real coordinates: Re a conj(b) is the inner product of flat(a) and flat(b)."""
    return torch.cat([z.real, z.imag], dim=-1)


def largest_h(
    query: Complex[torch.Tensor, "heads n count"], key: Complex[torch.Tensor, "heads n count"]
) -> Float[torch.Tensor, "heads count"]:
    """max |h_j| over all causal pairs, exactly and in O(N): |h_j| = |q_j||k_j|, so each query meets the largest key so far.

    Where a layer looks back only so far, keys before that count too: the figure may then be too large, never too small.
    """
    return (query.abs() * key.abs().cummax(dim=1).values).amax(dim=1)


def strays(
    query: Complex[torch.Tensor, "heads n count"],
    key: Complex[torch.Tensor, "heads n count"],
    theta: InvFreq,
    scale: float,
) -> Float[torch.Tensor, " heads"]:
    """max |a(s + 1/2) - (a(s) + a(s + 1))/2| over all causal pairs, s being each pair's own distance; by head.

    Half a token of the original grid, so `theta` are the unscaled speeds: the deviation that theorem 2.1 bounds.
    """
    half, whole = np.exp(0.5j * theta), np.exp(1j * theta)
    return distances.largest(flat(query * _like(half - (1 + whole) / 2, query)), flat(key), scale)


def change(
    query: Complex[torch.Tensor, "heads rows count"],
    key: Complex[torch.Tensor, "heads rows count"],
    speeds: InvFreq,
    scale: float,
) -> Float[torch.Tensor, "heads rows"]:
    """|a(s + 1) - a(s)| of each query with the key in the same row: the key moved one token farther, its content kept."""
    step = _like(np.exp(1j * speeds) - 1, query)
    return (query * step * key.conj()).real.sum(dim=-1).abs() * scale


def _like(numbers: np.ndarray, z: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(numbers).to(z.device, z.dtype)
