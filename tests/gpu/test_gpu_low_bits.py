"""On a GPU: the longest window of a model of LLaMA 7B's shape within the memory of a smaller card, adapters on four bits.

    python -m pytest tests/gpu/test_gpu_low_bits.py -s          prints how often each step was begun again, the third's tokens/s, and what was reserved; LONGEST=262144 goes on to there

The card is made smaller by `set_per_process_memory_fraction`, and what it says of itself with it. Weights are random, three steps of one window: the
first compiles and chooses by a reckoning, the second by what the first left free, the third is as all that would follow.
"""

from __future__ import annotations

import gc
import importlib.util
import os
from pathlib import Path

import pytest
import torch
import transformers

from bench.card import card_of
from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.planner.memory import GIB
from ropewalk.training import TrainSettings
from ropewalk.training.batch import batches_of
from ropewalk.training.loop import Loop
from ropewalk.training.regime import settled
from ropewalk.training.setup import starting_model, trained_checkpoint

pytestmark = [
    pytest.mark.gpus(1),
    pytest.mark.timeout(3600),
    pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed"),
]
LONGEST = int(os.environ.get("LONGEST", "131072"))


@pytest.fixture(scope="module")
def llama_7b(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("7b")
    shape = dict(
        hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
    )
    with torch.device("cuda"):
        config = transformers.LlamaConfig(**shape, max_position_embeddings=2048)
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(place)
    testing.byte_tokenizer(2048).save_pretrained(place)
    del model
    gc.collect()
    torch.cuda.empty_cache()
    return place


def three_steps(model: Path, window: int, out: Path) -> list[records.Step]:
    """The steps of a run as `train` takes them, nothing saved."""
    document = Document("d", testing.prose(window // 2))  # more than three bytes a word, and a byte is a token
    settings = TrainSettings(
        model=model,
        out=out,
        data=[document],
        window=window,
        steps=3,
        batch_size=1,
        mode="lora",
        base_bits=4,
        save_every=0,
    )
    checkpoint, mesh = trained_checkpoint(settings), Mesh(torch.device("cuda", 0))
    batches = batches_of(settings, checkpoint, mesh)
    settings = settled(settings, checkpoint, mesh, out)
    out.mkdir()
    Loop(settings, starting_model(settings, checkpoint=checkpoint), batches, mesh, out, keep=False).run()
    return [measured.row for measured in records.read([out / "records.jsonl"]).of(records.Step)]


@pytest.mark.parametrize("gigabytes", [24, 48])
def test_the_longest_window_of_7b(llama_7b: Path, tmp_path: Path, gigabytes: int) -> None:
    longest, window = 0, 16384
    with card_of(int(0.98 * gigabytes * GIB)):
        while window <= LONGEST:
            torch.cuda.reset_peak_memory_stats()
            try:
                steps = three_steps(llama_7b, window, tmp_path / str(window))
            except UserError as error:
                print(f"{gigabytes} GB, {window}: {error}")
                break
            last, peak = steps[-1], torch.cuda.max_memory_reserved() / GIB
            retries, seconds = [step.retries for step in steps], [round(step.seconds, 1) for step in steps]
            print(
                f"{gigabytes} GB, {window}: begun again {retries} times, {seconds} s, {last.tokens_per_second:,.0f} tokens/s, "
                f"{peak:.1f} GiB reserved, {last}"
            )
            assert any(segment["is_expandable"] for segment in torch.cuda.memory_snapshot()), (
                "as `ropewalk train` has it"
            )
            assert 0 < last.loss < 20
            longest, window = window, 2 * window
            gc.collect()
            torch._dynamo.reset()
            torch.cuda.empty_cache()
    assert longest >= 32768, "as `plan 7b --gpu-memory 24GB --window 32768 --mode lora --base-bits 4` has it"
