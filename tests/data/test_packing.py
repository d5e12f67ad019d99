"""Tokenised once, cut into blocks, read in an order known in advance."""

import json
import os

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from ropewalk import testing
from ropewalk.checkpoint import digests
from ropewalk.data.documents import Document, digest_of_all
from ropewalk.data.packing import IGNORED, PackedBlocks, _permutation, order
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError

TOKENIZER = testing.byte_tokenizer()


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def corpus(*lengths):
    """Documents of the lengths given; ids count up, so that a token tells where it came from."""
    starts = np.cumsum([0, *lengths])
    return TokenCorpus(np.arange(starts[-1], dtype=np.uint16), starts, [f"d{i}" for i in range(len(lengths))], "x")


def test_the_worked_example_of_the_docstring_holds():
    tokens = tokenise([Document("1", "abc"), Document("2", "defgh"), Document("3", "ij")], TOKENIZER)
    windows = PackedBlocks(tokens, 4)
    letters = {TOKENIZER.convert_tokens_to_ids(letter): letter for letter in "abcdefghij"} | {256: "<", 257: ">"}
    rows = windows.rows(range(len(windows)))

    def say(row):
        return "".join(letters[int(token)] for token in row)

    assert [say(row) for row in rows["input_ids"]] == ["<abc", "><de", "fgh>"]
    assert [say(row) for row in rows["labels"]] == ["abc>", "<def", "gh><"]
    assert windows.names(1) == ["1", "2"]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 10))
def test_every_token_but_the_first_is_predicted_once(lengths, window):
    tokens = corpus(*lengths)
    if len(tokens.ids) <= window:
        return
    windows = PackedBlocks(tokens, window)
    labels = windows.rows(range(len(windows)))["labels"].ravel()
    assert labels.tolist() == list(range(1, len(windows) * window + 1))
    assert len(tokens.ids) - 1 - len(labels) < window  # what is left unread is less than a block


@given(st.lists(st.integers(1, 12), min_size=1, max_size=8), st.integers(1, 10))
def test_a_document_mask_restarts_positions_and_scores_nothing_across_a_border(lengths, window):
    tokens = corpus(*lengths)
    if len(tokens.ids) <= window:
        return
    windows = PackedBlocks(tokens, window)
    rows = windows.rows(range(len(windows)), mask_documents=True)
    scored = int((rows["labels"] != IGNORED).sum())
    assert windows.counted(range(len(windows)), mask_documents=True) == scored
    document_of = np.repeat(np.arange(len(lengths)), lengths)
    for ids, labels, positions in zip(*rows.values(), strict=True):
        for j in range(window):
            begins = j == 0 or document_of[ids[j]] != document_of[ids[j - 1]]
            assert positions[j] == (0 if begins else positions[j - 1] + 1)
            crosses = document_of[ids[j] + 1] != document_of[ids[j]]
            assert labels[j] == (IGNORED if crosses else ids[j] + 1)


def of_step(step, batch):
    return np.arange(step * batch, (step + 1) * batch)


def test_a_step_reads_the_same_blocks_whenever_it_is_asked():
    forward = [order(3, of_step(step, 4), 10).tolist() for step in range(10)]
    _permutation.cache_clear()
    assert [order(3, of_step(step, 4), 10).tolist() for step in reversed(range(10))] == forward[::-1]
    assert [order(4, of_step(step, 4), 10).tolist() for step in range(10)] != forward


@given(st.integers(1, 30), st.integers(1, 12), st.integers(0, 5))
def test_every_pass_reads_every_block_once(count, batch, seed):
    read = np.concatenate([order(seed, of_step(step, batch), count) for step in range(2 * count)])
    for number in range(2):
        assert sorted(read[number * count : (number + 1) * count]) == list(range(count))


def test_a_stream_is_read_in_its_own_order():
    assert np.concatenate([order(0, of_step(step, 3), 9, shuffled=False) for step in range(3)]).tolist() == list(
        range(9)
    )


def test_short_documents_are_packed_and_too_few_tokens_refused():
    assert len(PackedBlocks(corpus(4, 6, 5), 7)) == 2
    with pytest.raises(UserError, match="need 16 tokens, but the documents have 15"):
        PackedBlocks(corpus(15), 15)


def test_the_second_time_nothing_is_tokenised(tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text(testing.prose(50))
    first = tokenise(tmp_path / "a.txt", TOKENIZER)
    monkeypatch.setattr("ropewalk.data.corpus_encoder.encode_all", None)
    again = tokenise(tmp_path / "a.txt", TOKENIZER)
    assert np.array_equal(first.ids, again.ids) and first.digest == again.digest


def test_the_cache_goes_by_content_not_by_place_or_date(tmp_path, monkeypatch):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.txt").write_text("the same text")
    first = tokenise(tmp_path / "a/same.txt", TOKENIZER)
    (tmp_path / "a/same.txt").write_text("another text")
    assert tokenise(tmp_path / "a/same.txt", TOKENIZER).digest != first.digest
    monkeypatch.setattr("ropewalk.data.corpus_encoder.encode_all", None)
    assert np.array_equal(tokenise(tmp_path / "b/same.txt", TOKENIZER).ids, first.ids)


@pytest.mark.parametrize("file", ["ids.bin", "about.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_a_damaged_cache_is_made_again(tmp_path, own_cache, file, damage):
    (tmp_path / "a.txt").write_text(testing.prose(50))
    first = np.array(tokenise(tmp_path / "a.txt", TOKENIZER).ids)
    (found,) = own_cache.glob(f"tokens/*/{file}")
    content = bytearray(found.read_bytes())
    if damage == "cut":
        found.write_bytes(content[: len(content) // 2])
    elif damage == "flipped":
        content[len(content) // 2] ^= 4
        found.write_bytes(content)
    else:
        found.unlink()
    with pytest.warns(UserWarning, match="damaged .* made again"):
        again = tokenise(tmp_path / "a.txt", TOKENIZER)
    assert np.array_equal(again.ids, first)


def test_a_file_is_hashed_once_for_its_tokens_and_for_a_runs_header(tmp_path, monkeypatch):
    text, hashed = tmp_path / "a.txt", []
    text.write_text("words")
    os.utime(text, (1, 1))  # what was written this moment may be written again under the same date
    really = digests._hashed
    monkeypatch.setattr(digests, "_hashed", lambda file, size: hashed.append(file) or really(file, size))
    for _ in range(2):
        tokenise(text, TOKENIZER)
        digest_of_all([text])
    assert hashed == [text]


def test_another_tokenizer_is_another_corpus():
    other = testing.byte_tokenizer()
    other.backend_tokenizer.post_processor = None
    texts = [Document("a", "some text")]
    assert len(tokenise(texts, TOKENIZER).ids) == len(tokenise(texts, other).ids) + 1  # no BOS


def test_a_stream_is_read_no_further_than_the_limit(monkeypatch):
    read = []

    def stream(*_, **__):
        for number in range(1000):
            read.append(number)
            yield Document(str(number), "x" * 100)

    monkeypatch.setattr("ropewalk.data.tokenising.read_texts", stream)
    monkeypatch.setattr("ropewalk.data.token_corpus._BATCH_CHARACTERS", 1000)
    tokens = tokenise("owner/endless", TOKENIZER, limit=5000)
    assert tokens.streamed and 5000 < len(tokens.ids) <= 5000 + 10 * 102
    assert len(read) < 70


def test_a_longer_run_on_a_stream_is_the_same_data_read_further(monkeypatch):
    """--steps may change when a run is resumed, and with it how much of a stream is read."""

    def stream(name, start=0):
        return (Document(str(number), testing.prose(30, start + number)) for number in range(1000))

    monkeypatch.setattr("ropewalk.data.documents._from_hub", lambda name, field, seed: stream(name))
    monkeypatch.setattr("ropewalk.data.token_corpus._BATCH_CHARACTERS", 1000)
    short, long = (tokenise("owner/endless", TOKENIZER, limit=limit) for limit in (3000, 9000))
    assert len(short.ids) < len(long.ids) and np.array_equal(short.ids, long.ids[: len(short.ids)])
    assert short.digest == long.digest
    monkeypatch.setattr("ropewalk.data.documents._from_hub", lambda name, field, seed: stream(name, start=1))
    assert tokenise("owner/other", TOKENIZER, limit=3000).digest != short.digest


def test_what_is_named_beside_a_stream_is_read_in_turn_with_it(tmp_path, monkeypatch):
    def endless(name, field, seed):
        return (Document(f"{name} {number}", "x" * 100) for number in range(1000))

    for number in range(3):
        (tmp_path / f"{number}.txt").write_text("y" * 100)
    monkeypatch.setattr("ropewalk.data.documents._from_hub", endless)
    monkeypatch.setattr("ropewalk.data.token_corpus._BATCH_CHARACTERS", 200)
    names = tokenise(["owner/one", tmp_path, "owner/two"], TOKENIZER, limit=1500).names
    assert names[:6] == ["owner/one 0", "0.txt", "owner/two 0", "owner/one 1", "1.txt", "owner/two 1"]
    assert names[9:11] == ["owner/one 3", "owner/two 3"]


def test_the_same_text_is_the_same_data_wherever_it_lies(tmp_path, monkeypatch):
    """A run that goes on on another machine finds its data under another path, and an empty cache."""
    digests = set()
    for place in ("a", "b"):
        monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / place / "cache"))
        (tmp_path / place).mkdir()
        (tmp_path / place / f"{place}.txt").write_text("the same text")
        digests.add(tokenise(tmp_path / place / f"{place}.txt", TOKENIZER).digest)
    assert len(digests) == 1


def test_a_home_that_cannot_be_written_does_not_stop_a_run(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no directory")
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot be written"):
        assert len(tokenise([Document("a", "text")], TOKENIZER).ids) == 6


def test_ids_are_kept_small(own_cache):
    tokenise([Document("a", "text")], TOKENIZER)
    (about,) = own_cache.glob("tokens/*/about.json")
    assert json.loads(about.read_text())["dtype"] == "uint16"


def test_ids_above_65535_are_kept_where_the_vocabulary_has_gaps() -> None:
    tokenizer = testing.byte_tokenizer()
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    place = content["model"]["vocab"]["e"]
    content["model"]["vocab"]["e"] = 70000
    gaps = transformers.PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(content)), bos_token="<s>", eos_token="</s>"
    )
    found = tokenise([Document("d", "three seven")], gaps)
    assert len(gaps) <= 1 << 16 and found.ids.dtype == np.uint32
    usual = tokenise([Document("d", "three seven")], tokenizer)
    assert found.ids.tolist() == [70000 if number == place else number for number in usual.ids.tolist()]
