"""Accelerators by their makers' data sheets, and what of a data sheet a training step gets.

in   "8xH100"
out  how many, and a `Chip`: dense bfloat16 rate, memory, bandwidths; its `Rates`, a share of the data sheet

The shares were calibrated on one H200 (docs/plan.md) and are taken over to other chips as they are: the weakest link of a plan for
a chip that nobody measured. A calibration on the machine itself (calibrate.py) replaces them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ropewalk.errors import UserError

_TERA, _GIGA = 1e12, 1e9


@dataclass(frozen=True)
class Chip:
    """One accelerator.

    Attributes:
        name: short, as in `--gpus 8xH100`.
        matrix: bfloat16 FLOP/s, dense, float32 accumulation, without sparsity.
        memory: GiB as the driver reports it, about; data sheets say GB.
        bandwidth: bytes/s of its memory.
        link: bytes/s to its neighbours in the same machine, one direction.
        network: bytes/s to other machines, one direction: an assumption about the cluster, not the chip.
        source: where the figures are from.
        peers: chips in one machine.
    """

    name: str
    matrix: float
    memory: float
    bandwidth: float
    link: float
    network: float
    source: str
    peers: int = 8


def _chip(name: str, tera: float, gib: float, gb_s: float, link: float, network: float, source: str) -> Chip:
    return Chip(name, tera * _TERA, gib, gb_s * _GIGA, link * _GIGA, network * _GIGA, source)


#: Sheets quote NVLink and Infinity Fabric in both directions; `link` is one. PCIe 4.0 x16 is 32 GB/s, 5.0 64 GB/s one way.
CHIPS = {
    chip.name.upper(): chip
    for chip in (
        _chip("A100-40", 312, 39.4, 1555, 300, 25, "NVIDIA A100 40GB SXM data sheet"),
        _chip("A100-80", 312, 79.2, 2039, 300, 25, "NVIDIA A100 80GB SXM data sheet"),
        _chip("H100", 989, 79.1, 3350, 450, 50, "NVIDIA H100 SXM data sheet"),
        _chip("H100-PCIe", 756, 79.1, 2000, 64, 25, "NVIDIA H100 PCIe data sheet"),
        _chip("H200", 989, 139.8, 4800, 450, 50, "NVIDIA H200 SXM data sheet"),
        _chip("B200", 2250, 178.3, 8000, 900, 50, "NVIDIA HGX B200 data sheet"),
        _chip("L40S", 362, 44.4, 864, 32, 12.5, "NVIDIA L40S data sheet"),
        _chip("L4", 121, 22.0, 300, 32, 12.5, "NVIDIA L4 data sheet"),
        _chip("A6000", 154.8, 47.4, 768, 32, 12.5, "NVIDIA RTX A6000 data sheet"),
        _chip("4090", 165.2, 23.5, 1008, 32, 12.5, "NVIDIA Ada GPU architecture white paper"),
        _chip("5090", 209.5, 31.4, 1792, 64, 12.5, "NVIDIA RTX Blackwell GPU architecture white paper"),
        _chip("MI300X", 1307.4, 191.5, 5300, 448, 50, "AMD Instinct MI300X data sheet"),
        _chip("MI325X", 1307.4, 255.5, 6000, 448, 50, "AMD Instinct MI325X data sheet"),
    )
}
_ALIASES = {"A100": "A100-80", "H100-SXM": "H100", "H100-80": "H100", "RTX4090": "4090", "RTX5090": "5090"}


@dataclass(frozen=True)
class Rates:
    """What a training step reaches.

    Attributes:
        matrix: FLOP/s of a large matrix product.
        attention_forward, attention_backward: FLOP/s of causal attention at half the square; backward counted as twice the forward.
        bandwidth: bytes/s of elementwise work.
        update: bytes/s of the optimiser's pass over weights, gradients and states.
        overhead: seconds a layer and pass in which nothing is computed (Python, kernel launches).
        sustained: share of the single rates that a whole step keeps (heat, gaps between kernels, shapes).
        host_link: bytes/s between the chip and the host's memory.
        source: how they were found.
    """

    matrix: float
    attention_forward: float
    attention_backward: float
    bandwidth: float
    update: float
    overhead: float
    sustained: float
    host_link: float
    source: str


#: Measured on one H200 (docs/plan.md): a matrix product reaches 786 of 989 TFLOP/s; attention, head size 128, 32768 tokens, 545 forward
#: and backward together, and its forward pass alone, told from two runs that differ in recomputing it, 573.
MATRIX_SHARE = 786 / 989
FORWARD_SHARE = 573 / 989
BACKWARD_SHARE = 2 / (3 / 545 - 1 / 573) / 989
#: A stream of large elementwise kernels reaches about this share of the memory's rate.
BANDWIDTH_SHARE = 0.8
#: Fitted to six steps on one H200 (docs/plan.md), the only fitted number here: a step against the sum of its parts.
SUSTAINED = 0.85
#: A layer's forward pass is about 30 kernels at about 5 microseconds of launch each.
OVERHEAD = 150e-6


def datasheet_rates(chip: Chip) -> Rates:
    """What to expect of a chip that is not here: its data sheet times the shares measured on one H200."""
    return Rates(
        matrix=chip.matrix * MATRIX_SHARE,
        attention_forward=chip.matrix * FORWARD_SHARE,
        attention_backward=chip.matrix * BACKWARD_SHARE,
        bandwidth=chip.bandwidth * BANDWIDTH_SHARE,
        update=chip.bandwidth * BANDWIDTH_SHARE,
        overhead=OVERHEAD,
        sustained=SUSTAINED,
        host_link=25e9,
        source=f"{chip.source}, times the shares measured on one H200",
    )


def parse(text: str) -> tuple[int, Chip]:
    """How many of which chip: "8xH100", "H200", "32 x A100-80".

    Raises:
        UserError: no such chip is known, or the count is not a whole number above 0.
    """
    match = re.fullmatch(r"\s*(?:(\d+)\s*[x×*]\s*)?([A-Za-z0-9][\w .-]*?)\s*", text)
    name = re.sub(r"[ _]", "-", match[2]).upper().removeprefix("NVIDIA-").removeprefix("AMD-") if match else ""
    name = re.sub(r"-?(\d+)GB$", r"-\1", name)
    chip = CHIPS.get(_ALIASES.get(name, name))
    count = int(match[1] or 1) if match else 0
    if chip is None or count < 1:
        known = ", ".join(chip.name for chip in CHIPS.values())
        raise UserError(f"--gpus is a count and a chip, as in 8xH100, got {text!r}; known chips: {known}")
    return count, chip


def named(device: str) -> Chip | None:
    """The chip that a driver's name means ("NVIDIA H200", "NVIDIA A100-SXM4-80GB"); None if it is none of the table."""
    upper = device.upper().replace(" ", "-")
    for key in sorted(CHIPS, key=len, reverse=True):
        parts = key.split("-")
        if all(re.search(rf"(?<![A-Z0-9]){part}(?![0-9])", upper) for part in parts):
            return CHIPS[key]
    return None
