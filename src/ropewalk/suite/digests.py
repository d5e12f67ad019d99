"""What tells the data and the model of an ablation apart from others of the same names: digests of what they hold.

in   `AblateSettings` and the model that all rows start from
out  setting → digest, of those that are given; which files are trained on and measured
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data import documents
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.mixture import sources_of

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


def trained_on(settings: AblateSettings) -> dict[str, str]:
    """What --test names and --data trains on, whatever it is called there → its name in --data."""
    trained, tested = sources_of(settings.data), words_of(settings.test)
    of_hub = {str(word): str(word) for word in tested if word in trained and not Path(word).exists()}
    copies = documents.copies_among(_files(tested), _files(trained))
    return of_hub | {str(file): str(copy) for file, copy in copies.items()}


def _files(sources: list[Any]) -> list[Path]:
    return [file for source in sources if Path(source).exists() for file in documents.files_of(source)]
