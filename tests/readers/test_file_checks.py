"""What doctor says of the files beside a config: weights, tokenizers, adapters, files that are not one whole set."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from safetensors.torch import load_file, save_file

import shelf
from diagnosed import write, wrong
from ropewalk import testing
from ropewalk.readers.examine import examine
from ropewalk.training import lora


def test_weights_of_another_dtype_than_the_config_names_are_noted(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    assert {finding.verdict for finding in examine(model).findings if finding.number == 10} == {"ok"}
    (said,) = [f for f in examine(write(model, config | {"dtype": "float16"})).findings if f.number == 10]
    assert said.verdict == "note" and "headers say float32 and the config float16" in said.sentence


def test_weights_of_several_dtypes_are_noted_though_most_are_of_the_configs(tmp_path: Path) -> None:
    model = testing.tiny_directory(tmp_path / "model", window=64)
    weights = load_file(model / "model.safetensors")
    norms = [name for name in weights if "input_layernorm" in name]
    save_file(
        {name: value.half() if name in norms else value for name, value in weights.items()},
        model / "model.safetensors",
        {"format": "pt"},
    )
    (said,) = [finding for finding in examine(model).findings if finding.number == 10]
    assert (
        said.verdict == "note"
        and f"{len(weights) - len(norms)} tensors float32, {len(norms)} float16 ({norms[0]})" in said.sentence
    )


def test_a_tokenizer_of_transformers_5_is_found_and_mended(tmp_path: Path) -> None:
    tokenizer = dict(model=dict(type="BPE", vocab={}, merges=[]), added_tokens=[])
    about = dict(tokenizer_class="TokenizersBackend", extra_special_tokens=["<a>"], model_max_length=4096)
    write(tmp_path, shelf.extended(), tokenizer_config=about, tokenizer=tokenizer)
    assert wrong(examine(tmp_path)) == {3, 5}
    after = examine(tmp_path, fix=True)
    assert not after.wrong and len(after.kept) == 1
    mended = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert mended == dict(
        tokenizer_class="PreTrainedTokenizerFast", additional_special_tokens=["<a>"], model_max_length=16384
    )


def test_a_tokenizer_that_cannot_be_mended_stays(tmp_path: Path) -> None:
    write(tmp_path, shelf.llama_2(), tokenizer_config=dict(tokenizer_class="TokenizersBackend"))
    (tmp_path / "tokenizer.model").write_bytes(b"\0")
    assert wrong(examine(tmp_path, fix=True)) == {5}
    write(tmp_path, shelf.llama_2(), tokenizer_config=dict(tokenizer_class="LlamaTokenizer"))
    (tmp_path / "tokenizer.json").write_text("{")
    assert wrong(examine(tmp_path)) == {5}


def adapter(base: str | None, kind: str = "LORA") -> dict[str, object]:
    return dict(peft_type=kind, base_model_name_or_path=base, r=8, task_type="CAUSAL_LM")


def test_an_adapter_says_what_it_belongs_to(tmp_path: Path) -> None:
    base = write(tmp_path / "base", shelf.llama_2())
    extended = write(tmp_path / "extended", shelf.extended())
    directory = tmp_path / "adapter"
    cases = [
        (adapter(None, lora.TYPE), shelf.extended(), set()),
        (adapter(str(base), lora.TYPE), shelf.extended(), set()),  # what `train --mode lora` writes
        (adapter(str(extended)), shelf.extended(), set()),
        (adapter(str(base)), shelf.extended(), {8}),  # peft would load it on a model that rotates otherwise
        (adapter(7), shelf.extended(), {8}),
    ]
    for about, config, expected in cases:
        write(directory, config, adapter_config=about)
        safetensors(directory / "adapter_model.safetensors", a=(2,))
        assert wrong(examine(directory)) == expected, about
    (directory / "adapter_model.safetensors").unlink()
    assert wrong(examine(directory)) == {8}


def test_an_adapter_without_config_and_base_is_of_no_model(tmp_path: Path) -> None:
    safetensors(tmp_path / "adapter_model.safetensors", a=(2,))
    (tmp_path / "adapter_config.json").write_text(json.dumps(adapter(None)))
    assert wrong(examine(tmp_path)) == {8}


def safetensors(path: Path, **shapes: tuple[int, ...]) -> None:
    """A safetensors file of the numbers 0, 1, 2, … in float32: a matrix of zeros alone would be wrong."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4 * (shape[0] * (shape[1] if len(shape) > 1 else 1))
        header[name.replace("__", ".")] = dict(dtype="F32", shape=list(shape), data_offsets=[end, end + size])
        end += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack(f"<{end // 4}f", *range(end // 4)))


def test_a_gguf_file_in_a_directory_is_named_as_what_holds_the_weights(tmp_path: Path) -> None:
    (write(tmp_path, shelf.llama_2()) / "model.gguf").write_bytes(b"GGUF")
    [files] = [finding for finding in examine(tmp_path).findings if finding.number == 10]
    assert files.verdict == "not checked" and f"ropewalk doctor {tmp_path / 'model.gguf'}" in files.sentence


def test_files_that_are_not_one_whole_set_are_wrong(tmp_path: Path) -> None:
    directory = write(tmp_path, {**shelf.llama_2(), "num_hidden_layers": 1})  # a file of one tensor holds no more
    safetensors(directory / "model.safetensors", model__embed_tokens__weight=(8, 4))
    assert wrong(examine(directory)) == set()
    safetensors(directory / "model-00001-of-00001.safetensors", model__embed_tokens__weight=(8, 4))
    assert wrong(examine(directory)) == {10}
    (directory / "model-00001-of-00001.safetensors").unlink()
    (directory / "model.safetensors").write_bytes((directory / "model.safetensors").read_bytes()[:-3])
    assert wrong(examine(directory)) == {10}
    (directory / "model.safetensors").unlink()
    index = dict(weight_map={"model.embed_tokens.weight": "model-00001-of-00002.safetensors"})
    (directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert wrong(examine(directory)) == {10}
