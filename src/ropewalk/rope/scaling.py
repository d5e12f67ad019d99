"""The one table of the ways to scale a rotary embedding; their words in records, in a config.json, on the command line and on a page.

in   a `Rope` as pretrained and a scaling (`Linear(8.0)`)
out  its inv_freq and attention factor

linear.py    Plain, Linear (Position Interpolation)
theta.py     Ntk, Abf, Dynamic: a larger rope_theta
by_parts.py  Yarn, Llama3: fast pairs kept, slow ones interpolated
learned_table.py  InterpolatedTable, which rotates nothing
vectors.py   LongRope, Factors, Proportional: a factor a pair

These modules are the oracle of the whole project. They compute nothing that a model runs; they say what a model's `inv_freq`
must be, and every load, cast, wrap and save is held against them.

A new scaling is one class and its place in `SCALINGS`: everything else follows from the class (rope.py says what it tells).
The letters d, c, L, L', m and theta_j are those of rope.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ropewalk.errors import UserError
from ropewalk.rope.by_parts import Llama3, Yarn
from ropewalk.rope.learned_table import InterpolatedTable
from ropewalk.rope.linear import Linear, Plain
from ropewalk.rope.rope import InvFreq, Rope, Scaling
from ropewalk.rope.theta import Abf, Dynamic, Ntk
from ropewalk.rope.vectors import Factors, LongRope, Proportional

__all__ = [
    "EXTENDING",
    "SCALINGS",
    "Abf",
    "Dynamic",
    "Factors",
    "InterpolatedTable",
    "InvFreq",
    "Linear",
    "Llama3",
    "LongRope",
    "Ntk",
    "Plain",
    "Proportional",
    "Rope",
    "Scaling",
    "Yarn",
    "compose",
    "from_dict",
    "to_dict",
]

#: Every scaling there is, by the word that records and the command line have for it.
SCALINGS: dict[str, type[Scaling]] = {
    kind.method: kind
    for kind in (Plain, Linear, Ntk, Abf, Yarn, Llama3, LongRope, Factors, Proportional, Dynamic, InterpolatedTable)
}
#: What `ropewalk extend --method` offers.
EXTENDING: tuple[str, ...] = tuple(method for method, kind in SCALINGS.items() if kind.extends)


def to_dict(scaling: Scaling) -> dict[str, Any]:
    """A scaling with all its parameters as JSON has it: `{"method": "yarn", "factor": 4.0, "beta_fast": 32.0, …}`.

    None, which leaves a parameter to its class, is left out.
    """
    return {"method": scaling.method} | {name: value for name, value in vars(scaling).items() if value is not None}


def from_dict(entry: Mapping[str, Any]) -> Scaling:
    """The scaling that `to_dict` wrote.

    Raises:
        UserError: a method that does not exist, or parameters that are not that method's.
    """
    parameters: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()
    }
    method = parameters.pop("method", None)
    if method not in SCALINGS:
        raise UserError(f"a scaling is one of {', '.join(SCALINGS)}, got {method!r}; check where it was written")
    try:
        return SCALINGS[method](**parameters)
    except TypeError as error:
        raise UserError(
            f"the parameters of {method} scaling are not as they must be ({error}); write it again"
        ) from None


def compose(now: Scaling, by: Scaling) -> Scaling:
    """What a model scaled by `now` has after a further scaling `by`: the extension algebra.

    Linear on linear multiplies: a 2048 model interpolated to 4096 and then to 16384 has factor 8, not 4. NTK on NTK
    multiplies too, since rope_theta grows by a power of the factor; ABF on either puts its own rope_theta in the place of
    theirs. What has no closed form in one class is refused.

    Raises:
        UserError: the two cannot be composed; the sentence says why.
    """
    return now if isinstance(by, Plain) else now.then(by)
