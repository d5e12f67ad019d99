"""Rows of preferences: refused, and by jq made into what is read."""

import json
import re
import shutil
import subprocess

import pyarrow
import pyarrow.parquet
import pytest

from chat_tokenizer import ASKED, SAID, TALK
from ropewalk.data.documents import read_texts
from ropewalk.data.reading import Reading
from ropewalk.errors import UserError


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


#: Rows of preferences as they are published, and their preferred answer as a conversation, or a text; None where a filter in jq is not tried.
PREFERENCES = [
    ({"prompt": "Why?", "chosen": "Because.", "rejected": "No."}, TALK),  # TRL, explicit prompt
    ({"prompt": [ASKED], "chosen": [SAID], "rejected": [{**SAID, "content": "No."}]}, TALK),
    ({"chosen": TALK, "rejected": [ASKED, {**SAID, "content": "No."}]}, TALK),
    ({"prompt": "Why?", "chosen": TALK, "rejected": TALK, "messages": TALK, "score_chosen": 9, "score_rejected": 1}, TALK),
    ({"score_chosen": 9, "score_rejected": 1, "question": "Why?", "chosen": "Because.", "rejected": "No."}, TALK),
    ({"prompt": "Why?", "chosen": "Yes", "rejected": "No"}, [ASKED, {**SAID, "content": "Yes"}]),
    ({"chosen": "1", "rejected": ""}, "1"),
    ({"chosen": "Human: Why?", "rejected": "Human: No."}, "Human: Why?"),  # hh-rlhf
    ({"text": "A text.", "chosen": "Because.", "rejected": "No."}, "Because."),
    ({"instruction": "Why?", "chosen_response": "Because.", "rejected_response": "No."}, TALK),
    ({"conversations": [ASKED], "chosen": {"from": "gpt", "value": "Because."}, "rejected": {"from": "gpt", "value": "No."}}, TALK),
    ({"messages": TALK, "rejected_response": "No."}, TALK),  # ms-swift
    ({"prompt": "Why?", "completion": "Because.", "label": True}, TALK),  # TRL, unpaired
    # The liked answer stands in the columns that are read without the other.
    ({"prompt": "Why?", "completion": "Because.", "rejected": "No."}, TALK),
    ({"instruction": "Why?", "input": "", "output": "Because.", "rejected_output": "No."}, TALK),
    ({"messages": TALK, "rejected": [ASKED, {**SAID, "content": "No."}]}, TALK),
    ({"text": "A text.", "dispreferred_text": "No."}, "A text."),
    ({"messages": TALK, "label": True}, TALK),
    ({"messages": TALK, "rejected": False}, TALK),
    ({"prompt": "Why?", "completion": "Because.", "label": "bad"}, None),
    # An answer alone says nothing of what was asked.
    ({"messages": [ASKED], "chosen_response": "Because.", "rejected_response": "No."}, TALK),
    ({"messages": [ASKED], "chosen": "Because.", "rejected": "No."}, TALK),
    ({"messages": TALK, "chosen": "Because.", "rejected": "No."}, TALK),
    ({"instruction": "Why", "input": "so?", "chosen": "Because.", "rejected": "No."}, [{**ASKED, "content": "Why\n\nso?"}, SAID]),
    # None of these has a column that is read otherwise.
    ({"question": "Why?", "response_j": "Because.", "response_k": "No."}, TALK),
    ({"prompt": "Why?", "accepted": "Because.", "rejected": "No."}, TALK),
    ({"prompt": "Why?", "win": "Because.", "lose": "No."}, TALK),
    ({"input": {"messages": [ASKED]}, "preferred_output": [SAID], "non_preferred_output": [{**SAID, "content": "No."}]}, TALK),
    ({"input": "Why?", "preferred_output": [SAID], "non_preferred_output": [{**SAID, "content": "No."}]}, TALK),
    ({"prompt": "Why?", "response_0": "Because.", "response_1": "No.", "better_response_id": 0}, None),
    ({"history": "Why?", "human_ref_A": "Because.", "human_ref_B": "No.", "labels": 1}, None),
    ({"prompt": "Why?", "responses": [{"text": "Because.", "score": 2}, {"text": "No.", "score": 1}]}, None),
    ({"prompt": "Why?", "responses": ["Because.", "No."], "scores": [2, 1]}, None),
]  # fmt: skip


@pytest.mark.parametrize("reading", ["never", "also", "first"])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
@pytest.mark.parametrize(("row", "liked"), PREFERENCES)
def test_preferences_are_refused_wherever_rows_are_read_and_by_jq_become_what_is_read(
    tmp_path, row, liked, kind, reading
):
    file = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps(row) + "\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    if kind == "parquet" and "responses" in row:
        pytest.skip("a column that is not read has a name alone, and without a text the row is refused anyway")
    with pytest.raises(UserError, match=rf"(line|row) 1 of .*rows.{kind} holds .* (preferred|liked)") as told:
        [*read_texts(file, Reading(conversations=reading))]
    assert "--field" not in str(told.value)
    assert ("`jq -c" in str(told.value)) == (kind == "jsonl" and liked is not None)
    if kind == "parquet" or liked is None or (jq := shutil.which("jq")) is None:
        return
    by_jq = re.search(r"`jq -c '(.*)'`", str(told.value))[1]
    made = subprocess.run([jq, "-c", by_jq, str(file)], capture_output=True, text=True, check=True).stdout
    (tmp_path / "liked.jsonl").write_text(made)
    (read,) = read_texts(tmp_path / "liked.jsonl", Reading(conversations="first"))
    assert (read.text if isinstance(liked, str) else read.messages) == liked


def test_who_names_the_column_of_an_answer_has_it_and_a_directory_is_read_without_its_preferences(tmp_path):
    row = {"chosen": TALK, "rejected": [ASKED, {**SAID, "content": "No."}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "b.txt").write_text("A text.")
    (read,) = read_texts(tmp_path / "a.jsonl", Reading("chosen", "first"))
    assert read.messages == TALK
    with pytest.warns(UserWarning, match="1 file was left out .* two answers"):
        (read,) = read_texts(tmp_path, Reading())
    assert read.text == "A text."
    (tmp_path / "c.jsonl").write_text(json.dumps({"text": "A text."}) + "\n" + json.dumps({"text": "B", **row}))
    with pytest.raises(UserError, match="line 2 of .*two answers"):
        [*read_texts(tmp_path / "c.jsonl", Reading())]


def test_an_answer_that_is_disliked_is_not_among_those_that_jq_keeps(tmp_path):
    (tmp_path / "rows.jsonl").write_text(json.dumps({"messages": TALK, "label": False}) + "\n")
    with pytest.raises(
        UserError, match=r"liked or not \(messages, label\).*`jq -c 'select\(.label\) \| del\(.label\)'`"
    ):
        [*read_texts(tmp_path / "rows.jsonl", Reading(conversations="first"))]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
@pytest.mark.parametrize(
    "beside",
    [{"rejected": False}, {"rejected": True}, {"rejected_by": "Ann"}, {"reason_rejected": "It is long."}, {"closed": "by Ann"},
     {"label": True}, {"label": "bad"}, {"label": 1}, {"score": 0.5}, {"chosen": True}, {"label": False, "answer_1": "A", "answer_2": "B"}],
)  # fmt: skip
def test_what_is_called_rejected_or_labelled_beside_a_text_is_no_preference(tmp_path, beside, kind):
    row, file = {"text": "A.", **beside}, tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        file.write_text(json.dumps(row) + "\n")
    elif kind == "csv":
        file.write_text(f"{','.join(row)}\n{','.join(map(str, row.values()))}\n")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
    for reading in ("never", "also", "first"):
        assert [document.text for document in read_texts(file, Reading(conversations=reading))] == ["A."]


@pytest.mark.parametrize(
    "beside", [{"label": 3}, {"label": "science"}, {"score": 0.9}, {"rejected": None}, {"rejected_at": "May"}, {"rejected": []}]
)  # fmt: skip
def test_what_else_stands_beside_a_conversation_is_no_preference(tmp_path, beside):
    for turns in ({"messages": TALK}, {"prompt": "Why?", "completion": "Because."}):
        (tmp_path / "rows.jsonl").write_text(json.dumps(turns | beside) + "\n")
        (read,) = read_texts(tmp_path / "rows.jsonl", Reading(conversations="first"))
        assert read.messages == TALK
