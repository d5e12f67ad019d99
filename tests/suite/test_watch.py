"""`ropewalk train --watch`: what is measured on the way is what the commands measure, and changes no weight."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file

import ropewalk
from ropewalk import testing
from ropewalk.cli import main
from ropewalk.errors import UserError
from ropewalk.records import PasskeySummary, Perplexity, read
from ropewalk.settings.train import TrainSettings
from ropewalk.suite.watch import Watch
from short_run import DOCUMENTS

LIBRARY = Path(sysconfig.get_path("stdlib"))
TEXTS = [LIBRARY / "tarfile.py"]


def train(out: Path, **options):
    usual = dict(window=512, method="yarn", steps=2, batch_size=2, learning_rate=1e-3, warmup=0, save_every=1, device="cpu", threads=1)  # fmt: skip
    return ropewalk.train("hemp", data=[LIBRARY / "asyncio"], out=out, **{**usual, **options})


@pytest.mark.parametrize("options", [{}, {"mode": "lora"}, {"activations": "full"}], ids=str)
def test_what_is_watched_is_what_the_commands_say_of_the_same_model(tmp_path, options):
    train(tmp_path / "plain", **options)
    train(tmp_path / "run", watch=["perplexity", "passkey"], watch_data=TEXTS, watch_every=1, **options)
    weights = [load_file(next((tmp_path / name).glob("*.safetensors"))) for name in ("plain", "run")]
    assert all(weights[0][name].equal(weights[1][name]) for name in weights[0])
    seen = read([tmp_path / "run/watch.jsonl"])
    rows = {(each.run.model.steps, each.row.window): each.row for each in seen.of(Perplexity)}
    assert sorted(rows) == [(step, window) for step in (0, 1, 2) for window in (256, 512)]
    alone = ropewalk.perplexity(tmp_path / "run", data=TEXTS, windows=[256, 512], max_tokens=512, device="cpu")
    for row in alone:
        # hemp's weights are bfloat16 on disk and float32 in training: 2^-9 of each weight, of which up to 0.35 % of a perplexity was seen.
        # A stride of 256, for example, is 7 % away.
        assert rows[2, row.window].perplexity == pytest.approx(row.perplexity, rel=1e-2)
    assert {(each.run.model.steps, each.row.window) for each in seen.of(PasskeySummary)} == set(rows)


def test_a_run_ends_where_the_short_window_suffers_and_goes_on_by_what_is_on_record(tmp_path, caplog):
    watched = dict(watch=["perplexity"], watch_data=TEXTS, watch_every=1, steps=4, learning_rate=0.1)
    with caplog.at_level("INFO", logger="ropewalk"):
        info = train(tmp_path / "run", watch_stop=5, **watched)
    assert info.steps == 1 and "the run ends after step 1 of 4: the perplexity at 256 tokens" in caplog.text

    def ended_by():
        (run,) = read([tmp_path / "run/records.jsonl"]).runs.values()
        return run.settings.get("ended_by")

    assert ended_by() == "--watch-stop"
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
    assert f"that worse model; {good} is the last that is saved of the steps to 2" in told
    assert f"(ropewalk train {good} …)" in told
    assert "3 steps, ended by --watch-stop: worse at 256 tokens than before" in said
    assert "now: ropewalk report" in said and "now: ropewalk perplexity" not in said
    few = dict(data=[LIBRARY / "asyncio"], window=512, steps=1, batch_size=1, device="cpu", threads=1)
    again = ropewalk.train(good, out=tmp_path / "again", **few)
    assert (again.method, again.factor, again.steps) == ("yarn", 2, 1)  # extended as it was, and no further


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
