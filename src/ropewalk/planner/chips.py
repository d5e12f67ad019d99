"""Accelerators by their makers' data sheets, and what of a data sheet a training step gets.

in   nothing
out  `CHIPS`, each a `Chip`: dense bfloat16 rate, memory, bandwidths; its `Rates`, a share of the data sheet

The shares were calibrated on one H200 (docs/plan.md) and are taken over to other chips as they are: the weakest link of a plan for
a chip that nobody measured. A calibration on the machine itself (calibrate.py) replaces them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

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
        host_link: bytes/s to the host's memory or back, one way at a time; 0 where they are one memory.
        host: GiB of the host's memory beside each chip, where nobody says: what machines of this kind have at least.
        limit: the memory of each as --gpu-memory gives it, where that is not the chip's own.
        bfloat16: whether its units know that format, as NVIDIA's do from compute capability 8.0 on.
        on_cpu: training and measuring run on its CPU cores, in the one memory that there is: a machine without a GPU, and Apple's.
        sizes: GB of memory that it is sold with, where these are several.
    """

    name: str
    matrix: float
    memory: float
    bandwidth: float
    link: float
    network: float
    source: str
    peers: int = 8
    host_link: float = 25 * _GIGA
    on_cpu: bool = False
    host: int = 128
    limit: str = ""
    bfloat16: bool = True
    sizes: tuple[int, ...] = ()

    @property
    def shown(self) -> str:
        """The name, and the memory that was given in place of its own."""
        return f"{self.name} with {self.limit}, as --gpu-memory says" if self.limit else self.name

    def of_size(self, size: int) -> Chip:
        """The same with another of its `sizes`, which its name ends with. macOS lets a GPU have about three quarters of them, which are the host's as well: one budget."""
        kind = self.name.removesuffix(f"-{self.sizes[-1]}")
        return replace(self, name=f"{kind}-{size}", memory=0.75 * size)


#: By generation of PCIe, with 16 lanes, pinned memory and both ways at once: measured on one H100, 39 to 55 (docs/log.md); halves of it before.
_HOST_LINK = {0: 0.0, 3: 12 * _GIGA, 4: 25 * _GIGA, 5: 50 * _GIGA}


def _chip(
    name: str, tera: float, gib: float, gb_s: float, link: float, network: float, pcie: int, source: str, peers: int = 8
) -> Chip:
    rates = tera * _TERA, gib, gb_s * _GIGA, link * _GIGA, network * _GIGA
    return Chip(name, *rates, source, peers, _HOST_LINK[pcie], host=64 if source in _GEFORCE else 128)


def _apple(name: str, gb_s: float, *sizes: int) -> Chip:
    """The largest of the sizes that are sold. Apple publishes no matrix rate."""
    chip = _chip(name, 0, 0, gb_s, 0, 0, 0, "Apple technical specifications, memory alone", 1)
    return replace(chip, on_cpu=True, sizes=sizes).of_size(sizes[-1])


def _float32(*chip: Any) -> Chip:
    """A chip that knows no bfloat16; and training has no float16."""
    return replace(_chip(*chip), bfloat16=False)


_AMPERE, _ADA = "NVIDIA Ampere GA102 GPU architecture white paper", "NVIDIA Ada GPU architecture white paper"
_BLACKWELL = "NVIDIA RTX Blackwell GPU architecture white paper"
#: Cards that people build into their own machines.
_GEFORCE = (_AMPERE, _ADA, _BLACKWELL)
#: Sheets quote NVLink and Infinity Fabric in both directions; `link` is one. PCIe 4.0 x16 is 32 GB/s, 5.0 64 GB/s one way. Of GeForce cards that the
#: white papers do not list, the rate is that of their tensor cores (128 FLOPs each and clock) at the boost clock of their specification; those with
#: eight lanes of PCIe have the host's link of a generation before. RTX 6000 Ada's is a quarter of its FP8 rate with
#: sparsity. The rate of T4 and V100 is that of float32.
CHIPS = {
    chip.name.upper(): chip
    for chip in (
        _chip("3060", 25.5, 11.6, 360, 32, 12.5, 4, _AMPERE),
        _chip("3060-Ti", 32.4, 7.7, 448, 32, 12.5, 4, _AMPERE),
        _chip("3070", 40.6, 7.7, 448, 32, 12.5, 4, _AMPERE),
        _chip("3070-Ti", 43.5, 7.7, 608, 32, 12.5, 4, _AMPERE),
        _chip("3080", 59.5, 9.7, 760, 32, 12.5, 4, _AMPERE),
        _chip("3080-Ti", 68.2, 11.6, 912, 32, 12.5, 4, _AMPERE),
        _chip("3090", 71.2, 23.5, 936, 32, 12.5, 4, _AMPERE),
        _chip("3090-Ti", 80.0, 23.5, 1008, 32, 12.5, 4, _AMPERE),
        _chip("4060", 30.2, 7.7, 272, 16, 12.5, 3, _ADA),
        _chip("4060-Ti", 44.1, 15.6, 288, 16, 12.5, 3, _ADA),
        _chip("4070", 58.3, 11.6, 504, 32, 12.5, 4, _ADA),
        _chip("4070-Super", 71.0, 11.6, 504, 32, 12.5, 4, _ADA),
        _chip("4070-Ti", 80.2, 11.6, 504, 32, 12.5, 4, _ADA),
        _chip("4070-Ti-Super", 88.2, 15.6, 672, 32, 12.5, 4, _ADA),
        _chip("4080", 97.5, 15.6, 716.8, 32, 12.5, 4, _ADA),
        _chip("4080-Super", 104.4, 15.6, 736, 32, 12.5, 4, _ADA),
        _chip("4090", 165.2, 23.5, 1008, 32, 12.5, 4, _ADA),
        _chip("5060", 38.4, 7.7, 448, 32, 12.5, 4, _BLACKWELL),
        _chip("5060-Ti", 47.4, 15.6, 448, 32, 12.5, 4, _BLACKWELL),
        _chip("5070", 61.7, 11.6, 672, 64, 12.5, 5, _BLACKWELL),
        _chip("5070-Ti", 87.9, 15.6, 896, 64, 12.5, 5, _BLACKWELL),
        _chip("5080", 112.6, 15.6, 960, 64, 12.5, 5, _BLACKWELL),
        _chip("5090", 209.5, 31.4, 1792, 64, 12.5, 5, _BLACKWELL),
        _float32("T4", 8.1, 14.6, 320, 16, 12.5, 3, "NVIDIA T4 data sheet, float32"),
        _float32("V100-16", 15.7, 15.8, 900, 150, 12.5, 3, "NVIDIA V100 SXM2 data sheet, float32"),
        _float32("V100-32", 15.7, 31.7, 900, 150, 12.5, 3, "NVIDIA V100 SXM2 data sheet, float32"),
        _chip("A10", 125, 22.0, 600, 32, 12.5, 4, "NVIDIA A10 data sheet"),
        _chip("A40", 149.7, 44.4, 696, 32, 12.5, 4, "NVIDIA A40 data sheet"),
        _chip("A100-40", 312, 39.4, 1555, 300, 25, 4, "NVIDIA A100 40GB SXM data sheet"),
        _chip("A100-80", 312, 79.2, 2039, 300, 25, 4, "NVIDIA A100 80GB SXM data sheet"),
        _chip("H100", 989, 79.1, 3350, 450, 50, 5, "NVIDIA H100 SXM data sheet"),
        _chip("H100-PCIe", 756, 79.1, 2000, 64, 25, 5, "NVIDIA H100 PCIe data sheet"),
        _chip("H100-NVL", 835.5, 93.1, 3900, 64, 25, 5, "NVIDIA H100 NVL, rate not held against its data sheet"),
        _chip("H20", 148, 95.1, 4000, 450, 50, 5, "NVIDIA H20, as sellers give it"),
        _chip("H200", 989, 139.8, 4800, 450, 50, 5, "NVIDIA H200 SXM data sheet"),
        _chip("B200", 2250, 178.3, 8000, 900, 50, 5, "NVIDIA HGX B200 data sheet"),
        _chip("B300", 2250, 267.7, 8000, 900, 50, 5, "NVIDIA B300, as third parties give it"),
        _chip("L40", 181.05, 44.4, 864, 32, 12.5, 4, "NVIDIA L40 data sheet"),
        _chip("L40S", 362, 44.4, 864, 32, 12.5, 4, "NVIDIA L40S data sheet"),
        _chip("L4", 121, 22.0, 300, 32, 12.5, 4, "NVIDIA L4 data sheet"),
        _chip("A6000", 154.8, 47.4, 768, 32, 12.5, 4, "NVIDIA RTX A6000 data sheet"),
        _chip("6000-Ada", 364.2, 47.4, 960, 32, 12.5, 4, "NVIDIA RTX 6000 Ada, rate not held against its data sheet"),
        _chip("MI300X", 1307.4, 191.5, 5300, 448, 50, 5, "AMD Instinct MI300X data sheet"),
        _chip("MI325X", 1307.4, 255.5, 6000, 448, 50, 5, "AMD Instinct MI325X data sheet"),
        _apple("M1", 68.25, 8, 16),
        _apple("M1-Pro", 200, 16, 32),
        _apple("M1-Max", 400, 32, 64),
        _apple("M1-Ultra", 800, 64, 128),
        _apple("M2", 100, 8, 16, 24),
        _apple("M2-Pro", 200, 16, 32),
        _apple("M2-Max", 400, 32, 64, 96),
        _apple("M2-Ultra", 800, 64, 128, 192),
        _apple("M3", 100, 8, 16, 24),
        _apple("M3-Pro", 150, 18, 36),
        _apple("M3-Max", 400, 36, 48, 64, 96, 128),
        _apple("M3-Ultra", 819, 96, 256, 512),
        _apple("M4", 120, 16, 24, 32),
        _apple("M4-Pro", 273, 24, 48, 64),
        _apple("M4-Max", 546, 36, 48, 64, 128),
        _apple("M5", 153, 16, 24, 32),
        _apple("M5-Pro", 307, 24, 48, 64),
        _apple("M5-Max", 614, 36, 48, 64, 128),
    )
}


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
        source: how they were found. known: whether a time may be told from them.
        head_dim: head size that attention's rates are of; 0 where it is the model's own.
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
    known: bool = True
    head_dim: int = 0

    def attention(self, head_dim: int) -> tuple[float, float]:
        """FLOP/s of causal attention, forward and backward, with heads of this size.

        What a score takes beside its products, the exponential above all, is the same whatever the head's size, and smaller heads have fewer products to a
        score. Larger ones were not measured.
        """
        more = max(1.0, self.head_dim / head_dim)
        forward, backward = (
            1 / (1 / self.matrix + more * (1 / rate - 1 / self.matrix))
            for rate in (self.attention_forward, self.attention_backward)
        )
        return forward, backward


#: Measured on one H200 (docs/plan.md): a matrix product reaches 786 of 989 TFLOP/s; attention, head size 128, 32768 tokens, 545 forward
#: and backward together, and its forward pass alone, told from two runs that differ in recomputing it, 573.
MATRIX_SHARE = 786 / 989
FORWARD_SHARE = 573 / 989
BACKWARD_SHARE = 2 / (3 / 545 - 1 / 573) / 989
SHEET_HEAD = 128
#: A stream of large elementwise kernels reaches about this share of the memory's rate.
BANDWIDTH_SHARE = 0.8
#: Fitted to six steps on one H200 (docs/plan.md), the only fitted number here: a step against the sum of its parts.
SUSTAINED = 0.85
#: A layer's forward pass is about 30 kernels at about 5 microseconds of launch each.
OVERHEAD = 150e-6


#: Of a chip whose maker says nothing, or of which only the memory is known: a step is then planned by some rate, and its time not told.
_SOME_MATRIX, _SOME_BANDWIDTH = 100 * _TERA, 500 * _GIGA


def datasheet_rates(chip: Chip) -> Rates:
    """What to expect of a chip that is not here: its data sheet times the shares measured on one H200."""
    matrix, bandwidth = chip.matrix or _SOME_MATRIX, chip.bandwidth or _SOME_BANDWIDTH
    known = bool(chip.matrix and chip.bandwidth)
    return Rates(
        matrix=matrix * MATRIX_SHARE,
        attention_forward=matrix * FORWARD_SHARE,
        attention_backward=matrix * BACKWARD_SHARE,
        bandwidth=bandwidth * BANDWIDTH_SHARE,
        update=bandwidth * BANDWIDTH_SHARE,
        overhead=OVERHEAD,
        sustained=SUSTAINED,
        host_link=chip.host_link or _HOST_LINK[4],
        source=f"{chip.source}, times the shares measured on one H200" if known else f"none; {chip.source}",
        known=known,
        head_dim=SHEET_HEAD,
    )


@dataclass(frozen=True)
class Mfu:
    """Model FLOPs utilisation: operations of the model, nothing computed again counted, over what could have been done; on both scales.

    measured: over the rate of a large matrix product, timed or planned. sheet: over the maker's dense bfloat16 rate, which alone is what the
    field quotes as MFU. None where that is not known.
    """

    #: What each figure is a share of, wherever one is shown, so that none is quoted for the other.
    OF_SHEET, OF_PRODUCT = "of the data sheet's peak (MFU)", "of a matrix product's rate"

    measured: float | None = None
    sheet: float | None = None

    @property
    def shares(self) -> dict[str, float]:
        """Of what → the share, as far as they are known."""
        known = {self.OF_SHEET: self.sheet, self.OF_PRODUCT: self.measured}
        return {of: share for of, share in known.items() if share is not None}

    def __str__(self) -> str:
        return ", ".join(f"{share:.3f} {of}" for of, share in self.shares.items())


def mfu(flops: float, chip: Chip | None, matrix: float | None, count: int = 1) -> Mfu:
    """Of `flops` operations a second on `count` chips. matrix: FLOP/s of a large product on one of them."""
    rates = (matrix, chip.matrix if chip else None)
    return Mfu(*(flops / (rate * count) if rate else None for rate in rates))


def cpu_of_memory(gib: float, source: str) -> Chip:
    """A machine without a GPU, of which the memory alone is known."""
    return Chip("cpu", 0.0, gib, 0.0, 0.0, 0.0, source, peers=1, host_link=0.0, on_cpu=True)


def of_memory(gib: float) -> Chip:
    """Some chip of which the memory alone is known."""
    return Chip(f"a GPU of {gib:.3g} GiB", 0.0, gib, 0.0, 32 * _GIGA, 12.5 * _GIGA, "its memory alone is known")
