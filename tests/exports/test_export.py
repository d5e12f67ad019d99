"""A checkpoint for each reader: the promised window by that reader's rule, the same rotation and weights, refusals."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers
import yaml

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.files import read_config, write_json
from ropewalk.checkpoint.model_card import is_theirs, say_export
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model
from ropewalk.readers.rules import READERS

IDS = torch.arange(192)[None] % 250


def logits(directory):
    with torch.no_grad():
        return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)(IDS).logits


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """name → directory: a family extended from 64 to 192 tokens by a method."""
    place = tmp_path_factory.mktemp("models")
    made = {}
    for family in ("llama", "qwen2", "gemma3_text", "gpt_neox", "phi3"):
        base = testing.tiny_directory(place / family, family)
        for method in ("linear", "ntk") + (("yarn",) if family in ("llama", "qwen2") else ()):
            name = f"{family}-{method}"
            extend(base, window=192, method=method, out=place / name)
            made[name] = place / name
    return made


# Which length each reader wants is readers.md's section 3, checked there by running vLLM 0.32 and SGLang's own function: vLLM and
# SGLang multiply by a linear factor (192 / 64), but not for Gemma 3, and by no other scaling's.
@pytest.mark.parametrize(
    ("model", "reader", "length"),
    [
        ("llama-linear", "vllm", 64),
        ("llama-linear", "sglang", 64),
        ("llama-linear", "transformers", 192),
        ("llama-linear", "mlx", 192),
        ("llama-ntk", "vllm", 192),
        ("llama-yarn", "vllm", 192),
        ("llama-yarn", "sglang", 192),
        ("qwen2-linear", "vllm", 64),
        ("gemma3_text-linear", "vllm", 192),
        ("phi3-linear", "vllm", 192),
        ("gpt_neox-linear", "vllm", 64),
    ],
)
def test_R7_each_reader_gets_the_length_with_which_it_serves_the_new_window(models, model, reader, length, tmp_path):
    exported = ropewalk.export(models[model], reader=reader, out=tmp_path / "out")
    config = read_config(tmp_path / "out")
    assert config["max_position_embeddings"] == length
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())["model_max_length"] == length
    assert exported.window == 192
    torch.testing.assert_close(logits(tmp_path / "out"), logits(models[model]), rtol=0, atol=0)
    load_model(tmp_path / "out")  # and ropewalk still reads its own block


def test_R8_every_key_that_any_reader_takes_the_window_from_is_rewritten(models, tmp_path):
    stale = ["max_sequence_length", "model_max_length", "seq_length", "max_seq_len", "n_positions"]
    source = shutil.copytree(models["llama-yarn"], tmp_path / "stale")
    write_json(source / "config.json", read_config(source) | dict.fromkeys(stale, 64))
    ropewalk.export(source, reader="vllm", out=tmp_path / "out")
    assert {read_config(tmp_path / "out")[key] for key in stale} == {192}


def test_a_factor_that_is_no_whole_number_is_served_with_the_window_said(tmp_path):
    base = testing.tiny_directory(tmp_path / "base")
    extend(base, window=100, out=tmp_path / "longer")
    exported = ropewalk.export(tmp_path / "longer", reader="vllm", out=tmp_path / "out")
    assert 100 <= exported.window < 102
    assert exported.window == 100 or exported.command.endswith("--max-model-len 100")
    text = read_config(base)
    width = text["num_key_value_heads"] * text["head_dim"]
    whole, before = (text["num_hidden_layers"] * 2 * 2 * width * tokens / 2**30 for tokens in (100, 64))
    assert (
        exported.cost
        == f"keys and values of a request of 100 tokens take {whole:.3g} GiB in 16 bits, and {before:.3g} GiB at 64"
    )


@pytest.mark.parametrize(
    ("model", "reader", "words"),
    [
        ("gpt_neox-linear", "mlx", "mlx.*gpt_neox"),
        ("gemma3_text-linear", "sglang", "sglang.*gemma3_text"),
    ],
)
def test_R2_what_a_reader_would_leave_unscaled_is_refused(models, model, reader, words, tmp_path):
    with pytest.raises(UserError, match=words):
        ropewalk.export(models[model], reader=reader, out=tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("family", "why"),
    [
        ("hunyuan_v1_dense", "knows no rope_type 'linear'"),
        ("minicpm3", "knows no rope_type 'linear'"),
        ("deepseek_v2", "knows no rope_type 'linear'"),
        ("ernie4_5", "leaves the scaling of ernie4_5 models"),
    ],
)
def test_R2_families_that_mlx_rotates_by_code_of_their_own_are_refused(family, why, tmp_path):
    """mlx-lm 0.32.2, models/: hunyuan_v1_dense.py knows alpha alone, minicpm3.py and deepseek_v2.py take any scaling for LongRoPE and
    for YaRN, ernie4_5.py gives initialize_rope no scaling."""
    extend(testing.tiny_directory(tmp_path / "base", family), window=192, method="linear", out=tmp_path / "longer")
    with pytest.raises(UserError, match=why):
        ropewalk.export(tmp_path / "longer", reader="mlx", out=tmp_path / "out")
    ropewalk.export(tmp_path / "longer", reader="transformers", out=tmp_path / "out")


@pytest.mark.parametrize(
    ("family", "reader", "why"),
    [
        ("gemma4_text", "vllm", "vllm computes another rotation"),
        ("gemma4_text", "sglang", "sglang computes another rotation"),
        ("deepseek_v3", "vllm", "vllm knows no rope_type 'linear'"),
        ("gpt_oss", "vllm", "vllm knows no rope_type 'linear'"),
        ("deepseek_v3", "llama.cpp", "multiplies the scores of linear deepseek_v3 models"),
        ("qwen2_moe", "llama.cpp", "takes False for norm_topk_prob"),
    ],
)
def test_R2_what_readers_were_found_to_get_wrong_when_run_is_refused(family, reader, why, tmp_path):
    """Run in vLLM 0.32 and xllamacpp 2026.10 (docs/readers.md): each loads these, and computes something else."""
    settings = {"norm_topk_prob": True} if family == "qwen2_moe" else {}
    extend(
        testing.tiny_directory(tmp_path / "base", family, **settings),
        window=192,
        method="linear",
        out=tmp_path / "longer",
    )
    with pytest.raises(UserError, match=why):
        ropewalk.export(tmp_path / "longer", reader=reader, out=tmp_path / "out")


_DEEPSEEKS_YARN = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16, mscale=1.0)


@pytest.mark.parametrize(
    ("weight", "settings", "why"),
    [
        (1.0, {}, None),
        (0.5, {}, "a temperature of its own"),
        (1.0, {"q_lora_rank": None}, "without q_lora_rank of 26 or 27 layers only, not 2"),
        (1.0, {"q_lora_rank": None, "num_hidden_layers": 27}, None),
    ],
)
def test_deepseeks_yarn_is_refused_for_llama_cpp_where_that_was_found_to_compute_or_load_something_else(
    weight, settings, why
):
    """xllamacpp 2026.10: right where mscale and mscale_all_dim are one; the Lite models are known by their layers."""
    config = testing.tiny_config(
        "deepseek_v3", rope_parameters=_DEEPSEEKS_YARN | {"mscale_all_dim": weight}, **settings
    )
    refusal = READERS["llama.cpp"].refusal({**config.to_dict(), "scoring_func": "sigmoid"})
    assert refusal is None if why is None else why in str(refusal)


@pytest.mark.parametrize("reader", ["mlx", "sglang"])
def test_a_temperature_that_a_reader_does_not_read_is_refused(reader, tmp_path):
    """Both multiply by 0.1 ln(factor) + 1 whatever attention_factor says: mlx_lm/models/rope_utils.py, SGLang's rotary_embedding/yarn.py."""
    base = testing.tiny_directory(tmp_path / "base")
    extend(base, window=192, method="yarn", temperature=1.0, out=tmp_path / "longer")
    with pytest.raises(UserError, match=f"{reader} multiplies queries and keys by 1.10986 and not by 1"):
        ropewalk.export(tmp_path / "longer", reader=reader, out=tmp_path / "out")
    said = [finding.sentence for finding in ropewalk.doctor(tmp_path / "longer").findings]
    assert any(
        reader in sentence and "are multiplied by 1.10986, where the config says 1" in sentence for sentence in said
    )
    ropewalk.export(tmp_path / "longer", reader="vllm", out=tmp_path / "out")


def test_a_config_of_which_v5_dropped_the_old_spelling_is_made_whole(models, tmp_path):
    """R4: any save_pretrained of transformers 5 drops rope_theta and rope_scaling; transformers 4 and MLX read those alone."""
    source = shutil.copytree(models["llama-linear"], tmp_path / "resaved")
    config = read_config(source)
    del config["rope_theta"], config["rope_scaling"]
    write_json(source / "config.json", config)
    for reader in ("transformers", "mlx"):
        ropewalk.export(source, reader=reader, out=tmp_path / reader)
        written = read_config(tmp_path / reader)
        assert written["rope_scaling"]["factor"] == 3.0 and written["rope_scaling"]["type"] == "linear"
        assert written["rope_theta"] == 10000.0


def test_a_key_that_v5_renamed_is_written_under_its_older_name_too(tmp_path):
    """transformers 4.57.6 takes num_experts from a key of that name alone, else 128, and does not load the weights."""
    source = testing.tiny_directory(tmp_path / "moe", "qwen3_moe")
    config = read_config(source)
    experts = config.pop("num_local_experts")
    write_json(source / "config.json", config | {"num_local_experts": experts})
    assert "num_experts" not in config
    ropewalk.extend(source, window=256, out=tmp_path / "longer")
    for directory in (source, tmp_path / "longer"):
        ropewalk.export(directory, reader="transformers", out=tmp_path / f"{directory.name}-export")
        assert read_config(tmp_path / f"{directory.name}-export")["num_experts"] == experts
    assert read_config(tmp_path / "longer")["num_experts"] == experts


def test_a_tokenizer_in_words_of_version_5_alone_is_put_into_those_of_both(models, tmp_path):
    source = shutil.copytree(models["llama-linear"], tmp_path / "v5")
    config = {"tokenizer_class": "TokenizersBackend", "backend": "tokenizers", "is_local": True, "bos_token": "<s>"}
    write_json(source / "tokenizer_config.json", config | {"extra_special_tokens": ["<x>"]})
    ropewalk.export(source, reader="transformers", out=tmp_path / "out")
    written = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert written == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "additional_special_tokens": ["<x>"],
        "model_max_length": 192,
    }


def test_nothing_that_exists_is_overwritten_unasked_and_the_model_itself_never(models, tmp_path):
    source = shutil.copytree(models["llama-linear"], tmp_path / "source")
    ropewalk.export(source, reader="vllm", out=tmp_path / "out")
    with pytest.raises(UserError, match="exists"):
        ropewalk.export(source, reader="mlx", out=tmp_path / "out")
    ropewalk.export(source, reader="mlx", out=tmp_path / "out", overwrite=True)
    with pytest.raises(UserError, match="would be replaced"):
        ropewalk.export(source, reader="mlx", out=source, overwrite=True)


@pytest.mark.parametrize("reader", ["llama.cpp", "ollama"])
def test_a_gguf_file_without_a_tokenizer_is_refused_before_its_converter_is_asked(models, reader, tmp_path):
    bare = shutil.copytree(models["llama-linear"], tmp_path / "bare")
    for path in bare.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(UserError, match="bare has no tokenizer .*; copy the original model's into it"):
        ropewalk.export(bare, reader=reader, out=tmp_path / "out", converter=tmp_path)


def test_a_whole_model_is_no_adapter(models, tmp_path):
    with pytest.raises(UserError, match="peft reads adapters.*--mode lora"):
        ropewalk.export(models["llama-linear"], reader="peft", out=tmp_path / "out")


def front(text: str) -> dict:
    return yaml.safe_load(text.split("---")[1])


def test_the_card_of_an_export_says_how_that_is_used_and_names_no_place_of_this_machine(models, tmp_path, caplog):
    caplog.set_level("INFO", "ropewalk")
    model, out = models["llama-linear"], tmp_path / "out"
    ropewalk.export(model, reader="mlx", out=out)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "Written for mlx" in text and "mlx_lm.generate --model . " in text and "AutoModel" not in text
    assert front(text)["library_name"] == "mlx" and str(tmp_path) not in text
    assert f"run ropewalk card {model} --records FILE.jsonl, the file of its measurements, and" in caplog.text
    assert ropewalk.card(out).read_text(encoding="utf-8") == text  # written anew, it says the same
    ropewalk.export(model, reader="transformers", out=tmp_path / "plain")
    plain = (tmp_path / "plain/README.md").read_text(encoding="utf-8")
    assert plain == (model / "README.md").read_text(encoding="utf-8") and "AutoModelForCausalLM" in plain


def test_a_card_of_weights_in_gguf_says_so(models, tmp_path):
    out = shutil.copytree(models["llama-linear"], tmp_path / "out")
    write_json(out / "export.json", {"reader": "llama.cpp", "here": "llama-server -m ./model.gguf -c 192"})
    (out / "model.gguf").touch()
    assert say_export(out)
    text = (out / "README.md").read_text(encoding="utf-8")
    assert "the weights are in model.gguf" in text and "    llama-server -m ./model.gguf -c 192\n" in text
    assert front(text)["library_name"] == "gguf" and not is_theirs(out / "README.md")


def test_a_readme_that_somebody_wrote_is_carried_as_it_is_and_that_is_said(models, tmp_path, caplog):
    caplog.set_level("INFO", "ropewalk")
    model = shutil.copytree(models["llama-linear"], tmp_path / "model")
    (model / "README.md").write_text("mine", encoding="utf-8")
    ropewalk.export(model, reader="vllm", out=tmp_path / "out")
    assert (tmp_path / "out/README.md").read_text(encoding="utf-8") == "mine"
    assert "is as somebody wrote it, and does not say what this export is; export.json does" in caplog.text


def test_a_window_that_doctor_doubts_is_doubted_where_it_is_promised(models, tmp_path, caplog):
    claimed = testing.tiny_directory(tmp_path / "claimed", "llama")
    write_json(claimed / "config.json", read_config(claimed) | {"max_position_embeddings": 131072})
    [note] = [finding.sentence for finding in ropewalk.doctor(claimed).findings if finding.number == 4]
    ropewalk.export(claimed, reader="vllm", out=tmp_path / "out")
    assert f"{claimed}: {note}" in caplog.messages and "whether 131072 tokens were trained" in note
    caplog.clear()
    ropewalk.export(models["llama-yarn"], reader="vllm", out=tmp_path / "other")
    assert not any("were trained" in message for message in caplog.messages)
