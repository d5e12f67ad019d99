"""Whether a row of `ablate` is all there. The committed rows, made by many versions, are; what is cut off one of them is missed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ropewalk.records import LeftOut, read
from ropewalk.records.whole import missing

LAB = Path(__file__).resolve().parents[2] / "lab/records"


def lacking(path: Path) -> set[str]:
    records = read([path])
    assert records.left_out == LeftOut()
    return set(missing(records.runs.values(), records.measurements).values())


def test_every_committed_row_is_whole():
    paths = sorted(LAB.rglob("*.jsonl"))
    assert len(paths) > 200 and not [path for path in paths if lacking(path)]


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        ("perplexity", "validation at 32768"),
        ("context_gain", "gain"),
        ("passkey_summary", "passkey at 32768"),
        ("retrieval", "retrieval at 32768"),
        ("attention", "attention"),
        ("benchmark", "benchmarks"),
    ],
)
def test_what_was_asked_and_is_not_there_is_named(tmp_path, kind, lacks):
    """Of a row of before headers said how many rows there are: the last of a kind is gone, of layers and tasks, whose number is a model's and a user's, all are."""
    lines = (LAB / "c/smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl").read_text().splitlines()
    own = [n for n, line in enumerate(lines) if json.loads(line)["kind"] == kind]
    gone = own if kind in ("attention", "benchmark") else own[-1:]
    (tmp_path / "row.jsonl").write_text("\n".join(line for n, line in enumerate(lines) if n not in gone) + "\n")
    assert lacking(tmp_path / "row.jsonl") == {f"lacks {lacks}"}


def test_a_step_of_training_that_is_not_there_is_missed(tmp_path):
    """Of a row of before headers said how many rows there are."""
    lines = (LAB / "c/smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl").read_text().splitlines()
    own = [n for n, line in enumerate(lines) if '"kind":"step"' in line]
    for gone in (own[:1], own[-1:], own):
        (tmp_path / "row.jsonl").write_text("\n".join(line for n, line in enumerate(lines) if n not in gone) + "\n")
        assert lacking(tmp_path / "row.jsonl") == {f"has {len(own) - len(gone)} of the 40 steps of its training"}


def test_what_could_not_be_measured_is_not_missed(tmp_path):
    lines = (LAB / "a/hemp/none.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] != "context_gain"]
    (tmp_path / "row.jsonl").write_text("\n".join(kept))
    assert lacking(tmp_path / "row.jsonl") == {"lacks gain"}
    (tmp_path / "row.jsonl").write_text("\n".join(kept).replace('"left_out":{', '"left_out":{"gain":"too short",'))
    assert not lacking(tmp_path / "row.jsonl")


def test_rows_of_unknown_kinds_are_of_those_that_the_header_counts():
    records = read([LAB / "a/lab-2k/none.jsonl"])
    for run in records.runs.values():
        run.settings["row"]["rows"] = len(records.measurements) + 1
    lacks = [missing(records.runs.values(), records.measurements, unknown) for unknown in (0, 1)]
    assert lacks[0] and not lacks[1]


def test_a_row_that_has_lost_the_header_of_its_training_is_not_whole(tmp_path):
    """Of a row of before headers said how many rows there are: its steps are then of unknown origin, and nothing says how many there were."""
    head, *lines = (LAB / "c/smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl").read_text().splitlines()
    (tmp_path / "row.jsonl").write_text("\n".join([head[40:], *lines]) + "\n")
    records = read([tmp_path])
    assert records.left_out.headless == 40
    assert set(missing(records.runs.values(), records.measurements).values()) == {"lacks the header of its training"}


@pytest.mark.parametrize(
    ("of", "altered", "told"),
    [
        ("row", {"learning_rate": 1e-3}, "has the settings of yarn-x4-20M-1e-3-s1"),
        ("row", {"seed": 2}, "has the settings of yarn-x4-20M-3e-4-s2"),
        ("row", {"factor": 8.0}, "has the settings of yarn-x8-20M-3e-4-s1"),
        ("row", {"tokens": 5 * 2**20}, "has the settings of yarn-x4-5M-3e-4-s1"),
        ("row", {"method": "ntk"}, "has the settings of ntk-x4-20M-3e-4-s1"),
        ("row", {"parameters": {"beta_fast": 16.0}}, "has the settings of yarn-beta_fast=16-x4-20M-3e-4-s1"),
        ("row", {"factor": "four"}, "has settings that no row has"),
        ("row", {"name": "smollm2-135m/yarn-x4-20M-1e-3-s1", "learning_rate": 1e-3}, "has learning_rate 0.0003 in its training's header and 0.001 in its own settings"),
        ("settings", {"learning_rate": 1e-3}, "has learning_rate 0.001 in its training's header and 0.0003 in its own settings"),
        ("header", {"seed": 7}, "has seed 7 in its training's header and 1 in its own settings"),
    ],
)  # fmt: skip
def test_a_row_whose_settings_its_name_or_its_training_contradict_is_not_whole(tmp_path, of, altered, told):
    """The names are those of the guide: method, parameters, factor, tokens, rate, seed."""
    entries = [json.loads(line) for line in (LAB / "c/smollm2-135m/yarn-x4-20M-3e-4-s1.jsonl").read_text().splitlines()]
    for header in [entry for entry in entries if entry["kind"] == "run"]:
        if of == "row":
            header["settings"]["row"] |= altered
        elif "learning_rate" in header["settings"]:
            (header if of == "header" else header["settings"]).update(altered)
    (tmp_path / "row.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    assert lacking(tmp_path / "row.jsonl") == {told}
