"""Attention beyond what one call of a kernel does: in blocks, over documents and devices, with a log-sum-exp.

kernels.py      PyTorch's fused attention with its log-sum-exp, one block at a time
blocks.py       causal attention over documents and devices as blocks
collectives.py  keys, values and their gradients from device to device
"""
