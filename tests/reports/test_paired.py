"""Documents, prompts and items that two models both read are compared in pairs, with intervals; what is no pair is said."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

import made_up
from ropewalk import records
from ropewalk.reports import render
from ropewalk.reports.paired import ratio
from ropewalk.reports.passkey import k_max_interval
from ropewalk.reports.rows import clean


def test_the_paired_interval_is_exact_when_every_document_changed_alike():
    before, after = (made_up.row(nll) for nll in (2.0, 2.0 + math.log(1.05)))
    for document, other, hardness in zip(
        before.per_document, after.per_document, (0.1, -0.3, 0.7, 0.0, 1.2), strict=True
    ):
        document["nll"] += hardness * document["tokens"]  # hard documents are hard for both: that must not widen it
        other["nll"] += hardness * other["tokens"]
    change = ratio(before, after)
    assert (change.low, change.high) == (pytest.approx(1.05), pytest.approx(1.05))


@pytest.mark.parametrize("documents", [3, 6, 40])
def test_the_paired_interval_covers_the_true_change_as_often_as_it_says(documents):
    """Documents whose change has mean 3 % and scatter 4 %: the interval holds it 95 times of 100, and lies below it 2.5 times.

    600 draws have standard errors of 0.89 and 0.64 points; 4 of them are allowed. The tokens of a document differ a little between the
    two rows, as between two windows whose first tokens are not scored.
    """
    draw, held, below = np.random.default_rng(documents), 0, 0
    for _ in range(600):
        changes, hardness = draw.normal(math.log(1.03), 0.04, documents), draw.normal(0, 0.5, documents)
        before = made_up.row(2.3, documents=documents, tokens=100)
        each, other = (
            [
                {"name": f"d{i}", "tokens": n, "nll": n * (2.3 + h + c)}
                for i, (h, c) in enumerate(zip(hardness, by, strict=True))
            ]
            for n, by in ((100, 0 * changes), (99, changes))
        )
        change = ratio(
            dataclasses.replace(before, per_document=each),
            dataclasses.replace(before, window=64, stride=64, per_document=other),
        )
        held += change.low <= 1.03 <= change.high
        below += change.high < 1.03
    assert held / 600 == pytest.approx(0.95, abs=4 * 0.0089)
    assert below / 600 <= 0.025 + 4 * 0.0064


def test_a_model_that_was_not_trained_is_not_held_against_itself_before_training(tmp_path):
    path = tmp_path / "r.jsonl"
    made_up.record_rows(path, (made_up.BASE, made_up.row(2.0)))
    made_up.record_rows(path, (made_up.extended(), made_up.row(2.4), made_up.row(2.3, window=1024)))
    text = made_up.words(render(records.read([path])))
    assert "At 1024 tokens: 9.97; against the base" in text and "before training 9.97" not in text


def test_the_same_files_named_by_another_path_are_the_same_documents(tmp_path):
    """One run was given `data/books`, the other `/home/me/data/books`; two files of one name in two directories stay two."""

    def measured(root, nll):
        row = made_up.row(nll, data="data/books")
        each = [{**one, "name": f"{root}{name}"} for one, name in zip(row.per_document, names, strict=True)]
        return dataclasses.replace(row, per_document=each)

    names = ("a/x.py", "b/x.py", "c.jsonl:7", "c.jsonl:8", "d/e/f.txt")
    path = tmp_path / "r.jsonl"
    made_up.record_rows(path, (made_up.BASE, measured("data/books/", 2.0)))
    made_up.record_rows(path, (made_up.extended(steps=9), measured("/home/me/data/books/", 2.1)))
    page = made_up.words(render(records.read([path])))
    assert "paired over 5 documents" in page and "not measured on the same documents" not in page


def test_other_tokens_in_the_same_document_are_no_pair_and_said(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), (made_up.extended(4, 9), made_up.row(2.1, tokens=990))
    )
    page = made_up.words(render(records.read([path])))
    assert "not the same tokens were scored: base (5000 tokens scored); PI ×4, 9 steps (4950 tokens scored)" in page
    assert "measure all with the same --max-tokens" in page and "paired over" not in page


def test_other_documents_are_said_and_those_that_both_read_alone_compared(tmp_path):
    path = made_up.record_rows(
        tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)), (made_up.extended(4, 9), made_up.row(2.1, documents=9))
    )
    page = made_up.words(render(records.read([path])))
    assert "were not measured on the same documents at 256 tokens" in page
    assert "paired over" not in page and "over the 5 documents that both read" in page


def _read(nll, texts, names="abcde", **changes):
    """A row over five documents with the hashes of their texts."""
    row = made_up.row(nll, data="books/test.jsonl", texts=texts, **changes)
    each = [{**one, "name": name, "text": text} for one, name, text in zip(row.per_document, names, texts, strict=True)]
    return dataclasses.replace(row, per_document=each)


def test_the_text_and_not_its_name_decides_what_is_paired(tmp_path):
    """A/books/test.jsonl and B/books/test.jsonl: one name, as many documents and tokens, and other texts."""
    pages = {}
    for which, after in (("other", _read(2.1, "vwxyz")), ("renamed", _read(2.1, "edcba", names="54321"))):
        path = made_up.record_rows(
            tmp_path / f"{which}.jsonl", (made_up.BASE, _read(2.0, "abcde")), (made_up.extended(4, 9), after)
        )
        pages[which] = made_up.words(render(records.read([path])))
    assert "different texts are called books/test.jsonl (books/test.jsonl[A], books/test.jsonl[B])" in pages["other"]
    assert "Perplexity, books/test.jsonl[B], stride 64" in pages["other"] and "paired over" not in pages["other"]
    assert "paired over 5 documents" in pages["renamed"] and "[A]" not in pages["renamed"]


def test_a_digest_and_documents_of_one_name_are_no_two_texts(tmp_path):
    """Older rows have hashes of documents, a row that read another text has its test file's digest alone: neither contradicts the other."""
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, _read(2.0, "abcde")))
    row = {"name": "hemp/ntk", "method": "ntk", "test": "books/test.jsonl", "digests": {"test": "tttt"}}
    state = made_up.extended(4, 9, "ntk", name="hemp/ntk")
    made_up.record_rows(path, (state, made_up.row(2.1, data="books/validation.jsonl")), settings={"row": row})
    assert not clean(records.read([path])).same_names
    made_up.record_rows(path, (made_up.extended(4, 9), _read(2.1, "vwxyz")))
    (texts,) = clean(records.read([path])).same_names.values()
    assert [sorted(text.documents) for text in texts] == [list("abcde"), list("vwxyz")], "and of neither is the digest"


def test_estimates_over_other_texts_are_no_pair():
    before, after = (_read(2.0, texts, estimate=True) for texts in ("abcde", "vwxyz"))
    assert ratio(before, after) is None
    assert ratio(before, dataclasses.replace(before, perplexity=8.0, data="elsewhere/test.jsonl")).same_documents


def test_a_figure_over_another_text_replaces_none(tmp_path):
    path = tmp_path / "r.jsonl"
    for texts, hour in (("abcde", 5), ("vwxyz", 6)):
        made_up.record_rows(path, (made_up.BASE, _read(2.0, texts)), started=f"2026-11-22T{hour:02d}:00:00+00:00")
    page = made_up.words(render(records.read([path])))
    assert "measured what another row measured too" not in page
    assert "Perplexity, books/test.jsonl[A], stride 64" in page and "Perplexity, books/test.jsonl[B], stride 64" in page


def test_benchmarks_are_paired_item_by_item(tmp_path):
    def answered(answers: str, digest: str = "same") -> records.Benchmark:
        share = answers.count("1") / len(answers)
        return records.Benchmark(
            "boolq", share, 0.0, 1.0, len(answers), answers.count("1"), 0, 256, answers, digest, "boolq v1"
        )

    before, after = answered("1" * 60 + "0" * 40), answered("1" * 45 + "0" * 55)
    page = made_up.words(
        render(
            records.read(
                [made_up.record_rows(tmp_path / "a.jsonl", (made_up.BASE, before), (made_up.extended(4, 9), after))]
            )
        )
    )
    assert (
        "Of 1 benchmark in the original window 1 lost beyond chance (BoolQ); the mean changed by −15.0 points." in page
    )
    assert "< 0.001" in page  # 15 of 15 changes were losses: 2 / 2**15
    other = answered("1" * 45 + "0" * 55, "another")
    page = made_up.words(
        render(
            records.read(
                [made_up.record_rows(tmp_path / "b.jsonl", (made_up.BASE, before), (made_up.extended(4, 9), other))]
            )
        )
    )
    assert "Not compared, because the two models were asked different items: BoolQ." in page
    assert "lost beyond chance" not in page


def test_k_max_is_sure_where_all_depths_agree_and_unsure_at_a_doubtful_one():
    depths = [records.Passkey(1024, 32 * i, 10, 10) for i in range(1, 33)]
    assert k_max_interval(depths) == (1024, 1024)
    assert k_max_interval([dataclasses.replace(d, successes=0) for d in depths])[0] == 0
    doubtful = [dataclasses.replace(d, successes=2) if d.k == 512 else d for d in depths]
    assert k_max_interval(doubtful) == (480, 1024)
    cliff = [dataclasses.replace(d, successes=10 if d.k <= 256 else 0) for d in depths]
    low, high = k_max_interval(cliff)
    assert low == 256 and high <= 320  # tests/evals/test_intervals.py


@pytest.mark.parametrize(
    ("reach", "said"),
    [
        # hypot(0.03, 0.04) = 0.05 nats a token about 0.1
        (0.04, "it holds to 256 by perplexity (from 256 to 1024: +10.5 % (95 % interval +5.1 % to +16.2 %))"),
        (0.10, "it holds to 1024 by perplexity (from 256: +10.5 %"),
    ],
)
def test_estimates_are_compared_by_their_own_intervals(tmp_path, reach, said):
    def estimate(nll, window, reach):
        ends = {"low": math.exp(nll - reach), "high": math.exp(nll + reach)}
        return made_up.row(nll, window, estimate=True, per_document=[], **ends)

    path = made_up.record_rows(
        tmp_path / "r.jsonl",
        (made_up.BASE, estimate(1.9, 256, 0.03)),
        (made_up.extended(4, 9), estimate(1.9, 256, 0.03), estimate(2.0, 1024, reach)),
    )
    page = made_up.words(render(records.read([path])))
    assert said in page.replace("\u202f", " ").replace("\u00a0", " ")
    assert page.count("≈ marks an estimate") == 1
