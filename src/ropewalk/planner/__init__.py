"""Memory, time and cost of a training run, before anything is loaded.

shape.py      a model's shape from its config.json: weights, operations; named.py, from its name
chips.py      accelerators by data sheet, and the share of it that a step gets
chip_names.py chips as people write them, and as drivers name them
job.py        the recipe laid over chips; what a layer keeps
choice.py     what becomes of each layer's results, in training as in a plan; kept.py, as a plan has it
memory.py     bytes by part, at the worst moment
speed.py      seconds by part
regimes.py    precision and optimiser, where nobody named them
layout.py     the fastest layout that fits
ways.py       other options by which a job fits that does not
machines.py   the host's memory, and what chips cannot do together
measured_recipe.py  a smaller recipe beside the paper's
calibrate.py  the machine at hand, timed (the only part that imports torch)
planned.py    a `Plan`: what a run would take, and the other options that fit
planner.py    from a name to it
"""

from ropewalk.planner.planned import Plan
from ropewalk.planner.planner import plan
from ropewalk.planner.shape import Shape

__all__ = ["Plan", "Shape", "plan"]
