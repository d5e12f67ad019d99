"""What is concluded from figures of two windows, of models for which context beyond some length gives nothing."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.records.slide import default_stride
from ropewalk.reports import render

_SHORT, _LONG = 256, 1024


def figure(window: int, stride: int, reach: int, *, convention: str = "ropewalk") -> records.Perplexity:
    """Perplexity of a model that reads `reach` tokens and no more: a token with n before it in sight costs 3 - min(n, reach) / reach nats.

    The windows are laid by hand: the first counts all its tokens, each further one its last `stride`.
    """
    documents = []
    for place, length in enumerate((2048, 2304, 2560, 2816)):
        seen = [*range(1, window)]
        for stop in range(window + stride, length + stride, stride):
            new = min(stride, length - (stop - stride))
            seen += range(window - stride, window - stride + new)
        nll = math.fsum(3 + 0.1 * place - min(before, reach) / reach for before in seen)
        documents.append({"name": f"{place}.txt", "tokens": len(seen), "nll": nll})
    tokens, nll = (sum(each[name] for each in documents) for name in ("tokens", "nll"))
    value = math.exp(nll / tokens)
    return made_up.perplexity(
        window, 0.0, stride=stride, perplexity=value, low=0.9 * value, high=1.1 * value, tokens=tokens, documents=4,
        per_document=documents, convention=convention,
    )  # fmt: skip


def verdict(place: Path, stride: int, reach: int, **how: str) -> str:
    rows = [figure(window, stride, reach, **how) for window in (_SHORT, _LONG)]
    path = made_up.record_rows(place / "r.jsonl", (made_up.BASE, rows[0]), (made_up.extended(4), *rows))
    return made_up.words(render(records.read([path]))).replace("\u202f", " ")


@pytest.mark.parametrize("stride", [32, 127, 128, 256])
@pytest.mark.parametrize("reach", [16, 128, 200, 240, 512])
def test_no_model_is_said_to_use_context_that_gives_it_nothing(tmp_path, stride, reach):
    page = verdict(tmp_path, stride, reach)
    used = [int(number) for number in re.findall(r"context beyond (\d+) tokens is put to use", page)]
    assert all(number < reach for number in used)
    assert ("it holds to 1024 by perplexity" in page) == (2 * stride < _SHORT)
    if reach >= 512 and 2 * stride < _SHORT:
        assert used == [_SHORT - stride]  # a real gain is still seen
    if 2 * stride >= _SHORT:
        assert "put to use" not in page and "; against the base in its own window" not in page
        assert f"at stride {stride} tokens counted at 256 have as few as {max(1, 256 - stride)} before them" in page
        assert (
            page.count("perplexity --stride 64 it would tell") >= 2
        )  # in the verdict, and under what to read with care


@pytest.mark.parametrize("convention", ["lm-eval", "longlora"])
def test_conventions_that_count_every_token_of_a_window_tell_nothing_at_any_stride(tmp_path, convention):
    page = verdict(tmp_path, 32, 512, convention=convention)
    assert "put to use" not in page and f"as {convention} counts, tokens counted at 256 have as few as 1" in page


def test_a_rise_is_one_at_any_stride(tmp_path):
    """The longer window has the more context before each token, and reads worse all the same."""
    rows = [made_up.row(nll, window, stride=256) for window, nll in ((256, 2.0), (1024, 2.2))]
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, rows[0]), (made_up.extended(4), *rows))
    page = made_up.words(render(records.read([path])))
    assert (
        "rises, so the longer context does harm" in page and "it holds to 256 by perplexity (from 256 to 1024:" in page
    )
    assert "; against the base in its own window" in page


def test_a_stride_that_is_half_of_each_window_is_judged_by_the_shorter_one(tmp_path):
    """As `ablate` measures."""
    rows = [figure(window, window // 2, 200) for window in (_SHORT, _LONG)]
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, rows[0]), (made_up.extended(4), *rows))
    page = made_up.words(render(records.read([path])))
    assert "put to use" not in page and "by the stride tells nothing of context beyond 256" in page


def test_the_default_stride_is_fine_and_the_papers_from_2048_on():
    assert [default_stride(windows) for windows in ([256, 1024], [2048], [8192, 2048], [32768], [5])] == [
        32,
        256,
        256,
        256,
        1,
    ]


def test_of_windows_that_slide_by_half_one_remedy_is_named_that_of_the_old_window(tmp_path):
    """As `ablate` measures: the verdict compares 256 with 1024, whatever shorter window is there."""
    rows = [made_up.row(2.0 - 0.1 * place, window, stride=window // 2) for place, window in enumerate((64, 256, 1024))]
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, *rows[:2]), (made_up.extended(4), *rows))
    page = made_up.words(render(records.read([path])))
    assert set(re.findall(r"perplexity --stride (\d+) it would tell", page)) == {"64"} and "counted at 64" not in page


def test_windows_that_count_different_tokens_are_paired_and_that_is_said(tmp_path):
    """At a stride of the whole window the first token of each further window is not counted: 3 of 1024 less."""
    near = made_up.row(2.0, stride=256, tokens=1020)
    far = made_up.row(1.9, 1024, stride=256, tokens=1023)
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, near), (made_up.extended(4), near, far))
    page = made_up.words(render(records.read([path])))
    assert (
        "at 256 tokens the first token of each further window has nothing before it and is not counted; at other windows it is."
        in page
    )
    assert "Changes are paired by document all the same." in page and "paired over 5 documents" in page


def test_a_new_window_that_was_read_by_another_stride_is_told_of_beside_a_cheaper_measurement(tmp_path):
    """What a laptop does: short windows of three documents at a fine stride, the new window once at a coarse one."""
    fine = [made_up.row(nll, 128, stride=16) for nll in (2.0, 1.9)]
    coarse = [made_up.row(2.0, 256, stride=128), made_up.row(1.9, 1024, stride=128)]
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, fine[0], coarse[0]), (made_up.extended(4), fine[1], coarse[1])
    )
    page = made_up.words(render(records.read([path])))
    assert "not at 1024" not in page and "At 1024 tokens: 6.69" in page  # e^1.9
    assert "Within the short window of 256 tokens it and its base were both measured at 128 at most: there" in page
