"""`--json` of the commands that measure: stdout is one list, whose rows are those that the record file has."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ropewalk import cli, testing
from ropewalk.records import BOOKKEEPING

LINES = (
    "perplexity model --data long.txt --windows 64,128 --stride 64",
    "gain model --data long.txt --window 128 --short 64",
    "passkey model --window 300 --depths 2 --trials 1",
    "retrieval model --window 1000 --trials 1 --families keys",
    "ruler model --windows 1000 --tasks niah_single_1 --items 1",
    "attention model --data long.txt --window 64",
    "benchmarks model --base base --tasks piqa --data .",
    "summarize model --data pairs.jsonl --document-tokens 64 --summary-tokens 8",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A model, its base, and what is read of either."""
    place = tmp_path_factory.mktemp("measured")
    for seed, name in enumerate(("base", "model")):
        testing.tiny_directory(place / name, window=256, seed=seed)
    prose = [testing.prose(20, seed) for seed in range(12)]
    items = [dict(goal=prose[n], sol1=prose[n + 4], sol2=prose[n + 8], label=n % 2) for n in range(4)]
    pairs = [dict(document=prose[n], summary=prose[n + 4]) for n in range(2)]
    for name, rows in (("piqa", items), ("pairs", pairs)):
        (place / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (place / "long.txt").write_text(testing.prose(60, 7), encoding="utf-8")
    return place


def printed_rows(capfd) -> list[dict]:
    """All that went to stdout, whoever wrote it."""
    return json.loads(capfd.readouterr().out)


@pytest.mark.parametrize("line", LINES, ids=lambda line: line.split()[0])
def test_json_is_the_rows_of_the_record_and_nothing_else(line: str, place, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(place)
    cli.main([*line.split(), "--json", "--out", str(tmp_path / "rows.jsonl")])
    rows = printed_rows(capfd)
    models = {"base", "model"} if "--base" in line else {"base"} if line.startswith("attention") else {"model"}
    assert {row.pop("model") for row in rows} == models
    bookkeeping = {"run", *(kind.kind for kind in BOOKKEEPING)}
    recorded = [json.loads(each) for each in (tmp_path / "rows.jsonl").read_text(encoding="utf-8").splitlines()]
    recorded = [row for row in recorded if row["kind"] not in bookkeeping]
    assert rows and sorted(rows, key=str) == sorted(
        ({key: row[key] for key in row if key != "run"} for row in recorded), key=str
    )


def test_json_of_each_checkpoint_of_a_run_is_one_list(place, tmp_path, monkeypatch, capfd) -> None:
    monkeypatch.chdir(place)
    few = "--steps 2 --batch-size 1 --save-every 1 --allow-short --quiet"
    cli.main(["train", "base", "--data", "long.txt", "--window", "300", *few.split(), "--out", str(tmp_path / "run")])
    capfd.readouterr()
    words = "--by-step --window 300 --depths 1 --trials 1 --json"
    cli.main(["passkey", str(tmp_path / "run"), *words.split()])
    rows = printed_rows(capfd)
    assert [row["kind"] for row in rows] == ["passkey", "passkey_summary"] * 3
    steps = ["step-000000", "step-000001", "run"]
    assert [Path(row["model"]).name for row in rows[::2]] == [Path(row["model"]).name for row in rows[1::2]] == steps
