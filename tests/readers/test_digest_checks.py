"""Weights against the digests that were noted when they were written: what is noted, what links keep, what `doctor` says of damage."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import random
import shutil
from pathlib import Path

import pytest

import ropewalk
from ropewalk import cli, testing
from ropewalk.checkpoint import digests, guard
from ropewalk.checkpoint.guard import MARK
from ropewalk.readers import digest_checks
from ropewalk.readers.digest_checks import unchanged

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model as `extend` writes it."""
    out = tmp_path_factory.mktemp("written") / "longer"
    ropewalk.extend("hemp", window=1024, out=out)
    return out


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    return Path(shutil.copytree(written, tmp_path / "longer"))


def noted(directory: Path) -> dict[str, str]:
    return json.loads((directory / MARK).read_text(encoding="utf-8"))["digests"]


def flip(file: Path, *, seed: int = 0) -> None:
    """One bit of the last tenth, in place: tensors, as headers are short and come first."""
    size, chance = file.stat().st_size, random.Random(seed)
    with open(file, "r+b") as stream:
        place = chance.randrange(size * 9 // 10, size)
        stream.seek(place)
        byte = stream.read(1)[0]
        stream.seek(place)
        stream.write(bytes([byte ^ 1 << chance.randrange(8)]))


def verdicts(place: Path, *, full: bool = False) -> list[tuple[str, str]]:
    return [(finding.verdict, finding.sentence) for finding in unchanged(place, full=full)]


def test_what_is_noted_is_the_sha256_of_the_sha256s_of_pieces_of_16_mib(model: Path) -> None:
    content, piece = (model / WEIGHTS).read_bytes(), 16 * 2**20
    pieces = [hashlib.sha256(content[start : start + piece]).digest() for start in range(0, len(content), piece)]
    assert noted(model) == {WEIGHTS: hashlib.sha256(b"".join(pieces)).hexdigest()}
    long = model / "long.safetensors"
    long.write_bytes(bytes(piece) + b"a")
    parts = hashlib.sha256(bytes(piece)).digest() + hashlib.sha256(b"a").digest()
    assert digests.digest_now(long) == hashlib.sha256(parts).hexdigest()


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_is_wrong_though_the_file_has_its_old_dates(model: Path, seed: int) -> None:
    assert verdicts(model) == [("ok", f"{WEIGHTS} is as written, to the last bit")]
    digests.digest_of(model / WEIGHTS)  # the cache knows it, as of any model that was measured
    flip(model / WEIGHTS, seed=seed)
    [(verdict, sentence)] = verdicts(model)
    assert verdict == "wrong" and noted(model)[WEIGHTS][:16] in sentence and "take its line out" in sentence


def test_what_cannot_be_read_is_wrong_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(file))

    monkeypatch.setattr(digest_checks, "digest_now", broken)
    assert [(verdict, "cannot be read (Input/output error)" in said) for verdict, said in verdicts(model)] == [
        ("wrong", True)
    ]


def test_what_is_measured_or_trained_on_changed_weights_is_said_to_be(model: Path, tmp_path: Path, caplog) -> None:
    (tmp_path / "text.txt").write_text(testing.prose(800, 0))
    data = [tmp_path / "text.txt"]
    measure = dict(data=data, windows=[256])
    ropewalk.perplexity(model, **measure)
    assert "is not as ropewalk wrote it" not in caplog.text
    flip(model / WEIGHTS)
    ropewalk.perplexity(model, **measure)
    assert f"{model / WEIGHTS} is not as ropewalk wrote it, and what follows is of what lies there now" in caplog.text
    caplog.clear()
    ropewalk.train(model, data=data, window=1024, steps=1, batch_size=1, allow_short=True, out=tmp_path / "trained")
    assert "is not as ropewalk wrote it" in caplog.text


def test_doctor_says_it_in_json_and_by_its_exit_status(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flip(model / WEIGHTS)
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(model), "--json"])
    diagnosis = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and diagnosis["verdict"] == "wrong"
    assert [(each["number"], each["check"]) for each in diagnosis["findings"] if each["verdict"] == "wrong"] == [
        (14, "weights as written")
    ]


def test_a_link_keeps_the_digest_of_what_it_links_even_if_that_is_damaged_by_then(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = lambda checkpoint: flip(model / WEIGHTS)  # noqa: E731  # damaged the moment after
    monkeypatch.setattr(importlib.import_module("ropewalk.exports.export"), "refuse_damaged", looked_at)
    ropewalk.export(model, reader="transformers", out=tmp_path / "export")
    assert noted(tmp_path / "export") == noted(model)
    [(verdict, sentence)] = verdicts(tmp_path / "export")
    assert verdict == "wrong" and "has 2 names (hard links)" in sentence


def test_what_takes_minutes_is_read_when_it_is_asked_for_and_said_until_then(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip(model / WEIGHTS)
    monkeypatch.setattr(digest_checks, "READ_UNASKED", 1000)
    [(verdict, sentence)] = verdicts(model)
    assert verdict == "not checked" and "add --full" in sentence
    assert [verdict for verdict, _ in verdicts(model, full=True)] == ["wrong"]


def test_large_weights_of_others_are_linked_unread_and_that_is_said(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (model / MARK).unlink()  # as it comes from elsewhere
    monkeypatch.setattr(digests, "READ_UNASKED", 1000)
    monkeypatch.setattr(digests, "digest_of", lambda file: pytest.fail(f"{file} was read"))
    ropewalk.export(model, reader="transformers", out=tmp_path / "export")
    assert "digests" not in json.loads((tmp_path / "export" / MARK).read_text(encoding="utf-8"))
    [(verdict, sentence)] = verdicts(tmp_path / "export")
    assert verdict == "note" and "no digest was noted" in sentence


@pytest.mark.parametrize("mark", ["", "{", "[]", '{"digests": 1}', '{"digests": {"model.safetensors": 1}}'])
def test_a_mark_of_another_form_notes_nothing(model: Path, mark: str) -> None:
    (model / MARK).write_text(mark, encoding="utf-8")
    assert [verdict for verdict, _ in verdicts(model)] == ["note"]


def test_a_gguf_file_is_compared_with_the_mark_beside_it(tmp_path: Path) -> None:
    file, digest = tmp_path / "model.gguf", hashlib.sha256(hashlib.sha256(b"weights").digest()).hexdigest()
    file.write_bytes(b"weights")
    (tmp_path / MARK).write_text(json.dumps({"holds": [], "digests": {"model.gguf": digest}}), encoding="utf-8")
    assert [verdict for verdict, _ in verdicts(file)] == ["ok"]
    flip(file)
    assert [verdict for verdict, _ in verdicts(file)] == ["wrong"]


def test_a_page_that_is_written_anew_leaves_the_digests_in_the_mark(model: Path) -> None:
    before = noted(model)
    guard.mark_again(model, "README.md")
    assert noted(model) == before
