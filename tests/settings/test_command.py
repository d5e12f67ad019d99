"""One definition of each option: the class is the Python signature, its help, the command line and its refusals."""

from __future__ import annotations

import dataclasses
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
from ropewalk import cli
from ropewalk.checkpoint import files
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.cli import door
from ropewalk.errors import UserError
from ropewalk.settings import extras
from ropewalk.settings.ablate import AblateSettings
from ropewalk.settings.command import ask_at_start, docs_of, fields
from ropewalk.settings.downstream import EvaluateSettings
from ropewalk.settings.export import ExportSettings
from ropewalk.settings.measure import RulerSettings
from ropewalk.settings.pages import DemoSettings
from ropewalk.settings.train import TrainSettings

ROOT = Path(__file__).resolve().parents[2]
PUBLIC = list(cli.COMMANDS)


@pytest.mark.parametrize("name", PUBLIC)
def test_a_commands_function_has_the_options_of_its_settings(name: str) -> None:
    settings, function = cli.COMMANDS[name].settings, getattr(ropewalk, name.replace(" ", "_"))
    assert list(inspect.signature(function).parameters) == [field.name for field in fields(settings)]
    assert inspect.signature(function).return_annotation not in (inspect.Signature.empty, "None")
    assert function.__name__ == name.replace(" ", "_")


@pytest.mark.parametrize("name", PUBLIC)
def test_every_option_has_a_docstring_and_help_shows_it(name: str) -> None:
    settings, function = cli.COMMANDS[name].settings, getattr(ropewalk, name.replace(" ", "_"))
    docs = docs_of(settings)
    assert set(docs) == {field.name for field in dataclasses.fields(settings)}
    for words in docs.values():
        assert words in function.__doc__


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"windw": 128, "out": "x"}, "extend cannot be called like this .*'window'.*; did you mean window=?"),
        ({"max_seq_length": 128, "out": "x"}, "did you mean window=?"),
        ({"window": 128, "out": "x", "banana": 1}, r"argument 'banana'\); help\(ropewalk.extend\) lists what it takes"),
        ({"window": 128}, "missing a required argument: 'out'"),
    ],
)
def test_a_call_with_other_arguments_is_refused_by_the_functions_name(arguments: dict, said: str) -> None:
    with pytest.raises(UserError, match=said):
        ropewalk.extend("hemp", **arguments)


def test_settings_cannot_be_changed_once_they_are_checked() -> None:
    settings = TrainSettings("m", data="d", window=512, out="o")
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.window = 0  # pyrefly: ignore[read-only]


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_command_line_has_what_python_takes_but_for_objects(name: str, capsys) -> None:
    """A word for each field, unless it is marked as Python's own; and both of the terminal's options."""
    with pytest.raises(SystemExit):
        cli.parse([name, "--help"])
    text = capsys.readouterr().out
    assert "--quiet" in text and "--verbose" in text
    objects = {"tokenizer", "hear", "decodings", "change", "rates", "left_out", "sizes"}
    for field in fields(cli.COMMANDS[name].settings):
        option = {
            "convention": "--as",
            "model": "MODEL",
            "records": "RECORDS",
            "adapter": "ADAPTER",
            "reader": "--for",
            "readers": "--for",
        }.get(field.name, f"--{field.name.replace('_', '-')}")
        option = {
            ("data score", "model"): "--model",
            ("data score", "data"): "DATA",
            ("card", "model"): "DIR",
            ("card", "records"): "--records",
            ("push", "model"): "DIR",
            ("push", "repository"): "OWNER/NAME",
        }.get((name, field.name), option)
        assert (option in text) == (field.name not in objects), field.name


WRONG = """
import ropewalk

ropewalk.extend("hemp", window=512, out="o")
ropewalk.extend("hemp", windw=3, out="o")
ropewalk.train("hemp", data="d", window=512, out="o", activations="bogus")
ropewalk.perplexity("hemp", data="d", windows=[256], stride=16).perplexity
ropewalk.passkey("hemp", window="512")
ropewalk.plan("hemp", window=512, activations="full", price=2.0)
"""


def test_a_type_checker_rejects_what_is_misspelt(tmp_path: Path) -> None:
    """A misspelt option, a choice that does not exist, an attribute of the result, a word for a number; what is right passes."""
    pyrefly = Path(sys.executable).with_name("pyrefly")
    if not pyrefly.is_file():
        pytest.skip("pyrefly is not installed here")
    (tmp_path / "wrong.py").write_text(WRONG)
    (tmp_path / "pyrefly.toml").touch()  # its own defaults, which are stricter than those of a directory without one
    done = subprocess.run(
        [pyrefly, "check", "--python-interpreter-path", sys.executable, "--search-path", ROOT / "src", "wrong.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    lines = {int(line.split("wrong.py:")[1].split(":")[0]) for line in done.stdout.splitlines() if "wrong.py:" in line}
    assert lines == {5, 6, 7, 8}, done.stdout + done.stderr


def test_settings_are_read_without_torch_and_transformers() -> None:
    rooms = sorted(path.stem for path in (ROOT / "src/ropewalk/settings").glob("*.py"))
    code = "import sys\n" + "".join(f"import ropewalk.settings.{name}\n" for name in rooms if name != "__init__")
    code += "sys.exit(sorted({'torch', 'transformers', 'numpy', 'datasets'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


#: What `--help` has no use for, each of which costs as much as the rest of it together, or several times that.
_HEAVY = {
    "numpy",
    "scipy",
    "pandas",
    "matplotlib",
    "jinja2",
    "jaxtyping",
    "torch",
    "transformers",
    "tokenizers",
    "datasets",
    "huggingface_hub",
}


def test_help_imports_nothing_heavy() -> None:
    """Which is why it answers at once; measured seconds would be those of whatever else runs here."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "ropewalk", "--help"], capture_output=True, text=True, check=True
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "tyro" in imported and not imported & _HEAVY


def test_what_lies_at_out_is_asked_by_the_first_process_alone(tmp_path, monkeypatch):
    """Another process that comes later finds there what the first has begun to write, or is clearing away."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "text.txt").write_text("mine")
    settings = TrainSettings("hemp", data=[out / "text.txt"], window=8192, out=out, steps=1, overwrite=True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    ask_at_start(settings)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="would be replaced"):
        ask_at_start(settings)


def test_whether_out_can_be_written_is_asked_once_by_the_command_line_and_once_when_the_run_takes_it(
    tmp_path, monkeypatch
):
    """By the first before torch is imported, which Python's callers have done; a place that is none is an answer of both."""
    (tmp_path / "text.txt").write_text("words")
    asked = TrainSettings("hemp", data=[tmp_path / "text.txt"], window=8192, out=tmp_path / "text.txt/out", steps=1)
    for ask in (
        lambda: door.check("train", cli.COMMANDS["train"], asked),
        lambda: run_directory(asked.out, holds=(), signs=()).__enter__(),
    ):
        with pytest.raises(UserError, match="is a file; choose another --out"):
            ask()
    probes = []
    monkeypatch.setattr(files, "refuse_full", lambda out, directory: probes.append(out))
    asked = dataclasses.replace(asked, out=tmp_path / "out")
    door.check("train", cli.COMMANDS["train"], asked)
    ask_at_start(asked)  # as the function does, behind the command
    assert probes == [tmp_path / "out"]


@pytest.mark.parametrize(("settings", "options", "package", "sentence"), [
    (AblateSettings, {"test": "t", "measure": ["benchmarks"]}, "lm_eval", "--measure benchmarks needs lm_eval"),
    (EvaluateSettings, {}, "jinja2", "ropewalk evaluate needs jinja2"),
    (EvaluateSettings, {"pairs": "p"}, "rouge_score", "ropewalk evaluate needs rouge_score"),
    (DemoSettings, {}, "tabulate", "ropewalk demo needs tabulate"),
    (ExportSettings, {"reader": "ollama"}, "gguf", "ropewalk export --for ollama needs gguf"),
    (RulerSettings, {}, "wonderwords", "ropewalk ruler needs wonderwords"),
])  # fmt: skip
def test_packages_of_a_later_stage_are_asked_for_at_the_start(
    tmp_path, monkeypatch, settings, options, package, sentence
):
    named = {} if settings is DemoSettings else {"model": "hemp"}
    asked = settings(**named, out=tmp_path / "out", **options)
    monkeypatch.setattr(extras, "installed", lambda _: True)
    ask_at_start(asked)
    monkeypatch.setattr(extras, "installed", lambda each: each != package)
    with pytest.raises(UserError, match=f"{sentence}, which is not installed: pip install"):
        ask_at_start(asked)
