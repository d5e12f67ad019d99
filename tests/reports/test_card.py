"""The model card: figures of this model alone, from rows; and nobody's README is lost. Rows are made up, checkpoints are tiny."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest
import yaml

import made_up
from ropewalk import UserError, card, records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config, write_json
from ropewalk.checkpoint.model_card import ModelCard
from ropewalk.model.extend import extend
from ropewalk.reports import render
from ropewalk.rope.scaling import Plain

BASE = "---\nlicense: apache-2.0\nlanguage: [en]\ntags: [old]\n---\n# The base\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`base`, and `out`, said to be trained for 9 steps after it was extended from 64 to 256 tokens."""
    where = tmp_path_factory.mktemp("card")
    base = testing.tiny_directory(where / "base")
    (base / "README.md").write_text(BASE)
    extend(base, window=256, method="linear", out=where / "out")
    config = read_config(where / "out")
    config["ropewalk"]["steps"] = 9
    write_json(where / "out/config.json", config)
    return where


@pytest.fixture
def out(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made / "out", tmp_path / "out"))


def measured(out: Path, name: str | None = None, **changes) -> records.ModelInfo:
    """The model of a checkpoint as a header names it, or one that is a little other."""
    return dataclasses.replace(Checkpoint.open(out).info, name=name or str(out), **changes)


def unextended(out: Path, name: str = "hub/base") -> records.ModelInfo:
    return measured(out, name, scaling=Plain(), window=64, steps=0)


def read(path: Path) -> str:
    return path.read_text().replace("\u202f", " ")


def test_a_resumed_training_is_told_by_the_command_that_began_it(out: Path, tmp_path: Path) -> None:
    """run.yaml is not pushed, so the resumption alone could be repeated by nobody."""
    training = {"out": str(out), "learning_rate": 1e-5, "batch_size": 1, "steps": 9, "save_every": 9}
    began = made_up.run(measured(out, "longer", steps=0), "ropewalk train longer --steps 9", settings=training)
    resumed = dataclasses.replace(began, command="ropewalk train --config run.yaml --resume")
    for header, number in ((began, 4), (resumed, 9)):
        step = records.Step(number, 3.5, 1e-5, 0.5, 4096, 100.0, 41.0, None, 2**20)
        records.Recorder(out / "records.jsonl", header).add(step)
    card(out)
    commands = f"{began.command}\n{resumed.command}\n"
    assert f"```sh\n{commands}```" in read(out / "README.md")
    assert f"<pre>{commands.strip()}</pre>" in render(records.read([out]))


@pytest.mark.parametrize(("window", "done"), [(64, "trained on in that window"), (256, "extended")])
def test_a_card_says_extended_of_what_is(out: Path, window: int, done: str) -> None:
    history = [{"from": 64, "to": window, "method": "plain", "factor": window / 64}]
    text = ModelCard("base", measured(out, window=window), history, "Said.").text(out)
    assert f"Pretrained at 64 tokens, then {done}:\n\n| from | to | method | factor |" in text


def test_a_card_has_the_figures_of_its_model_with_their_intervals(out: Path, tmp_path: Path) -> None:
    other = measured(out, "another", fingerprint="f" * 16)
    step = records.Step(9, 3.5, 1e-5, 0.5, 4096, 100.0, 41.0, None, 2**20)
    training = {"out": "moved since", "learning_rate": 1e-5, "batch_size": 1, "steps": 9, "save_every": 9}
    made_up.record_rows(
        out / "records.jsonl", (measured(out, "longer", steps=0), step), settings=training, started="2026-01-01T00:00"
    )
    rows = made_up.record_rows(
        tmp_path / "r.jsonl",
        (unextended(out), made_up.row(2.0, 64, stride=16), made_up.row(4.0, 256, stride=16)),
        (measured(out), made_up.row(2.02, 64, stride=16), made_up.row(1.9, 256, stride=16)),
        (measured(out), records.Passkey(256, 128, 10, 10, 50), records.PasskeySummary(256, 128, 1, 10, 1.0)),
        (other, made_up.row(1.234, 64), made_up.row(1.234, 256)),
    )
    assert card(out, records=[rows]) == out / "README.md"
    text = read(out / "README.md")
    assert (
        "Trained to 256 tokens, it holds to 128 by k_max (95 % interval 128 to 128) and to 256 by perplexity (from 64: −11.3 % "
        in text
    )
    assert "At the short window of 64 tokens its perplexity went" in text and "reaches k_max 128 of 256 tokens." in text
    assert "+2.0 % (95 % interval +2.0 % to +2.0 %, paired over 5 documents)" in text.replace("\u202f", " ")
    assert "trained for 9 steps (4k tokens)" in text and "| 64 | 256 | linear | 4 |" in text
    assert "7.54 (7.54 to 7.54; +2.0 %)" in text  # e^2.02, and 2.02 - 2.00 in per cent
    assert "3.44" not in text  # e^1.234 is another model's
    assert "ropewalk measure hub/base" in text and "ropewalk measure another" not in text
    assert (
        "Not on record: context gain, harder retrieval, RULER, benchmarks of the short window, summaries; of the base: passkeys."
        in text
    )
    assert "the paper" not in text and str(out.parent) not in text  # nor places of this machine
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "apache-2.0" and front["language"] == ["en"] and "base_model" not in front


def test_a_readme_that_was_edited_stays_and_one_that_was_not_is_written_anew(out: Path, tmp_path: Path) -> None:
    for _ in range(2):
        card(out)
    assert (
        "Trained to 256 tokens (9 steps); it was not measured when this was written, so that what it holds to, and what became of the short "
        "window of 64 tokens, is not known. Measure it and its base alike (ropewalk perplexity . --data … --windows 64 256 --out FILE.jsonl)"
        in read(out / "README.md")
    )
    extend(out, window=512, out=tmp_path / "longer")
    extend(out, window=512, out=tmp_path / "longer", overwrite=True)  # the mark knows the card
    longer = tmp_path / "longer"
    card(longer)
    extend(out, window=512, out=longer, overwrite=True)

    readme, generated = longer / "README.md", (longer / "README.md").read_text()
    for theirs in ("mine", "", generated + "\nmine", "mine\n" + generated, generated.replace("512", "513", 1)):
        readme.write_text(theirs)
        with pytest.raises(UserError, match="was edited since, and stays"):
            card(longer)
        assert readme.read_text() == theirs
        assert card(longer, out=tmp_path / "card.md").read_text().startswith("---\nlicense: apache-2.0")
    readme.unlink()
    readme.symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match="stays"):
        card(longer)


@pytest.mark.parametrize(
    ("readme", "config", "file", "front", "sentence"),
    [
        (
            BASE,
            {"license": "mit"},
            "LICENSE",
            {"license": "apache-2.0"},
            "apache-2.0, as the card of the original says.",
        ),
        (
            "---\nlicense: other\nlicense_name: llama3\nlicense_link: LICENSE\n---\n",
            {},
            "LICENSE",
            {"license": "other", "license_name": "llama3", "license_link": "LICENSE"},
            "llama3 (LICENSE), as the card of the original says.",
        ),
        ("---\nlicense: [mit, gpl-3.0]\n---\n", {}, "", {"license": ["mit", "gpl-3.0"]}, "mit, gpl-3.0, as the card"),
        ("# a base", {"license": "mit"}, "", {"license": "mit"}, "mit, as the config of the original says."),
        (
            "# a base",
            {},
            "LICENSE.txt",
            {"license": "other", "license_link": "LICENSE.txt"},
            "LICENSE.txt is the file that came with the original.",
        ),
        (
            "# a base",
            {},
            "COPYING",
            {"license": "other", "license_link": "COPYING"},
            "COPYING is the file that came with the original.",
        ),
        (
            "---\nlicense: llama3\nbase_model: meta/origin\n---\n",
            {},
            "",
            {"license": "llama3", "base_model": "meta/origin"},
            "llama3, as the card of the original says.",
        ),
        ("---\nlicense:\n---\n", {"license": 1}, "", {"license": "unknown"}, "unknown: ask the base's owner."),
        ("", {}, "", {"license": "unknown"}, "unknown: ask the base's owner."),
    ],
)
def test_a_licence_is_the_bases_or_unknown(
    tmp_path: Path, readme: str, config: dict, file: str, front: dict, sentence: str
) -> None:
    base = testing.tiny_directory(tmp_path / "base")
    write_json(base / "config.json", read_config(base) | config)
    for name, text in (("README.md", readme), (file, "Apache License, Version 2.0")):
        if name and text:
            (base / name).write_text(text, encoding="utf-8")
    extend(base, window=256, out=tmp_path / "longer")
    extend(tmp_path / "longer", window=512, out=tmp_path / "longest")  # and it is carried on
    for model in (tmp_path / "longer", tmp_path / "longest"):
        for text in (read(model / "README.md"), read(card(model))):
            fields = yaml.safe_load(text.split("---")[1])
            assert {
                name: value for name, value in fields.items() if name.startswith(("license", "base_model"))
            } == front
            assert sentence in text.partition("## Licence")[2]


def test_a_base_that_is_one_of_two_is_compared_only_if_it_is_known(out: Path, tmp_path: Path, caplog) -> None:
    rows = made_up.record_rows(
        tmp_path / "r.jsonl",
        (unextended(out, "hub/base"), made_up.row(2.0, 64)),
        (unextended(out, "hub/chat"), made_up.row(2.5, 64)),
        (measured(out), made_up.row(2.02, 64)),
    )
    text = read(card(out, records=[rows], out=tmp_path / "neither.md"))
    assert "+2.0 %" not in text and "for its base was not measured at 64 tokens" in text
    assert "could have been made from any of hub/base, hub/chat" in caplog.text
    (out / "README.md").write_text((out / "README.md").read_text().replace('"base": "base"', '"base": "hub/base"'))
    text = read(card(out, records=[rows], out=tmp_path / "known.md"))
    assert "2.0 % (95" in text and "hub/chat" not in text
    assert yaml.safe_load(text.split("---")[1])["base_model"] == "hub/base"


def test_a_card_is_of_a_model_that_is_there(tmp_path: Path, out: Path) -> None:
    for where, why in (
        (tmp_path / "none", "there is no directory"),
        ("hemp", "no directory hemp"),
        (tmp_path, "config.json"),
    ):
        with pytest.raises(UserError, match=why):
            card(where)
    with pytest.raises(UserError, match="is a directory"):
        card(out, out=tmp_path)


def test_where_nothing_is_on_record_the_option_that_names_the_file_is_said(tmp_path: Path, caplog) -> None:
    model = testing.tiny_directory(tmp_path / "m")
    card(model)
    assert f"no row of these records measured {model}" in caplog.text
    assert f"ropewalk card {model} --records FILE.jsonl" in caplog.text


@pytest.mark.parametrize("name", ["watch.jsonl", "other.jsonl"])
def test_a_run_that_looked_at_its_model_has_measured_it(out: Path, caplog, name: str) -> None:
    """By fingerprints of its own, since that of the weights on disk is not there yet; those of any other file are of other weights."""
    looks = [(measured(out, steps=step, fingerprint=f"look{step}"), made_up.row(nll, 256)) for step, nll in ((9, 2.0), (12, 3.0))]  # fmt: skip
    made_up.record_rows(out / name, *looks)
    text = read(card(out))
    assert ("measured" in caplog.text) == (name == "other.jsonl")
    assert ("7.39" in text) == (name == "watch.jsonl") and "20.09" not in text


def test_a_card_of_a_further_training_tells_of_the_model_that_it_began_from(out: Path, tmp_path: Path) -> None:
    """Also where that was measured in more ways: the card is of the last."""
    own = Checkpoint.open(out).fingerprint
    first = measured(out, "first", steps=4, fingerprint="a" * 16)
    settings = {"out": str(out), "learning_rate": 1e-5, "batch_size": 1, "steps": 9, "model_fingerprint": "a" * 16}
    header = made_up.run(measured(out, "first", steps=0, steps_before=4), "ropewalk train first", settings=settings)
    made_up.steps(records.Recorder(tmp_path / "r.jsonl", header), 9)
    further = measured(out, steps_before=4, fingerprint=own), made_up.row(2.1, 256)
    path = made_up.record_rows(tmp_path / "r.jsonl", further, (unextended(out), made_up.row(3.0, 64)))
    assert "measure the model that it began from, at 256" not in read(card(out, records=[path], out=tmp_path / "a.md"))
    made_up.record_rows(path, (unextended(out), made_up.row(5.0, 256)))
    assert "measure the model that it began from, at 256" in read(card(out, records=[path], out=tmp_path / "b.md"))
    keys = records.PasskeySummary(256, 256, 8, 10, 1.0)
    made_up.record_rows(
        path, (first, made_up.row(2.3, 256), keys), (measured(out, "stranger", steps=4), made_up.row(2.0, 256))
    )
    text = read(card(out, records=[path], out=tmp_path / "c.md"))
    assert "and trained for 9 steps" in text and "against itself after 4 steps at this window, better" in text
    assert "PI ×4, 4 steps " in text and "stranger" not in text
