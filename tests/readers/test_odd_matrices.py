"""Real damage to real weights that leaves every number finite: noted, and nothing refused for it, since a sound model may be so on purpose."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import ropewalk
from ropewalk import cli
from ropewalk.checkpoint import finite
from ropewalk.checkpoint.hub import locate

WEIGHTS, Q = "model.safetensors", "model.layers.2.self_attn.q_proj.weight"
EMBEDDING = "model.embed_tokens.weight"
LAB = Path(__file__).parents[3] / "shared/models/lab-2k"
State = dict[str, torch.Tensor]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """hemp, in a directory of its own."""
    return Path(shutil.copytree(locate("hemp"), tmp_path / "model"))


def damaged(model: Path, change: Callable[[State], None]) -> Path:
    weights = load_file(model / WEIGHTS)
    change(weights)
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, model / WEIGHTS, {"format": "pt"})
    return model


def findings(model: str | Path, number: int) -> list[tuple[str, str]]:
    diagnosis = ropewalk.doctor(model)
    return [(finding.verdict, finding.sentence) for finding in diagnosis.findings if finding.number == number]


@pytest.mark.parametrize("by", [100.0, 0.01])
@pytest.mark.parametrize("piece", [640, 1 << 24])
def test_a_matrix_of_another_scale_is_noted_and_its_siblings_are_not(
    by: float, piece: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.setattr(finite, "_PIECE", piece)
    damaged(model, lambda weights: weights[Q].mul_(by))
    ((verdict, sentence),) = findings(model, 16)
    assert verdict == "note" and Q in sentence and sentence.count("_proj") == 1
    assert "3 siblings" in sentence and ("1/" in sentence) == (by < 1)
    cli.main(["doctor", str(model)])  # exit status 0
    assert "sound, if what check 16 notes was meant" in capsys.readouterr().out
    ropewalk.extend(model, window=512, out=tmp_path / "longer")


def test_a_factor_that_sound_models_have_between_layers_is_not_noted(model: Path) -> None:
    # The median of four is half way between two: a factor of 4 is 2, and the layers' own spread is below 1.
    assert [verdict for verdict, _ in findings(damaged(model, lambda weights: weights[Q].mul_(4)), 16)] == ["ok"]


@pytest.mark.parametrize("model_name", ["hemp", LAB], ids=["hemp", "lab-2k"])
def test_sound_models_have_nothing_odd(model_name: str | Path) -> None:
    if isinstance(model_name, Path) and not model_name.is_dir():
        pytest.skip("no ../shared beside the checkout")
    assert [verdict for verdict, _ in findings(model_name, 16)] == ["ok"]


def test_a_layer_that_was_written_over_another_is_noted(model: Path) -> None:
    def copy(weights: State) -> None:
        for name in [name for name in weights if ".layers.3." in name]:
            weights[name] = weights[name.replace(".3.", ".1.")].clone()

    ((verdict, sentence),) = findings(damaged(model, copy), 16)
    assert verdict == "note" and "model.layers.1 and model.layers.3 in 7 matrices" in sentence
    # One value that differs makes a matrix another one.
    damaged(model, lambda weights: weights[Q.replace(".2.", ".3.")].view(-1)[1:2].add_(1))
    ((_, sentence),) = findings(model, 16)
    assert "model.layers.1 and model.layers.3 in 6 matrices" in sentence


def test_the_bits_are_compared_in_any_order_of_rows_too(model: Path) -> None:
    # The same values in other rows are another matrix.
    other = Q.replace(".2.", ".3.")
    damaged(model, lambda weights: weights.update({other: weights[Q].flip(0)}))
    assert [verdict for verdict, _ in findings(model, 16)] == ["ok"]


@pytest.mark.parametrize("piece", [640, 1 << 24])
def test_rows_of_tokens_that_are_zeros_are_counted_and_named(
    piece: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "_PIECE", piece)

    def lose(weights: State) -> None:
        weights[EMBEDDING][300:700] *= 0  # of which half are -0
        weights[EMBEDDING][900] = 0
        weights[EMBEDDING][950, :-1] = 0  # not all of it

    ((verdict, sentence),) = findings(damaged(model, lose), 16)
    assert verdict == "note" and f"{EMBEDDING} has 401 rows of zeros (ids 300 to 699, 900)" in sentence


def test_rows_of_padding_are_said_and_no_note(model: Path) -> None:
    rows = load_file(model / WEIGHTS)[EMBEDDING].shape[0]
    damaged(
        model, lambda weights: weights.update({EMBEDDING: torch.nn.functional.pad(weights[EMBEDDING], (0, 0, 0, 64))})
    )
    config = (model / "config.json").read_text()
    (model / "config.json").write_text(config.replace(f'"vocab_size": {rows}', f'"vocab_size": {rows + 64}'))
    ((verdict, sentence),) = findings(model, 16)
    assert verdict == "ok" and f"64 rows of zeros (ids {rows} to {rows + 63})" in sentence


def test_a_matrix_times_zero_has_one_value_though_half_of_it_is_minus_zero(model: Path) -> None:
    damaged(model, lambda weights: weights[Q].mul_(0))
    assert load_file(model / WEIGHTS)[Q].view(torch.int16).unique().numel() == 2  # else there would be nothing to test
    ((verdict, sentence),) = findings(model, 15)
    assert verdict == "wrong" and f"one value throughout ({Q})" in sentence


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn])
def test_the_scale_is_the_mean_exponent_as_torch_has_it(dtype: torch.dtype, tmp_path: Path) -> None:
    value = torch.randn(60, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    value[:20] = 0  # a pruned matrix has the scale of what is left
    save_file({"a": value, "b": (value.double() * 8).to(dtype)}, tmp_path / WEIGHTS)
    scales = {name: matrix.scale for name, matrix in finite.damage(tmp_path / WEIGHTS).matrices.items()}
    sample = value.double().flatten()[:: finite._SAMPLED]
    exponents = torch.frexp(sample[sample != 0])[1].double()
    bias = {torch.float64: 1022, torch.float32: 126, torch.float16: 14, torch.bfloat16: 126, torch.float8_e4m3fn: 6}
    # Values below the least normal number have the exponent 0 in a file: in 8 bits a few of these.
    room = 0.1 if dtype == torch.float8_e4m3fn else 1e-9
    assert scales["a"] == pytest.approx(float(exponents.mean()) + bias[dtype], abs=room)
    assert scales["b"] - scales["a"] == pytest.approx(3, abs=room)


def test_what_reading_values_cannot_see_is_said_unless_a_digest_can(model: Path, tmp_path: Path) -> None:
    ((_, sentence),) = findings(model, 15)
    assert "two matrices of one shape that were swapped" in sentence
    ropewalk.extend(model, window=512, out=tmp_path / "longer")
    ((_, sentence),) = findings(tmp_path / "longer", 15)
    assert "swapped" not in sentence
