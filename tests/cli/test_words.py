"""What a person types: `--version`, `help`, words that are nearly right, `--config`, and slips that must not wait for torch."""

from __future__ import annotations

import collections
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import ropewalk
from ropewalk import cli, testing
from ropewalk.checkpoint.steps import Unfinished
from ropewalk.cli.commands import COMMANDS
from ropewalk.cli.options import options_of
from ropewalk.cli.words import parse
from ropewalk.errors import UserError
from ropewalk.settings import other_names, run_file
from ropewalk.settings.train import TrainSettings


def said(capsys, *words: str) -> tuple[int, str]:
    """Exit status, and all that was printed on one line."""
    status = 0
    try:
        cli.main(list(words))
    except SystemExit as end:
        status = int(end.code or 0)
    printed = capsys.readouterr()
    return status, " ".join((printed.out + printed.err).split())


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ("--version", 0, f"ropewalk {ropewalk.__version__}"),
        ("help", 0, "Give a RoPE language model a longer context window"),
        ("help extend", 0, "usage: ropewalk extend"),
        ("exten hemp", 2, "there is no command 'exten'; did you mean extend?"),
        ("data a.txt", 2, "there is no command 'data'; did you mean data score?"),
        ("help exten", 2, "did you mean extend?"),
        ("zzz hemp", 2, "there is no command 'zzz'; they are demo, extend"),
        ("extend hemp --windw 4k --out o --window 4k", 2, "there is no --windw; did you mean --window?"),
        (
            "doctor hemp --reader vllm",
            2,
            "did you mean --for (transformers, vllm, sglang, llama.cpp, mlx, ollama, peft)?",
        ),
        ("train m --lr 1e-4", 2, "there is no --lr; did you mean --learning-rate?"),
        (
            "train m --dat a --max_seq_length=4k",
            2,
            "did you mean --data? there is no --max_seq_length; did you mean --window?",
        ),
        (
            "train m --grad-accum 2 --zz --yy",
            2,
            "did you mean --micro-batch? there is no --zz, --yy; `ropewalk train --help` lists",
        ),
        ("train --mdel hemp --data a", 2, "there is no --mdel; did you mean MODEL, without a name before it?"),
        ("summarize m --num-train-epochs 3", 2, "did you mean --epochs?"),
        ("generate m --temp 1 --text x", 2, "did you mean --temperature?"),
        ("train m --rate 1", 2, "did you mean --learning-rate?"),
        ("train m --lr 1 --help", 0, "usage: ropewalk train"),
        ("extend hemp --window 4k --out o --method yran", 2, "proportional, auto, got 'yran'; did you mean yarn?"),
        ("extend hemp --window 4k --out o --method=zz", 2, "got 'zz'; leave it out for auto"),
        ("ruler hemp --items-only o --interval 5", 2, "there is nothing for --interval; leave it out"),
        ("ruler hemp --tasks vt,niah_singl_1", 2, "got ['vt', 'niah_singl_1']; did you mean niah_single_1?"),
        ("train hemp --data a --window 4k --out o --base-bits 3", 2, "base-bits is one of 4, got '3'; leave it out"),
        ("theory hemp --window 16kb", 2, "ropewalk: window is a whole number of at least 1"),
        ("theory hemp --window 16kb", 2, "32k (32 x 1024) or 1M, got '16kb'; leave it out"),
        (
            "train hemp --window 1k --steps 1.5 --data a --out o",
            2,
            "at most 10000000, got '1.5'; leave it out for 1000",
        ),
        ("train hemp --window 1k --learning-rate x --data a --out o", 2, "ropewalk: learning-rate is a finite number"),
        ("train hemp --window 1k --budget 5x --data a --out o", 2, "as in 5, 0.5, 5m or 1h, got '5x'; leave it out"),
        ("perplexity hemp --data a --windows 1k 2kb", 2, "32k (32 x 1024) or 1M, got [1024, '2kb']"),
        (
            "perplexity hx --data a --windows 16,384",
            2,
            "--windows 16,384 is one number with a comma between thousands, or a list; write 16384 or 16 384",
        ),
        # By the options alone, before a model or data are looked for, which are not there.
        ("perplexity hx --data a --windows 256 1m --max-tokens 2k", 2, "cut to 2048 tokens cannot have the 1048576"),
        ("gain hx --data a --window 4k --max-tokens 2k", 2, "cut to 2048 tokens cannot have the 4096"),
        ("ablate hx --tokens 1M,2M 32,000", 2, "write 32000 or 32 000"),
        (
            "extend hemp 32k --out o",
            2,
            "ropewalk extend needs --window TOKENS, and has no place for 32k, which follows no option that takes it (did you mean --window 32k?); ",
        ),
        (
            "attention hemp 1k --data a",
            2,
            "has no place for 1k, which follows no option that takes it (did you mean --window 1k?); ",
        ),
        ("extend hemp 32k --window 4k --out o", 2, "which follows no option that takes it; "),
        (
            "plan 7b 8 H100 --window 32k",
            2,
            "no option that takes it (did you mean --gpus 8 H100?); `ropewalk plan --help`",
        ),
        ("plan 7b 8xh100", 2, "(did you mean --gpus 8xh100?); "),
        ("plan 7b books.jsonl", 2, "no option that takes it; `ropewalk plan --help`"),
        ("card hl hl.jsonl", 2, "ropewalk: ropewalk card has no place for hl.jsonl, which follows no option"),
        ("card", 2, "ropewalk: ropewalk card needs DIR; `ropewalk card --help` explains"),
        (
            "train hemp --data a",
            2,
            "ropewalk: ropewalk train needs --window TOKENS, --out DIR; `ropewalk train --help`",
        ),
        ("theory hemp --window", 2, "ropewalk: --window takes a value, and none follows it; `ropewalk theory --help`"),
        ("", 2, "ropewalk: a command comes first: demo, extend"),
        ("--quiet theory hemp", 2, "ropewalk: a command comes first: demo, extend"),
        ("extend --tyro-print-completion bash", 0, "longrope"),
        ("extend --help", 0, "yarn: slow pairs interpolated"),
        ("train hemp --config", 2, "nothing follows it"),
        ("train --config a.yaml --config=b.yaml", 2, "--config names one file, and here are two"),
        ("train --config none.yaml", 2, "none.yaml cannot be read as one (No such file or directory)"),
    ],
)
def test_what_a_person_types(line: str, status: int, words: str, capsys) -> None:
    found, printed = said(capsys, *line.split())
    assert found == status and words in " ".join(printed.replace("│", " ").split()), printed
    assert status == 0 or "│" not in printed  # one style of errors, and no drawn boxes


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("256,512", [256, 512]),
        ("256,512,1024 8192,16384", [256, 512, 1024, 8192, 16384]),
        ("64,128", [64, 128]),
        ("2k,8k", [2048, 8192]),
    ],
)
def test_lists_of_windows_may_have_commas(typed: str, read: list[int]) -> None:
    assert cli.parse(["perplexity", "m", "--data", "a", "--windows", *typed.split()])[1].windows == read
    seeds = cli.parse("ablate m --windows 4k --data a --test b --out o --seeds 1,234".split())[1].seeds
    assert seeds == [1, 234]  # which are no tokens


def test_words_with_dashes_that_name_no_option_are_values() -> None:
    line = ["generate", "--max_new_tokens", "5", "--text", "-- it said", "--temperature", "-1", "--", "--model"]
    options = cli.parse(line)[1]
    assert (options.text, options.temperature, options.model) == ("-- it said", -1, "--model")
    assert cli.parse(["report", "r", "--out", "p.html", "--no-paper"])[1].paper is False


@pytest.mark.parametrize("typed", ["--model m --window 64", "--window 64 --model=m", "m --window 64"])
@pytest.mark.parametrize("command", ["theory", "plan", "passkey"])
def test_a_model_may_be_typed_with_its_name(command: str, typed: str) -> None:
    _, options = parse([command, *typed.split()])
    assert (str(options.model), str(options.window)) == ("m", "64")


def test_words_of_other_tools_lead_to_options_that_there_are() -> None:
    known = {name for each in COMMANDS.values() for name in run_file.options_of(options_of(each))}
    assert other_names._OTHERS.keys() <= known


@pytest.mark.parametrize(
    ("words", "gpus"),
    [(["--gpus", "8", "H100"], "8 H100"), (["--gpus", "8xH100"], "8xH100"), (["--gpus", "4090"], "4090")],
)
def test_chips_are_taken_as_people_write_them(words: list[str], gpus: str) -> None:
    for line in (["plan", "7b", *words, "--window", "4k"], ["plan", *words, "7b", "--window", "4k"]):
        assert cli.parse(line)[1].gpus == gpus


def test_slips_are_refused_before_torch_is_imported(tmp_path: Path) -> None:
    """Slips of all usual kinds in one process, which has imported neither torch nor transformers at its end."""
    testing.tiny_directory(tmp_path / "a", window=64)
    (tmp_path / "text.txt").write_text("words " * 100)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/notes.txt").write_text("mine")
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless/config.json").write_bytes((tmp_path / "a/config.json").read_bytes())
    lines = (
        "extend a --window 32 --out o",
        "extend a --window 128 --out taken",
        "extend a --window 128 --out o --method yarn --rope-theta 1e6",
        "extend none/model --window 128 --out o",
        "train ./none --data text.txt --window 128 --out o",
        "train a --data none.txt --window 128 --out o",
        "train a --data text.txt --window 128 --out taken",
        "perplexity a --data none.txt",
        "passkey a --depths 0",
        "evaluate a --out o --data none.txt",
        "evaluate a --out taken",
        "extend a --window 128 --out text.txt/o",
        "export a --for vllm --out text.txt/o",
        "export a --for llama.cpp --out o --converter none",
        "search a --data text.txt --window 128 --out text.txt/s.json",
        "train a --data text.txt --window 128 --out o --scores none.jsonl",
        "train a --data text.txt --window 128 --out o --method longrope --factors none.json",
        "train taken --data text.txt --window 128 --out o",
        "train weightless --data text.txt --window 128 --out o",
        "passkey weightless",
        "perplexity a --data text.txt --by-step",
        "merge a --out o",
        "ruler a --questions none.jsonl",
        "ruler a --needle none.jsonl",
        "ablate a --test text.txt --out taken",
        "ablate a --test text.txt --out text.txt/o",
        "ablate a --test text.txt --out o --also none.txt",
        "ablate a --test text.txt --out o --methods alibi",
        "chat a --file none.txt --question x",
        "generate a --prompt none.txt",
        "train a --data text.txt --window 128 --out o --lr 1e-4",
    )
    code = (
        "import os, sys\nos.environ['HF_HUB_OFFLINE'] = '1'\nfrom ropewalk import cli\n"
        f"for line in {lines}:\n"
        "    try:\n        cli.main(line.split())\n    except SystemExit as end:\n        assert end.code == 2, line\n"
        "    else:\n        raise AssertionError(line)\n"
        "sys.exit(sorted({'torch', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stderr.splitlines()) == len(lines), done.stderr


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A directory with a model, a text, and a run of two steps with a checkpoint after each."""
    place = tmp_path_factory.mktemp("trained")
    testing.tiny_directory(place / "a", window=64)
    (place / "book.txt").write_text(testing.prose(60, 1), encoding="utf-8")
    words = "--window 128 --steps 2 --batch-size 1 --save-every 1 --learning-rate 1e-4 --allow-short --quiet"
    cli.main(
        ["train", str(place / "a"), "--data", str(place / "book.txt"), *words.split(), "--out", str(place / "run")]
    )
    return place


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


@pytest.fixture
def interrupted(trained: Path, tmp_path: Path) -> Path:
    """The run of two steps as one of 400 that was killed after its second checkpoint."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    (run / "config.json").unlink()
    rows = (run / "records.jsonl").read_text(encoding="utf-8")
    (run / "records.jsonl").write_text(rows.replace('"steps":2,', '"steps":400,'), encoding="utf-8")
    return run


def test_an_unfinished_run_says_how_far_it_came_wherever_it_is_named(trained, interrupted, tmp_path, capsys) -> None:
    text, last = str(trained / "book.txt"), f"name its last checkpoint, {interrupted}/checkpoints/step-000002"
    again = [
        "train",
        str(trained / "a"),
        "--data",
        text,
        "--window",
        "128",
        "--steps",
        "400",
        "--out",
        str(interrupted),
    ]
    for words, sentence in (
        (again, "holds an unfinished run, step 2 of 400; go on with --resume"),
        ([*again, "--overwrite"], "would delete 2 checkpoints of the run in"),
        (["extend", str(trained / "a"), "--window", "256", "--out", str(interrupted), "--overwrite"], "add --yes"),
        (["perplexity", str(interrupted), "--data", text], last),
        (["extend", str(interrupted), "--window", "256", "--out", str(tmp_path / "o")], last),
        (["doctor", str(interrupted)], last),
    ):
        status, printed = said(capsys, *words)
        assert status == 2 and sentence in printed, printed
    with pytest.raises(UserError, match="would delete 2 checkpoints"):
        ropewalk.train(trained / "a", data=text, window=128, out=interrupted, overwrite=True)
    assert len(list((interrupted / "checkpoints").iterdir())) == 2
    said(capsys, "report", str(interrupted / "records.jsonl"), "--out", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "interrupted, 2 of 400" in page and "<h1>a</h1>" in page  # nothing but its training is on record
    assert str(Unfinished.of(interrupted)) == "step 2 of 400" and Unfinished.of(trained / "run") is None
    assert Unfinished.of(trained) is None  # no run


def test_at_a_terminal_one_is_asked_before_checkpoints_go(trained, interrupted, capsys, monkeypatch) -> None:
    class Terminal:
        def __init__(self, answer: str) -> None:
            self.readline = lambda: answer

        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    words = [
        "train",
        str(trained / "a"),
        "--data",
        str(trained / "book.txt"),
        "--window",
        "128",
        "--overwrite",
        "--steps",
        "1",
    ]
    words += ["--batch-size", "1", "--allow-short", "--out", str(interrupted)]
    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    status, printed = said(capsys, *words)
    assert status == 2 and "Delete 2 checkpoints of the run in " in printed and ", to step 2? [y/N]" in printed
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert said(capsys, *words)[0] == 0 and (interrupted / "config.json").is_file()


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    model, text, out = str(trained / "a"), str(trained / "book.txt"), str(tmp_path / "o")
    common = ["--data", text, "--out", out, "--dry-run"]
    for words, sentence in (
        (
            ["train", model, "--window", "128", "--steps", "3", "--batch-size", "2", *common],
            "3 steps of 2 windows, 768 tokens in all: ",
        ),
        (
            ["train", model, "--window", "128", "--method", "linear", *common],
            "linear: measured nearest on hemp, 256 to",
        ),
        (
            ["train", model, "--window", "128", "--method", "linear", *common],
            "measured in the lab with PI: train --method linear --steps",
        ),
        (
            [
                "train",
                model,
                "--window",
                "128",
                "--steps",
                "3",
                "--batch-size",
                "2",
                "--mode",
                "pose",
                "--chunk-window",
                "32",
                *common,
            ],
            "3 steps of 2 chunks of 32 tokens, 192 tokens in all: ",
        ),
        (
            ["search", model, "--window", "128", "--population", "8", "--generations", "2", *common],
            "16 vectors, 8 at first and 4 in each of 2 generations",
        ),
        (["evaluate", model, "--size", "small", *common], "1. passkey,"),
        (
            ["extend", model, "--window", "128", "--method", "linear", "--out", out, "--dry-run"],
            "window 64 → 128 tokens, linear factor 2 into",
        ),
        (["demo", "--out", out, "--dry-run"], "train it for 500 steps"),
    ):
        status, printed = said(capsys, *words)
        assert status == 0 and sentence in printed and "a dry run: nothing was written" in printed, printed
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_of_extend_says_what_the_command_comes_to_and_is_refused_as_it_is(trained, tmp_path, capsys) -> None:
    words = ["extend", str(trained / "a"), "--window", "128", "--out", str(tmp_path / "o"), "--json"]
    told = []
    for more in (["--dry-run"], []):
        cli.main([*words, *more])
        told.append(json.loads(capsys.readouterr().out))
    rehearsed, made = told
    same = ("out", "measured", "family", "window", "original_window", "scaling", "parameters", "base")
    assert {name: rehearsed[name] for name in same} == {name: made[name] for name in same}
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/config.json").write_bytes((trained / "a/config.json").read_bytes())
    for model, window in ((trained / "a", "32"), (tmp_path / "bare", "128")):
        words = ["extend", str(model), "--window", window, "--out", str(tmp_path / "p")]
        assert said(capsys, *words) == said(capsys, *words, "--dry-run")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("mixed", [[], ["0.5"]])
def test_a_dry_run_shows_what_of_a_conversation_is_scored(trained, tmp_path, capsys, mixed) -> None:
    long = "Because. " * 300
    turns = [("user", "Why?"), ("assistant", "So."), ("user", "Why not?"), ("assistant", long)]
    row = {"messages": [{"role": role, "content": content} for role, content in turns]}
    (tmp_path / "chats.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "book.txt").write_text("A book. " * 9999)
    data = [*([str(tmp_path / "book.txt"), "0.5"] if mixed else []), str(tmp_path / "chats.jsonl"), *mixed]
    words = [
        "train",
        str(trained / "a"),
        "--window",
        "4096",
        "--steps",
        "3",
        "--batch-size",
        "2",
        "--allow-short",
        "--out",
        str(tmp_path / "o"),
    ]
    status, printed = said(capsys, *words, "--data", *data, "--loss", "answers", "--dry-run")
    shown = " ".join(printed.split())
    assert status == 0, printed
    assert re.search(
        r"scored between « and »: (<s> ?)?Why\?\\n\\n«So\.(</s>)?»\\n\\nWhy not\?\\n\\n«Because\. Bec.*»… ", shown
    )


def test_a_dry_run_of_much_text_estimates_and_says_so(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.data import text_size, tokenising
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    monkeypatch.setattr(text_size, "_LITTLE", 0)
    monkeypatch.setattr(text_size, "_LONG", 0.0)
    monkeypatch.setattr(tokenising, "write_corpus", None)  # what tokenises
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "long.txt").write_text("a" * (200 * 128 - 2))  # a token is a byte: with BOS and EOS, 200 windows
    words = ["train", str(trained / "a"), "--window", "128", "--steps", "5", "--batch-size", "2", "--dry-run"]
    words += ["--data", str(tmp_path / "long.txt"), "--out", str(tmp_path / "o")]
    status, printed = said(capsys, *words)
    assert status == 0, printed
    assert "long.txt: 25,600 tokens in 200 windows" in printed and "5% of them are read (estimated)" in printed
    assert (
        "estimated from a sample: tokenising all takes about" in printed and "a dry run: nothing was written" in printed
    )


def test_a_dry_run_counts_what_is_done_and_what_a_budget_leaves(trained, tmp_path, capsys, monkeypatch) -> None:
    from ropewalk.planner import calibrate
    from ropewalk.planner.chip_names import named
    from ropewalk.planner.chips import datasheet_rates

    chip = named("NVIDIA L4")
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, datasheet_rates(chip)))
    (tmp_path / "o/checkpoints/step-000004").mkdir(parents=True)
    words = ["train", str(trained / "a"), "--window", "128", "--batch-size", "2", "--data", str(trained / "book.txt")]
    words += ["--out", str(tmp_path / "o"), "--dry-run"]
    printed = said(capsys, *words, "--steps", "5", "--resume")[1]
    assert "4 of 5 steps are done, and 1 step of 2 windows, 256 tokens in all" in printed
    # What it takes stands before the tables that say why.
    assert re.search(r"in short: 1 step in about .* each, and in [\d.]+ of [\d.]+ GiB", printed.split("Memory")[0])
    # Both have a size of their own; a checkpoint of step 5 is not written, and the final model is.
    assert re.search(r"on the disk: ([\d.]+ MiB); 1 model of \1 ", printed)
    assert "of the optimiser" not in printed
    printed = said(capsys, *words, "--steps", "10000000", "--save-every", "0", "--resume", "--budget", "1")[1]
    steps = int(re.search(r"--budget 1 ends it after about (\d+) of 9999996 steps", printed)[1])
    assert 0 < steps < 9999996
    assert "ends it after" not in said(capsys, *words, "--steps", "5", "--resume", "--budget", "1000")[1]
    # A step that is longer than all of it is refused, as by the run itself.
    monkeypatch.setattr(calibrate, "present", lambda job: (chip, replace(datasheet_rates(chip), matrix=1.0)))
    status, printed = said(capsys, *words, "--steps", "5", "--resume", "--budget", "1")
    assert status == 2 and "ends it after" not in printed


def test_a_dry_run_asks_the_disk_as_the_run_does(trained, tmp_path, capsys, monkeypatch) -> None:
    words = ["train", str(trained / "a"), "--window", "128", "--batch-size", "2", "--data", str(trained / "book.txt")]
    words += ["--steps", "2", "--save-every", "1", "--out", str(tmp_path / "deep/o"), "--quiet"]
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, 2**16) if place.exists() else None)
    rehearsed, run = said(capsys, *words, "--dry-run"), said(capsys, *words)
    assert (rehearsed[0], run[0]) == (2, 2) and "; 0.1 MiB are free there" in rehearsed[1]
    refusals = [printed.partition("what this run will write")[2] for _, printed in (rehearsed, run)]
    assert refusals[0] == refusals[1] and "has 0.1 MiB free; make room, or choose another --out" in refusals[0]


@pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="mounting a small disk needs root on Linux")
def test_a_dry_run_of_extend_asks_the_disk_which_links_take_nothing_of(trained, tmp_path, capsys, monkeypatch) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "none", disk], capture_output=True).returncode:
        pytest.skip("this machine mounts no tmpfs")
    try:
        words = ["extend", str(trained / "a"), "--window", "128", "--out", str(disk / "o")]
        (rehearsed, printed), (run, refused) = said(capsys, *words, "--dry-run"), said(capsys, *words)
        assert (rehearsed, run) == (2, 2) and printed == refused and "its disk has 0.2 MiB free; make room" in printed
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", disk], check=True)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2**40, 0, 2**18))  # as little as there was, for links
    status, printed = said(capsys, *words, "--dry-run")
    assert status == 0 and "as links" in printed


def test_extend_prints_json(trained: Path, tmp_path: Path, capsys) -> None:
    import json

    cli.main(
        [
            "extend",
            str(trained / "a"),
            "--window",
            "256",
            "--method",
            "pi",
            "--out",
            str(tmp_path / "b"),
            "--json",
            "--quiet",
        ]
    )
    told = json.loads(capsys.readouterr().out)
    assert (told["out"], told["original_window"], told["window"]) == (str(tmp_path / "b"), 64, 256)
    assert told["scaling"] == {"method": "linear", "factor": 4.0}


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


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_names_values_and_not_python_types(command: str, capsys) -> None:
    """`{None}|INT` and `(default: None)` are no words of a person who types."""
    with pytest.raises(SystemExit):
        parse([*command.split(), "--help"])
    assert "None" not in capsys.readouterr().out
