"""Attention scores by distance, on real documents, and what bounds them (docs/method.md, sections 6 and 7).

probe.py          queries and keys as the model's own attention receives them
distances.py      scores of one layer, tallied by distance, a block of queries at a time
complex_pairs.py  the same scores taken apart by rotary frequency
adjacent.py       how well neighbouring positions are told apart
layers.py         all of it for every layer of a model
memory_check.py   the memory it takes, refused beforehand if there is less
measure.py        the function `attention`: the variants of a model side by side
"""

from ropewalk.evals.attention.measure import Measured, attention, interpolated

__all__ = ["Measured", "attention", "interpolated"]
