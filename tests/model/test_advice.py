"""Advice in a sentence works: each is followed on the same input, until the command does what was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.files import read_config
from ropewalk.data.documents import Document
from ropewalk.errors import UserError

DOCUMENTS = [Document("a", testing.prose(400))]
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0}
#: Models whose window was 64, by what another tool wrote into their config.
MODELS: dict[str, dict[str, Any]] = {
    "vicuna": {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "yarn": {"max_position_embeddings": 256, "rope_scaling": YARN | {"original_max_position_embeddings": 64}},
    "llama3": {"max_position_embeddings": 256, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}},
    "block": {
        "max_position_embeddings": 256,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        # What ropewalk wrote until it asked: 4 x 32 is not 256.
        "ropewalk": {
            "original_window": 32,
            "window": 256,
            "scaling": {"method": "linear", "factor": 4.0},
            "rope_theta": 10000.0,
        },
    },
    "no length": {"max_position_embeddings": None, "rope_scaling": {"type": "linear", "factor": 4.0}},
    "two lengths": {"max_position_embeddings": None, "seq_length": 64, "max_seq_len": 128},
    "plain": {},
}
train = dict(data=DOCUMENTS, steps=1, batch_size=1, warmup=0)
measured = dict(data=DOCUMENTS, windows=[256], stride=256)
#: What is asked of which model.
ASKED: dict[str, tuple[str, str, dict[str, Any]]] = {
    "extend vicuna": ("vicuna", "extend", dict(window=512)),
    "train vicuna": ("vicuna", "train", dict(window=256, **train)),
    "train vicuna longer": ("vicuna", "train", dict(window=512, **train)),
    "measure vicuna": ("vicuna", "perplexity", measured),
    "plan vicuna": ("vicuna", "plan", dict(window=512, gpus="1xH100")),
    "extend without a length": ("no length", "extend", dict(window=16384)),
    "measure by two lengths": ("two lengths", "perplexity", measured),
    "extend a damaged block": ("block", "extend", dict(window=512)),
    "measure a damaged block": ("block", "perplexity", measured),
    "interpolate yarn": ("yarn", "extend", dict(window=512, method="linear")),
    "train yarn short": ("yarn", "train", dict(window=128, **train)),
    "train yarn longer": ("yarn", "train", dict(window=512, method="linear", **train)),
    "other thresholds": ("yarn", "extend", dict(window=512, method="yarn", beta_fast=8.0)),
    "train llama3 short": ("llama3", "train", dict(window=128, **train)),
    "train llama3 longer": ("llama3", "train", dict(window=512, method="linear", **train)),
    "train llama3 plainly": ("llama3", "train", dict(window=512, method="plain", **train)),
    "plan llama3 short": ("llama3", "plan", dict(window=128, gpus="1xH100")),
    "abf without a base": ("plain", "extend", dict(window=256, method="abf")),
    "another window": ("yarn", "extend", dict(window=512, method="yarn", current_window=64)),
}


def advice(sentence: str) -> dict[str, Any] | None:
    """The first way out that a sentence names; an option that is to be left out is None."""
    sentence = sentence.partition("; ")[2]  # rule and value, then the way out
    if found := re.search(r"--(current-window|original-window|rope-theta) (\d+)", sentence):
        return {found[1].replace("-", "_"): int(found[2])}
    if found := re.search(r"(?:train|plan)(?: it)? (?:at|for)(?: its own window)? (\d+)", sentence):
        return {"window": int(found[1])}
    if found := re.search(r"--method (\w+)", sentence):
        return {"method": found[1]}
    if "leave them out" in sentence:
        return {"beta_fast": None}
    return None


@pytest.mark.parametrize("name", ASKED)
def test_what_a_sentence_advises_works(name: str, tmp_path: Path) -> None:
    model, command, options = ASKED[name]
    directory = testing.tiny_directory(tmp_path / "model", window=64)
    config = read_config(directory)
    del config["rope_parameters"]
    config |= {"rope_theta": 10000.0} | MODELS[model]
    named = {key: value for key, value in config.items() if key not in MODELS[model] or value is not None}
    (directory / "config.json").write_text(json.dumps(named))
    run: Callable[..., Any] = getattr(ropewalk, command)
    out = {} if command in ("perplexity", "plan") else {"out": tmp_path / "out"}
    with pytest.raises(UserError) as refused:
        run(directory, **options, **out)
    for _ in range(2):  # a second refusal may follow the first, but it has a way out as well
        way_out = advice(str(refused.value))
        assert way_out is not None, refused.value
        options = options | way_out
        try:
            run(directory, **options, **out)
            return
        except UserError as error:
            refused = type("Again", (), {"value": error})()
    raise AssertionError(refused.value)
