"""Head vectors rotated by a rotary embedding, in float64: what a model does with its inv_freq, in numpy.

in   head vectors (..., n, d), their positions, an inv_freq
out  the vectors rotated
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from jaxtyping import Float, Num

from ropewalk.rope.scaling import InvFreq


def rotate(
    x: Float[np.ndarray, "... d"],
    positions: Num[np.ndarray, " n"],
    inv_freq: InvFreq,
    *,
    pairing: Literal["half", "interleaved"] = "half",
) -> Float[np.ndarray, "... d"]:
    """Rotate head vectors: pair j of x at position m is multiplied, as a complex number, by exp(i m theta_j).

    Args:
        x: (..., n, d) head vectors, one a position; coordinates past 2 len(inv_freq) pass through (partial rotary).
        positions: (n,) positions in tokens; may be fractional.
        inv_freq: (rotated / 2,) radians a token, from a scaling.
        pairing: "interleaved" pairs coordinates (2j, 2j + 1) as the papers do, "half" pairs (j, j + rotated/2) as
            Hugging Face does. The two differ by a permutation of the coordinates.

    Returns:
        (..., n, d), float64. Source: Su et al. 2021, eq. 16; Chen et al. 2023, eq. 1.

    Raises:
        ValueError: more rotated coordinates than x has.
    """
    rotated = 2 * len(inv_freq)
    if rotated > x.shape[-1]:
        raise ValueError(
            f"an inv_freq of {len(inv_freq)} pairs rotates {rotated} coordinates, but x has {x.shape[-1]}; pass whole heads"
        )
    angle = np.asarray(positions, dtype=np.float64)[:, None] * inv_freq
    cos, sin = np.cos(angle), np.sin(angle)
    first, second = (
        (slice(0, rotated, 2), slice(1, rotated, 2))
        if pairing == "interleaved"
        else (slice(0, rotated // 2), slice(rotated // 2, rotated))
    )
    out = np.array(x, dtype=np.float64)
    out[..., first] = x[..., first] * cos - x[..., second] * sin
    out[..., second] = x[..., first] * sin + x[..., second] * cos
    return out
