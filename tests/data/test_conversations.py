"""Conversations in the spellings of published sets."""

import csv
import json

import pyarrow
import pyarrow.parquet
import pytest

from chat_tokenizer import ASKED, SAID, TALK
from ropewalk.data.conversations import Conversation, conversation_of
from ropewalk.data.documents import read_documents, read_texts
from ropewalk.data.reading import Document, Reading
from ropewalk.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    "row",
    [
        {"messages": TALK},
        {"messages": json.dumps(TALK), "title": "[a]"},
        {
            "messages": [
                {**ASKED, "content": [{"type": "text", "text": "Why?"}]},
                {**SAID, "content": [{"type": "text", "text": "Because."}]},
            ],
            "prompt": "Why?",
            "prompt_id": "1",
        },
        {"id": "1", "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
        {"instruction": "Why?", "input": "", "output": "Because."},
        {"instruction": "Why?", "context": None, "response": "Because.", "category": "open"},
        {"prompt": "Why?", "completion": "Because."},
        {"prompt": [ASKED], "completion": [SAID]},
        {"question": "Why?", "answer": "Because."},
        {"data": ["Why?", "Because."]},
        {"messages": None, "conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Because."}]},
        {"system_prompt": "", "question": "Why?", "response": "Because."},
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_every_spelling_is_the_same_conversation(tmp_path, row, kind):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
    else:
        path.write_text(json.dumps([row, row]) if kind == "json" else f"{json.dumps(row)}\n{json.dumps(row)}\n")
    for talk in (found := list(read_texts(path, Reading(conversations="also")))):
        assert isinstance(talk, Conversation) and talk.messages == TALK
    assert len(found) == 2
    with pytest.raises(UserError, match="turns are read by training and by measures of a text, not here"):
        list(read_documents(path))


def test_turns_in_a_cell_are_json_of_a_list_of_turns_or_a_text(tmp_path):
    with open(tmp_path / "a.csv", "w", newline="") as file:
        csv.writer(file).writerows([("conversations",), (json.dumps(TALK),), (json.dumps(TALK, indent=1),)])
    for reading in (Reading(conversations="first"), Reading("conversations", "also")):
        assert [talk.messages for talk in read_texts(tmp_path / "a.csv", reading)] == [TALK, TALK]
    for text in ("[1] A note.", '["a", "b"]', '[{"a": 1}]', "[" * 10**5):
        (tmp_path / "b.jsonl").write_text(json.dumps({"dialogue": text, "summary": "b"}))
        (talk,) = read_texts(tmp_path / "b.jsonl", Reading(conversations="first"))
        assert text in talk.messages[0]["content"]


def test_other_roles_systems_histories_inputs_and_summaries_are_read():
    def said(row):
        return [(turn["role"], turn["content"]) for turn in conversation_of(row, "n", "row 1").messages]

    assert said(
        {
            "conversations": [
                {"from": "system", "value": "Be."},
                {"from": "human", "value": "a"},
                {"from": "gpt", "value": "b"},
            ]
        }
    )[0] == ("system", "Be.")
    assert said({"system": "Be.", "instruction": "a", "input": "b", "output": "c", "history": [["q", "r"]]}) == [
        ("system", "Be."), ("user", "q"), ("assistant", "r"), ("user", "a\n\nb"), ("assistant", "c"),
    ]  # fmt: skip
    ((_, question), (_, answer)) = said({"report": "R.", "summary": "S."})
    assert (
        question
        == "Read the following article and then summarize it.\nR.\nNow summarize the above article.\nSummary:\n"
    )
    assert answer == "S."
    call = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "f"}}]}
    (turn, _) = conversation_of({"messages": [call, {"from": "observation", "value": "1"}]}, "n", "row 1").messages
    assert turn == {"role": "assistant", "content": "", "tool_calls": call["tool_calls"]}


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": []}, "has no turns"),
        ({"messages": None}, "has no turns|is no conversation"),
        ({"messages": [ASKED]}, "nothing in it is the assistant's"),
        ({"messages": [ASKED, {**SAID, "content": None}]}, "text is null"),
        ({"messages": [ASKED, {**SAID, "content": " "}]}, "a turn is empty"),
        ({"messages": [ASKED, {"content": "Because."}]}, "a turn has no role"),
        ({"messages": [ASKED, {**SAID, "role": "narrator"}]}, "the role 'narrator'"),
        ({"messages": [{**ASKED, "content": [{"type": "image_url"}]}, SAID]}, "holds 'image_url', and text alone"),
        ({"messages": [{**ASKED, "content": 3}, SAID]}, "text is a number"),
        ({"messages": [{**ASKED, "content": True}, SAID]}, "text is true"),
        ({"messages": TALK, "tools": {"name": "f"}}, "its tools are an object, and a list is read"),
        ({"instruction": "a", "output": ["b"]}, "text is a list"),
        ({"prompt": "a", "completion": None}, "text is null"),
        ({"messages": ["a", 1]}, "a turn is a (text|number)"),
    ],
)
def test_a_row_that_is_no_conversation_is_named(row, said):
    with pytest.raises(UserError, match=f"line 7 of x is no conversation .*{said}"):
        conversation_of(row, "n", "line 7 of x")


def test_line_ends_of_a_turn_are_those_of_a_document():
    turns = [{**ASKED, "content": "Why?\rWhy?"}, {**SAID, "content": "A.\r\nB."}]
    assert [turn["content"] for turn in conversation_of({"messages": turns}, "n", "row 1").messages] == [
        "Why?\nWhy?",
        "A.\nB.",
    ]


def test_tools_are_read_as_a_list_or_as_json_and_refused_as_anything_else():
    tools = [{"type": "function", "function": {"name": "look"}}]
    for written in (tools, json.dumps(tools)):
        assert conversation_of({"messages": TALK, "tools": written}, "n", "row 1").tools == tools
    for none in (None, [], "", "[]"):
        assert conversation_of({"messages": TALK, "tools": none}, "n", "row 1").tools is None
    for wrong in ("look(place)", {"name": "look"}, '{"name": "look"}'):
        with pytest.raises(UserError, match="row 1 .*tools"):
            conversation_of({"messages": TALK, "tools": wrong}, "n", "row 1")


def test_what_turns_have_beside_their_text_is_named_once_if_nobody_reads_it(tmp_path):
    beside = {"reasoning": "two and two", "audio": {"id": "a"}, "reasoning_content": "so"}
    row = {"messages": [{**ASKED, "id": 7, "refusal": None}, {**SAID, **beside}]}
    path = tmp_path / "talks.jsonl"
    path.write_text(3 * (json.dumps(row) + "\n"))
    with pytest.warns(UserWarning, match=r"turns of .*talks.jsonl have audio, reasoning beside their text") as warned:
        talks = list(read_texts([path], Reading(conversations="first")))
    assert len(warned) == 1 and all(talk.messages[1]["reasoning_content"] == "so" for talk in talks)


def test_a_text_beside_turns_is_read_unless_a_loss_is_asked_for(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Why? Because.", "messages": TALK}))
    kinds = [next(read_texts(tmp_path / "a.jsonl", Reading(conversations=how))) for how in ("never", "also", "first")]
    assert [isinstance(found, Document) for found in kinds] == [True, True, False]
    named = next(read_texts(tmp_path / "a.jsonl", Reading("messages", "also")))
    assert isinstance(named, Conversation)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("row", "read", "left_out"),
    [
        ({"document": "D.", "summary": "S."}, "document", "summary"),
        ({"id": "1", "text": "D.", "summary": "S."}, "text", "summary"),
        ({"content": "D.", "abstract": "S."}, "content", "abstract"),
        ({"text": "D.", "messages": TALK}, "text", "messages"),
        ({"instruction": "I", "input": "", "output": "O", "text": "D."}, "text", "instruction and input and output"),
    ],
)
def test_what_stands_beside_a_text_is_named_when_it_is_not_read(tmp_path, caplog, kind, row, read, left_out):
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row, row]), path)
    else:
        path.write_text(2 * f"{json.dumps(row)}\n")
    with caplog.at_level("INFO", "ropewalk"):
        assert [item.text for item in read_texts(path, Reading(conversations="also"))] == ["D.", "D."]
    verb = "are" if " and " in left_out else "is"
    with caplog.at_level("INFO", "ropewalk"):
        next(read_texts(path, Reading(conversations="also")))  # as many as a limit asks for
    assert f"of 1 row {read} is read" in caplog.text
    assert f"a.{kind}: of 2 rows {read} is read, and {left_out} {verb} not: `train` reads " in caplog.text
    caplog.clear()
    with caplog.at_level("INFO", "ropewalk"):
        talks = list(read_texts(path, Reading(conversations="first")))
        # Who names the field knows what is beside it.
        list(read_texts(path, Reading(read, "also")))
    assert all(isinstance(talk, Conversation) for talk in talks) and len(talks) == 2
    pair = "summary" in row or "abstract" in row
    assert pair == ("D." in talks[0].text) and caplog.text.count("of 2 rows") == (not pair)
    assert pair or "read, and text is not: without --loss the text is" in caplog.text


@pytest.mark.parametrize("document", ["document", "report", "article", "text", "content", "dialogue"])
@pytest.mark.parametrize("summary", ["summary", "abstract", "highlights"])
def test_a_document_and_its_summary_are_read_as_one_where_a_loss_is_asked_for(tmp_path, document, summary):
    (tmp_path / "a.jsonl").write_text(json.dumps({document: "D.", summary: "S.", "id": 7}))
    (talk,) = read_texts(tmp_path / "a.jsonl", Reading(conversations="first"))
    assert isinstance(talk, Conversation) and [turn["role"] for turn in talk.messages] == ["user", "assistant"]
    assert "D.\n" in talk.messages[0]["content"] and talk.messages[1]["content"] == "S."
    for bad in (None, [], [5], 5, ""):
        (tmp_path / "a.jsonl").write_text(json.dumps({document: "D.", summary: bad}))
        with pytest.raises(UserError, match="line 1 .* no conversation that can be read"):
            list(read_texts(tmp_path / "a.jsonl", Reading(conversations="first")))


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_a_system_and_tools_beside_a_named_column_of_turns_are_read(tmp_path, kind):
    row = {"chat_log": TALK, "system": "Be.", "tools": json.dumps([{"type": "function"}])}
    path = tmp_path / f"a.{kind}"
    if kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), path)
    else:
        path.write_text(json.dumps(row))
    (talk,) = read_texts(path, Reading("chat_log", "also"))
    assert [turn["content"] for turn in talk.messages] == ["Be.", "Why?", "Because."] and talk.tools


@pytest.mark.parametrize("row", [{"text": "A text."}, {"words": "A text."}])
def test_rows_of_another_kind_among_conversations_are_named(tmp_path, row):
    rows = [{"messages": TALK}, {"instruction": "Why?", "output": "Because."}, row]
    path = tmp_path / "mixed.jsonl"
    path.write_text("\n".join(map(json.dumps, [*rows, {"messages": TALK}])))
    what = "is a text" if "text" in row else "has none of their columns, but words"
    with pytest.raises(
        UserError, match=f"^line 3 of .* {what}, and the rows of this file are conversations, as its fi"
    ):
        list(read_texts(path, Reading(conversations="first")))
    path.write_text("\n".join(map(json.dumps, [*rows, row])))
    with pytest.raises(UserError, match=rf"^2 rows .* line 3 of .* {what}, .* of their own \(likewise line 4\)"):
        list(read_texts(path, Reading(conversations="also")))
