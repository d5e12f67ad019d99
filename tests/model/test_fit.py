"""Tensors against the model that the config describes, and weights that are no numbers: said before anything is computed with them."""

from __future__ import annotations

import json
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ropewalk import doctor, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.model.fit import left_out, not_finite
from ropewalk.model.load import load_model
from ropewalk.model.save import save_model

LAYER = "model.layers.0."


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.tiny_directory(tmp_path_factory.mktemp("made") / "model", window=64)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def add(**tensors: torch.Tensor | None) -> Any:
    """Rewrite the weights with tensors added, or without those that are None."""

    def change(model: Path) -> None:
        weights = load_file(model / "model.safetensors") | tensors
        kept = {name: value.clone() for name, value in weights.items() if value is not None}
        save_file(kept, model / "model.safetensors", metadata={"format": "pt"})

    return change


def config(**keys: Any) -> Any:
    def change(model: Path) -> None:
        content = json.loads((model / "config.json").read_text()) | keys
        (model / "config.json").write_text(json.dumps(content))

    return change


ONE = torch.ones(64)
REFUSED = {
    "truth values for weights": (
        add(**{f"{LAYER}mlp.up_proj.weight": torch.ones(128, 64, dtype=torch.bool)}),
        "weights are fractions, but 1 tensor is stored in .* as BOOL",
    ),
    "whole numbers for a norm": (
        add(**{"model.norm.weight": torch.ones(64, dtype=torch.int64)}),
        "weights are fractions, but 1 tensor is stored in .* as I64",
    ),
    "a bias that the config drops": (
        add(**{f"{LAYER}self_attn.q_proj.bias": ONE}),
        r"no place for 1 tensor .*q_proj\.bias",
    ),
    "a norm of another family": (add(**{f"{LAYER}self_attn.q_norm.weight": ONE}), r"q_norm\.weight"),
    "a bias of the head": (add(**{"lm_head.bias": ONE}), r"lm_head\.bias"),
    "fewer layers than there are": (config(num_hidden_layers=1), r"no place for 9 tensors .*model\.layers\.1"),
    "more layers than there are": (config(num_hidden_layers=3), r"lacks 9 tensors"),
    "a tensor gone": (add(**{"model.norm.weight": None}), r"lacks 1 tensor .*model\.norm\.weight"),
    "another width": (
        config(intermediate_size=96),
        r"other shapes of 6 tensors: .* 64 × 128 in the file and 64 × 96",
    ),
    "another vocabulary": (config(vocab_size=300), "other shapes of 2 tensors: .* 258 × 64 in the file and 300 × 64"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_tensors_that_do_not_fit_the_config_are_refused_by_loading_and_extending(name: str, model: Path) -> None:
    change, sentence = REFUSED[name]
    change(model)
    for use in (lambda: load_model(model), lambda: extend(model, window=128, out=model.parent / "longer")):
        with pytest.raises(UserError, match=sentence):
            use()
    assert not (model.parent / "longer").exists()


def test_a_part_that_the_model_does_not_have_is_named_and_left(model: Path) -> None:
    add(**{"v_head.summary.weight": ONE, "reward.weight": ONE})(model)
    before = model.parent / "before"
    for use in (lambda: load_model(model), lambda: extend(model, window=128, out=before)):
        with pytest.warns(UserWarning, match=r"2 tensors .*reward\.weight, v_head.* are not used"):
            use()


@pytest.mark.parametrize(
    ("change", "verdict", "said"),
    [
        ({}, "ok", "none is missing"),
        ({"model.norm.weight": None}, "wrong", "lacks 1 tensor"),
        ({f"{LAYER}self_attn.q_proj.bias": ONE}, "wrong", "no place for 1 tensor"),
        ({"v_head.weight": ONE}, "note", "they are not used"),
    ],
)
def test_doctor_holds_tensors_against_the_model(change: dict[str, Any], verdict: str, said: str, model: Path) -> None:
    add(**change)(model)
    [finding] = [finding for finding in doctor(model).findings if finding.check == "tensors"]
    assert finding.verdict == verdict and said in finding.sentence


def test_an_open_window_is_no_fault_and_the_question_is_asked_once(model: Path) -> None:
    """Rotation and tensors are the same by either reading."""
    config(rope_scaling={"type": "linear", "factor": 4.0}, rope_theta=1e4, max_sequence_length=17)(model)
    findings = doctor(model).findings
    assert {each.verdict for each in findings if each.number in (9, 12)} == {"ok"}
    assert [each.number for each in findings if "--current-window" in each.sentence] == [4]
    [lengths] = [each.sentence for each in findings if each.number == 3 and each.verdict == "not checked"]
    assert "the window is open" in lengths and "max_position_embeddings 64, max_sequence_length 17" in lengths


#: Family → its config here, and what its published checkpoints hold beside the model: on transformers' own list (Qwen3-Next), or one
#: layer more than the config counts, which that list knows by the number it has in one size (DeepSeek-V3's 61).
PREDICTORS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "qwen3_next": ({}, ["mtp.fc.weight", "mtp.layers.0.mlp.experts.0.up_proj.weight"]),
    "deepseek_v3": (
        dict(num_nextn_predict_layers=1),
        ["model.layers.2.eh_proj.weight", "model.layers.2.mlp.experts.0.up_proj.weight"],
    ),
}


def stored(directory: Path) -> dict[str, torch.Tensor]:
    """Every tensor of a checkpoint as its files have it."""
    return {name: value for file in directory.glob("*.safetensors") for name, value in load_file(file).items()}


@pytest.mark.parametrize("family", PREDICTORS)
def test_layers_that_predict_several_tokens_are_named_and_carried_by_all_that_writes(
    family: str, tmp_path: Path
) -> None:
    keys, names = PREDICTORS[family]
    model = testing.tiny_directory(tmp_path / "model", family, **keys)
    before, beside = stored(model), {name: torch.randn(3, 5).to(torch.bfloat16) for name in names}
    add(**beside)(model)
    said = rf"leaves 2 tensors .*{re.escape(names[0])}.*neither used nor trained, and stand as they are"
    with pytest.warns(UserWarning, match=said):
        extend(model, window=128, out=tmp_path / "longer")
    with pytest.warns(UserWarning, match=said):
        loaded = load_model(tmp_path / "longer")
    source = Checkpoint.open(tmp_path / "longer")
    save_model(loaded, None, tmp_path / "saved", positions=source.rope, source=source)
    for directory in (tmp_path / "longer", tmp_path / "saved"):
        found, index = stored(directory), Checkpoint.open(directory).files
        assert found.keys() == before.keys() | beside.keys() and all(
            torch.equal(found[name], beside[name]) for name in beside
        )
        assert index.index is None or index.weight_map.keys() == found.keys()
    with pytest.warns(UserWarning, match=said):
        again = load_model(tmp_path / "saved")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), loaded.parameters(), strict=True))


def test_a_layer_of_the_models_own_is_no_predictor_whatever_number_it_has() -> None:
    """transformers leaves out layer 46 of GLM-4.5-Air (46 layers and a predictor), which the larger GLM-4.5 has as a layer."""
    small = dict(hidden_size=16, intermediate_size=16, moe_intermediate_size=8, vocab_size=32, n_routed_experts=2)
    config = transformers.Glm4MoeConfig(num_hidden_layers=47, num_attention_heads=1, num_key_value_heads=1, **small)
    with torch.device("meta"):
        model = transformers.Glm4MoeForCausalLM(config)
    own, predictor = (f"model.layers.{layer}.mlp.experts.0.up_proj.weight" for layer in (46, 92))
    checkpoint = Checkpoint("GLM-4.5", Path(), config.to_dict())
    vars(checkpoint)["headers"] = {"model.safetensors": {own: {}, predictor: {}}}
    assert left_out(model, checkpoint) == {predictor}


def test_buffers_that_every_model_computes_are_not_worth_a_word(model: Path) -> None:
    add(**{f"{LAYER}self_attn.rotary_emb.{name}": ONE for name in ("inv_freq", "cos_cached")})(model)
    add(**{f"{LAYER}attention.masked_bias": ONE})(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(model)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_weight_that_is_no_number_is_found(value: float, dtype: torch.dtype) -> None:
    sound, broken = torch.full((7, 5), 6e4, dtype=dtype), torch.zeros(7, 5, dtype=dtype)
    broken[3, 2] = value
    tensors = [("sound", sound), ("broken", broken), ("whole", torch.arange(3)), ("empty", torch.zeros(0))]
    assert not_finite(tensors) == ["broken"]  # 35 × 6e4 is beyond float16: a sum would be infinite


def test_weights_that_are_nan_are_refused_at_the_start_and_before_they_are_saved(model: Path) -> None:
    loaded = load_model(model)
    name = f"{LAYER}mlp.up_proj.weight"
    loaded.get_parameter(name).data[0, 0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinity .*up_proj.*nothing was written"):
        save_model(loaded, None, model.parent / "saved")
    loaded.get_parameter(name).data[0, 0] = 1e6
    with pytest.raises(UserError, match="nothing was written"):  # a number, but none of float16
        save_model(loaded, None, model.parent / "saved", dtype=torch.float16)
    assert not (model.parent / "saved").exists()
    add(**{name: torch.full((128, 64), float("nan"))})(model)
    with pytest.raises(UserError, match="1 tensor with NaN or infinity .*fetch it again"):
        load_model(model)


@pytest.mark.parametrize("content", [b"[]", b"\xff\xfe", b"[" * 100_000, b"{}"])
def test_a_tokenizer_that_no_reader_opens_is_not_carried_on(content: bytes, model: Path) -> None:
    (model / "tokenizer.json").write_bytes(content)
    with pytest.raises(UserError, match="tokenizer.json (holds no tokenizer|cannot be read)"):
        extend(model, window=128, out=model.parent / "longer")
    assert not (model.parent / "longer").exists()


def test_weights_outside_the_directory_and_configs_that_break_transformers_get_a_sentence(model: Path) -> None:
    config(transformers_weights="../elsewhere.safetensors")(model)
    with pytest.raises(UserError, match="weights lie in their checkpoint's directory"):
        load_model(model)
    config(transformers_weights=None, quantization_config="4 bit")(model)
    with pytest.raises(UserError, match="transformers cannot load"):
        load_model(model)
