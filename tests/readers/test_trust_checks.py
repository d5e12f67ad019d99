"""A value that no weight's shape depends on is named, whatever it is, where nothing independent speaks of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import ropewalk
import shelf
from ropewalk.checkpoint.hub import locate
from ropewalk.cli.tables.doctor import show_diagnosis, verdict
from ropewalk.readers.examine import examine


def changed(model: Path, **values: object) -> Path:
    file = model / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")
    return model


def on_trust(model: Path) -> tuple[str, str]:
    ((verdict, sentence),) = [(each.verdict, each.sentence) for each in examine(model).findings if each.number == 17]
    return verdict, sentence


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """hemp in a directory of its own, with no record of who wrote it."""
    return Path(shutil.copytree(locate("hemp"), tmp_path / "foreign"))


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ({"rope_theta": 500000.0, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_theta 500000"),
        ({"rms_norm_eps": 0.1}, "rms_norm_eps 0.1"),
        ({"hidden_act": "gelu"}, "hidden_act gelu"),
        ({"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 128}, "num_attention_heads 2"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)  # fmt: skip
def test_a_wrong_value_that_fits_every_shape_is_named(values: dict[str, object], shown: str, foreign: Path) -> None:
    assert not ropewalk.doctor(changed(foreign, **values)).wrong  # which is why it has to be said
    verdict, sentence = on_trust(foreign)
    assert verdict == "note" and shown in sentence and f"ropewalk perplexity {foreign}" in sentence


def test_a_theta_that_takes_a_fault_away_is_called_the_one_that_readers_take_anyway(tmp_path: Path) -> None:
    """transformers 5 wrote it where version 4 does not look: a fault by any theta but the one that version 4 takes then."""
    written_by_5 = {key: value for key, value in shelf.smollm2().items() if key not in ("rope_theta", "rope_scaling")}
    for theta, faults in ((100000.0, {1}), (10000.0, set())):
        (tmp_path / "config.json").write_text(
            json.dumps(written_by_5 | {"rope_parameters": {"rope_type": "default", "rope_theta": theta}})
        )
        assert {finding.number for finding in examine(tmp_path).wrong} == faults
        verdict, sentence = on_trust(tmp_path)
        assert verdict == "note" and f"rope_theta {theta:g}" in sentence
        assert ("also take where the key is lost" in sentence) == (not faults)


def test_a_default_that_nobody_wrote_is_said_to_be_one(foreign: Path) -> None:
    file = foreign / "config.json"
    config = json.loads(file.read_text(encoding="utf-8"))
    del config["hidden_act"]
    file.write_text(json.dumps(config), encoding="utf-8")
    assert "hidden_act (not named: readers take a default)" in on_trust(foreign)[1]


def test_a_width_of_heads_that_a_norm_settles_is_not_on_trust(tmp_path: Path) -> None:
    from ropewalk import testing

    with_norms = testing.tiny_directory(tmp_path / "with", "qwen3")
    assert "num_attention_heads" not in on_trust(with_norms)[1]
    assert "num_attention_heads" in on_trust(testing.tiny_directory(tmp_path / "without", "llama"))[1]


def test_what_ropewalk_wrote_is_on_record_until_it_is_edited(tmp_path: Path) -> None:
    longer = tmp_path / "longer"
    ropewalk.extend("hemp", window=512, out=longer)
    assert on_trust(longer)[0] == "ok"
    assert on_trust(changed(longer, rms_norm_eps=0.1))[0] == "note"
    # The record was left behind.
    elsewhere = shutil.copytree(longer, tmp_path / "elsewhere", ignore=shutil.ignore_patterns(".ropewalk.json"))
    assert on_trust(Path(elsewhere))[0] == "note"


@pytest.mark.parametrize(("named", "unusual"), [(5.0, True), (0.5, True), (1.0, False), (1.2079, False), (None, False)])
def test_an_attention_factor_far_from_yarns_own_is_unusual_and_who_ignores_it_is_starred(
    named: float | None, unusual: bool, foreign: Path, capsys
) -> None:
    """1.2079 is published beside factor 4 and is YaRN's own of factor 8; vLLM takes what is named, SGLang and MLX compute it (1.13863)."""
    yarn = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=256, attention_factor=named)
    theta = json.loads((foreign / "config.json").read_text(encoding="utf-8"))["rope_parameters"]
    changed(foreign, max_position_embeddings=1024, rope_parameters=theta | yarn, rope_scaling=yarn)
    diagnosis = examine(foreign)
    notes = [each.sentence for each in diagnosis.findings if each.number == 17 and "unusual" in each.sentence]
    assert [f"is {named:g}, which" in note and "= 1.13863." in note for note in notes] == [True] * unusual
    differing = {row.reader for row in diagnosis.readers if row.scores_differ}
    assert differing == ({"sglang", "mlx"} if named else set())
    show_diagnosis(diagnosis)
    shown = capsys.readouterr().out
    assert ("sglang*" in shown) == ("mlx*" in shown) == bool(named) and "vllm*" not in shown
    assert ("of the readers, sglang, mlx" in verdict(replace(diagnosis, findings=()))) == bool(named)


def test_a_tokenizer_of_another_model_is_noted_with_the_values(foreign: Path) -> None:
    """That of hemp, whose first and last tokens are its own, beside a config of more rows and other ids."""

    def notes() -> list[str]:
        return [each.sentence for each in examine(foreign).findings if (each.number, each.verdict) == (5, "note")]

    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    (foreign / "generation_config.json").unlink(missing_ok=True)
    assert not notes()
    changed(foreign, eos_token_id=[config["eos_token_id"], 7])  # one of several is enough
    assert not notes()
    changed(foreign, eos_token_id=7)
    [note] = notes()
    assert f"is {config['eos_token_id']} and the config's eos_token_id 7;" in note and "rows" not in note
    for file in foreign.glob("*.safetensors"):
        file.unlink()
    changed(foreign, vocab_size=49152)
    [note] = notes()
    assert "it has 2048 tokens and the embedding 49152 rows" in note
