"""Weights rescaled so that one learning rate suits a change of positions; the function stays the same to the last bit.

in   a LLaMA checkpoint
out  the same function with other weights

Position Interpolation asks queries and keys to learn a new turning speed, and asks little of the rest. Adam moves every
weight by about the same length, so a rate at which queries and keys adapt in a hundred steps shakes everything else.
Here the gain of each attention's norm is multiplied by `scale` and the projections behind it are divided by it: the same
step turns queries and keys `scale` times as far. Half of that (its root) is passed from values on to the output
projection. With `scale` a power of four every factor is a power of two, and bfloat16 loses nothing.

    python recipes/hemp/balance.py --model build/hemp/model --out build/hemp/balanced --scale 16
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import transformers


@torch.no_grad()
def balance(model: transformers.LlamaForCausalLM, scale: int) -> None:
    """Rescale in place; `scale` is a power of four."""
    root = math.isqrt(scale)
    if root * root != scale or root & (root - 1):
        raise ValueError(f"scale must be a power of four, so that every factor is a power of two; got {scale}")
    for layer in model.model.layers:
        attention = layer.self_attn
        layer.input_layernorm.weight *= scale
        attention.q_proj.weight /= scale
        attention.k_proj.weight /= scale
        attention.v_proj.weight /= root  # of `scale`, `root` is left in the values ...
        attention.o_proj.weight /= root  # ... and taken out here


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--scale", type=int, default=16)
    arguments = parser.parse_args()
    model = transformers.LlamaForCausalLM.from_pretrained(arguments.model, dtype=torch.bfloat16)
    balance(model, arguments.scale)
    model.save_pretrained(arguments.out)


if __name__ == "__main__":
    main()
