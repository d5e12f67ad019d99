"""Directories: read in order; what is left out is counted and named."""

import gzip
import os
import tempfile
from pathlib import Path

import pytest

from packed_rows import texts
from ropewalk.data.documents import files_of, read_documents
from ropewalk.errors import UserError


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b/two.md", "a.txt", "b/one.py", "picture.png", ".hidden.txt", "c.tex.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(name.encode(), mtime=0) if name.endswith("gz") else name.encode())
    assert texts(tmp_path) == ["a.txt", "b/one.py", "b/two.md", "c.tex.gz"]
    assert len(files_of(tmp_path)) == 4


def test_an_unreadable_file_in_a_directory_is_left_out_and_counted(tmp_path):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "a.py").write_text("pass")
    with pytest.warns(UserWarning, match=r"1 file was left out of .*__init__.py is empty"):
        assert texts(tmp_path) == ["pass"]


def test_files_of_a_directory_that_are_left_out_are_named_where_few_and_by_kind_where_many(tmp_path):
    (tmp_path / "read.txt").write_text("read")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes("ein Gedicht, sch\xf6n".encode("latin-1"))
    with pytest.warns(
        UserWarning,
        match=r"2 files were left out of .*empty.txt is empty; .*latin.txt is not UTF-8 \(byte 16 is 0xf6\)$",
    ):
        assert texts(tmp_path) == ["read"]
    for number in range(4):
        (tmp_path / f"more{number}.txt").write_bytes(b"a" * number + "\xe9".encode("latin-1"))
    with pytest.warns(UserWarning) as told:
        texts(tmp_path)
    (said,) = [str(each.message) for each in told]
    assert said.startswith(f"6 files were left out of {tmp_path}: ") and said.count("(and so 4 more)") == 1
    assert said.count("is not UTF-8") == 1 and said.endswith("empty.txt is empty")


@pytest.mark.skipif(os.getuid() != 0, reason="to become another user needs root, who may read everything")
def test_what_one_may_not_read_is_left_out_of_a_directory():
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        os.chmod(folder, 0o755)
        Path(folder, "a.txt").write_text("read")
        for name, mode in (("listed", 0o744), ("closed", 0o700)):
            Path(folder, name).mkdir()
            Path(folder, name, "b.txt").write_text("not read")
            os.chmod(Path(folder, name), mode)
        os.seteuid(65534)
        try:
            with pytest.warns(UserWarning, match="1 file was left out"):
                assert texts(folder) == ["read"]
            assert files_of(folder) == [Path(folder, "a.txt")]
        finally:
            os.seteuid(0)


def test_every_file_of_a_directory_is_counted(tmp_path, caplog):
    for name in ("a.txt", "b.pdf", "c.pdf", "LICENSE"):
        (tmp_path / name).write_text("text")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with caplog.at_level("INFO", "ropewalk"), pytest.warns(UserWarning, match="1 file was left out .*config.json"):
        assert texts(tmp_path) == ["text"]
    assert "1 file read, 4 left out (2 .pdf, 1 without a suffix, 1 empty or unreadable)" in caplog.text


def test_empty_hidden_linked_and_own_files_are_counted_too(tmp_path, caplog):
    own = (".git/a/b.txt", ".git/c.txt", "runs/.ropewalk.json", "runs/checkpoints/notes.txt", "__pycache__/a.py")
    for name in ("a.txt", ".hidden.txt", "empty.txt", *(f"texts/{name}" for name in own)):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text("" if name == "empty.txt" else "text")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data/linked").symlink_to(tmp_path / "elsewhere")
    with caplog.at_level("INFO", "ropewalk"), pytest.warns(UserWarning, match="empty.txt is empty"):
        assert texts(tmp_path / "data") == ["text"]
    assert (
        "1 file read, 8 left out (3 hidden, 2 written by ropewalk, 1 behind links to folders, 1 in __pycache__, 1 empty or unreadable)"
        in caplog.text
    )
    # Nothing to say where every file is read.
    caplog.clear()
    (tmp_path / "elsewhere/b.txt").write_text("text")
    with caplog.at_level("INFO", "ropewalk"):
        assert texts(tmp_path / "elsewhere") == ["text"] and "left out" not in caplog.text


def test_a_link_to_nothing_is_left_out_and_a_named_file_that_is_gone_is_said(tmp_path):
    (tmp_path / "a.txt").symlink_to(tmp_path / "gone.txt")
    (tmp_path / "b.txt").write_text("there")
    with pytest.warns(UserWarning, match="a.txt is not a file, or is a link to one that is gone"):
        assert texts(tmp_path) == ["there"]
    assert files_of(tmp_path) == [tmp_path / "b.txt"]
    (tmp_path / "c.txt").write_text("soon gone")
    reading = read_documents([tmp_path / "b.txt", tmp_path / "c.txt"])
    next(reading)
    (tmp_path / "c.txt").unlink()
    with pytest.raises(UserError, match="c.txt"):
        next(reading)


def test_a_directory_without_documents_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"png")
    with pytest.raises(UserError, match="holds no text"):
        list(read_documents(tmp_path))
