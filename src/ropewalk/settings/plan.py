"""`ropewalk plan`: a training recipe, and the machines it is planned for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from ropewalk.settings.command import Settings
from ropewalk.settings.options import Flag, NamedModel, OpeningOptions
from ropewalk.settings.recipe import Recipe
from ropewalk.settings.scaling import SPELLINGS, ScalingOptions, TrainMethod
from ropewalk.settings.values import Devices, Range, Tokens


@dataclass(frozen=True, kw_only=True)
class PlanSettings(Recipe, ScalingOptions, OpeningOptions):
    """Say what training would take before anything is loaded: memory by part, layout, tokens/s, hours, cost."""

    model: NamedModel = field(kw_only=False)
    """`hemp`, a local directory, a hub id (its config.json alone is fetched), or a name that is known offline: the paper's llama-7b, -13b, -33b, -65b; llama-2, -3, -3.1, -3.2, -3.3; qwen2.5, qwen3; mistral-7b-v0.3, -nemo-12b; gemma-3; phi-3-mini-4k, phi-4; smollm2; tinyllama-1.1b; with their size (qwen3-4b), or no more of it than tells it from the others."""
    window: Annotated[Tokens | None, tyro.conf.arg(metavar="TOKENS")] = None  # pyrefly: ignore[bad-override] (`plan` settles it)
    """Tokens, L'; four times the model's own window if not given, which is said."""
    method: Annotated[TrainMethod, SPELLINGS] = "auto"
    """How the model is to be extended, as `ropewalk train` has it: what is said to be measured, and the recipe to type, are of that; memory and time are the same."""
    gpus: Annotated[str | None, tyro.conf.arg(metavar="8xH100")] = None
    """How many of which chip, by data sheet, or how many beside --gpu-memory; without it, --gpu-memory and --cpu-memory this machine, which is timed."""
    gpu_memory: Annotated[str | None, tyro.conf.arg(metavar="24GB")] = None
    """Memory of a chip: of those that --gpus names or counts, or of one; where --gpus names none nothing else is known of it, so that no time is told."""
    cpu_memory: Annotated[str | None, tyro.conf.arg(metavar="8GB")] = None
    """Memory of a machine without a GPU, of which nothing else is known, so that no time is told."""
    host_memory: Annotated[str | None, tyro.conf.arg(metavar="128GiB")] = None
    """The host's memory for each chip, for what is kept there; 128GiB, beside a GeForce card 64GiB, or this machine's own, if not given; 0 for none. An Apple chip's own is the host's as well."""
    cp: Devices | None = None
    """Devices that share one window; chosen if not given."""
    replicas: Devices | None = None
    """Copies of the weights, each sharded over its own devices; chosen if not given."""
    price: Annotated[float, Range(0, 10**9)] | None = None
    """Of a chip and hour, in any currency."""
    json: Flag = False
    """Print the plan as JSON."""

    @property
    def is_of_this_machine(self) -> bool:
        """Whether no machine is named, so that this one is timed."""
        return self.gpus is None and self.gpu_memory is None and self.cpu_memory is None

    def __post_init__(self) -> None:
        # Without a window the lengths cannot be held against each other yet: they are when `plan` has settled it.
        Settings.__post_init__(self) if self.window is None else super().__post_init__()
