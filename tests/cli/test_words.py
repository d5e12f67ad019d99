"""What a person types: `--version`, `help`, words that are nearly right, `--config`, and slips that must not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import ropewalk
from command_lines import said
from ropewalk import cli, testing
from ropewalk.checkpoint.steps import Unfinished
from ropewalk.cli.commands import COMMANDS
from ropewalk.cli.options import options_of
from ropewalk.cli.words import parse
from ropewalk.errors import UserError
from ropewalk.settings import other_names, run_file


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


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_names_values_and_not_python_types(command: str, capsys) -> None:
    """`{None}|INT` and `(default: None)` are no words of a person who types."""
    with pytest.raises(SystemExit):
        parse([*command.split(), "--help"])
    assert "None" not in capsys.readouterr().out
