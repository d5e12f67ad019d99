"""Attention under a name of ours, with something that each module holds while it attends: its layer of a prefix, of a cache.

in   a model, the name, and what each attention module is to hold
out  a `with` block; afterwards the model attends as before, and its modules hold nothing

On the modules and not among the keyword arguments, nor on the config: compiled layers ask whether those are what they were compiled for,
and would be compiled again for each prefix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


def attention_modules(model: Any) -> list[Any]:
    """Those that say which layer's they are, in order."""
    return [module for module in model.modules() if isinstance(getattr(module, "layer_idx", None), int)]


@contextmanager
def attending(model: Any, name: str, held: Callable[[Any], Any]) -> Iterator[None]:
    """While the block runs, every attention module attends by what transformers calls under `name`, and holds `held(module)` as an attribute of that name."""
    usual, modules = model.config._attn_implementation, attention_modules(model)
    for module in modules:
        setattr(module, name, held(module))
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(usual)
        for module in modules:
            delattr(module, name)
