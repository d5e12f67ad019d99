"""What a run packed by best-fit reads, from the ids of its micro batches: on one process and two, from the start and from any step on."""

import numpy as np
import pytest
import torch

from ropewalk.data.best_fit import FittedBlocks
from ropewalk.data.packing import IGNORED
from ropewalk.data.token_corpus import TokenCorpus
from ropewalk.distributed.mesh import Mesh
from ropewalk.settings.train import TrainSettings
from ropewalk.training.batch import Batches

WINDOW, ROWS, BATCH = 64, 30, 4


def documents(seed: int) -> list[np.ndarray]:
    """Documents that fill ROWS windows to the last token, in any order: how many windows the best of all packings needs is known. No id comes twice."""
    rng = np.random.default_rng(seed)
    sizes: list[int] = []
    for _ in range(ROWS):
        cuts = np.unique(rng.integers(2, WINDOW - 1, size=rng.integers(0, 5)))
        parts = np.diff([0, *cuts, WINDOW])
        sizes += parts.tolist() if min(parts) > 1 else [WINDOW]
    rng.shuffle(sizes)
    ends = np.cumsum([1, *sizes])  # id 0 is the padding's
    return [np.arange(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]


def batches(each: list[np.ndarray], *, masked: bool) -> Batches:
    starts = np.cumsum([0, *map(len, each)])
    names = [str(number) for number in range(len(each))]
    tokens = TokenCorpus(np.concatenate(each).astype(np.uint16), starts, names, "x")
    settings = TrainSettings(
        model="m",
        data="d",
        out="o",
        window=WINDOW,
        steps=99,
        batch_size=BATCH,
        mask_documents=masked,
        packing="best-fit",
    )
    return Batches(FittedBlocks(tokens, WINDOW), settings, micro=1)


def read(some: Batches, steps: range, rank: int = 0, size: int = 1) -> list[dict[str, torch.Tensor]]:
    mesh = Mesh(torch.device("cpu"))
    mesh.data_rank, mesh.data_size = rank, size
    return [micro.rows for step in steps for micro in some.micro_batches(step, mesh)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("masked", [False, True])
def test_a_pass_reads_each_document_once_and_whole(seed, masked):
    each = documents(seed)
    some = batches(each, masked=masked)
    count = len(some.windows)
    # Johnson 1974: best-fit decreasing, as first-fit decreasing, takes at most 11/9 of the fewest bins, and 6/9 of one (Dósa 2007).
    assert ROWS <= count <= 11 / 9 * ROWS + 6 / 9
    rows = read(some, range(-(-count // BATCH)))[:count]
    starts, ends = ({int(document[end]) for document in each} for end in (0, -1))
    seen: list[int] = []
    for row in rows:
        ids, labels = row["input_ids"][0].tolist(), row["labels"][0].tolist()
        for place, token in enumerate(ids):
            if not token:  # padding
                assert labels[place] == IGNORED
                continue
            seen.append(token)
            # All documents fit a window, so none begins in its middle, none ends before its end, and none predicts another.
            assert token in starts or (place and ids[place - 1] == token - 1)
            assert token in ends or ids[place + 1] == token + 1
            assert labels[place] == (IGNORED if token in ends else token + 1)
        if masked:
            expected = [row_place - last for row_place, last in enumerate(_last_starts(ids, starts))]
            read_there = [
                position for position, token in zip(row["position_ids"][0].tolist(), ids, strict=True) if token
            ]
            assert read_there == [place for place, token in zip(expected, ids, strict=True) if token]
        else:
            assert "position_ids" not in row
    assert sorted(seen) == list(range(1, ROWS * WINDOW + 1))


def _last_starts(ids: list[int], starts: set[int]) -> list[int]:
    """Of each place of a row: where the document that stands there begins."""
    begins = [place if token in starts else 0 for place, token in enumerate(ids)]
    return np.maximum.accumulate(begins).tolist()


@pytest.mark.parametrize("masked", [False, True])
def test_two_processes_and_a_resumed_run_read_what_one_does(masked):
    each = documents(7)
    whole = read(batches(each, masked=masked), range(20))
    resumed = read(batches(each, masked=masked), range(13, 20))
    halves = [read(batches(each, masked=masked), range(20), rank, 2) for rank in range(2)]
    turns = [row for pair in zip(*halves, strict=True) for row in pair]
    for rows, expected in ((resumed, whole[13 * BATCH :]), (turns, whole)):
        assert len(rows) == len(expected)
        for row, other in zip(rows, expected, strict=True):
            assert row.keys() == other.keys() and all(torch.equal(row[name], other[name]) for name in row)
