"""Numbers out of a config.json, or a sentence that names the key: a text that looks like a number is none.

in   a dictionary of a config.json and a key
out  a float or an int
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ropewalk.errors import UserError

#: Up to here floats hold every whole number.
_LARGEST = 2**53
#: Tables of so many entries are made: what is absurd would fill the memory.
_MOST = {"head_dim": 2**16, "num_hidden_layers": 2**14}


def number(config_dict: Mapping[str, Any], key: str) -> float:
    """The number under a key.

    Raises:
        KeyError: the key is absent.
        UserError: what is there is no number. Some readers take "8" for 8 and others do not.
    """
    return as_number(config_dict[key], key)


def as_number(value: Any, key: str) -> float:
    """A value of a config.json as a float; `key` is where it was read."""
    too_large = isinstance(value, int) and abs(value) > _LARGEST
    if isinstance(value, bool) or not isinstance(value, int | float) or too_large or math.isnan(value):
        raise UserError(f"a model's config names {key} as a number, got {value!r}; mend its config.json")
    return float(value)


def whole_number(config_dict: Mapping[str, Any], key: str, default: int | None = None) -> int:
    """The whole number above 0 under a key; `default` where the key is absent.

    Raises:
        UserError: it is not whole, not above 0, more than any model has, or absent without a default.
    """
    value = config_dict.get(key, default)
    is_whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not is_whole or value < 1:
        raise UserError(f"a model's config names {key} as a whole number above 0, got {value!r}; mend its config.json")
    if value > _MOST.get(key, _LARGEST):
        most = _MOST.get(key, "2^53")
        raise UserError(
            f"a model's config names {key} as a whole number of at most {most}, got {str(value)[:24]}; mend its config.json"
        )
    return int(value)
