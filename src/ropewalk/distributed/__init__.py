"""Several devices as one: torchrun, the mesh, sharded weights. With attention_ops.collectives the only place that knows torch.distributed.

ranks.py  which process this is, meeting the others, independent work shared out over them
mesh.py   the devices of a training run
load.py   a model that one process reads for all
spread.py a model that is measured by all together
state.py  sharded weights and optimiser states, and their checkpoints
"""
