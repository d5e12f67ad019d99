"""The allocator that `ropewalk` and the benches train with, asked for before torch looks."""

import os

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
