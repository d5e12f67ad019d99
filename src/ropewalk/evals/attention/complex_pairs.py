"""A head's rotated coordinates as complex numbers, one a pair: h_j, its sizes, and how a score depends on distance.

in   a layer's rotated queries and keys, float32
out  per head: max|h_j| of every frequency, the deviation of scores from their chords, their change from token to token

With z the complex coordinates, the rotated part of a score is Re sum_j z_q conj(z_k). The phase s inv_freq_j of distance s is
already in it, since queries and keys were rotated to their positions. So any multiplier w_j in sum_j h_j exp(i s inv_freq_j) w_j
can be applied to the queries, and the sum is an ordinary inner product again.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from jaxtyping import Complex, Float

from ropewalk.evals.attention import distances
from ropewalk.rope.scaling import InvFreq


def to_complex(
    x: Float[torch.Tensor, "heads n d"], pairs: int, pairing: Literal["half", "interleaved"]
) -> Complex[torch.Tensor, "heads n pairs"]:
    """The first 2 * pairs coordinates as complex numbers, paired as in `rope.rotate`; the others are not rotated."""
    rotated = x[..., : 2 * pairs]
    if pairing == "interleaved":
        return torch.complex(rotated[..., 0::2].contiguous(), rotated[..., 1::2].contiguous())
    return torch.complex(rotated[..., :pairs].contiguous(), rotated[..., pairs:].contiguous())


def to_real(z: Complex[torch.Tensor, "heads n pairs"]) -> Float[torch.Tensor, "heads n twice_pairs"]:
    """Back to real coordinates: Re a conj(b) is the inner product of to_real(a) and to_real(b)."""
    return torch.cat([z.real, z.imag], dim=-1)


def largest_h(
    query: Complex[torch.Tensor, "heads n pairs"], key: Complex[torch.Tensor, "heads n pairs"]
) -> Float[torch.Tensor, "heads pairs"]:
    """max |h_j| over all causal pairs, exactly and in O(N): |h_j| = |q_j||k_j|, so each query meets the largest key so far.

    In a layer with a sliding window, keys before it count too: the figure may then be too large, never too small.
    """
    return (query.abs() * key.abs().cummax(dim=1).values).amax(dim=1)


def deviation(
    query: Complex[torch.Tensor, "heads n pairs"],
    key: Complex[torch.Tensor, "heads n pairs"],
    inv_freq: InvFreq,
    scale: float,
) -> Float[torch.Tensor, " heads"]:
    """max |a(s + 1/2) - (a(s) + a(s + 1))/2| over all causal pairs, s being each pair's own distance; by head.

    Half a token of the original grid, so `inv_freq` is the unscaled one: the deviation that theorem 2.1 bounds.
    """
    half, whole = np.exp(0.5j * inv_freq), np.exp(1j * inv_freq)
    weighted = query * _as_tensor(half - (1 + whole) / 2, query)
    return distances.largest(to_real(weighted), to_real(key), scale)


def change(
    query: Complex[torch.Tensor, "heads rows pairs"],
    key: Complex[torch.Tensor, "heads rows pairs"],
    inv_freq: InvFreq,
    scale: float,
) -> Float[torch.Tensor, "heads rows"]:
    """|a(s + 1) - a(s)| of each query with the key in the same row: the key moved one token farther, its content unchanged."""
    step = _as_tensor(np.exp(1j * inv_freq) - 1, query)
    return (query * step * key.conj()).real.sum(dim=-1).abs() * scale


def _as_tensor(
    numbers: Complex[np.ndarray, " pairs"], like: Complex[torch.Tensor, "heads n pairs"]
) -> Complex[torch.Tensor, " pairs"]:
    return torch.from_numpy(numbers).to(like.device, like.dtype)
