"""Documents chosen by their gain, from what `gain` wrote."""

import json

import numpy as np
import pytest

from ropewalk import records, testing
from ropewalk.data.best_fit import FittedBlocks
from ropewalk.data.documents import Document
from ropewalk.data.mixture import Mixture, Part
from ropewalk.data.packing import IGNORED, PackedBlocks
from ropewalk.data.scores import chosen_by
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.context_gain import gain

DOCUMENTS = [Document(f"d{number}", testing.prose(60, number)) for number in range(5)]
TOKENIZER = testing.byte_tokenizer(256)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    out = tmp_path_factory.mktemp("scores") / "gain.jsonl"
    model = testing.tiny("llama", window=128, seed=1)
    row = gain(model, tokenizer=TOKENIZER, data=DOCUMENTS[:4], window=128, short=32, stride=16, out=out)
    gains = {each["name"]: (each["short_nll"] - each["nll"]) / each["tokens"] for each in row.per_document}
    return out, sorted(gains, key=lambda name: -gains[name])


def test_scores_of_other_texts_are_warned_of_and_how_many_have_one_is_said(scored, caplog):
    chosen = chosen_by(scored[0], 1.0)
    others = [Document("other", "nothing that was scored"), Document("too", "nor this")]
    with pytest.warns(UserWarning, match="none of 2 documents has a score: 4 scores are of other texts"):
        assert list(chosen.of(others)) == others
    with caplog.at_level("INFO"):
        assert len([*chosen.of([*DOCUMENTS[:1], *others])]) == 3
    assert "1 of 3 documents have a score" in caplog.text


@pytest.mark.parametrize(("keep", "count"), [(0.5, 2), (0.26, 2), (0.01, 1), (1.0, 4)])
def test_the_documents_that_gain_most_are_read_and_those_without_a_score(scored, keep, count):
    out, best_first = scored
    chosen = chosen_by(out, keep)
    found = tokenise(DOCUMENTS, TOKENIZER, chosen=chosen)
    assert sorted(found.names) == sorted([*best_first[:count], "d4"])
    assert str(chosen).startswith(f"{4 - count} of 4 scored documents")
    if count < 4:
        assert found.digest != tokenise(DOCUMENTS, TOKENIZER).digest
        with pytest.raises(
            UserError,
            match=rf"of each source, and all of {best_first[-1]} are left out by their scores, which are ranked over all sources",
        ):
            tokenise([each for each in DOCUMENTS if each.name == best_first[-1]], TOKENIZER, chosen=chosen)


def test_documents_count_by_their_score(scored):
    out, best_first = scored
    (row,) = records.read([out]).of(records.ContextGain)
    gains = {each["name"]: (each["short_nll"] - each["nll"]) / each["tokens"] for each in row.row.per_document}
    mean = np.average(np.maximum(list(gains.values()), 0), weights=[each["tokens"] for each in row.row.per_document])
    found = tokenise(DOCUMENTS, TOKENIZER, chosen=chosen_by(out, weigh=True))
    expected = [max(gains[name], 0) / mean if name in gains else 1 for name in found.names]
    assert found.names == [each.name for each in DOCUMENTS] and 0 in expected and max(expected) > 1
    assert found.weights == pytest.approx(np.array(expected), rel=1e-6)
    assert found.digest not in (
        tokenise(DOCUMENTS, TOKENIZER).digest,
        tokenise(DOCUMENTS, TOKENIZER, chosen=chosen_by(out, 1.0)).digest,
    )
    for packed in (PackedBlocks(found, 48), FittedBlocks(found, 48)):
        rows = packed.rows(range(len(packed)), mask_documents=True)
        # A label's document is told by its tokens, which its document holds in that order.
        for labels, ids, weights in zip(rows["labels"], rows["input_ids"], rows["weights"], strict=True):
            for at in np.flatnonzero(labels != IGNORED)[8::5]:
                text = TOKENIZER.decode([*ids[at - 7 : at + 1], labels[at]])
                holding = [n for n, each in enumerate(DOCUMENTS) if text in f"<s>{each.text}</s>"]
                assert any(weights[at] == found.weights[n] for n in holding) or not holding
    twice = [Mixture([Part("a", packed, 1.0, 48, found)]).rows([0])["weights"], packed.rows([0])["weights"]]
    assert (twice[0] == twice[1]).all()


def test_nothing_is_weighed_by_scores_that_are_not_above_zero(scored, tmp_path):
    row = next(json.loads(line) for line in scored[0].read_text().splitlines() if '"context_gain"' in line)
    for each in row["per_document"]:
        each["nll"], each["short_nll"] = 3.0, 2.0
    header = scored[0].read_text().splitlines()[0]

    def write():
        gain = sum(each["short_nll"] - each["nll"] for each in row["per_document"]) / row["tokens"]
        row.update(gain=gain, low=gain, high=gain)
        (tmp_path / "worse.jsonl").write_text(f"{header}\n{json.dumps(row)}\n")

    write()
    with pytest.raises(UserError, match="none in .* gains anything; leave out --weigh"):
        chosen_by(tmp_path / "worse.jsonl", weigh=True)
    assert "NONE OF THOSE THAT ARE KEPT gains anything" in str(chosen_by(tmp_path / "worse.jsonl", 0.5))
    row["per_document"][0]["short_nll"] = 4.0
    write()
    assert "; 1 of the 2 that are kept gain nothing by a long context" in str(chosen_by(tmp_path / "worse.jsonl", 0.5))


@pytest.mark.parametrize("change", [{"nll": 1e308}, {"nll": None}, {"tokens": 0}, {"text": ""}])
def test_what_is_no_score_is_refused(scored, tmp_path, change):
    lines = [json.loads(line) for line in scored[0].read_text().splitlines()]
    for each in lines[-1]["per_document"]:
        each |= change
    (tmp_path / "odd.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(UserError, match="a score is a number|has none; write them"):
        chosen_by(tmp_path / "odd.jsonl", weigh=True)


def test_scores_of_two_models_or_none_are_refused(scored, tmp_path):
    (tmp_path / "none.jsonl").write_text("")
    with pytest.raises(UserError, match="has none; write them"):
        chosen_by(tmp_path / "none.jsonl", 0.5)
    lines = scored[0].read_text().splitlines()
    other = [json.loads(line) for line in lines if '"context_gain"' in line]
    other[0]["window"] = 64
    (tmp_path / "two.jsonl").write_text("\n".join([*lines, json.dumps(other[0])]) + "\n")
    with pytest.raises(UserError, match="has 2 kinds"):
        chosen_by(tmp_path / "two.jsonl", 0.5)
