"""Faults that were reported, each a test of the name under which it was: ours of the same kind, and the script that came with it."""

from __future__ import annotations

import json
import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import ropewalk
from conftest import SHARED
from ropewalk import cli, testing
from ropewalk.checkpoint.processes import locked

SCRIPTS = SHARED / "cases/faults"
MEASURE = ("--windows", "64", "--stride", "16")
TRAIN = ("--data", "data", "--window", "128", "--batch-size", "1", "--threads", "1", "--out", "t")
PERPLEXITY = ("perplexity", "base", "--data", "data", *MEASURE)
EXTEND = ("extend", "base", "--window", "128", "--out", "e")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model `base` and texts `data`, and the command runs beside them."""
    testing.tiny_directory(tmp_path / "base", window=64)
    (tmp_path / "data").mkdir()
    for number in range(4):
        (tmp_path / f"data/d{number}.txt").write_text(testing.prose(120, number))
    monkeypatch.chdir(tmp_path)
    return tmp_path


Run = Callable[..., str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """A command line in this process, which must end with `status`; all that it says, on one line."""

    def run(*words: str, status: int = 0) -> str:
        capsys.readouterr()
        try:
            cli.main(list(words))
            ended = 0
        except SystemExit as end:
            ended = end.code or 0
        said = capsys.readouterr()
        assert ended == status, said.err
        return " ".join((said.out + said.err).split())

    return run


def _figure(said: str) -> str:
    return re.search(r"│ 64 │ ([\d.]+) │", said)[1]


def _edited(file: str, **changed: object) -> None:
    Path(file).write_text(json.dumps(json.loads(Path(file).read_text()) | changed))


def empty_data_reads_cwd(place: Path, run: Run) -> None:
    os.chdir("data")
    assert "got ['']" in run("perplexity", "../base", "--data", "", *MEASURE, status=2)


def evaluate_overwrite_cwd(place: Path, run: Run) -> None:
    Path("suite").mkdir()
    os.chdir("suite")
    for name in ("stages.jsonl", "keep.txt"):
        Path(name).write_text("mine\n")
    assert "would be replaced" in run("evaluate", "hemp", "--out", ".", "--overwrite", status=2)
    assert sorted(os.listdir(".")) == ["keep.txt", "stages.jsonl"]


def evaluate_overwrite_deletes_model(place: Path, run: Run) -> None:
    testing.tiny_directory(place / "exp/trained", window=64)
    Path("exp/stages.jsonl").touch()
    Path("exp/thesis.txt").write_text("mine")
    said = run("evaluate", "exp/trained", "--data", "data", "--out", "exp", "--overwrite", status=2)
    assert "and with it exp/trained" in said and Path("exp/thesis.txt").exists()
    assert Path("exp/trained/model.safetensors").exists()


def extend_shards_in_subdirectory(place: Path, run: Run) -> None:
    Path("base/sub").mkdir()
    Path("base/model.safetensors").rename("base/sub/w.safetensors")
    with safe_open("base/sub/w.safetensors", "pt") as weights:
        index = {"metadata": {}, "weight_map": dict.fromkeys(weights.keys(), "sub/w.safetensors")}
    Path("base/model.safetensors.index.json").write_text(json.dumps(index))
    before = float(_figure(run(*PERPLEXITY)))
    run(*EXTEND)
    # Positions between those of the base move it in the fifth digit, weights made up at random in the second.
    assert abs(float(_figure(run("perplexity", "e", *PERPLEXITY[2:]))) - before) < 0.01


def extend_unknown_family_traceback(place: Path, run: Run) -> None:
    _edited("base/config.json", model_type="llama9")
    assert "llama9" in run(*EXTEND, status=2) and not Path("e").exists()


def full_disk_or_readonly_records(place: Path, run: Run) -> None:
    assert "a record file is a plain file" in run(*PERPLEXITY, "--out", "/dev/full", status=2)
    Path("m").mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "m"], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        assert "file system is read-only" in run(*PERPLEXITY, "--out", "m/r.jsonl", status=2)
        assert "/nope does not exist" in run("report", "/nope", "--out", "m/p.html", status=2)
    finally:
        subprocess.run(["umount", "m"], check=True)


def numpy_ints(place: Path, run: Run) -> None:
    assert ropewalk.extend("base", window=np.int64(128), out="e").window == 128
    rows = ropewalk.perplexity("base", data=["data"], windows=np.array([64]), stride=16, out="r.jsonl")
    assert [row.window for row in rows] == [64]


def overwrite_deletes_file_or_project(place: Path, run: Run) -> None:
    Path("notes.txt").write_text("mine\n")
    Path("proj").mkdir()
    Path("proj/config.json").write_text("{}")
    Path("proj/thesis.tex").write_text("mine\n")
    for out, said in (("notes.txt", "is a file"), ("proj", "has no .ropewalk.json")):
        assert said in run(*EXTEND[:-1], out, "--overwrite", status=2)
    assert Path("notes.txt").read_text() == Path("proj/thesis.tex").read_text() == "mine\n"


def records_u2028(place: Path, run: Run) -> None:
    Path("d.jsonl").write_text(json.dumps({"title": "A\u2028B", "text": testing.prose(120)}) + "\n")
    run("perplexity", "base", "--data", "d.jsonl", *MEASURE, "--out", "r.jsonl")
    run("report", "r.jsonl", "--out", "r.html")
    assert "265." in Path("r.html").read_text()


def safetensors_error_traceback(place: Path, run: Run) -> None:
    raw = Path("base/model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    next(entry for name, entry in header.items() if name != "__metadata__")["dtype"] = "F17"
    written = json.dumps(header).encode()
    Path("base/model.safetensors").write_bytes(struct.pack("<Q", len(written)) + written + raw[8 + length :])
    for command in (PERPLEXITY, EXTEND):
        assert "safetensors cannot read base/model.safetensors" in run(*command, status=2)


def same_name_other_data_paired(place: Path, run: Run) -> None:
    for folder in "AB":
        Path(folder, "books").mkdir(parents=True)
        texts = [testing.prose(150, number + 9 * (folder == "B")) for number in range(4)]
        Path(folder, "books/test.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    run(*EXTEND)
    for model, folder in (("base", "A"), ("e", "B")):
        data = ("--data", f"{folder}/books/test.jsonl", "--max-tokens", "500", "--out", "r.jsonl")
        run("perplexity", model, *data, *MEASURE)
    run("report", "r.jsonl", "--out", "r.html")
    page = Path("r.html").read_text()
    assert "paired over" not in page and "same documents" in page


def seed_negative_and_nan_weights(place: Path, run: Run) -> None:
    assert "seed is a whole number of at least 0" in run(*PERPLEXITY, "--seed", "-1", status=2)
    weights = load_file("base/model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"].fill_(float("nan"))
    save_file(weights, "base/model.safetensors", metadata={"format": "pt"})
    assert "1 tensor with NaN or infinity" in run("train", "base", *TRAIN, "--steps", "1", status=2)
    assert not Path("t").exists()


def stale_record_after_config_change(place: Path, run: Run) -> None:
    recorded = (*PERPLEXITY, "--out", "r.jsonl")
    first = _figure(run(*recorded))
    _edited("base/config.json", rms_norm_eps=0.5, hidden_act="gelu")
    assert first != _figure(run(*recorded)) == _figure(run(*PERPLEXITY))


def tokenizer_id_beyond_vocab(place: Path, run: Run) -> None:
    tokenizer = Path("base/tokenizer.json")
    changed = re.sub(r'("id": |"<s>": |"ids": \[\s*)256\b', r"\g<1>1000", tokenizer.read_text())
    tokenizer.write_text(changed)
    assert "token 1000 ('<s>'), the model's embedding has 258 rows" in run(*PERPLEXITY, status=2)


def trust_remote_code_flag(place: Path, run: Run) -> None:
    _edited("base/config.json", model_type="my", auto_map={"AutoConfig": "my.C", "AutoModelForCausalLM": "my.M"})
    Path("base/my.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        'class C(LlamaConfig):\n    model_type = "my"\nclass M(LlamaForCausalLM):\n    config_class = C\n'
    )
    run(*EXTEND, "--trust-remote-code")
    run("train", "base", *TRAIN, "--steps", "2", "--save-every", "1", "--trust-remote-code")
    for made in ("e", "t", "t/checkpoints/step-000001", "t/checkpoints/step-000002"):
        assert Path(made, "my.py").exists() and Path(made, "model.safetensors").exists()


def two_trainings_one_out(place: Path, run: Run) -> None:
    Path("t").mkdir()
    with locked(Path("t")):
        said = run("train", "base", *TRAIN, "--steps", "1", status=2)
    assert f"is being written by process {os.getpid()} on " in said
    run("train", "base", *TRAIN, "--steps", "1")


def unexpected_tensors_silent(place: Path, run: Run) -> None:
    weights = load_file("base/model.safetensors") | {"model.layers.0.self_attn.q_proj.bias": torch.full((64,), 3.0)}
    save_file(weights, "base/model.safetensors", metadata={"format": "pt"})
    assert "has no place for 1 tensor of its files (model.layers.0.self_attn.q_proj.bias)" in run(*PERPLEXITY, status=2)


OURS = [
    empty_data_reads_cwd, evaluate_overwrite_cwd, evaluate_overwrite_deletes_model, extend_shards_in_subdirectory, extend_unknown_family_traceback,
    full_disk_or_readonly_records, numpy_ints, overwrite_deletes_file_or_project, records_u2028, safetensors_error_traceback,
    same_name_other_data_paired, seed_negative_and_nan_weights, stale_record_after_config_change, tokenizer_id_beyond_vocab, trust_remote_code_flag,
    two_trainings_one_out, unexpected_tensors_silent,
]  # fmt: skip
NAMES = [each.__name__.replace("_", "-") for each in OURS]


@pytest.mark.parametrize("fault", OURS, ids=NAMES)
def test_a_reported_fault_is_mended(fault: Callable[[Path, Run], None], place: Path, run: Run) -> None:
    fault(place, run)


#: What each script must print, and what it must not; a traceback nowhere.
PRINTED: dict[str, tuple[str, str | None]] = {
    "empty-data-reads-cwd": (r"got \[''\]", "│ +64"),
    "evaluate-overwrite-cwd": ("would be replaced(.|\n)*keep.txt(.|\n)*stages.jsonl", None),
    "evaluate-overwrite-deletes-model": ("rc=2\nexp/thesis.txt(.|\n)*model.safetensors", "cannot access"),
    "extend-shards-in-subdirectory": (r"265\.47(.|\n)*265\.47", "newly initialized"),
    "extend-unknown-family-traceback": ("^0$", None),
    "full-disk-or-readonly-records": ("is a plain file(.|\n)*read-only(.|\n)*/nope does not exist", None),
    "numpy-ints": (r"window=128(.|\n)*Perplexity\(window=64", "Error"),
    "overwrite-deletes-file-or-project": (
        "is a file(.|\n)*ASCII text(.|\n)*ropewalk.json(.|\n)*proj/thesis.tex",
        "cannot access",
    ),
    "records-u2028": ("ppl rc=0(.|\n)*report rc=0", None),
    "safetensors-error-traceback": ("cannot read base(.|\n)*cannot read base", None),
    "same-name-other-data-paired": ("^[1-9][0-9]*$", "paired over"),
    "seed-negative-and-nan-weights": ("seed is a whole number(.|\n)*NaN or infinity", None),
    "stale-record-after-config-change": (r"265\.(.|\n)*257\.(.|\n)*257\.", None),
    "tokenizer-id-beyond-vocab": ("token 1000 .*has 258 rows", None),
    "trust-remote-code-flag": ("model.safetensors(.|\n)*my.py(.|\n)*step-000002\nstep-000004", None),
    "two-trainings-one-out": ("now: ropewalk perplexity(.|\n)*being written by|being written by(.|\n)*now:", None),
    "unexpected-tensors-silent": ("265(.|\n)*has no place for 1 tensor", "│(.|\n)*│ +64(.|\n)*│ +64"),
}


THERE: list[object] = sorted(path.stem for path in SCRIPTS.glob("*.sh") if path.stem != "mk")
THERE = THERE or [pytest.param("", marks=pytest.mark.skip(reason=f"no scripts at {SCRIPTS}"))]


@pytest.mark.parametrize("name", THERE)
def test_a_reported_fault_has_a_test_of_its_name(name: str) -> None:
    assert name in NAMES and name in PRINTED


@pytest.mark.slow  # each command a process of its own, which imports torch
@pytest.mark.parametrize("name", THERE)
def test_the_script_of_a_reported_fault_ends_well(name: str, tmp_path: Path) -> None:
    command = tmp_path / "ropewalk"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ropewalk "$@"\n')
    command.chmod(0o755)
    environment = {**os.environ, "PY": sys.executable, "RW": str(command), "TMPDIR": str(tmp_path)}
    bash = ["bash", SCRIPTS / f"{name}.sh"]
    said = subprocess.run(bash, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    needed, forbidden = PRINTED[name]
    assert re.search(needed, said, re.MULTILINE) and "Traceback" not in said, said
    assert forbidden is None or not re.search(forbidden, said), said
