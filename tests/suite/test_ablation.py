"""`ropewalk ablate`: rows that are trained and measured in one process, shared through a directory."""

from __future__ import annotations

import dataclasses
import math
import re
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from scipy.stats import binomtest

import ropewalk
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.cli import main
from ropewalk.data import tokenising
from ropewalk.data.select import name_of
from ropewalk.data.text_size import TextSize
from ropewalk.errors import UserError
from ropewalk.planner import plan
from ropewalk.planner.named import shape_of
from ropewalk.records import AttentionScores, ContextGain, PasskeySummary, Perplexity, Step, read
from ropewalk.rope.scaling import Rope
from ropewalk.rope.vectors import clipped
from ropewalk.settings.ablate import AblateSettings
from ropewalk.suite import ablation, grid, row_run, speed
from ropewalk.suite.grid import Grid
from ropewalk.training import recompute
from ropewalk.training.tiles import Tiles
from small_grid import LIBRARY, SMALL, TEXTS, ablate, header


def test_a_row_is_what_train_and_the_measuring_commands_make_one_after_the_other(tmp_path):
    outcomes = ablate(
        tmp_path / "rows", methods=["yarn"], tokens=[2048], measure=["perplexity", "gain", "passkey", "validation"]
    )
    assert [(each.name, each.reason) for each in outcomes] == [("yarn-x2-2k-1e-4-s0", "")]
    row = read([tmp_path / "rows/yarn-x2-2k-1e-4-s0.jsonl"])
    trained = ropewalk.train(
        "hemp", data=TEXTS["data"], window=512, method="yarn", steps=2, batch_size=2, learning_rate=1e-4, warmup=0, save_every=0,
        out=tmp_path / "trained", device="cpu",
    )  # fmt: skip
    assert trained.steps == 2
    measured = {m.row.window: m.row for m in row.of(Perplexity) if m.row.data.endswith("tarfile.py")}
    assert sorted(measured) == [64, 256, 512]
    asked = dict(data=TEXTS["test"], limit=1, max_tokens=512, device="cpu", dtype="float32")
    for window in (256, 512):
        (alone,) = ropewalk.perplexity(
            tmp_path / "trained", windows=[window], stride=window // 2, min_tokens=512, **asked
        )
        # The same weights, rounded as hemp's are on disk, and the same passes.
        assert measured[window].perplexity == pytest.approx(alone.perplexity, rel=1e-6)
    assert len(row.of(Step)) == 2
    assert {m.row.window for m in row.of(PasskeySummary)} == {256, 512}
    assert [m.row.short for m in row.of(ContextGain)] == [256]
    assert {m.row.data for m in row.of(Perplexity)} == {f"{LIBRARY.name}/tarfile.py", f"{LIBRARY.name}/ast.py"}
    written = (tmp_path / "rows/yarn-x2-2k-1e-4-s0.jsonl").read_text()
    assert str(LIBRARY) not in re.sub(r'"command":"[^"]*"', "", written)  # which has paths as they were given


def test_a_row_of_fewer_tokens_than_a_step_reads_no_more_than_it_was_asked_for(tmp_path):
    settings = AblateSettings(
        model="hemp", out=tmp_path, methods=["linear"], tokens=[2048, 2**20], **{**TEXTS, **SMALL, "step_tokens": 2**18}
    )
    asked = Grid(settings, Checkpoint.open("hemp"))
    # windows of 512: four of them in the one step of the small row; steps of 2^18 tokens, and four of them, in the large one.
    assert [asked.steps(row) for row in asked.rows] == [(4, 1), (512, 4)]


def test_an_untrained_row_after_a_trained_one_has_the_bases_weights(tmp_path):
    ablate(tmp_path / "after", methods=["linear", "none"], tokens=[1024, 0], measure=["perplexity"])
    (before,) = ropewalk.perplexity(
        "hemp", data=TEXTS["test"], windows=[256], stride=128, limit=1, min_tokens=512, max_tokens=512, device="cpu", dtype="float32"
    )  # fmt: skip
    rows = read([tmp_path / "after/none.jsonl"]).of(Perplexity)
    assert next(m.row.perplexity for m in rows if m.row.window == 256) == pytest.approx(before.perplexity, rel=1e-6)
    assert header(tmp_path / "after/none.jsonl")["model"]["steps"] == 0


def test_scores_of_a_trained_state_and_further_documents_are_those_of_the_commands(tmp_path):
    mixture = [LIBRARY / "asyncio", "0.7", LIBRARY / "json", "0.3@256"]
    options = dict(methods=["none", "yarn"], tokens=[0, 1024], measure=["perplexity", "attention"], windows="ends")
    ablate(tmp_path / "rows", **options, data=mixture, also=[LIBRARY / "argparse.py"], longce=128)
    base = read([tmp_path / "rows/none.jsonl"])
    (_, _, alone) = ropewalk.attention("hemp", data=TEXTS["test"], window=512, device="cpu", dtype="float32")
    interpolated = [m.row for m in base.of(AttentionScores)][-1]
    assert interpolated.maximum == alone.rows[-2].maximum
    further = {(m.row.data, m.row.window): m.row.perplexity for m in base.of(Perplexity)}
    (there,) = ropewalk.perplexity(
        "hemp", data=LIBRARY / "argparse.py", windows=[512], stride=256, limit=1, max_tokens=512, device="cpu", dtype="float32"
    )  # fmt: skip
    assert further[f"{LIBRARY.name}/argparse.py", 512] == pytest.approx(there.perplexity, rel=1e-6)
    trained = header(tmp_path / "rows/yarn-x2-1k-1e-4-s0.jsonl")
    assert trained["settings"]["row"]["data"] == f"{LIBRARY.name}/asyncio 0.7 {LIBRARY.name}/json 0.3@256"
    assert "--longce 128" in trained["command"]


def test_a_dry_run_counts_the_tokenising_once_where_it_will_happen(tmp_path, tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path_factory.mktemp("cache")))  # in which nothing is kept yet
    monkeypatch.setattr(tokenising, "text_size", lambda *_: TextSize(10**7, 10**6, 138.0))
    asked = dict(methods=["linear"], tokens=[1024], seeds=[0, 1], measure=["passkey"])
    first, second = (each.seconds for each in ablate(tmp_path, dry_run=True, chip="H100", **asked))
    assert first - second == pytest.approx(138.0)
    (untrained,) = ablate(tmp_path, dry_run=True, chip="H100", **{**asked, "tokens": [0]})
    assert untrained.seconds < second
    ablate(tmp_path, **{**asked, "seeds": [0]})
    done, left = (each.seconds for each in ablate(tmp_path, dry_run=True, chip="H100", **asked))
    assert left == pytest.approx(second) and done == pytest.approx(second)  # the tokens are kept


def test_perplexity_slides_by_half_of_each_window_or_as_asked(tmp_path):
    for stride, expected in ((None, {64: 32, 256: 128, 512: 256}), (32, dict.fromkeys((64, 256, 512), 32))):
        out = tmp_path / str(stride)
        ablate(out, methods=["none"], measure=["perplexity"], stride=stride)
        rows = read([out / "none.jsonl"]).of(Perplexity)
        assert {m.row.window: m.row.stride for m in rows} == expected
        assert ("--stride 32" in header(out / "none.jsonl")["command"]) == (stride is not None)
    with pytest.raises(UserError, match="none.jsonl is a row with stride 32, and asked for is None"):
        ablate(out, methods=["none"], measure=["perplexity"])


@pytest.mark.parametrize("dry", [True, False])
def test_trials_too_few_to_tell_methods_apart_are_said_before_the_grid_begins(tmp_path, caplog, dry):
    asked = dict(methods=["none"], prompt_windows=[256], depths=16, trials=2, dry_run=dry)
    with caplog.at_level("INFO", "ropewalk"):
        ablate(tmp_path / "few", **asked, measure=["passkey"])
    said = next(place for place, message in enumerate(caplog.messages) if "no methods apart by k_max" in message)
    assert dry or said < next(place for place, message in enumerate(caplog.messages) if "[1/1]" in message)
    low, high = (f"{100 * end:.0f}\u202f%" for end in binomtest(16, 32).proportion_ci(method="exact"))
    assert f"(--trials 3). Of passkeys found, half of all 32 prompts of a window has a 95 % interval of {low} to {high}" in caplog.messages[said]  # fmt: skip
    caplog.clear()
    ablate(tmp_path / "enough", **asked | dict(trials=3, dry_run=True), measure=["passkey"])
    ablate(tmp_path / "none", **asked | dict(dry_run=True), measure=["perplexity"])
    assert "k_max" not in caplog.text


@pytest.mark.parametrize("dry", [True, False])
def test_windows_beyond_what_documents_are_cut_to_are_named_before_the_grid_begins(tmp_path, caplog, dry):
    """A quarter of hemp's 256 tokens, these and their doublings; the context gain is of the new window."""
    asked = dict(methods=["none"], depths=1, dry_run=dry, measure=["perplexity", "gain", "passkey"])
    with caplog.at_level("INFO", "ropewalk"):
        ablate(tmp_path / "cut", **asked, test_tokens=300)
    said = next(place for place, message in enumerate(caplog.messages) if "cut to 300 tokens" in message)
    assert dry or said < next(place for place, message in enumerate(caplog.messages) if "[1/1]" in message)
    assert "for perplexity at 512 and gain at 512, which no row will have; --test-tokens 512 would do" in caplog.messages[said]  # fmt: skip
    caplog.clear()
    ablate(tmp_path / "reached", **asked | {"dry_run": True}, test_tokens=512)
    assert "documents cut" not in caplog.text
    with pytest.raises(UserError, match="perplexity at 256 and perplexity at 512, and a row would have none of it; give --test-tokens 512"):  # fmt: skip
        ablate(tmp_path / "none", **asked | {"measure": ["perplexity", "passkey"]}, windows="ends", test_tokens=200)
    assert not (tmp_path / "none").exists()


def test_a_grid_of_which_no_row_is_there_sends_nobody_to_a_report(tmp_path, capsys):
    asked = ["--test", *map(str, TEXTS["test"]), "--methods", "none", "--measure", "passkey", "--depths", "1", "--trials", "1"]  # fmt: skip
    main(["ablate", "hemp", *asked, "--minutes", "0.0001", "--out", str(tmp_path / "rows")])
    assert "0 of 1 row" in (said := capsys.readouterr().out) and "report" not in said
    main(["ablate", "hemp", *asked, "--out", str(tmp_path / "rows")])
    assert "1 of 1 row; now: ropewalk report" in capsys.readouterr().out


def test_what_the_measurements_need_is_asked_for_before_anything_is_trained(tmp_path, monkeypatch):
    asked = dict(methods=["linear"], tokens=[1024], measure=["benchmarks"])
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "lm_eval", None)
        with pytest.raises(UserError, match="--measure benchmarks needs lm_eval, which is not installed: pip install"):
            ablate(tmp_path / "rows", **asked)
    assert not (tmp_path / "rows").exists()
    monkeypatch.setattr(AblateSettings, "packages", lambda _: {})
    monkeypatch.setattr(ablation, "benchmark_tasks", refused)
    monkeypatch.setattr(row_run, "Loop", None)
    with pytest.raises(UserError, match="not here"):
        ablate(tmp_path / "rows", **asked)


def refused(*_):
    raise UserError("not here")


def test_an_estimate_is_of_the_chip_that_was_named_or_of_this_machine(tmp_path, monkeypatch):
    """One H100 on SmolLM2-135M's shape at 32768, as measured: 82,000 tokens/s in training. Others by their sheets."""

    def seconds(**options):
        (row,) = ablate(tmp_path, methods=["linear"], tokens=[2**20], measure=["validation"], dry_run=True, **options)
        return row.seconds

    shape = shape_of("hemp")
    assert seconds(chip="H100") == pytest.approx(20 + 2**20 / 3.5e5)  # so small that its size does not matter
    large = dataclasses.replace(shape, layers=1000)
    monkeypatch.setattr(grid, "shape_of", lambda model: large)
    assert (seconds(chip="A100") - 20) / (seconds(chip="H100") - 20) == pytest.approx(989 / 312, rel=1e-3)
    monkeypatch.setattr(grid, "shape_of", lambda model: shape)
    timed = plan("hemp", window=512, batch_size=1, steps=1)
    monkeypatch.setattr(speed, "plan", lambda model, **asked: timed)
    assert seconds() == pytest.approx(2**20 / timed.time.tokens_per_second)
    for wrong, sentence in (
        ("2xH100", "one chip whose rate"),
        ("M4-32", "one chip whose rate"),
        ("T800", "known chips"),
    ):
        with pytest.raises(UserError, match=sentence):
            seconds(chip=wrong)
    with pytest.raises(UserError, match="--chip changes nothing without --dry-run"):
        ablate(tmp_path, methods=["none"], chip="H100")


def test_every_method_has_a_row_and_none_is_trained_or_untrained_that_cannot_be(tmp_path):
    words = ["none", "direct", "Control", "PI", "YaRN:beta_fast=16", "cope"]
    names = [
        each.name
        for each in ablate(
            tmp_path, methods=words, tokens=[0, 5 * 2**20], seeds=[0, 1], learning_rates=[3e-5], dry_run=True
        )
    ]
    assert names[:4] == ["none", "linear-x2-0", "yarn-beta_fast=16-x2-0", "cope-x2-0"]
    assert names[4:] == [
        f"{method}-x2-5M-3e-5-s{seed}"
        for seed in (0, 1)
        for method in ("direct", "control", "linear", "yarn-beta_fast=16", "cope")
    ]


@pytest.mark.parametrize("options, sentence", [
    (dict(methods=["alibi"]), "a method is one of none, direct"),
    (dict(methods=["YRAN"]), "got YRAN; did you mean yarn?"),
    (dict(methods=["yarn:slope=3"]), "a method's parameter is one of rope_theta, .*, got yarn:slope=3; leave it out"),
    (dict(methods=["yarn:beta-fats=16"]), "got yarn:beta-fats=16; did you mean beta_fast?"),
    (dict(methods=["yarn:beta_fast=16,beta_slow=2"]), "parameters stand behind a method as in"),
    (dict(tokens=[1024], data=None), "need documents to train on"),
    (dict(methods=["control", "direct"]), "^control and direct are trainings, and at --tokens 0 there is no row of them; give --tokens"),
    (dict(methods=["linear"], tokens=[0, 500]), "of linear-x2-500-1e-4-s0 512 tokens, and asked for are 500; give --tokens 512 or more"),
    (dict(keep=0.5), "keep 0.5 is about scored documents"),
    (dict(weigh=True), "weigh is about scored documents"),
    (dict(also=["nowhere.txt"]), "nowhere.txt"),
    (dict(stride=65), "stride.*64"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_loaded(tmp_path, options, sentence):
    with pytest.raises(UserError, match=sentence):
        ablate(tmp_path, **options)


def test_methods_without_a_row_and_budgets_that_no_windows_fill_are_said(tmp_path, caplog):
    def said(**options):
        caplog.clear()
        return [each.name for each in ablate(tmp_path, dry_run=True, chip="H100", **options)], caplog.text

    names, words = said(methods=["none", "direct", "linear"])
    assert names == ["none", "linear-x2-0"] and "direct is a training, and at --tokens 0 there is no row of it" in words
    names, words = said(methods=["direct", "control"], tokens=[0, 1024])
    assert len(names) == 2 and "no row" not in words and "is trained on" not in words
    # 700 tokens fill one window of 512; the control's of 256 they fill to a tenth.
    names, words = said(methods=["linear", "control"], tokens=[700])
    assert "linear-x2-700-1e-4-s0 is trained on 512 tokens: 1 step of 1 window of 512" in words
    assert len(names) == 2 and words.count("is trained on") == 1


def test_a_dry_run_refuses_what_the_run_would(tmp_path, capsys):
    """Row by row and in the words of the run, which makes the others."""
    options = dict(methods=["abf:rope_theta=1", "linear", "longrope"], dry_run=True, chip="H100")
    first, *others = ablate(tmp_path, **options)
    assert first.reason.startswith("rope-theta is a finite number above 1") and not first.seconds
    assert [each.reason for each in others] == ["to do", "to do"] and all(each.seconds for each in others)
    (made,) = ablate(tmp_path / "run", methods=["abf:rope_theta=1"], measure=["passkey"])
    assert made.reason == first.reason
    (below,) = ablate(tmp_path, methods=["abf:rope_theta=5000"], dry_run=True, chip="H100")  # hemp's is 10000
    assert "above the model's own 10000, got 5000" in below.reason
    words = ["hemp", "--out", str(tmp_path / "dry"), "--test", str(TEXTS["test"][0]), "--dry-run", "--chip", "H100"]
    with pytest.raises(SystemExit) as ended:
        main(["ablate", *words, "--methods", "abf:rope_theta=1", "linear"])
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert "2 rows, 1 to do" in said.out and "1 row could not be made: rope-theta is" in said.err


def test_cope_is_the_published_taper_of_the_pairs_that_complete_no_turn():
    rope = Rope(64, 100_000.0, 8192)
    theta = torch.tensor(rope.inv_freq())
    slow = int((2 * math.pi / theta > 8192).sum())
    theta[-slow:] *= 0.5 * (1 + torch.cos(torch.linspace(0, math.pi, slow, dtype=torch.float64)))
    assert slow == 12
    np.testing.assert_allclose(rope.inv_freq() / clipped(rope, soft=True), theta, rtol=1e-12, atol=1e-16)
    hard = rope.inv_freq() / clipped(rope, soft=False)
    assert (hard[:-slow] == rope.inv_freq()[:-slow]).all() and (hard[-slow:] * 2**31 < 0.01).all()


def test_layers_of_one_choice_are_recomputed_by_the_same_objects():
    # PyTorch compiles for these objects: others, though equal, would be compiled for again in every row.
    first, second = (recompute._options(frozenset([1, 2]), Tiles(1, 2, 3)) for _ in range(2))
    assert first is second


@pytest.mark.slow
def test_two_processes_share_a_grid_and_one_does_the_rows_of_the_other_when_that_is_killed(tmp_path):
    words = ["none", "linear", "ntk", "yarn", "cope", "llama3"]
    command = [sys.executable, "-m", "ropewalk", "ablate", "hemp", "--test", str(TEXTS["test"][0]), "--methods", *words, "--factors", "2",
               "--documents", "1", "--depths", "4", "--trials", "1", "--prompts", "1", "--device", "cpu", "--out", str(tmp_path)]  # fmt: skip
    first, second = (subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2))

    def held_by(process: subprocess.Popen) -> list[str]:
        locks = [(lock.parent.name, lock.read_text()) for lock in tmp_path.glob(".work/*/.ropewalk.lock")]
        return [name for name, about in locks if f'"pid": {process.pid},' in about]

    while not (held := held_by(second)):
        assert second.poll() is None, second.stderr.read()
        time.sleep(0.02)
    second.kill()
    second.communicate()
    said = first.communicate()[1]
    assert first.returncode == 0, said
    assert len(list(tmp_path.glob("*.jsonl"))) == len(words)
    assert f"hemp/{held[0]}: " in said  # begun anew by the other


def test_rows_lie_in_a_directory_of_their_own_and_texts_are_looked_for_first(tmp_path):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").write_text("mine")
    with pytest.raises(UserError, match="texts holds other files"):  # a row would be a text of the next one
        ablate(tmp_path / "texts", methods=["none"], measure=["perplexity"])
    for name in ("test", "data", "validation"):
        with pytest.raises(UserError, match="missing does not exist"):
            ablate(tmp_path / "rows", methods=["none"], **{name: ["missing"]})
    assert [path.name for path in tmp_path.rglob("*")] == ["texts", "a.txt"]


def test_a_row_names_many_files_as_its_measurements_do_and_all_of_a_mixture(tmp_path):
    """What a row's file says of its test documents is what the perplexities in it say of theirs; of a mixture no weight is lost."""
    texts = [LIBRARY / name for name in ("ast.py", "csv.py", "tarfile.py", "zipfile.py")]
    texts = [path for path in texts if path.exists()] + [LIBRARY / "argparse.py"]
    mixed = [str(texts[0]), "0.8", str(texts[1]), "0.2@128"]
    settings = AblateSettings(model="hemp", out=tmp_path, test=texts, data=mixed, tokens=[2048])
    grid = Grid(settings, Checkpoint.open("hemp"))
    identity = grid.identity(grid.rows[-1])
    assert identity["test"] == name_of(texts)
    assert identity["data"].endswith("0.2@128")
