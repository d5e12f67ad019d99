"""A weight that is NaN or infinite is seen by doctor, and nothing is made of it or uploaded; torch's own isfinite is the oracle."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import ropewalk
from ropewalk import UserError, cli, testing
from ropewalk.checkpoint import finite
from ropewalk.checkpoint.marks import MARK
from ropewalk.readers import value_checks

WEIGHTS = "model.safetensors"
DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.int64,
)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_any_bits_are_judged_as_torch_judges_them(dtype: torch.dtype, data: st.DataObject, tmp_path_factory) -> None:
    # Of these bytes every tenth number or so is NaN or infinite.
    count, chance = data.draw(st.integers(1, 40)), np.random.default_rng(data.draw(st.integers(0, 10**6)))
    raw = chance.choice(
        np.array([0x00, 0x01, 0x3F, 0x7B, 0x7C, 0x7F, 0x80, 0xF0, 0xF8, 0xFF], np.uint8), count * dtype.itemsize
    )
    value = torch.from_numpy(raw).view(dtype)
    file = tmp_path_factory.mktemp("bits") / WEIGHTS
    save_file({"fine": torch.zeros(3, dtype=dtype), "none": torch.zeros(0, dtype=dtype), "value": value}, file)
    is_broken = dtype.is_floating_point and not bool(value.double().isfinite().all())
    assert finite.damage(file).not_finite == ["value"] * is_broken


def spoil(model: Path, value: float = float("nan"), *, last: bool = True) -> str:
    """One number of one tensor, in another's place; its name."""
    weights = load_file(model / WEIGHTS)
    name = sorted(weights)[-1 if last else 0]
    weights[name] = weights[name].clone()
    weights[name].view(-1)[-1] = value
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    return name


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """One in which nothing is wrong."""
    model = testing.tiny_directory(tmp_path / "model", window=64)
    ropewalk.doctor(model, fix=True)
    return model


def values(model: Path, *, full: bool = False) -> list[tuple[str, str]]:
    diagnosis = ropewalk.doctor(model, full=full)
    return [(finding.verdict, finding.sentence) for finding in diagnosis.findings if finding.number == 15]


@pytest.mark.parametrize("value", [0.0, 0.02])
@pytest.mark.parametrize("piece", [64, 1 << 24])
def test_a_matrix_of_one_value_is_seen_and_nothing_is_made_of_it(
    value: float, piece: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "_PIECE", piece)
    weights = load_file(model / WEIGHTS)
    name = next(name for name in sorted(weights) if name.endswith("up_proj.weight"))
    for each, tensor in weights.items():
        # Scales of norms are often all one number; a single other value makes a matrix sound.
        if tensor.ndim == 1:
            weights[each] = torch.ones_like(tensor)
    weights[name] = torch.full_like(weights[name], value)
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    ((verdict, sentence),) = values(model)
    assert verdict == "wrong" and f"1 tensor with one value throughout ({name})" in sentence
    with pytest.raises(UserError, match="one value throughout"):
        ropewalk.extend(model, window=256, out=tmp_path / "longer")
    weights[name][-1, -1] += 1
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    assert [verdict for verdict, _ in values(model)] == ["ok"]


@pytest.mark.parametrize(
    ("norms_from", "value", "seen"), [(0, -0.0, True), (0, -1.0, False), (1, 0.0, False), (1, -1.0, True)]
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_a_norm_that_makes_everything_0_is_damage(
    norms_from: int, value: float, seen: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    names = ["model.norm.weight", "layers.0.self_attn.q_norm.weight", "ln_f.weight"]
    weights = {name: torch.full((8,), value, dtype=dtype) for name in [*names, "model.norm.bias"]}
    save_file(weights, tmp_path / WEIGHTS)
    assert sorted(finite.damage(tmp_path / WEIGHTS, norms_from=norms_from).constant) == sorted(names) * seen


def test_a_model_whose_last_norm_is_zeros_is_refused(model: Path, tmp_path: Path) -> None:
    weights = load_file(model / WEIGHTS)
    weights["model.norm.weight"] = torch.zeros_like(weights["model.norm.weight"])
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    ((verdict, sentence),) = values(model)
    assert verdict == "wrong" and "1 tensor with one value throughout (model.norm.weight)" in sentence
    with pytest.raises(UserError, match="one value throughout"):
        ropewalk.extend(model, window=256, out=tmp_path / "longer")


def test_an_adapter_that_is_not_trained_yet_and_biases_of_experts_are_sound(tmp_path: Path) -> None:
    file = tmp_path / "adapter_model.safetensors"
    weights = {"q.lora_A.weight": torch.randn(4, 8), "q.lora_B.weight": torch.zeros(8, 4)}
    save_file({**weights, "mlp.experts.down_proj_bias": torch.zeros(2, 8)}, file)
    assert finite.damage(file).constant == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("piece", [64, 1 << 24])
def test_doctor_names_the_tensor(value: float, piece: int, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finite, "_PIECE", piece)
    assert [verdict for verdict, _ in values(model)] == ["ok"]
    name = spoil(model, value)
    [(verdict, sentence)] = values(model)
    assert verdict == "wrong" and f"({name})" in sentence


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("piece", [64, 1 << 24])
def test_a_flipped_bit_of_an_exponent_is_named_with_its_place(
    dtype: torch.dtype, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "_PIECE", piece)
    weights = torch.randn(40, 50).mul(0.05).to(dtype)
    weights[12, 5] = -0.067
    weights.view(torch.uint8).view(40, 50, -1)[12, 5, -1] ^= 0x40
    file = tmp_path / WEIGHTS
    save_file({"fine": torch.randn(40, 50).to(dtype), "flipped": weights}, file)
    (found,) = finite.damage(file, compare=False).outliers
    assert (found.name, found.place, found.count, found.value) == ("flipped", (12, 5), 1, weights[12, 5].item())
    assert found.typical == pytest.approx(weights[:].double().abs().median().item(), rel=0.02)


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        ([[0.01, 0.02], [0.03, 900.0]], False),  # far, and not large
        ([[1.0, 2.0], [3.0, 9000.0]], False),  # large, and not far
        ([0.2, 0.1, 0.3, 1656.0], False),  # a norm's, stored less one
        ([1e-4, 2e-4, 3e-4, 1656.0], False),
        ([0.2, 0.1, 0.3, 1e5], True),
        ([-1e9], False),  # what masks are filled with
        ([0.0, 0.0, 2e37], True),
        ([2e37], True),
    ],
)
def test_outliers_that_sound_models_have_are_none(values: list, seen: bool, tmp_path: Path) -> None:
    save_file({"value": torch.tensor(values)}, tmp_path / WEIGHTS)
    assert [found.value for found in finite.damage(tmp_path / WEIGHTS).outliers] == [
        pytest.approx(torch.tensor(values).max().item())
    ] * seen


def test_doctor_says_where_the_absurd_value_is(model: Path) -> None:
    name = spoil(model, -2.3e37)
    [(verdict, sentence)] = values(model)
    assert verdict == "wrong" and f"{name}[" in sentence and "] is -2.3e+37, and the median magnitude there" in sentence


def test_what_takes_minutes_is_read_when_it_is_asked_for(model: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    spoil(model)
    monkeypatch.setattr(value_checks, "READ_UNASKED", 1000)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(model), "--json"])
    assert ended.value.code == 3 and json.loads(capsys.readouterr().out)["verdict"] == "incomplete"
    [(verdict, sentence)] = values(model)
    assert verdict == "not checked" and sentence.startswith("values not read")
    assert [verdict for verdict, _ in values(model, full=True)] == ["wrong"]


def changed(model: Path) -> str:
    """Weights that are finite and no longer those that were noted."""
    from ropewalk.checkpoint import digests, marks

    marks.mark(model, digests=digests.to_note(model))
    spoil(model, 0.5)
    return "not as it was written"


def far(model: Path) -> str:
    """Weights that are finite, with one that no training makes."""
    spoil(model, 2.3e37)
    return "median magnitude"


@pytest.mark.parametrize("damage", [spoil, changed, far])
@pytest.mark.parametrize(
    "command",
    [["extend", "--window", "128"], ["export", "--for", "vllm"], ["push", "me/model", "--dry-run"]],
    ids=lambda command: command[0],
)
def test_nothing_is_made_of_damaged_weights(command: list[str], damage, model: Path, capsys) -> None:
    why, out = damage(model), model.parent / "out"
    name, *options = command
    with pytest.raises(SystemExit) as ended:
        cli.main([name, str(model), *options, *([] if name == "push" else ["--out", str(out)])])
    assert ended.value.code == 2 and re.search(why, capsys.readouterr().err) and not out.exists()


def test_no_adapter_is_merged_that_is_not_finite(model: Path, capsys) -> None:
    adapter = model.parent / "adapter"
    adapter.mkdir()
    save_file({"a.lora_A.weight": torch.tensor([float("nan")])}, adapter / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "base_model_name_or_path": str(model)}
    (adapter / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="adapter_model.safetensors has 1 tensor with NaN"):
        ropewalk.merge(adapter, out=model.parent / "out")


def test_what_is_too_large_to_be_read_unasked_is_made_and_that_is_said(model: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(value_checks, "READ_UNASKED", 1000)
    assert not (model / MARK).exists()
    ropewalk.extend(model, window=128, out=model.parent / "out")
    assert f"ropewalk doctor {model} --full says" in caplog.text
