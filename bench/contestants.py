"""Who trains in `bench.train`: transformers, transformers + liger-kernel, ropewalk; on one model, with one optimiser.

in   a device and a shape
out  turns: seconds, losses and peak memory of a few steps
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from ropewalk.attention_ops import flash_4
from ropewalk.errors import UserError
from ropewalk.model.loss import IGNORED, NextTokenLoss
from ropewalk.planner.choice import Room
from ropewalk.settings.budget import head_bytes, spare_after_a_step
from ropewalk.training import recompute, throughput, torchao_adamw
from ropewalk.training.activations import gpu_room
from ropewalk.training.optimizer import allocate_states
from ropewalk.training.retry import until_it_fits

GIB = 2**30
#: Of LLaMA 7B, Meta-Llama-3-8B and Qwen3-8B, as their published configs say; and a small one to try the bench with.
SHAPES: dict[str, dict[str, Any]] = {
    "7b": dict(model_type="llama", hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32,
               num_key_value_heads=32, vocab_size=32000, rope_theta=10000.0),
    "llama3-8b": dict(model_type="llama", hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32,
                      num_key_value_heads=8, vocab_size=128256, rope_theta=500000.0),
    "qwen3-8b": dict(model_type="qwen3", hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32,
                     num_key_value_heads=8, head_dim=128, vocab_size=151936, rope_theta=1000000.0, tie_word_embeddings=False),
    "smollm2": dict(model_type="llama", hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
                    num_key_value_heads=3, vocab_size=49152, rope_theta=100000.0, tie_word_embeddings=True),
    "tiny": dict(model_type="llama", hidden_size=256, intermediate_size=688, num_hidden_layers=32, num_attention_heads=4,
                 num_key_value_heads=4, vocab_size=512, rope_theta=10000.0),
}  # fmt: skip


def config_of(shape: str, layers: int | None = None) -> Any:
    """The config of a shape; with fewer layers, if asked."""
    about = dict(SHAPES[shape]) | ({} if layers is None else {"num_hidden_layers": layers})
    rope = {"rope_type": "default", "rope_theta": about.pop("rope_theta")}
    kind = about.pop("model_type")
    return transformers.AutoConfig.for_model(
        kind, **about, max_position_embeddings=131072, rope_parameters=rope, attn_implementation="sdpa"
    )


def module(device: torch.device, shape: str, layers: int | None) -> NextTokenLoss:
    """A random model in bfloat16, the same on every rank."""
    torch.manual_seed(0)
    config = config_of(shape, layers)
    torch.set_default_dtype(torch.bfloat16)
    with device:
        model = transformers.AutoModelForCausalLM.from_config(config)
    torch.set_default_dtype(torch.float32)
    return NextTokenLoss(model.train())


@dataclass
class Turn:
    """One contestant's turn at one size: seconds and losses of its steps, the first one not timed."""

    who: str
    batch: int
    tokens: int
    seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    peak: float = 0.0
    kept: str = ""
    error: str = ""


@dataclass(frozen=True)
class Entry:
    """A contestant that is set up: its loss of token numbers, how a forward and backward pass is run, and what follows the first step."""

    loss_of: Callable[[Tensor], Tensor]
    run: Callable[[Callable[[], Tensor]], Tensor] = lambda call: call()
    after_first: Callable[[], None] = lambda: None


class Bench:
    """The model, its data and the clock. device: where. shape: a name of SHAPES. layers: how many, if not all. profiled: whose kernels to list. low_bit: moments in 8 bits.

    one_optimizer: ropewalk's for everybody, where the others have torchao's as it comes.
    """

    def __init__(
        self,
        device: torch.device,
        shape: str,
        layers: int | None = None,
        profiled: str | None = None,
        *,
        low_bit: bool = False,
        one_optimizer: bool = False,
    ) -> None:
        self.device, self.profiled, self.fastest, self.low_bit = device, profiled, True, low_bit
        self.one_optimizer = one_optimizer
        config = config_of(shape, layers)
        torch.set_default_dtype(torch.bfloat16)
        with device:
            self.model = transformers.AutoModelForCausalLM.from_config(config)
        torch.set_default_dtype(torch.float32)
        self.model.train()
        # inv_freq in float32 whatever the default dtype was, as transformers keeps it.
        rotary = self.model.model.rotary_emb
        theta = config.rope_parameters["rope_theta"]
        rotary.inv_freq = 1.0 / theta ** (torch.arange(0, 1, 2 / rotary.inv_freq.numel() / 2, device=device).float())
        self.root = NextTokenLoss(self.model)

    def reset(self) -> None:
        """The same random weights as before every turn."""
        generator = torch.Generator(self.device).manual_seed(0)
        with torch.no_grad():
            for p in self.model.parameters():
                if p.dim() > 1:
                    p.normal_(0, 0.02, generator=generator)
                else:
                    p.fill_(1.0)

    def data(self, batch: int, tokens: int, step: int) -> Tensor:
        """Token numbers whose logarithm is uniform, so that there is something to learn."""
        generator = torch.Generator(self.device).manual_seed(step)
        spread = torch.rand(batch, tokens, generator=generator, device=self.device)
        return (self.model.config.vocab_size**spread).long().clamp(max=self.model.config.vocab_size - 1)

    def optimizer(self, who: str) -> torch.optim.Optimizer:
        """What `ropewalk train --precision bfloat16-stochastic` uses for ropewalk; torchao's AdamW, of the same arithmetic, for the others."""
        import torchao.optim

        options: dict[str, Any] = dict(lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0)
        if who.startswith("ropewalk") or self.one_optimizer:
            return torchao_adamw.build(
                self.model.parameters(), eight_bits=self.low_bit, stochastic=True, eps=1e-8, **options
            )
        kind = torchao.optim.AdamW8bit if self.low_bit else torchao.optim._AdamW
        return kind(self.model.parameters(), bf16_stochastic_round=True, **options)

    def step(self, entry: Entry, optimizer: torch.optim.Optimizer, ids: Tensor) -> Tensor:
        def passes() -> Tensor:
            optimizer.zero_grad(set_to_none=True)
            loss = entry.loss_of(ids)
            loss.backward()
            return loss.detach()

        loss = entry.run(passes)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    def turn(self, who: str, batch: int, tokens: int, steps: int) -> Turn:
        """`steps` timed steps after one that is not; an error, out of memory included, is written down and the next turn comes."""
        out = Turn(who, batch, tokens)
        started = time.perf_counter()
        try:
            self._turn(out, steps)
        except Exception as error:  # noqa: BLE001 - one contestant's failure must not end the others' turns
            out.error = f"{type(error).__name__}: {error}"[:400]
            traceback.print_exc(limit=-6)
        gc.collect()
        self.model.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        print(f"[{time.perf_counter() - started:6.1f} s] {out}", flush=True)
        if out.error and self.fastest and who == "ropewalk" and "OutOfMemory" not in out.error:
            self.fastest = False  # once more with the attention that every contestant has
            torch._dynamo.reset()
            return self.turn(who, batch, tokens, steps)
        return out

    def _turn(self, out: Turn, steps: int) -> None:
        self.reset()
        optimizer = self.optimizer(out.who)
        if self.device.type == "cuda":
            allocate_states(optimizer)
        with CONTESTANTS[out.who](self, out) as entry:
            for step in range(steps + 1):
                ids = self.data(out.batch, out.tokens, step)
                if step == 1 and self.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats()
                seconds, loss = self._timed(lambda ids=ids: self.step(entry, optimizer, ids))
                out.seconds.append(seconds)
                out.losses.append(float(loss))
                if step == 0:
                    entry.after_first()
            if self.profiled == out.who:
                self.profiled = None
                self._profile(lambda: self.step(entry, optimizer, ids))
            out.peak = throughput.peak_bytes(self.device) / GIB

    def _profile(self, call: Callable[[], Any]) -> None:
        activity = torch.profiler.ProfilerActivity
        with torch.profiler.profile(activities=[activity.CUDA, activity.CPU]) as seen:
            self._timed(call)
        rows = sorted(seen.key_averages(), key=lambda row: -row.self_device_time_total)[:40]
        for row in (row for row in rows if row.self_device_time_total > 500):
            print(f"{row.self_device_time_total / 1e3:9.2f} ms {row.count:6d} {row.key[:150]}")

    def _timed(self, call: Callable[[], Any]) -> tuple[float, Any]:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        begin = time.perf_counter()
        result = call()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - begin, result


@contextlib.contextmanager
def with_transformers(bench: Bench, turn: Turn) -> Iterator[Entry]:
    """transformers as its Trainer runs it, every layer checkpointed."""
    bench.model.gradient_checkpointing_enable({"use_reentrant": False})
    try:
        yield Entry(lambda ids: bench.model(input_ids=ids, labels=ids, use_cache=False).loss)
    finally:
        bench.model.gradient_checkpointing_disable()


@contextlib.contextmanager
def with_liger(bench: Bench, turn: Turn) -> Iterator[Entry]:
    """The same with all of liger-kernel's kernels for the family: norm, rotation, SwiGLU, fused head and loss."""
    import liger_kernel.transformers as liger

    kind = bench.model.config.model_type
    modeling = sys.modules[type(bench.model).__module__]
    apply = {"llama": liger.apply_liger_kernel_to_llama, "qwen3": liger.apply_liger_kernel_to_qwen3}[kind]
    names = [name for name in vars(modeling) if name == "apply_rotary_pos_emb" or name.endswith(("RMSNorm", "MLP"))]
    originals = {name: getattr(modeling, name) for name in names}
    before = [(module, set(module.__dict__)) for module in bench.model.modules()]
    apply(model=bench.model)
    try:
        with with_transformers(bench, turn) as entry:
            yield entry
    finally:
        for name, original in originals.items():
            setattr(modeling, name, original)
        for module, keys in before:
            for key in set(module.__dict__) - keys:
                del module.__dict__[key]


def ours(*, compiled: bool = True, most: str = "auto", fastest: bool = True, host: bool = True) -> Any:
    """ropewalk: chunked loss, and what each layer keeps chosen from the memory there is. most: "auto" | "attention".

    fastest: FlashAttention-4 where it is installed. host: results may be kept in the host's memory.
    """
    by_fastest: dict[bool, recompute.SelectiveCheckpointing] = {}

    @contextlib.contextmanager
    def contestant(bench: Bench, turn: Turn) -> Iterator[Entry]:
        # One for the whole run, so that a second turn reuses what the first one compiled.
        kept = by_fastest.setdefault(bench.fastest, recompute.SelectiveCheckpointing(bench.root, compiled=compiled))
        size = bench.model.config.head_dim
        stack = contextlib.ExitStack()
        print(
            stack.enter_context(flash_4.fastest(bench.device, size))
            if fastest and bench.fastest
            else "as PyTorch picks"
        )
        kept.candidates(bench.root.body, turn.batch, turn.tokens)
        if most == "attention":
            dear = tuple(c for c in kept.layer.candidates if "attention" in c.op)
            kept.layer = replace(kept.layer, candidates=dear)
        room = _room(bench, turn, kept)
        if not host:
            room = replace(room, host=0)

        def loss_of(ids: Tensor) -> Tensor:
            labels = torch.cat([ids[:, 1:], torch.full_like(ids[:, :1], IGNORED)], dim=1)
            return bench.root(ids, labels) / (labels != IGNORED).sum()

        kept.settle(room)

        def give_up(asked: str) -> None:
            print(f"out of memory ({asked}) with {_say(kept)}", flush=True)
            if not kept.lower():
                raise UserError(f"{turn.tokens} tokens do not fit, with nothing kept ({asked})")

        def run(call: Callable[[], Tensor]) -> Tensor:
            loss = until_it_fits(call, give_up)
            turn.kept = _say(kept)
            return loss

        def after_first() -> None:
            if bench.device.type == "cuda":
                kept.spare(spare_after_a_step(throughput.spare_bytes(bench.device)))

        try:
            yield Entry(loss_of, run, after_first)
        finally:
            kept.release()
            stack.close()

    return contestant


def _room(bench: Bench, turn: Turn, kept: recompute.SelectiveCheckpointing) -> Room:
    if bench.device.type != "cuda":
        return Room(2**40)
    config = bench.model.config
    stream = turn.batch * turn.tokens * config.hidden_size * 2
    weights = sum(p.numel() for p in bench.model.parameters())
    head = int(head_bytes(turn.batch * turn.tokens, config.hidden_size, config.vocab_size))
    room = gpu_room(kept, bench.device, torch.bfloat16, stream=stream, head=head, reserved=0, gradients=2 * weights)
    print(
        f"room {room.card / GIB:.1f} GiB, {room.host / GIB:.1f} of the host, {room.link / 1e9:.0f} GB/s, all candidates "
        f"{len(kept.layers) * sum(c.size for c in kept.layer.candidates) / GIB:.1f} GiB",
        flush=True,
    )
    return room


def _say(kept: recompute.SelectiveCheckpointing) -> str:
    kinds = {each: kept.kept.count(each) for each in kept.kept}
    words = [f"{count} x {sorted(each) if each is not None else 'all'}" for each, count in kinds.items()]
    return f"{', '.join(words)}; {len(kept.choice.hosted)} layers on the host ({kept.host_bytes / GIB:.1f} GiB), {kept.tiles.count} tiles"


CONTESTANTS: dict[str, Any] = {
    "transformers": with_transformers,
    "liger": with_liger,
    "ropewalk": ours(),
    "ropewalk-cudnn": ours(fastest=False),
    "ropewalk-eager": ours(compiled=False),
    "ropewalk-attention": ours(most="attention"),
    "ropewalk-card": ours(host=False),
}
