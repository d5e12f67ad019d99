"""A probe, not yet a feature: kept activations on the host. Selective checkpointing as it is, and what it keeps of some layers in pinned memory.

    python -m bench.host 32768 auto 3,5,6:0 0,1,2,3,4,5,6:8          one NVIDIA GPU and 128 GiB of host memory
    python -m bench.host 131072 3:0 --steps 2

After TOKENS, one choice each: `auto` (what training keeps today), or KEPT:RESIDENT, the numbers of the expensive operations that each layer
keeps (as they are listed first) and how many of the last layers keep them on the card. LLaMA 7B's shape, random weights, bfloat16 with
stochastic rounding, as in `bench.train`. Printed: seconds forward, backward and in the optimiser, tokens/s, MFU, peak and host memory.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import os
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

import torch
from torch import Tensor, nn

from bench.contestants import GIB, Bench
from ropewalk.model.loss import IGNORED
from ropewalk.settings.budget import head_bytes
from ropewalk.training import recompute, throughput

#: Bytes; a smaller tensor stays where it is.
_SMALLEST = 2**20


class Host:
    """Saved tensors of the offloaded layers leave on a stream of their own, and come back on another, one layer ahead of the backward pass.

    At most two layers' tensors are on their way out: the compute stream then waits, and the memory is reused in its order.
    """

    def __init__(self, device: torch.device, offloaded: set[int], weights: set[int]) -> None:
        self.device, self.offloaded, self.weights = device, offloaded, weights
        self.out, self.back = torch.cuda.Stream(device), torch.cuda.Stream(device)
        self.buffers: dict[tuple[int, int], Tensor] = {}  # pinned, for all steps: pinning 60 GiB takes 25 s
        self.begin()

    def begin(self) -> None:
        """Before each step."""
        self.kinds: dict[int, list[tuple[Any, ...]]] = {}
        self.leaving: list[tuple[Any, list[Tensor]]] = []
        self.fetched: dict[int, tuple[Any, list[Tensor]]] = {}
        self.waited: set[int] = set()

    @contextlib.contextmanager
    def layer(self, number: int) -> Iterator[None]:
        """Around the forward pass of an offloaded layer."""
        while len(self.leaving) > 1:
            torch.cuda.current_stream().wait_event(self.leaving.pop(0)[0])
        self.number, self.pending, self.seen = number, [], {}
        with torch.autograd.graph.saved_tensors_hooks(self._pack, self._unpack):
            yield
        ready = torch.cuda.current_stream().record_event()
        with torch.cuda.stream(self.out):
            self.out.wait_event(ready)
            for index, tensor in enumerate(self.pending):
                self._buffer(number, index, tensor).copy_(tensor, non_blocking=True)
            self.leaving.append((self.out.record_event(), self.pending))
        self.kinds[number] = [(tensor.shape, tensor.stride(), tensor.dtype) for tensor in self.pending]

    def _buffer(self, number: int, index: int, tensor: Tensor) -> Tensor:
        flat = self.buffers.get((number, index))
        if flat is None:
            flat = self.buffers[number, index] = torch.empty(tensor.numel(), dtype=tensor.dtype, pin_memory=True)
        return flat.as_strided(tensor.shape, tensor.stride())

    def _pack(self, tensor: Tensor) -> Any:
        small = tensor.numel() * tensor.element_size() < _SMALLEST
        if small or not tensor.is_cuda or tensor.untyped_storage().data_ptr() in self.weights:
            return tensor
        key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tensor.shape, tensor.stride())
        if key not in self.seen:
            self.seen[key] = len(self.pending)
            dense = torch._prims_common.is_non_overlapping_and_dense_or_false(tensor)
            self.pending.append(tensor if dense else tensor.contiguous())
        return self.number, self.seen[key]

    def _fetch(self, number: int) -> None:
        if number in self.fetched or number not in self.kinds:
            return
        tensors = [torch.empty_strided(*kind[:2], dtype=kind[2], device=self.device) for kind in self.kinds[number]]
        free = torch.cuda.current_stream().record_event()
        with torch.cuda.stream(self.back):
            self.back.wait_event(free)
            for index, tensor in enumerate(tensors):
                tensor.copy_(self._buffer(number, index, tensor), non_blocking=True)
            self.fetched[number] = (self.back.record_event(), tensors)

    def _unpack(self, packed: Any) -> Tensor:
        if isinstance(packed, Tensor):
            return packed
        number, index = packed
        for event, _ in self.leaving:
            torch.cuda.current_stream().wait_event(event)
        self.leaving = []
        self._fetch(number)
        if number not in self.waited:
            self.waited.add(number)
            torch.cuda.current_stream().wait_event(self.fetched[number][0])
            for later in [each for each in self.fetched if each > number]:
                del self.fetched[later]
            self._fetch(number - 1)
        return self.fetched[number][1][index]


def _wrapped(forward: Any, host: Host, number: int) -> Any:
    def run(*args: Any, **kwargs: Any) -> Any:
        with host.layer(number):
            return forward(*args, **kwargs)

    return run


def _set(
    choice: str, checkpointing: recompute.SelectiveCheckpointing, bench: Bench, tokens: int, states: bool
) -> Host | None:
    """Have the layers keep what a choice says."""
    count, config = len(checkpointing.layers), bench.model.config
    if choice == "auto":
        candidates = checkpointing.candidates(bench.root.body, 1, tokens)
        room = recompute.free_bytes(
            bench.device,
            candidates,
            layers=count,
            stream=tokens * config.hidden_size * 2,
            head=int(head_bytes(tokens, config.hidden_size, config.vocab_size)),
            reserved=0 if states else 4 * sum(p.numel() for p in bench.model.parameters()),
        )
        checkpointing.keep(checkpointing.within(candidates, room))
        return None
    kept, resident = choice.split(":")
    checkpointing.keep([frozenset(int(index) for index in kept.split(","))] * count)
    weights = {p.untyped_storage().data_ptr() for p in bench.model.parameters()}
    host = Host(bench.device, set(range(count - int(resident))), weights)
    for number in host.offloaded:
        checkpointing.layers[number].forward = _wrapped(checkpointing.layers[number].forward, host, number)
    return host


def _step(bench: Bench, optimizer: torch.optim.Optimizer, ids: Tensor) -> tuple[list[float], float]:
    """Seconds forward, backward and in the optimiser; the loss."""
    times = [time.perf_counter()]

    def lap() -> None:
        torch.cuda.synchronize()
        times.append(time.perf_counter())

    labels = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)
    loss = bench.root(ids, labels) / (labels != IGNORED).sum()
    lap()
    loss.backward()
    lap()
    nn.utils.clip_grad_norm_(bench.model.parameters(), 1.0, foreach=True)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    lap()
    return [after - before for before, after in zip(times, times[1:], strict=False)], float(loss.detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", type=int)
    parser.add_argument("choices", nargs="+")
    parser.add_argument("--steps", type=int, default=3, help="the first is not counted")
    arguments = parser.parse_args()
    torch._dynamo.config.recompile_limit = 64
    device = torch.device("cuda")
    rate = throughput.matrix_rate(device, torch.bfloat16) or 0.0
    bench = Bench(device, "7b", 32)
    bench.reset()
    optimizer, checkpointing = bench.optimizer(), recompute.SelectiveCheckpointing(bench.root, compiled=True)
    print(torch.cuda.get_device_name(), f"matrix {rate / 1e12:.0f} TFLOP/s", flush=True)
    for candidate in sorted(checkpointing.candidates(bench.root.body, 1, arguments.tokens), key=lambda c: c.index):
        print(candidate, flush=True)
    flops = throughput.flops_per_token(bench.model, arguments.tokens)
    for choice in arguments.choices:
        bench.reset()
        host = _set(choice, checkpointing, bench, arguments.tokens, bool(optimizer.state))
        steps: list[list[float]] = []
        try:
            for number in range(arguments.steps):
                if host is not None:
                    host.begin()
                seconds, loss = _step(bench, optimizer, bench.data(1, arguments.tokens, number))
                steps.append(seconds)
                print("   ", [round(each, 3) for each in seconds], f"{loss:.4f}", flush=True)
            speed = arguments.tokens / min(sum(seconds) for seconds in steps[1:])
            pinned = sum(b.numel() * b.element_size() for b in host.buffers.values()) / GIB if host else 0.0
            peak = torch.cuda.max_memory_allocated() / GIB
            print(
                f"{choice}: {speed:.0f} tokens/s, MFU {speed * flops / rate:.3f}, peak {peak:.1f} GiB, host {pinned:.1f} GiB"
            )
        except torch.OutOfMemoryError as error:
            print(f"{choice}: {str(error).split('. ')[0]}", flush=True)
        checkpointing.release()
        bench.model.zero_grad(set_to_none=True)
        host = None
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
