"""What RULER is given: questions, documents and needles of one's own, refused or warned of before any item."""

import json

import pytest

from ropewalk.errors import UserError
from ropewalk.evals.long_context import measure
from ropewalk.evals.long_context.source import Source
from ropewalk.model.load import load_tokenizer
from ropewalk.testing import byte_tokenizer
from ruler_items import ruler


def test_what_cannot_be_made_is_named(answered, given):
    _, summary = ruler(windows=[3000], tasks=["niah_single_1", "niah_single_2", "qa_1"], items=1)
    assert set(summary.left_out) == {"niah_single_2", "qa_1"} and "--questions" in summary.left_out["qa_1"]
    with pytest.raises(UserError, match="no task can be made of what was given: qa_2: .*--questions"):
        ruler(tasks=["qa_2"])
    with pytest.raises(UserError, match=r"niah_single_1 \d+, vt \d+, and the longest of --windows is 100;"):
        ruler(windows=[100])
    assert len(answered) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [('{"question": "Who?"}', "no answer"), ('{"question": "Who?", "answer": [], "context": "x"}', "answer is a text")],
)
def test_questions_that_are_none_are_refused_by_their_line(tmp_path, line, sentence):
    (tmp_path / "q.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=f"line 1 of .*{sentence}|{sentence}.*"):
        _ = Source(byte_tokenizer(), 4096, questions=tmp_path / "q.jsonl").asked


def test_the_published_files_of_questions_are_read(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "C", "qas": [
        {"question": "Q?", "is_impossible": False, "answers": [{"text": "A"}, {"text": "B"}]},
        {"question": "N?", "is_impossible": True, "answers": []}]}]}]}  # fmt: skip
    hotpot = [{"question": "H?", "answer": "yes", "context": [["T", ["a. ", "b."]], ["U", ["c."]]]}]
    for name, whole in (("dev-v2.0.json", squad), ("hotpot.json", hotpot)):
        (tmp_path / name).write_text(json.dumps(whole))
    asked = Source(byte_tokenizer(), 4096, questions=[tmp_path / "dev-v2.0.json", tmp_path / "hotpot.json"]).asked
    assert [(each.question, each.answers, each.documents) for each in asked] == [
        ("Q?", ("A", "B"), ("C",)),
        ("H?", ("yes",), ("T\na. b.", "U\nc.")),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_another_system_are_those_of_documents(tmp_path, end):
    text, name = f"One.{end}Two.", "q.jsonl"
    (tmp_path / name).write_text(json.dumps({"question": text, "answer": text, "context": [text]}))
    (tmp_path / "n.jsonl").write_text(json.dumps({"needle": text, "question": text, "answer": [text]}))
    qas = [{"question": text, "is_impossible": False, "answers": [{"text": text}]}]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": text, "qas": qas}]}]}))
    row = {"question": text, "answer": text, "context": [["T", [f"One.{end}", "Two."]]]}
    (tmp_path / "hotpot.json").write_text(json.dumps([row]))
    files = [tmp_path / each for each in (name, "squad.json", "hotpot.json")]
    source = Source(byte_tokenizer(), 4096, questions=files, needle=tmp_path / "n.jsonl")
    unix = "One.\nTwo."
    assert [vars(asked) for asked in source.asked] == [
        {"question": unix, "answers": (unix,), "documents": (context,)} for context in (unix, unix, f"T\n{unix}")
    ]
    assert [vars(needle) for needle in source.needles] == [{"needle": unix, "question": unix, "answers": (unix,)}]


@pytest.mark.parametrize(
    ("needle", "answer", "why"),
    [
        ("The keeper of light 3 has\na lamp.", "Keeper of  light 3", "is in the documents too"),
        ("The keeper of light 3 has a lamp.", "a lamp", ""),
    ],
)
def test_a_needle_whose_answer_the_documents_have_is_warned_of(given, tmp_path, caplog, needle, answer, why):
    (tmp_path / "n.jsonl").write_text(json.dumps({"needle": needle, "question": "What?", "answer": answer}))
    source = Source(load_tokenizer("hemp"), 4096, data=given["data"], needle=tmp_path / "n.jsonl")
    assert len(source.needles) == 1
    assert [message for message in caplog.messages if "take one that is in the needle alone" in message] == [
        message for message in caplog.messages if why and why in message
    ]
    assert bool(caplog.messages) == bool(why)


def test_an_answer_that_is_not_in_its_needle_is_refused_before_any_item_unless_the_line_says_so(
    given, tmp_path, monkeypatch
):
    line = {"needle": "The key is 5.", "question": "Which key?", "answer": ["5", "odd"]}
    file = tmp_path / "n.jsonl"
    file.write_text(json.dumps(line))
    source = Source(load_tokenizer("hemp"), 4096, data=given["data"], needle=file)
    with monkeypatch.context() as patched, pytest.raises(UserError) as refused:
        patched.setattr(measure, "item", None)
        ruler(windows=[3000], tasks=["niah_single_1", "needle"], data=given["data"], needle=file)
    for part in (f"in {file} 'odd' (asked by 'Which key?') is not in 'The key is 5.'", 'add "inferred": true'):
        assert part in str(refused.value)
    file.write_text(json.dumps(line | {"inferred": True}))
    assert source.needles[0].answers == ("5", "odd")
    file.write_text(json.dumps(line | {"inferred": "yes"}))
    with pytest.raises(UserError, match="line 1 of .* inferred is one of true, false"):
        assert Source(source.tokenizer, 4096, needle=file).needles
