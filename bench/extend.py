"""Extend a checkpoint of LLaMA 7B's shape and report seconds and peak memory. The weights are a sparse file of the right
length: zeros, which are read once, to look for NaN.

    python -m bench.extend DIR        (twice: the first call writes the checkpoint)
"""

from __future__ import annotations

import json
import resource
import struct
import sys
import time
from pathlib import Path

import torch
import transformers

from ropewalk import testing


def sparse_checkpoint(out: Path) -> None:
    """config.json, tokenizer and one bfloat16 safetensors file of 13.5 GB that takes no room on disk."""
    config = transformers.LlamaConfig(
        hidden_size=4096,
        intermediate_size=11008,
        num_hidden_layers=32,
        num_attention_heads=32,
        max_position_embeddings=2048,
    )
    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(config)
    header, end = {}, 0
    for name, tensor in model.state_dict().items():
        size = 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    config.save_pretrained(out)
    testing.byte_tokenizer(2048).save_pretrained(out)
    with open(out / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def main(where: Path) -> None:
    if not (where / "7b").exists():
        sparse_checkpoint(where / "7b")
        print("written; run again to measure in a fresh process")
        return
    started = time.perf_counter()
    from ropewalk.cli import main as ropewalk

    ropewalk(["extend", str(where / "7b"), "--window", "32768", "--out", str(where / "7b-32k"), "--overwrite"])
    seconds, peak = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    gigabytes = (where / "7b-32k/model.safetensors").stat().st_size / 1e9
    print(f"{gigabytes:.1f} GB of weights: {seconds:.1f} s, peak memory {peak:.0f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
