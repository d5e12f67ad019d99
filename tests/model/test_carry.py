"""What a new checkpoint takes over: the tokenizer's own files, each tensor's dtype, and nothing that a user would edit in two places."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from pathlib import Path

import pytest
import sentencepiece
import torch
import transformers
from safetensors.torch import load_file, save_file

from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, read_json, write_json
from ropewalk.exports import export
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.save import save_model, stored_dtypes
from ropewalk.training import train

#: As a model of 2023 has them, with keys that transformers 5 no longer writes.
TOKENIZER_CONFIG = {
    "tokenizer_class": "LlamaTokenizer",
    "legacy": False,
    "add_bos_token": True,
    "add_eos_token": False,
    "unk_token": "<unk>",
    "model_max_length": 1000000000000000019884624838656,
    "chat_template": "{% for m in messages %}{{ m.content }}{% endfor %}",
}
SMALL = {
    "special_tokens_map.json": '{"bos_token":"<s>",  "unk_token":"<unk>"}',
    "added_tokens.json": "{}",
    "chat_template.jinja": "{{ messages }}",
    "additional_chat_templates/tools.jinja": "{{ tools }}",
    "LICENSE": "as is",
    "README.md": "# the original",
}
LEFT = {
    "stages.jsonl": "{}",
    "training_args.bin": "",
    "pytorch_model.bin": "",
    "trainer_state.json": "{}",
    ".git": "",
    "modeling_x.py": "x = 1",
    "run.yaml": "command: train",
    "export.json": "{}",
    "config.json.before-fix-1": "{}",
    "tokenizer_config.json.before-fix-2": "{}",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer is a SentencePiece file and nothing else; norms are float32, the rest is bfloat16."""
    model = testing.tiny_directory(tmp_path_factory.mktemp("made") / "model", window=64, vocab_size=400)
    text = model.parent / "text.txt"
    text.write_text("\n".join(testing.prose(40, seed) for seed in range(60)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(model / "tokenizer"),
        vocab_size=300,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
    )
    for name in ("tokenizer.json", "tokenizer.vocab"):
        (model / name).unlink()
    (model / "tokenizer_config.json").write_text(json.dumps(TOKENIZER_CONFIG))
    for name, content in {**SMALL, **LEFT}.items():
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text(content)
    weights = load_file(model / "model.safetensors")
    kept = {name: value if "norm" in name else value.bfloat16() for name, value in weights.items()}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    return model


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


def dtypes(model: Path) -> dict[str, torch.dtype]:
    return {name: value.dtype for name, value in load_file(model / "model.safetensors").items()}


def carried(source: Path, made: Path) -> None:
    """`made` has the small files of `source` to the byte, and of its tokenizer_config.json all but the length."""
    for name in ("tokenizer.model", *SMALL):
        if name != "README.md":
            assert (made / name).read_bytes() == (source / name).read_bytes(), name
    before, after = (json.loads((path / "tokenizer_config.json").read_text()) for path in (source, made))
    assert after == {**before, "model_max_length": 128}
    left = {**LEFT, "tokenizer.json": None}  # a training writes its own run.yaml
    assert not [name for name in left if (made / name).exists() and (made / name).read_text() == left[name]]
    assert {path.name for path in made.iterdir()} & {*left} <= {"run.yaml"}
    assert (made / "README.base.md").read_text() == "# the original" and "128 tokens" in (
        made / "README.md"
    ).read_text()
    text = testing.prose(30, 7)
    assert load_tokenizer(made)(text).input_ids == transformers.AutoTokenizer.from_pretrained(source)(text).input_ids


@pytest.mark.filterwarnings("ignore:.*pickled files beside")
def test_extend_carries_a_sentencepiece_tokenizer_and_shares_nothing_that_is_edited(model: Path) -> None:
    out = model.parent / "longer"
    extend(model, window=128, method="linear", out=out)
    carried(model, out)
    linked = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.stat().st_nlink > 1}
    assert linked == {"model.safetensors"}
    with open(out / "README.md", "a") as card:
        card.write("mine")
    assert (model / "README.md").read_text() == "# the original"
    extend(out, window=256, out=model.parent / "longest")
    edited = (out / "README.md").read_text()  # and so the card of the model that was given
    assert (model.parent / "longest/README.base.md").read_text() == edited and edited.endswith("mine")
    history = (model.parent / "longest/README.md").read_text()
    assert "| 64 | 128 | linear | 2 |" in history and "| 128 | 256 | linear | 2 |" in history


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_r1_a_trained_models_tokenizer_files_are_the_sources(mode: str, model: Path) -> None:
    out = model.parent / "trained"
    data = model.parent / "text.txt"
    data.write_text(testing.prose(600))
    train(model, data=data, window=128, steps=2, batch_size=1, save_every=1, mode=mode, out=out, allow_short=True)
    for checkpoint in (out, out / "checkpoints/step-000001", out / "checkpoints/step-000002"):
        carried(model, checkpoint)
        # Norms are float32 on purpose; everything else has the width it had.
        assert dtypes(checkpoint) == dtypes(model)
    edited, kept = out / "README.md", out / "checkpoints/step-000002/README.md"
    assert not os.path.samefile(edited, kept) and "Trained to 128 tokens (2 steps)" in edited.read_text()


def linked_into(directory: Path, place: Path, *, only: tuple[str, ...] = ()) -> None:
    """Files moved to a place, and relative links to them left behind."""
    for path in [path for path in directory.rglob("*") if path.is_file() and (not only or path.name in only)]:
        target = place / path.relative_to(directory).as_posix().replace("/", "-")
        path.rename(target)
        path.symlink_to(os.path.relpath(target, path.parent))


@pytest.mark.parametrize("write", [extend, export])
def test_a_link_out_of_the_directory_is_left_behind_and_named(write, model: Path) -> None:
    """Who unpacks a model of others must not find a file of their own in what is made of it; of weights a link is as good as a file."""
    names = ("LICENSE", "special_tokens_map.json", "generation_config.json", "README.md", "tools.jinja")
    (model / "generation_config.json").write_text("{}")
    elsewhere = model.parent / "elsewhere"
    elsewhere.mkdir()
    linked_into(model, elsewhere, only=(*names, "model.safetensors"))
    (model / "inside").symlink_to("chat_template.jinja")
    options = {"window": 128} if write is extend else {"reader": "transformers"}
    with pytest.warns(UserWarning) as warned:
        write(model, out=model.parent / "out", **options)
    sentences = [str(each.message) for each in warned if "is a link out of the model's directory" in str(each.message)]
    assert {Path(each.split(" is a link")[0]).name for each in sentences} == {*names}
    written = {path.name for path in (model.parent / "out").rglob("*") if path.is_file()}
    assert not written & {*names, "README.base.md"} - {"README.md"} and {"model.safetensors", "inside"} <= written
    assert write is export or (model.parent / "out/README.md").read_text() != "# the original"


@pytest.mark.filterwarnings("ignore:.*(pickled files beside|its code|code that comes)")
def test_a_hub_caches_links_into_its_blobs_are_the_models_own_files(model: Path) -> None:
    repository = model.parent / "models--o--n"
    snapshot, blobs = repository / "snapshots/0123", repository / "blobs"
    for name in LEFT:
        (model / name).unlink()
    shutil.copytree(model, snapshot)
    blobs.mkdir()
    linked_into(snapshot, blobs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extend(snapshot, window=128, method="linear", out=model.parent / "longer")
    carried(model, model.parent / "longer")


def test_r1_a_tokenizer_that_only_transformers_5_knows_gets_a_class_that_4_knows(tmp_path: Path) -> None:
    """What transformers 5 saved (SmolLM2 made from its GGUF, say) opens in version 4 once it is extended; the tokens stay the same."""
    model, longer = testing.tiny_directory(tmp_path / "model", window=64), tmp_path / "longer"
    config = read_json(model / "tokenizer_config.json", what="")
    written = config | {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True}
    write_json(model / "tokenizer_config.json", written)
    extend(model, window=128, out=longer)
    carried_config = read_json(longer / "tokenizer_config.json", what="")
    assert carried_config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert not {"backend", "is_local"} & set(carried_config)
    assert (longer / "tokenizer.json").read_bytes() == (model / "tokenizer.json").read_bytes()


def test_each_tensor_is_saved_in_its_dtype_unless_one_is_asked_for(model: Path) -> None:
    loaded = load_model(model, dtype="float32")
    source = Checkpoint.open(model)
    save_model(loaded, None, model.parent / "same", source=source)
    assert dtypes(model.parent / "same") == dtypes(model)
    assert read_config(model.parent / "same")["dtype"] == "bfloat16"
    save_model(loaded, None, model.parent / "half", source=source, dtype=torch.float16)
    assert set(dtypes(model.parent / "half").values()) == {torch.float16}


def test_dtypes_are_kept_where_files_name_tensors_otherwise_than_the_model(tmp_path: Path) -> None:
    """Mixtral's experts are one tensor in memory and two an expert on disk, and its router has another name there."""
    shared = dict(num_hidden_layers=1, hidden_size=64, intermediate_size=64, vocab_size=258, num_local_experts=2)
    mixtral = transformers.MixtralForCausalLM(transformers.MixtralConfig(**shared, num_attention_heads=4, head_dim=16))
    mixtral.save_pretrained(tmp_path / "a")
    weights = load_file(tmp_path / "a/model.safetensors")
    wide = {name for name in weights if "gate.weight" in name or "norm" in name}
    stored = {name: value if name in wide else value.bfloat16() for name, value in weights.items()}
    save_file(stored, tmp_path / "a/model.safetensors", metadata={"format": "pt"})
    loaded = load_model(tmp_path / "a")
    save_model(loaded, testing.byte_tokenizer(), tmp_path / "b", source=Checkpoint.open(tmp_path / "a"))
    assert wide and dtypes(tmp_path / "b") == dtypes(tmp_path / "a")
    assert set(stored_dtypes(loaded, loaded.state_dict(), Checkpoint.open(tmp_path / "a"))) == set(loaded.state_dict())


def test_a_tokenizer_that_has_no_files_is_saved_for_transformers_4_too(tmp_path: Path) -> None:
    save_model(testing.tiny(window=64), testing.byte_tokenizer(64), tmp_path / "a")
    said = json.loads((tmp_path / "a/tokenizer_config.json").read_text())
    assert said["tokenizer_class"] == "PreTrainedTokenizerFast" and not said.keys() & {"backend", "is_local"}
    assert load_tokenizer(tmp_path / "a")("rope").input_ids == testing.byte_tokenizer()("rope").input_ids
