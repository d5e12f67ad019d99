"""Rows → matplotlib figures, one a function. No pyplot, no global state, no torch.

measured.py   perplexity, passkey; losses.py, of training
compare.py    variants side by side; accuracy.py, task by task
attention.py  attention scores
theory.py     the paper's figures 2 and 5, angular resolution
style.py      how every figure looks, and how it becomes SVG; axes.py, logarithmic axes
"""
