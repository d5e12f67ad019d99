"""What is trained and how: all that a run's memory and time depend on, which is what the planner reads of it.

Section numbers are those of Chen et al. 2023, arXiv 2306.15595. What the paper leaves open says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Literal, Self

from ropewalk.errors import UserError
from ropewalk.settings.command import Settings
from ropewalk.settings.values import Count, Range, Tokens
from ropewalk.settings.windows import perhaps_thousands

Mode = Literal["full", "lora", "pose"]
Precision = Literal["auto", "float32", "bfloat16", "bfloat16-stochastic"]
Activations = Literal["auto", "full", "none"]
Optimizer = Literal["auto", "adamw", "adamw-8bit", "adamw-offload"]
#: Of an adapter.
Rank = Annotated[int, Range(1, 2**20)]

#: Section 3.1: up to 8192 tokens 64 windows a step for 7B, 13B and 33B, all other runs 128; this border lies between 33 and 65.
_BATCH_WINDOW, _BATCH_MODEL = 8192, 50e9


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """What is trained and how: all that memory and time depend on. The planner reads no more of a run than this."""

    HINTS = {"precision": "plain bfloat16 weights are not offered, since updates of 2e-5 vanish in them"}

    window: Tokens
    """Tokens, L'; the model is extended to it first if its own window is shorter."""
    steps: Count = 1000
    """Optimiser steps in all (section 3.1: 1000 for Position Interpolation, 10000 for direct fine-tuning)."""
    mode: Mode = "full"
    """full trains every weight (section 3.1); lora low-rank adapters, embeddings and norms (LongLoRA, arXiv 2309.12307, section 3.3); pose every weight at a short window, with skipped positions (PoSE, arXiv 2309.10400)."""
    batch_size: Count | None = None
    """Windows per optimiser step, over all devices; 64, or 128 above 8192 tokens and for models of 65B, if not given (section 3.1)."""
    micro_batch: Count | None = None
    """Windows in memory at a time on one device; chosen by window and device if not given."""
    precision: Precision = "auto"
    """float32 everywhere; bfloat16: float32 weights, bfloat16 arithmetic; bfloat16-stochastic: bfloat16 weights, updates rounded stochastically. auto is float32 on a CPU and on GPUs before Ampere, which know no bfloat16; on others bfloat16 if that fits, else bfloat16-stochastic."""
    optimizer: Optimizer = "auto"
    """adamw-8bit keeps its states in 8 bits, adamw-offload in the host's memory. auto is adamw if that fits, else adamw-8bit."""
    activations: Activations = "auto"
    """What layers keep for the backward pass: auto as many activations as fit, full checkpointing (each layer's input only), none of it (every activation)."""
    lora_rank: Rank = 8
    """Of the adapters in mode lora (LongLoRA: 8)."""
    base_bits: Literal[4] | None = None
    """In mode lora: the frozen weights under the adapters are quantised to so many bits while they are loaded (QLoRA, arXiv 2305.14314), by one process. What is saved has the checkpoint's own weights."""
    chunk_window: Tokens | None = None
    """Tokens in memory in mode pose; the model's original window if not given."""
    longce: Tokens | None = None
    """Tokens of a short context. Each label is weighed by how much likelier the whole window makes it than that, as the model has it before the step (LongCE, arXiv 2410.23771; 5120 there). The loss that is shown has no weights."""
    longce_stride: Tokens | None = None
    """With --longce: tokens by which the short context slides; half of it if not given (1024 there). A shorter one takes more passes."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_other_longce()
        if (self.precision, self.optimizer) == ("bfloat16-stochastic", "adamw-offload"):
            raise UserError(
                "adamw-offload keeps float32 states in the host's memory for float32 weights, and precision bfloat16-stochastic has none; take "
                "precision bfloat16 with it, or optimizer adamw or adamw-8bit"
            )
        if self.base_bits is not None and (self.mode != "lora" or self.optimizer == "adamw-offload"):
            raise UserError(
                f"base-bits is about the frozen weights under adapters, whose optimiser states are small, and this is mode {self.mode} with "
                f"optimizer {self.optimizer}; add --mode lora, with another optimizer than adamw-offload, or leave it out"
            )
        if self.chunk_window is None:
            return
        if self.mode != "pose":
            raise UserError(
                f"chunk-window is mode pose's, and this is mode {self.mode}; add --mode pose or leave it out"
            )
        if self.chunk_window >= self.window:
            raise UserError(
                f"mode pose skips positions between a short window and a long one, and chunk-window {self.chunk_window} is not shorter "
                f"than window {self.window}{perhaps_thousands(self.window, self.chunk_window)}; ask for a shorter one, or use mode full"
            )

    def _refuse_other_longce(self) -> None:
        if self.longce is None:
            if self.longce_stride is not None:
                raise UserError(
                    "longce-stride is of LongCE's short context, and there is none; add --longce, or leave it out"
                )
        elif self.mode == "pose":
            raise UserError(
                "LongCE compares contexts of two lengths, and mode pose reads the short one alone, with skipped positions; use one of the two"
            )
        elif not 1 <= self.longce_step < self.longce < self.window:
            raise UserError(
                f"LongCE's stride is shorter than its short context, and that is shorter than the window, got {self.longce_step}, {self.longce} and "
                f"{self.window} tokens; ask for another --longce or --longce-stride"
            )

    @property
    def longce_step(self) -> int:
        """Tokens by which LongCE's short context slides, of a recipe that has one."""
        return self.longce_stride or (self.longce or 0) // 2

    @property
    def batch(self) -> int:
        """Windows a step, of a recipe that `for_model` has settled."""
        if self.batch_size is None:
            raise AssertionError("a batch size that is not given depends on the model: see Recipe.for_model")
        return self.batch_size

    @property
    def option_in_memory(self) -> str:
        """The option by which a user asks for them: `tokens_in_memory`."""
        return "--chunk-window" if self.mode == "pose" else "--window"

    def tokens_in_memory(self, original_window: int) -> int:
        """Tokens of a window as it is read: in mode pose those of a chunk, the model's original window if none is asked for."""
        return self.window if self.mode != "pose" else min(self.chunk_window or original_window, self.window)

    def for_model(self, parameters: int) -> Self:
        """The recipe for a model of so many parameters: section 3.1's batch where none is given."""
        if self.batch_size is not None:
            return self
        large = self.window > _BATCH_WINDOW or parameters >= _BATCH_MODEL
        return replace(self, batch_size=128 if large else 64)
