"""The loss of one forward pass, on one device and with its window shared: the same but for the order of sums.

    python -m bench.shared_window --shape 7b --tokens 262144
    torchrun --nproc-per-node 2 -m bench.shared_window --shape 7b --tokens 262144 --cp 2

Random weights of one seed, bfloat16; every process makes the whole model, so that all start from the same numbers. Tokens are drawn as in bench.ranks.
"""

from __future__ import annotations

import argparse
import time

import torch

from bench.contestants import GIB, SHAPES, module
from ropewalk.distributed import mesh as meshes
from ropewalk.training import throughput


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="7b", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--tokens", type=int, default=262144, help="of the window")
    parser.add_argument("--cp", type=int, default=1, help="devices that share it")
    arguments = parser.parse_args()
    mesh = meshes.start(cp=arguments.cp)
    root = module(mesh.device, arguments.shape, arguments.layers)
    mesh.shard(root)
    vocabulary = root.model.config.vocab_size
    draws = torch.rand(1, arguments.tokens + 1, generator=torch.Generator().manual_seed(1))
    ids = (vocabulary**draws).long().clamp(max=vocabulary - 1).to(mesh.device)
    with torch.no_grad():
        begin = time.perf_counter()
        out = root(**mesh.split(dict(input_ids=ids[:, :-1], labels=ids[:, 1:])))
        loss = float(mesh.sum(out.detach())) / arguments.tokens
        seconds = time.perf_counter() - begin
    if mesh.main:
        peak = throughput.peak_bytes(mesh.device) / GIB
        print(
            f"{arguments.shape}, {arguments.tokens} tokens, --cp {arguments.cp}: loss {loss:.7f}, {seconds:.1f} s, peak {peak:.1f} GiB"
        )
    mesh.close()


if __name__ == "__main__":
    main()
