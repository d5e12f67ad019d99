"""Record files read back: the classes that were written, older files converted in one place, newer ones refused."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest

import made_up
from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.records import Recorder
from ropewalk.rope.scaling import Linear, Plain, Rope, Yarn
from ropewalk.suite.theory import forecast

#: As ropewalk 0.1.0 wrote it before schema 1.
OLD_MODEL = {"name": "m", "family": "llama", "original_window": 256, "window": 1024, "head_dim": 32}
OLD_HEADER = {"kind": "run", "id": "r", "command": "", "started": "", "seed": 0, "device": "cpu", "dtype": "float32"}


def written(path: Path, *entries: dict) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return path


def old_header(**model) -> dict:
    return OLD_HEADER | {"versions": {}, "settings": {}, "model": OLD_MODEL | model}


def test_what_is_read_is_what_was_written(tmp_path):
    rows = [
        made_up.row(2.0),
        records.Passkey(256, 8, 10, 9),
        records.Step(1, 2.0, 2e-5, 0.7, 100, 50.0, 2.0),
        made_up.retrieval("keys", 256, 0.5),
        made_up.scores(0, 1024, 9.0),
        made_up.benchmark("piqa", 0.6, 0),
        *forecast(Rope(32, 10000.0, 256), 1024, scaling=Yarn(4.0, 64.0, 4.0), seeds=2).rows,
    ]
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.extended(8, 3, "yarn"), *rows), settings={"a": [1, None]})
    read = records.read([path])
    assert [m.row for m in read.measurements] == rows
    (run,) = read.runs.values()
    assert run.model == made_up.extended(8, 3, "yarn") and run.settings == {"a": [1, None]}
    assert all(m.run is run for m in read.measurements)


def test_a_header_says_its_schema_and_its_scaling_with_all_parameters(tmp_path):
    model = dataclasses.replace(made_up.extended(4), scaling=Yarn(4.0, 64.0, 4.0))
    path = made_up.record_rows(tmp_path / "r.jsonl", (model, made_up.row(2.0)))
    header = json.loads(path.read_text().splitlines()[0])
    assert (header["kind"], header["schema"]) == ("run", 1)
    scaling = {"method": "yarn", "factor": 4.0, "beta_fast": 64.0, "beta_slow": 4.0, "truncate": True}
    assert header["model"]["scaling"] == scaling


def test_what_is_not_finite_is_null_in_the_file_and_nan_again(tmp_path):
    step = records.Step(1, math.nan, 2e-5, math.inf, 100, 50.0, 2.0, mfu=None)
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, step))
    assert '"loss":null' in path.read_text() and "nan" not in path.read_text().lower()
    (m,) = records.read([path]).of(records.Step)
    assert math.isnan(m.row.loss) and math.isnan(m.row.grad_norm) and m.row.mfu is None


@pytest.mark.parametrize(
    ("model", "scaling"),
    [
        ({}, Plain()),
        ({"method": "plain", "factor": 1.0}, Plain()),
        ({"method": "linear", "factor": 4}, Linear(4.0)),
        ({"method": "yarn", "factor": 4.0}, records.Unspecified("yarn", 4.0)),
        ({"method": "llama3", "factor": 8.0}, records.Unspecified("llama3", 8.0)),
        ({"method": "my-rope", "factor": 8.0}, records.Unspecified("my-rope", 8.0)),
    ],
)
def test_a_header_from_before_schema_1_is_converted_and_thresholds_are_not_guessed(tmp_path, model, scaling):
    path = written(tmp_path / "old.jsonl", old_header(**model, theta=5e5))
    (run,) = records.read([path]).runs.values()
    assert (run.model.scaling, run.model.rope_theta) == (scaling, 5e5)


def test_rows_from_before_schema_1_are_converted(tmp_path):
    scores = json.loads(records.to_line(made_up.scores(0, 1024, 9.0), "r"))
    scores["strays"] = scores.pop("deviation")
    (bounds, *_, resolution) = forecast(Rope(32, 10000.0, 256), 1024, seeds=2).rows
    turned = json.loads(records.to_line(resolution, "r"))
    turned |= {"method": "llama3", "factor": turned.pop("scaling")["factor"]}
    limits = json.loads(records.to_line(bounds, "r"))
    limits["base"] = limits.pop("rope_theta", 10000.0)
    read = records.read([written(tmp_path / "old.jsonl", old_header(), scores, turned, limits)])
    assert [m.row for m in read.of(records.Bounds)] == [bounds]
    assert [m.row for m in read.of(records.AttentionScores)] == [made_up.scores(0, 1024, 9.0)]
    assert [m.row.scaling for m in read.of(records.Resolution)] == [records.Unspecified("llama3", 4.0)]


def test_thresholds_that_are_not_on_record_are_not_drawn_by_guess():
    with pytest.raises(UserError, match="thresholds, which are not on record"):
        records.Unspecified("yarn", 4.0).inv_freq(Rope(32))


def test_a_newer_schema_is_refused_in_a_sentence(tmp_path):
    path = written(tmp_path / "new.jsonl", {"kind": "run", "schema": 2, "anything": "else"})
    with pytest.raises(UserError, match=r"up to schema 1, but .*/new\.jsonl, line 1 has schema 2; install"):
        records.read([path])


@pytest.mark.parametrize(
    "damage",
    [
        {"window": 0},
        {"window": "wide"},
        {"original_window": -1},
        {"scaling": "yarn"},
        {"scaling": {"factor": 2.0}},
        {"scaling": {"method": "linear", "factor": 0.5}},
        {"scaling": {"method": "linear", "factor": "4"}},
        {"scaling": {"method": "my-rope", "factor": 0.0}},
    ],
)
def test_a_header_that_describes_no_model_is_left_out_with_its_rows(tmp_path, damage):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    header, row = map(json.loads, path.read_text().splitlines())
    read = records.read([written(path, header | {"model": header["model"] | damage}, row)])
    assert not read.runs and not read.measurements
    assert (read.left_out.malformed["run"], read.left_out.headless) == (1, 1)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ({"window": "wide"}, "Expected `int`, got `str` - at `$.window`"),
        ({"window": 0}, "Expected `int` >= 1 - at `$.window`"),
        ({"window": None}, "Expected `int`, got `float` - at `$.window`"),
        ({"perplexity": -1.0}, "a perplexity is above 0, got -1.0"),
        ({"bos": 1}, "Expected `bool`, got `int` - at `$.bos`"),
        ({"per_document": [{"name": "d"}]}, "Object missing required field `tokens` - at `$.per_document[0]`"),
    ],
)
def test_a_malformed_row_is_counted_and_the_first_is_told_with_its_place(tmp_path, damage, reason):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0), made_up.row(2.1, 512)))
    header, row, other = map(json.loads, path.read_text().splitlines())
    read = records.read([written(path, header, row | damage, other)])
    assert [m.row.window for m in read.of(records.Perplexity)] == [512]
    assert read.left_out.malformed == {"perplexity": 1}
    assert read.left_out.reasons == {"perplexity": f"{tmp_path.name}/r.jsonl, line 2: {reason}"}


def test_a_header_may_come_after_its_rows_and_in_another_file(tmp_path):
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    header, row = map(json.loads, path.read_text().splitlines())
    paths = [written(tmp_path / "rows.jsonl", row), written(tmp_path / "headers.jsonl", header)]
    assert len(records.read(paths).measurements) == 1


def test_more_successes_than_trials_are_refused():
    with pytest.raises(ValueError, match="between 0 and the 10 trials, got 11"):
        records.Passkey(256, 8, 10, 11)


SOUND = {
    "document_score": records.DocumentScore("k", "d", 64, 32, 633, 3000.0),
    "document_gain": records.DocumentGain("k", "d", [[9.0], [1.0], [2.0], [3.0], [1.0]]),
    "passkey": records.Passkey(256, 8, 10, 9),
    "passkey_summary": records.PasskeySummary(256, 128, 2, 10, 0.5, k_low=0, k_high=256),
    "retrieval": records.Retrieval(256, "keys", 10, 5, 0.2, 0.8),
    "perplexity": made_up.row(2.0),
}


@pytest.mark.parametrize(
    ("kind", "edit"),
    [
        ("document_score", {"tokens": -633}), ("document_score", {"tokens": 10**30}), ("document_score", {"nll": -5.0}),
        ("document_gain", {"sums": [[-9.0], [1.0], [2.0], [3.0], [1.0]]}), ("document_gain", {"sums": [[2.0], [1.0], [2.0], [3.0], [1.0]]}),
        ("passkey", {"k": -8}), ("passkey_summary", {"k_max": 10**9}), ("passkey_summary", {"accuracy": 1.5}), ("retrieval", {"low": -3}),
        ("perplexity", {"documents": -1}), ("perplexity", {"per_document": [{"name": "d", "tokens": -1, "nll": 1.0}]}),
    ],
)  # fmt: skip
def test_a_row_that_was_edited_into_what_cannot_be_is_left_out_and_counted(kind, edit, tmp_path):
    path = tmp_path / "r.jsonl"
    Recorder(path, made_up.run(made_up.BASE, "a")).add(SOUND[kind])
    assert len(records.read([path]).measurements) == 1
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\n{json.dumps(json.loads(row) | edit)}\n")
    assert records.read([path]).left_out.malformed == {kind: 1}


def test_a_line_break_inside_a_text_tears_no_row(tmp_path):
    """U+2028 and U+0085 end a line for some readers; in JSON they are text."""
    path = tmp_path / "r.jsonl"
    Recorder(path, made_up.run(made_up.BASE, "a\u2028b\u0085c")).add(made_up.row(2.0, data="d\u2028e"))
    read = records.read([path])
    assert [m.row.data for m in read.of(records.Perplexity)] == ["d\u2028e"] and not read.left_out.damaged


def test_a_directory_is_read_as_all_record_files_below_it(tmp_path):
    for name in ("b/run.jsonl", "a.jsonl", ".hidden/x.jsonl", "b/.out.new/y.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        made_up.record_rows(tmp_path / name, (made_up.BASE, made_up.row(2.0)))
    (tmp_path / "b/texts.jsonl").write_text('{"text": "kind"}\n')
    (tmp_path / "b/empty.jsonl").write_text("")
    assert len(records.read([tmp_path]).measurements) == 2 == len(records.read([tmp_path / "a.jsonl"]).measurements) + 1
    (nothing := tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="holds no record file"):
        records.read([nothing])


def test_files_of_a_directory_that_are_zeros_or_text_are_named_and_other_json_is_not(tmp_path):
    whole = made_up.record_rows(tmp_path / "whole.jsonl", (made_up.BASE, made_up.row(2.0)))
    lefts = (bytes(9000), b"my notes\n", whole.read_bytes()[30:300], b'{"key": 1}\n', b"", whole.read_bytes()[:4])
    for name, left in zip("abcdef", lefts, strict=True):
        (tmp_path / f"{name}.jsonl").write_bytes(left)
    read = records.read([tmp_path])
    assert len(read.measurements) == 1
    strange = [said for said in read.left_out.files if said.startswith("No record stands at the beginning of ")]
    assert [name for name in "abcdef" if f"{name}.jsonl" in "".join(strange)] == ["a", "b", "c"]


@pytest.mark.parametrize("head", ["cut", "cut before a brace", "zeros", "text"])
def test_a_file_whose_beginning_is_damaged_is_read_alike_by_its_name_and_in_its_directory(tmp_path, head):
    """Of two runs the first has lost its header: its row is of unknown origin, the other's counts."""
    rows = [(made_up.BASE, made_up.row(2.0)), (made_up.extended(4), made_up.row(2.5))]
    path = made_up.record_rows(tmp_path / "r.jsonl", *rows)
    first, rest = path.read_bytes().split(b"\n", 1)
    beginnings = {"cut": first[40:], "cut before a brace": first[first.index(b"{", 1) :], "zeros": bytes(99), "text": b"my notes"}  # fmt: skip
    path.write_bytes(beginnings[head] + b"\n" + rest)
    by_name, of_directory = records.read([path]), records.read([tmp_path])
    assert by_name.left_out == of_directory.left_out
    assert by_name.left_out.files == [f"The beginning of {path} is no record, so that what it held is missing."]
    assert (by_name.left_out.damaged, by_name.left_out.headless) == (1, 1)
    for read in (by_name, of_directory):
        assert [m.run.model for m in read.measurements] == [made_up.extended(4)]


def test_a_model_without_records_beside_others_is_said_and_left_aside(tmp_path, caplog):
    """As the tutorial has it: `report smollm2.jsonl smollm2-32k`, where the model was extended and never trained."""
    path = made_up.record_rows(tmp_path / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    assert len(records.read([path, tmp_path / "model"]).measurements) == 1
    assert "nothing is on record in" in caplog.text
    with pytest.raises(UserError, match="holds no record file"):
        records.read([tmp_path / "model"])


def test_each_directory_is_listed_once_however_many_are_named(tmp_path, monkeypatch):
    places = [tmp_path / name for name in "abc"]
    for place in places:
        place.mkdir()
        made_up.record_rows(place / "r.jsonl", (made_up.BASE, made_up.row(2.0)))
    listed, rglob = [], Path.rglob
    monkeypatch.setattr(Path, "rglob", lambda path, pattern: (listed.append(path), rglob(path, pattern))[1])
    assert len(records.read(places).measurements) == 3
    assert listed == places


def test_a_file_that_is_empty_or_ends_within_a_line_is_named_and_one_that_lacks_its_last_line_end_is_whole(tmp_path):
    whole = made_up.record_rows(tmp_path / "a.jsonl", (made_up.BASE, made_up.row(2.0)))
    assert not records.read([whole]).left_out.files
    (tmp_path / "b.jsonl").write_bytes(whole.read_bytes()[:-1])
    (tmp_path / "c.jsonl").write_bytes(whole.read_bytes()[:-9])
    (tmp_path / "d.jsonl").write_bytes(b"")
    files = records.read([tmp_path]).left_out.files
    assert files == [
        f"{tmp_path}/c.jsonl ends within a line, so that what else it held is missing.",
        f"{tmp_path}/d.jsonl is empty.",
    ]
