"""Positional skip-wise training: positions stay in the window and jump once; attention is trained across the jump."""

import itertools
import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.data.packing import order
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError
from ropewalk.reports.card import card
from short_run import DOCUMENTS, WINDOW, go, steps


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 10_000), st.integers(1, 40), st.integers(1, 200))
def test_skipped_positions_rise_stay_in_the_window_and_jump_once(seed, sequence, short, long):
    from ropewalk.training.pose import positions

    drawn = positions(seed, sequence, short, max(short, long))
    assert len(drawn) == short and drawn[0] == 0 and drawn[-1] < max(short, long)
    steps = np.diff(drawn)
    assert (steps >= 1).all() and (steps > 1).sum() <= 1
    assert np.array_equal(drawn, positions(seed, sequence, short, max(short, long)))


def test_the_cut_is_in_the_first_half_as_its_authors_have_it():
    """dwzhu-pku/PoSE, src/train_pose.py: random.randint(1, (len_chunk + 1) // 2)."""
    from ropewalk.training.pose import positions

    for short in (8, 9):
        jumps = [np.flatnonzero(np.diff(positions(0, sequence, short, 99)) > 1) + 1 for sequence in range(300)]
        assert {int(jump) for each in jumps for jump in each} == set(range(1, (short + 1) // 2 + 1))


def test_skipped_positions_reach_every_distance_of_the_long_window():
    from ropewalk.training.pose import positions

    seen = np.zeros(32, dtype=bool)
    for sequence in range(2000):
        drawn = positions(0, sequence, 8, 32)
        seen[(drawn[:, None] - drawn[None, :]).clip(0).ravel()] = True
    assert seen.all()


def test_positional_skipping_trains_attention_across_the_jump(base, tmp_path):
    """transformers takes a jump in positions for a packed document's border; the loss must be the one without a border."""
    from ropewalk.training.pose import positions

    go(base, tmp_path / "out", mode="pose", steps=1, batch_size=2, save_every=0)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    model = transformers.AutoModelForCausalLM.from_pretrained(base, config=config, attn_implementation="eager")
    tokens = tokenise(DOCUMENTS, testing.byte_tokenizer())
    blocks = order(0, np.arange(2), (len(tokens.ids) - 1) // 64)
    ids = torch.tensor(np.stack([tokens.ids[b * 64 : b * 64 + 65] for b in blocks]).astype(np.int64))
    places = torch.tensor(np.stack([positions(0, sequence, 64, WINDOW) for sequence in range(2)]))
    assert (places.diff() > 1).any()
    causal = torch.full((64, 64), torch.finfo(torch.float32).min).triu(1)[None, None].expand(2, 1, 64, 64)
    logits = model(input_ids=ids[:, :-1], position_ids=places, attention_mask=causal).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    split = model(input_ids=ids[:, :-1], position_ids=places, use_cache=False).logits
    apart = torch.nn.functional.cross_entropy(split.flatten(0, 1), ids[:, 1:].flatten())
    (row,) = steps(tmp_path / "out")
    assert row.loss == pytest.approx(loss.item(), rel=1e-6)
    assert abs(apart.item() - loss.item()) > 1e-4  # the two do differ, so the line above could fail
    assert row.tokens == 2 * 64
    done = "Trained to 96 tokens (1 step) by positional-skip training, in chunks of 64 tokens placed at positions up to 96;"
    assert done in (tmp_path / "out/README.md").read_text()
    assert done in card(tmp_path / "out").read_text()  # from the run's own record


@settings(max_examples=50, deadline=None)
@given(
    st.integers(0, 1000), st.integers(0, 1000), st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 60)
)
def test_each_packed_document_jumps_once_within_the_long_window(seed, sequence, sizes, longer):
    from ropewalk.training.pose import in_documents, positions

    long = sum(sizes) + longer
    drawn = in_documents(seed, sequence, np.concatenate([np.arange(size) for size in sizes]), long)
    for document in np.split(drawn, np.cumsum(sizes)[:-1]):
        steps = np.diff(document)
        assert document[0] == 0 and document[-1] < long and (steps >= 1).all() and (steps > 1).sum() <= 1
    assert (drawn == 0).sum() == len(sizes)  # a jump is no border
    assert np.array_equal(in_documents(seed, sequence, np.arange(8), 99), positions(seed, sequence, 8, 99))


@pytest.mark.parametrize("kind", ["conversations", "masked documents"])
def test_conversations_and_masked_documents_skip_positions_each_by_itself(base, tmp_path, kind):
    """The loss of a step is that of each text alone at its skipped positions, and of answers alone where there are some."""
    from ropewalk.data.best_fit import FittedBlocks
    from ropewalk.training.pose import in_documents

    talks = [
        [{"role": "user", "content": f"Why {n}?"}, {"role": "assistant", "content": testing.prose(4 + n, n)[: 9 + n]}]
        for n in range(8)
    ]
    if kind == "conversations":
        data, options = tmp_path / "talks.jsonl", {}
        data.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    else:
        data = [Document(str(n), talk[1]["content"]) for n, talk in enumerate(talks)]
        options = dict(mask_documents=True, packing="best-fit")
    go(base, tmp_path / "out", data=data, mode="pose", steps=1, batch_size=2, allow_short=True, save_every=0, **options)
    windows = FittedBlocks(tokenise(data, testing.byte_tokenizer(), conversations=True), 64)
    rows = windows.rows(order(0, np.arange(2), len(windows)), mask_documents=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, config=transformers.AutoConfig.from_pretrained(tmp_path / "out"), attn_implementation="eager"
    )
    total, counted, jumps = 0.0, 0, 0
    for sequence in range(2):
        ids, labels, plain = (torch.tensor(rows[name][sequence]) for name in ("input_ids", "labels", "position_ids"))
        places = torch.tensor(in_documents(0, sequence, plain.numpy(), WINDOW))
        starts = [*np.flatnonzero(plain == 0).tolist(), 64]
        for start, stop in itertools.pairwise(starts):
            part = slice(start, stop)
            causal = torch.full((stop - start, stop - start), torch.finfo(torch.float32).min).triu(1)[None, None]
            logits = model(input_ids=ids[None, part], position_ids=places[None, part], attention_mask=causal).logits
            total += torch.nn.functional.cross_entropy(logits[0], labels[part], reduction="sum").item()
            counted += int((labels[part] != -100).sum())
            jumps += int((places[part].diff() > 1).sum())
    (row,) = steps(tmp_path / "out")
    assert jumps >= 4 and len(starts) > 2
    assert row.loss == pytest.approx(total / counted, rel=1e-6)


def test_scores_that_are_capped_skip_no_positions_of_conversations(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", "gemma2", window=64)
    with pytest.raises(
        UserError, match="attention of gemma2 models, which caps or drops scores.*use --mode full or lora"
    ):
        go(base, tmp_path / "out", mode="pose", mask_documents=True, steps=1, batch_size=1)
