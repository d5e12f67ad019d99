"""Angular resolution: by how much one token rotates each pair, and which angles a longer window shows for the first time.

in   a `Rope` and a scaling
out  per frequency band and in all: the angle per token before and after; the share of pairs that never completed a turn in
     training, and of those the share that a method drives to angles never seen

Interpolation trades one for the other: no pair is driven past what training showed it, and every pair, the fast ones that
tell neighbours apart included, has its inv_freq divided by the whole factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ropewalk.errors import UserError
from ropewalk.rope.bounds import check_reach
from ropewalk.rope.rope import check_factor
from ropewalk.rope.scaling import EXTENDING, SCALINGS, Abf, InvFreq, Plain, Rope, Scaling

#: name → (least, most) turns in the pretraining window. 32 and 1 are the two ends of YaRN's ramp (arXiv 2309.00071).
BANDS: dict[str, tuple[float, float]] = {
    "over 32 turns": (32.0, math.inf),
    "1 to 32 turns": (1.0, 32.0),
    "under 1 turn": (0.0, 1.0),
}


def mean_angle(inv_freq: InvFreq) -> float:
    """(2/d) sum_j theta_j: by how much one token rotates a pair on average, radians.

    For theta_j = c^(-2j/d) it is (2/d)(1 - 1/c) / (1 - c^(-2/d)), and about 1/ln c where d is large (0.109 for c = 10000;
    exactly 0.117 at d = 128). Under PI it shrinks by the factor, to 0.029 at four times.
    """
    return float(np.mean(inv_freq))


@dataclass(frozen=True)
class Band:
    """One frequency band of one scaling.

    Attributes:
        name: one of `BANDS`, by turns in the pretraining window by the unscaled inv_freq.
        pairs: how many pairs are in it.
        before, after: mean angle per token, radians, unscaled and scaled; 0 in an empty band.
    """

    name: str
    pairs: int
    before: float
    after: float


@dataclass(frozen=True)
class Resolution:
    """What a scaling does to a model's angles.

    Attributes:
        scaling: relative to the rotation as pretrained.
        window, reach: the pretraining window L and the window asked for L', tokens.
        mean_angle: angle per token, mean over the pairs, radians.
        kept: that, over the unscaled one: 1/factor for PI.
        separation: root mean square distance of two neighbouring positions on the unit circles, sqrt(mean 2(1 - cos theta_j)).
        incomplete: share of pairs that never complete a turn within L by the unscaled inv_freq: not every angle was trained.
        incomplete_after: share that does not complete one within L' by the scaled one.
        unseen: share of pairs that reach, within L', an angle that training never showed: L' theta'_j > L theta_j, the
            pair being one that never completed a turn.
        overshoot: the farthest of these, as (L' theta'_j) / (L theta_j); 1 if none.
        bands: per frequency band.
    """

    kind: ClassVar[str] = "theory_resolution"
    scaling: Scaling
    window: int
    reach: int
    mean_angle: float
    kept: float
    separation: float
    incomplete: float
    incomplete_after: float
    unseen: float
    overshoot: float
    bands: list[Band]

    @property
    def method(self) -> str:
        return self.scaling.method

    @property
    def factor(self) -> float:
        return float(self.scaling.factor)

    @property
    def angles_in_words(self) -> str:
        """Whether angles are reached that training never showed."""
        if not self.unseen:
            return "no pair reaches an angle that training never showed"
        return f"{self.unseen:.0%} of the pairs reach angles that training never showed, the farthest {self.overshoot:.1f} times as far"

    @property
    def in_words(self) -> str:
        """That, and what becomes of neighbours."""
        times = f"{1 / self.kept:.3g}"
        neighbours = "as easy to tell apart as before" if times == "1" else f"{times} times as hard to tell apart"
        return f"{self.angles_in_words}; neighbouring tokens are {neighbours}"


def resolution(rope: Rope, scaling: Scaling, reach: int) -> Resolution:
    """The angles of one scaling in a window of `reach` tokens.

    Args:
        rope: the rotation as pretrained.
        scaling: relative to it.
        reach: L', tokens.

    Raises:
        UserError: a window below 1 or absurdly long.
    """
    check_reach(reach)
    before, after = rope.inv_freq(), scaling.inv_freq(rope)
    trained, shown = rope.window * before, reach * after
    partial = trained < 2 * math.pi
    # PI puts every pair, NTK its slowest, exactly on the edge: rounding must not push them over it.
    beyond = partial & (shown > trained * (1 + 1e-9))
    overshoot = float((shown[beyond] / trained[beyond]).max()) if beyond.any() else 1.0
    return Resolution(
        scaling=scaling,
        window=rope.window,
        reach=reach,
        mean_angle=mean_angle(after),
        kept=mean_angle(after) / mean_angle(before),
        separation=float(np.sqrt(np.mean(2 - 2 * np.cos(after)))),
        incomplete=float(partial.mean()),
        incomplete_after=float((shown < 2 * math.pi).mean()),
        unseen=float(beyond.mean()),
        overshoot=overshoot,
        bands=bands(rope, scaling),
    )


def bands(rope: Rope, scaling: Scaling) -> list[Band]:
    """The mean angle per token in each of `BANDS`, radians, before and after a scaling."""
    before, after = rope.inv_freq(), scaling.inv_freq(rope)
    rotations = rope.window * before / (2 * math.pi)
    rows = []
    for name, (least, most) in BANDS.items():
        inside = (rotations >= least) & (rotations < most)
        angles = [float(x[inside].mean()) if inside.any() else 0.0 for x in (before, after)]
        rows.append(Band(name, int(inside.sum()), *angles))
    return rows


def scalings_for(rope: Rope, reach: int, current: Scaling | None = None) -> list[Scaling]:
    """Every method at the factor that reaches `reach`, its other parameters those of its paper; of ABF 50 times the base, as `ablate` takes it.

    A method is left out where it has no such default, or none for this head (NTK's needs 4 rotated coordinates).

    Args:
        rope: the rotary embedding as pretrained.
        reach: the window asked for, tokens.
        current: the scaling of a model that reads `reach` tokens already; it takes the place of its method, with its own parameters
            (Llama 3.1 has factor 8 in a window 16 times as long).
    """
    return [each for each in _by_method(rope, reach, current).values() if isinstance(each, Scaling)]


def left_out(rope: Rope, reach: int, current: Scaling | None = None) -> dict[str, str]:
    """Methods of `extend` that `scalings_for` leaves out → why: what must be given beside the window, or what this head has too little of."""
    every = _by_method(rope, reach, current)
    return {method: reason for method in EXTENDING if isinstance(reason := every.get(method), str)}


def _by_method(rope: Rope, reach: int, current: Scaling | None) -> dict[str, Scaling | str]:
    """Each method → its scaling, or the sentence by which it has none here."""
    factor = reach / rope.window
    check_factor(factor, "window's")
    if factor == 1:
        return {Plain.method: Plain()}
    every: dict[str, Scaling | str] = {}
    for method, kind in SCALINGS.items():
        try:
            usual = {"rope_theta": Abf.usual(rope)} if kind is Abf else {}  # as `ablate` takes it
            own = current is not None and current.method == method
            scaling = current if current is not None and own else kind.for_extension(rope, factor, **usual)
            scaling.inv_freq(rope)
            every[method] = scaling
        except UserError as error:
            every[method] = str(error)
    return every
