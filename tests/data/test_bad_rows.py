"""Rows that cannot be read: named together, with the command that drops them."""

import gzip
import json
import subprocess

import pytest

from chat_tokenizer import ASKED, TALK
from ropewalk.data.documents import read_texts
from ropewalk.data.reading import Reading
from ropewalk.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("count", [3, 12])
def test_all_bad_rows_are_named_at_once(tmp_path, count):
    """So that they are mended together and not one a try: lines that are no JSON, and turns that are none."""
    bad = ['{"messages": []}', '{"messages": [{"role": "user"}, "', json.dumps({"messages": [ASKED]})]
    good = json.dumps({"messages": TALK})
    lines = [line for at in range(count) for line in (good, bad[at % 3])]
    path = tmp_path / "chats.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError) as refused:
        list(read_texts(path, Reading(conversations="also")))
    message = str(refused.value)
    assert message.startswith(f"{count} rows cannot be read: line 2 of ") and "; mend or drop them (sed " in message
    # The three kinds take turns: the first of each is spelled out, the others are numbers behind it.
    assert [f"line {2 * at} of" in message for at in range(1, count + 1)] == [at <= 3 for at in range(1, count + 1)]
    for first in (2, 4, 6):
        alike = [str(number) for number in range(first + 6, 2 * count + 1, 6)]
        assert (f"(likewise lines {', '.join(alike)})" in message) == bool(alike)


@pytest.mark.parametrize("bad", [3, 3270])
def test_thousands_of_rows_with_one_fault_are_one_clause_and_a_count(tmp_path, bad):
    path = tmp_path / "texts.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"text": "A text."}] + bad * [{"messages": TALK}])))
    with pytest.raises(UserError) as refused:
        list(read_texts(path, Reading(conversations="also")))
    message = str(refused.value)
    numbers = ", ".join(map(str, range(3, 52)))
    lines, more = ("3, 4", "") if bad == 3 else (numbers, f" and {bad - 50} more")
    assert message.startswith(f"{bad} rows cannot be read: line 2 of ")
    assert f"(likewise lines {lines}{more}); mend or drop them" in message
    assert message.count("conversation (messages)") == 1 and message.endswith("mend or drop them") == (bad > 50)


def test_the_command_that_drops_bad_rows_drops_them_and_no_other(tmp_path):
    """Each has a fault of its own, so that no kind is named twice; the shell is the oracle."""
    path = tmp_path / "my chats.jsonl"
    good = json.dumps({"messages": TALK})
    bad = {2: '{"messages": []}', 4: "{", 5: json.dumps({"messages": [ASKED]}), 7: "[", 8: '"', 9: "]"}
    path.write_text("\n".join(bad.get(number, good) for number in range(1, 11)) + "\n")
    with pytest.raises(UserError) as refused:
        list(read_texts(path, Reading(conversations="also")))
    message = str(refused.value)
    assert message.startswith("6 rows cannot be read: line 2 of ") and "more" not in message
    assert all(f"{number}" in message for number in bad)
    command = message.split("mend or drop them (")[1].removesuffix(" drops them)")
    subprocess.run(command, shell=True, cwd=tmp_path, check=True)
    assert len(list(read_texts(tmp_path / "kept.jsonl", Reading(conversations="also")))) == 4
    archived = tmp_path / "chats.jsonl.gz"
    archived.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(UserError, match="mend or drop them$"):  # no line editor opens it
        list(read_texts(archived, Reading(conversations="also")))


@pytest.mark.parametrize(
    ("row", "what"),
    [
        ({"messages": TALK}, r"is a conversation \(messages\), .* a file of their own$"),
        (
            {"instruction": "Why?", "output": "So."},
            r"is a conversation \(instruction, output\), .* a file of their own$",
        ),
        ({"document": "A text."}, "has its text under 'document', .* a file of their own, or call it 'text'$"),
        ({"title": "A title"}, "has no 'text', but title, .* a file of their own$"),
        ({}, "has no 'text', but nothing, .* a file of their own$"),
    ],
)
def test_a_row_of_another_kind_among_texts_is_refused_as_what_it_is(tmp_path, row, what):
    """In a directory too, whose other files are left out where they hold no text at all: some of this one was read already."""
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, [{"text": "A text."}, row])))
    for source in (path, tmp_path):
        for conversations in ("never", "also", "first"):
            with pytest.raises(UserError, match="^line 2 of .* " + what) as refused:
                list(read_texts(source, Reading(conversations=conversations)))
            assert "the rows of this file are texts under 'text', as its first" in str(refused.value)
