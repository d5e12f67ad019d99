"""Training against plain PyTorch: what is computed, in which precision, and what is written down."""

import dataclasses
import importlib.machinery
import json
import sys
import types

import numpy as np
import pytest
import safetensors.torch
import torch
import transformers

from ropewalk import records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import Document
from ropewalk.data.packing import order
from ropewalk.data.tokenising import tokenise
from ropewalk.errors import UserError
from ropewalk.model.load import load_model
from ropewalk.settings.ablate import AblateSettings
from ropewalk.suite.digests import digests_of
from ropewalk.training import TrainSettings, log
from ropewalk.training.optimizer import learning_rate
from short_run import DOCUMENTS, WINDOW, go, same, steps, weights


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "tiny", window=64)


def test_the_rate_rises_from_ten_percent_over_twenty_steps_and_stays():
    rates = [learning_rate(step, 2e-5, 20) for step in range(30)]
    assert rates[0] == pytest.approx(2e-6) and rates[19] < 2e-5
    assert rates[20:] == [2e-5] * 10
    assert np.diff(rates[:21]) == pytest.approx(np.full(20, 0.9 * 2e-5 / 20))


def test_the_paper_halves_the_rate_for_its_large_models():
    settings = TrainSettings(model="m", data="d", window=8192, out="o")
    assert [settings.peak_rate(int(size)) for size in (6.7e9, 13e9, 32.5e9, 65.2e9)] == [2e-5, 2e-5, 1e-5, 1e-5]


@pytest.mark.parametrize(
    ("parameters", "window", "batch"),
    [(6.7e9, 8192, 64), (32.5e9, 8192, 64), (6.7e9, 16384, 128), (13e9, 32768, 128), (65.2e9, 8192, 128)],
)
def test_the_batch_is_the_papers(parameters, window, batch):
    """Section 3.1: 64 on 32 A100 for 7B, 13B and 33B up to 8192 tokens, else 128 on 128 A100."""
    settings = TrainSettings(model="m", data="d", window=window, out="o")
    assert settings.for_model(int(parameters)).batch == batch
    assert dataclasses.replace(settings, batch_size=3).for_model(int(parameters)).batch == 3


def test_a_run_without_a_batch_size_takes_the_papers_and_records_it(base, tmp_path):
    go(base, tmp_path / "out", steps=1, batch_size=None)
    read = records.read([tmp_path / "out" / "records.jsonl"])
    (step,) = read.of(records.Step)
    assert step.run.settings["batch_size"] == 64 and step.row.tokens == 64 * WINDOW


def test_training_does_what_plain_pytorch_does(base, tmp_path):
    go(base, tmp_path / "out", steps=4, micro_batch=3)

    # The same by hand: transformers' own logits and PI config, torch's own loss, clipping and unfused AdamW.
    config = transformers.AutoConfig.from_pretrained(base)
    config.rope_parameters = {"rope_type": "linear", "factor": WINDOW / 64, "rope_theta": 10000.0}
    model = transformers.AutoModelForCausalLM.from_pretrained(base, config=config, dtype=torch.float32)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.0, fused=False, foreach=False)
    tokens = torch.from_numpy(np.array(tokenise(DOCUMENTS, testing.byte_tokenizer()).ids, dtype=np.int64))
    losses = []
    for step in range(4):
        blocks = order(0, np.arange(4 * step, 4 * step + 4), (len(tokens) - 1) // WINDOW)
        ids = torch.stack([tokens[block * WINDOW : block * WINDOW + WINDOW + 1] for block in blocks])
        logits = model(input_ids=ids[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.param_groups[0]["lr"] = 1e-3 * (0.1 + 0.9 * step / 20)
        optimizer.step()
        losses.append(loss.item())

    assert [step.loss for step in steps(tmp_path / "out")] == pytest.approx(losses, rel=1e-5)
    ours, theirs = weights(tmp_path / "out"), model.state_dict()
    for name, value in ours.items():
        # Adam divides by the gradient's own size, so a gradient near zero turns a rounding error into a good part of one
        # update; four updates are at most 4e-4 long, and a hundredth of that is far below any that differ in earnest.
        assert (value - theirs[name]).abs().max() < 4e-6, name


def test_micro_batches_add_up_to_the_batch(base, tmp_path):
    for micro in (1, 4):
        go(base, tmp_path / str(micro), steps=3, micro_batch=micro)
    one, four = (steps(tmp_path / name) for name in ("1", "4"))
    for key in ("loss", "grad_norm"):
        assert [getattr(step, key) for step in one] == pytest.approx([getattr(step, key) for step in four], rel=1e-5)


@pytest.mark.parametrize("mode", ["full", "lora"])
def test_recomputing_activations_changes_nothing(base, tmp_path, mode):
    for memory in ("none", "full"):
        go(base, tmp_path / memory, steps=3, mode=mode, activations=memory)
    # Recomputed by the same operations in the same order on a CPU: bit for bit.
    assert same(weights(tmp_path / "none"), weights(tmp_path / "full"))


def test_the_loss_falls(base, tmp_path):
    go(base, tmp_path / "out", steps=40)
    losses = [step.loss for step in steps(tmp_path / "out")]
    assert losses[0] == pytest.approx(np.log(258), abs=0.3)  # random weights guess evenly among 258 bytes and marks
    assert losses[-1] < losses[0] - 1


def test_the_result_is_a_checkpoint_that_plain_transformers_turns_rightly(base, tmp_path):
    state = go(base, tmp_path / "out")
    assert (state.window, state.method, state.factor, state.steps) == (WINDOW, "linear", WINDOW / 64, 6)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    before = transformers.AutoModelForCausalLM.from_pretrained(base)
    ratio = before.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    assert ratio.tolist() == pytest.approx([WINDOW / 64] * 8)
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == WINDOW
    assert weights(tmp_path / "out").keys() == weights(base).keys()


def test_tied_weights_are_written_once(tmp_path):
    tied = testing.tiny_directory(tmp_path / "tied", window=64, tie_word_embeddings=True)
    go(tied, tmp_path / "out", steps=2)
    assert weights(tmp_path / "out").keys() == weights(tied).keys()
    before, after = weights(tied), weights(tmp_path / "out")
    assert not torch.equal(before["model.embed_tokens.weight"], after["model.embed_tokens.weight"])
    load_model(tmp_path / "out")


def test_direct_fine_tuning_leaves_the_rotation_alone(base, tmp_path):
    state = go(base, tmp_path / "out", method="plain", steps=2)
    assert (state.window, state.method, state.factor, state.original_window) == (WINDOW, "plain", 1.0, 64)
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    before = transformers.AutoModelForCausalLM.from_pretrained(base)
    assert torch.equal(model.model.rotary_emb.inv_freq, before.model.rotary_emb.inv_freq)
    assert model.config.max_position_embeddings == WINDOW


def test_a_bfloat16_model_is_trained_in_float32_and_written_as_it_came(tmp_path):
    model = testing.tiny(window=64).to(torch.bfloat16)
    model.save_pretrained(tmp_path / "base")
    testing.byte_tokenizer(64).save_pretrained(tmp_path / "base")
    go(tmp_path / "base", tmp_path / "out", steps=2, save_every=2)
    assert {value.dtype for value in weights(tmp_path / "out").values()} == {torch.bfloat16}
    kept = safetensors.torch.load_file(tmp_path / "out/checkpoints/step-000002/state/weights.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float32}


def test_updates_of_the_papers_rate_survive_in_float32_and_vanish_in_bfloat16():
    """Why weights are float32: 200 steps at 2e-5 move a weight by 4e-3; bfloat16 between 0.5 and 1 has steps of 3.9e-3."""
    start = torch.full((1000,), 0.7)

    def moved(dtype):
        weight = torch.nn.Parameter(start.to(dtype).clone())
        optimizer = torch.optim.AdamW([weight], lr=2e-5, betas=(0.9, 0.95), weight_decay=0.0)
        for _ in range(200):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        return float((start.to(dtype) - weight.detach()).float().mean())

    assert moved(torch.float32) == pytest.approx(
        200 * 2e-5, rel=1e-2
    )  # Adam's step under a constant gradient is the rate
    assert moved(torch.bfloat16) == 0.0


def test_plain_bfloat16_weights_are_not_offered(base, tmp_path):
    with pytest.raises(UserError, match="updates of 2e-5 vanish"):
        go(base, tmp_path / "out", precision="bf16")


def test_bfloat16_arithmetic_keeps_float32_weights_and_follows_the_float32_loss(base, tmp_path):
    for name in ("float32", "bfloat16"):
        go(base, tmp_path / name, precision=name, steps=4, save_every=4)
    kept = safetensors.torch.load_file(tmp_path / "bfloat16/checkpoints/step-000004/state/weights.safetensors")
    assert {value.dtype for value in kept.values()} == {torch.float32}
    exact, rounded = ([step.loss for step in steps(tmp_path / name)] for name in ("float32", "bfloat16"))
    # bfloat16 has 8 bits: a relative error of 2^-9 a product, averaged over 384 tokens.
    assert rounded == pytest.approx(exact, rel=2e-3)
    assert rounded != exact


def test_a_step_is_recorded_with_everything_the_log_line_tells(base, tmp_path):
    go(base, tmp_path / "out", steps=2)
    read = records.read([tmp_path / "out/records.jsonl"])
    (first, second), (run,) = (m.row for m in read.of(records.Step)), read.runs.values()
    assert (first.step, second.step, first.tokens) == (1, 2, 4 * WINDOW)
    assert first.learning_rate == pytest.approx(1e-4)
    assert first.grad_norm > 0 and first.seconds > 0 and first.peak_bytes > 1e6
    assert first.tokens_per_second == pytest.approx(first.tokens / first.seconds)
    assert (
        first.mfu is None and first.mfu_of_data_sheet is None
    )  # nobody measured this CPU's peak, and a guess would be none
    assert run.model.window == WINDOW and run.settings["batch_size"] == 4
    assert run.settings["data"] == [document.name for document in DOCUMENTS]


def test_a_header_has_the_digests_of_the_files_that_are_read(base, tmp_path):
    """As a row of `ablate` has them, wherever the files lie; documents in memory have none."""
    headers = []
    for place in ("one", "two"):
        (tmp_path / place / "texts").mkdir(parents=True)
        for document in DOCUMENTS:
            (tmp_path / place / "texts" / f"{document.name}.txt".replace("/", "-")).write_text(document.text)
        go(base, tmp_path / place / "out", steps=1, data=[tmp_path / place / "texts", "1.0"])
        (run,) = records.read([tmp_path / place / "out/records.jsonl"]).runs.values()
        headers.append(run.settings["digests"])
    settings = AblateSettings(model="hemp", test=["hemp"], out="o", data=[str(tmp_path / "one/texts"), "1.0"])
    assert headers[0] == headers[1] == {"data": digests_of(settings, Checkpoint.open("hemp"))["data"]}
    go(base, tmp_path / "memory", steps=1)
    (run,) = records.read([tmp_path / "memory/records.jsonl"]).runs.values()
    assert run.settings["digests"] == {}


@pytest.mark.parametrize(("rank", "count"), [("0", 1), ("1", 0)])
def test_of_many_processes_the_first_alone_tells_other_programs(base, tmp_path, monkeypatch, rank, count):
    started, told, names = [], [], []

    class Sink:
        def __init__(self, *_, **options):
            started.append(self)
            names.append(options.get("name"))

        def add_scalar(self, name, value, step):
            told.append((name, step))

        def log(self, values, step):
            told.extend((name, step) for name in values)

        close = finish = lambda self: None

    for name, attributes in {
        "tensorboard": {},
        "torch.utils.tensorboard": {"SummaryWriter": Sink},
        "wandb": {"init": Sink, "Error": RuntimeError},
        "trackio": {"init": Sink, "finish": lambda: None},
    }.items():
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(log, "is_first_process", lambda: rank == "0")
    go(base, tmp_path / "out", steps=2, log=["trackio", "tensorboard"], tensorboard=True, wandb="project")
    assert len(started) == 3 * count
    # Curves are called by their directory.
    assert sum(name is not None and name.startswith("out") for name in names) == 2 * count
    assert told.count(("train/loss", 2)) == 3 * count


@pytest.mark.parametrize(("warmup", "rate"), [(20, "0.000325 of the 0.001"), (6, "0.00085 of the 0.001"), (5, "")])
def test_a_run_that_ends_in_its_warm_up_says_so(base, tmp_path, caplog, warmup, rate):
    """Six steps: the last rate is 10 % and five of `warmup` parts of the other 90 % (section 3.1 as docs/training.md has it)."""
    caplog.set_level("INFO")
    go(base, tmp_path / "out", warmup=warmup, save_every=0)
    lines = [record.getMessage() for record in caplog.records if "--warmup" in record.getMessage()]
    assert [rate in line for line in lines] == [True] * bool(rate)


def told(caplog):
    """What a run says of its method."""
    lines = [record.getMessage() for record in caplog.records if "measured" in record.getMessage()]
    caplog.clear()
    return lines


def test_a_run_says_which_method_it_takes_and_what_was_measured_of_it(base, tmp_path, caplog):
    caplog.set_level("INFO")
    go(base, tmp_path / "auto", method="auto", steps=1)
    (line,) = told(caplog)
    assert line.startswith("yarn, which auto takes here (") and "measured nearest on hemp, 256 to 1024 tokens" in line
    assert "old window 64 (measured: 256), factor 1.5 (measured: 4), training tokens 0.375k (measured: 512k)" in line
    assert line.endswith("learning rate 0.001 (measured: 0.0001)")
    go(base, tmp_path / "linear", steps=1)
    (line,) = told(caplog)
    assert line.startswith("linear: measured nearest on")
    # Of a window that `extend` or an earlier run made longer the same, but for the choice.
    go(tmp_path / "auto", tmp_path / "again", method="auto", steps=1)
    (line,) = told(caplog)
    assert line.startswith("yarn: measured nearest on hemp")
    go(base, tmp_path / "own", method="auto", window=64, steps=1)
    assert told(caplog) == []


def test_a_short_run_warms_up_over_a_fifth_of_its_steps_and_a_resumed_one_as_it_began(base, tmp_path):
    """Ten steps: two of warming up, by hand 10 % and 55 % of the rate; with ten more, four would be a fifth, and the run keeps its two."""
    go(base, tmp_path / "out", steps=10, save_every=10, warmup=None)
    expected = [1e-4, 5.5e-4, *[1e-3] * 8]
    assert [row.learning_rate for row in steps(tmp_path / "out")] == pytest.approx(expected)
    go(base, tmp_path / "out", steps=20, save_every=10, warmup=None, resume=True)
    runs = records.read([tmp_path / "out/records.jsonl"]).of(records.Step)
    assert {measured.run.settings["warmup"] for measured in runs} == {2} and len(runs) == 20
    assert TrainSettings("m", data="d", window=8, out="o").warmup_steps == 20  # section 3.1, of 1000 steps


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "gemma2"])
def test_under_a_document_mask_the_loss_is_that_of_the_documents_alone(tmp_path, family):
    base = testing.tiny_directory(tmp_path / "base", family, window=64)
    documents = [Document(str(number), testing.prose(8 + 5 * number, number)) for number in range(8)]
    go(base, tmp_path / "out", data=documents, mask_documents=True, allow_short=True, steps=1, batch_size=3)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        base, config=transformers.AutoConfig.from_pretrained(tmp_path / "out"), attn_implementation="eager"
    )
    tokens = tokenise(documents, testing.byte_tokenizer())
    total, counted = 0.0, 0
    for block in order(0, np.arange(3), (len(tokens.ids) - 1) // WINDOW):
        begin, end = block * WINDOW, block * WINDOW + WINDOW
        cuts = sorted({begin, end + 1, *(int(s) for s in tokens.starts if begin < s <= end)})
        for start, stop in zip(cuts, cuts[1:], strict=False):
            piece = torch.from_numpy(tokens.ids[start:stop].astype(np.int64))
            if len(piece) < 2:
                continue
            logits = model(input_ids=piece[None, :-1]).logits[0]
            total += torch.nn.functional.cross_entropy(logits, piece[1:], reduction="sum").item()
            counted += len(piece) - 1
    (row,) = steps(tmp_path / "out")
    assert row.loss == pytest.approx(total / counted, rel=1e-5)


def test_the_manifest_names_no_pickle(base, tmp_path):
    go(base, tmp_path / "out", steps=2, save_every=2)
    manifest = json.loads((tmp_path / "out/checkpoints/step-000002/state/manifest.json").read_text())
    assert {name.rsplit(".", 1)[-1] for name in manifest["sha256"]} == {"json", "safetensors"}


def test_training_again_at_a_window_counts_the_steps_before_it_and_a_longer_window_all_of_them(base, tmp_path):
    for source, out, first, asked in ((base, "a", 2, 2), (tmp_path / "a", "b", 1, 3), (tmp_path / "b", "c", 1, 1)):
        go(source, tmp_path / out, steps=first, save_every=1)
        go(source, tmp_path / out, steps=asked, save_every=1, resume=True)  # goes on counting
    info = Checkpoint.open(tmp_path / "b").info
    assert (info.steps, info.steps_before, info.earlier_steps) == (3, 2, 0)
    assert "Trained to 96 tokens (3 steps more, on top of 2 steps at this window)" in (tmp_path / "b/README.md").read_text()  # fmt: skip
    assert Checkpoint.open(tmp_path / "c").info.steps_before == 2 + 3
    go(tmp_path / "c", tmp_path / "d", steps=1, window=192, batch_size=1)
    info = Checkpoint.open(tmp_path / "d").info
    assert (info.steps, info.steps_before, info.earlier_steps) == (1, 0, 2 + 3 + 1)
