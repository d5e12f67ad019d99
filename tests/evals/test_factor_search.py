"""`ropewalk search` as a user has it: a file for --factors, the same one whether the search was interrupted or not."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

import ropewalk
from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals import factor_search
from ropewalk.model.load import load_model

WINDOW, LONGER = 64, 128
DOCUMENTS = [Document(str(seed), testing.prose(120, seed)) for seed in range(3)]
SMALL: dict[str, Any] = dict(data=DOCUMENTS, window=LONGER, documents=2, population=4, generations=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.tiny_directory(tmp_path_factory.mktemp("search") / "llama", window=WINDOW)


def scaled_before(model: Path, before: str, tmp_path: Path) -> Path:
    """A model of 64 tokens: as pretrained, or made of 16 by another scaling, whose place the vectors take."""
    if before == "mscale":  # DeepSeek's families multiply all scores by (0.1 ln 4 + 1)^2 then
        yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16, mscale=1.0, mscale_all_dim=1.0)
        return testing.tiny_directory(
            tmp_path / "before", "deepseek_v3", WINDOW, rope_parameters=yarn | {"rope_theta": 1e4}
        )
    if before == "longrope":  # whose modules choose their table by each input's length
        short = testing.tiny_directory(tmp_path / "short", window=16)
        ropewalk.extend(short, window=WINDOW, out=tmp_path / "before", method="longrope", factors=[1.0] * 7 + [4.0])
        return tmp_path / "before"
    return model


@pytest.mark.parametrize("before", ["nothing", "mscale", "longrope"])
@pytest.mark.parametrize("method", ["longrope", "factors"])
def test_what_is_found_is_what_extend_writes(
    method: str, before: str, model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = scaled_before(model, before, tmp_path)
    caplog.clear()
    found = ropewalk.search(model, out=tmp_path / "found.json", method=method, **SMALL)
    assert ("mscale_all_dim, by which YaRN multiplied all scores by 1.296" in caplog.text) == (before == "mscale")
    assert found.perplexity <= min(found.starts.values()) and set(found.starts) == {"linear", "ntk", "yarn"}
    ropewalk.extend(model, window=LONGER, out=tmp_path / "longer", method=method, factors=tmp_path / "found.json")
    with pytest.raises(UserError, match=f"were searched for [0-9]+ to {LONGER} tokens, not [0-9]+ to {2 * LONGER}"):
        ropewalk.extend(model, window=2 * LONGER, out=tmp_path / "x", method=method, factors=tmp_path / "found.json")
    extended = load_model(tmp_path / "longer")
    # Perplexity by hand: each of the first two documents is cut to the window, all its tokens but the first count.
    nll, count = 0.0, 0
    tokenizer = testing.byte_tokenizer()
    for document in DOCUMENTS[:2]:
        ids = torch.tensor([tokenizer(document.text)["input_ids"][:LONGER]])
        with torch.no_grad():
            nll += (LONGER - 1) * float(extended(ids, labels=ids).loss)
        count += LONGER - 1
    assert found.perplexity == pytest.approx(math.exp(nll / count), rel=1e-5)


def test_a_killed_search_goes_on_and_finds_the_same(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = ropewalk.search(model, out=tmp_path / "whole.json", **SMALL)
    scored, measure = [], factor_search._perplexity

    def killed(*arguments: Any) -> float:
        if len(scored) == 5:  # within the first generation after the starts
            raise KeyboardInterrupt
        scored.append(arguments)
        return measure(*arguments)

    monkeypatch.setattr(factor_search, "_perplexity", killed)
    with pytest.raises(KeyboardInterrupt):
        ropewalk.search(model, out=tmp_path / "parts.json", **SMALL)
    monkeypatch.setattr(factor_search, "_perplexity", measure)
    ropewalk.search(model, out=tmp_path / "parts.json", **SMALL | {"generations": 1})
    parts = ropewalk.search(model, out=tmp_path / "parts.json", **SMALL)
    assert (parts.factors, parts.perplexity) == (whole.factors, whole.perplexity)
    assert json.loads((tmp_path / "parts.json").read_text()) == json.loads((tmp_path / "whole.json").read_text())
    monkeypatch.setattr(factor_search, "_perplexity", lambda *_: pytest.fail("a search that has ended scores nothing"))
    assert ropewalk.search(model, out=tmp_path / "parts.json", **SMALL) == parts


def test_another_search_is_not_continued_and_other_files_are_not_replaced(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    small = SMALL | {"generations": 1}
    ropewalk.search(model, out=out, **small)
    for other, said in [({"seed": 1}, "seed"), ({"window": 96}, "window"), ({"data": DOCUMENTS[1:]}, "tokens")]:
        with pytest.raises(UserError, match=f"holds a search of another {said}; give the same one"):
            ropewalk.search(model, out=out, **small | other)
    ropewalk.search(model, out=out, overwrite=True, **small | {"seed": 1})
    out.write_text('{"notes": "of years"}')
    for overwrite in (False, True):
        with pytest.raises(UserError, match="holds something else; choose another"):
            ropewalk.search(model, out=out, overwrite=overwrite, **small)
    assert "of years" in out.read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"window": 64}, "window 64 is not longer than the model's own 64; search for more than 64"),
        ({"data": [Document("a", "short")]}, "documents that fill the window of 128 tokens, but none does"),
        ({"mutation": 0.0}, "mutation is a finite number above 0 and at most 1"),
    ],
)
def test_what_cannot_be_searched_is_refused(options: dict[str, Any], said: str, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        ropewalk.search(model, out=tmp_path / "found.json", **SMALL | options)
    assert not (tmp_path / "found.json").exists()
