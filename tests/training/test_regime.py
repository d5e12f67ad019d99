"""Precision and optimiser that nobody named: chosen by the card's free memory, said, on record, and kept when a run goes on."""

from __future__ import annotations

import dataclasses
import json
from types import SimpleNamespace

import pytest
import torch

from ropewalk import records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.distributed.mesh import Mesh
from ropewalk.errors import UserError
from ropewalk.planner import plan, regimes
from ropewalk.planner.job import FULL
from ropewalk.planner.known_models import CONFIGS
from ropewalk.settings import train as train_settings
from ropewalk.training import TrainSettings, regime, run, train
from ropewalk.training.step import TrainingStep

GIB = 2**30
#: LLaMA 7B's shape, of which a config.json is all that is needed.
SEVEN = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32,
    "vocab_size": 32000, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
}  # fmt: skip
STOCHASTIC = "bfloat16-stochastic"


@pytest.fixture
def seven(tmp_path, monkeypatch):
    """A checkpoint of seven billion weights, torchao, and a card whose free memory a test sets."""
    (tmp_path / "7b").mkdir()
    (tmp_path / "7b/config.json").write_text(json.dumps(SEVEN))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device=None: "NVIDIA H100 80GB HBM3")
    for room in (regimes, train_settings):
        monkeypatch.setattr(room, "installed", lambda name: True)

    def choose(free: float, out=tmp_path / "none", capability=(9, 0), **options) -> TrainSettings:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: capability)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (int(free * GIB), int(79.2 * GIB)))
        asked = {"window": 32768, "data": "none", **options}
        settings = TrainSettings(model=tmp_path / "7b", out=tmp_path / "out", **asked).for_model(6_738_415_616)
        return regime.settled(settings, Checkpoint.open(tmp_path / "7b"), Mesh(torch.device("cuda")), out)

    return choose


@pytest.mark.parametrize(
    ("free", "options", "chosen"),
    [
        (78.7, {}, (STOCHASTIC, "adamw")),
        (45.0, {"window": 4096}, (STOCHASTIC, "adamw-8bit")),
        (78.7, {"precision": "bfloat16"}, ("bfloat16", "adamw-offload")),
        (78.7, {"optimizer": "adamw-8bit"}, (STOCHASTIC, "adamw-8bit")),
        (78.7, {"mode": "lora"}, ("bfloat16", "adamw")),
        (78.7, {"precision": "float32", "optimizer": "adamw"}, ("float32", "adamw")),
    ],
)
def test_an_80_gb_card_trains_seven_billion_by_what_fits(seven, free: float, options: dict, chosen) -> None:
    settings = seven(free, **options)
    assert (settings.precision, settings.optimizer) == chosen


def test_a_gpu_that_knows_no_bfloat16_computes_in_float32(seven, caplog) -> None:
    """Below compute capability 8.0 attention in bfloat16 has no fused kernel, and makes the whole square."""
    with caplog.at_level("INFO", logger="ropewalk"):
        settings = seven(31.7, capability=(7, 0), mode="lora", base_bits=4, window=4096)
    assert (settings.precision, settings.optimizer) == ("float32", "adamw")
    assert "knows no bfloat16" in caplog.messages[0]
    with pytest.raises(UserError, match="bfloat16 needs GPUs that know bfloat16 .*use --precision float32"):
        seven(31.7, capability=(7, 5), precision="bfloat16", optimizer="adamw")


@pytest.mark.parametrize("taken", [0, 20])
@pytest.mark.parametrize(("window", "short"), [(16384, False), (65536, True)])
def test_whether_memory_is_short_is_the_planners_word_before_and_after_the_model_is_loaded(
    seven, tmp_path, monkeypatch, taken: float, window: int, short: bool
) -> None:
    """Weights and states that this process holds on the card by now are in the plan, and not beside it."""
    options = dict(window=window, mode="lora", batch_size=1, activations="full")
    settings = dataclasses.replace(seven(35.4 - taken, **options), precision="bfloat16", optimizer="adamw")
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: int(taken * GIB))
    assert regime.is_short(settings, Checkpoint.open(tmp_path / "7b"), Mesh(torch.device("cuda"))) is short
    planned = plan(tmp_path / "7b", gpu_memory="36.4GiB", **options, precision="bfloat16", optimizer="adamw")
    assert (planned.job.tiles > 1) is short


def test_the_choice_is_one_line(seven, caplog) -> None:
    with caplog.at_level("INFO", logger="ropewalk"):
        seven(78.7)
    (line,) = caplog.messages
    assert "precision bfloat16-stochastic, optimizer adamw" in line and "bfloat16 with adamw takes" in line
    assert "79.2 GiB of H100" in line
    caplog.clear()
    seven(20.0)
    assert "is tried all the same" in caplog.messages[0]


def test_what_fits_but_is_not_installed_is_a_sentence(seven, monkeypatch) -> None:
    monkeypatch.setattr(regimes, "installed", lambda name: False)
    with pytest.raises(UserError, match="needs torchao, which is not installed: pip install"):
        seven(78.7)


def test_a_run_goes_on_with_what_its_checkpoint_has(seven, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base = testing.tiny_directory(tmp_path / "base", window=64)
    shared = dict(data=[Document("a", testing.prose(400, 0))], window=96, batch_size=2, save_every=1, device="cpu")
    train(base, out=tmp_path / "run", steps=1, **shared)
    settings = records.read([tmp_path / "run/records.jsonl"]).of(records.Step)[0].run.settings
    assert (settings["precision"], settings["optimizer"]) == ("float32", "adamw")  # on a CPU, and on record
    train(base, out=tmp_path / "run", steps=2, resume=True, **shared)

    going_on = seven(10.0, tmp_path / "run", resume=True)
    assert (going_on.precision, going_on.optimizer) == ("float32", "adamw")
    manifest = tmp_path / "run/checkpoints/step-000002/state/manifest.json"
    content = json.loads(manifest.read_text())
    del content["about"]["precision"]  # as an earlier version wrote it
    manifest.write_text(json.dumps(content))
    assert seven(10.0, tmp_path / "run", resume=True).precision == "bfloat16"


def test_a_family_that_nobody_can_count_is_trained_as_ever(seven, tmp_path, caplog) -> None:
    (tmp_path / "7b/config.json").write_text(json.dumps({**SEVEN, "model_type": "of nobody", "kv_lora_rank": 512}))
    caplog.set_level("INFO", "ropewalk")
    settings = seven(78.7)
    assert (settings.precision, settings.optimizer) == ("bfloat16", "adamw")
    assert "precision bfloat16, optimizer adamw: what a step of this family takes is not known" in caplog.text


def test_options_that_would_fit_are_named_by_the_planner_and_nobody_else_is_asked(seven, tmp_path, monkeypatch) -> None:
    settings = dataclasses.replace(seven(78.7), precision="bfloat16", optimizer="adamw")
    monkeypatch.setenv("WORLD_SIZE", "2")  # a meeting would be refused, since nobody has joined the other one
    monkeypatch.setenv("RANK", "1")
    ways = regime.what_fits(settings, Checkpoint.open(tmp_path / "7b"), Mesh(torch.device("cuda")))
    assert (
        ways[0] == "--precision bfloat16-stochastic --optimizer adamw"
        and any("--mode lora" in way for way in ways)
        and ways[-1].startswith("2 such GPUs by torchrun")
    )


@pytest.fixture
def on_a_cpu(tmp_path, monkeypatch, caplog):
    """What a training of SmolLM2-135M's shape at 16384 tokens settles on a CPU of so many GiB, and what it says."""
    (tmp_path / "small").mkdir()
    (tmp_path / "small/config.json").write_text(json.dumps(CONFIGS["smollm2-135m"]))
    checkpoint, mesh = Checkpoint.open(tmp_path / "small"), Mesh(torch.device("cpu"))
    caplog.set_level("INFO", "ropewalk")

    def settle(room: float, **options) -> tuple[TrainSettings, str, str]:
        monkeypatch.setattr(regime, "memory_to_hold", lambda processes: int(room * GIB))
        caplog.clear()
        asked = {"window": 16384, "data": "none", **options}
        settings = TrainSettings(model=tmp_path / "small", out=tmp_path / "out", **asked).for_model(134_515_008)
        settled = regime.settled(settings, checkpoint, mesh, tmp_path / "none")
        (record,) = caplog.records or [None]
        return settled, record.levelname if record else "", record.getMessage() if record else ""

    return settle


def test_what_a_cpu_trains_in_is_said_in_one_line_where_nobody_named_it(on_a_cpu) -> None:
    settings, level, said = on_a_cpu(64)
    assert (settings.precision, settings.optimizer, settings.micro_batch) == ("float32", "adamw", None)
    assert level == "INFO" and said.startswith("precision float32, optimizer adamw; a step takes about ")
    assert on_a_cpu(64, precision="float32", optimizer="adamw")[2] == ""


def test_a_run_goes_on_with_as_many_windows_at_a_time_as_it_began_with(on_a_cpu, monkeypatch) -> None:
    """Gradients of four windows at a time and of one by one are other sums, and the weights would differ in their last bits."""
    before = SimpleNamespace(about={"identity": {"optimizer": "adamw"}, "micro_batch": 2})
    monkeypatch.setattr(regime.Snapshots, "newest", lambda self: before)
    for gib in (3.8, 16.0):
        assert on_a_cpu(gib, mode="pose", chunk_window=512, resume=True)[0].micro_batch == 2
    assert on_a_cpu(16.0, mode="pose", chunk_window=512, resume=True, micro_batch=4)[0].micro_batch == 4


def test_training_on_a_cpu_takes_as_many_windows_at_a_time_as_its_plan(on_a_cpu) -> None:
    asked = dict(mode="pose", chunk_window=512)
    for gib in (3.8, 5.0, 16.0):
        settings, _, said = on_a_cpu(gib, **asked)
        planned = plan("smollm2-135m", window=16384, cpu_memory=f"{gib}GiB", **asked)
        assert (settings.micro_batch or 4, settings.activations == "full") == (
            planned.job.micro,
            planned.job.activations == FULL,
        )
        assert ("--micro-batch" in said) == (planned.job.micro < 4)
    assert on_a_cpu(3.8, **asked)[0].micro_batch == 2


def test_a_cpu_that_does_not_hold_a_step_by_plan_is_warned_of_before_it(on_a_cpu) -> None:
    settings, level, said = on_a_cpu(3.8, batch_size=1)
    assert settings.activations == "full" and level == "WARNING"
    assert "it is tried all the same; what fits: --mode pose --chunk-window 2048" in said
    assert on_a_cpu(0.5, batch_size=1)[2].endswith("nothing that was tried fits")


def test_a_step_may_take_fewer_windows_than_its_plan_where_nobody_said_how_many(tmp_path, monkeypatch) -> None:
    """By plan two of four at a time; two run out of memory, with all activations and with as few as can be; one at a time lives."""
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base = testing.tiny_directory(tmp_path / "base", window=64)
    monkeypatch.setattr(
        run, "settled", lambda s, *_: dataclasses.replace(regime.with_regime(s, "float32", "adamw"), micro_batch=2)
    )
    real, windows = TrainingStep._forward_and_backward, []

    def failing(self, rows, counted):
        windows.append(len(rows["input_ids"]))
        if windows[-1] > 1:
            raise MemoryError("Cannot allocate memory")
        return real(self, rows, counted)

    monkeypatch.setattr(TrainingStep, "_forward_and_backward", failing)
    documents = [Document(f"d{number}", testing.prose(80, number)) for number in range(8)]
    train(base, data=documents, out=tmp_path / "out", window=96, steps=1, batch_size=4)
    assert windows[0] == 2 and windows[-5] == 2 and windows[-4:] == [1] * 4
