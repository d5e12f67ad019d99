"""What tells the data and the model of an ablation apart from others of the same names: digests of what they hold.

in   `AblateSettings` and the model that all rows start from
out  setting → digest, of those that are given
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data import documents
from ropewalk.settings.ablate import AblateSettings

#: The settings that name what is read.
TEXTS = ("data", "test", "validation", "also", "scores", "benchmarks")


def digests_of(settings: AblateSettings, source: Checkpoint) -> dict[str, str]:
    """Setting → 16 hexadecimal digits of what it names: `model` of config, tokenizer and every weight, the others of the bytes of their files, in
    reading order, wherever these lie; weights and lengths of a mixture count too. A data set of the hub is known by its name alone.
    """
    given = {name: words for name in TEXTS if (words := words_of(getattr(settings, name)))}
    return {"model": source.fingerprint} | {name: _digest(words) for name, words in given.items()}


def words_of(value: Any) -> list[Any]:
    """The words of a setting that takes one or several; none where it is not given."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _digest(words: list[Any]) -> str:
    parts = [documents.digest_of(word) if Path(word).exists() else str(word) for word in words]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:16]
