"""The one list of what is wrong with a model for whoever reads it: nothing is made of such a one, and it is not uploaded.

in   an open checkpoint, or the directory of an adapter or a GGUF file
out  a sentence of doctor's that refuses; warnings of what is doubtful

What is wrong for some readers alone is no matter here: whatever is made of a model names its RoPE, its lengths and its tokenizer's class anew.
"""

from __future__ import annotations

import logging
import shlex
import warnings
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.families import norms_from
from ropewalk.errors import UserError
from ropewalk.readers.config_checks import block
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.digest_checks import unchanged
from ropewalk.readers.file_checks import files, tokenizer
from ropewalk.readers.spelling_checks import spellings
from ropewalk.readers.subject import Subject
from ropewalk.readers.value_checks import finite
from ropewalk.readers.window_checks import lengths

_logger = logging.getLogger(__name__)


def refuse_wrong(place: Path | Checkpoint, *, as_it_is: bool = False) -> list[Finding]:
    """Refuse what doctor calls wrong of a model for whoever reads it, as far as that shows without its weights; what else it says is returned.

    Args:
        as_it_is: the config goes on as it lies there, so that what it says of its RoPE counts, which is else read and written anew.

    Raises:
        UserError: the first fault.
    """
    subject = Subject.of(_opened(place))
    of_config = (spellings, block, lengths) if as_it_is and subject.config else ()
    findings = [finding for check in (*of_config, tokenizer, files) for finding in check(subject)]
    _refuse_first(place, [finding for finding in findings if finding.stops])
    return findings


def refuse_damaged(place: Path | Checkpoint, *, as_it_is: bool = False) -> None:
    """As `refuse_wrong`, and refuse weights with NaN or an infinity, or that are not as ropewalk wrote them; warn of what is said of the files,
    and of a config or a tokenizer that was changed since.

    Raises:
        UserError: the first fault. What takes minutes to read is not read, which is said.
    """
    checkpoint = _opened(place)
    for finding in refuse_wrong(checkpoint, as_it_is=as_it_is):
        if finding.number == 10 and checkpoint.has_weights and finding.verdict in ("wrong", "note"):
            warnings.warn(finding.sentence, stacklevel=2)
    # Other files beside those that are read are neither carried nor anybody's model.
    read = checkpoint.weight_files if checkpoint.has_weights else checkpoint.path.glob("*.safetensors")
    headers = checkpoint.headers if checkpoint.has_weights else {}
    adds = norms_from(checkpoint.config, checkpoint.text_config)
    of_values = finite(checkpoint.path, read, full=False, compare=False, headers=headers, norms_from=adds)
    findings = [*unchanged(checkpoint.path, full=False), *of_values]
    _refuse_first(place, [finding for finding in findings if finding.verdict == "wrong"])
    for finding in findings:
        if finding.is_edit:
            _logger.warning("%s: %s", checkpoint, finding.sentence)
    if any(finding.verdict == "not checked" for finding in findings):
        _logger.warning(
            "%s: its weights were not read, which takes minutes; whether they are finite, and as they were written, ropewalk doctor %s --full says",
            checkpoint,
            shlex.quote(str(checkpoint.path)),
        )


def _opened(place: Path | Checkpoint) -> Checkpoint:
    """An adapter and a GGUF file may come without a config."""
    return place if isinstance(place, Checkpoint) else Checkpoint(str(place), place, {})


def _refuse_first(place: Path | Checkpoint, wrong: list[Finding]) -> None:
    if wrong:
        raise UserError(f"{place}: {wrong[0].sentence}")
