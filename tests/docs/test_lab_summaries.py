"""The lab's scripts that make conversations and score summaries, and what the page says of these."""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace

import conversations
import pytest
import results
import rows
import summaries

from ropewalk.data.chat_tokens import encode_conversations
from ropewalk.data.conversations import Conversation
from ropewalk.errors import UserError
from ropewalk.model.load import load_tokenizer
from ropewalk.records import Recorder, Summary


def test_conversations_of_three_lengths_have_the_same_turns_and_fill_their_length(tmp_path, monkeypatch):
    """Every turn but its document is whole, and a conversation is as long as its file says, a twentieth at most apart."""
    pair = {"document": " ".join(f"item {n} is {n * n};" for n in range(400)), "summary": "Squares. They grow."}
    lines = [pair | {"document": f"list {n}: {pair['document']}"} for n in range(17)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = ["hemp", str(tmp_path / "pairs.jsonl"), "--window", "1024", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["conversations.py", *arguments])
    conversations.main()
    turns, tokenizer = [], load_tokenizer("hemp")
    for length in (512, 1024, 2048):
        rows = [json.loads(line) for line in (tmp_path / f"out/hemp-{length}.jsonl").read_text().splitlines()]
        turns.append([message for row in rows for message in row["messages"]])
        for row in rows:
            ((ids, _),) = encode_conversations(tokenizer, [Conversation("", row["messages"])])
            assert 0.95 * length <= len(ids) <= length
    assert turns[0] == turns[1] == turns[2] and len(turns[0]) == 2 * 16
    assert {message["content"] for message in turns[0][1::2]} == {"Squares. They grow."}


@pytest.mark.parametrize(
    ("parameters", "tokens", "lengths", "counted"),
    [(135, 15000, [9000, 20000, 8192], 2), (134, 15000, [9000, 20000, 8192], 0), (135, 196, [9000, 20000, 8192], 0), (135, 15000, [], 1)],
)  # fmt: skip
def test_documents_are_counted_that_are_longer_than_the_old_window_of_a_model_as_large(
    parameters, tokens, lengths, counted, tmp_path, monkeypatch
):
    """Without lengths those that were cut, which are longer than what is read."""
    (tmp_path / "summaries").mkdir()
    (tmp_path / "summaries/a.jsonl").touch()
    model = SimpleNamespace(parameters=parameters, original_window=8192)
    each = [{"name": str(length), "document_tokens": length} for length in lengths] or [{"name": "a"}, {"name": "b"}]
    row = SimpleNamespace(documents=3, cut=1, document_tokens=tokens, decoding="greedy", per_document=each)
    read = SimpleNamespace(of=lambda kind: [SimpleNamespace(run=SimpleNamespace(model=model), row=row)])
    monkeypatch.setattr(summaries, "whole_records", lambda path: read)
    assert summaries.most_documents(tmp_path, 135) == counted
    row.decoding = "first 250 words"
    assert summaries.most_documents(tmp_path, 135) == 0


def test_the_page_says_how_long_the_documents_are_and_how_the_model_was_made(tmp_path):
    """13 documents, of which 2 of 11,166 and 24,294 tokens are longer than SmolLM2's window; by the header 20 steps, then 186 and 2 epochs."""
    (path,) = (results.RECORDS / "summaries").glob("smollm2-*.jsonl")
    said = summaries.section(results.RECORDS)
    assert "2 of them are longer than the old window of 8192 tokens and read beyond it (11166 to 24294), the others 2707 to 6644: " in said  # fmt: skip
    assert "smollm2-135m, extended by YaRN × 2 to 16384 tokens in 20 steps, fine-tuned on pairs for 2 epochs, 186 steps (the paper: 10 epochs)." in said  # fmt: skip
    (tmp_path / "summaries").mkdir()
    without = re.sub(r',"document_tokens":\d+(?=,|\})(?!,"summary_tokens")', "", path.read_text(encoding="utf-8"))
    (tmp_path / "summaries/a.jsonl").write_text(without, encoding="utf-8")
    assert "How long they were is not on record, but that 1 is longer than the old window of 8192 tokens." in summaries.section(tmp_path)  # fmt: skip
    assert summaries.most_documents(tmp_path, 0) == 1


def test_the_first_words_are_scored_beside_the_summaries_of_the_same_documents(tmp_path):
    """The first three words of each document are its summary, so that all of it is found; one more word of them is a word too many."""
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "summaries/m.jsonl"
    texts = [("one two three four five", "one two three"), ("red green blue gray", "red green blue")]
    pairs.write_text("".join(json.dumps({"document": d, "summary": s}) + "\n" for d, s in texts), encoding="utf-8")
    names = [pair.name for pair in summaries.first([str(pairs)], None)]
    half = {"rouge_1": 0.5, "rouge_2": 0.5, "rouge_l": 0.5, "rouge_l_plain": 0.5}
    row = Summary(**half, intervals=dict.fromkeys(half, [0.4, 0.6]), documents=2, cut=0, unfinished=1, decoding="greedy", window=64, document_tokens=32,
                  summary_tokens=16, per_document=[{"name": name, "tokens": 3, **half} for name in names], data="pairs.jsonl")  # fmt: skip
    run_header = next(iter(rows.rows_in(results.RECORDS / "a/hemp")[0].records.runs.values()))
    out.parent.mkdir()
    Recorder(out, run_header).add(row)
    first = summaries.add_first_words(out, [str(pairs)], 3, "hemp")
    counting = [len(load_tokenizer("hemp")(document, add_special_tokens=False)["input_ids"]) for document, _ in texts]
    assert first.rouge_1 == 1.0 and [each["document_tokens"] for each in first.per_document] == counting
    found = summaries.section(tmp_path)
    assert "| greedy | 50.0 (40.0 to 60.0) |" in found and "| first 3 words | 100.0 " in found
    assert "| −50.0 (−50.0 to −50.0) | 1 of 2 |" in found
    assert "**No:** what it writes is below the first 3 words in ROUGE-1" in found
    assert summaries.add_first_words(out, [str(pairs)], 4).rouge_1 == pytest.approx(6 / 7)  # F of 3/4 and 1
    before = out.read_text(encoding="utf-8")
    assert summaries.add_first_words(out, [str(pairs)], 3).rouge_1 == 1.0
    assert out.read_text(encoding="utf-8") == before  # it is there
    found = summaries.section(tmp_path)
    assert "| ROUGE-1 above the first 3 words |" in found and found.count("| −50.0 (") == 1
    (line,) = [line for line in found.splitlines() if line.startswith("| first 4 words |")]
    assert line.endswith(" |  |  |")  # nothing is cut of it, and it is beside no other
    pairs.write_text(json.dumps({"document": "a b", "summary": "a"}) + "\n", encoding="utf-8")
    with pytest.raises(UserError, match="summaries of other documents"):
        summaries.add_first_words(out, [str(pairs)], 3)
    with pytest.raises(UserError, match="got 0; give other --words"):
        summaries.add_first_words(out, [str(pairs)], 0)
    out.write_text(before[:-9], encoding="utf-8")
    for damaged in (lambda: summaries.section(tmp_path), lambda: summaries.add_first_words(out, [str(pairs)], 3)):
        with pytest.raises(UserError, match=re.escape(str(out))):
            damaged()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (summaries, ["no.jsonl", "--data", "no.jsonl"]),
        (conversations, ["hemp", "no.jsonl", "--window", "1k", "--out", "o"]),
    ],
)
def test_a_missing_file_is_told_in_a_sentence(script, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [script.__file__, *words])
    with pytest.raises(SystemExit) as refused:
        script.main()
    assert refused.value.code == 2 and "no.jsonl" in capsys.readouterr().err
