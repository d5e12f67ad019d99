"""The checkpoints of a run: each whole or absent, the newest one that is sound, and what of the older ones is kept.

in   a run's `checkpoints/`, and what writes one
out  `Snapshots`: saved, listed, checked against their hashes, thinned out

Everything is written beside, forced to disk and renamed, so that a killed run leaves whole checkpoints only. Disks and copies do
damage them later, so the hashes are checked before anything is read, and a checkpoint that fails is reported and passed over for
the one before it. `state` is kept for the newest few; older checkpoints stay as models.

People copy, rename and empty these directories. Only `step-NNNNNN` whose manifest has that very step is a checkpoint; what else lies
there is never read and never deleted, and renamed if a checkpoint needs its name.

One that came by time is there to go on from, and not to be measured: it goes with its state, so that a long run does not fill the disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint import half_written, marks
from ropewalk.checkpoint.files import whole_directory_of_ours
from ropewalk.checkpoint.steps import CHECKPOINTS, step_name, steps_in
from ropewalk.errors import UserError, read_text
from ropewalk.settings.train import CHANGEABLE

STATE = "state"
MANIFEST = "manifest.json"
_HASHED = {
    "model": "weights, config or tokenizer to begin with",
    "data": "data (files, weights, --packing, --scores, --loss, --field)",
}
_GONE = ".state.gone"
#: In `about`: whether a checkpoint came by time, only to be gone on from.
BY_TIME = "by_time"
RECORDS = "records.jsonl"
#: What a run writes into its directory before it is finished, as names and patterns of its mark (checkpoint/marks.py).
HOLDS = (
    RECORDS,
    "watch.jsonl",
    "tensorboard/*",
    ".final/*",
    *(f"{CHECKPOINTS}/step-{'[0-9]' * digits}/*" for digits in (6, 7, 8)),
)


@dataclass(frozen=True)
class Snapshot:
    """A sound checkpoint.

    Attributes:
        path: its directory.
        step: optimiser steps taken.
        about: what `Snapshots.save` was given.
    """

    path: Path
    step: int
    about: dict[str, Any]

    @property
    def state(self) -> Path:
        """Where the files that training needs lie."""
        return self.path / STATE


class Snapshots:
    """The checkpoints of one run.

    root: their directory. keep: how many can be resumed from. well: the step of the last look that found the model well (0: none did), so that the
        newest checkpoint up to it is kept beside them. beside: the step of one that the last saving kept for that alone; 0 if there was none.
    """

    def __init__(self, root: Path, *, keep: int = 2) -> None:
        self.root = root
        self.keep = keep
        self.well = self.beside = 0

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.root / step_name(step)

    def manifest(self, step: int) -> Path:
        """What a checkpoint says of itself."""
        return self.path(step) / STATE / MANIFEST

    def steps(self) -> list[int]:
        """Steps that have a checkpoint of that very step to resume from, oldest first; soundness not checked.

        One that somebody renamed counts for nothing: neither is it one of the newest few, nor does its state go.
        """
        return [step for step in self._named() if _step_of(self.path(step)) == step]

    def _named(self) -> list[int]:
        """Steps in the names of what can be resumed from, or was once: renamed ones and damaged ones too."""
        return [step for step in steps_in(self.root) if self.manifest(step).is_file()]

    def save(self, step: int, write: Callable[[Path], None], about: dict[str, Any]) -> Path:
        """Write a checkpoint through `write(directory)`, which must leave the state's files in its `state` directory.

        Raises:
            UserError: the disk is full, or will not be written to; the checkpoints before this one are as they were.
        """
        path = self.path(step)
        with whole_directory_of_ours(path, sources=None) as beside:  # the state's are in its manifest
            write(beside)
            # People write in a README; that is no damage.
            files = sorted(
                file
                for file in beside.rglob("*")
                if file.is_file() and file.name != marks.MARK and file.suffix != ".md"
            )
            hashes = {str(file.relative_to(beside)): digest for file, digest in _hashes(files).items()}
            manifest = {"step": step, "about": about, "sha256": hashes}
            (beside / STATE / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
            self._make_way(path, step)
        self._prune()
        return path

    def _make_way(self, path: Path, step: int) -> None:
        """What lies where a checkpoint goes is replaced only if it is one of this very step, damaged or from before."""
        if marks.is_free(path) or (_step_of(path) == step and next(marks.others(path), None) is None):
            return
        warnings.warn(
            f"{path} is not a checkpoint of step {step}, or not only; it is called {half_written.set_aside(path).name} now",
            stacklevel=2,
        )

    def _prune(self) -> None:
        steps = self.steps()
        best = max((step for step in steps if step <= self.well), default=0)
        self.beside = 0 if best in steps[-self.keep :] else best
        for step in steps[: -self.keep]:
            if step == self.beside:
                continue
            state = self.path(step) / STATE
            if self.path(step).is_symlink() or state.is_symlink():
                continue  # it lies elsewhere, in another run perhaps
            # Renamed first: a run killed in the middle must not leave a state that looks whole.
            if self._came_by_time(step) and next(marks.others(self.path(step)), None) is None:
                gone = half_written.beside(self.path(step), "old")
                os.rename(self.path(step), gone)
                half_written.remove(gone)
                continue
            gone = state.with_name(_GONE)
            shutil.rmtree(gone, ignore_errors=True)
            os.rename(state, gone)
            shutil.rmtree(gone, ignore_errors=True)

    def _came_by_time(self, step: int) -> bool:
        try:
            return json.loads(read_text(self.manifest(step)))["about"][BY_TIME] is True
        except (OSError, ValueError, KeyError, TypeError):  # damaged, or of an earlier version
            return False

    def newest(self) -> Snapshot | None:
        """The newest checkpoint that says of what run it is; whether its files are sound is not looked at, which takes long."""
        for step in reversed(self.steps()):
            try:
                about = json.loads(read_text(self.manifest(step)))["about"]
                if about["identity"]["optimizer"]:
                    return Snapshot(self.path(step), step, about)
            except (OSError, ValueError, KeyError, TypeError, AttributeError):
                continue
        return None

    def latest(self, most: int | None = None) -> Snapshot | None:
        """The newest checkpoint whose every file has the hash it was written with; damaged ones are reported and passed over. most: of that step or before."""
        steps = [step for step in self._named() if most is None or step <= most]
        for step in reversed(steps):
            path = self.path(step)
            wrong, manifest = _check(path, step)
            if wrong is None:
                return Snapshot(path, step, manifest["about"])
            instead = (
                "the one before it is used"
                if step != steps[0]
                else "no other is left" + ", so the run begins anew" * (most is None)
            )
            warnings.warn(f"checkpoint {path} is damaged ({wrong}); {instead}", stacklevel=2)
        return None

    def sweep(self) -> None:
        """Remove what a killed run left half written; the run's directory is held by this process, so that nobody else writes here."""
        for path in [
            *self.root.glob(".step-*.partial"),
            *self.root.glob(".step-*.old"),
            *self.root.glob(f"step-*/{_GONE}"),
        ]:
            half_written.remove(path)


def _step_of(path: Path) -> int | None:
    """The step that a checkpoint's own manifest has; of one whose state was dropped or damaged, its config's."""
    for file, *keys in ((path / STATE / MANIFEST, "step"), (path / "config.json", "ropewalk", "steps")):
        try:
            content: Any = json.loads(read_text(file))
            for key in keys:
                content = content[key]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(content, int):
            return content
    return None


def _check(path: Path, step: int) -> tuple[str | None, dict[str, Any]]:
    """What is wrong with a checkpoint, if anything, and its manifest."""
    try:
        manifest = json.loads(read_text(path / STATE / MANIFEST))
        promised = {path / name: digest for name, digest in manifest["sha256"].items()}
        manifest["about"], manifest["step"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return "its manifest cannot be read", {}
    if manifest["step"] != step:
        return f"it is that of step {manifest['step']}, renamed", manifest
    missing = [file.name for file in promised if not file.is_file()]
    if missing:
        return f"{missing[0]} is missing", manifest
    try:
        hashes = _hashes(list(promised))
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}", manifest
    wrong = [file.name for file, digest in promised.items() if hashes[file] != digest]
    return (f"{wrong[0]} is not as it was written" if wrong else None), manifest


def _hashes(files: list[Path]) -> dict[Path, str]:
    """SHA-256 of each file; several at a time, since hashing lets other threads run."""

    def digest(path: Path) -> str:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(max_workers=4) as pool:
        return dict(zip(files, pool.map(digest, files), strict=True))


def refuse_other_run(snapshot: Snapshot, identity: dict[str, Any], *, allow: Sequence[str] = ()) -> list[str]:
    """A resumed run must be the same run, or its result would be neither the one nor the other.

    Args:
        identity: what decides the run's weights, by name; what an earlier version did not note is not compared.
        allow: names that may have another value.

    Returns:
        Those that have, in words.

    Raises:
        UserError: every other that differs.
    """
    before = snapshot.about.get("identity", {})
    changed = {name: value for name, value in identity.items() if name in before and before[name] != value}
    words = {
        name: f"{name.replace('_', '-')} {before[name]!r}, and this run has {value!r}"
        for name, value in changed.items()
    }
    # Known by hashes, which say nothing to anybody.
    words |= {name: f"other {_HASHED[name]} than this run" for name in changed if name in _HASHED}
    if refused := [name for name in changed if name not in allow]:
        instead = ", or add --allow-changes" if set(refused) <= {*CHANGEABLE} else ""
        raise UserError(
            f"{snapshot.path} was made with {'; '.join(words[name] for name in refused)}; a run is resumed with the settings it was started "
            f"with: give the same ones{instead}, or choose another --out"
        )
    return list(words.values())
