"""The file that a command writes beside what it makes, and that another run is repeated by."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from command_lines import said
from ropewalk import cli, testing
from ropewalk.cli.options import options_of
from ropewalk.settings import run_file
from ropewalk.settings.train import TrainSettings


def test_a_run_is_repeated_by_the_file_that_it_wrote(trained: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    written = yaml.safe_load((trained / "run/run.yaml").read_text(encoding="utf-8"))
    assert (
        written["model"] == str(trained / "a") and written["learning-rate"] == 1e-4 and written["allow-short"] is True
    )
    assert not {"quiet", "overwrite", "device"} & written.keys()
    monkeypatch.chdir(tmp_path)  # its paths hold anywhere
    assert said(capsys, "--config", str(trained / "run/run.yaml"), "--out", "again", "--quiet")[0] == 0
    assert (tmp_path / "again/model.safetensors").read_bytes() == (trained / "run/model.safetensors").read_bytes()
    again = yaml.safe_load((tmp_path / "again/run.yaml").read_text(encoding="utf-8"))
    assert again == written | {"out": str(tmp_path / "again")}


@pytest.mark.parametrize(
    ("command", "more"),
    [("extend", ["--window", "256"]), ("export", ["--for", "vllm"]), ("theory", ["--window", "256"])],
)
def test_what_makes_a_directory_is_repeated_by_the_file_in_it(
    command, more, tmp_path: Path, capsys, monkeypatch
) -> None:
    model = testing.tiny_directory(tmp_path / "a", window=128)
    monkeypatch.chdir(tmp_path)
    assert said(capsys, command, "a", *more, "--out", "first")[0] == 0
    written = yaml.safe_load((tmp_path / "first/run.yaml").read_text(encoding="utf-8"))
    assert written["command"] == command and written["model"] == str(model)
    monkeypatch.chdir(tmp_path.parent)  # its paths hold anywhere
    assert said(capsys, "--config", str(tmp_path / "first/run.yaml"), "--out", str(tmp_path / "again"))[0] == 0
    same = {"extend": "config.json", "export": "config.json", "theory": "figure-5.svg"}[command]
    assert (tmp_path / "again" / same).read_bytes() == (tmp_path / "first" / same).read_bytes()
    assert said(capsys, "--config", str(tmp_path / "first/run.yaml"), "--overwrite")[0] == 0  # its mark lists the file
    if command != "theory":  # nothing of it goes where the model goes, and nothing is wrong with it
        assert said(capsys, "doctor", str(tmp_path / "first"))[0] == 0
        assert said(capsys, "export", str(tmp_path / "first"), "--for", "mlx", "--out", str(tmp_path / "next"))[0] == 0
        assert yaml.safe_load((tmp_path / "next/run.yaml").read_text(encoding="utf-8"))["for"] == "mlx"


def test_a_measurement_writes_its_options_beside_its_rows(trained: Path, tmp_path: Path, capsys) -> None:
    words = ["--windows", "32", "64", "--stride", "16", "--as", "yarn"]
    run, out = str(trained / "a"), tmp_path / "rows.jsonl"
    assert said(capsys, "perplexity", run, "--data", str(trained / "book.txt"), *words, "--out", str(out))[0] == 0
    file = tmp_path / "rows.perplexity.yaml"
    assert yaml.safe_load(file.read_text())["as"] == "yarn"
    _, options = cli.parse(["perplexity", str(trained / "run"), "--config", str(file), "--stride", "8"])
    assert (options.model, options.windows, options.stride) == (str(trained / "run"), [32, 64], 8)  # what is typed wins
    file.write_text("mine: 1\n")
    said(capsys, "perplexity", run, "--data", str(trained / "book.txt"), *words, "--out", str(out))
    assert file.read_text() == "mine: 1\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lr: 1e-4", "names 'lr', which is no option of `ropewalk train`; did you mean learning-rate?"),
        ("windw: 4k", "names 'windw', which is no option of `ropewalk train`; did you mean window?"),
        ("command: plan\nwindow: 4k", "is the file of `ropewalk plan`, and this is `ropewalk train`"),
        ("quiet: perhaps", "quiet is true or false, got 'perhaps'"),
        ("window: {a: 1}", "holds no list of `option: value`"),
        ("data: [[a]]", "a value is a word or a list of words"),
        ("window: [4k", "cannot be read as one"),
        ("window: 4k\nwindow: 8k", "cannot be read as one (it names window twice)"),
        ("!!python/object/apply:os.system [date]", "cannot be read as one"),
    ],
)
def test_a_file_that_says_something_else_is_a_sentence(text: str, words: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "run.yaml").write_text(text)
    status, printed = said(capsys, "train", "--config", str(tmp_path / "run.yaml"))
    assert status == 2 and words in printed and "Traceback" not in printed


def test_values_of_a_file_are_what_is_typed(tmp_path: Path) -> None:
    text = "window: 32_768\nmodel: m\ndata: [a, b]\nout: o\nlearning_rate: 1e-4\nresume: false\nsave-every: ~\nallow-short: yes\n"
    (tmp_path / "run.yaml").write_text(text)
    _, options = cli.parse(["train", "--config", str(tmp_path / "run.yaml")])
    _, typed = cli.parse("train m --window 32k --data a b --out o --learning-rate 1e-4 --allow-short".split())
    assert vars(options) == vars(typed)


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_option_of_a_command_can_stand_in_a_file(command: str, capsys) -> None:
    options = options_of(cli.COMMANDS[command])
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    shown = capsys.readouterr().out
    for name, option in run_file.options_of(options).items():
        assert option.positional or f"--{name}" in shown, name


def test_each_command_into_one_place_has_a_file_of_its_own_and_the_same_again_none(tmp_path: Path) -> None:
    place = tmp_path / "rows.perplexity.yaml"

    def write(window: int, file: Path = place) -> list[str]:
        run_file.write_file(TrainSettings(model="m", data=["d"], window=window, out=tmp_path / "o"), file)
        return sorted(path.name for path in tmp_path.glob("*.yaml"))

    write(8), write(9), write(8)
    assert write(9) == ["rows.perplexity-2.yaml", "rows.perplexity.yaml"]
    assert run_file.read(place)[1]["window"] == "8"
    place.write_text("mine: 1\n", encoding="utf-8")
    (tmp_path / "rows.perplexity-3.yaml").mkdir()  # nor is a directory in the way
    assert write(10)[1:] == ["rows.perplexity-3.yaml", "rows.perplexity-4.yaml", "rows.perplexity.yaml"]
    assert place.read_text(encoding="utf-8") == "mine: 1\n"
    assert run_file.read(tmp_path / "rows.perplexity-4.yaml")[1]["window"] == "10"


def test_a_file_of_an_earlier_version_with_the_same_options_is_the_same(tmp_path: Path) -> None:
    settings = TrainSettings(model="m", data=["d"], window=8, out=tmp_path / "o")
    run_file.write_file(settings, tmp_path / "r.yaml")
    text = (tmp_path / "r.yaml").read_text(encoding="utf-8")
    (tmp_path / "r.yaml").write_text(f"# Written by ropewalk 0.0.1; x\n{text.partition(chr(10))[2]}", encoding="utf-8")
    run_file.write_file(settings, tmp_path / "r.yaml")
    assert (tmp_path / "r.yaml").read_text(encoding="utf-8") == text and not (tmp_path / "r-2.yaml").exists()


def test_settings_in_memory_have_no_file(tmp_path: Path) -> None:
    from ropewalk.data.documents import Document

    run_file.write_file(
        TrainSettings(model="m", data=[Document("a", "b")], window=8, out=tmp_path / "o"), tmp_path / "r"
    )
    assert not (tmp_path / "r").exists()
