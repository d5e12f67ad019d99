"""What llama.cpp computes from a GGUF file's keys: read, held against closed forms, mended. tests/readers runs llama.cpp itself."""

from __future__ import annotations

import math

import gguf
import numpy as np
import pytest
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.errors import UserError
from ropewalk.exports.gguf_rope import differences, mend, read_gguf_rope
from ropewalk.rope.scaling import Linear, Ntk, Rope, Scaling, Yarn

ROPE = Rope(16, 10000.0, 64)
TENSOR = np.arange(64, dtype=np.float16).reshape(4, 16)


def a_file(path, architecture="llama", **keys):
    """As a converter leaves it: a window, heads, one tensor and, after dots for underscores, what else is named."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(192)
    writer.add_embedding_length(40 if architecture == "gemma3" else 64)
    writer.add_head_count(4)
    if (
        architecture == "gemma3"
    ):  # heads that are no part of the width, as Gemma 3 270M has them; sliding layers have the same
        writer.add_key_length(16)
    writer.add_token_list(["<s>", "a", "ä"])
    for name, value in keys.items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.rope.{name.replace('__', '.')}", value)
    writer.add_tensor("token_embd.weight", TENSOR)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def of(scaling: Scaling, family="llama", rope=ROPE) -> RopeConfig:
    return RopeConfig(family, rope, scaling, 192)


def transformers_speeds(rope_type, **entry):
    """An oracle that is neither llama.cpp's code nor ours."""
    parameters = {"rope_type": rope_type, "rope_theta": 10000.0, **entry}
    config = transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, max_position_embeddings=192, rope_parameters=parameters
    )
    speeds, attention = ROPE_INIT_FUNCTIONS[rope_type](config, "cpu")
    return speeds.double().numpy(), attention


def test_linear_and_yarn_keys_are_read_as_transformers_computes_them(tmp_path):
    linear = read_gguf_rope(a_file(tmp_path / "l.gguf", scaling__type="linear", scaling__factor=3.0))
    speeds, _ = transformers_speeds("linear", factor=3.0)
    np.testing.assert_allclose(linear.inv_freq(), speeds, rtol=1e-6)
    assert (linear.window, linear.attention_factor) == (192, 1.0)
    path = a_file(tmp_path / "y.gguf", scaling__type="yarn", scaling__factor=3.0)
    mended = mend(path, of(Yarn(3.0)))
    speeds, attention = transformers_speeds("yarn", factor=3.0, original_max_position_embeddings=64)
    np.testing.assert_allclose(mended.inv_freq(), speeds, rtol=1e-6)
    assert math.isclose(mended.attention_factor, attention, rel_tol=1e-6)


def test_a_file_that_says_it_all_is_not_touched(tmp_path):
    path = a_file(tmp_path / "l.gguf", scaling__type="linear", scaling__factor=3.0)
    before = path.stat()
    mend(path, of(Linear(3.0)))
    assert path.stat() == before


@pytest.mark.parametrize("scaling", [Linear(3.0), Ntk(3.0), Yarn(3.0)], ids=lambda each: each.method)
def test_R2_what_the_converter_leaves_out_of_a_gpt_neox_file_is_put_in(scaling, tmp_path):
    """It writes no RoPE key for this family at all (conversion/gptneox.py), so its files turn as the original did."""
    path = a_file(tmp_path / "n.gguf", "gptneox")
    rope = of(scaling, "gpt_neox", Rope(16, 50000.0, 64))
    assert differences(read_gguf_rope(path), rope).startswith("inv_freq of pair")
    found = mend(path, rope)
    np.testing.assert_allclose(found.inv_freq(), scaling.inv_freq(rope.rope), rtol=1e-6)
    reader = gguf.GGUFReader(path)
    assert reader.get_field("tokenizer.ggml.tokens").contents() == ["<s>", "a", "ä"]
    [tensor] = reader.tensors
    np.testing.assert_array_equal(tensor.data, TENSOR)
    assert not path.with_suffix(".mended").exists()


def test_deepseeks_mscale_all_dim_leaves_its_rotated_part_as_it_is(tmp_path):
    """xllamacpp 2026.10 run on such files: log-probabilities within 0.002 of transformers, where an attn_factor key moved them by 0.9."""
    scaling = Yarn(3.0, mscale=0.707, mscale_all_dim=0.707)
    _, attention = transformers_speeds(
        "yarn", factor=3.0, original_max_position_embeddings=64, mscale=0.707, mscale_all_dim=0.707
    )
    keys = dict(scaling__type="yarn", scaling__factor=3.0, scaling__yarn_log_multiplier=0.0707)
    file = a_file(tmp_path / "d.gguf", "deepseek2", **keys)
    found = mend(file, of(scaling, "deepseek_v2"))
    assert found.attention_factor == attention == 1.0
    assert "rope.scaling.attn_factor" not in found.keys and not differences(found, of(scaling, "deepseek_v2"))


def test_a_wrong_window_is_mended(tmp_path):
    path = a_file(tmp_path / "w.gguf", scaling__type="linear", scaling__factor=3.0)
    assert mend(path, RopeConfig("llama", ROPE, Linear(3.0), 256)).window == 256


def test_the_sliding_layers_of_gemma_3_have_a_base_of_their_own(tmp_path):
    path = a_file(tmp_path / "g.gguf", "gemma3", freq_base=1e6, scaling__type="linear", scaling__factor=3.0)
    rope = RopeConfig("gemma3_text", Rope(16, 1e6, 64), Linear(3.0), 192, {"sliding_attention": ROPE})
    assert "sliding layers" in differences(read_gguf_rope(path), rope)
    np.testing.assert_allclose(mend(path, rope).inv_freq(sliding=True), ROPE.inv_freq(), rtol=1e-6)


def test_another_count_of_rotated_coordinates_cannot_be_mended(tmp_path):
    path = a_file(tmp_path / "r.gguf")
    with pytest.raises(UserError, match="llama.cpp cannot compute .*16 rotated coordinates, not 8"):
        mend(path, of(Linear(3.0), rope=Rope(8, 10000.0, 64)))


def test_a_file_that_is_no_gguf_gets_a_sentence(tmp_path):
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="no whole GGUF file"):
        read_gguf_rope(tmp_path / "x.gguf")


def test_a_vector_of_factors_counts_where_the_graph_looks_for_it(tmp_path):
    """Llama 3.1's factors as llama.cpp keeps them: plain speed over scaled speed, a vector."""
    entry = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    speeds, _ = transformers_speeds("llama3", **entry)
    found = read_gguf_rope(a_file(tmp_path / "3.gguf"))
    factors = (found.inv_freq() / speeds).astype(np.float32)
    with_factors = type(found)(found.architecture, found.keys, {"rope_freqs.weight": factors})
    np.testing.assert_allclose(with_factors.inv_freq(), speeds, rtol=1e-6)
    other = type(found)("qwen2", found.keys, {"rope_freqs.weight": factors})  # its graph looks for no such tensor
    np.testing.assert_allclose(other.inv_freq(), found.inv_freq(), rtol=0)
