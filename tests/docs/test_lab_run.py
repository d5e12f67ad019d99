"""The lab's grids are grids that `ablate` takes: levels, learning rates, GPUs, and the commands that its README names."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
import results
import rows
import run

from command_lines import parsed
from lab_page import LAB
from ropewalk.errors import UserError


def test_a_rate_is_chosen_on_validation_alone(tmp_path):
    model = {
        "name": "m",
        "family": "llama",
        "original_window": 256,
        "window": 512,
        "scaling": {"method": "linear", "factor": 2.0},
    }
    for rate, validation, test in ((1e-4, 9.0, 5.0), (3e-4, 8.0, 6.0)):
        asked = {"name": f"{tmp_path.name}/{rate}", "method": "linear", "tokens": 1024, "seed": 0, "learning_rate": rate, "test": "t", "validation": "v"}  # fmt: skip
        head = {"kind": "run", "schema": 1, "id": "r", "command": "c", "started": "", "model": model, "seed": 0, "device": "cpu",
                "dtype": "float32", "versions": {}, "settings": {"row": asked}}  # fmt: skip
        figures = {"kind": "perplexity", "run": "r", "window": 256, "stride": 128, "low": 1.0, "high": 99.0, "documents": 1,
                   "skipped": 0, "tokens": 9, "bos": False}  # fmt: skip
        measured = [figures | {"perplexity": value, "data": data} for value, data in ((validation, "v"), (test, "t"))]
        (tmp_path / f"{rate}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in (head, *measured)))
    assert rows.chosen_rates(tmp_path) == {"linear": 3e-4}
    (tmp_path / "0.0003.jsonl").unlink()
    assert rows.chosen_rates(tmp_path) == {}  # of one rate none was chosen


def test_rates_that_a_new_directory_cannot_choose_are_those_of_the_committed_rows_and_this_is_said(tmp_path, capsys):
    """The rates of docs/results.md: of Position Interpolation 1e-3 was best on both models, of YaRN 3e-4."""

    def parts(model: str) -> dict[str, float]:
        grid = {
            "out": tmp_path / "c" / model,
            "from": "a",
            "methods": ["none", "linear", "yarn"],
            "learning_rates": "chosen",
        }
        found = run.with_chosen_rates(grid, tmp_path)
        return {part["methods"][-1]: part["learning_rates"][0] for part in found if part["methods"] != ["none"]}

    for model in ("lab-2k", "smollm2-135m"):
        assert parts(model) == {"linear": 1e-3, "yarn": 3e-4}
        said = capsys.readouterr().out
        assert f"{tmp_path}/a/{model} has no two learning rates of linear and yarn" in said
        assert f"lab/records/a/{model} are taken" in said
    with pytest.raises(UserError, match="no two of linear and yarn; run the levels a, rates and other-rates first"):
        parts("gemma-3-270m")


def test_a_level_that_does_not_exist_is_refused_and_those_that_do_are_named(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["run.py", "--dry-run", "--level", "nosuch"])
    with pytest.raises(SystemExit) as refused:
        run.main()
    said = capsys.readouterr().err
    assert refused.value.code == 2 and "nosuch" in said and "read-mixed" in said and "cpu" in said


def test_make_hands_level_records_and_models_on_with_the_blanks_in_their_names():
    def made(*asked: str) -> list[list[str]]:
        run = subprocess.run(
            ["make", "-n", "--no-print-directory", *asked], cwd=LAB.parent, capture_output=True, text=True, check=True
        )
        return [shlex.split(line) for line in run.stdout.splitlines() if not line.startswith("#")]

    *_, test, lab = made("lab", "LEVEL=a rates", "RECORDS=over there", "MODELS=my models")
    assert lab[-5:] == ["--level", "a", "rates", "--records", "over there"]
    assert test[:3] == ["test", "-d", "my models/smollm2-135m"] and "my models;" in test
    assert made("results", "RECORDS=over there")[-1][-2:] == ["--records", "over there"]
    assert made("results")[-1][-1] == "lab/results.py"


def test_the_commands_that_cannot_be_pasted_are_as_many_as_the_readme_says():
    commands = {path: json.loads(path.open(encoding="utf-8").readline())["command"] for path in results.RECORDS.glob("*/*/*.jsonl")}  # fmt: skip
    cut = [path for path, command in commands.items() if re.search(r" and \d+ more", command)]
    lacking = [path for path, command in commands.items() if "--out" not in command.split()]
    assert {path.parent.name for path in cut} == {"hemp"} and set(cut) <= set(lacking)
    said = (LAB / "README.md").read_text(encoding="utf-8")
    assert f"{len(lacking)} were made before commands were whole" in said
    assert f"{len(cut)} of these cannot be pasted" in said
    assert {path.parent.parent.name for path in cut} == {"a", "tuned-half", "tuned-at", "tuned-twice"}


def test_gpus_are_grouped_for_rows_that_several_run_together():
    assert run.groups(["0", "1", "2"], 1) == ["0", "1", "2"]
    assert run.groups(["0", "1", "2", "3", "4"], 2) == ["0,1", "2,3"]
    assert run.groups([""], 2) == [""]  # on a machine without any
    with pytest.raises(SystemExit, match="--together 4 takes as many GPUs, and there are 2"):
        run.groups(["0", "1"], 4)


def test_commands_of_the_readme_are_commands():
    """Of what stands outside the grids: training in steps, summaries, the paper's largest factor and steps."""
    text = (
        (LAB / "README.md").read_text(encoding="utf-8").replace("${method%:*}", "yarn").replace("${method#*:}", "3e-4")
    )
    told = [
        line.partition("ropewalk ")[2] for line in text.splitlines() if re.match(r" {4,}(ropewalk|torchrun) ", line)
    ]
    commands = [parsed(shlex.split(line)) for line in told if "$(" not in line and "…" not in line]
    assert [each["command"] for each in commands] == ["train", "train", "summarize", "ablate", "ablate"]
    assert commands[0]["window"] * 64 * 10 == 5 * 2**19  # half of the 5 M
    assert (commands[3]["factors"], max(commands[4]["tokens"])) == ([32.0], 1000 * 64 * 8192)
