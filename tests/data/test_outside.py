"""What a user may point --data at that is no text: pipes, devices, bombs; columns that nobody needs; the line ends of another system."""

from __future__ import annotations

import contextlib
import gzip
import json
import lzma
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
import zstandard

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config
from ropewalk.data import compression, jsonlines
from ropewalk.data.documents import files_of, read_documents
from ropewalk.errors import UserError
from ropewalk.records import read as read_records

#: 128 MiB of blanks, in an eighth of a megabyte or less.
BLOCK, BLOCKS = 1 << 20, 128


def _bomb(path: Path, block: bytes) -> Path:
    if path.suffix == ".gz":
        one = gzip.compress(block, 9)
    elif path.suffix == ".xz":
        one = lzma.compress(block, preset=0)
    else:
        one = zstandard.compress(block, 19)
    path.write_bytes(one * BLOCKS)
    return path


@pytest.mark.parametrize("name", ["a.txt.gz", "a.txt.xz", "a.txt.zst", "a.jsonl.gz", "a.jsonl.zst"])
def test_a_bomb_is_refused_before_it_fills_the_memory(name: str, tmp_path: Path) -> None:
    path = _bomb(tmp_path / name, b" " * BLOCK)
    with pytest.raises(
        UserError, match=f"decompresses to more than {compression._HARMLESS} bytes .* set ROPEWALK_DECOMPRESSED_BYTES"
    ):
        list(read_documents(path))


def test_the_limit_of_decompression_can_be_raised_and_lowered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt.zst"
    path.write_bytes(zstandard.compress(b"word " * 100))
    monkeypatch.setenv("ROPEWALK_DECOMPRESSED_BYTES", "500")
    assert len(next(read_documents(path)).text) == 500
    for said, message in (("499", "more than 499 bytes"), ("2 GB", "is a number of bytes, got '2 GB'")):
        monkeypatch.setenv("ROPEWALK_DECOMPRESSED_BYTES", said)
        with pytest.raises(UserError, match=message):
            list(read_documents(path))


@pytest.mark.parametrize("name", ["pipe.txt", "pipe.jsonl", "pipe.parquet", "pipe.txt.gz"])
def test_a_pipe_is_refused_without_waiting_for_a_writer(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="is read from files, but .* is a pipe; give a file"):
        list(read_documents(tmp_path / name))


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/urandom", "/dev/null", "/dev/full"])
def test_a_device_is_refused_before_it_is_read(device: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is read from files, but .* is a device"):
        list(read_documents(device))
    with pytest.raises(UserError, match="is a device"):
        list(jsonlines.read(device, {"a": jsonlines.text}))
    with pytest.raises(UserError, match="is a device"):
        read_records([device])
    (tmp_path / "config.json").symlink_to(device)
    with pytest.raises(UserError, match="is a device"):
        read_config(tmp_path)


@pytest.mark.parametrize(
    "content", ["[" * 100_000, '{"a":' * 100_000, "1" * 5000, '{"a": 1', "", "\0", "[]", "nan", '"a"']
)
def test_json_that_is_none_is_a_sentence(content: str, tmp_path: Path) -> None:
    for name, read in (
        ("config.json", lambda path: read_config(path.parent)),
        ("a.jsonl", lambda path: list(read_documents(path))),
        ("b.jsonl", lambda path: list(jsonlines.read(path, {"a": jsonlines.text}))),
    ):
        (tmp_path / name).write_text(content)
        if name == "b.jsonl" and not content:
            continue  # no line, no item
        with pytest.raises(UserError):
            read(tmp_path / name)
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(UserError, match="is one, the first being") if content else contextlib.nullcontext():
        assert not read_records([tmp_path / "r.jsonl"]).measurements


def test_columns_of_parquet_that_nobody_needs_are_not_read(tmp_path: Path) -> None:
    columns = {
        "text": ["one", "two"],
        "when": pa.array([2**62] * 2, pa.timestamp("us")),
        "id": pa.array([2**62] * 2, pa.timestamp("us")),
    }
    pa.parquet.write_table(pa.table(columns), tmp_path / "book.parquet")
    assert [document.text for document in read_documents(tmp_path / "book.parquet")] == ["one", "two"]
    with pytest.raises(UserError, match="has no field 'body'; it has text, when, id: name one with --field"):
        list(read_documents(tmp_path / "book.parquet", field="body"))
    with pytest.raises(UserError, match="cannot be read as Parquet|not text"):
        list(read_documents(tmp_path / "book.parquet", field="when"))


def test_windows_line_ends_are_read_as_line_ends(tmp_path: Path) -> None:
    (tmp_path / "unix.txt").write_bytes(b"a\nb\n\nc\r d")
    (tmp_path / "windows.txt").write_bytes(b"\xef\xbb\xbfa\r\nb\r\n\r\nc\r d")
    unix, windows = (next(read_documents(tmp_path / f"{name}.txt")).text for name in ("unix", "windows"))
    assert unix == windows == "a\nb\n\nc\r d"


def test_windows_line_ends_in_rows_are_line_ends_too(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "a\r\nb"}))
    (tmp_path / "b.csv").write_bytes(b'name,text\r\nx,"a\r\nb"\r\n')
    assert [document.text for document in read_documents(tmp_path)] == ["a\nb"] * 2


def test_training_data_that_never_end_are_refused_before_they_are_hashed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.txt")
    for source in ("/dev/zero", tmp_path / "pipe.txt"):
        with pytest.raises(UserError, match="is read from files, but .* is a (device|pipe)"):
            files_of(source)


def test_a_pipe_among_a_models_files_is_refused_before_a_library_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    os.mkfifo(tmp_path / "generation_config.json")
    with pytest.raises(UserError, match="a model's directory holds files, but .* is a pipe"):
        Checkpoint.open(tmp_path)
