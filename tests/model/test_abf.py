"""Another rope_theta (ABF): what plain transformers computes of it, what is read back, what it composes with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import transformers

from extending import LONGER, WINDOW, plain_model, random_ids
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.rope.scaling import Abf, Rope


@pytest.mark.parametrize("family", [name for name in testing.FAMILIES if name != "gemma3_text"])
def test_plain_transformers_computes_abf(family: str, tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", family, WINDOW)
    own = read_rope(read_config(original)).rope.rope_theta
    extend(original, window=LONGER, out=tmp_path / "longer", method="abf", rope_theta=8 * own)
    # The reference knows nothing of ropewalk: the original's weights under its own config, with the rope_theta replaced.
    config = transformers.AutoConfig.from_pretrained(original)
    config.rope_parameters = {**config.rope_parameters, "rope_theta": 8 * own}
    config.max_position_embeddings = LONGER
    other_base = transformers.AutoModelForCausalLM.from_pretrained(original, config=config, dtype=torch.float32).eval()
    ids = random_ids(LONGER)
    with torch.no_grad():
        expected = other_base(ids).logits
        extended = plain_model(tmp_path / "longer")(ids).logits
        unscaled = plain_model(original)(ids).logits
    torch.testing.assert_close(extended, expected, rtol=0, atol=0)  # one arithmetic on both sides
    assert not torch.allclose(extended, unscaled, atol=1e-3), "a test that plain RoPE would pass too shows nothing"


def test_gemma_3_has_another_base_in_its_global_layers_only(tmp_path: Path) -> None:
    original = testing.tiny_directory(tmp_path / "original", "gemma3_text", WINDOW)
    extend(original, window=LONGER, out=tmp_path / "longer", method="abf", rope_theta=8e6)
    before, after = (dict(plain_model(tmp_path / name).named_buffers()) for name in ("original", "longer"))
    same, slower = "model.rotary_emb.sliding_attention_inv_freq", "model.rotary_emb.full_attention_inv_freq"
    torch.testing.assert_close(after[same], before[same], rtol=0, atol=0)
    pairs = torch.arange(len(after[slower])) / len(after[slower])
    # float32 powers on both sides: a few units of 6e-8.
    torch.testing.assert_close(after[slower], 8e6**-pairs, rtol=1e-6, atol=0)


def test_abf_is_read_back_with_its_rope_theta_and_composes_with_itself(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b", method="abf", rope_theta=5e4)
    assert Checkpoint.open(tmp_path / "b").rope.scaling == Abf(2.0, 5e4)
    state = extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="auto", rope_theta=5e5)
    written = read_config(tmp_path / "c")
    assert read_rope(written).rope == Rope(16, 10000.0, WINDOW) and state.scaling == Abf(4.0, 5e5)
    assert written["ropewalk"]["scaling"] == {"method": "abf", "factor": 4.0, "rope_theta": 5e5}
    assert [step["rope_theta"] for step in written["ropewalk"]["history"]] == [5e4, 5e5]
    assert written["rope_theta"] == written["rope_parameters"]["rope_theta"] == 5e5 and written["rope_scaling"] is None
    written["rope_theta"] = written["rope_parameters"]["rope_theta"] = 2e5
    with pytest.raises(
        UserError, match="block says rope_theta 500000.0, but the config's RoPE keys say rope_theta 200000.0"
    ):
        read_rope(written)


def test_abf_after_ntk_is_held_against_the_rope_theta_that_ntk_made(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    extend(tmp_path / "a", window=128, out=tmp_path / "b", method="ntk")
    now = 10000 * 2 ** (16 / 14)
    refusal = f"above the model's own {now:g}, got 15000; what was measured, at factor 4, is 50 times that: --rope-theta {50 * now:.0f} "
    with pytest.raises(UserError, match=refusal):
        extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="abf", rope_theta=15000.0)
    assert extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="abf", rope_theta=5e4).scaling == Abf(
        4.0, 5e4
    )


@pytest.mark.parametrize("method", ["linear", "ntk", "yarn", "auto"])
def test_a_rope_theta_with_another_method_is_refused(method: str, tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=WINDOW)
    with pytest.raises(UserError, match="scaling has no --rope-theta; leave it out"):
        extend(tmp_path / "a", window=LONGER, out=tmp_path / "b", method=method, rope_theta=5e5)
    assert not (tmp_path / "b").exists()
