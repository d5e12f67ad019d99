"""`ropewalk search`."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ropewalk.settings.options import Batched, Data, Loading, Name, NamedModel, OpeningOptions, Overwriting
from ropewalk.settings.values import Count, Prompts, Seed, Share, Tokens


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Batched, Overwriting, Loading, OpeningOptions):
    """Search a factor for each pair of coordinates by evolution, by perplexity on a sample (LongRoPE, arXiv 2402.13753); a killed search goes on where it was."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory or a hub id. No weight is changed."""
    data: Data
    """Files, directories or data-set ids, in Python also documents; each is cut to its first --window tokens."""
    window: Tokens
    """The new window in tokens, L'."""
    out: Annotated[Name, tyro.conf.arg(constructor=Path, metavar="FILE.json")]
    """What is found, for --factors of `extend` and `train`, and the state of the search."""
    method: Literal["longrope", "factors"] = "longrope"
    """For which method: with LongRoPE's attention factor, or with attention as it is."""
    documents: Prompts = 5
    """The first so many that fill the window (paper: 5)."""
    population: Prompts = 64
    """Vectors that are kept (paper: 64)."""
    generations: Count = 40
    """Rounds of mutation and crossing (paper: 40), each of half as many new vectors; a search that ended goes on with more."""
    mutation: Share = 0.3
    """Probability that a mutation changes a pair (paper: 0.3)."""
    seed: Seed = 0
    """Of all draws."""
