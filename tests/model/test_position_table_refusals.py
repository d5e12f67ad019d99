"""What a learned table of positions cannot do is refused with the reason, and a table that is not what the config says is found."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import ropewalk
from learned_tables import LONGER, WINDOW, directory_of, model_of
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.evals.likelihood import position_limit
from ropewalk.model.extend import extended_config
from ropewalk.model.load import load_model
from ropewalk.readers.examine import examine


@pytest.mark.parametrize("command", ["train", "perplexity"])
def test_a_model_that_reads_in_both_directions_is_extended_and_not_trained_on_next_tokens(command, tmp_path):
    source, text = directory_of(tmp_path / "a", "roberta"), tmp_path / "book.txt"
    text.write_text(testing.prose(80), encoding="utf-8")
    more = dict(window=LONGER, steps=1, out=tmp_path / "b") if command == "train" else {}
    with pytest.raises(UserError, match="a roberta model reads in both directions and predicts none"):
        getattr(ropewalk, command)(source, data=text, **more)


@pytest.mark.parametrize("command", ["theory", "attention"])
def test_theory_and_scores_are_about_rotations(command, tmp_path):
    source, text = directory_of(tmp_path / "a"), tmp_path / "book.txt"
    text.write_text(testing.prose(80), encoding="utf-8")
    more = dict(data=text) if command == "attention" else dict(out=tmp_path / "t")
    with pytest.raises(UserError, match="rotation.*choose a RoPE model"):
        getattr(ropewalk, command)(source, **more)


@pytest.mark.parametrize(
    "options, rule",
    [
        (dict(window=LONGER, method="yarn"), "a learned table of positions is interpolated, .* gpt2 model has none"),
        (dict(window=LONGER, method="abf", rope_theta=5e5), "leave --method and its parameters out"),
        (dict(window=WINDOW), "not longer than the model's own 16"),
    ],
)
def test_what_a_table_cannot_do_is_a_sentence(options, rule, tmp_path):
    with pytest.raises(UserError, match=rule):
        ropewalk.extend(directory_of(tmp_path / "a"), **options, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_direct_fine_tuning_has_no_rows_past_the_table(tmp_path):
    (tmp_path / "book.txt").write_text(testing.prose(80), encoding="utf-8")
    with pytest.raises(UserError, match="has no rows for them; leave --method plain out"):
        ropewalk.train(
            directory_of(tmp_path / "a"), data=tmp_path / "book.txt", window=LONGER, method="plain", steps=1, out=tmp_path / "b"
        )  # fmt: skip


def _edited(directory: Path, **keys: Any) -> Path:
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | keys))
    return directory


def _other_table(directory: Path) -> Path:
    tensors = load_file(directory / "model.safetensors")
    tensors["transformer.wpe.weight"] = tensors["transformer.wpe.weight"].roll(1, 0)
    save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
    return directory


@pytest.mark.parametrize(
    "spoil, rule",
    [
        (
            lambda path: _edited(path, n_positions=48),
            "the ropewalk block says interpolated-table with factor 4 from 16 to 64",
        ),
        (
            lambda path: _edited(path, n_positions=48, ropewalk=None),
            "48 rows .n_positions., but transformer.wpe.weight has 64",
        ),
        (lambda path: _edited(path, ropewalk={"window": 64}), "ropewalk block is damaged"),
        (_other_table, "is not the interpolated table that `ropewalk extend` wrote"),
    ],
)
def test_a_table_that_is_not_what_the_config_says_is_refused(spoil, rule, tmp_path):
    ropewalk.extend(directory_of(tmp_path / "a"), window=LONGER, out=tmp_path / "b")
    with pytest.raises(UserError, match=rule):
        load_model(spoil(tmp_path / "b"))


def test_a_config_that_is_longer_than_the_table_is_not_extended(tmp_path):
    source = _edited(directory_of(tmp_path / "a"), n_positions=32)
    with pytest.raises(UserError, match="32 rows .n_positions., but transformer.wpe.weight has 16"):
        ropewalk.extend(source, window=LONGER, out=tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_relative_positions_of_bert_are_no_rows_of_a_table(tmp_path):
    source = _edited(directory_of(tmp_path / "a", "bert"), position_embedding_type="relative_key_query")
    with pytest.raises(UserError, match="positions of type 'relative_key_query'"):
        ropewalk.extend(source, window=LONGER, out=tmp_path / "b")


def test_rows_that_are_no_positions_do_not_count_for_the_longest_window():
    assert position_limit(model_of("opt")) == WINDOW
    assert position_limit(testing.tiny("llama")) is None


def test_doctor_holds_the_block_of_a_table_against_the_config(tmp_path):
    ropewalk.extend(directory_of(tmp_path / "a"), window=LONGER, out=tmp_path / "b")

    def of_the_block() -> list[str]:
        return [finding.verdict for finding in examine(str(tmp_path / "b")).findings if finding.number == 2]

    assert of_the_block() == ["ok"]
    _edited(tmp_path / "b", n_positions=48)
    assert of_the_block() == ["wrong"]


@pytest.mark.parametrize(
    "layers, local",
    [([[["global", "local"], 2]], "2 of 4 layers see 8 tokens only"), ([[["global"], 1], [["local"], 3]], "3 of 4 layers see 8 tokens only")],
)  # fmt: skip
def test_layers_that_see_a_part_of_the_longer_table_are_told(layers, local, tmp_path, caplog):
    config = dict(
        model_type="gpt_neo", hidden_size=32, num_layers=4, num_heads=2, window_size=8, attention_types=layers
    )
    (tmp_path / "config.json").write_text(json.dumps(config | dict(max_position_embeddings=WINDOW)))
    with caplog.at_level(logging.WARNING, "ropewalk"):
        extended_config(Checkpoint.open(tmp_path), window=LONGER)
    assert local in caplog.text
    assert local in {finding.sentence for finding in examine(str(tmp_path)).findings if finding.number == 6}


def test_r5_a_longer_table_that_no_layer_would_see_is_refused(tmp_path):
    model = directory_of(tmp_path / "a", "gpt_neo")
    local = _edited(model, attention_types=[[["local"], 2]])
    with pytest.raises(UserError, match=r"local in every layer .* 8 tokens only"):
        ropewalk.extend(local, window=LONGER, out=tmp_path / "b")
    longer = ropewalk.extend(_edited(model, window_size=LONGER), window=LONGER, out=tmp_path / "c")
    assert longer.window == LONGER  # a local layer that sees as much is a global one
    _edited(tmp_path / "c", window_size=8)
    assert [each.verdict for each in examine(str(tmp_path / "c")).findings if each.number == 6] == ["wrong"]


@pytest.mark.parametrize(
    "family, reason",
    [
        ("bloom", "ALiBi, whose slopes could be scaled, but no config says it"),
        ("t5", "nothing to interpolate"),
        *((family, "interpolated in GPT-2, GPT-Neo, OPT") for family in ("big_bird", "longformer", "led")),
    ],
)
def test_what_has_no_table_is_refused_with_the_reason(family, reason, tmp_path):
    source = _edited(testing.tiny_directory(tmp_path / "a", window=WINDOW), model_type=family)
    with pytest.raises(UserError, match=reason):
        ropewalk.extend(source, window=LONGER, out=tmp_path / "b")
