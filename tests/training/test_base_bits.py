"""Adapters on weights in four bits: the rounding against the published code, and that what is saved is of the checkpoint's own weights."""

import dataclasses
import gc
import importlib.util
import itertools
import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.profiler import ProfilerActivity, profile

from ropewalk import merge, perplexity, records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.model import load as loading
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.verify import verify_rope
from ropewalk.planner import plan
from ropewalk.planner.choice import NOTHING
from ropewalk.planner.job import Job
from ropewalk.planner.memory import GIB
from ropewalk.planner.shape import read_shape
from ropewalk.settings import budget
from ropewalk.settings.recipe import Recipe
from ropewalk.training import TrainSettings, lora, low_bits, recompute, setup, train
from ropewalk.training.activations import ActivationMemory

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
OPTIONS = dict(data=DOCUMENTS, window=96, batch_size=2, learning_rate=1e-2, mode="lora", device="cpu", threads=1)
#: QLoRA, arXiv 2305.14314, appendix E.
NF4 = np.array(
    [-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
     -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
     0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0]
)  # fmt: skip


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(mode="full", base_bits=4), "frozen weights under adapters"),
        (dict(base_bits=4, optimizer="adamw-offload"), "another optimizer than adamw-offload"),
        (dict(base_bits=8), "base-bits is one of 4, got 8"),
        (dict(base_bits=True), "base-bits is one of 4, got True"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, options, words):
    with pytest.raises(UserError, match=words):
        train("hemp", out=tmp_path / "out", **OPTIONS | options)


def test_a_missing_library_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=r"needs bitsandbytes.* install .\.\[low-bit\]. in a clone"):
        train("hemp", out=tmp_path / "out", base_bits=4, **OPTIONS)


def test_several_processes_are_refused():
    with mock.patch("importlib.util.find_spec"):
        settings = TrainSettings(model="hemp", out="never", base_bits=4, **OPTIONS | dict(data="never"))
    mesh = mock.Mock(spec=Mesh, device=torch.device("cpu"), world=2)
    with pytest.raises(UserError, match="trains in one process, and there are 2"):
        setup.settled_for(settings, mock.Mock(spec=Checkpoint), mesh)


def test_a_plan_counts_half_a_byte_and_scales():
    """LLaMA 7B: 6.476e9 weights in the layers' matrices at 0.53 bytes, the head in bfloat16; what is trained is as it was."""
    plain, low = (plan("7b", window=8192, gpus="1xH100", mode="lora", base_bits=bits) for bits in (None, 4))
    assert plain.memory.weights - low.memory.weights == pytest.approx(6.476e9 * (2 - 0.5 - 2 / 64), rel=1e-3)
    assert low.memory.gradients == plain.memory.gradients
    small = plan("7b", window=4096, gpu_memory="12GB", host_memory="1GB", batch_size=1)
    assert [other.options for other in small.others if other.job.gpus == 1][0].endswith("--mode lora --base-bits 4")
    with pytest.raises(UserError, match="on one chip, and there are 2"):
        plan("7b", window=8192, gpus="2xH100", mode="lora", base_bits=4)
    assert low.memory.total < 79 * GIB


in_bits = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (ropewalk[low-bit])"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path_factory.getbasetemp() / "tokens"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, Path, str]:
    """(base, trained on it in four bits, what was said)"""
    place = tmp_path_factory.mktemp("bits")
    base, said = testing.tiny_directory(place / "base", window=64), []
    with mock.patch.object(low_bits, "_logger", mock.Mock(info=said.append)):
        train(base, out=place / "out", steps=4, save_every=2, base_bits=4, **OPTIONS)
    return base, place / "out", "\n".join(said)


def in_four_bits(base: Path, **options) -> torch.nn.Module:
    settings = TrainSettings(model=base, out=base / "never", base_bits=4, **OPTIONS | dict(data="never") | options)
    return setup.starting_model(settings).model


def expected(weight: torch.Tensor) -> np.ndarray:
    """The nearest code of each weight, times its block's largest, which is kept in bfloat16."""
    blocks = weight.double().numpy().reshape(-1, 64)
    largest = np.abs(blocks).max(axis=1, keepdims=True)
    codes = np.abs((blocks / largest)[..., None] - NF4).argmin(axis=-1)
    return (NF4[codes] * torch.tensor(largest).bfloat16().double().numpy()).reshape(weight.shape)


@in_bits
def test_a_layer_computes_with_the_nearest_codes(trained):
    model, plain = in_four_bits(trained[0]), loading.load_model(trained[0], dtype=torch.float32, device="cpu")
    name = "model.layers.1.mlp.down_proj"
    layer, weight = model.get_submodule(name), torch.tensor(expected(plain.get_submodule(name).weight.detach())).float()
    inputs = torch.randn(2, 5, layer.in_features, requires_grad=True)
    wanted = torch.nn.functional.linear(inputs, weight)
    got = layer(inputs)
    # float32 products of 128 numbers, which two libraries add up in different orders.
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    upstream = torch.randn_like(got)
    assert torch.allclose(
        *(torch.autograd.grad(out, inputs, upstream)[0] for out in (got, wanted)), rtol=1e-5, atol=1e-6
    )


@in_bits
def test_it_is_verified_and_what_was_quantised_is_named(trained, monkeypatch):
    base, _, said = trained
    model = in_four_bits(base)
    verify_rope(model)
    assert model.lm_head.weight.dtype == model.model.embed_tokens.weight.dtype == torch.float32
    assert "14 linear layers (down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj) are in 4 bits" in said
    every = Checkpoint.open(base).parameters
    assert f"of {every:,}; everything else stays in float32" in said

    def turned(model, *where):
        model.model.rotary_emb.inv_freq.mul_(1.01)
        return 0

    monkeypatch.setattr(low_bits, "quantise", turned)
    with pytest.raises(UserError, match="does not rotate as its config says"):
        in_four_bits(base)


@in_bits
def test_what_is_saved_is_the_checkpoints_own_weights_with_adapters(trained, tmp_path):
    base, out, _ = trained
    before, after = (safetensors.torch.load_file(place / "model.safetensors") for place in (base, out))
    assert before.keys() == after.keys()
    frozen = [name for name in before if "mlp" in name or "lm_head" in name]
    assert frozen and all(torch.equal(before[name], after[name]) for name in frozen)
    assert not torch.equal(*(each["model.layers.0.self_attn.q_proj.weight"] for each in (before, after)))
    adapter = safetensors.torch.load_file(out / "adapter" / lora.WEIGHTS)
    assert not any("scales" in name or value.dtype != torch.float32 for name, value in adapter.items())
    merge(out / "adapter", out=tmp_path / "merged")
    merged = safetensors.torch.load_file(tmp_path / "merged/model.safetensors")
    assert merged.keys() == after.keys()
    assert all(torch.allclose(merged[name], after[name], atol=1e-7) for name in merged)
    row = perplexity(out, data=DOCUMENTS, windows=[96], stride=48, device="cpu")[0]
    assert row.perplexity < 400
    assert {run.settings["base_bits"] for run in records.read([out / "records.jsonl"]).runs.values()} == {4}


@in_bits
def test_it_learns_as_adapters_on_whole_weights_do(trained, tmp_path):
    """The same windows: rounding moves the loss at the start by far less than training does."""
    base, out, _ = trained
    train(base, out=tmp_path / "whole", steps=4, **OPTIONS)
    low, whole = (
        [
            json.loads(line)["loss"]
            for line in (place / "records.jsonl").read_text().splitlines()
            if '"kind":"step"' in line
        ]
        for place in (out, tmp_path / "whole")
    )
    assert whole[0] - whole[-1] > 0.1
    assert np.allclose(low, whole, atol=0.05)


@in_bits
def test_a_resumed_run_is_the_same_run(trained, tmp_path):
    base, out, _ = trained
    train(base, out=tmp_path / "half", steps=2, save_every=2, base_bits=4, **OPTIONS)
    with pytest.raises(UserError, match="base-bits 4, and this run has None"):
        train(base, out=tmp_path / "half", steps=4, resume=True, **OPTIONS)
    train(base, out=tmp_path / "half", steps=4, save_every=2, base_bits=4, resume=True, **OPTIONS)
    left, right = (safetensors.torch.load_file(place / "model.safetensors") for place in (out, tmp_path / "half"))
    assert all(torch.equal(left[name], right[name]) for name in left)


@in_bits
def test_tiles_change_nothing(trained):
    """The MLP in three tiles: each token is computed with the same weights, in other batches of a product."""
    ids = torch.randint(0, 250, (1, 97), generator=torch.Generator().manual_seed(0))
    found = []
    for tiles in (1, 3):
        torch.manual_seed(0)
        model = lora.add(in_four_bits(trained[0]), rank=4, alpha=8)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.02)
        root = NextTokenLoss(model)
        recompute.SelectiveCheckpointing(root).tile(tiles)
        loss = root(ids[:, :-1], ids[:, 1:])
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, three in zip(*found, strict=True):
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-6)


@in_bits
def test_a_family_without_linear_layers_is_refused(tmp_path):
    model = testing.tiny("llama", num_hidden_layers=1)
    with mock.patch.object(torch.nn, "Linear", dataclasses.make_dataclass("Nothing", [])):
        with pytest.raises(UserError, match="have none; leave it out"):
            low_bits.quantise(model, torch.device("cpu"))


@in_bits
@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_unpacked_is_what_the_allocator_gives_more_than_to_weights_of_two_bytes(
    monkeypatch, compiled: bool
) -> None:
    """A step of adapters on four bits against the same on bfloat16, weights being large beside what 32 tokens take; training and plan reckon alike."""
    compile_ = torch.compile
    monkeypatch.setattr(torch, "compile", lambda f, **_: compile_(f, backend="aot_eager", dynamic=False))
    sizes = dict(window=32, hidden_size=256, intermediate_size=1024, num_hidden_layers=2, vocab_size=320)
    ids, taken = torch.zeros(1, 32, dtype=torch.long), {}
    for bits in (None, 4):
        torch._dynamo.reset()
        model = testing.tiny("llama", **sizes).to(torch.bfloat16).train()
        if bits:
            low_bits.quantise(model, torch.device("cpu"))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            root = NextTokenLoss(lora.add(model, rank=2, alpha=4))
        recomputing = recompute.SelectiveCheckpointing(root, compiled=compiled)
        recomputing.keep([NOTHING] * 2)

        def step(root=root) -> None:
            root.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = root(input_ids=ids, labels=ids)
            loss.backward()

        step()
        root.zero_grad()
        gc.collect()
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            step()
        events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
        changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
        taken[bits] = max(itertools.accumulate(changes))
    packed = low_bits.packed(recomputing.layers[0])
    reckoned = budget.unpacked_bytes(packed, 2, compiled=compiled)
    assert taken[4] - taken[None] == pytest.approx(reckoned, rel=0.1)
    shape = read_shape(model.config.to_dict(), name="x")
    recipe = Recipe(window=32, mode="lora", base_bits=4, precision="bfloat16", optimizer="adamw")
    assert sorted(Job(shape, recipe).packed) == sorted(packed)


@in_bits
def test_training_leaves_room_for_what_is_unpacked(monkeypatch) -> None:
    """The same layers by their codes: the room is less by what unpacking takes, and by nothing else."""
    monkeypatch.setattr(recompute, "free_bytes", lambda *args, reserved, **rest: -reserved)
    model = testing.tiny().train()
    low_bits.quantise(model, torch.device("cpu"))
    loss = NextTokenLoss(lora.add(model, rank=2, alpha=4))
    memory = ActivationMemory(loss, "full", Mesh(torch.device("cuda")), torch.bfloat16, (1, 32))
    card = memory._room().card
    monkeypatch.setattr(low_bits, "packed", lambda module: [])
    assert (
        memory._room().card - card == 2 * 64 * 128
    )  # one matrix of the MLP; layers of so small a model are not compiled


@in_bits
def test_a_checkpoint_in_two_bytes_is_no_float32_copy_on_the_way(tmp_path, monkeypatch) -> None:
    """Memory of the process's own, as Linux counts it, once everything is loaded and nothing is rounded: the weights are pages of the file."""
    sizes = dict(hidden_size=512, intermediate_size=2048, num_hidden_layers=4, vocab_size=320)
    model = testing.tiny("llama", window=64, **sizes).to(torch.bfloat16)
    model.save_pretrained(tmp_path)
    testing.byte_tokenizer(64).save_pretrained(tmp_path)

    def own() -> int:
        return next(
            int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "RssAnon" in line
        )

    plain, seen = low_bits.quantise, []
    monkeypatch.setattr(low_bits, "quantise", lambda *given: (seen.append(own()), plain(*given))[1])
    weights = sum(p.numel() for p in model.parameters())
    del model
    gc.collect()
    low_bits.load(
        Checkpoint.open(tmp_path), dtype=torch.float32, device=torch.device("cpu")
    )  # what is imported with it
    gc.collect()
    before = own()
    loaded = low_bits.load(Checkpoint.open(tmp_path), dtype=torch.float32, device=torch.device("cpu"))
    assert (seen[1] - before) * 1024 < weights  # a float32 copy is four times that
    assert loaded.dtype == loaded.lm_head.weight.dtype == torch.float32
