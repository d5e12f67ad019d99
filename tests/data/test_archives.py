"""Rows in tables, compressed files and archives of every kind, and a sentence for each that is damaged."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from packed_rows import LINES, PARQUET, ROWS, tar_of, texts, zip_of
from ropewalk.data.documents import files_of, read_documents
from ropewalk.errors import UserError


def csv_of_rows(delimiter):
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return table.getvalue().encode()


def feather_of(rows):
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def test_the_delimiter_is_read_off_the_first_line_whatever_ends_it(tmp_path):
    (tmp_path / "macintosh.csv").write_bytes(b'id,text\r1,"a; b; c; d"\r2,e\r')
    assert texts(tmp_path / "macintosh.csv") == ["a; b; c; d", "e"]


IN_ARCHIVE = {
    "./a/one.jsonl": LINES,
    "__MACOSX/._one.jsonl": b"\0",
    "a/.hidden.txt": b"no",
    "a/two.parquet": PARQUET,
}


@pytest.mark.parametrize(
    ("name", "content", "times"),
    [
        ("rows.json", json.dumps(ROWS).encode(), 1),
        ("wrapped.json", json.dumps({"data": ROWS}).encode(), 1),
        ("lines.json", LINES, 1),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0), 1),
        ("rows.csv", csv_of_rows(","), 1),
        ("european.csv", b"\xef\xbb\xbf" + csv_of_rows(";"), 1),
        ("rows.tsv", csv_of_rows("\t"), 1),
        ("rows.feather", feather_of(ROWS), 1),
        ("rows.parquet.gz", gzip.compress(PARQUET, mtime=0), 1),
        ("rows.jsonl.bz2", bz2.compress(LINES), 1),
        ("both.zip", zip_of(IN_ARCHIVE), 2),
        ("both.tar", tar_of(IN_ARCHIVE, "w"), 2),
        ("both.tar.gz", tar_of(IN_ARCHIVE, "w:gz"), 2),
        ("both.tgz", tar_of(IN_ARCHIVE, "w:gz"), 2),
        ("both.tar.zst", zstandard.compress(tar_of(IN_ARCHIVE, "w")), 2),
        ("utf16.txt", "Call me Ishmael.\r\n".encode("utf-16"), 0),
        ("utf32.txt", "Call me Ishmael.\r\n".encode("utf-32"), 0),
        ("utf32be.txt", codecs.BOM_UTF32_BE + "Call me Ishmael.\r\n".encode("utf-32-be"), 0),
    ],
)
def test_rows_and_archives_of_every_kind_are_read_named_and_in_a_directory(tmp_path, name, content, times):
    (tmp_path / name).write_bytes(content)
    expected = [row["text"] for row in ROWS] * times or ["Call me Ishmael.\n"]
    assert texts(tmp_path / name) == texts(tmp_path) == expected
    assert files_of(tmp_path) == [tmp_path / name]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.json", b'{"model_type": "llama", "layers": 2}', "has none of the fields text, content, document"),
        (
            "a.jsonl",
            b'{"messages": "hello"}',
            "it has messages: a conversation's are a list of {role, content}, or JSON of one, and this is 'hello'",
        ),
        ("a.json", b"[1, 2]", "holds no rows"),
        ("a.json", b"{", "is not JSON"),
        ("a.csv", b"name,text\nx\n", "row 1 of .* has fewer cells"),
        ("a.csv", b'text\n"a\n', "row 1 of .* is not CSV"),
        ("a.csv", b'text\na\nb\n"c\n', "row 3 of .* is not CSV"),
        ("a.csv", b"text,x,text,,\na,b,c,,\n", "'text' comes twice; rename one"),
        ("a.csv", b"text\n", "holds no rows"),
        ("a.arrow", b"none", "cannot be read as Arrow"),
        ("a.zip", b"none", "cannot be read as an archive"),
        ("a.zip", zip_of({"a.txt": b"abcdef" * 9})[:35] + b"\0" + zip_of({"a.txt": b"abcdef" * 9})[36:], "a.zip"),
        ("a.tar.gz", gzip.compress(tar_of({"a.txt": b"x" * 5000}, "w"), mtime=0)[:60], "a.tar.gz"),
        ("a.zip", zip_of({"a.txt": b"x" * (1 << 27)}), "decompresses to more than"),
        ("a.jsonl.bz2", bz2.compress(LINES)[:-8], "a.jsonl.bz2"),
    ],
    ids=range(15),
)
def test_rows_and_archives_that_are_none_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(read_documents(tmp_path / name))


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_hidden_files_in_an_archive_are_counted(tmp_path, caplog, name):
    files = {
        "./a.txt": b"text",
        "__init__.py": b"a = 1",
        "__MACOSX/._a.txt": b"\0",
        "b/.git/c.txt": b"c",
        ".d.txt": b"d",
    }
    (tmp_path / name).write_bytes(zip_of(files) if name == "a.zip" else tar_of(files, "w"))
    with caplog.at_level("INFO", "ropewalk"):
        assert texts(tmp_path / name) == texts(tmp_path) == ["text", "a = 1"]
    assert caplog.text.count("2 files read, 3 left out (3 hidden)") == 2


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.xz"])
def test_compressed_files_in_an_archive_are_read(tmp_path, recwarn, name):
    files = {
        "00.jsonl.gz": gzip.compress(LINES, mtime=0),
        "01.jsonl": LINES,
        "02.jsonl.xz": lzma.compress(LINES),
        "03.JSONL.BZ2": bz2.compress(LINES),
        "b/04.txt.zst": zstandard.compress(b"text"),
        "b/05.parquet.gz": gzip.compress(PARQUET, mtime=0),
    }
    (tmp_path / name).write_bytes(zip_of(files) if name == "a.zip" else tar_of(files, f"w:{name[6:]}"))
    rows = [row["text"] for row in ROWS]
    assert texts(tmp_path / name) == texts(tmp_path) == [*rows * 4, "text", *rows]
    assert not recwarn


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
@pytest.mark.parametrize(
    ("packed", "said"),
    [
        (gzip.compress(LINES, mtime=0)[:-9], ":b.jsonl.gz cannot be decompressed .* fetch it again"),
        (gzip.compress(b" " * (1 << 27)), ":b.jsonl.gz decompresses to more than 67108864 bytes from 1304"),
        (b"none", ":b.jsonl.gz cannot be decompressed"),
    ],
)
def test_a_damaged_compressed_file_in_an_archive_is_named(tmp_path, name, packed, said):
    files = {"a.jsonl": LINES, "b.jsonl.gz": packed}
    (tmp_path / name).write_bytes(zip_of(files) if name == "a.zip" else tar_of(files, "w"))
    with pytest.raises(UserError, match=said):
        texts(tmp_path / name)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, zstandard.compress])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_archive_is_named(tmp_path, pack, damage):
    suffix = {gzip.compress: "gz", lzma.compress: "xz"}.get(pack, "zst")
    packed = bytearray(pack(LINES * 200))
    if damage == "cut":
        packed = packed[: len(packed) // 2]
    else:
        packed[2] ^= 0xFF
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(packed)
    with pytest.raises(UserError, match="a.jsonl"):
        list(read_documents(path))
