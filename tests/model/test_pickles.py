"""Pickled weights: refused, converted on request, and none runs anything."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from extending import LONGER, WINDOW
from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model


def test_pickled_weights_are_refused_and_converted_on_request(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    weights = testing.tiny(window=WINDOW).state_dict()
    (tmp_path / "a/model.safetensors").unlink()
    torch.save(weights, tmp_path / "a/pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights .*--convert-pickle"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()
    extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", convert_pickle=True)
    torch.testing.assert_close(load_model(tmp_path / "b").state_dict(), dict(weights), rtol=0, atol=0)


class _Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile-code-ran",)


def test_a_hostile_pickle_runs_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    (tmp_path / "a/model.safetensors").unlink()
    torch.save({"weight": _Hostile()}, tmp_path / "a/pytorch_model.bin")
    with pytest.raises(UserError, match="more than weights"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", convert_pickle=True)
    assert not (tmp_path / "hostile-code-ran").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
