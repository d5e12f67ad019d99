"""What tells the data and the model of an ablation apart from others of the same names: digests of what they hold.

in   `AblateSettings` and the model that all rows start from
out  setting → digest, of those that are given; a warning of files that are trained on and measured
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data import documents
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.mixture import sources_of

_logger = logging.getLogger(__name__)
#: The settings that name what is read.
TEXTS = ("data", "test", "validation", "also", "scores", "benchmarks")


def digests_of(settings: AblateSettings, source: Checkpoint) -> dict[str, str]:
    """Setting → 16 hexadecimal digits of what it names: `model` of config, tokenizer and every weight, the others of the bytes of their files, in
    reading order, wherever these lie; weights and lengths of a mixture count too. A data set of the hub is known by its name alone.
    """
    given = {name: words for name in TEXTS if (words := words_of(getattr(settings, name)))}
    return {"model": source.fingerprint} | {name: documents.digest_of_all(words) for name, words in given.items()}


def words_of(value: Any) -> list[Any]:
    """The words of a setting that takes one or several; none where it is not given."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def warn_of_trained_texts(option: str, measured: Any, data: Any) -> None:
    """Say it where what an option names is in --data too, whatever it is called there."""
    words = words_of(measured)
    if words and (same := _trained_on(words, sources_of(data))):  # else no file of --data need be listed
        text, other = next(iter(same.items()))
        first = (text if text == other else f"{text} is {other}") + (
            f", and {len(same) - 1} more" if len(same) > 1 else ""
        )
        _logger.warning(
            f"--{option} names texts that --data trains on ({first}): what is measured there is what was learnt by heart; name others"
        )


def _trained_on(measured: list[Any], trained: list[Any]) -> dict[str, str]:
    """What is measured on and trained on → its name in --data."""
    of_hub = {
        str(word): str(word)
        for word in measured
        if isinstance(word, str | Path) and word in trained and not Path(word).exists()
    }
    copies = documents.copies_among(_files(measured), _files(trained))
    return of_hub | {str(file): str(copy) for file, copy in copies.items()}


def _files(sources: list[Any]) -> list[Path]:
    """Of those that are on this machine; a document in memory is no file."""
    paths = [source for source in sources if isinstance(source, str | Path) and Path(source).exists()]
    return [file for path in paths for file in documents.files_of(path)]
