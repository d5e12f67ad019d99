"""Several commands as one: the paper's experiments, the theory of a model, the demo.

runner.py  `ropewalk evaluate`
stages.py  stages that go on where they were killed
paper.py   the stages of the paper's suite; size.py says how much they measure
watch.py   `ropewalk train`, which may measure on the way
theory.py  `ropewalk theory`
demo.py    `ropewalk demo`
ablation.py `ropewalk ablate`; row.py has its rows, grid.py what they have in common, measurements.py what is measured of each, speed.py how long they take
"""
