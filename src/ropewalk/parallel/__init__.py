"""Several devices as one: torchrun, the mesh, sharded weights, shared windows. The only place that knows torch.distributed.

mesh.py        `start` and `Mesh`: what training asks of its devices
attention.py   one window on several devices, documents that do not see each other
exchange.py    keys, values and their gradients from device to device
kernels.py     PyTorch's fused attention, a block at a time
state.py       distributed checkpoints
layers.py      what is sharded one by one
"""

from ropewalk.parallel.attention import Attend
from ropewalk.parallel.mesh import Mesh, start

__all__ = ["Attend", "Mesh", "start"]
