"""Code that comes with a checkpoint: run in every command that is told to, from `extend` to the last checkpoint; else never, and nothing asks."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

import ropewalk
from ropewalk import cli, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.model import load
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.verify import verify_directory
from ropewalk.settings.command import fields

#: A family of its own, in two files; whoever runs it leaves a mark beside it.
_CODE = """
from pathlib import Path
from .shapes import C, MARK
from transformers import LlamaForCausalLM

Path(MARK).touch()

class M(LlamaForCausalLM):
    config_class = C
"""
_SHAPES = """
from transformers import LlamaConfig

MARK = {mark!r}

class C(LlamaConfig):
    model_type = "my"
"""
_AUTO_MAP = {"AutoConfig": "shapes.C", "AutoModelForCausalLM": "my.M"}
MEASURE = dict(windows=[64], stride=32)


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "ran"


@pytest.fixture
def own_code(tmp_path: Path, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint with code of its own, and a user who would say yes to any question."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked on stdin"))
    directory = testing.tiny_directory(tmp_path / "own", window=64)
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "my", "architectures": ["M"], "auto_map": _AUTO_MAP}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "my.py").write_text(_CODE)
    (directory / "shapes.py").write_text(_SHAPES.format(mark=str(mark)))
    return directory


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "book.txt").write_text(testing.prose(300, 1))
    return tmp_path / "book.txt"


def test_trusted_code_goes_from_extend_to_the_last_checkpoint_of_a_training(own_code, text, tmp_path, mark) -> None:
    trust = dict(trust_remote_code=True)
    info = ropewalk.extend(own_code, window=128, out=tmp_path / "longer", **trust)
    assert info.family == "my" and mark.exists()
    recipe = dict(data=text, window=128, steps=2, batch_size=1, save_every=1, allow_short=True, threads=1)
    ropewalk.train(tmp_path / "longer", out=tmp_path / "run", **recipe, **trust)
    ropewalk.train(tmp_path / "run", out=tmp_path / "further", **{**recipe, "steps": 1}, **trust)
    made = [tmp_path / "longer", tmp_path / "run", tmp_path / "further", *(tmp_path / "run/checkpoints").glob("step-*")]
    assert len(made) >= 4
    for directory in made:
        assert (directory / "my.py").read_text() == _CODE and (directory / "shapes.py").is_file()
        assert json.loads((directory / "config.json").read_text())["auto_map"] == _AUTO_MAP
        (row,) = ropewalk.perplexity(directory, data=text, **MEASURE, **trust)
        assert row.perplexity > 1
    assert type(load_model(tmp_path / "run", **trust)).__name__ == "M"


def test_every_command_that_opens_a_model_can_be_told_to_trust_it() -> None:
    opens = [
        name for name, command in cli.COMMANDS.items() if "model" in {field.name for field in fields(command.settings)}
    ]
    assert len(opens) > 8
    for name in opens:
        assert "trust_remote_code" in {field.name for field in fields(cli.COMMANDS[name].settings)}, name


def test_the_suite_and_the_measurements_pass_it_on(own_code, text, tmp_path) -> None:
    trust = dict(trust_remote_code=True)
    ropewalk.passkey(own_code, window=256, depths=1, trials=1, **trust)
    ropewalk.retrieval(own_code, window=400, families=["keys"], trials=1, **trust)
    ropewalk.attention(own_code, data=text, **trust)
    longer = tmp_path / "longer"
    ropewalk.extend(own_code, window=128, out=longer, **trust)
    sizes = dict(documents=1, strides_past=1, depths=1, trials=1, prompts=1, checkpoints=0)
    outcomes = ropewalk.evaluate(
        longer,
        base=own_code,
        data=text,
        size="small",
        change=sizes,
        benchmarks=tmp_path,
        out=tmp_path / "suite",
        **trust,
    )
    measured = {(outcome.name, outcome.model) for outcome in outcomes if not outcome.reason}
    assert {("perplexity", str(own_code)), ("perplexity", str(longer)), ("attention", str(longer))} <= measured, (
        outcomes
    )


def test_without_trust_nothing_runs_and_nothing_asks(own_code, text, tmp_path, mark, monkeypatch) -> None:
    for name in ("extend", "train", "perplexity", "passkey", "retrieval", "attention", "export"):
        given = {"data": text, "window": 128, "out": tmp_path / name, "reader": "vllm"}
        known = {field.name for field in fields(cli.COMMANDS[name].settings)}
        with pytest.raises(
            UserError, match="brings model code of its own, .*; read that code, then add --trust-remote-code"
        ):
            getattr(ropewalk, name)(own_code, **{key: value for key, value in given.items() if key in known})
    for door in (verify_directory, load_model, load_tokenizer):
        try:
            door(own_code)
        except UserError:
            continue
    assert not mark.exists()


def test_a_tokenizer_with_code_of_its_own_says_how_it_is_trusted(tmp_path, mark) -> None:
    directory = testing.tiny_directory(tmp_path / "tokens", window=64)
    (directory / "own.py").write_text(
        f"from transformers import PreTrainedTokenizerFast\nopen({str(mark)!r}, 'w')\nclass T(PreTrainedTokenizerFast): pass\n"
    )
    about = {"tokenizer_class": "T", "auto_map": {"AutoTokenizer": ["own.T", "own.T"]}}
    (directory / "tokenizer_config.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="brings code of its own: read that, then add --trust-remote-code"):
        load_tokenizer(directory)
    assert not mark.exists()
    load_tokenizer(directory, trust_remote_code=True)
    assert mark.exists()


def test_a_sound_tokenizer_is_not_looked_through_for_code(tmp_path, monkeypatch) -> None:
    """Only the sentence of a failure needs to know whether there is some."""
    monkeypatch.setattr(load, "_own_code", lambda directory: pytest.fail("read for nothing"))
    load_tokenizer(testing.tiny_directory(tmp_path / "tokens", window=64))


def test_a_stdin_that_says_yes_is_not_read(own_code, tmp_path, mark, monkeypatch, capsys) -> None:
    monkeypatch.undo()
    stdin = io.StringIO("y\n" * 20)
    monkeypatch.setattr("sys.stdin", stdin)
    with pytest.raises(SystemExit) as refused:
        cli.main(["extend", str(own_code), "--window", "128", "--out", str(tmp_path / "e")])
    shown = capsys.readouterr()
    assert refused.value.code == 2 and shown.err.count("\n") == 1 and not shown.out
    assert "--trust-remote-code" in shown.err and not mark.exists() and not stdin.tell()


def test_an_open_checkpoint_keeps_that_it_is_trusted(own_code) -> None:
    trusted = Checkpoint.open(own_code, trust_remote_code=True)
    assert Checkpoint.open(trusted) is trusted and trusted.with_config({}).trust_remote_code
    assert Checkpoint.open(Checkpoint.open(own_code), trust_remote_code=True).trust_remote_code
    assert trusted.open_base("hemp").trust_remote_code and not Checkpoint.open(own_code).trust_remote_code


@pytest.mark.parametrize("model_type", ["llama9", None, 3, ["llama"], {}])
def test_a_family_that_transformers_does_not_know_is_a_sentence(model_type, tmp_path, text) -> None:
    directory = testing.tiny_directory(tmp_path / "new", window=64)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"model_type": model_type}))
    for call in (
        lambda: ropewalk.extend(directory, window=128, out=tmp_path / "e"),
        lambda: ropewalk.perplexity(directory, data=text, **MEASURE),
        lambda: ropewalk.train(directory, data=text, window=128, out=tmp_path / "t"),
    ):
        with pytest.raises(UserError, match=r"transformers [\d.]+ has no family .*; it may be newer than that"):
            call()


@pytest.fixture
def with_needless_code(tmp_path: Path, mark: Path) -> Path:
    """A family that transformers has, with code of its own beside it all the same, as many published checkpoints bring it."""
    directory = testing.tiny_directory(tmp_path / "needless", window=64)
    for name in ("config.json", "tokenizer_config.json"):
        content = json.loads((directory / name).read_text())
        auto_map = {"AutoConfig": "shapes.C", "AutoModelForCausalLM": "my.M"} if name == "config.json" else {}
        (directory / name).write_text(json.dumps(content | {"auto_map": auto_map or {"AutoProcessor": "my.P"}}))
    (directory / "my.py").write_text(_CODE)
    (directory / "shapes.py").write_text(_SHAPES.format(mark=str(mark)))
    return directory


_NAMED = "my.py, shapes.py, auto_map of config.json, auto_map of tokenizer_config.json"


def test_untrusted_code_is_left_behind_and_named(with_needless_code, text, tmp_path, mark) -> None:
    """By everything that makes a checkpoint of another; none of it ran, and the family's own class serves."""
    made = {
        "longer": lambda out: ropewalk.extend(with_needless_code, window=128, out=out),
        "trained": lambda out: ropewalk.train(
            with_needless_code, data=text, window=128, steps=1, batch_size=1, out=out, allow_short=True, threads=1
        ),
        "exported": lambda out: ropewalk.export(with_needless_code, reader="transformers", out=out),
    }
    for name, make in made.items():
        with pytest.warns(UserWarning, match=f"left behind, and none of it ran: {_NAMED}; read it, then add --trust"):
            make(tmp_path / name)
        assert not list((tmp_path / name).rglob("*.py")), name
        for config in (tmp_path / name).rglob("*config.json"):
            assert "auto_map" not in json.loads(config.read_text()), config
        load_model(tmp_path / name), load_tokenizer(tmp_path / name)
    assert not mark.exists()


def test_doctor_names_the_code_that_a_model_brings(with_needless_code, tmp_path, mark) -> None:
    [finding] = [each for each in ropewalk.doctor(with_needless_code).findings if each.check == "code of its own"]
    assert finding.verdict == "note" and f"({_NAMED})" in finding.sentence and "--trust-remote-code" in finding.sentence
    assert not mark.exists()
    with pytest.warns(UserWarning):
        ropewalk.extend(with_needless_code, window=128, out=tmp_path / "longer")
    assert not any(each.check == "code of its own" for each in ropewalk.doctor(tmp_path / "longer").findings)
