"""Chips as people write them, and as drivers name them.

in   "8xH100", "24GB", "NVIDIA H200"
out  how many of which `Chip` (chips.py); GiB
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import NoReturn

from ropewalk.errors import UserError, nearest
from ropewalk.planner.chips import CHIPS, Chip, of_memory

_ALIASES = {"A100": "A100-80", "H100-SXM": "H100", "H100-80": "H100", "V100": "V100-32"}
_ALIASES |= {f"{name}-TI-16": f"{name}-TI" for name in ("4060", "5060")}


def gibibytes(text: str, option: str, *, least: float = 2**-10) -> float:
    """GiB of "24GB", "79.1GiB", "512MB" or "24", `least` at the least. GB is what makers call a card's GiB, of which a driver has some 2 % less.

    Raises:
        UserError: no such size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([mgt])(i?b)?)?\s*", text.lower())
    times = {"m": 2**-10, "g": 1, "t": 2**10}[match[2] or "g"] if match else 0
    size = float(match[1]) * times * (1 if match[3] == "ib" else 0.98) if match else -1.0
    if not least <= size <= 10**6:
        raise UserError(f"--{option} is a size in GB, as in 24GB, got {text!r}; give one")
    return size


#: How people write a number of chips: "H200", "8xH100" or "8 H100", "H100:8"; read in this order, since names begin with numbers ("4060 Ti").
_WRITTEN = (
    r"(?P<chip>.+)(?P<count>)",
    r"(?P<count>\d+)\s*(?:[x×*]|\s)\s*(?P<chip>.+)",
    r"(?P<chip>.+?)\s*[x×*:]\s*(?P<count>\d+)",
)


def parse(text: str, memory: float | None = None) -> tuple[int, Chip]:
    """How many of which chip, as in `_WRITTEN`.

    Args:
        memory: GiB of each, where it is given apart; a count alone is then one of chips of which nothing else is known.

    Raises:
        UserError: no such chip is known, or the count is not a whole number above 0.
    """
    for match in (re.fullmatch(form, text.strip(), re.IGNORECASE) for form in _WRITTEN):
        chip = match and _of_name(match["chip"], sized=memory is not None)
        if match and chip and (count := int(match["count"] or 1)):
            return count, chip if memory is None else replace(chip, memory=memory)
    if memory is not None and re.fullmatch(r"\d{1,3}", text.strip()) and (count := int(text)):
        return count, of_memory(memory)
    _refuse(text.strip())


def _refuse(text: str) -> NoReturn:
    """Say what is wrong with a number of chips: the count, the x between, or the name."""
    rule = f"--gpus is a count and a chip, as in 8xH100, or a count beside --gpu-memory, and left out this machine; got {text!r}"
    if re.fullmatch(r"0*[1-9]\d{0,2}", text):
        raise UserError(f"{rule}; name the chip as well, or give --gpu-memory")
    count, name = _apart(text)
    chip = _of_name(name, sized=False)
    if int(count) < 1:
        raise UserError(f"{rule}, and {count} is no count; name 1 or more")
    kind, _, size = _bare(name).rpartition("-")
    if size.isdigit() and (other := _of_name(kind, sized=True)) and not other.on_cpu:
        raise UserError(
            f"{rule}; another size of memory than {other.name}'s own is asked for with --gpu-memory {size}GB"
        )
    # Of Apple's, a size that is not sold.
    chip = chip or _apple_of_name(kind if size.isdigit() else _bare(name), sized=True)
    if chip and chip.sizes and size.isdigit():
        near = chip.of_size(min(chip.sizes, key=lambda sold: abs(sold - int(size)))).name
        sold = " and ".join([", ".join(map(str, chip.sizes[:-1])), f"{chip.sizes[-1]} GB"])
        raise UserError(f"{rule}, and it is sold with {sold}; did you mean {count}x{near}?")
    if chip:
        raise UserError(f"{rule}; did you mean {count}x{chip.name}?")
    names = [chip.name for chip in CHIPS.values()]
    raise UserError(f"{rule}; {nearest(_bare(name), names, 'known chips: ' + ', '.join(names))}")


def _apart(text: str) -> tuple[str, str]:
    """Count and name of what may be either, wrong as they are: "-1xH100", "8H100"; a number of four digits is a chip's name."""
    first = re.fullmatch(r"([-+]?\d+)\s*[x×*]\s*(.+)|(-?\d{1,3})\s*([^\W\d].*)", text, re.IGNORECASE)
    last = re.fullmatch(r"(.+?)\s*[x×*:]\s*([-+]?\d+)", text, re.IGNORECASE)
    if first:
        return (first[1] or first[3], first[2] or first[4])
    return (last[2], last[1]) if last else (text if re.fullmatch(r"[-+]?\d+", text) else "1", text)


def _of_name(name: str, *, sized: bool) -> Chip | None:
    """A chip as people write it. sized: whether its memory is said apart."""
    name = _bare(name)
    if not (chip := CHIPS.get(_ALIASES.get(name, name))):
        name = re.sub(r"-SXM\d?(?=-|$)", "", name)  # what is not called PCIe is SXM
        chip = CHIPS.get(_ALIASES.get(name, name))
    return chip or _of_its_size(name) or _apple_of_name(name, sized=sized)


def _of_its_size(name: str) -> Chip | None:
    """A chip that is sold with one size of memory, and named with that; a driver has up to a tenth less of it."""
    kind, _, size = name.rpartition("-")
    chip = CHIPS.get(_ALIASES.get(kind, kind))
    its_own = chip and not chip.on_cpu and size.isdigit() and 0.9 * int(size) < chip.memory < int(size)
    return chip if its_own else None


def _bare(name: str) -> str:
    """A chip's name as `CHIPS` has it, without its maker's."""
    name = re.sub(r"[ _]+", "-", name.strip()).upper().removesuffix("-GENERATION")
    name = re.sub(r"^((NVIDIA|AMD|INSTINCT|APPLE|GEFORCE|TESLA|RTX)-?)+", "", name)
    name = re.sub(r"(?<=\d)-?TI", "-TI", re.sub(r"-?SUPER", "-SUPER", name))
    name = re.sub(r"^(M\d)-?(PRO|MAX|ULTRA)", r"\1-\2", name)
    return re.sub(r"-?(\d+)GI?B?$", r"-\1", name)


def _apple_of_name(name: str, *, sized: bool) -> Chip | None:
    """A chip of Apple's, which is sold with several sizes of memory: the size named, or the largest, and that is said."""
    match = re.fullmatch(r"(M\d(?:-(?:PRO|MAX|ULTRA))?)(?:-(\d+))?", name)
    largest = match and next((chip for key, chip in CHIPS.items() if key.rpartition("-")[0] == match[1]), None)
    if not (match and largest):
        return None
    if sized and match[2] is None:
        return largest
    *_, other, most = largest.sizes
    if match[2] is None:
        memory = (
            f"{most} GB of it assumed, the most that is sold: another size is typed as {largest.of_size(other).name}"
        )
        return replace(largest, source=f"{largest.source}, {memory}")
    return largest.of_size(int(match[2])) if int(match[2]) in largest.sizes else None


def named(device: str) -> Chip | None:
    """The chip that a driver's name means ("NVIDIA H200", "NVIDIA A100-SXM4-80GB"); None if it is none of the table."""
    upper = device.upper().replace(" ", "-")
    for key in sorted(CHIPS, key=len, reverse=True):
        parts = key.split("-")
        if all(re.search(rf"(?<![A-Z0-9]){part}(?![0-9])", upper) for part in parts):
            return CHIPS[key]
    return None
