"""Documents from every kind of source, and a sentence for each that cannot be read."""

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from ropewalk import testing
from ropewalk.data import jsonlines
from ropewalk.data.documents import Document, files_of, read_documents
from ropewalk.data.encode import bos_id, encode, encode_all
from ropewalk.data.reading import Reading
from ropewalk.errors import UserError

ROWS = [{"id": "moby", "text": "Call me Ishmael."}, {"id": "emma", "text": "Emma Woodhouse, handsome."}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
SHARED = Path(__file__).resolve().parents[3] / "shared"


def texts(source, **options):
    return [document.text for document in read_documents(source, **options)]


@pytest.mark.parametrize(
    ("name", "packed"),
    [
        ("a.jsonl", LINES),
        ("a.jsonl.gz", gzip.compress(LINES, mtime=0)),
        ("a.jsonl.xz", lzma.compress(LINES)),
        ("a.jsonl.zst", zstandard.compress(LINES)),
        # Two frames one after the other are one legal file (RFC 8878, section 3); zstd's --rsyncable and cat make such.
        ("two.jsonl.zst", zstandard.compress(LINES[:30]) + zstandard.compress(LINES[30:])),
    ],
)
def test_json_lines_are_read_packed_or_not(tmp_path, name, packed):
    (tmp_path / name).write_bytes(packed)
    found = list(read_documents(tmp_path / name))
    assert [document.text for document in found] == [row["text"] for row in ROWS]
    assert found[0].name.endswith(":moby")


def test_parquet_is_read(tmp_path):
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == [row["text"] for row in ROWS]


def test_a_directory_is_read_in_the_order_of_its_paths(tmp_path):
    for name in ("b/two.md", "a.txt", "b/one.py", "picture.png", ".hidden.txt", "c.tex.gz"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(name.encode(), mtime=0) if name.endswith("gz") else name.encode())
    assert texts(tmp_path) == ["a.txt", "b/one.py", "b/two.md", "c.tex.gz"]
    assert len(files_of(tmp_path)) == 4


def test_sources_keep_the_order_given(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.txt").write_text(name)
    assert texts([tmp_path / "b.txt", tmp_path / "a.txt"]) == ["b", "a"]


def test_a_data_set_is_streamed(tmp_path):
    # `datasets` takes a directory of Parquet for a data set of that name, which is how to have one without a network.
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "train.parquet")
    from ropewalk.data.documents import _from_hub

    assert [document.text for document in _from_hub(str(tmp_path), Reading(), None)] == [row["text"] for row in ROWS]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"text\0more", "is binary (it has a zero byte at 4)"),
        ("naïve".encode("latin-1"), "is not UTF-8 (byte 2 is 0xef)"),
    ],
)
def test_a_named_file_that_is_no_text_is_refused(tmp_path, content, said):
    path = tmp_path / "a.txt"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        list(read_documents(path))
    assert said in str(error.value) and str(path) in str(error.value)


def _zipped(*names):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in names:
            archive.writestr(name, "application/vnd.oasis.opendocument.text" if name == "mimetype" else "<a/>")
    return packed.getvalue()


@pytest.mark.parametrize("name", ["a.txt", "a.7z", "a.docx", "a.jsonl", "a.json"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (bytes.fromhex("377abcaf271c0004"), "is a 7z archive, which is not read as text (unpack it, or pack it as .zip"),
        (b"Rar!\x1a\x07\x01\x00\xff", "is a rar archive, which is not read as text (unpack it"),
        (_zipped("[Content_Types].xml", "word/document.xml"), "is a Word document, which is not read as text (save it as text)"),
        (_zipped("mimetype", "content.xml"), "is an OpenDocument file, which is not read as text (save it as text)"),
        (_zipped("a.txt"), "is a zip archive, which is not read as text (call it .zip)"),
        (gzip.compress(b"A text.", mtime=0), "is compressed with gzip, which is not read as text (call it .gz)"),
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "is a PDF document, which is not read as text (save it as text)"),
    ],
)  # fmt: skip
def test_a_file_of_another_program_is_refused_as_what_it_is(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_bytes(content + b"\xff")
    if name.endswith("jsonl") and content.startswith((b"PK", b"%PDF")):
        pytest.skip("its first line is UTF-8 that is no JSON, and is said to be")
    with pytest.raises(UserError) as error:
        list(read_documents(path))
    assert said in str(error.value) and str(path) in str(error.value) and "not UTF-8" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (json.dumps([{"text": "a"}, {"text": "b"}], indent=2), "is one JSON array"),
        (json.dumps([{"text": "a"}]), "is one JSON array"),
        (
            3 * '[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]\n',
            r"has a JSON array on each line, .* jq -c '{messages: \.}'",
        ),
        ('[\n{"text": "a"},\n[1]\n]', "is one JSON array"),
        (json.dumps({"text": "a"}, indent=2), "has objects that go over several lines"),
    ],
)
def test_json_that_is_not_an_object_a_line_is_one_mistake_and_not_one_a_line(tmp_path, text, said):
    path = tmp_path / "chats.jsonl"
    path.write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        list(read_documents(path))
    assert "rows cannot be read" not in str(refused.value)
    with pytest.raises(UserError, match=said):
        list(jsonlines.read(path, {"text": jsonlines.text}))


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


def _csv(delimiter):
    table = io.StringIO()
    writer = csv.DictWriter(table, ["id", "text"], delimiter=delimiter)
    writer.writeheader()
    writer.writerows(ROWS)
    return table.getvalue().encode()


def _feather(rows):
    sink = io.BytesIO()
    pyarrow.feather.write_feather(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def _zip(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


def _tar(files, mode):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


def test_the_delimiter_is_read_off_the_first_line_whatever_ends_it(tmp_path):
    (tmp_path / "macintosh.csv").write_bytes(b'id,text\r1,"a; b; c; d"\r2,e\r')
    assert texts(tmp_path / "macintosh.csv") == ["a; b; c; d", "e"]


PARQUET = io.BytesIO()
pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), PARQUET)
IN_ARCHIVE = {
    "./a/one.jsonl": LINES,
    "__MACOSX/._one.jsonl": b"\0",
    "a/.hidden.txt": b"no",
    "a/two.parquet": PARQUET.getvalue(),
}


@pytest.mark.parametrize(
    ("name", "content", "times"),
    [
        ("rows.json", json.dumps(ROWS).encode(), 1),
        ("wrapped.json", json.dumps({"data": ROWS}).encode(), 1),
        ("lines.json", LINES, 1),
        ("rows.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0), 1),
        ("rows.csv", _csv(","), 1),
        ("european.csv", b"\xef\xbb\xbf" + _csv(";"), 1),
        ("rows.tsv", _csv("\t"), 1),
        ("rows.feather", _feather(ROWS), 1),
        ("rows.parquet.gz", gzip.compress(PARQUET.getvalue(), mtime=0), 1),
        ("rows.jsonl.bz2", bz2.compress(LINES), 1),
        ("both.zip", _zip(IN_ARCHIVE), 2),
        ("both.tar", _tar(IN_ARCHIVE, "w"), 2),
        ("both.tar.gz", _tar(IN_ARCHIVE, "w:gz"), 2),
        ("both.tgz", _tar(IN_ARCHIVE, "w:gz"), 2),
        ("both.tar.zst", zstandard.compress(_tar(IN_ARCHIVE, "w")), 2),
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
        ("a.zip", _zip({"a.txt": b"abcdef" * 9})[:35] + b"\0" + _zip({"a.txt": b"abcdef" * 9})[36:], "a.zip"),
        ("a.tar.gz", gzip.compress(_tar({"a.txt": b"x" * 5000}, "w"), mtime=0)[:60], "a.tar.gz"),
        ("a.zip", _zip({"a.txt": b"x" * (1 << 27)}), "decompresses to more than"),
        ("a.jsonl.bz2", bz2.compress(LINES)[:-8], "a.jsonl.bz2"),
    ],
    ids=range(15),
)
def test_rows_and_archives_that_are_none_are_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        list(read_documents(tmp_path / name))


def test_a_data_set_that_datasets_saved_is_read_its_training_split_alone(tmp_path, caplog):
    import datasets

    made = {split: datasets.Dataset.from_list([{**row, "other": split} for row in ROWS]) for split in ("train", "test")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved/train/cache-1.arrow").write_bytes(b"of a map")
    with caplog.at_level("INFO", "ropewalk"):
        assert texts(tmp_path / "saved") == texts(tmp_path / "saved/test") == [row["text"] for row in ROWS]
    assert caplog.text.count("train is read, and test left out") == 1
    # dataset_info.json, state.json and the cache beside the data of the split, dataset_dict.json; the three files of the other split.
    assert "1 file read, 7 left out (4 about a data set, 3 of other splits)" in caplog.text
    assert len(files_of(tmp_path / "saved")) == 1


def test_of_splits_without_train_one_is_to_be_named(tmp_path):
    import datasets

    made = {split: datasets.Dataset.from_list([{"text": f"the text of {split}"}]) for split in ("a", "b")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "data/two")
    datasets.DatasetDict(only=made["a"]).save_to_disk(tmp_path / "one")
    for place in (tmp_path / "data/two", tmp_path / "data"):
        with pytest.raises(UserError, match=f"two has a, b; name one, as in {tmp_path}/data/two/a"):
            texts(place)
        with pytest.raises(UserError, match="a, b"):
            files_of(place)
    assert texts(tmp_path / "data/two/b") == ["the text of b"]
    assert texts(tmp_path / "one") == ["the text of a"]


def test_who_stops_early_has_been_told_which_split_is_read(tmp_path, caplog):
    import datasets

    made = {split: datasets.Dataset.from_list(ROWS) for split in ("train", "test", "validation")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    with caplog.at_level("INFO", "ropewalk"):
        next(read_documents(tmp_path / "saved"))
    assert "train is read, and test and validation left out" in caplog.text


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


@pytest.mark.parametrize("name", ["a.zip", "a.tar"])
def test_hidden_files_in_an_archive_are_counted(tmp_path, caplog, name):
    files = {
        "./a.txt": b"text",
        "__init__.py": b"a = 1",
        "__MACOSX/._a.txt": b"\0",
        "b/.git/c.txt": b"c",
        ".d.txt": b"d",
    }
    (tmp_path / name).write_bytes(_zip(files) if name == "a.zip" else _tar(files, "w"))
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
        "b/05.parquet.gz": gzip.compress(PARQUET.getvalue(), mtime=0),
    }
    (tmp_path / name).write_bytes(_zip(files) if name == "a.zip" else _tar(files, f"w:{name[6:]}"))
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
    (tmp_path / name).write_bytes(_zip(files) if name == "a.zip" else _tar(files, "w"))
    with pytest.raises(UserError, match=said):
        texts(tmp_path / name)


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


def test_a_byte_order_mark_null_and_half_a_character_do_not_stop_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES + b'{"text": null}\n{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n')
    with pytest.warns(UserWarning) as told:
        found = texts(path)
    assert found == [*(row["text"] for row in ROWS), "half \ufffd, whole \U0001f600"]
    assert all(str(warning.message).endswith("(rows: 1)") for warning in told)
    assert [len(ids) for ids in encode_all(testing.byte_tokenizer(64), found)]


def test_a_directory_without_documents_is_refused(tmp_path):
    (tmp_path / "picture.png").write_bytes(b"png")
    with pytest.raises(UserError, match="holds no text"):
        list(read_documents(tmp_path))


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


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"label": "0", "summary": "a"}', 'label is one of the numbers 0, 1, got the text "0";'),
        ('{"label": 2, "summary": "a"}', "label is one of the numbers 0, 1, got the number 2;"),
        ('{"label": true, "summary": "a"}', "label is one of the numbers 0, 1, got true;"),
        ('{"label": 0, "summary": null}', "summary is a text that is not empty, got null;"),
        ('{"label": 0, "summary": "None", "answer": 1}', 'answer is one of the texts "1", "2", got the number 1;'),
        ("3", r"\(it is a number\); mend"),
    ],
)
def test_a_value_of_an_item_is_told_as_the_file_has_it(tmp_path, line, said):
    (tmp_path / "a.jsonl").write_text(line)
    fields = {"label": jsonlines.one_of(0, 1), "summary": jsonlines.text}
    fields |= {"answer": jsonlines.one_of("1", "2")} if "answer" in line else {}
    with pytest.raises(UserError, match=said):
        list(jsonlines.read(tmp_path / "a.jsonl", fields))


def test_broken_rows_are_named(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n{"text": \n')
    with pytest.raises(UserError, match="line 2 of .* ends in the middle"):
        list(read_documents(path))
    for cut in ('{"text": "two', '{"text": ', '{"text"', '{"text": "two"'):
        path.write_text(f'{{"text": "one"}}\n{cut}\n')
        with pytest.raises(
            UserError, match=rf"line 2 of \S+ ends in the middle of a value \(column {len(cut.rstrip())}\); "
        ):
            list(read_documents(path))
    path.write_text('{"text": "one"}\n{"text": two}\n')
    with pytest.raises(UserError, match=r"line 2 of \S+ is not JSON \(Expecting value, column 10\); "):
        list(read_documents(path))
    path.write_text('{"words": "one", "n": 1}\n')
    with pytest.raises(UserError, match="it has words, n: call the one with the text"):
        list(read_documents(path))
    assert texts(path, field="words") == ["one"]
    with pytest.raises(UserError, match="is a number, not a text"):
        list(read_documents(path, field="n"))
    path.write_text("1\n")
    with pytest.raises(UserError, match="line 1 .* is a number"):
        list(read_documents(path))


def test_a_parquet_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(UserError, match="cannot be read as Parquet"):
        list(read_documents(tmp_path / "a.parquet"))


def test_a_missing_path_is_refused_before_the_network_is_asked():
    for name in ("/nowhere/at/all", "./books.txt", "books", "data/books.jsonl.xz"):
        with pytest.raises(UserError, match="does not exist"):
            list(read_documents(name))
    with pytest.raises(UserError, match="none was named"):
        list(read_documents([]))


def test_a_text_decodes_to_itself_and_bos_is_stated():
    tokenizer = testing.byte_tokenizer()
    ids = encode(tokenizer, "naïve ropes", eos=True)
    assert ids.dtype == np.int64
    assert (ids[0], ids[-1]) == (256, 257)
    assert tokenizer.decode(ids[1:-1]) == "naïve ropes"
    assert encode(tokenizer, "naïve ropes", bos=False).tolist() == ids[1:-1].tolist()


def test_no_bos_where_the_tokenizer_puts_none():
    tokenizer = testing.byte_tokenizer()
    tokenizer.backend_tokenizer.post_processor = None  # as Qwen's or GPT-NeoX's
    assert bos_id(tokenizer) is None
    assert encode(tokenizer, "a").tolist() == encode(tokenizer, "a", bos=False).tolist()


def test_many_texts_encode_as_one_by_one():
    tokenizer = testing.byte_tokenizer()
    several = [testing.prose(30, seed) for seed in range(4)]
    for together, alone in zip(encode_all(tokenizer, several, eos=True), several, strict=True):
        assert together.tolist() == encode(tokenizer, alone, eos=True).tolist()


def test_a_document_longer_than_the_tokenizers_window_is_neither_cut_nor_warned_about(recwarn, caplog):
    tokenizer = testing.byte_tokenizer(window=16)
    assert len(encode(tokenizer, "x" * 1000)) == 1001
    assert not recwarn.list and not caplog.records


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
def test_real_sets_are_read_to_the_end():
    found = list(read_documents(SHARED / "data/books/validation.jsonl.xz"))
    assert len(found) == 30  # its README
    assert isinstance(found[0], Document) and len(found[0].text) > 100_000
