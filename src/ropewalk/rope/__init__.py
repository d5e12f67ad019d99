"""Rotary position embedding: the maths, in float64, with numpy alone. The oracle of the project.

rope.py        a rotary embedding as pretrained, and what a scaling must say of itself
scaling.py     the one table of the ways to scale it: linear.py, theta.py, by_parts.py, vectors.py
learned_table.py  the same idea where nothing rotates
search.py      a factor a pair, by evolution
rotate.py      head vectors rotated, in numpy
bounds.py      bounds on attention scores, as the paper prints them and as they hold
growth.py      scores fitted inside a window, looked at outside (figure 2)
resolution.py  by how much one token rotates each pair

Reading order of the theory (docs/method.md): bounds, growth, resolution.
"""
