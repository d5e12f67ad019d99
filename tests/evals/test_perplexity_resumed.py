"""Perplexity that was stopped, or asked again: what is on record is taken, and nothing else."""

import json

import pytest

from byte_documents import documents
from ropewalk import records
from ropewalk.data.documents import Document
from ropewalk.evals.perplexity import measure as module
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.testing import byte_tokenizer, prose, tiny, tiny_directory


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        (0, "nothing is kept, since a document is kept once all its windows are read"),
        (1, "1 of 2 documents are kept in "),
    ],
)
def test_what_an_interrupted_measurement_keeps_is_said_and_is_kept(tmp_path, caplog, monkeypatch, whole, said):
    model, out = tiny_directory(tmp_path / "tiny", window=64), tmp_path / "r.jsonl"
    options = dict(data=[Document(name, name + prose(500)) for name in "ab"], windows=[64], out=out)
    scored, really = [], module.score_document

    def score(*given, **named):
        if len(scored) == whole:
            raise KeyboardInterrupt
        scored.append(given[1].name)
        return really(*given, **named)

    monkeypatch.setattr(module, "score_document", score)
    with pytest.raises(KeyboardInterrupt):
        perplexity(model, **options)
    assert said in caplog.text
    monkeypatch.setattr(module, "score_document", lambda *given, **named: scored.append("again") or really(*given, **named))  # fmt: skip
    perplexity(model, **options)
    assert scored.count("again") == 2 - whole


class Killed(Exception):
    pass


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, monkeypatch):
    path, out = tiny_directory(tmp_path / "m"), tmp_path / "r.jsonl"
    docs = documents(150, 120, 180)
    whole = perplexity(path, data=docs, stride=16)
    real, scored = module.score_document, []

    def until(last):
        def wrapped(loaded, document, *args, **kwargs):
            if len(scored) == last:
                raise Killed
            scored.append(document.name)
            return real(loaded, document, *args, **kwargs)

        return wrapped

    monkeypatch.setattr(module, "score_document", until(2))
    with pytest.raises(Killed):
        perplexity(path, data=docs, stride=16, out=out)
    monkeypatch.setattr(module, "score_document", until(99))
    again = perplexity(path, data=docs, stride=16, out=out)
    assert scored == ["doc0", "doc1", "doc2"]
    assert again[0].perplexity == whole[0].perplexity and again[0].per_document == whole[0].per_document
    assert records.read([out]).of(records.Perplexity)[0].row.perplexity == whole[0].perplexity


def test_a_finished_run_repeated_adds_nothing_and_a_further_window_its_own_rows_alone(tmp_path):
    path, out = tiny_directory(tmp_path / "m"), tmp_path / "r.jsonl"
    docs = documents(150, 120)
    rows = perplexity(path, data=docs, windows=[32, 64], stride=16, out=out)
    before = out.read_text(encoding="utf-8")
    assert perplexity(path, data=docs, windows=[32, 64], stride=16, out=out) == rows
    assert out.read_text(encoding="utf-8") == before
    perplexity(path, data=docs, windows=[32, 48, 64], stride=16, out=out)
    assert [m.row.window for m in records.read([out]).of(records.Perplexity)] == [32, 64, 48]


def test_another_stride_or_other_weights_are_not_taken_for_known(tmp_path, monkeypatch):
    out, tokenizer, docs = tmp_path / "r.jsonl", byte_tokenizer(), documents(150)
    perplexity(tiny(seed=0), tokenizer=tokenizer, data=docs, stride=16, out=out)
    (fresh,) = perplexity(tiny(seed=1), tokenizer=tokenizer, data=docs, stride=16)
    (other,) = perplexity(tiny(seed=1), tokenizer=tokenizer, data=docs, stride=16, out=out)
    assert other.perplexity == fresh.perplexity
    perplexity(tiny(seed=1), tokenizer=tokenizer, data=docs, stride=32, out=out)
    assert len(records.read([out]).of(records.DocumentScore)) == 3


def test_a_damaged_line_costs_one_document_and_no_error(tmp_path):
    out, tokenizer, docs = tmp_path / "r.jsonl", byte_tokenizer(), documents(150, 120)
    (first,) = perplexity(tiny(), tokenizer=tokenizer, data=docs, stride=16, out=out)
    lines = out.read_text().splitlines()
    assert json.loads(lines[1])["kind"] == "document_score"
    out.write_text("\n".join([lines[0], lines[1][:40], *lines[2:]]) + "\n")
    (second,) = perplexity(tiny(), tokenizer=tokenizer, data=docs, stride=16, out=out)
    assert second.perplexity == first.perplexity
