"""How a figure is written on the page: enough digits to compare by, no more; what is not finite is a dash."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

from ropewalk import sentences
from ropewalk.sentences import counted

NONE = "–"
_MINUS = "−"  # a hyphen is shorter than a digit and does not line up
_YEAR = 365.25  # days


def is_finite(value: Any) -> TypeGuard[float]:
    """True for a finite number; a bool is no figure."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def fixed(value: Any, digits: int = 2) -> str:
    """With a fixed count of digits after the point, so that a column lines up."""
    if not is_finite(value):
        return NONE
    return f"{value:.{digits}f}".replace("-", _MINUS)


def signed(value: Any, digits: int = 3) -> str:
    """A difference, such as one of losses in nats: 0.02 → +0.020."""
    return f"{value:+.{digits}f}".replace("-", _MINUS) if is_finite(value) else NONE


def points(value: Any) -> str:
    """A difference of shares in percentage points, with its sign."""
    return signed(100 * value, 1) if is_finite(value) else NONE


def perplexity(value: Any) -> str:
    """Two digits after the point below 100, as the paper prints it; fewer above, where they would say nothing."""
    if not is_finite(value):
        return NONE
    if abs(value) >= 1e5:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa} × 10{_superscript(int(exponent))}"
    return fixed(value, 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0)


def percent(value: Any, digits: int = 1) -> str:
    """A change, with its sign: 0.014 → +1.4 %. The blank is a narrow one that does not break."""
    if not is_finite(value):
        return NONE
    if abs(value) >= 10:
        return f"{'+' if value > 0 else _MINUS}{count(round(abs(value) * 100))}\u202f%"
    text = f"{value * 100:+.{digits}f}\u202f%"
    return text.replace("-", _MINUS)


def share(value: Any, digits: int = 0) -> str:
    """A part of a whole: 0.75 → 75 %; halves up, 1/8 → 13 %."""
    return sentences.share(value, digits) if is_finite(value) else NONE


def times(value: Any) -> str:
    """A ratio: 14.2 → 14×, 1.27 → 1.3×."""
    if not is_finite(value):
        return NONE
    return f"{value:.1f}×" if abs(value) < 10 else f"{count(round(value))}×"


def count(value: Any) -> str:
    """A whole number; groups of three from five digits on, as windows of four read better without."""
    if not is_finite(value):
        return NONE
    return f"{value:,.0f}".replace(",", "\u202f") if abs(value) >= 100_000 else f"{value:.0f}"


def large(value: Any) -> str:
    """Three digits and a suffix: 1 234 567 → 1.23 M."""
    if not is_finite(value):
        return NONE
    for size, suffix in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def tokens(value: Any) -> str:
    """A number of training tokens under the name that it is typed by: 20 × 2^20 → 20M, 512 × 2^10 → 512k; any other with three digits, as `large` writes it."""
    for size, suffix in ((2**20, "M"), (2**10, "k")):
        if is_finite(value) and value >= size and value % size == 0:
            return f"{value // size:.0f}{suffix}"
    return large(value)


def steps(number: int) -> str:
    """1 step, 2 steps."""
    return counted(number, "step")


def significant(value: Any, digits: int = 6) -> str:
    """A setting, as short as it can be written without losing it."""
    return f"{value:.{digits}g}" if is_finite(value) else NONE


def duration(seconds: Any) -> str:
    """Seconds, minutes, hours, days or years, whichever has few digits."""
    if not is_finite(seconds):
        return NONE
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < 2 * 3600:
        return f"{seconds / 60:.1f} min" if seconds < 600 else f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    days = seconds / 86400
    return f"{days:.1f} days" if days < 2 * _YEAR else f"{days / _YEAR:,.1f} years"


def memory(size: Any) -> str:
    """Bytes as GiB."""
    return NONE if not is_finite(size) or size <= 0 else f"{size / 2**30:.3g} GiB"


def interval(low: Any, high: Any, write=perplexity) -> str:
    """low to high, or nothing where either is unknown."""
    if not (is_finite(low) and is_finite(high)):
        return ""
    return f"{write(low)} to {write(high)}"


def _superscript(exponent: int) -> str:
    return str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
