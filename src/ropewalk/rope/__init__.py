"""Rotary position embedding: the maths, in float64, with numpy alone. The oracle of the project.

scaling.py     RoPE and the ways to stretch it
bounds.py      bounds on attention scores, as the paper prints them and as they hold
growth.py      scores fitted inside a window, looked at outside (figure 2)
resolution.py  how far one token turns each pair

Reading order of the theory (docs/method.md): bounds, growth, resolution.
"""
