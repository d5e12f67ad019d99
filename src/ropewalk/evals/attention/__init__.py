"""Attention scores by distance, on real documents, and what bounds them (docs/method.md, sections 6 and 7).

probe.py      queries and keys as the model's own attention receives them
distances.py  scores of one head, tallied by distance, a block of queries at a time
planes.py     the same scores taken apart by frequency
adjacent.py   how well neighbouring positions are told apart
layers.py     all of it for one layer of a model
room.py       what it takes in memory, refused beforehand if it does not fit
measure.py    a model's states side by side: the door
"""

from ropewalk.evals.attention.measure import Measured, attention, interpolated

__all__ = ["Measured", "attention", "interpolated"]
