"""Several devices as one: torchrun, the mesh, sharded weights. With attention_ops.collectives the only place that knows torch.distributed.

ranks.py  independent work shared out over processes
mesh.py   the devices of a training run
state.py  distributed checkpoints
"""
