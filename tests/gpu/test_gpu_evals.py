"""Measuring on a GPU: passes of which only the last positions are read, compiled or not, against whole ones."""

import numpy as np
import pytest
import torch
import transformers

from ropewalk.evals import compile
from ropewalk.evals.long_context.greedy import Continuing, responses
from ropewalk.evals.retrieval import passkey
from ropewalk.evals.retrieval.forced import Prompt, verdicts
from ropewalk.model.load import load_model, load_tokenizer

pytestmark = pytest.mark.gpus(1)


def llama(dtype: torch.dtype, kv_heads: int = 8) -> transformers.PreTrainedModel:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=512,
        intermediate_size=1376,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=kv_heads,
        vocab_size=1009,
        attn_implementation="sdpa",
    )
    return transformers.AutoModelForCausalLM.from_config(config).to("cuda", dtype).eval()


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_reading_only_the_last_positions_changes_nothing_there(dtype, compiled, kv_heads, monkeypatch):
    monkeypatch.setattr(compile, "WORTH_COMPILING", 0.0 if compiled else float("inf"))
    model = llama(dtype, kv_heads)
    ids = torch.randint(0, 1009, (2, 700), generator=torch.Generator().manual_seed(1)).cuda()
    with torch.inference_mode():
        exact = llama(torch.float32, kv_heads).double()(ids, logits_to_keep=65).logits
        whole = model(ids, logits_to_keep=65).logits
        with compile.faster(model, passes=1, window=700, shapes=[(2, 700)]), compile.reading_last(model, 65):
            narrow = model(ids, logits_to_keep=65).logits

    def error(found: torch.Tensor) -> float:
        return float((found.double() - exact).norm() / exact.norm())

    # No worse than whole passes by more than their own rounding: 8 bits of bfloat16, and float32's products in TF32 or not.
    assert error(narrow) <= error(whole) + {torch.float32: 1e-5, torch.bfloat16: 3e-3}[dtype]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_shared_prefix_gives_the_verdicts_of_generate(dtype, monkeypatch):
    """hemp at its own window is sure of most keys and of nothing at twice that: verdicts of both kinds."""
    monkeypatch.setattr(compile, "WORTH_COMPILING", 0.0)
    model, tokenizer = load_model("hemp", dtype=dtype, device="cuda"), load_tokenizer("hemp")
    for window in (256, 512):
        protocol = passkey.Protocol(tokenizer, window)
        depths = passkey.depths_of(window, 8)
        prompts = [protocol.prompt(key, k)[0] for k in depths for key in ("12345", "90817")]
        said = []
        for prompt in prompts:
            row = torch.from_numpy(prompt.ids)[None].cuda()
            out = model.generate(
                row,
                attention_mask=torch.ones_like(row),
                max_new_tokens=len(prompt.answer),
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
            )
            said.append(bool((out[0, row.shape[1] :].cpu().numpy() == prompt.answer).all()))
        with compile.faster(model, passes=len(prompts), window=window):
            found = verdicts(model, prompts, prefix=protocol.prefix)
        assert [bool(one.all()) for one in found] == said


@pytest.mark.parametrize("kv_heads", [8, 2])
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_prompts_that_are_read_once_are_continued_by_the_likeliest_tokens(dtype, compiled, kv_heads, monkeypatch):
    """Prompts that share a prefix or none: each token written is the likeliest by a pass in float64, or within rounding of it."""
    monkeypatch.setattr(compile, "WORTH_COMPILING", 0.0 if compiled else float("inf"))
    model, exact = llama(dtype, kv_heads), llama(torch.float32, kv_heads).double()
    ids = torch.randint(0, 1009, (7, 700), generator=torch.Generator().manual_seed(2))
    ids[:4, :400] = ids[0, :400]
    prompts = [Prompt(row, np.arange(place)) for place, row in enumerate(ids.numpy())]
    with compile.faster(model, passes=7, window=700):
        written = dict(responses(model, prompts, Continuing(30, [], lambda place, tokens: False), batch_tokens=1400))
    for place, tokens in written.items():
        whole = torch.cat([ids[place], torch.from_numpy(tokens)])[None].cuda()
        with torch.inference_mode():
            logits = exact(whole, logits_to_keep=31).logits[0, :-1]
        short = logits.max(-1).values - logits.gather(-1, whole[0, -30:, None])[:, 0]
        # Logits are of size 1 here; bfloat16 keeps 8 bits of them, float32's products may be in TF32.
        assert len(tokens) == 30 and float(short.max()) <= {torch.float32: 5e-3, torch.bfloat16: 5e-2}[dtype]
