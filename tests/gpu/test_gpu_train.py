"""Training on a GPU: bfloat16 arithmetic, document masks, what is kept, resuming."""

import pytest
import safetensors.torch
import torch

from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.training import train

pytestmark = pytest.mark.gpus(1)
DOCUMENTS = [Document(f"d{number}", testing.prose(400, number)) for number in range(8)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=256)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path_factory.getbasetemp() / "tokens"))


def go(base, out, **options):
    shared = dict(data=DOCUMENTS, window=512, method="linear", steps=6, batch_size=4, learning_rate=1e-3)
    return train(base, out=out, **{**shared, **options})


def losses(out):
    return [m.row.loss for m in records.read([out / "records.jsonl"]).of(records.Step)]


def test_a_gpu_in_bfloat16_follows_a_cpu_in_float32(base, tmp_path):
    go(base, tmp_path / "gpu")
    go(base, tmp_path / "cpu", device="cpu")
    # bfloat16 has 8 bits: 2^-9 a product, averaged over 2048 tokens.
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=3e-3)
    (first, *_) = records.read([tmp_path / "gpu/records.jsonl"]).of(records.Step)
    assert 0 < first.row.mfu < 1 and 0 < (first.row.mfu_of_data_sheet or 0.5) < 1 and first.row.peak_bytes > 0


@pytest.mark.parametrize("activations", ["full", "none"])
def test_what_is_kept_changes_no_loss(base, tmp_path, activations):
    go(base, tmp_path / "auto")
    go(base, tmp_path / activations, activations=activations)
    assert losses(tmp_path / activations) == pytest.approx(losses(tmp_path / "auto"), rel=1e-3)


@pytest.mark.parametrize("mode", ["full", "lora", "pose"])
def test_a_resumed_run_goes_on(base, tmp_path, mode):
    options = dict(mode=mode, warmup=2)  # by default it follows from the steps
    go(base, tmp_path / "once", **options)
    go(base, tmp_path / "twice", **options, steps=4, save_every=2)
    go(base, tmp_path / "twice", **options, save_every=2, resume=True)
    assert losses(tmp_path / "twice") == pytest.approx(losses(tmp_path / "once"), rel=1e-3)
    once, twice = (safetensors.torch.load_file(tmp_path / n / "model.safetensors") for n in ("once", "twice"))
    assert once.keys() == twice.keys()


def test_adapters_on_four_bits_leave_the_checkpoint_s_own_numbers(base, tmp_path):
    pytest.importorskip("bitsandbytes")
    go(base, tmp_path / "out", mode="lora", base_bits=4)
    before, after = (safetensors.torch.load_file(place / "model.safetensors") for place in (base, tmp_path / "out"))
    assert before.keys() == after.keys()
    same = {name for name, value in after.items() if torch.equal(value, before[name])}
    assert any("down_proj" in name for name in same) and not any("q_proj" in name for name in same)


def test_documents_are_kept_apart_on_a_gpu_as_on_a_cpu(base, tmp_path):
    for device in ("cuda", "cpu"):
        go(base, tmp_path / device, device=device, mask_documents=True, precision="float32")
    assert losses(tmp_path / "cuda") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)
