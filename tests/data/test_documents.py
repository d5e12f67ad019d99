"""Documents from JSON lines, Parquet, text and data sets, and a sentence for each source that cannot be read."""

import gzip
import io
import json
import lzma
import zipfile
from pathlib import Path

import pyarrow
import pyarrow.feather
import pyarrow.parquet
import pytest
import zstandard

from packed_rows import LINES, ROWS, texts
from ropewalk import testing
from ropewalk.data import jsonlines
from ropewalk.data.documents import Document, read_documents
from ropewalk.data.encode import encode_all
from ropewalk.data.reading import Reading
from ropewalk.errors import UserError

SHARED = Path(__file__).resolve().parents[3] / "shared"


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


def test_a_byte_order_mark_null_and_half_a_character_do_not_stop_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + LINES + b'{"text": null}\n{"text": "half \\ud83d, whole \\ud83d\\ude00"}\n')
    with pytest.warns(UserWarning) as told:
        found = texts(path)
    assert found == [*(row["text"] for row in ROWS), "half \ufffd, whole \U0001f600"]
    assert all(str(warning.message).endswith("(rows: 1)") for warning in told)
    assert [len(ids) for ids in encode_all(testing.byte_tokenizer(64), found)]


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


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared beside the checkout")
def test_real_sets_are_read_to_the_end():
    found = list(read_documents(SHARED / "data/books/validation.jsonl.xz"))
    assert len(found) == 30  # its README
    assert isinstance(found[0], Document) and len(found[0].text) > 100_000
