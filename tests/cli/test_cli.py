"""The command line as a user types it: exit codes, sentences, speed, and a help page that cannot drift."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

import made_up
import ropewalk
from ropewalk import cli, testing
from ropewalk.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "ropewalk", *arguments], capture_output=True, text=True, **options)


def typed(capsys: pytest.CaptureFixture[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """`run` in this process, where nothing has to be imported again."""
    status = 0
    try:
        cli.main(list(arguments))
    except SystemExit as end:
        status = int(end.code or 0)
    said = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, status, said.out, said.err)


def test_help_needs_no_torch() -> None:
    code = (
        "import sys\nfrom ropewalk import cli\n"
        "try:\n    cli.main(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'transformers', 'matplotlib', 'datasets', 'lm_eval'} & set(sys.modules)\n"
        "sys.exit(f'--help imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main([command, "--help"])
    assert stopped.value.code == 0
    assert command in capsys.readouterr().out


def test_no_message_sends_a_user_to_a_command_that_is_not_there() -> None:
    named = {
        (path.name, command)
        for path in (ROOT / "src").rglob("*.py")
        for command in re.findall(r"`ropewalk ((?:data )?[a-z]+)", path.read_text(encoding="utf-8"))
    }
    assert len(named) > 5
    assert {command for _, command in named} <= set(cli.COMMANDS), named


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        ("extend m --window 32k --out o", "window", 32768),
        ("train m --data a,b --window 32_768 --out o", "window", 32768),
        ("train m --data a,b --window 1M --out o", "data", ["a,b"]),  # a file's name may have a comma
        ("plan 7b --window 128K", "window", 131072),
        ("perplexity m --data a --stride 1k", "stride", 1024),
        ("perplexity m --data a --windows 2048 4096", "windows", [2048, 4096]),
        ("perplexity m --windows 2k,4k, 8_192 --data a", "windows", [2048, 4096, 8192]),
        ("perplexity m --data a --windows=2k,4k", "windows", [2048, 4096]),
        ("benchmarks m --tasks boolq,piqa", "tasks", ["boolq", "piqa"]),
        ("data score a b --model m --window 4k", "data", ["a", "b"]),
    ],
)
def test_windows_and_lists_are_taken_as_people_write_them(line: str, field: str, value: object) -> None:
    _, options = cli.parse(line.split())
    assert getattr(options, field) == value


@pytest.mark.parametrize("word", ["32q", "3.5k", "k", "", "1__0", "-1k", "0"])
def test_what_is_no_number_of_tokens_is_refused(word: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["plan", "7b", "--gpus", "H100", "--window", word])
    assert left.value.code == 2
    said = capsys.readouterr()
    assert "window" in said.err + said.out


def test_extend_writes_a_directory_and_says_what_it_did(tmp_path: Path, capsys) -> None:
    testing.tiny_directory(tmp_path / "a", window=64)
    done = typed(
        capsys, "extend", str(tmp_path / "a"), "--window", "256", "--method", "AUTO", "--out", str(tmp_path / "b")
    )
    assert done.returncode == 0, done.stderr
    assert "window 64 → 256 tokens, yarn factor 4" in done.stdout
    assert (
        "yarn, which auto takes here (on smollm2-135m at factor 4, of those that find most of the passkeys, it loses least in the old window; the paper's Position Interpolation is --method linear): measured nearest on hemp"
        in done.stdout
    )
    asked = [f"ropewalk chat {tmp_path / name} --question" for name in "ab"]
    assert (
        f"ask both models a few of your own questions, now and after training, by {asked[0]} … and {asked[1]}"
        in done.stdout
    )
    # R7: what vLLM makes of the window depends on the method, so the hint is no option of its but the export for it.
    assert "--max-model-len" not in done.stdout and f"ropewalk export {tmp_path / 'b'} --for" in done.stdout


def test_the_line_that_a_search_prints_can_be_typed(tmp_path: Path, capsys) -> None:
    scaled = {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}
    model = str(testing.tiny_directory(tmp_path / "my model", rope_parameters=scaled))
    (tmp_path / "text.txt").write_text(testing.prose(120))
    few = ["--documents", "1", "--population", "3", "--generations", "1", "--current-window", "64"]
    out = ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "found.json")]
    searched = typed(capsys, "search", model, "--window", "128", *out, *few)
    line = searched.stdout.splitlines()[-1].removeprefix("now: ropewalk ").replace("…", str(tmp_path / "longer"))
    assert "window 16 → 128 tokens, longrope factor 8" in typed(capsys, *shlex.split(line)).stdout


def test_extend_and_theory_say_as_json_what_they_made(tmp_path: Path, capsys) -> None:
    model, out = testing.tiny_directory(tmp_path / "model", window=64), tmp_path / "longer"
    done = typed(capsys, "extend", str(model), "--window", "256", "--method", "ntk", "--out", str(out), "--json")
    made = json.loads(done.stdout)
    assert (made["out"], made["original_window"], made["window"], made["scaling"]["factor"]) == (str(out), 64, 256, 4)
    done = typed(capsys, "theory", str(out), "--out", str(tmp_path / "theory"), "--json")
    told = json.loads(done.stdout)
    assert (told["original_window"], told["window"], told["head_dim"]) == (64, 256, 16)
    lines = (tmp_path / "theory/theory.jsonl").read_text().splitlines()[1:]
    assert told["rows"] == [{k: v for k, v in json.loads(line).items() if k != "run"} for line in lines]


def test_extend_takes_the_rope_theta_of_abf(tmp_path: Path, capsys) -> None:
    testing.tiny_directory(tmp_path / "a", window=64)
    arguments = ["extend", str(tmp_path / "a"), "--window", "256", "--method", "abf", "--out", str(tmp_path / "b")]
    without = typed(capsys, *arguments)
    assert without.returncode == 2 and not (tmp_path / "b").exists()
    assert (
        "abf scaling needs a --rope-theta above the model's own 10000, got none; what was measured, at factor 4, is 50 times that: --rope-theta"
        in without.stderr
    )
    done = typed(capsys, *arguments, "--rope-theta", "5e5")
    assert done.returncode == 0, done.stderr
    assert "window 64 → 256 tokens, abf factor 4" in done.stdout
    assert json.loads((tmp_path / "b/config.json").read_text())["rope_theta"] == 5e5
    assert "until it is trained" in done.stdout
    again = typed(capsys, *arguments[:-1], str(tmp_path / "c"), "--rope-theta", "5e5", "--quiet")
    assert len(again.stdout.splitlines()) == 1 and again.stdout.startswith(str(tmp_path / "c"))


def test_a_model_trained_after_abf_stands_on_the_page_under_its_label(tmp_path: Path, capsys) -> None:
    testing.tiny_directory(tmp_path / "a", window=64)
    (tmp_path / "book.txt").write_text(testing.prose(60, 1), encoding="utf-8")
    text, out = str(tmp_path / "book.txt"), tmp_path / "r.jsonl"
    settings = "--window 128 --method abf --rope-theta 5e5 --steps 1 --batch-size 1 --allow-short"
    cli.main(["train", str(tmp_path / "a"), "--data", text, *settings.split(), "--out", str(tmp_path / "run")])
    cli.main(
        ["perplexity", str(tmp_path / "run"), "--data", text, "--windows", "128", "--stride", "64", "--out", str(out)]
    )
    cli.main(["report", str(out), str(tmp_path / "run/records.jsonl"), "--out", str(tmp_path / "page.html")])
    capsys.readouterr()
    page = made_up.words((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert "ABF ×2, 1 step" in page and "abf, rope_theta 500000.0" in page


def test_perplexity_by_step_measures_each_checkpoint_of_a_run(tmp_path: Path, capsys) -> None:
    from ropewalk import records

    testing.tiny_directory(tmp_path / "a", window=64)
    (tmp_path / "book.txt").write_text(testing.prose(60, 1), encoding="utf-8")
    text, out = str(tmp_path / "book.txt"), tmp_path / "r.jsonl"
    settings = "--window 128 --steps 2 --batch-size 1 --save-every 1 --allow-short"
    cli.main(["train", str(tmp_path / "a"), "--data", text, *settings.split(), "--out", str(tmp_path / "run")])
    capsys.readouterr()
    cli.main(["perplexity", str(tmp_path / "run"), "--by-step", "--data", text, "--stride", "64", "--out", str(out)])
    printed = "".join(capsys.readouterr().out.split())
    assert "step-000000" in printed and "step-000001" in printed
    rows = records.read([out]).of(records.Perplexity)
    assert [(m.run.model.steps, m.row.window) for m in rows] == [(0, 128), (1, 128), (2, 128)]
    # Step 0 is what `extend` makes of the model that the run began from.
    ropewalk.extend(tmp_path / "a", window=128, out=tmp_path / "untrained")
    (untrained,) = ropewalk.perplexity(tmp_path / "untrained", data=text, stride=64)
    assert rows[0].row.perplexity == untrained.perplexity != rows[1].row.perplexity
    shutil.move(tmp_path / "a", tmp_path / "b")
    with pytest.warns(UserWarning, match="step 0 of .*run is left out: there is no directory"):
        cli.main(["perplexity", str(tmp_path / "run"), "--by-step", "--data", text, "--stride", "64"])
    assert "step-000000" not in capsys.readouterr().out


def test_a_users_mistake_is_one_sentence_and_exit_2(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=64)
    done = run("extend", str(tmp_path / "a"), "--window", "32", "--out", str(tmp_path / "b"))
    assert done.returncode == 2
    assert done.stderr == (
        "ropewalk: window 32 is not longer than the model's own 64 (did you mean 32k?); nothing to extend (ask for more than 64 tokens)\n"
    )
    assert not (tmp_path / "b").exists()


def test_what_training_leaves_out_is_said_in_a_sentence_and_its_record_names_the_command(tmp_path: Path) -> None:
    testing.tiny_directory(tmp_path / "a", window=64)
    (tmp_path / "books").mkdir()
    (tmp_path / "books/empty.txt").write_text("")
    (tmp_path / "books/full.txt").write_text(testing.prose(400))
    words = f"train {tmp_path}/a --data {tmp_path}/books --window 96 --steps 1 --batch-size 1 --out {tmp_path}/b"
    done = run(*words.split(), env={**os.environ, "ROPEWALK_CACHE": str(tmp_path / "cache")})
    assert done.returncode == 0, done.stderr
    left_out = next(line for line in done.stderr.splitlines() if "left out" in line)
    assert left_out.startswith(f"ropewalk: 1 file was left out of {tmp_path}/books") and "text.py" not in done.stderr
    assert json.loads((tmp_path / "b/records.jsonl").read_text().splitlines()[0])["command"] == f"ropewalk {words}"


@pytest.mark.parametrize(("rank", "lines"), [("0", 2), ("1", 0)])
def test_of_many_processes_one_says_what_was_trained(rank, lines, monkeypatch, capsys, tmp_path) -> None:
    from ropewalk.suite import watch

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    further = dataclasses.replace(made_up.extended(steps=3), steps_before=2)
    monkeypatch.setattr(watch, "train", lambda *_, **__: further)
    cli.main(["train", "hemp", "--data", str(tmp_path), "--window", "1024", "--out", str(tmp_path / "o")])
    said = capsys.readouterr().out
    assert len(said.splitlines()) == lines
    assert not lines or "factor 4, 3 steps more, on top of 2 steps at this window;" in said


@pytest.mark.parametrize("program", ["/opt/bin/ropewalk", "/opt/lib/python3.12/site-packages/ropewalk/__main__.py"])
def test_a_record_says_the_command_that_a_user_can_type_again(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m ropewalk`, as under torchrun, has the path of a file in place of the program's name."""
    from ropewalk import records

    monkeypatch.setattr(sys, "argv", [program, "passkey", "my model", "--window", "512"])
    run = records.new_run(records.ModelInfo("m", "llama", 256, 256), device="cpu", dtype="float32")
    assert run.command == "ropewalk passkey 'my model' --window 512"


def test_an_interrupt_is_130_without_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from ropewalk.model import extend

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(extend, "extend", interrupted)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["extend", "hemp", "--window", "1024", "--out", "nowhere"])
    assert stopped.value.code == 130
    assert capsys.readouterr().err == "ropewalk: interrupted\n"


def test_what_low_bit_packages_say_of_themselves_is_no_news_to_a_user(monkeypatch, caplog, recwarn) -> None:
    from ropewalk.model import extend

    def says(*_: object, **__: object) -> None:
        for name in ("torchao", "bitsandbytes.backends.cpu.ops", "torch.utils._pytree", "another"):
            logging.getLogger(name).warning("%s lacks a kernel", name)
        logging.getLogger("torchao").error("torchao is broken")
        warnings.warn("OptimState8bit does not implement _stable_hash_for_caching", stacklevel=1)
        raise UserError("that is all")

    monkeypatch.setattr(extend, "extend", says)
    with pytest.raises(SystemExit):
        cli.main(["extend", "hemp", "--window", "1024", "--out", "nowhere"])
    assert caplog.messages == ["another lacks a kernel", "torchao is broken"]
    assert not [warning for warning in recwarn if "hash" in str(warning.message)]


def test_too_little_memory_is_a_sentence_and_another_fault_is_not_hidden(monkeypatch, capsys) -> None:
    import torch

    from ropewalk.model import extend

    faults = [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: 9 bytes."
        ),
        MemoryError(),
        RuntimeError("a bug"),
    ]

    def fails(*_: object, **__: object) -> None:
        raise faults.pop(0)

    monkeypatch.setattr(extend, "extend", fails)
    command = ["extend", "hemp", "--window", "1024", "--out", "nowhere"]
    for said in ("CUDA out of memory. Tried to allocate 2.00 GiB", "can't allocate memory", "MemoryError"):
        with pytest.raises(SystemExit) as stopped:
            cli.main(command)
        stderr = capsys.readouterr().err
        assert stopped.value.code == 2 and stderr.count("\n") == 1
        assert re.search(rf"more memory than there is \(.*{said}.*\); what takes less: a smaller model$", stderr)
    with pytest.raises(RuntimeError, match="a bug"):
        cli.main(command)


def test_the_help_page_is_what_the_commands_say() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs/make_cli.py")
    make_cli = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_cli)
    assert make_cli.PAGE.read_text(encoding="utf-8") == make_cli.page(), "run `make docs`"


@pytest.mark.parametrize("own", [None, "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_a_gpus_memory_is_not_lost_between_blocks_unless_the_user_says_otherwise(own, monkeypatch, capsys) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that it is put back afterwards
        monkeypatch.delenv(name)
    if own:
        monkeypatch.setenv(own, "max_split_size_mb:512")
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    allocator_settings = {os.environ.get(name) for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")}
    assert allocator_settings == {None, "max_split_size_mb:512" if own else "expandable_segments:True"}


def test_torchrun_ends_with_the_sentence_of_a_refusal(tmp_path, monkeypatch, capsys) -> None:
    """As torch itself reads the file and writes the cause of a failure, in place of a link to a page on how to see tracebacks."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    started = int(time.time())
    with pytest.raises(SystemExit) as end:
        cli.main(["train", str(tmp_path / "nowhere"), "--data", str(tmp_path), "--window", "128", "--out", "o"])
    sentence = capsys.readouterr().err.strip()
    failure = ProcessFailure(local_rank=0, pid=1, exitcode=2, error_file=str(tmp_path / "error.json"))
    assert end.value.code == 2 and sentence.startswith("ropewalk: there is no directory ")
    assert str(ChildFailedError("ropewalk", {0: failure})).splitlines()[-2].strip() == f"traceback : {sentence}"
    assert started <= failure.timestamp <= time.time()
