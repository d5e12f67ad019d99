"""Adapters merged, and made into plain peft: the numbers of the trained model, the rotation it was trained at."""

from __future__ import annotations

import collections
import errno
import json
import os
import shutil
import warnings
from pathlib import Path

import peft
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.files import read_config
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.model import save
from ropewalk.model.extend import extend
from ropewalk.settings import run_file
from ropewalk.training import train

IDS = torch.arange(96)[None] % 250


def logits(model):
    with torch.no_grad():
        return model.eval()(input_ids=IDS, use_cache=False).logits


def of(directory):
    return logits(transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(base, trained with adapters from 64 to 96 tokens)"""
    place = tmp_path_factory.mktemp("adapters")
    base = testing.tiny_directory(place / "base", window=64)
    documents = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("ROPEWALK_CACHE", str(place / "tokens"))
        train(
            base,
            out=place / "out",
            mode="lora",
            method="linear",
            data=documents,
            window=96,
            steps=4,
            batch_size=2,
            learning_rate=1e-2,
        )
    return base, place / "out"


@pytest.mark.parametrize("extended", [False, True])
def test_a_merged_adapter_computes_what_training_merged_itself(trained, extended, tmp_path):
    base, out = trained
    if extended:
        extend(base, window=96, method="linear", out=tmp_path / "longer")
        base = tmp_path / "longer"
    info = ropewalk.merge(out / "adapter", base=base, out=tmp_path / "merged")
    assert (info.window, info.steps, info.factor) == (96, 4, 1.5)
    # Training merged in the same arithmetic.
    torch.testing.assert_close(of(tmp_path / "merged"), of(out), rtol=1e-5, atol=1e-6)
    assert (of(tmp_path / "merged") - of(base)).abs().max() > 0.01
    assert (tmp_path / "merged" / "tokenizer.json").read_bytes() == (base / "tokenizer.json").read_bytes()
    assert run_file.read(tmp_path / "merged/run.yaml") == (
        "merge",
        {"adapter": str(out / "adapter"), "base": str(base), "out": str(tmp_path / "merged")},
    )


def test_R12_plain_peft_loads_the_exported_adapter_on_the_extended_base(trained, tmp_path):
    base, out = trained
    exported = ropewalk.export(out / "adapter", reader="peft", base=base, out=tmp_path / "plain")
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(exported.out, dtype=torch.float32)
    # One product of a sum against a sum of products, in float32.
    torch.testing.assert_close(logits(loaded), of(out), rtol=1e-4, atol=1e-5)
    about = json.loads((exported.out / "adapter_config.json").read_text())
    assert (about["peft_type"], about["task_type"]) == ("LORA", "CAUSAL_LM")
    assert read_config(exported.out / "base")["rope_scaling"]["factor"] == 1.5
    assert not list(tmp_path.glob(".*"))  # nothing of the way is left behind
    again = ropewalk.merge(exported.out, out=tmp_path / "again")  # plain peft's adapters name their base
    assert again.window == 96
    torch.testing.assert_close(of(tmp_path / "again"), of(out), rtol=1e-4, atol=1e-5)


def test_R12_what_plain_peft_says_of_our_adapter_names_the_way_out(trained):
    _, out = trained
    with pytest.raises((KeyError, ValueError), match="ropewalk export ADAPTER --for peft"):
        peft.PeftConfig.from_pretrained(out / "adapter")


def test_an_adapter_of_ours_names_the_model_that_was_trained(trained, tmp_path):
    base, out = trained
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert ropewalk.merge(out / "adapter", out=tmp_path / "merged").window == 96
        extend(base, window=96, out=tmp_path / "longer")  # the same weights
        ropewalk.merge(out / "adapter", base=tmp_path / "longer", out=tmp_path / "too")


def test_the_disk_is_asked_before_a_model_is_written(trained, tmp_path, monkeypatch):
    base, out = trained
    plain = tmp_path / "plain"
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, size))  # the weights alone would have room
    for write in (
        lambda: ropewalk.merge(out / "adapter", out=plain),
        lambda: ropewalk.export(out / "adapter", reader="vllm", out=plain),
        lambda: ropewalk.export(out / "adapter", reader="peft", out=plain),
    ):
        with pytest.raises(UserError, match=r"plain takes .* MiB, and its disk has .* MiB free; make room"):
            write()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, 2**15))  # too little for what links lack
    with pytest.raises(UserError, match=r"plain takes .* MiB, and its disk has .* MiB free; make room"):
        ropewalk.export(base, reader="vllm", out=plain)
    assert not plain.exists() and [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("reader", [None, "vllm", "peft"])
def test_a_disk_with_room_for_the_result_is_enough(trained, tmp_path, monkeypatch, reader):
    """The base's weights lie on another disk, which no link reaches, and none of them are copied to the one of --out."""
    base, out = trained
    size = sum(file.stat().st_size for file in base.glob("*.safetensors"))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, int(1.7 * size)))
    copied, link, copy = [], os.link, shutil.copyfile

    def other_disk(source, target, **options):
        if base in Path(source).parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        link(source, target, **options)

    monkeypatch.setattr(os, "link", other_disk)
    monkeypatch.setattr(shutil, "copyfile", lambda source, target: (copied.append(source), copy(source, target)))
    if reader is None:
        ropewalk.merge(out / "adapter", out=tmp_path / "there")
    else:
        ropewalk.export(out / "adapter", reader=reader, out=tmp_path / "there")
    assert copied and not [file for file in copied if Path(file).suffix == ".safetensors"]


@pytest.mark.parametrize("reader", ["vllm", "transformers", "mlx"])
def test_what_is_made_of_an_adapter_names_it_and_no_place_that_is_gone(trained, tmp_path, caplog, reader):
    base, out = trained
    caplog.set_level("INFO", "ropewalk")
    ropewalk.export(out / "adapter", reader=reader, out=tmp_path / "served")
    assert f"the card says of {out / 'adapter'} that it was not measured" in caplog.text
    assert f"ropewalk merge {out / 'adapter'} --out MODEL, ropewalk card MODEL" in caplog.text
    assert json.loads((tmp_path / "served/export.json").read_text())["model"] == str(out / "adapter")
    texts = [
        path.read_text(errors="replace") for path in (tmp_path / "served").iterdir() if path.suffix != ".safetensors"
    ]
    assert not [text for text in [caplog.text, *texts] if ".partial" in text]
    assert f"\n# {base.name}, 96 tokens\n" in (tmp_path / "served/README.md").read_text()  # made from its base


def test_an_error_while_a_model_is_merged_names_out(trained, tmp_path, monkeypatch):
    _, out = trained

    def broken(checkpoint):
        raise UserError(f"{checkpoint} turns otherwise")

    monkeypatch.setattr(save, "verify_directory", broken)
    with pytest.raises(UserError, match=f"^{tmp_path / 'merged'} turns otherwise$"):
        ropewalk.merge(out / "adapter", out=tmp_path / "merged")


@pytest.mark.parametrize("reader", [None, "vllm", "peft"])
def test_an_adapter_of_ours_without_its_config_is_told_what_it_lacks(trained, tmp_path, reader):
    base, out = trained
    adapter = shutil.copytree(out / "adapter", tmp_path / "adapter")
    (adapter / "config.json").unlink()
    with pytest.raises(UserError, match=rf"and {adapter / 'config.json'} is missing; take the adapter directory"):
        if reader is None:
            ropewalk.merge(adapter, out=tmp_path / "merged")
        else:
            ropewalk.export(adapter, reader=reader, out=tmp_path / "merged")
    diagnosis = ropewalk.doctor(adapter)
    assert [finding.verdict for finding in diagnosis.findings if "is missing; take" in finding.sentence] == ["wrong"]


def test_another_scale_than_the_runs_records_have_is_said(trained, tmp_path):
    base, out = trained
    run = shutil.copytree(out, tmp_path / "run")
    about = run / "adapter/adapter_config.json"
    about.write_text(json.dumps(json.loads(about.read_text()) | {"lora_alpha": 160}))
    with pytest.warns(UserWarning, match="has lora_alpha 160, and by the run's records it was trained with 16"):
        ropewalk.merge(run / "adapter", base=base, out=tmp_path / "merged")


def test_weights_that_an_adapter_was_not_trained_on_are_said(trained, tmp_path):
    base, out = trained
    changed = shutil.copytree(base, tmp_path / "changed")
    weights = load_file(changed / "model.safetensors")
    weights["model.norm.weight"] += 1
    save_file(weights, changed / "model.safetensors", metadata={"format": "pt"})
    for other in (changed, out):  # the trained model has the adapter already
        with pytest.warns(UserWarning, match="has other weights than the model that .*adapter was trained on"):
            ropewalk.merge(out / "adapter", base=other, out=tmp_path / f"merged-{other.name}")


def test_an_adapter_is_merged_on_the_way_to_another_reader(trained, tmp_path, caplog):
    caplog.set_level("INFO", "ropewalk")
    base, out = trained
    ropewalk.export(out / "adapter", reader="vllm", base=base, out=tmp_path / "served")
    assert "hard links" not in caplog.text  # its weights are nobody else's
    torch.testing.assert_close(of(tmp_path / "served"), of(out), rtol=1e-5, atol=1e-6)
    assert read_config(tmp_path / "served")["max_position_embeddings"] == 64


def test_an_adapter_without_its_base_or_on_another_one_is_refused(trained, tmp_path):
    _, out = trained
    nameless = shutil.copytree(out / "adapter", tmp_path / "nameless")
    about = json.loads((nameless / "adapter_config.json").read_text()) | {"base_model_name_or_path": None}
    (nameless / "adapter_config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="does not name the model it was trained on; add --base"):
        ropewalk.merge(nameless, out=tmp_path / "out")
    other = testing.tiny_directory(tmp_path / "other", "qwen2")
    with pytest.raises(UserError, match="trained on a llama model.*is qwen2"):
        ropewalk.merge(nameless, base=other, out=tmp_path / "out")
    wider = testing.tiny_directory(tmp_path / "wider", hidden_size=128, head_dim=16)
    with pytest.raises(UserError):
        ropewalk.merge(nameless, base=wider, out=tmp_path / "out")
    with pytest.raises(UserError, match="an adapter is a directory"):
        ropewalk.merge(other, out=tmp_path / "out")


def test_of_what_is_no_adapter_it_is_said_what_can_be_merged(trained, tmp_path):
    base, out = trained
    config = out / "adapter/adapter_config.json"
    (tmp_path / "plain").mkdir()
    shutil.copytree(out / "adapter", tmp_path / "plain/checkpoint-9")
    for given, reason in (
        (out, rf"{out} is a trained model with {out / 'adapter'} merged already"),
        (base, f"{base} has none, but is a whole model"),
        (config, f"is a file in one; name {out / 'adapter'}$"),
        (tmp_path / "plain", f"has one in it; name {tmp_path / 'plain/checkpoint-9'}$"),
    ):
        with pytest.raises(UserError, match=reason):
            ropewalk.merge(given, out=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"use_dora": True}, "have use_dora None, but"),
        ({"lora_alpha": None}, "is not as it was written"),
        ({"layers_to_transform": [0]}, "have layers_to_transform None"),
    ],
)
def test_an_adapter_that_asks_for_what_it_does_not_have_is_refused(trained, tmp_path, changed, reason):
    base, out = trained
    shutil.copytree(out / "adapter", tmp_path / "adapter")
    about = json.loads((tmp_path / "adapter/adapter_config.json").read_text())
    (tmp_path / "adapter/adapter_config.json").write_text(json.dumps(about | changed))
    with pytest.raises(UserError, match=reason):
        ropewalk.merge(tmp_path / "adapter", base=base, out=tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"target_modules": ["q_proj"]}, "gives 12 tensors of its weights no place"),
        ({"r": "x"}, "cannot be put on its base"),
    ],
)
def test_weights_that_plain_peft_would_leave_out_are_refused(trained, tmp_path, changed, reason):
    base, out = trained
    ropewalk.export(out / "adapter", base=base, reader="peft", out=tmp_path / "plain")
    about = json.loads((tmp_path / "plain/adapter_config.json").read_text())
    (tmp_path / "plain/adapter_config.json").write_text(json.dumps(about | changed))
    with pytest.raises(UserError, match=reason):
        ropewalk.merge(tmp_path / "plain", out=tmp_path / "merged")


def test_plain_pefts_adapter_is_merged_without_a_word_and_by_the_window_that_was_told(trained, tmp_path):
    """Not even deprecations of peft's; a base whose config leaves its windows open is asked of once."""
    base, _ = trained
    scaled = shutil.copytree(base, tmp_path / "scaled")
    config = read_config(scaled) | {
        "rope_theta": 10000.0,
        "rope_scaling": {"type": "linear", "rope_type": "linear", "factor": 4.0},
    }
    (scaled / "config.json").write_text(json.dumps(config | {"rope_parameters": None}))
    model = transformers.AutoModelForCausalLM.from_pretrained(scaled)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peft.get_peft_model(model, peft.LoraConfig(target_modules=["q_proj"])).save_pretrained(tmp_path / "adapter")
    with pytest.raises(UserError, match="add --current-window 64"):
        ropewalk.merge(tmp_path / "adapter", base=scaled, out=tmp_path / "merged")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        merged = ropewalk.merge(tmp_path / "adapter", base=scaled, current_window=64, out=tmp_path / "merged")
    assert (merged.original_window, merged.window) == (16, 64)


def test_adapters_weights_without_their_config_are_called_no_whole_model(tmp_path):
    (tmp_path / "adapter_model.safetensors").touch()
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        UserError, match="has an adapter_model.safetensors and lacks it; take the adapter directory as it was written"
    ):
        ropewalk.merge(tmp_path, out=tmp_path / "out")
