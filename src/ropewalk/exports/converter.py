"""llama.cpp's own converter, unmodified: where it lies, and a run of it.

in   a checkpoint's directory, the type of the weights
out  a GGUF file; or the converter's last words

The converter is a program of llama.cpp's repository that no wheel of that project holds. The source package of llama-cpp-python
does, so it is fetched from there, at one version and one SHA-256, and kept in the cache. docs/decisions/040 says why.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from ropewalk.checkpoint.cache import cache_directory
from ropewalk.checkpoint.file_limit import has_reached_limit
from ropewalk.errors import UserError
from ropewalk.progress import Progress

PACKAGE, VERSION = "llama-cpp-python", "0.3.36"
_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
_PROGRAM = "convert_hf_to_gguf.py"
_PARTS = (_PROGRAM, "conversion", "gguf-py/gguf")
_BY_HAND = "or get llama.cpp's source by hand and name its directory with --converter"
#: A full disk in the words of the system, and of numpy (ndarray.tofile), which raises an error without a number.
_FULL = re.compile(
    rf"{re.escape(os.strerror(errno.ENOSPC))}|OSError: \d+ requested and \d+ written|Not enough free space"
)

_MIB = 2**20
#: Seconds between two looks at how much is written.
_BETWEEN_LOOKS = 0.5

_logger = logging.getLogger(__name__)


def converter_directory(given: str | Path | None = None) -> Path:
    """The directory of llama.cpp's converter: the one given, or that of the pinned version, fetched once.

    Raises:
        UserError: no converter there; or the package registry cannot be reached.
    """
    if given is not None:
        if not (Path(given) / _PROGRAM).is_file():
            raise UserError(
                f"--converter is llama.cpp's directory, and {given} has no {_PROGRAM}; leave it out to fetch one"
            )
        return Path(given)
    place = cache_directory() / "converter" / f"{PACKAGE}-{VERSION}"
    if not place.is_dir():
        _logger.info("fetching llama.cpp's converter (%s %s, 77 MB, once) into %s", PACKAGE, VERSION, place)
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place.parent) as beside:
            _unpack(_download(Path(beside)), Path(beside) / "converter")
            try:
                os.rename(Path(beside) / "converter", place)
            except OSError:
                if not place.is_dir():  # else another process has put it there meanwhile
                    raise
    return place


def convert(
    model: Path, gguf_file: Path, *, name: str, gguf_type: str, pre_tokenizer: str | None, directory: Path, size: float
) -> None:
    """Run the converter in a process of its own.

    Args:
        name: what the file calls the model (`general.name`).
        pre_tokenizer: llama.cpp's name for one that the converter does not recognise.
        size: about how many bytes the file will have, for the progress that is shown.

    Raises:
        UserError: it fails; its last line says why.
        OSError: the disk is full, or the file larger than this process may write.
    """
    driver = Path(__file__).with_name("driver.py")
    arguments = [
        str(directory.absolute()),
        pre_tokenizer or "",
        str(model),
        "--outfile",
        str(gguf_file),
        "--outtype",
        gguf_type,
        "--model-name",
        name,
    ]
    status, said = _watched([sys.executable, str(driver), *arguments], gguf_file, size)
    _logger.debug("%s", said)
    if status:
        if _FULL.search(said) or has_reached_limit(gguf_file):
            number = errno.EFBIG if has_reached_limit(gguf_file) else errno.ENOSPC
            raise OSError(number, os.strerror(number), str(gguf_file))
        lines = [line for line in said.splitlines() if line.strip()]
        raise UserError(
            f"llama.cpp's converter cannot write this model as GGUF ({lines[-1] if lines else 'it said nothing'}); "
            "--verbose shows all it said; export for another reader, or name a newer llama.cpp with --converter"
        )


def _watched(command: list[str], file: Path, size: float) -> tuple[int, str]:
    """The exit status of a program that writes a file, and what it said on stderr; how much of the file is there is shown meanwhile."""
    total = max(1, round(size / _MIB))  # headers and what is padded come to more
    with (
        tempfile.TemporaryFile() as errors,
        Progress("MiB of the GGUF file, about", total) as advance,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors) as process,
    ):
        try:
            shown = 0
            while process.poll() is None:
                written = min(total, file.stat().st_size // _MIB) if file.exists() else 0
                advance(written - shown, detail="" if written else "llama.cpp's converter reads the model")
                shown = written
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(_BETWEEN_LOOKS)
        finally:
            process.kill()  # of what is interrupted nothing goes on; one that has ended does not mind
        errors.seek(0)
        return process.returncode, errors.read().decode(errors="replace")


def _download(place: Path) -> Path:
    """The source package, through pip and checked against its hash before anything in it is looked at."""
    wanted = place / "wanted.txt"
    wanted.write_text(f"{PACKAGE}=={VERSION} --hash=sha256:{_SHA256}\n", encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        PACKAGE,
        "-d",
        str(place),
        "-r",
        str(wanted),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    archives = list(place.glob("*.tar.gz"))
    if done.returncode or len(archives) != 1:
        complaints = [line for line in done.stderr.splitlines() if line.strip()] or ["pip said nothing"]
        raise UserError(
            f"GGUF files are written by llama.cpp's converter, and pip could not fetch it ({complaints[-1]}); go online once, {_BY_HAND}"
        )
    if hashlib.sha256(archives[0].read_bytes()).hexdigest() != _SHA256:
        raise UserError(
            f"what pip fetched as {PACKAGE} {VERSION} is not the file that was checked; try again, {_BY_HAND}"
        )
    return archives[0]


def _unpack(archive: Path, place: Path) -> None:
    """The converter's parts alone."""
    with tarfile.open(archive) as source:
        root = f"{source.getnames()[0].split('/')[0]}/vendor/llama.cpp"
        members = [each for each in source if each.name.startswith(tuple(f"{root}/{part}" for part in _PARTS))]
        source.extractall(place.with_suffix(".all"), members=members, filter="data")
    shutil.move(place.with_suffix(".all") / root, place)
