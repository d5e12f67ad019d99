"""The suite: which stages, resuming after a kill, what is left out and said, and the page at the end."""

import dataclasses
import json
import shutil
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import link_or_copy
from ropewalk.errors import UserError
from ropewalk.model.extend import extend
from ropewalk.records import Perplexity, read
from ropewalk.settings.downstream import EvaluateSettings
from ropewalk.suite import stages
from ropewalk.suite.paper import Suite, doubling
from ropewalk.suite.runner import Size, evaluate

TINY = dict(documents=1, strides_past=1, strides=1, depths=2, trials=1, prompts=1, items=2, summaries=1)


@pytest.fixture
def base(tmp_path):
    return testing.tiny_directory(tmp_path / "base", window=128, seed=1)


@pytest.fixture
def extended(base, tmp_path):
    extend(base, window=256, out=tmp_path / "extended")
    return tmp_path / "extended"


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text(testing.prose(300, 5), encoding="utf-8")
    return path


def test_windows_double_from_the_original_one():
    assert doubling(2048, 32768) == [2048, 4096, 8192, 16384, 32768]  # the columns of tables 1 and 2
    assert doubling(2048, 2048) == [2048]
    assert doubling(256, 1000) == [256, 512, 1000]


def _suite(model, base, out, **change):
    return Suite(EvaluateSettings(model, base=base, out=out, **{"data": "d", **change}), Size(), Path(out))


def test_the_stages_are_the_papers(base, extended, tmp_path):
    stages = [(stage.name, stage.model) for stage in _suite(extended, base, tmp_path, math="m", pairs="p").stages()]
    old, new = str(base), str(extended)
    assert stages == [
        ("passkey", old),
        ("passkey", new),
        ("perplexity", old),
        ("perplexity", old),
        ("perplexity", new),
        ("perplexity", new),
        ("retrieval", old),
        ("retrieval", new),
        ("benchmarks", new),
        ("attention", new),
        ("theory", new),
        ("summaries", new),
    ]
    settings = {stage.name: stage.settings for stage in _suite(extended, base, tmp_path).stages()}
    assert settings["perplexity"]["windows"] == [128, 256]
    assert settings["passkey"]["depths"] == 32 and settings["passkey"]["trials"] == 10
    assert settings["benchmarks"]["base"] == old


def test_a_small_machine_is_given_what_it_can_do_and_all_models_the_same(base, extended, tmp_path):
    def asked(allowance):
        size = Size(documents=50, strides_past=4, allowance=allowance)
        suite = dataclasses.replace(_suite(extended, base, tmp_path), size=size)
        stages = list(suite.stages())
        return {(stage.name, stage.model): stage.settings for stage in stages}

    poor, rich = asked(1e6), asked(None)
    for model in (str(base), str(extended)):
        assert poor["perplexity", model]["limit"] == 2 and rich["perplexity", model]["limit"] == 50
        assert poor["perplexity", model]["max_tokens"] == 256 + 4 * 16
        assert poor["passkey", model]["trials"] == 1 and rich["passkey", model]["trials"] == 10
    # By hand: 256 tokens through 2 layers of width 64, two FLOPs a weight and the lower triangle of scores and values.
    state = Checkpoint.open(extended).info
    assert _suite(extended, base, tmp_path)._flops(256) == 256 * 2 * state.parameters + 2 * (2 * 64 * 256 * 256)


def test_families_that_do_not_fit_are_a_stage_that_says_so(tmp_path):
    """256 tokens of hemp hold the facts of three families; these are measured, and the fourth is left out and says why."""
    families = [
        stage.settings["families"] for stage in _suite("hemp", None, tmp_path).stages() if stage.name == "retrieval"
    ]
    assert families == [["keys", "values", "chain"], ["lookalikes"]]


def test_a_trained_model_brings_its_untrained_self_and_its_checkpoints(base, extended, tmp_path):
    """What table 3 has: steps 0, 200, …; the untrained one needs no weights but the base's."""
    for folder, steps in ((extended, 400), (extended / "checkpoints" / "step-000200", 200)):
        if not folder.exists():
            folder.mkdir(parents=True)
            for path in extended.iterdir():
                if path.is_file():
                    link_or_copy(path, folder / path.name)
        config_dict = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        config_dict["ropewalk"]["steps"] = steps
        (folder / "config.json").unlink()
        (folder / "config.json").write_text(json.dumps(config_dict), encoding="utf-8")
    suite = _suite(extended, base, tmp_path)
    suite.prepare()
    stages = [stage for stage in suite.stages() if stage.name == "perplexity"]
    assert [(stage.model, stage.settings["windows"]) for stage in stages] == [
        (str(base), [128, 256]),
        (str(tmp_path / "untrained"), [256]),
        (str(extended / "checkpoints" / "step-000200"), [256]),
        (str(extended), [128, 256]),
    ]


def _stage(name, run, **settings):
    return stages.Stage(name, "m", settings, run)


def test_what_is_done_is_not_done_again_and_what_was_left_out_is_tried_again(tmp_path):
    (tmp_path / "stages.jsonl").touch()
    ran, ready = [], []

    def fails():
        ran.append("b")
        if not ready:
            raise UserError("no data; give some")

    def interrupted():
        ran.append("c")
        if not ready:
            raise KeyboardInterrupt

    plan = [_stage("a", lambda: ran.append("a")), _stage("b", fails), _stage("c", interrupted)]
    with pytest.raises(KeyboardInterrupt):
        stages.run(plan, tmp_path)
    assert ran == ["a", "b", "c"]
    ready.append(True)
    outcomes = stages.run(plan, tmp_path)
    assert ran == ["a", "b", "c", "b", "c"]
    assert [outcome.reason for outcome in outcomes] == ["", "", ""]
    # Other settings are another stage; a line cut short counts for nothing.
    stages.run([_stage("a", lambda: ran.append("a"), window=4)], tmp_path)
    assert ran[-1] == "a" and len(ran) == 6
    kept = (tmp_path / "stages.jsonl").read_text(encoding="utf-8")
    (tmp_path / "stages.jsonl").write_text(kept[:40] + "\n", encoding="utf-8")
    stages.run(plan[:1], tmp_path)
    assert len(ran) == 7


def test_a_suite_ends_in_a_page_and_says_what_it_left_out(base, extended, text, tmp_path):
    out = tmp_path / "suite"
    settings = dict(out=out, base=base, data=text, benchmarks=tmp_path, size="small", change=TINY)
    outcomes = evaluate(extended, **settings)
    reasons = {outcome.name: outcome.reason for outcome in outcomes if outcome.model == str(extended)}
    assert reasons["perplexity"] == "" and reasons["attention"] == ""
    assert "has no boolq.jsonl" in reasons["benchmarks"]
    assert "the window is 256" in reasons["retrieval"], "a prompt of bytes is too long"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<html" in page and "erplexity" in page
    assert 'id="theory"' in page and "theorem 2.1" in page
    assert f"benchmarks, {extended}: " in unescape(page) and "has no boolq.jsonl" in page, "said on the page as well"
    rows = read([out / "records.jsonl"])
    assert {m.row.window for m in rows.of(Perplexity)} == {128, 256}
    measured = len(rows.measurements)
    evaluate(extended, **settings)
    assert len(read([out / "records.jsonl"]).measurements) == measured


def test_what_cannot_be_meant_is_refused_before_anything_is_measured(base, extended, text, tmp_path):
    """A budget of nothing would leave every stage out, one by one; a base that is none would make pairs of strangers."""
    other = testing.tiny_directory(tmp_path / "other", window=128, seed=1)
    tokenizer_dict = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer_dict["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer_dict), encoding="utf-8")
    shorter = testing.tiny_directory(tmp_path / "shorter", window=64, seed=1)
    for change, message in (
        (dict(budget=0.0), "budget is a finite number above 0 .*, got 0.0"),
        (dict(change={"documents": 0}), "documents is a whole number of at least 1 .*, got 0"),
        (dict(change={"items": -1}), "items is a whole number of at least 1 .*, got -1"),
        (dict(change={"itms": 1}), "change names fields of a size, .*, got itms"),
        (dict(base=other), "must share a tokenizer"),
        (dict(base=shorter), f"the original window of {extended} is 128 and that of {shorter} 64"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(extended, **{**dict(out=tmp_path / "suite", base=base, data=text, size="small"), **change})
        assert not (tmp_path / "suite").exists()


def test_code_that_is_not_trusted_is_refused_at_once(tmp_path):
    """Not stage by stage: each would be left out, and the page that says nothing would count as done."""
    model = testing.tiny_directory(tmp_path / "model", window=64)
    config = json.loads((model / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.C", "AutoModelForCausalLM": "own.M"}}
    (model / "config.json").write_text(json.dumps(config | own))
    with pytest.raises(UserError, match="brings model code of its own"):
        evaluate(model, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_stages_of_one_name_are_told_apart_by_their_data(tmp_path, caplog):
    (tmp_path / "stages.jsonl").touch()
    with caplog.at_level("INFO", logger="ropewalk"):
        stages.run([_stage("perplexity", lambda: None, data=["a/books.jsonl", "b/more.jsonl"])], tmp_path)
    assert "perplexity, m, on a/books.jsonl b/more.jsonl" in caplog.text


def test_a_suite_does_not_mix_with_other_files(base, text, tmp_path):
    out = tmp_path / "suite"
    out.mkdir()
    (out / "precious.txt").write_text("mine", encoding="utf-8")
    for overwrite, said in ((False, "exists and holds no run"), (True, "replaces only what ropewalk made")):
        with pytest.raises(UserError, match=said):
            evaluate(base, out=out, data=text, overwrite=overwrite)
    assert (out / "precious.txt").read_text(encoding="utf-8") == "mine"
    with pytest.raises(UserError, match="suite is one of paper"):
        evaluate(base, out=tmp_path / "x", suite="all")


def test_the_suite_that_is_replaced_stays_until_the_new_one_is_finished(base, text, tmp_path, monkeypatch):
    def stages(suite):
        yield from (suite._passkey(model, window) for model, window, _ in suite._before())

    monkeypatch.setattr(Suite, "stages", stages)
    model = tmp_path / "trained"  # what makes an untrained one beside it, whose name is on record
    extend(base, window=256, out=model)
    config = json.loads((model / "config.json").read_text())
    config["ropewalk"]["steps"] = 3
    (model / "config.json").write_text(json.dumps(config))
    out = tmp_path / "suite"
    settings = dict(base=base, data=text, out=out, size="small", change=TINY)
    evaluate(model, **settings)
    before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    monkeypatch.setattr("ropewalk.suite.runner._page", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        evaluate(model, **settings, overwrite=True)
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before
    monkeypatch.undo()
    monkeypatch.setattr(Suite, "stages", stages)
    outcomes = evaluate(model, **settings)
    assert len(outcomes) == 2 and not (tmp_path / ".suite.new").exists()
    after = (out / "records.jsonl").read_text(encoding="utf-8")
    assert after.encode() != before["records.jsonl"] and ".suite.new" not in after and str(out / "untrained") in after
    assert (out / "records.jsonl").read_text() == (evaluate(model, **settings), after)[1], (
        "done before, under the names it has now"
    )
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="did not make .*thesis.txt"):
        evaluate(model, **settings, overwrite=True)


def test_no_suite_replaces_what_it_would_measure(base, extended, text, tmp_path, monkeypatch):
    monkeypatch.setattr(Suite, "stages", lambda suite: iter([suite._theory()]))
    out = tmp_path / "suite"
    evaluate(extended, data=text, out=out, size="small", change=TINY)
    for taken in (extended, text, base):
        moved = shutil.move(taken, out / "untrained")  # where the mark lists whatever lies there
        model, data, before = (moved if taken == given else given for given in (extended, text, base))
        with pytest.raises(UserError, match="all of .* would be replaced, and with it .*untrained"):
            evaluate(model, data=data, base=before, out=out, size="small", overwrite=True)
        shutil.move(moved, taken)


def test_a_stage_is_done_for_the_text_it_read_and_not_for_its_name(extended, text, tmp_path):
    def key():
        (stage,) = _suite(extended, None, tmp_path, data=text)._perplexity(Checkpoint.open(extended), [128], 64)
        return stages._key(stage)

    before = key()
    assert key() == before
    text.write_text(testing.prose(300, 6), encoding="utf-8")
    assert key() != before


def test_a_killed_suite_goes_on_where_it_was(base, extended, text, tmp_path, caplog):
    """SIGKILL in the middle of a stage: the same call again runs what is left, and the records are those of one run."""
    settings = dict(out=str(tmp_path / "suite"), base=str(base), data=str(text), benchmarks=str(tmp_path))
    settings |= dict(size="small", change=TINY)
    code = (
        "import time\nfrom ropewalk import evaluate\nfrom ropewalk.cli.progress import log_to_terminal\n"
        "from ropewalk.evals import attention\nlog_to_terminal()\n"
        "attention.attention = lambda *a, **k: time.sleep(600)\n"
        f"evaluate({str(extended)!r}, **{settings!r})\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert any("attention" in line for line in process.stderr)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stderr.close()
    records = tmp_path / "suite" / "records.jsonl"
    before = records.read_text(encoding="utf-8")
    with caplog.at_level("INFO", logger="ropewalk"):
        evaluate(str(extended), **settings)
    assert caplog.text.count("done before") == 3, "a passkey and both perplexities"
    after = records.read_text(encoding="utf-8")
    assert after.startswith(before) and "attention" in after[len(before) :]
    assert (tmp_path / "suite" / "report.html").is_file()


def test_a_stage_that_the_hosts_memory_does_not_hold_is_left_out_as_on_a_gpu() -> None:
    def run() -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory")

    assert stages.attempt(_stage("a", run)).reason.startswith("not enough memory ([enforce fail")
