"""`ropewalk train --watch`: what is measured on the way is what the commands measure, and changes no weight."""

from __future__ import annotations

import re
import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.steps import Unfinished, asked_of, model_step, taken
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.records import PasskeySummary, Perplexity, Recorder, new_run, read
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.watch import Watch, _as_it_is
from ropewalk.training.run import run
from ropewalk.training.snapshots import Snapshots
from ropewalk.training.step import TrainingStep
from short_run import DOCUMENTS, same, weights

LIBRARY = Path(sysconfig.get_path("stdlib"))
TEXTS = [LIBRARY / "tarfile.py"]


def train(out: Path, **options):
    usual = dict(window=512, method="yarn", steps=2, batch_size=2, learning_rate=1e-3, warmup=0, save_every=1, device="cpu", threads=1)  # fmt: skip
    return ropewalk.train("hemp", data=[LIBRARY / "asyncio"], out=out, **{**usual, **options})


@pytest.mark.parametrize("options", [{}, {"mode": "lora"}, {"activations": "full"}], ids=str)
def test_what_is_watched_is_what_the_commands_say_of_the_same_model(tmp_path, caplog, options):
    train(tmp_path / "plain", **options)
    with caplog.at_level("INFO", logger="ropewalk"):
        train(tmp_path / "run", watch=["perplexity", "passkey"], watch_data=TEXTS, watch_every=1, **options)
    assert re.search(r"step 2: .* \d+% of the passkeys at 512 \(\d+% of their digits\)", caplog.text)
    weights = [load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("plain", "run")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    seen = read([tmp_path / "run/watch.jsonl"])
    rows = {(each.run.model.steps, each.row.window): each.row for each in seen.of(Perplexity)}
    assert sorted(rows) == [(step, window) for step in (0, 1, 2) for window in (256, 512)]
    alone = ropewalk.perplexity(
        tmp_path / "run", data=TEXTS, windows=[256, 512], max_tokens=512, device="cpu", out=tmp_path / "later.jsonl"
    )
    for row in alone:
        # hemp's weights are bfloat16 on disk and float32 in training: 2^-9 of each weight, of which up to 0.35 % of a perplexity was seen.
        # A stride of 256, for example, is 7 % away.
        assert rows[2, row.window].perplexity == pytest.approx(row.perplexity, rel=1e-2)
    assert {(each.run.model.steps, each.row.window) for each in seen.of(PasskeySummary)} == set(rows)
    card = (tmp_path / "run/README.md").read_text()
    assert f"At 512 tokens: {rows[2, 512].perplexity:.4g}" in card and "was not measured" not in card
    later = ropewalk.card(tmp_path / "run", records=[tmp_path / "later.jsonl"]).read_text()
    train(tmp_path / "run", watch=["perplexity", "passkey"], watch_data=TEXTS, watch_every=1, resume=True, **options)
    assert (tmp_path / "run/README.md").read_text() == later != card  # nothing was left to do


def test_a_run_ends_where_the_short_window_suffers_and_goes_on_by_what_is_on_record(tmp_path, caplog):
    watched = dict(watch=["perplexity"], watch_data=TEXTS, watch_every=1, steps=4, learning_rate=0.1)
    with caplog.at_level("INFO", logger="ropewalk"):
        info = train(tmp_path / "run", watch_stop=5, **watched)
    assert info.steps == 1 and "the run ends after step 1 of 4: the perplexity at 256 tokens" in caplog.text

    def ended_by():
        (run,) = read([tmp_path / "run/records.jsonl"]).runs.values()
        return run.settings.get("ended_by")

    assert ended_by() == "--watch-stop"
    looks = [each.row for each in read([tmp_path / "run/watch.jsonl"]).of(Perplexity) if each.row.window == 256]
    assert asked_of(tmp_path / "run")["watch_rise"] == [256, looks[0].perplexity, looks[1].perplexity]
    card = (tmp_path / "run/README.md").read_text(encoding="utf-8")
    rise = f"because the perplexity at 256 tokens got worse: {looks[0].perplexity:.4g} → {looks[1].perplexity:.4g}"
    assert f"{rise}; what it left in {tmp_path}/run is that worse model" in card and "it holds" not in card
    # Asked again with less patience than what is on record allows, it ends at once.
    assert train(tmp_path / "run", watch_stop=4, resume=True, **watched).steps == 1
    assert train(tmp_path / "run", resume=True, **watched).steps == 4
    assert ended_by() is None


def test_a_short_window_is_watched_at_an_eighth_of_it_and_a_refused_run_leaves_nothing(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=64)
    (tmp_path / "text.txt").write_text(DOCUMENTS[0].text)
    short = dict(data=DOCUMENTS, window=96, steps=1, batch_size=1, watch_every=1, watch_data=tmp_path / "text.txt")
    with pytest.raises(UserError, match="a passkey prompt of this tokenizer takes at least"):
        ropewalk.train(base, out=tmp_path / "run", watch=["perplexity", "passkey"], **short)
    assert not (tmp_path / "run").exists()
    ropewalk.train(base, out=tmp_path / "run", watch=["perplexity"], **short)
    assert {each.row.stride for each in read([tmp_path / "run/watch.jsonl"]).of(Perplexity)} == {8}


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"watch": ["perplexity"]}, "give --watch-data"),
        ({"watch": ["passkey"], "watch_stop": 5}, "without --watch perplexity"),
        ({"watch": ["benchmarks"]}, "watch"),
    ],
)
def test_what_cannot_be_watched_is_said_before_anything_is_loaded(tmp_path, options, rule):
    with pytest.raises(UserError, match=rule):
        train(tmp_path / "run", **options)


@pytest.mark.parametrize("dry", [True, False])
def test_watching_what_is_trained_on_is_said(tmp_path, capsys, dry):
    tarfile = LIBRARY / "tarfile.py"
    (tmp_path / "copied.py").write_bytes(tarfile.read_bytes())
    asked = f"hemp --data {tarfile} --window 512 --steps 1 --batch-size 1 --device cpu --threads 1".split()
    for name, texts in (("seen", tmp_path / "copied.py"), ("other", LIBRARY / "argparse.py")):
        watched = ["--watch", "perplexity", "--watch-data", str(texts), "--out", str(tmp_path / name)]
        main(["train", *asked, *watched, *["--dry-run"] * dry])
        said = " ".join(capsys.readouterr().err.split())
        sentence = f"--watch-data names texts that --data trains on ({texts} is {tarfile})"
        assert (sentence in said) == (name == "seen"), said


def test_a_run_that_its_short_window_ended_names_the_last_checkpoint_before_and_that_can_be_trained_on(
    tmp_path, capsys
):
    watched = dict(watch=["perplexity"], watch_data=TEXTS, watch_every=1, method="yarn")
    train(tmp_path / "run", steps=2, **{**watched, "learning_rate": 1e-5})
    records = str(tmp_path / "run")
    command = f"train hemp --data {LIBRARY / 'asyncio'} --window 512 --method yarn --steps 4 --batch-size 2 --learning-rate 0.1 --warmup 0 --save-every 1 --device cpu --threads 1 --out {records} --watch perplexity --watch-data {TEXTS[0]} --watch-every 1 --watch-stop 5 --resume --allow-changes"
    main(command.split())
    said, told = (" ".join(text.split()) for text in capsys.readouterr())
    good = tmp_path / "run/checkpoints/step-000002"
    assert f"in {records} is the model of step 2, the last that is saved of the steps to 2" in told
    assert f"(ropewalk train {records} …)" in told
    assert "2 steps, ended by --watch-stop: this is the model of step 2 of 3, from before it was worse at 256" in said
    assert "now: ropewalk perplexity" in said
    assert same(weights(tmp_path / "run"), weights(good))
    assert not same(weights(good), weights(tmp_path / "run/checkpoints/step-000003"))
    few = dict(data=[LIBRARY / "asyncio"], window=512, steps=1, batch_size=1, device="cpu", threads=1)
    again = ropewalk.train(good, out=tmp_path / "again", **few)
    assert (again.method, again.factor, again.steps) == ("yarn", 2, 1)  # extended as it was, and no further
    capsys.readouterr()
    main(command.split())  # what ended it ends it again, and what it left stays
    said, told = (" ".join(text.split()) for text in capsys.readouterr())
    assert "resumed from" in told and "step-000003, step 3" in told and "step 2 of 3" in said
    assert same(weights(tmp_path / "run"), weights(good))
    assert "its run came to step" not in told  # which is where it was worse
    main(command.replace(" --watch-stop 5", "").split())
    assert Checkpoint.open(tmp_path / "run").info.steps == 4 and "model_step" not in asked_of(tmp_path / "run")


def ending(out: Path, step: int, looks=(10.0, 10.1, 10.2, 20.0), first=0, **options):
    """A run whose looks are made up, from step `first` on: by those that are usual it is found worse at its third step."""
    seen = dict(enumerate(looks, first))

    class Looks(Watch):
        def __call__(self, loop):
            (window,) = {loop.start.info.original_window}
            recorder = Recorder(loop.out / "watch.jsonl", new_run(_as_it_is(loop).info, device="cpu", dtype="float32"))
            if loop.done in seen:
                recorder.add(Perplexity(window, 8, seen[loop.done], 1.0, 99.0, 8, 0, 100, True))
            return self._too_much(loop, window)

    usual = dict(window=512, method="yarn", steps=step, batch_size=1, learning_rate=1e-3, warmup=0, device="cpu", threads=1, watch=["perplexity"], watch_data=TEXTS, watch_every=1, watch_stop=5)  # fmt: skip
    settings = TrainSettings("hemp", data=[LIBRARY / "asyncio"], out=out, **{**usual, **options})
    return run(settings, Looks(settings))


@pytest.mark.parametrize("steps", [3, 4])
def test_the_model_of_the_last_good_look_is_left_where_no_step_was_said_to_be_saved(tmp_path, steps):
    """At its last step too; and the adapter is of that step as the weights are."""
    for mode in ("full", "lora"):
        out = tmp_path / mode
        assert ending(out, steps, mode=mode).steps == 2
        two = out / "checkpoints/step-000002"
        assert same(weights(out), weights(two))
        asked = asked_of(out)
        assert (asked["ended_by"], asked["model_step"], taken(out)) == ("--watch-stop", 2, 3)
        assert Unfinished.before(out, steps) is None and model_step(out) == 2
    trained = load_file(two / "state/weights.safetensors")
    kept = load_file(tmp_path / "lora/adapter/adapter_model.safetensors")
    assert any("lora_B" in name for name in kept) and all(kept[name].equal(trained[name]) for name in kept)


def test_a_run_that_goes_on_from_before_its_stop_is_not_ended_by_what_was_seen_after(tmp_path):
    assert ending(tmp_path, 4).steps == 2
    lower = dict(looks=(10.2, 10.2), first=3, learning_rate=1e-4, allow_changes=True, resume=True)
    assert ending(tmp_path, 4, **lower).steps == 4 and "ended_by" not in asked_of(tmp_path)


@pytest.mark.parametrize(("save_every", "is_told"), [(0, True), (4, True), (3, False), (None, False)])
def test_a_stop_that_has_nothing_to_go_back_to_is_said_at_the_start(tmp_path, caplog, save_every, is_told):
    train(tmp_path / "run", watch=["perplexity"], watch_data=TEXTS, watch_every=4, watch_stop=5, steps=4, learning_rate=1e-6, save_every=save_every)  # fmt: skip
    assert ("it would leave the worse model" in caplog.text) == is_told


@pytest.mark.parametrize("keep, every, well", [(1, 1, 2), (2, 3, 3)])
def test_the_good_checkpoint_outlives_later_ones_whatever_number_is_kept(tmp_path, caplog, keep, every, well):
    """Saved before it is looked at, a bad step pushed the good one out; so did those between two looks. A run that is resumed between them keeps it too."""
    caplog.set_level("INFO", "ropewalk")
    looks, take = [10.0] * (well + 1) + [20.0] * 4, TrainingStep.take

    def fail():
        raise ConnectionError

    given = dict(looks=looks, watch_every=every, save_every=1, keep_checkpoints=keep)
    if every > 1:
        with pytest.MonkeyPatch.context() as patched, pytest.raises(ConnectionError):
            patched.setattr(
                TrainingStep, "take", lambda self, done, *rest: take(self, done, *rest) if done < 5 else fail()
            )
            ending(tmp_path, 8, **given)
    ending(tmp_path, 8, **given, resume=every > 1)
    left = tmp_path / f"checkpoints/step-{well:06d}"
    assert model_step(tmp_path) == well and same(weights(tmp_path), weights(left))
    assert f"the checkpoint of step {well} is kept beside the newest {keep} (--keep-checkpoints)" in caplog.text


def test_where_nothing_is_saved_the_last_model_is_left_and_what_is_damaged_is_passed_over(tmp_path, caplog, recwarn):
    caplog.set_level("INFO", "ropewalk")
    assert ending(tmp_path / "none", 4, save_every=0).steps == 3
    assert "that worse model; it was within that after step 2, and no checkpoint was kept" in caplog.text

    def damage(self, usual=Snapshots.latest, most=None):
        path = self.path(2) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-1])
        return usual(self, most)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Snapshots, "latest", lambda self, most=None: damage(self, most=most))
        assert ending(tmp_path / "damaged", 4, save_every=1, keep_checkpoints=3).steps == 1
    assert "is damaged (model.safetensors is not as it was written); the one before it is used" in str(
        recwarn[-1].message
    )


def test_a_run_that_kept_no_checkpoint_is_told_of_the_option_that_does(tmp_path):
    watch = Watch(
        TrainSettings(
            "hemp", data=TEXTS, window=512, out=str(tmp_path), watch=["perplexity"], watch_data=TEXTS, watch_every=50
        )
    )
    assert "with --save-every 50, which keeps every model that is looked at" in watch._better(tmp_path, 100)
    assert "nothing was better but the model it began with" in watch._better(tmp_path, 0)
    for step in (60, 120):  # the second is later than what was last seen to be well
        (tmp_path / f"checkpoints/step-{step:06d}").mkdir(parents=True)
    assert f"{tmp_path}/checkpoints/step-000060 is the last that is saved" in watch._better(tmp_path, 100)
