"""Which files hold a checkpoint's weights, what is wrong with them, and what they are as a whole. The oracle is transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import struct
import time
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import transformers
from huggingface_hub.utils import filter_repo_objects
from safetensors.torch import load_file, save_file

from ropewalk import testing
from ropewalk.checkpoint import digests
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.headers import INDEX, SINGLE, check_safetensors
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model
from ropewalk.model.save import save_model
from ropewalk.training import train

SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.tiny_directory(tmp_path_factory.mktemp("made") / "model", window=64)


@pytest.fixture
def model(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "model"))


@pytest.mark.parametrize("with_config", [True, False])  # ropewalk's own adapters have one, peft's none
def test_an_adapter_is_told_from_a_model_that_lacks_its_weights(with_config: bool, model: Path) -> None:
    (model / SINGLE).rename(model / "adapter_model.safetensors")
    (model / "adapter_config.json").write_text("{}", encoding="utf-8")
    if not with_config:
        (model / "config.json").unlink()
    for use in (load_model, lambda path: extend(path, window=128, out=model / "longer")):
        with pytest.raises(UserError, match="is an adapter and no whole model; merge it first: ropewalk merge"):
            use(model)


def write_shards(model: Path, weights: dict[str, torch.Tensor], names: tuple[str, str] = SHARDS, **index: Any) -> None:
    """Two shards of half the tensors each, and their index; `index` replaces its entries."""
    half, order = len(weights) // 2, list(weights)
    parts = {names[0]: order[:half], names[1]: order[half:]}
    for name, keys in parts.items():
        (model / name).parent.mkdir(exist_ok=True)
        save_file({key: weights[key] for key in keys}, model / name, metadata={"format": "pt"})
    weight_map = {key: name for name, keys in parts.items() for key in keys}
    (model / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map} | index))


def as_transformers_reads(model: Path) -> dict[str, torch.Tensor]:
    return transformers.AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).state_dict()


def holds(model: Path, said: dict[str, torch.Tensor]) -> None:
    """The model that we load, and its extension as transformers loads it, have these weights."""
    torch.testing.assert_close(dict(load_model(model).state_dict()), dict(said), rtol=0, atol=0)
    extend(model, window=128, out=model.parent / "longer")
    torch.testing.assert_close(dict(as_transformers_reads(model.parent / "longer")), dict(said), rtol=0, atol=0)


def kinds(model: Path) -> list[str]:
    return [problem.kind for problem in Checkpoint.open(model).tensor_problems()]


@pytest.mark.filterwarnings("ignore:.*has two sets of weights")
def test_two_sets_of_weights_are_read_as_transformers_reads_them(model: Path) -> None:
    weights = load_file(model / SINGLE)
    write_shards(model, {name: value * 0.5 for name, value in weights.items()})
    with pytest.warns(UserWarning, match="two sets of weights: model.safetensors is read, as transformers does"):
        load_model(model)
    holds(model, as_transformers_reads(model))
    assert kinds(model) == ["two sets of weights"] and kinds(model.parent / "longer") == []


def test_weights_in_the_file_that_the_config_names(model: Path) -> None:
    os.rename(model / SINGLE, model / "other.safetensors")
    config = json.loads((model / "config.json").read_text()) | {"transformers_weights": "other.safetensors"}
    (model / "config.json").write_text(json.dumps(config))
    assert Checkpoint.open(model).has_weights
    holds(model, as_transformers_reads(model))
    save_model(load_model(model), None, model.parent / "saved", source=Checkpoint.open(model))
    assert as_transformers_reads(model.parent / "saved").keys() == as_transformers_reads(model).keys()


def test_shards_in_a_sub_folder_stay_there(model: Path) -> None:
    weights = load_file(model / SINGLE)
    (model / SINGLE).unlink()
    write_shards(model, weights, names=("sub/a.safetensors", "sub/b.safetensors"))
    holds(model, as_transformers_reads(model))
    assert os.path.samefile(model / "sub/a.safetensors", model.parent / "longer/sub/a.safetensors")
    (model.parent / "text.txt").write_text(testing.prose(400))
    trained = model.parent / "trained"
    train(model, data=model.parent / "text.txt", window=128, steps=1, batch_size=1, out=trained, save_every=0)
    assert load_model(trained).state_dict().keys() == weights.keys() | {"lm_head.weight"}


@pytest.mark.filterwarnings("ignore:.*disagree on")
def test_an_index_that_disagrees_with_its_shards_is_said_and_mended(model: Path) -> None:
    weights = load_file(model / SINGLE)
    (model / SINGLE).unlink()
    write_shards(model, weights)
    index = json.loads((model / INDEX).read_text())
    name = next(iter(weights))
    index["weight_map"][name] = SHARDS[1]  # it lies in the first
    (model / INDEX).write_text(json.dumps(index))
    assert kinds(model) == ["index"]
    holds(model, as_transformers_reads(model))
    assert kinds(model.parent / "longer") == []
    assert json.loads((model.parent / "longer" / INDEX).read_text())["weight_map"][name] == SHARDS[0]


def test_of_a_tensor_in_two_shards_the_last_is_read(model: Path) -> None:
    weights = load_file(model / SINGLE)
    (model / SINGLE).unlink()
    write_shards(model, weights)
    name = next(iter(weights))
    save_file(load_file(model / SHARDS[1]) | {name: weights[name] * 2}, model / SHARDS[1], metadata={"format": "pt"})
    with pytest.warns(UserWarning, match="more than one shard of .* has 1 tensor"):
        loaded = load_model(model).state_dict()
    torch.testing.assert_close(loaded[name], as_transformers_reads(model)[name], rtol=0, atol=0)


def test_a_head_of_its_own_beside_a_tied_embedding_is_said_and_a_copy_of_it_is_not(model: Path) -> None:
    """transformers 5 reads such a head and 4.57 does not."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    weights = load_file(model / SINGLE)
    with pytest.warns(UserWarning, match="have a lm_head.weight that is another"):
        loaded = load_model(model)
    assert torch.equal(loaded.lm_head.weight, weights["lm_head.weight"])
    save_file(
        weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()},
        model / SINGLE,
        metadata={"format": "pt"},
    )
    assert kinds(model) == []


@pytest.mark.parametrize(
    "index, sentence",
    [
        ({"metadata": None}, 'no "metadata", without which transformers'),
        ({"weight_map": None}, "no weight_map"),
        ({"weight_map": {"x": "../elsewhere.safetensors"}}, "weights lie in their checkpoint's directory"),
        ({"weight_map": {"x": "gone.safetensors"}}, "lacks gone.safetensors"),
        ({"weight_map": {}}, "lacks its weights"),
    ],
)
def test_an_index_that_no_reader_uses_is_refused(model: Path, index: dict[str, Any], sentence: str) -> None:
    weights = load_file(model / SINGLE)
    (model / SINGLE).unlink()
    write_shards(model, weights, **index)
    with pytest.raises(UserError, match=sentence):
        Checkpoint.open(model).headers  # noqa: B018


def _with_header(file: Path, change: Any) -> None:
    content = file.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    first = next(name for name in header if name != "__metadata__")
    said = json.dumps(change(header, first)) if callable(change) else change
    file.write_bytes(struct.pack("<Q", len(said)) + said.encode() + content[8 + length :])


@pytest.mark.parametrize(
    "change",
    [
        lambda header, name: header | {name: header[name] | {"dtype": "F17"}},
        lambda header, name: header | {name: header[name] | {"shape": [3, 5]}},
        lambda header, name: header | {name: header[name] | {"shape": "wide"}},
        lambda header, name: header | {name: header[name] | {"data_offsets": [8, 4]}},
        lambda header, name: header | {name: header[name] | {"data_offsets": ["0", "4"]}},
        lambda header, name: header | {name: {}},
        lambda header, name: header | {"again": header[name]},
        lambda header, name: [header],
        "[" * 100_000,
    ],
)
def test_safetensors_that_safetensors_refuses_get_a_sentence(model: Path, change: Any) -> None:
    _with_header(model / SINGLE, change)
    with pytest.raises(UserError, match="fetch it again"):
        check_safetensors(model / SINGLE)


@pytest.mark.parametrize(
    "config, tensor",
    [
        ({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}, None),
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, None),
        ({"quantization_config": {"quant_method": "awq", "bits": 4}}, None),
        ({"quantization_config": {"quant_method": "fp8"}}, None),
        ({"compression_config": {"quant_method": "compressed-tensors", "config_groups": {}}}, None),
        ({"quantization_config": {"quant_method": "torchao", "quant_type": {"default": {}}}}, None),
        ({"quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": []}}, None),
        ({"quantization_config": {"quant_method": None, "load_in_8bit": True}}, None),
        ({"quantization": {"group_size": 64, "bits": 4}}, None),  # MLX
        ({"quantization_config": "int4"}, None),
        ({"quant_config": {"w_bit": 4, "q_group_size": 128}}, None),
        ({}, ("mlp.up_proj.weight_scale_inv", torch.float32)),
        ({}, ("mlp.up_proj.qweight", torch.int32)),
        ({}, ("mlp.up_proj.W_q", torch.uint8)),  # HQQ
        ({}, ("mlp.up_proj.trellis", torch.int16)),  # EXL3
        ({}, ("mlp.up_proj._weight_qdata", torch.int8)),  # torchao
        ({}, ("mlp.experts.gate_up_proj_blocks", torch.uint8)),  # MXFP4
        ({}, ("mlp.up_proj.weight", torch.uint32)),  # MLX
        ({}, ("mlp.up_proj.weight", torch.float8_e4m3fn)),
    ],
)
def test_a_base_that_is_quantised_on_disk_is_neither_extended_nor_trained(
    model: Path, config: dict[str, Any], tensor: tuple[str, torch.dtype] | None
) -> None:
    (model / "config.json").write_text(json.dumps(json.loads((model / "config.json").read_text()) | config))
    if tensor:
        packed = {f"model.layers.0.{tensor[0]}": torch.ones(2, 2).to(tensor[1])}
        save_file(load_file(model / SINGLE) | packed, model / SINGLE, metadata={"format": "pt"})
    out = model.parent / "out"
    with pytest.raises(UserError, match="are quantised .* and cannot be trained"):
        extend(model, window=128, out=out)
    with pytest.raises(UserError, match="are quantised"):
        train(model, data=__file__, window=128, steps=1, batch_size=1, out=out)
    assert not out.exists()


@pytest.mark.parametrize("name, dtype", [("attn.bias", torch.uint8), ("embeddings.position_ids", torch.int32)])
def test_a_buffer_of_whole_numbers_is_no_sign_of_quantised_weights(model: Path, name: str, dtype: torch.dtype) -> None:
    save_file(load_file(model / SINGLE) | {name: torch.ones(2, 2).to(dtype)}, model / SINGLE, metadata={"format": "pt"})
    assert not Checkpoint.open(model).tensor_problems()


def test_measuring_quantised_weights_names_the_package_that_is_missing(model: Path) -> None:
    if importlib.util.find_spec("hqq"):
        pytest.skip("hqq is here")
    config = json.loads((model / "config.json").read_text()) | {"quantization_config": {"quant_method": "hqq"}}
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(UserError, match="HQQ .* install the package that it names"):
        load_model(model)


def test_a_gguf_file_is_sent_back_to_the_model_it_was_made_from(model: Path) -> None:
    for path in model.glob("*.safetensors"):
        path.unlink()
    file = model / "model-q4.gguf"
    file.write_bytes(b"GGUF")
    for name in (model, file):
        with pytest.raises(UserError, match="made for llama.cpp.* start from the model it was made from"):
            extend(name, window=128, out=model.parent / "out")


def test_stray_pickles_and_ids_beyond_the_embedding_are_named(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 258, "content": "[PAD]"})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    pickles, ids = Checkpoint.open(model).tensor_problems()
    assert (pickles.kind, ids.kind) == ("pickles", "ids beyond the embedding")
    assert "258 rows (258, '[PAD]')" in ids.sentence and not ids.stops


# What a model is as a whole -------------------------------------------------------------------------------------------------------


def _flip(file: Path, place: int) -> None:
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "change, decides",
    [
        (lambda m: _flip(m / SINGLE, -1), True),
        (lambda m: _flip(m / SINGLE, (m / SINGLE).stat().st_size // 2), True),
        (lambda m: (m / "tokenizer.json").write_text((m / "tokenizer.json").read_text() + " "), True),
        (lambda m: (m / "chat_template.jinja").write_text("{{ messages }}"), True),
        (lambda m: (m / "config.json").write_text((m / "config.json").read_text().replace("1e-06", "0.5")), True),
        (lambda m: (m / "config.json").write_text((m / "config.json").read_text() + "\n"), False),
        (lambda m: (m / "README.md").write_text("mine"), False),
        (lambda m: os.utime(m / SINGLE, (1, 1)), False),
    ],
)
def test_config_tokenizer_and_every_weight_decide_what_a_model_is(model: Path, change: Any, decides: bool) -> None:
    before = Checkpoint.open(model).fingerprint
    change(model)
    assert (Checkpoint.open(model).fingerprint != before) == decides


def test_a_file_is_hashed_once(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = model / SINGLE
    just_written = digests.digest_of(file)
    os.utime(file, (time.time() - 60, time.time() - 60))
    hashed: list[Path] = []
    really = digests._hashed
    monkeypatch.setattr(digests, "_hashed", lambda path, size: hashed.append(path) or really(path, size))
    assert [digests.digest_of(file) for _ in range(3)] == [just_written] * 3 and len(hashed) == 1
    with digests.same_bytes(file):
        os.link(file, model / "linked.safetensors")  # as `extend` does
    assert digests.digest_of(model / "linked.safetensors") == just_written and len(hashed) == 1
    written = file.stat()
    _flip(file, -1)
    os.utime(file, ns=(written.st_atime_ns, written.st_mtime_ns))  # as copies and archives do
    assert digests.digest_of(file) != just_written


# The hub --------------------------------------------------------------------------------------------------------------------------


class FakeHub:
    """Repositories on disk. `snapshot_download` as huggingface_hub has it: its own filter, one snapshot that grows."""

    def __init__(self, cache: Path, files: dict[str, str]) -> None:
        self.snapshot, self.files, self.fetched = cache / "snapshots/0", files, []

    def snapshot_download(self, name: str, *, allow_patterns: Any, ignore_patterns: Any) -> str:
        chosen = filter_repo_objects(self.files, allow_patterns=allow_patterns, ignore_patterns=ignore_patterns)
        for file in chosen:
            target = self.snapshot / file
            if not target.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(self.files[file])
                self.fetched.append(file)
        return str(self.snapshot)


COPIES = ["original/model.safetensors", "consolidated.safetensors", "checkpoint-500/model.safetensors", "x.gguf"]
COPIES += ["checkpoint-500/config.json", "onnx/model.onnx", "pytorch_model.bin", "modeling_x.py"]
SMALL = ["config.json", "tokenizer.json", "tokenizer.model", "LICENSE", "additional_chat_templates/tools.jinja"]
MAP = {"metadata": {}, "weight_map": {"a": SHARDS[0], "b": SHARDS[1], "c": SHARDS[0]}}


@pytest.mark.parametrize(
    "weights, options, wanted",
    [
        ([SINGLE], {}, [SINGLE]),
        ([*SHARDS, INDEX], {}, [*SHARDS, INDEX]),
        ([SINGLE, *SHARDS, INDEX], {}, [SINGLE, INDEX]),
        ([SINGLE], {"trust_remote_code": True}, [SINGLE, "modeling_x.py"]),
        ([], {}, []),
        ([], {"pickles": True}, ["pytorch_model.bin"]),
    ],
)
def test_the_hub_fetch_takes_what_is_read_once(
    weights: list[str], options: dict[str, bool], wanted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = dict.fromkeys([*SMALL, *COPIES, *weights], "{}")
    if INDEX in weights:
        content[INDEX] = json.dumps(MAP)
    hub = FakeHub(tmp_path, content)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
    checkpoint = Checkpoint.open("owner/name", **options)
    assert sorted(hub.fetched) == sorted([*SMALL, *wanted])
    if not weights and not options:
        with pytest.raises(UserError, match="--convert-pickle` fetches"):
            checkpoint.headers  # noqa: B018


@pytest.mark.parametrize(
    "key, said",
    [
        ("num_hidden_layers", "num_hidden_layers as a whole number of at most 16384, got 1000000000"),
        ("vocab_size", "other shapes"),
    ],
)
def test_what_a_config_asks_for_beyond_its_files_is_refused_before_it_is_built(
    model: Path, key: str, said: str
) -> None:
    """A thousand million layers would take hours, an embedding of as many rows all memory."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {key: 10**9}))
    with pytest.raises(UserError, match=said):
        load_model(model)
