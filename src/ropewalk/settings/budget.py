"""Constants that training reserves memory and time by, and that the planner predicts them with: each stands here alone.

Bytes, tokens, numbers of weights, floating-point operations.
"""

from __future__ import annotations

import math
import resource
from collections.abc import Collection

from ropewalk.errors import addresses_are_limited

#: Elements of float32 logits that the loss forms at a time: 512 MiB.
CHUNK_ELEMENTS = 2**27
#: The same on a CPU, where smaller chunks cost no time, and bytes that each logit takes there, where nothing is fused: itself, its probability, its
#: gradient and what the label is in float32, and whether it is the label (docs/log.md, 2026-11-30).
CPU_CHUNK_ELEMENTS, CPU_LOGIT_BYTES = 2**24, 4 * 4 + 1
#: Bytes of logits that training forms at a time on a GPU, where their gradient takes their place. The head's gradient, 2 GiB in float32 for 128256
#: tokens of width 4096, is read and written once each time.
GPU_CHUNK_BYTES = 2**30
#: Bytes a weight of AdamW's two moments in 8 bits: a byte each, and a float32 scale for every 256 of each.
EIGHT_BIT_MOMENTS = 2 + 2 * 4 / 256
#: Bytes of a frozen weight in 4 bits: half a byte, and a bfloat16 scale for every 64.
FOUR_BITS = 0.5 + 2 / 64
#: How much longer a floating-point operation of fused attention takes than one of a matrix product (one H200: 0.545 against 0.786 PFLOP/s);
#: results are chosen to be kept by what they cost to compute again.
ATTENTION_COST = 1.5
#: The backward pass of one layer holds its results, their gradients and some copies: this many times the results.
BACKWARD_RESULTS = 1.5
#: The same of a layer whose MLP goes in tiles, where results are attention's and the projections' alone; and of a tile, so many times its own.
TILED_BACKWARD_RESULTS, TILE_RESULTS = 1.25, 3.5
#: Bytes that stay free when a GPU is filled with activations: for cuDNN's and cuBLAS's own memory, and for fragmentation.
MARGIN = 3 * 2**29
#: And beside it where devices share a window: such a step cannot be begun again with less kept, and lasts minutes. By the driver's count a
#: million tokens on four H200 took up to 7 GiB more than PyTorch had allocated (docs/log.md, 2026-11-28).
SHARED_MARGIN = 4 * 2**30
#: Tokens of one tile of a layer's MLP, where a micro batch has twice as many or more: larger tiles fill the matrix units no better.
TILE_TOKENS = 32768
#: And where memory is short (planner/choice.py): tiles of no more, four at least, from as many tokens on.
SMALL_TILE_TOKENS = 8192
#: Elements of queries, or of keys repeated for them, that attention in blocks gives a kernel at a time: 1 GiB in bfloat16.
HEADS_AT_ONCE = 2**29
#: Layers whose results are on their way to or from the host at the same time: two out or two back, and one that is computed.
ON_THE_WAY = 3
#: Share of the copies' time that the arithmetic beside them loses: 60 GiB out and back in 2.3 s took 0.1 s of a step of 4.4 s on one H100
#: (docs/log.md, 2026-11-26).
CONTENTION = 0.05
#: Addresses that a command takes for its libraries and a small model: imports of torch, transformers and PEFT are 850 MiB (torch for CPUs; for CUDA more), and
#: under 1000000 KiB in all a training of hemp was still ended by tokenizers' own abort. What lm-eval, datasets and pyarrow take beside them: `evaluate` ended raw up to
#: 1220000 KiB. And what NumPy and a table take (docs/log.md, 2026-11-30).
LEAST_ADDRESSES, LEAST_EVAL_ADDRESSES, LEAST_LIGHT_ADDRESSES = 2**30, 5 * 2**28, 2**28
#: Addresses that a process which trains takes and never fills: libraries as they are mapped, stacks, holes in the heap: 510 MiB with one
#: thread, 568 with two (docs/log.md, 2026-11-30).
UNFILLED_ADDRESSES = 9 * 2**26
#: Share of the host's free memory that may be taken: what reads data, saves checkpoints and runs beside it needs the rest.
HOST_SHARE = 0.9
#: Tokens of one forward pass of a measurement if none are asked for. A GPU is busy from about 32768 on; a CPU core is fastest while the
#: activations of a small model fit its cache (measured: docs/log.md).
GPU_BATCH_TOKENS, CPU_BATCH_TOKENS = 32768, 2048
#: Largest float32 copy of a measurement's logits, in bytes: more are turned into log-likelihoods chunk by chunk.
LOGIT_BYTES = 256 * 2**20
#: Share of a device's free memory that the weights of a measured model may take whole; what a window's pass makes needs the rest.
WHOLE_SHARE = 0.7
#: Weights, or floating-point operations of a run on each device, from which on training compiles its layers on a GPU: that takes tens of
#: seconds, which is small beside what it saves then.
COMPILED_WEIGHTS, COMPILED_FLOPS = 1e9, 5e15
#: Tokens that fill a device's matrix units.
_GPU_TOKENS, _CPU_TOKENS = 16384, 2048


def memory_here() -> int:
    """Bytes of this machine's memory in all, or those that a process which trains may come to hold under a limit of its addresses."""
    import psutil

    return int(min(psutil.virtual_memory().total, _fillable()))


def free_memory(processes: int = 1) -> int:
    """Bytes of this machine's memory that each of `processes` may still take."""
    import psutil

    return int(min(psutil.virtual_memory().available / processes, address_space_left()))


def memory_to_hold(processes: int = 1) -> int:
    """Bytes of this machine's memory that each of `processes` may come to hold, with what this one holds, and nothing be swapped."""
    import psutil

    free = HOST_SHARE * psutil.virtual_memory().available / processes
    return int(min(free + psutil.Process().memory_info().rss, _fillable()))


def _fillable() -> float:
    """Bytes of memory that `ulimit -v` lets a process which trains come to hold; infinite without a limit."""
    if not addresses_are_limited():
        return math.inf
    import psutil

    limit, memory = resource.getrlimit(resource.RLIMIT_AS)[0], psutil.Process().memory_info()
    return max(0, limit - max(UNFILLED_ADDRESSES, memory.vms - memory.rss))


def address_space_left() -> float:
    """Bytes of addresses that `ulimit -v` leaves this process; infinite without a limit."""
    if not addresses_are_limited():
        return math.inf
    import psutil  # not for every command

    return max(0, resource.getrlimit(resource.RLIMIT_AS)[0] - psutil.Process().memory_info().vms)


def host_room(processes: int = 1) -> int:
    """Bytes of this machine's memory that each of `processes` may pin, without anything being swapped."""
    return int(HOST_SHARE * free_memory(processes))


def micro_windows(window: int, batch: int, *, on_gpu: bool) -> int:
    """Windows in a micro batch where no number is asked for: enough to fill the matrix units, no more, since memory grows with them.

    window: tokens of one. batch: windows that a device reads in a step.
    """
    return max(1, min(batch, (_GPU_TOKENS if on_gpu else _CPU_TOKENS) // window))


def margin(*, shared: bool) -> int:
    """Bytes that stay free when a GPU is filled with activations. shared: by a step of devices that share a window."""
    return MARGIN + SHARED_MARGIN * shared


def spare_after_a_step(free: float, *, shared: bool = False) -> int:
    """Of the bytes that a whole step left free those that the next ones may take."""
    return int(free) - MARGIN - margin(shared=shared)


def mlp_tiles(tokens: float, *, short: bool = False) -> int:
    """Into how many tiles the MLP of a layer of so many tokens goes on a GPU; few are not worth computing them twice, unless memory is `short`."""
    tiles = int(tokens // TILE_TOKENS)
    if short and tokens >= SMALL_TILE_TOKENS:
        return max(4, int(tokens // SMALL_TILE_TOKENS))
    return tiles if tiles > 2 else 1


def gradients_wait(batch: int, micro: int, groups: int) -> bool:
    """Whether gradients of one micro batch lie there while the next one goes forward; if not, they come as kept results go.

    batch: windows of a step. micro: windows in a micro batch. groups: devices, or groups that share a window, that have one each.
    """
    return batch > micro * groups


def stream_size(weight: float, compute: int, *, adapters: bool, devices: int) -> float:
    """Bytes of a number in the residual stream. Under autocast the embedding's weights make it their own; gathered for the arithmetic, as they are on
    several devices, they have its precision, and beside adapters they give it (training/lora.py).

    weight, compute: bytes of a trained weight, and of a number in the arithmetic.
    """
    return compute if adapters or devices > 1 else weight


def head_bytes(tokens: float, width: int, vocabulary: int) -> float:
    """Bytes that the chunked loss takes at most: a chunk of logits three times over, and the gradients it makes on the way."""
    return 3 * 4 * min(CHUNK_ELEMENTS, tokens * vocabulary) + 2 * 2 * tokens * width + 6 * width * vocabulary


def mask_bytes(window: float, windows: int, size: int) -> float:
    """What attention takes for its mask where layers slide: transformers' own of all pairs, a byte each, and what PyTorch makes of it for the kernel.

    windows: that a kernel is given at a time, each with a mask of its own. size: bytes of a number in the arithmetic.
    """
    return window * window * (1 + windows * size)


def calls_bytes(tokens: float, query_width: int, size: int) -> float:
    """What attention in several calls gives a kernel and gets from it, keys repeated for each of their queries' heads: eight tensors of so many heads as `HEADS_AT_ONCE` leaves."""
    return 8 * size * min(tokens * query_width, HEADS_AT_ONCE)


def sliding_bytes(window: int, windows: int, query_width: int, size: int, *, alone: bool) -> float:
    """What attention takes, beside its queries and results, where layers slide: for its calls, if that is all they do (`alone`), or for its mask.

    windows: in a micro batch, a kernel's at a time. size: bytes of a number in the arithmetic.
    """
    return calls_bytes(window * windows, query_width, size) if alone else mask_bytes(window, windows, size)


def shared_window_bytes(tokens: float, key_width: int, query_width: int) -> float:
    """What attention takes, beside its part of queries and results, on each device of those that share a window: one layer's at a time.

    All keys and values in two bytes and their gradients in four; and what its calls take.

    tokens: of the whole window. key_width, query_width: numbers in the keys and in the queries of a token, all heads together.
    """
    return 2 * (2 + 4) * tokens * key_width + calls_bytes(tokens, query_width, 2)


def copied_bytes(weights: float, size: float, compute: int) -> float:
    """Bytes of autocast's copies of so many weights, which it keeps until a forward pass is over, on a device that has them whole: of sharded ones FSDP2
    casts its part of one layer when it gathers that, and gives it back (`unsharded_bytes`).

    size, compute: bytes of a weight, and of a number in the arithmetic.
    """
    return weights * compute if size > compute else 0.0


def unpacked_bytes(weights: Collection[float], compute: int, *, compiled: bool) -> float:
    """What a layer's weights in four bits take while it runs backward: for one product at a time, unless it is `compiled`.

    torch.compile unpacks each weight once for two products, the one that is computed again and the one with its result's gradient, so that all lie
    there when the first of the latter is done; one matrix at least is then unpacked no more or not yet.

    weights: numbers of them in each matrix. compute: bytes of one in the arithmetic's precision.
    """
    largest = max(weights, default=0)
    return compute * (sum(weights) - largest if compiled else largest)


def unsharded_bytes(layer: float, tables: float, compute: int) -> float:
    """Whole weights on each device of a sharded model while a layer runs backward: the layer's and the next one's, its gradient and that in float32,
    embedding and head, which stay for the whole pass, and their gradients.

    layer, tables: numbers of weights; a head that is the embedding counts once. compute: bytes of one in the arithmetic's precision.
    """
    return layer * (2 * compute + compute + 4) + 2 * tables * compute
