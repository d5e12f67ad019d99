"""Every small model of testing.py, from published configs: extended, trained for a step, measured, read again; or refused by name.

The oracles are plain transformers: its own logits of the written checkpoint, at positions twice as far, and its own loss.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor

from ropewalk import testing
from ropewalk.checkpoint import families
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.family import Family
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.model.architecture import auto_class, decoder_of
from ropewalk.model.extend import extend
from ropewalk.model.layers import decoder_layers
from ropewalk.model.load import load_model
from ropewalk.model.proof import _outputs
from ropewalk.model.small import _spread
from ropewalk.training import train

WINDOW, LONGER = 64, 128
REFUSED = {
    "mistral-v0.1": "attention slides in every layer .*--raise-sliding-window",
    "phi-3-mini-4k": "attention slides in every layer .*--raise-sliding-window",
    "starcoder2-7b": "attention slides in every layer .*--raise-sliding-window",
    "cohere2": "only layers rotate that see a part of the window",
    "exaone4": "only layers rotate that see a part of the window",
    "llama4_text": "only layers rotate that see a part of the window",
    "falcon-rw": "this falcon has ALiBi",
}
#: Scaled as published, from an original window of 16: by what they are extended further.
SCALED: dict[str, dict[str, Any]] = {
    "llama-3.1": {"method": "auto"},
    "phi-3-mini-128k": {"method": "longrope", "factors": [2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 8.0]},
    "phi-4-mini": {"method": "longrope", "factors": [2.0, 2.4, 4.0, 5.0, 6.0, 8.0]},
    "gpt-oss-20b": {"method": "auto"},
    "deepseek-v2-lite": {"method": "auto"},
    "olmo-3-7b": {"method": "auto"},
    "ministral-3": {"method": "auto"},
}
#: Whose logits hold more than scaled layers: sliding ones with a RoPE of their own.
OWN_ROPE = {"gemma3_text", "gemma4_text", "olmo3", "gemma-3-4b"}


def _plain(directory: Path) -> Any:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return auto_class(config).from_pretrained(directory, dtype=torch.float32).eval()


def _written(directory: Path, name: str) -> Path:
    """A small model with weights large enough that its attention is far from even."""
    testing.tiny_directory(directory, name, WINDOW)
    model = testing.tiny(name, WINDOW)
    with torch.random.fork_rng():
        _spread(model)
    model.save_pretrained(directory)
    return directory


@torch.no_grad()
def _logits(model: Any, positions: Tensor) -> Tensor:
    ids = (torch.arange(len(positions)) * 5 % 250)[None]
    return model(input_ids=ids, position_ids=positions[None], attention_mask=torch.ones_like(ids)).logits


@pytest.mark.parametrize("name", [name for name in testing.PUBLISHED if name not in REFUSED])
def test_a_published_model_is_extended_trained_measured_and_read_again(name: str, tmp_path: Path) -> None:
    original = _written(tmp_path / "original", name)
    info = extend(original, window=LONGER, out=tmp_path / "longer", **SCALED.get(name, {"method": "linear"}))
    assert (info.original_window, info.window) == (16 if name in SCALED else WINDOW, LONGER)
    before, after, positions = _plain(original), _plain(tmp_path / "longer"), torch.arange(32)
    expected = _logits(before, positions)
    moved = (_logits(after, positions) - expected).abs().max()
    assert moved > 0.01 * expected.std(), "scaling has to show"
    if name not in OWN_ROPE | SCALED.keys():
        # Phases of up to 62 radians in float32 (4e-6 each) are a few ten thousandths of what scaling by 2 moves.
        assert (_logits(after, 2 * positions) - expected).abs().max() < 2e-3 * moved
    text = [Document("text", testing.prose(200))]
    train(tmp_path / "longer", data=text, window=LONGER, steps=1, batch_size=1, learning_rate=1e-3, out=tmp_path / "t")
    trained = _plain(tmp_path / "t")
    short = testing.prose(60)[: LONGER - 1]  # a byte a token, and one for BOS
    (row,) = perplexity(tmp_path / "t", data=[Document("short", short)], windows=[LONGER], stride=64)
    ids = testing.byte_tokenizer()(short, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = torch.nn.functional.cross_entropy(trained(input_ids=ids).logits[0, :-1].double(), ids[0, 1:])
    assert row.perplexity == pytest.approx(float(loss.exp()), rel=1e-5)
    rope = Checkpoint.open(tmp_path / "t").rope
    assert (rope.window, rope.scaling, rope.block["steps"]) == (LONGER, info.scaling, 1)


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_extended_is_refused_by_name(name: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "original", name, WINDOW)
    with pytest.raises(UserError, match=REFUSED[name]):
        extend(tmp_path / "original", window=LONGER, out=tmp_path / "longer")
    assert not (tmp_path / "longer").exists()


@pytest.mark.parametrize("name", [name for name in testing.PUBLISHED if "text_config" not in testing._SETTINGS[name]])
def test_layers_rotate_and_reach_as_it_is_said(name: str) -> None:
    """Against the layers themselves: each is given the same states, at other positions, and with another state so many tokens back."""
    model = testing.tiny(name, WINDOW)
    if name == "falcon-rw":
        return
    checkpoint = Checkpoint(name, Path(), json.loads(model.config.to_json_string(use_diff=False)))
    tokens = torch.arange(48)
    near, far = _outputs(model, tokens), _outputs(model, 2 * tokens)
    layout = checkpoint.layers.within(48)
    for layer, one, other in zip(layout.layers, near, far, strict=False):
        assert (not torch.equal(one, other)) == layer.rotates
    reaches = [_reach(model, index) for index, layer in enumerate(layout.layers) if layer.attends]
    assert reaches == [layer.reach for layer in layout.attention]


def _reach(model: Any, index: int) -> int | None:
    """Tokens that a layer sees: how far back a changed state changes the last output; None if to the first of 48, three chunks of 16."""
    width, seen = model.config.hidden_size, []

    def outputs(changed: int | None) -> Tensor:
        states = torch.randn(1, 48, width, generator=torch.Generator().manual_seed(0))
        if changed is not None:
            states[0, changed] += torch.randn(width, generator=torch.Generator().manual_seed(1))
        layer = decoder_layers(model)[index]
        hook = layer.register_forward_pre_hook(
            lambda _, args, kwargs: (
                ((states, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": states})
            ),
            with_kwargs=True,
        )
        noted: list[Tensor] = []
        note = layer.register_forward_hook(lambda _, __, out: noted.append(out[0] if isinstance(out, tuple) else out))
        _logits(model, torch.arange(48))
        hook.remove(), note.remove()
        return noted[0].reshape(48, -1)[-1]

    same = outputs(None)
    seen = [back for back in (0, 14, 15, 16, 17, 47) if not torch.equal(outputs(47 - back), same)]
    return None if max(seen) == 47 else max(seen) + 1


def test_R5_far_tokens_reach_the_last_logits_once_the_window_is_raised(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "mistral-v0.1", WINDOW)
    info = extend(original, window=LONGER, out=tmp_path / "longer", raise_sliding_window=True)
    # Layers saw 16 tokens, whatever max_position_embeddings said: no distance beyond that was ever trained.
    assert (info.original_window, info.window, info.factor) == (16, LONGER, 8.0)
    ids = torch.randint(2, 250, (1, LONGER))
    other = ids.clone()
    other[0, :64] = torch.randint(2, 250, (64,))
    moved = {}
    for name in ("original", "longer"):
        model = _plain(tmp_path / name)
        with torch.no_grad():
            moved[name] = float((model(ids).logits[0, -1] - model(other).logits[0, -1]).abs().max())
    assert moved["original"] == 0.0 and moved["longer"] > 1e-4
    train(original, data=[Document("text", testing.prose(200))], window=LONGER, steps=1, batch_size=1, out=tmp_path / "t",
          raise_sliding_window=True)  # fmt: skip
    assert Checkpoint.open(tmp_path / "t").rope.scaling.factor == 8.0


@pytest.mark.parametrize("name", ["cohere2", "mistral-v0.1"])
def test_R5_what_the_refusal_advises_works(name: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", name, WINDOW)
    text = [Document("text", testing.prose(200))]
    info = train(original, data=text, window=LONGER, steps=1, batch_size=1, method="plain", out=tmp_path / "out")
    assert (info.window, info.method) == (LONGER, "plain")


@pytest.mark.parametrize(
    ("name", "model_type", "sentence"),
    [
        ("falcon-rw", "falcon", "does not rotate"),
        ("cohere2", "cohere2", "full_attention.* does not rotate"),
        ("mistral-v0.1", "mistral", "sees a part of the window only"),
        ("smollm3", "smollm3", "does not rotate"),
    ],
)
def test_no_silent_family_the_proof_finds_what_the_table_does_not_know(
    name: str, model_type: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    testing.tiny_directory(tmp_path / "original", name, WINDOW)
    monkeypatch.setitem(families.FAMILIES, model_type, Family())
    with pytest.raises(UserError, match=f"small random copy of the model, and this copy of a {model_type}.*{sentence}"):
        extend(tmp_path / "original", window=LONGER, out=tmp_path / "longer")
    assert not (tmp_path / "longer").exists()


def test_a_factor_that_is_no_whole_number_is_proved_by_the_next_that_is(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", window=WINDOW)
    assert extend(original, window=100, out=tmp_path / "longer").factor == 100 / 64


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model_type": "llama9"}, "has no family 'llama9'"),
        ({"model_type": "vit"}, "vit is neither"),
        ({"model_type": "bloom"}, "bloom has ALiBi"),
    ],
)
def test_no_silent_family_one_that_cannot_be_a_model_here_is_told_so(
    changes: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    directory = testing.tiny_directory(tmp_path / "original", window=WINDOW)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    (directory / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    with pytest.raises(UserError, match=sentence):
        extend(directory, window=LONGER, out=tmp_path / "longer")
    with pytest.raises(UserError, match=sentence):
        load_model(directory)


def test_a_multimodal_config_without_a_section_of_text_is_extended_where_its_keys_stand(tmp_path: Path) -> None:
    """As Qwen2-VL and Qwen2.5-VL are published; read back by transformers alone."""
    text = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2)
    text |= dict(vocab_size=258, max_position_embeddings=WINDOW, rope_theta=1e6, pad_token_id=0)
    sizes = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=64)
    config = dict(
        model_type="qwen2_5_vl", rope_scaling=dict(type="mrope", mrope_section=[2, 3, 3]), vision_config=sizes
    )
    text |= dict(bos_token_id=1, eos_token_id=2)
    made = transformers.AutoConfig.for_model(**json.loads(json.dumps(config | text)))
    transformers.AutoModelForImageTextToText.from_config(made).save_pretrained(tmp_path / "a")
    (tmp_path / "a/config.json").write_text(json.dumps(config | text), encoding="utf-8")
    assert extend(tmp_path / "a", window=LONGER, method="linear", out=tmp_path / "b").factor == 2.0
    written = json.loads((tmp_path / "b/config.json").read_text(encoding="utf-8"))
    assert "text_config" not in written and written["max_position_embeddings"] == LONGER
    assert written["rope_scaling"]["mrope_section"] == [2, 3, 3]
    tables = [
        transformers.AutoModelForImageTextToText.from_pretrained(tmp_path / name).get_decoder().rotary_emb.inv_freq
        for name in "ab"
    ]
    torch.testing.assert_close(tables[0], 2 * tables[1])


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_training_changes_the_language_model_alone_and_carries_the_rest_whole(mode: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "mistral-small-3.1", WINDOW)
    text = [Document("text", testing.prose(200))]
    train(
        original, data=text, window=LONGER, steps=1, batch_size=1, learning_rate=1e-2, mode=mode, out=tmp_path / "out"
    )
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("original", "out"))
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("vision" not in name and "projector" not in name for name in changed)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    encoders = [
        transformers.AutoConfig.from_pretrained(place).vision_config.to_dict() for place in (original, tmp_path / "out")
    ]
    assert {**encoders[0], "dtype": None} == {**encoders[1], "dtype": None}
    assert config.text_config.rope_parameters["factor"] == 2.0
    loaded = load_model(tmp_path / "out")
    assert type(loaded).__name__ == "Mistral3ForConditionalGeneration" and decoder_of(loaded) is not loaded
