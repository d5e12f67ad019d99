"""`ropewalk train --watch`: what is measured on the way is what the commands measure, and changes no weight."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest
from safetensors.torch import load_file

import ropewalk
from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.records import PasskeySummary, Perplexity, read
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
