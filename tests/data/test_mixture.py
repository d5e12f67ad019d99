"""Mixtures: shares, lengths, best-fit packing; what a run reads is a pure function of the place."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk.data.best_fit import FittedBlocks, best_fit
from ropewalk.data.chat_tokens import MAY_CUT, SCORED
from ropewalk.data.mixture import Mixture, Part, taken
from ropewalk.data.packing import IGNORED, PackedBlocks
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.errors import UserError
from ropewalk.settings.mixture import groups_of


def corpus(*lengths, first=0, marks=None):
    """Documents of the lengths given; ids count up, so that a token tells where it came from."""
    starts = np.cumsum([0, *lengths])
    ids = np.arange(first, first + starts[-1], dtype=np.uint32)
    return TokenCorpus(ids, starts, [f"d{i}" for i in range(len(lengths))], f"x{first}", marks=marks)


def mixture(*shares, window=8, **lengths):
    parts = []
    for number, share in enumerate(shares):
        tokens = corpus(30 + 17 * number, first=1000 * number)
        rows = PackedBlocks(tokens, window, length=lengths.get(f"l{number}"))
        parts.append(Part(f"s{number}", rows, share, rows.length, tokens))
    return Mixture(parts)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=6), st.integers(1, 400))
def test_every_source_has_its_share_after_any_number_of_windows(weights, count):
    shares = tuple(weight / sum(weights) for weight in weights)
    sources, ordinals = taken(shares, count)
    for number, share in enumerate(shares):
        read = np.cumsum(sources[:count] == number)
        # Each of the others may be due half a window before or after this one.
        assert np.abs(read - share * np.arange(1, count + 1)).max() <= max(1, len(shares) / 2)
        assert ordinals[:count][sources[:count] == number].tolist() == list(range(read[-1]))
    longer, _ = taken(shares, 3 * count)
    assert longer[:count].tolist() == sources[:count].tolist()


def test_what_stands_at_a_place_does_not_depend_on_what_else_is_asked():
    mixed = mixture(0.5, 0.3, 0.2)
    whole = np.asarray(mixed.order(3, np.arange(60)))
    for places in (np.arange(20, 24), np.array([59, 3]), np.arange(1, 60, 2)):
        assert np.asarray(mixed.order(3, places)).tolist() == whole[places].tolist()
    assert np.asarray(mixed.order(4, np.arange(60))).tolist() != whole.tolist()
    # The first source has 3 windows: the first three of it are each of them, and so on.
    first = [block for block in whole if block < 3]
    assert [sorted(first[n : n + 3]) for n in range(0, len(first) - 2, 3)] == [[0, 1, 2]] * (len(first) // 3)


def test_a_length_restarts_positions_and_loses_no_label():
    mixed = mixture(0.5, 0.5, l1=3)
    rows = mixed.rows(range(len(mixed)))
    long, short = rows["position_ids"][0], rows["position_ids"][-1]
    assert long.tolist() == [0, 1, 2, 3, 4, 5, 6, 7] and short.tolist() == [0, 1, 2, 0, 1, 2, 0, 1]
    assert (rows["labels"] == rows["input_ids"] + 1).all() and mixed.restarts
    assert mixed.counted(range(len(mixed))) == rows["labels"].size
    assert mixed.names(0) == ["d0"] and rows["input_ids"][-1, 0] == 1000 + 8 * (len(mixed) - 3 - 1)


def test_a_mixture_is_known_by_data_weights_and_lengths():
    digests = {
        mixture(*shares, **lengths).digest
        for shares, lengths in [((0.5, 0.5), {}), ((0.4, 0.6), {}), ((0.5, 0.5), {"l1": 4})]
    }
    assert len(digests) == 3 and mixture(0.5, 0.5).digest in digests


@given(st.lists(st.integers(1, 20), min_size=1, max_size=60))
def test_best_fit_is_the_textbooks(sizes):
    """Against the quadratic definition: longest first, into the bin with the least room that suffices."""
    room = []
    for size in sorted(sizes, reverse=True):
        fitting = [n for n, left in enumerate(room) if left >= size]
        if fitting:
            room[min(fitting, key=lambda n: room[n])] -= size
        else:
            room.append(20 - size)
    bins = best_fit(sizes, 20)
    assert sorted(piece for pieces in bins for piece in pieces) == list(range(len(sizes)))
    assert sorted(20 - sum(sizes[piece] for piece in pieces) for pieces in bins) == sorted(room)


@settings(max_examples=50)
@given(st.lists(st.integers(2, 30), min_size=1, max_size=12), st.integers(4, 12), st.integers(1, 3), st.booleans())
def test_best_fit_keeps_documents_whole_and_predicts_every_token_once(lengths, length, bins, masked):
    tokens = corpus(*lengths, first=1)
    packed = FittedBlocks(tokens, bins * length, length=length)
    rows = packed.rows(range(len(packed)), mask_documents=masked)
    labels, ids = rows["labels"], rows["input_ids"]
    scored = labels != IGNORED
    assert packed.counted(range(len(packed)), mask_documents=masked) == scored.sum()
    assert (labels[scored] == ids[scored] + 1).all()
    # Every token but the first of a document; of a rest of one token nothing is left to predict, nor is it read.
    first = {int(start) + 1 for start in tokens.starts[:-1]}
    assert sorted(labels[scored].tolist()) == [t for t in range(1, int(tokens.starts[-1]) + 1) if t not in first]
    for start, stop in zip(tokens.starts, tokens.starts[1:], strict=False):
        if stop - start <= length:
            (places,) = np.nonzero((ids.ravel() > start) & (ids.ravel() <= stop))
            assert len(places) == stop - start and places[-1] - places[0] == stop - start - 1
            assert places[0] // length == places[-1] // length
            if masked:
                assert rows["position_ids"].ravel()[places].tolist() == list(range(len(places)))


def marked(*turns):
    """A conversation of (tokens, whether it is an answer)."""
    each = [np.full(size, SCORED if answer else 0, dtype=np.uint8) for size, answer in turns]
    for marks, (_, answer) in zip(each, turns, strict=True):
        marks[-1] |= MAY_CUT if answer else 0
    return np.concatenate(each)


def test_conversations_are_cut_after_an_answer_and_that_is_told():
    talks = [
        marked((3, False), (4, True), (2, False)),  # whole, without the question that nobody answers
        marked((2, False), (3, True), (3, False), (6, True)),  # its second answer does not fit
        marked((9, False), (6, True)),  # nothing of it does
    ]
    tokens = corpus(*map(len, talks), first=1, marks=np.concatenate(talks))
    packed = FittedBlocks(tokens, 12, length=10)
    omitted = packed.omitted
    # Of the second its last question and answer, of the third everything.
    assert (omitted.conversations, omitted.tokens, omitted.whole, omitted.left_out) == (3, 38, 1, 9 + 15)
    assert [(omitted.at(length).whole, omitted.at(length).left_out) for length in (13, 14, 15)] == [
        (1, 24),
        (1, 15),
        (0, 0),
    ]
    # Half of the 24 is reached at 15 tokens, the first multiple of 5 from there on.
    assert omitted.enough(5, 60) == 15 and omitted.enough(5, 14) is None
    # Up to 14 tokens the second conversation fits, which takes 14; at 12 nothing more than now is read.
    assert omitted.best(5, 60) == 15 and omitted.best(5, 14) == 14 and omitted.best(5, 12) <= 10
    rows = packed.rows(range(len(packed)))
    assert sorted(rows["labels"][rows["labels"] != IGNORED]) == [4, 5, 6, 7, 12, 13, 14]
    assert packed.counted(range(len(packed))) == 7 and packed.restarts
    with pytest.raises(UserError, match="answers that fit a window of 4 tokens.* ends after 5 tokens"):
        FittedBlocks(tokens, 4)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("a", [(["a"], None, None, False)]),
        (["a", "b"], [(["a", "b"], None, None, False)]),
        (["0.5"], [(["0.5"], None, None, False)]),
        (["a", "b", "0.6", "o/n:c:s", "3@8k"], [(["a", "b"], 0.6, None, False), (["o/n:c:s"], 3, 8192, False)]),
        (["a", "b", "@8_192"], [(["a", "b"], None, 8192, False)]),
        (["a", "0.6", "b", "0.4@256:short"], [(["a"], 0.6, None, False), (["b"], 0.4, 256, True)]),
        (["a", ":short", "b"], [(["a"], None, None, True), (["b"], None, None, False)]),
        ([SimpleNamespace(name="d", text="t")], None),
    ],
)
def test_the_words_after_data(words, found):
    groups = groups_of(words)
    assert found is None or [(g.sources, g.weight, g.length, g.allow_short) for g in groups] == found


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a", "0.5", "b"], "either every source .* b has none"),
        (["a", "0"], "above 0, got 0"),
        (["a", "1@0"], "above 0"),
        (["a", "0.7", "b", "-0.3"], "the weight of a source is a number above 0 written like 0.3, got -0.3"),
        (["a", "30%"], "got 30%"),
        (["a", "NaN"], "got NaN"),
        (["a", "inf@8k"], "got inf@8k"),
        (["a", "0,3"], "got 0,3"),
        (["a", "1e-1@8k"], "got 1e-1@8k"),
        (["a", "0.25"], "a file of that name is here too; write ./0.25"),
        (["0.25@8k"], "a word of their own after their source, got 0.25@8k; write 0.25 1@8k$"),
        (["a b:short", "0.3"], "got a b:short; write 'a b' 1:short$"),
    ],
)
def test_words_that_are_no_mixture(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("0.25", "a b"):
        (tmp_path / name).write_text("text")
    with pytest.raises(UserError, match=said):
        groups_of(words)
