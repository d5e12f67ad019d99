"""The check of weights, and of what decides beside them, against the digests that were noted when ropewalk wrote them; value_checks.py reads weights for NaN.

in   a directory, or one GGUF file
out  findings, a sentence each: rule, value, way out; the mark, where a change is accepted

`push` uploads a mark with a model. Other programs write none: their weights have nothing to be compared with, which is said. Weights that changed are wrong; a config or a tokenizer is edited on purpose too, and noted.
"""

from __future__ import annotations

import logging
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.digests import (
    READ_UNASKED,
    added_since,
    decides,
    digest_now,
    digest_of,
    note_again,
    noted_digests,
    weights_in,
)
from ropewalk.checkpoint.files import disk_errors
from ropewalk.checkpoint.marks import MARK
from ropewalk.checkpoint.model_card import README, base_in, is_theirs
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import CHANGED, NO_DIGEST, Finding

_logger = logging.getLogger(__name__)
_GB = 10**9


def unchanged(place: Path, *, full: bool) -> Iterator[Finding]:
    """14. Each file of weights, and each that decides beside them, has the digest that was noted when it was written.

    full: weights are read however long that takes.
    """
    directory = place if place.is_dir() else place.parent
    files = {
        path.relative_to(directory).as_posix(): path for path in (weights_in(place) if place.is_dir() else [place])
    }
    digests = noted_digests(directory)
    noted = {name: digest for name, digest in digests.items() if name in files}
    deciding = {name: digest for name, digest in digests.items() if place.is_dir() and decides(Path(name).name)}
    edits = {name: _change(directory, name, digest) for name, digest in deciding.items()}
    yield from (Finding(14, "note", sentence) for sentence in edits.values() if sentence)
    if place.is_dir() and (added := added_since(directory)):
        yield Finding(
            14,
            "note",
            f"{', '.join(added)} came to be after ropewalk wrote the model, and can change what it says; delete what is not the model's own; if it "
            f"is, say so, and it is said no more: {_accepting(directory, *added)}",
        )
    if place.is_dir() and _is_edited(directory, digests):
        yield Finding(
            14,
            "note",
            f"{README} was written by ropewalk and edited since: what it says is not all from records; if that was meant, "
            f"{_accepting(directory, README)}",
        )
    # Below lie parts of a run's checkpoint, whose manifest knows them (training/snapshots.py).
    if unknown := [name for name in files if name not in noted and "/" not in name]:
        yield Finding(
            14,
            "note",
            f"{NO_DIGEST} {_some(unknown)} came to be, so that nobody would notice a bit that changed there{_lost_record(directory)}",
        )
    size = sum(files[name].stat().st_size for name in noted)
    if size > READ_UNASKED and not full:
        yield Finding(
            14,
            "not checked",
            f"weights are compared with the digests noted when they were written, and to read these {size / _GB:.0f} GB takes minutes; add --full",
        )
        return
    if size > _GB:
        _logger.info(
            "reading %.0f GB of weights, to compare them with the digests noted when they were written", size / _GB
        )
    damaged = [sentence for name, digest in noted.items() if (sentence := _change(directory, name, digest))]
    yield from (Finding(14, "wrong", sentence) for sentence in damaged)
    same = [*noted, *(name for name, sentence in edits.items() if not sentence)]
    if same and not damaged:
        yield Finding(14, "ok", f"{_some(same)} {'is' if len(same) == 1 else 'are'} as written, to the last bit")


def _lost_record(directory: Path) -> str:
    """That ropewalk wrote a model whose record is gone, as a card of its tells."""
    written = not (directory / MARK).exists() and base_in(directory / README)
    return f"; ropewalk wrote the model, and its record of that, {MARK}, is gone or was never copied" if written else ""


def _is_edited(directory: Path, digests: dict[str, str]) -> bool:
    """Whether its card is ropewalk's, and another than was written, or accepted by the digests that are noted."""
    card = directory / README
    return bool(base_in(card)) and is_theirs(card) and digests.get(README) != digest_now(card)


def accept(place: Path, names: Sequence[str]) -> None:
    """Note in the mark what these files are now: their changes were meant, and are said no more.

    Raises:
        UserError: no digest of one of them is noted, nor is it one that was added; or the mark cannot be written.
    """
    directory = place if place.is_dir() else place.parent
    digests = noted_digests(directory)
    known = [*digests, *added_since(directory), *([README] if _is_edited(directory, digests) else [])]
    if unknown := [name for name in names if name not in known]:
        raise UserError(
            f"--accept takes files whose digests {MARK} notes of {place}, and what was added to them ({', '.join(known) or 'there are none'}), got "
            f"{unknown[0]}"
        )
    with disk_errors(directory):
        note_again(directory, names)


def warn_of_changes(checkpoint: Checkpoint) -> None:
    """Say that a file of weights is not as ropewalk wrote it, where its digest is taken anyway, for a fingerprint."""
    noted = noted_digests(checkpoint.path)
    for file in checkpoint.weight_files if noted else ():
        name = file.relative_to(checkpoint.path).as_posix()
        if name in noted and digest_of(file) != noted[name]:
            _logger.warning(
                "%s is not as ropewalk wrote it, and what follows is of what lies there now; ropewalk doctor %s says more",
                file,
                shlex.quote(str(checkpoint.path)),
            )


def _accepting(directory: Path, *names: str) -> str:
    """The command that takes files as they are, as a shell reads it."""
    return shlex.join(["ropewalk", "doctor", str(directory), "--accept", *names])


def _change(directory: Path, name: str, digest: str) -> str:
    """What is said of a file that is not as it was written; nothing of one that is."""
    file, accepting = directory / name, _accepting(directory, name)
    try:
        now = digest_now(file)
    except FileNotFoundError:
        return f"{name} is gone, which ropewalk wrote; take it from a copy, or make the model again; if it was deleted on purpose, say so: {accepting}"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror}); take it from a copy, or make the model again"
    if now == digest:
        return ""
    if decides(file.name):
        return (
            f"{name} {CHANGED}: its digest is {now[:16]}, and {digest[:16]} was noted; take it from a copy, or make the "
            f"model again; if the change is meant, say so, and it is said no more: {accepting}"
        )
    names = file.stat().st_nlink
    shared = f" The file has {names} names (hard links), and each of those models has the change." if names > 1 else ""
    return (
        f"{name} is not as it was written: its digest is {now[:16]}, and {digest[:16]} was noted; a disk, a copy or a program changed it. Take it "
        f"from a copy, or make the model again; if it was changed on purpose, say so: {accepting}.{shared}"
    )


def _some(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
