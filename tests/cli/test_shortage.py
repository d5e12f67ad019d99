"""Too little memory is said before libraries that end raw in it, and where it runs out by options that the command has."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from dataclasses import MISSING, fields, replace
from types import SimpleNamespace

import pytest

from ropewalk import cli, errors, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.cli import shortage
from ropewalk.cli.commands import COMMANDS
from ropewalk.cli.shortage import out_of_memory
from ropewalk.errors import UserError, is_shortage
from ropewalk.model import opens
from ropewalk.model.small import no_copy
from ropewalk.suite import watch
from ropewalk.training import loop, saving

ON_GPU = RuntimeError("CUDA error: out of memory")
ON_HOST = RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to")


@pytest.mark.parametrize(
    ("words", "kibibytes", "least"),
    [
        ("extend hemp --window 4096 --out {out}", 800_000, 1024),  # span for ever in OpenBLAS, deaf to SIGTERM
        ("train hemp --data {data} --window 1024 --batch-size 1 --out {out}", 950_000, 1024),  # ended raw
        ("doctor hemp", 700_000, 1024),
        ("perplexity hemp --data {data}", 60_000, 1024),  # reading the options imports NumPy
        ("evaluate hemp --out {out}", 1_220_000, 1280),  # "OpenBLAS error" in its last stage
        ("plan hemp", 550_000, 1024),  # SystemError in importing torch, which times this machine
        ("theory hemp --window 4096", 150_000, 256),  # "OpenBLAS error: Memory allocation still failed"
    ],
)
def test_a_limit_within_which_the_libraries_do_not_load_is_refused_before(tmp_path, words, kibibytes, least) -> None:
    (tmp_path / "text.txt").write_text("text")
    typed = words.format(out=tmp_path / "out", data=tmp_path / "text.txt").split()
    limit = f'ulimit -v {kibibytes}; exec timeout -k 5 60 "$0" -m ropewalk "$@"'
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["bash", "-c", limit, sys.executable, *typed], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    assert re.search(
        rf"ropewalk {typed[0]} needs {least} MiB of addresses to begin, and ulimit -v leaves \d+; raise", done.stderr
    )
    assert not (tmp_path / "out").exists() and len(done.stderr.splitlines()) == 1


def test_arrow_leaves_a_limited_process_the_addresses_that_torch_needs(tmp_path) -> None:
    item = '{"question": "is it", "passage": "words", "answer": true, "label": 1}'
    (tmp_path / "boolq.jsonl").write_text(item)
    limit = 'ulimit -v 1500000; exec timeout -k 5 200 "$0" -m ropewalk "$@"'
    typed = ["benchmarks", "hemp", "--tasks", "boolq", "--data", str(tmp_path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(["bash", "-c", limit, sys.executable, *typed], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr


def defaults(name: str) -> SimpleNamespace:
    """A command's options as nobody typed them."""
    each = [field for part in COMMANDS[name].classes for field in fields(part)]
    return SimpleNamespace(**{field.name: None if field.default is MISSING else field.default for field in each})


@pytest.mark.parametrize("error", [ON_GPU, ON_HOST, MemoryError()])
@pytest.mark.parametrize("name", COMMANDS)
def test_the_sentence_names_options_that_the_command_has(name: str, error: Exception) -> None:
    options = defaults(name)
    sentence = out_of_memory(error, options)
    named = re.findall(r"--([a-z-]+)", sentence)
    assert all(hasattr(options, option.replace("-", "_")) for option in named), sentence
    assert ("--device cpu" in sentence) == (error is ON_GPU and hasattr(options, "device"))


@pytest.mark.parametrize(
    ("name", "error", "ways"),
    [
        ("perplexity", ON_HOST, "what takes less: smaller --windows, or a smaller --batch-tokens, or --dtype bfloat16"),
        (
            "perplexity",
            ON_GPU,
            "what takes less: smaller --windows, or a smaller --batch-tokens, or --device cpu",
        ),  # in bfloat16 already
        ("train", ON_HOST, "what takes less: --micro-batch 1, or --mode lora"),
        ("plan", ON_HOST, "what takes less: a smaller model"),
        ("merge", ON_HOST, "what takes less: a smaller model"),
    ],
)
def test_ways_out_by_command(name: str, error: Exception, ways: str) -> None:
    assert out_of_memory(error, defaults(name)).endswith(f"); {ways}")


def test_where_a_library_does_not_load_nothing_smaller_is_advised_and_nothing_is_imported(monkeypatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (2**30, 2**30))
    monkeypatch.setitem(sys.modules, "psutil", None)  # for which there may be no memory
    unmapped = ImportError("_highspy.so: failed to map segment from shared object")
    assert out_of_memory(unmapped, defaults("perplexity")).endswith("shared object); raise the limit (ulimit -v)")
    assert "what takes less: smaller --windows" in out_of_memory(MemoryError(), defaults("perplexity"))


def test_a_plan_of_named_chips_needs_no_torch_and_one_of_this_machine_does() -> None:
    opens, options = COMMANDS["plan"].opens, COMMANDS["plan"].settings
    assert opens(options("hemp")) and not opens(options("hemp", gpus="1xH100"))
    assert not opens(options("hemp", cpu_memory="8GB")) and not opens(options("hemp", gpu_memory="24GB"))


@pytest.mark.parametrize("batch", [dict(micro_batch=1), dict(batch_size=1)])
def test_one_window_at_a_time_is_not_advised_where_it_is_so(batch) -> None:
    options = SimpleNamespace(**vars(defaults("train")) | batch)
    assert out_of_memory(ON_HOST, options).endswith("what takes less: --mode lora")


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        (loop.Checkpoint, "open", r"its model in \S+/out is whole; only reading it back.* took more"),
        (watch, "card", r"its model in \S+/out is whole; its card alone, which `ropewalk card \S+/out` writes, took"),
        (loop, "write_final", r"writing the model of step 1 takes more .*; make more room; no checkpoint was saved"),
        (saving, "write_checkpoint", r"writing the checkpoint of step 1 takes more .*; no checkpoint was saved"),
    ],
)
def test_a_shortage_after_the_last_step_says_what_failed_and_what_is_whole(
    tmp_path, monkeypatch, capsys, place, name, says
) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    base, text, out = testing.tiny_directory(tmp_path / "base", window=64), tmp_path / "text.txt", tmp_path / "out"
    text.write_text(testing.prose(2000, 0))
    real, failed = getattr(place, name), []

    def short(*parts, **named):
        if name == "open" and not (out / "config.json").is_file():  # before the model is there
            return real(*parts, **named)
        failed.append(name)
        raise MemoryError("Cannot allocate memory (os error 12)")

    monkeypatch.setattr(place, name, short)
    words = f"train {base} --data {text} --window 96 --batch-size 1 --steps 1 --watch perplexity --watch-data {text}"
    saves = ["--save-every", "1"] * (place is saving)
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--out", str(out), *saves])
    said = capsys.readouterr().err.splitlines()[-1]
    assert ended.value.code == 2 and failed and re.search(says, said) and "--micro-batch" not in said, said
    monkeypatch.undo()
    if "whole" in said:
        assert Checkpoint.open(out).info.steps == 1 and Checkpoint.open(out).parameters > 0


def test_a_command_that_runs_out_of_memory_ends_with_that_sentence(tmp_path, monkeypatch, capsys) -> None:
    def fail(options) -> None:
        raise MemoryError

    monkeypatch.setitem(cli.COMMANDS, "extend", replace(COMMANDS["extend"], run=fail))
    with pytest.raises(SystemExit) as ended:
        cli.main(["extend", "hemp", "--window", "4096", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().err
    assert ended.value.code == 2 and "takes more memory than there is (MemoryError); " in said and "--" not in said


def test_a_limit_is_named_where_there_is_one(monkeypatch) -> None:
    monkeypatch.setattr(shortage, "addresses_are_limited", lambda: True)
    assert out_of_memory(MemoryError(), defaults("merge")).endswith("(MemoryError); raise the limit (ulimit -v)")
    assert out_of_memory(MemoryError(), defaults("train")).endswith("--mode lora; or raise the limit (ulimit -v)")
    assert "ulimit" not in out_of_memory(ON_GPU, defaults("train"))


def test_a_library_that_is_not_mapped_is_a_shortage_under_a_limit_alone(monkeypatch) -> None:
    error = ImportError("libtorch_cpu.so: failed to map segment from shared object")
    for limit in (2**29, resource.RLIM_INFINITY):
        monkeypatch.setattr(errors.resource, "getrlimit", lambda _, limit=limit: (limit, limit))
        assert is_shortage(error) == (limit == 2**29)


def test_a_shortage_is_no_fault_of_a_models() -> None:
    for blame in (lambda error: no_copy("llama", error), opens._why):
        with pytest.raises(MemoryError):
            blame(MemoryError())
        assert isinstance(no_copy("llama", ValueError("odd")), UserError)
