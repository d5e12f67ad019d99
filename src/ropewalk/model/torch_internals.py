"""What looking into a model's layers takes of PyTorch that is not public there; to be looked at with each new release.

Attention's operators are the other such names, in attention_ops/kernels.py. Nothing else in ropewalk uses any.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
import torch._dynamo
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode as FakeTensorMode  # runs a model without computing anything
from torch.utils._python_dispatch import TorchDispatchMode as TorchDispatchMode  # sees every operation


def storage_of(tensor: Tensor) -> int:
    """A number that tensors share which lie in one memory; of fake tensors too, which have no address."""
    return tensor.untyped_storage()._cdata


def uncompiled_where_it_fails() -> AbstractContextManager[None]:
    """While the block runs, what torch.compile cannot compile runs as it is."""
    return torch._dynamo.config.patch(suppress_errors=True)
