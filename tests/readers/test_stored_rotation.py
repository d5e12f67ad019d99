"""An inv_freq among the weights: what transformers makes of it today, what it made of it up to 4.31, and what doctor says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import ropewalk
from ropewalk import cli

NAME = "model.layers.0.self_attn.rotary_emb.inv_freq"


@pytest.fixture
def extended(tmp_path: Path) -> Path:
    ropewalk.extend("hemp", window=1024, method="yarn", out=tmp_path / "longer")
    return tmp_path / "longer"


def rotation(model: Path) -> torch.Tensor:
    return AutoModelForCausalLM.from_pretrained(model).model.rotary_emb.inv_freq


def store(model: Path, inv_freq: torch.Tensor) -> Path:
    """Put it among the weights, which are linked and stay as they were in the base."""
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    save_file(weights | {NAME: inv_freq.clone()}, model / "model.safetensors", {"format": "pt"})
    (model / ".ropewalk.json").unlink(missing_ok=True)  # whose digest is of the file without it
    return model


def said(model: Path) -> list[tuple[str, str]]:
    findings = ropewalk.doctor(model).findings
    return [(each.verdict, each.sentence) for each in findings if each.number == 7 and NAME in each.sentence]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_what_transformers_computes_is_taken_for_right_as_each_dtype_rounds_it(
    dtype: torch.dtype, extended: Path
) -> None:
    assert not said(store(extended, rotation(extended).to(dtype)))
    assert ropewalk.doctor(extended).verdict == "sound"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_that_differs_is_wrong_though_transformers_leaves_it_out(
    dtype: torch.dtype, extended: Path, capsys: pytest.CaptureFixture
) -> None:
    right = rotation(extended)
    store(extended, (right / 4).to(dtype))
    assert torch.equal(rotation(extended), right)
    [(verdict, sentence)] = said(extended)
    assert verdict == "wrong" and "pair 0 is 0.25 radians a token, where the config says 1" in sentence
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(extended)])
    assert ended.value.code == 1
    assert f"but for 1 tensor that it computes itself ({NAME})" in " ".join(capsys.readouterr().out.split())


def test_the_unscaled_one_is_noted_and_another_number_of_pairs_is_wrong(extended: Path) -> None:
    ropewalk.extend("hemp", window=1024, method="linear", out=extended.with_name("linear"))
    linear = rotation(extended.with_name("linear"))
    [(verdict, _)] = said(store(extended, linear * (1 / linear[0])))  # the first pair turns by 1 radian a token
    assert verdict == "note"
    [(verdict, sentence)] = said(store(extended, linear[:-1]))
    assert verdict == "wrong" and f"it has {len(linear) - 1} pairs, and the config {len(linear)}" in sentence


def test_a_float32_inv_freq_beside_other_weights_is_no_sign_of_another_checkpoint(extended: Path) -> None:
    weights = load_file(extended / "model.safetensors")
    store(extended, rotation(extended))
    assert load_file(extended / "model.safetensors")[NAME].dtype == torch.float32
    assert not {torch.float32} & {each.dtype for each in weights.values()}  # the note would be due
    assert not [each for each in ropewalk.doctor(extended).findings if "several dtypes" in each.sentence]


def test_an_encoder_of_images_has_an_inv_freq_of_its_own(extended: Path) -> None:
    weights = load_file(extended / "model.safetensors")
    (extended / "model.safetensors").unlink()
    save_file(weights | {"visual.rotary_emb.inv_freq": torch.ones(3)}, extended / "model.safetensors", {"format": "pt"})
    assert not any("inv_freq" in each.sentence for each in ropewalk.doctor(extended).findings if each.number == 7)
