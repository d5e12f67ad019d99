"""Attention beyond what one call of a kernel does: in blocks, beside a prefix, from a few positions; over documents and devices.

kernels.py         PyTorch's fused attention with its log-sum-exp, one block at a time; choosing.py, which kernel; flash_4.py, FlashAttention-4 in its place
blocks.py          who attends to what over documents and devices, as blocks
block_attention.py their attention, as one operator
sliding.py         causal attention within a reach, for layers that slide
collectives.py     keys, values and their gradients from device to device
held.py            what attention modules hold while they attend under a name of ours
prefix.py          a prefix that many prompts share, read once
cached_rows.py     texts that are read once and continued together
last_positions.py  a last layer that works for the positions that are read
transformers.py    the names under which transformers finds all of it
"""

from ropewalk.attention_ops import transformers as transformers  # registers the names
