"""The processes of one torchrun run the rows of an ablation together: as one process would, and none waits for one that failed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import ablating_ranks
from ropewalk import testing
from ropewalk.checkpoint.processes import locked
from ropewalk.records import ContextGain, PasskeySummary, Perplexity, Step, read

LAUNCH = [
    sys.executable,
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc-per-node",
    "2",
    ablating_ranks.__file__,
]
ROWS = ["none", "linear-x2-0", "longrope-x2-0", "linear-x2-1k-1e-3-s0", "longrope-x2-1k-1e-3-s0"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """The rows by this process in `one`, by two in `two`; what else two do, done, while this process holds a row of `held`."""
    place = tmp_path_factory.mktemp("together")
    testing.tiny_directory(place / "model", window=64)
    (place / "test").mkdir()
    for number in range(3):
        (place / f"test/{number}.txt").write_text(testing.prose(80, number), encoding="utf-8")
    (place / "train.txt").write_text(testing.prose(600, 7), encoding="utf-8")
    (place / "validation.txt").write_text(testing.prose(90, 8), encoding="utf-8")
    ablating_ranks.rows(place, "one")
    (place / "held/.work/none").mkdir(parents=True)
    with locked(place / "held/.work/none"):
        done = subprocess.run([*LAUNCH, place], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return place


@pytest.fixture(scope="module")
def said(place) -> dict:
    """What became of each row, as the first process says; the second says the same."""
    first, second = json.loads((place / "said.json").read_text()).values()
    assert first == second
    return first


def figures(path: Path) -> dict[str, list[float]]:
    """What a row is held against."""
    row = read([path])
    return {
        "loss": [m.row.loss for m in row.of(Step)],
        "perplexity": [m.row.perplexity for m in row.of(Perplexity)],
        "gain": [m.row.gain for m in row.of(ContextGain)],
        "passkey": [m.row.accuracy for m in row.of(PasskeySummary)],
    }


def header(path: Path) -> dict:
    return json.loads(path.read_text().split("\n", 1)[0])


@pytest.mark.parametrize("name", ROWS)
def test_two_processes_make_the_row_that_one_makes(place, said, name):
    assert [(each["name"], each["reason"]) for each in said["rows"]] == [(row, "") for row in ROWS]
    one, two = (figures(place / by / f"{name}.jsonl") for by in ("one", "two"))
    assert len(one["perplexity"]) == (5 if name.endswith("s0") else 3) and len(one["loss"]) == (
        2 if name.endswith("s0") else 0
    )
    if name.endswith("s0"):
        # Gradients summed in another order; as in test_train_distributed.py.
        assert two.pop("gain") == pytest.approx(one.pop("gain"), abs=1e-5)  # a difference of such figures
        assert all(two[kind] == pytest.approx(one[kind], rel=1e-5) for kind in one)
    else:
        assert one == two
    alone, together = (header(place / by / f"{name}.jsonl") for by in ("one", "two"))
    assert together["command"] == alone["command"].replace("/one", "/two")
    assert together["settings"]["row"].pop("processes") == 2
    different = {key for key, value in together["settings"]["row"].items() if alone["settings"]["row"][key] != value}
    assert different <= {"seconds"}


def test_rows_are_written_once_and_nothing_is_left_of_their_making(place, said):
    assert sorted(path.name for path in (place / "two").glob("*.jsonl")) == sorted(f"{row}.jsonl" for row in ROWS)
    assert [each["seconds"] for each in said["again"]] == [0.0] * len(ROWS)
    assert not any((place / "two/.work" / row).exists() for row in ROWS)


def test_a_row_that_another_group_holds_is_left_to_it(place, said):
    reasons = {each["name"]: each["reason"] for each in said["held"]}
    assert reasons == {"none": "another process runs it", "linear-x2-0": "", "longrope-x2-0": ""}


def test_a_model_that_is_measured_in_shards_has_the_weights_of_each_row(place, said):
    assert not any(each["reason"] for each in said["sharded"])
    for name in ("none", "linear-x2-0", "linear-x2-1k-1e-3-s0"):  # the base again after a trained row is another test's
        assert figures(place / "sharded" / f"{name}.jsonl") == figures(place / "two" / f"{name}.jsonl")


def test_what_one_process_alone_cannot_measure_is_left_out_by_all(place, said):
    row = read([place / "failing/none.jsonl"])
    assert header(place / "failing/none.jsonl")["settings"]["row"]["left_out"] == {
        "passkey at 400": "one rank cannot read this"
    }
    assert row.of(Perplexity) and row.of(ContextGain) and not row.of(PasskeySummary)


def test_a_row_whose_training_one_process_alone_cannot_record_is_left_out_by_all(place, said):
    """The first one writes the log, while the second is on its way to the next step."""
    reasons = {each["name"]: each["reason"] for each in said["unlogged"]}
    assert reasons == {"linear-x2-0": "", "linear-x2-1k-1e-3-s0": "one rank cannot read this"}
    assert not (place / "unlogged/linear-x2-1k-1e-3-s0.jsonl").exists()


def test_a_row_that_could_not_be_written_goes_on_from_what_two_have_trained_and_measured(place, said):
    assert said["unwritten"][0]["reason"] == "one rank cannot read this" and said["written"][0]["reason"] == ""
    name = "linear-x2-1k-1e-3-s0"
    assert figures(place / f"unwritten/{name}.jsonl") == figures(place / f"two/{name}.jsonl")
    assert not (place / "unwritten/.work" / name).exists()


def test_a_stage_that_one_process_alone_cannot_do_is_left_out_by_all_and_the_next_are_run(said):
    reasons = [each["reason"] for each in said["stages"]]
    assert reasons == [
        "one rank cannot read this",
        "",
        "not enough memory (CUDA out of memory. Tried to allocate 1 GiB.)",
        "",
    ]


def test_a_step_that_is_not_divided_is_refused_by_its_row(said):
    assert "3 windows of 128 tokens are not divided among 2; change --step-tokens" in said["uneven"][0]["reason"]


def test_a_process_that_runs_out_of_memory_in_training_ends_the_others_wait(place):
    done = subprocess.run([*LAUNCH, place, "short of memory"], capture_output=True, text=True, timeout=120)
    assert done.returncode != 0 and "step 1 takes more memory than there is" in done.stderr
    assert not list((place / "short").glob("*.jsonl"))
