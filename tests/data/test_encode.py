"""Text to tokens: it decodes to itself, BOS is stated, many are as one by one, none is cut."""

import numpy as np

from ropewalk import testing
from ropewalk.data.encode import bos_id, encode, encode_all


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
