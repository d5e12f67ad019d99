"""How much text there is, before it is tokenised: against all of it, tokenised by the tokenizer itself."""

import json

import numpy as np
import pytest

from ropewalk import testing
from ropewalk.data import text_size as sizes
from ropewalk.data.conversations import Conversation
from ropewalk.data.corpus_encoder import Encoder
from ropewalk.data.reading import Document
from ropewalk.data.tokenising import Tokenising

TOKENIZER = testing.byte_tokenizer()


@pytest.fixture(autouse=True)
def everything_is_large(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(sizes, "_LITTLE", 0)
    monkeypatch.setattr(sizes, "_LONG", 0.0)


def plain_then_dense(characters):
    """The second half has three tokens a character (its bytes), the first one: a sample of the beginning would be wrong."""
    return "a" * (characters // 2) + "→" * (characters - characters // 2)


@pytest.mark.parametrize("lengths", [[2_000_000], [500] * 3000, [10, 90_000, 3, 700_000, 41] * 2])
def test_all_tokens_are_estimated_from_pieces_of_all_the_text(tmp_path, lengths, monkeypatch):
    texts = [plain_then_dense(length) for length in lengths]
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    encoded = []
    really = Encoder.encode
    monkeypatch.setattr(Encoder, "encode", lambda self, batch: encoded.extend(batch) or really(self, batch))
    size = Tokenising([tmp_path / "d.jsonl"], TOKENIZER).long_size()
    tokens = sum(len(TOKENIZER(text).input_ids) for text in texts)
    # Pieces stand at equal distances, so each border between the halves of a long text (four at most) shifts one of at least 64 pieces from
    # one side to the other, by half or by minus half of the mean at random: below 4 / 64 with room.
    assert size is not None and abs(size.tokens / tokens - 1) < 4 / 64
    assert len(encoded) < 128 and sum(len(piece.text) for piece in encoded) <= 128 * 4096
    assert size.size == (tmp_path / "d.jsonl").stat().st_size


def test_conversations_are_counted_with_what_is_written_around_them(tmp_path):
    talks = [
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": testing.prose(30 + n % 70, n)}]
        for n in range(200)
    ]
    (tmp_path / "c.jsonl").write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))
    texts = Tokenising([tmp_path / "c.jsonl"], TOKENIZER, conversations=True)
    size = texts.long_size()
    # A byte is a token, so that what varies is the share of BOS, blank lines and EOS: less than 5 in 100 characters.
    assert size is not None and abs(size.tokens / len(texts.corpus().ids) - 1) < 0.02


def test_a_sample_has_pieces_at_equal_distances_whatever_the_documents():
    texts = [Document(str(n), "x" * 3000) for n in range(1000)]
    characters, pieces = sizes._sampled(texts)
    assert characters == 3_000_000 and 64 <= len(pieces) < 128
    gaps = np.diff([int(piece.name) for piece in pieces])
    assert gaps.max() - gaps.min() <= 1
    assert sizes._sampled([]) == (0, [])
    silent = Conversation("c", [{"role": "assistant", "content": ""}])  # a call of a tool, say
    assert sizes._sampled([silent]) == (0, [])


def test_a_line_says_how_much_there_is_and_how_to_begin_sooner():
    size = sizes.TextSize(430 * 2**20, 108_000_000, 1020.0)
    sentence = size.announced(1024)
    assert sentence.startswith("430.0 MiB of files, about 108 M tokens, of which this run reads 1.02 k")
    assert (
        "about 17 min here, once, since it is kept for later runs; to begin sooner, give --data fewer files" in sentence
    )
    assert "to begin sooner" not in size.announced(50_000_000)
    assert "of which" not in size.announced(None) and "of which" not in size.announced(10**9)


def test_it_is_said_once_and_nothing_of_the_texts_is_said_twice(tmp_path, caplog, recwarn):
    caplog.set_level("INFO", logger="ropewalk")
    (tmp_path / "d.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in ("A text.", "", "Another.")))
    for _ in range(2):
        corpus = Tokenising([tmp_path / "d.jsonl"], TOKENIZER, limit=1).corpus()
        assert len(corpus.names) == 2
    assert sum("to begin sooner" in record.getMessage() for record in caplog.records) == 1
    assert len([each for each in recwarn if "is left out" in str(each.message)]) == 1
    # The second time it comes from the cache, as a remark kept beside the tokens.
    assert sum("is left out" in record.getMessage() for record in caplog.records) == 1


def test_what_is_kept_or_short_or_in_memory_is_not_estimated(tmp_path, monkeypatch):
    (tmp_path / "d.txt").write_text("A text.")
    texts = Tokenising([tmp_path / "d.txt"], TOKENIZER)
    assert texts.long_size() is not None
    texts.corpus()
    assert texts.long_size() is None
    assert Tokenising([Document("d", "A text.")], TOKENIZER).long_size() is None
    monkeypatch.setattr(sizes, "_LITTLE", 100)
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "other"))
    assert Tokenising([tmp_path / "d.txt"], TOKENIZER).long_size() is None
