"""How fast several GPUs train together, per GPU: LLaMA 7B's shape, random weights, full fine-tuning.

    torchrun --nproc-per-node 2 -m bench.ranks --tokens 65536 --cp 2 --json runs/cp2.json
    torchrun --nproc-per-node 1 -m bench.ranks --tokens 65536 --json runs/one.json

The same code as `ropewalk train` uses: `meshes.start`, sharded weights, windows shared by --cp devices, stochastically rounded
AdamW, activations chosen from the memory there is. Each group of --cp devices has one window a step. The first step is not timed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch

from bench.contestants import GIB, SHAPES, module
from bench.measuring import profile
from ropewalk import records
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed import ranks
from ropewalk.model.devices import device_name
from ropewalk.model.loss import NextTokenLoss
from ropewalk.planner.chip_names import named
from ropewalk.planner.chips import mfu
from ropewalk.planner.choice import Room
from ropewalk.settings.budget import head_bytes
from ropewalk.training import recompute, throughput, torchao_adamw


def room(mesh: meshes.Mesh, root: NextTokenLoss, kept: recompute.SelectiveCheckpointing, tokens: int) -> Room:
    """For kept results on the device that has least."""
    if mesh.device.type != "cuda":
        return Room(2**40)
    config, weights = root.model.config, sum(p.numel() for p in root.parameters())
    stream = tokens * config.hidden_size * 2
    head = int(head_bytes(tokens, config.hidden_size, config.vocab_size))
    # Two bfloat16 moments of this rank's shard; two gathered layers and their gradients in float32.
    reserved = 4 * weights // mesh.world + (0 if mesh.world == 1 else 2 * 6 * weights // len(kept.layers))
    card = recompute.free_bytes(mesh.device, kept, stream=stream, head=head, reserved=reserved)
    return Room(min(ranks.everyones(card)), stream)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=32768, help="of a window")
    parser.add_argument("--cp", type=int, default=1, help="devices that share a window")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="timed steps")
    parser.add_argument("--shape", default="7b", choices=list(SHAPES))
    parser.add_argument("--layers", type=int, help="fewer than the shape has")
    parser.add_argument("--profile", action="store_true", help="list the kernels of one more step by time")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch._dynamo.config.recompile_limit = 64
    mesh = meshes.start(cp=arguments.cp, replicas=arguments.replicas)
    rate = throughput.matrix_rate(mesh.device, torch.bfloat16)
    root = module(mesh.device, arguments.shape, arguments.layers)
    flops = throughput.flops_per_token(root.model, arguments.tokens)
    kept = recompute.SelectiveCheckpointing(root, compiled=mesh.device.type == "cuda")
    local_tokens = arguments.tokens // arguments.cp
    kept.candidates(root.body, 1, local_tokens, sharing=arguments.cp)
    mesh.shard(root)
    kept.settle(room(mesh, root, kept, local_tokens))
    parameters = list(root.parameters())
    rule: dict[str, Any] = dict(lr=2e-5, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.0)
    optimizer = torchao_adamw.build(parameters, eight_bits=False, stochastic=True, **rule)
    seconds, losses = [], []

    def one_step(step: int) -> None:
        generator = torch.Generator(mesh.device).manual_seed(1000 * step + mesh.data_rank)
        vocabulary = root.model.config.vocab_size
        ids = vocabulary ** torch.rand(1, arguments.tokens + 1, generator=generator, device=mesh.device)
        ids = ids.long().clamp(max=vocabulary - 1)
        ranks.wait()
        begin = time.perf_counter()
        out = root(**mesh.split(dict(input_ids=ids[:, :-1], labels=ids[:, 1:])))
        (out / (arguments.tokens * mesh.data_size)).backward()
        mesh.clip(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(float(mesh.sum(out.detach())) / (arguments.tokens * mesh.data_size))
        seconds.append(time.perf_counter() - begin)

    for step in range(arguments.steps + 1):
        one_step(step)
    if arguments.profile:
        profile(lambda: one_step(arguments.steps + 1), shown=mesh.main)
        seconds, losses = seconds[:-1], losses[:-1]
    each = arguments.tokens * mesh.data_size / mesh.world / statistics.median(seconds[1:])
    shares = mfu(each * flops, named(device_name(mesh.device)), rate)
    row = dict(
        command=" ".join(sys.argv[1:]),
        world=mesh.world,
        tokens=arguments.tokens,
        cp=arguments.cp,
        tokens_per_second_each=each,
        mfu=shares.measured,
        mfu_of_data_sheet=shares.sheet,
        seconds=seconds,
        losses=losses,
        peak_gib=throughput.peak_bytes(mesh.device) / GIB,
        kept=[None if choice is None else sorted(choice) for choice in sorted(set(kept.kept), key=str)],
        versions=records.versions(),
    )
    if mesh.main:
        print(json.dumps(row), flush=True)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(row, indent=1))
    mesh.close()


if __name__ == "__main__":
    main()
