"""Training on two processes is training on one: losses, weights, resuming with another number, and how it stops."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import transformers

import many_processes
from ropewalk import records, testing
from ropewalk.training import lora, train

SHARED = many_processes.SHARED


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Everything that two processes do, done; what one process does beside it is done here."""
    place = tmp_path_factory.mktemp("many")
    testing.tiny_directory(place / "base", window=64)
    (place / "poisoned").mkdir()
    poisoned = testing.tiny(window=64)
    tokenizer = testing.byte_tokenizer(64)
    with torch.no_grad():
        poisoned.model.embed_tokens.weight[tokenizer.convert_tokens_to_ids(".")] = float("nan")
    poisoned.save_pretrained(place / "poisoned/base")
    tokenizer.save_pretrained(place / "poisoned/base")
    damaged = testing.tiny_directory(place / "damaged/base", window=64) / "model.safetensors"
    tensors = safetensors.torch.load_file(damaged)
    del tensors["model.norm.weight"]
    safetensors.torch.save_file(tensors, damaged, metadata={"format": "pt"})
    testing.tiny_directory(place / "tied-base", window=64, tie_word_embeddings=True)
    spread_models(place)
    many_processes.mix(place)
    before = dict(os.environ)
    os.environ["ROPEWALK_CACHE"] = str(place / "cache")
    try:
        train(place / "base", out=place / "alone", steps=5, **SHARED)
        train(place / "base", out=place / "grown", steps=2, **SHARED)
        for name, (model, options) in many_processes.MODES.items():
            train(place / model, out=place / f"{name}-alone", steps=2, **many_processes.asked(place, options))
        script = Path(many_processes.__file__)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        done = subprocess.run([*command, str(place)], env=environment, capture_output=True, text=True, timeout=840)
        assert done.returncode == 0, done.stderr[-3000:]
        shutil.rmtree(place / "large")
        train(place / "base", out=place / "moved", steps=5, resume=True, **SHARED)
    finally:
        os.environ.clear()
        os.environ.update(before)
    return place


def spread_models(place):
    for name, (family, overrides) in many_processes.SPREAD.items():
        testing.tiny_directory(place / "spread" / name, family, window=64, **overrides)
    # The config says tied, the file has two embeddings that differ: transformers goes by the file.
    untied = testing.tiny_directory(place / "spread/untied", window=64)
    config_dict = json.loads((untied / "config.json").read_text())
    (untied / "config.json").write_text(json.dumps({**config_dict, "tie_word_embeddings": True}))
    # 46 million parameters, 185 MB: enough to stand out from what Python and PyTorch take.
    large = dict(hidden_size=640, intermediate_size=1920, num_hidden_layers=9, vocab_size=258)
    testing.tiny_directory(place / "large", window=64, **large)


def losses(out):
    """By step; a step taken again after resuming counts once."""
    by_step = {m.row.step: m.row.loss for m in records.read([out / "records.jsonl"]).of(records.Step)}
    return [loss for _, loss in sorted(by_step.items())]


def assert_same_weights(left, right):
    left, right = (safetensors.torch.load_file(path / "model.safetensors") for path in (left, right))
    assert left.keys() == right.keys()
    for name, value in left.items():
        # Sums in another order are off by 1e-7 or so; Adam turns that into a part of one update (1e-3 at most) only where a
        # gradient is itself that small.
        assert (value - right[name]).abs().max() < 2e-5, name


def test_two_then_two_on_one_window_then_one_is_one_run(place):
    assert losses(place / "moved") == pytest.approx(losses(place / "alone"), rel=1e-5)
    assert_same_weights(place / "moved", place / "alone")


def test_one_then_two_is_one_run(place):
    assert losses(place / "grown") == pytest.approx(losses(place / "alone")[:4], rel=1e-5)


def test_two_copies_then_one_shared_out_are_one_run(place):
    assert losses(place / "copied") == pytest.approx(losses(place / "alone")[:4], rel=1e-5)
    assert_same_weights(place / "copied/checkpoints/step-000004", place / "alone/checkpoints/step-000004")


@pytest.mark.parametrize("name", many_processes.MODES)
def test_every_mode_is_the_same_on_two_processes(place, name):
    assert losses(place / name) == pytest.approx(losses(place / f"{name}-alone"), rel=1e-5)
    assert_same_weights(place / name, place / f"{name}-alone")


def test_what_cannot_be_divided_is_refused(place):
    messages = json.loads((place / "said.json").read_text())
    assert "--batch-size is a multiple of 2 here, got 3" in messages["batch"]
    assert "multiple of 2 x cp = 4, got 97" in messages["window"]
    assert "a multiple of replicas, got 2 processes and replicas 4" in messages["replicas"]


def test_nan_on_one_process_stops_all_and_names_the_rank(place):
    messages = json.loads((place / "said.json").read_text())["nan"]
    assert "step 1 was not taken: the loss is nan" in messages
    assert "rank 0: nan on" in messages and "rank 1: nan on" in messages


def test_what_the_main_process_cannot_load_or_train_stops_all(place):
    messages = json.loads((place / "said.json").read_text())
    assert len(messages["damaged"]) == 2
    assert all(
        "lacks 1 tensor that its config asks for (model.norm.weight" in sentence for sentence in messages["damaged"]
    )
    assert messages["family"] == ["train another family"] * 2


@pytest.mark.parametrize("name", many_processes.ALONE)
def test_what_one_process_fails_in_alone_ends_all_with_its_sentence(place, name):
    """Those that follow in the same processes show that they still understand each other."""
    assert json.loads((place / "said.json").read_text())["alone"][name] == [f"{name} failed here alone"] * 2


SPREAD = [f"{name}-{layout}-full" for name in [*many_processes.SPREAD, "untied"] for layout in many_processes.LAYOUTS]


@pytest.mark.parametrize("name", [*SPREAD, "llama-dp-lora", "tied-dp-lora"])
def test_one_process_reads_the_weights_and_each_gets_its_part(place, name):
    model, layout, mode = name.split("-")
    measured = json.loads((place / "said.json").read_text())["spread"][name]
    main, other = measured
    assert main["before"] == main["whole"] and other["before"] == 0
    for rank in measured:
        # Half of each tensor; of an odd number of rows one rank has one more. HSDP with two replicas has them whole.
        assert rank["after"] == pytest.approx(main["whole"] * (1 if layout == "hsdp" else 0.5), rel=0.01)
        assert rank["meta"] == []
        assert rank["tied"] == (model in ("tied", "two tables"))  # Gemma's are
    # Rotary tables were held against the closed form on each rank; all that is not a weight is the same on all.
    assert main["buffers"] == other["buffers"] and any("inv_freq" in key for key in main["buffers"])
    together = safetensors.torch.load_file(place / "spread" / f"{name}.safetensors")
    expected = transformers.AutoModelForCausalLM.from_pretrained(place / "spread" / model)
    if mode == "lora":
        torch.manual_seed(0)
        expected = lora.add(expected, rank=4, alpha=8)
    assert together.keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(together[key], value), key


def test_every_process_keeps_in_float32_what_the_main_one_does(place):
    main, other = json.loads((place / "said.json").read_text())["float32"]
    assert main == other == [f"model.layers.{layer}.self_attn.o_proj.weight" for layer in range(2)]


def test_only_the_main_process_ever_has_the_whole_model_in_memory(place):
    main, other = json.loads((place / "said.json").read_text())["growth"]
    # Its shard is half of the model; the largest tensor, 3 % of it, passes through; the rest is for buffers of gloo.
    assert other < 0.75
    assert main > 0.9  # or it would not be the model that is measured


def test_a_sharded_checkpoint_holds_every_ranks_part_and_a_hash_of_each(place):
    manifest = json.loads((place / "grown/checkpoints/step-000004/state/manifest.json").read_text())
    assert {"state/__0_0.distcp", "state/__1_0.distcp"} <= set(manifest["sha256"])
