"""Documents chosen by their gain, from what `gain` wrote."""

import json

import pytest

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.data.scores import chosen_by
from ropewalk.data.token_corpus import tokenise
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


@pytest.mark.parametrize(("keep", "count"), [(0.5, 2), (0.26, 2), (0.01, 1), (1.0, 4)])
def test_the_documents_that_gain_most_are_read_and_those_without_a_score(scored, keep, count):
    out, best_first = scored
    chosen = chosen_by(out, keep)
    found = tokenise(DOCUMENTS, TOKENIZER, chosen=chosen)
    assert sorted(found.names) == sorted([*best_first[:count], "d4"])
    assert str(chosen).startswith(f"{4 - count} of 4 scored documents")
    if count < 4:
        assert found.digest != tokenise(DOCUMENTS, TOKENIZER).digest
        with pytest.raises(UserError, match="all are left out by their scores"):
            tokenise([each for each in DOCUMENTS if each.name == best_first[-1]], TOKENIZER, chosen=chosen)


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
