"""Files against the digests that were noted when they were written: what is noted, what links keep, what `doctor` says of damage and of edits."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import ropewalk
from ropewalk import cli, testing
from ropewalk.checkpoint import digests, marks
from ropewalk.checkpoint.marks import MARK
from ropewalk.errors import UserError
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
    assert noted(model)[WEIGHTS] == hashlib.sha256(b"".join(pieces)).hexdigest()
    long = model / "long.safetensors"
    long.write_bytes(bytes(piece) + b"a")
    parts = hashlib.sha256(bytes(piece)).digest() + hashlib.sha256(b"a").digest()
    assert digests.digest_now(long) == hashlib.sha256(parts).hexdigest()


@pytest.mark.parametrize("seed", range(5))
def test_a_flipped_bit_is_wrong_though_the_file_has_its_old_dates(model: Path, seed: int) -> None:
    assert verdicts(model) == [("ok", f"{WEIGHTS} and 4 more are as written, to the last bit")]
    digests.digest_of(model / WEIGHTS)  # the cache knows it, as of any model that was measured
    flip(model / WEIGHTS, seed=seed)
    [(verdict, sentence)] = verdicts(model)
    assert (
        verdict == "wrong"
        and noted(model)[WEIGHTS][:16] in sentence
        and f"ropewalk doctor {model} --accept {WEIGHTS}" in sentence
    )


def test_what_cannot_be_read_is_wrong_too(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: Path) -> str:
        raise OSError(errno.EIO, "Input/output error", str(file))

    monkeypatch.setattr(digest_checks, "digest_now", broken)
    said = verdicts(model)
    assert [verdict for verdict, _ in said] == ["note"] * 4 + ["wrong"]
    assert all("cannot be read (Input/output error)" in sentence for _, sentence in said)


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
    flip(model / WEIGHTS, seed=1)  # not the highest bit of an exponent, which check 15 sees too
    with pytest.raises(SystemExit) as ended:
        cli.main(["doctor", str(model), "--json"])
    diagnosis = json.loads(capsys.readouterr().out)
    assert ended.value.code == 1 and diagnosis["verdict"] == "wrong"
    assert [(each["number"], each["check"]) for each in diagnosis["findings"] if each["verdict"] == "wrong"] == [
        (14, "files as written")
    ]


def test_a_link_keeps_the_digest_of_what_it_links_even_if_that_is_damaged_by_then(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = lambda checkpoint: flip(model / WEIGHTS)  # noqa: E731  # damaged the moment after
    monkeypatch.setattr(importlib.import_module("ropewalk.exports.export"), "refuse_damaged", looked_at)
    ropewalk.export(model, reader="transformers", out=tmp_path / "export")
    assert noted(tmp_path / "export")[WEIGHTS] == noted(model)[WEIGHTS]
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
    really = digests.digest_of
    is_read = lambda file: pytest.fail(f"{file} was read") if file.name == WEIGHTS else really(file)  # noqa: E731
    monkeypatch.setattr(digests, "digest_of", is_read)
    ropewalk.export(model, reader="transformers", out=tmp_path / "export")
    assert WEIGHTS not in noted(tmp_path / "export")
    [(verdict, sentence), _] = verdicts(tmp_path / "export")
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
    marks.mark_again(model, "README.md")
    assert noted(model) == before


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text(encoding="utf-8"))
    change(content)
    file.write_text(json.dumps(content), encoding="utf-8")


def other_theta(config: dict[str, Any]) -> None:
    """Everywhere, so that no two places contradict each other."""
    for part in (config, config["rope_parameters"], config["ropewalk"]):
        part["rope_theta"] = 5000.0


def swap_ids(tokenizer: dict[str, Any]) -> None:
    ids = tokenizer["model"]["vocab"]
    one, other = list(ids)[-2:]
    ids[one], ids[other] = ids[other], ids[one]


#: What no other check can know: the model is whole, and another one.
EDITS: dict[str, tuple[str, Callable[[dict[str, Any]], object]]] = {
    "activation": ("config.json", lambda config: config.update(hidden_act="relu")),
    "eps": ("config.json", lambda config: config.update(rms_norm_eps=10.0)),
    "theta": ("config.json", other_theta),
    "ids": ("tokenizer.json", swap_ids),
    "sampling": ("generation_config.json", lambda config: config.update(temperature=9.0)),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_of_what_decides_beside_weights_is_noted_until_it_is_accepted(
    name: str, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, change = EDITS[name]
    edit(model / file, change)
    (verdict, sentence), (others, _) = verdicts(model)
    assert (verdict, others) == ("note", "ok") and sentence.startswith(f"{file} was changed after ropewalk wrote it")
    assert f"ropewalk doctor {model} --accept {file}" in sentence
    assert ropewalk.doctor(model).verdict == "sound"
    assert any(each.number == 14 for each in ropewalk.doctor(model, strict=True).noted)
    cli_ends_with(0, ["doctor", str(model)])
    assert f"\nsound, but changed since ropewalk wrote it: {file} (check 14)" in capsys.readouterr().out
    cli_ends_with(0, ["doctor", str(model), "--accept", file])
    assert "changed since" not in capsys.readouterr().out and [verdict for verdict, _ in verdicts(model)] == ["ok"]


@pytest.mark.parametrize(
    "command",
    [["extend", "--window", "2048"], ["export", "--for", "vllm"], ["push", "me/model", "--dry-run"]],
    ids=lambda command: command[0],
)
def test_what_is_made_of_a_model_with_an_edited_config_is_made_and_that_is_said(
    command: list[str], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, *options = command
    out = [] if name == "push" else ["--out"]
    cli_ends_with(0, [name, str(model), *options, *out, *[str(model.parent / "first")] * len(out)])
    assert "was changed after" not in capsys.readouterr().err
    edit(model / "config.json", lambda config: config.update(rms_norm_eps=1e-4))
    cli_ends_with(0, [name, str(model), *options, *out, *[str(model.parent / "second")] * len(out)])
    (line,) = [each for each in capsys.readouterr().err.splitlines() if "config.json was changed after" in each]
    assert "--accept config.json" in line


def test_digests_go_to_the_hub_if_they_are_asked_for_and_tell_of_a_copy_there(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli_ends_with(0, ["push", str(model), "me/model", "--dry-run", "--also", MARK])
    assert MARK in capsys.readouterr().out
    (tmp_path / "downloaded").mkdir()
    for name in [MARK, *noted(model)]:
        shutil.copy(model / name, tmp_path / "downloaded" / name)
    assert [verdict for verdict, _ in verdicts(tmp_path / "downloaded")] == ["ok"]
    flip(tmp_path / "downloaded" / WEIGHTS)
    assert [verdict for verdict, _ in verdicts(tmp_path / "downloaded")] == ["wrong"]


def cli_ends_with(status: int, words: list[str]) -> None:
    try:
        cli.main(words)
    except SystemExit as ended:
        assert ended.code == status
    else:
        assert status == 0


def test_a_file_that_is_gone_is_noted_and_accepted_too(model: Path) -> None:
    (model / "generation_config.json").unlink()
    (verdict, sentence), _ = verdicts(model)
    assert verdict == "note" and sentence.startswith("generation_config.json is gone")
    ropewalk.doctor(model, accept=["generation_config.json"])
    assert [verdict for verdict, _ in verdicts(model)] == ["ok"] and "generation_config.json" not in noted(model)


def test_a_file_that_was_added_is_a_doubt_by_name_until_it_is_accepted_or_gone(model: Path) -> None:
    (model / "chat_template.jinja").write_text("{{ messages }}", encoding="utf-8")
    (model / "own.py").touch()
    (verdict, sentence), (others, _) = verdicts(model)
    assert (verdict, others) == ("note", "ok") and "chat_template.jinja, own.py came to be after" in sentence
    assert any(each.number == 14 for each in ropewalk.doctor(model, strict=True).noted)
    (model / "own.py").unlink()
    cli_ends_with(0, ["doctor", str(model), "--accept", "chat_template.jinja"])
    assert [verdict for verdict, _ in verdicts(model)] == ["ok"] and "chat_template.jinja" in noted(model)


def test_a_card_that_somebody_edited_is_a_doubt_until_it_is_accepted(model: Path) -> None:
    with open(model / "README.md", "a", encoding="utf-8") as card:
        card.write("\nPasskey: 100 % at 1M\n")
    (verdict, sentence), _ = verdicts(model)
    assert verdict == "note" and sentence.startswith("README.md was written by ropewalk and edited since")
    cli_ends_with(0, ["doctor", str(model), "--accept", "README.md"])
    assert [verdict for verdict, _ in verdicts(model)] == ["ok"]


def test_of_a_model_by_ropewalk_without_its_record_that_is_said(model: Path) -> None:
    (model / MARK).unlink()
    assert "ropewalk wrote the model, and its record of that" in " ".join(sentence for _, sentence in verdicts(model))
    (model / "README.md").write_text("Somebody else's model.", encoding="utf-8")
    assert "ropewalk wrote" not in " ".join(sentence for _, sentence in verdicts(model))


def test_what_ropewalk_itself_puts_into_a_models_directory_later_is_no_doubt(tmp_path: Path) -> None:
    """Checkpoints, an adapter, records, a card, a page, what --fix replaced."""
    (tmp_path / "text.txt").write_text(testing.prose(800, 0))
    run = tmp_path / "run"
    asked = dict(data=tmp_path / "text.txt", window=256, batch_size=1, mode="lora", out=run)
    ropewalk.train("hemp", **asked, steps=1, save_every=1)
    ropewalk.train("hemp", **asked, steps=2, save_every=1, resume=True)
    ropewalk.perplexity(run, data=[tmp_path / "text.txt"], windows=[256], out=run / "measured.jsonl")
    ropewalk.card(run, records=[run / "measured.jsonl"])
    edit(run / "tokenizer_config.json", lambda tokenizer: tokenizer.update(model_max_length=128))
    ropewalk.doctor(run, accept=["tokenizer_config.json"])
    assert ropewalk.doctor(run, fix=True).kept
    for place in (run, run / "adapter"):
        assert [sentence for verdict, sentence in verdicts(place) if verdict != "ok"] == []


def test_weights_that_were_changed_on_purpose_are_accepted_by_name_and_nothing_unnoted_is(model: Path) -> None:
    flip(model / WEIGHTS)
    with pytest.raises(UserError, match=r"--accept takes files whose digests .* got other\.json"):
        ropewalk.doctor(model, accept=[WEIGHTS, "other.json"])
    assert [verdict for verdict, _ in verdicts(model)] == ["wrong"]
    ropewalk.doctor(model, accept=[WEIGHTS])
    assert [verdict for verdict, _ in verdicts(model)] == ["ok"]


def test_what_fix_writes_is_as_it_should_be_unless_somebody_edited_it_before(model: Path) -> None:
    limit = "tokenizer_config.json"
    edit(model / limit, lambda tokenizer: tokenizer.update(model_max_length=128))
    edit(model / "config.json", lambda config: config["rope_parameters"].update(factor=4))
    marks.mark(model, digests=digests.to_note(model))  # as if ropewalk had written the one and the other
    edit(model / "config.json", EDITS["activation"][1])
    assert len(ropewalk.doctor(model, fix=True).kept) == 2
    assert [(verdict, sentence.split()[0]) for verdict, sentence in verdicts(model)] == [
        ("note", "config.json"),
        ("ok", WEIGHTS),
    ]


def test_a_mark_that_notes_weights_alone_says_nothing_of_other_files(model: Path) -> None:
    marks.mark(model, digests={WEIGHTS: noted(model)[WEIGHTS]})  # as earlier versions did
    edit(model / "config.json", EDITS["activation"][1])
    assert verdicts(model) == [("ok", f"{WEIGHTS} is as written, to the last bit")]


def test_templates_and_adapters_are_among_what_decides(model: Path) -> None:
    names = ["chat_template.jinja", "additional_chat_templates/tools.jinja", "adapter/adapter_config.json", "own.py"]
    for name in names:
        (model / name).parent.mkdir(exist_ok=True)
        (model / name).write_text("{}", encoding="utf-8")
    assert {*names} <= {*digests.to_note(model)} and "held_out.json" not in digests.to_note(model)


def test_the_last_line_says_that_nothing_confirms_weights_without_a_digest(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Noise of a matrix's own scale passes every reading of values, and a digest tells it."""
    name, weights = "model.layers.1.self_attn.k_proj.weight", load_file(model / WEIGHTS)
    cli_ends_with(0, ["doctor", str(model)])
    assert "not confirmed" not in capsys.readouterr().out
    noise = torch.randn(weights[name].shape, generator=torch.Generator().manual_seed(0)) * weights[name].float().std()
    (model / WEIGHTS).unlink()
    save_file(weights | {name: noise.to(weights[name].dtype)}, model / WEIGHTS, {"format": "pt"})
    cli_ends_with(1, ["doctor", str(model)])
    (model / MARK).unlink()
    capsys.readouterr()
    cli_ends_with(0, ["doctor", str(model)])
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("sound") and "not confirmed: that the weights are those that were trained" in last
