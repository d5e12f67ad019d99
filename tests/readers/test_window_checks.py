"""`ropewalk doctor` on windows: what the config leaves open is answered, and a factor that contradicts the window is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import ropewalk
import shelf
from ropewalk import cli
from ropewalk.checkpoint.window import Answers
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Diagnosis
from ropewalk.readers.examine import examine

LINEAR = shelf.llama_2() | dict(max_position_embeddings=8192, rope_scaling=dict(type="linear", factor=4.0))


def yarn(original: int, factor: float, positions: int) -> dict[str, Any]:
    scaling = dict(rope_type="yarn", factor=factor, original_max_position_embeddings=original)
    return shelf.llama_2() | dict(max_position_embeddings=positions, rope_scaling=scaling)


def write(directory: Path, config: dict[str, Any], **others: Any) -> Path:
    directory.mkdir(exist_ok=True)
    for name, content in {"config": config, **others}.items():
        (directory / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return directory


def sentences(diagnosis: Diagnosis, number: int, verdict: str) -> list[str]:
    return [each.sentence for each in diagnosis.findings if (each.number, each.verdict) == (number, verdict)]


def exit_status(*words: str) -> int:
    try:
        cli.main(["doctor", *words])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_doctor_takes_the_options_that_it_asks_for(tmp_path: Path) -> None:
    """A linear config of a vendor: nothing says whether 8192 is before or after the factor 4, until somebody does."""
    model = write(tmp_path / "m", LINEAR | dict(max_seq_len=4096))
    unanswered = examine(model)
    assert unanswered.verdict == "incomplete" and "window open" in unanswered.summary
    assert sentences(unanswered, 3, "not checked")
    [question] = sentences(unanswered, 4, "note")
    assert "add --current-window 8192 (original window 2048) or --current-window 32768" in question
    for answers in (Answers(current_window=32768), Answers(original_window=8192)):
        answered = examine(model, answers=answers)
        assert answered.summary.endswith("window 32768") and not sentences(answered, 4, "note")
        [length] = sentences(answered, 3, "wrong")  # lengths are held against the answer
        assert length.startswith("max_seq_len is 4096 and the window 32768")
    assert exit_status(str(model), "--current-window", "32768") == 1
    assert exit_status(str(model)) == 3


def test_an_answer_that_contradicts_the_config_is_refused_as_everywhere(tmp_path: Path, capsys) -> None:
    model = write(tmp_path / "m", LINEAR)
    with pytest.raises(UserError, match="--current-window 9000 does not fit the config's linear scaling"):
        examine(model, answers=Answers(current_window=9000))
    assert exit_status(str(model), "--original-window", "3000") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_open_checkpoint_brings_its_answers(tmp_path: Path) -> None:
    from ropewalk.checkpoint.checkpoint import Checkpoint

    tiny = dict(hidden_size=64, intermediate_size=64, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=1)
    model = write(tmp_path / "m", LINEAR | tiny | dict(vocab_size=64))
    assert ropewalk.doctor(Checkpoint.open(model, current_window=32768)).summary.endswith("window 32768")
    assert ropewalk.doctor(model, current_window=8192).summary.endswith("window 8192")


@pytest.mark.parametrize(
    ("original", "factor", "positions", "says", "most"),
    [
        # A YaRN for 32768 under a window of 131072: readers would serve 98304 tokens that it was not made for.
        (8192, 4.0, 131072, "serve 98304 tokens for which the rotation was not made, and 32768 belongs there", 32768),
        # A factor multiplied twice: 16 where 32768 / 8192 is 4.
        (8192, 16.0, 32768, "the factor is too large (applied twice: it is the square of that)", 32768),
        # Too large in another way.
        (8192, 8.0, 32768, "Either the factor is too large: then", 32768),
        # A factor that was lost: the rotation is that before the extension.
        (8192, 1.0, 32768, "by a rotation without scaling, and max_position_embeddings is 32768, which would be factor 4", 8192),
    ],
)  # fmt: skip
def test_a_factor_that_contradicts_the_window_is_wrong_with_both_explanations(
    original: int, factor: float, positions: int, says: str, most: int, tmp_path: Path
) -> None:
    diagnosis = examine(write(tmp_path / "m", yarn(original, factor, positions)))
    [sentence] = sentences(diagnosis, 4, "wrong")
    assert says in sentence and sentence.count("Either") == 1 and "; or" in sentence
    assert f"serve at most {most} tokens" in sentence  # the smaller of the two cannot harm
    assert "raise it" not in sentence and diagnosis.verdict == "wrong"


def test_a_linear_factor_that_contradicts_a_named_original_window_is_wrong(tmp_path: Path) -> None:
    config = LINEAR | dict(max_position_embeddings=131072, original_max_position_embeddings=8192)
    assert sentences(examine(write(tmp_path / "m", config)), 4, "wrong")


def test_a_factor_of_1_scales_nothing_whatever_the_method(tmp_path: Path) -> None:
    """Llama 3's scaling may have a window beyond factor x original (8 x 8192 under 131072), and not with factor 1, which is no scaling."""
    config = shelf.llama_31()
    config["rope_scaling"] = config["rope_scaling"] | dict(factor=1.0)
    [sentence] = sentences(examine(write(tmp_path / "llama3", config)), 4, "wrong")
    assert "max_position_embeddings is 131072, which is 16 times as many" in sentence
    linear = LINEAR | dict(rope_scaling=dict(type="linear", factor=1.0))  # names no window that 8192 could contradict
    for name, config in (("linear", linear), ("yarn", yarn(8192, 1.0, 8192)), ("qwen3", yarn(32768, 1.0, 40960))):
        diagnosis = examine(write(tmp_path / name, config))
        [note] = sentences(diagnosis, 4, "note")
        assert "has factor 1, which leaves the rotation unscaled, and a config alone cannot tell" in note


@pytest.mark.parametrize("positions", [32768, 40960, 131072])
def test_a_yarn_as_the_cards_of_qwen_ask_for_it_is_not_wrong(positions: int, tmp_path: Path) -> None:
    """Qwen2.5's card leaves max_position_embeddings at 32768, Qwen3's at 40960, under factor 4 on 32768; their tokenizers have 131072."""
    tokenizer = dict(model_max_length=131072)
    diagnosis = examine(write(tmp_path / "m", yarn(32768, 4.0, positions), tokenizer_config=tokenizer))
    assert not diagnosis.wrong and diagnosis.summary.endswith("window 131072")
    assert any("raise it to 131072" in each for each in sentences(diagnosis, 4, "note")) == (positions != 131072)


@pytest.mark.parametrize("kind", ["yarn", "linear"])
def test_an_original_window_that_is_max_position_embeddings_too_is_asked_about(kind: str, tmp_path: Path) -> None:
    """A model of 8192 tokens extended to 32768, whose original window somebody made 32768: the keys are those of Qwen2.5 with YaRN."""
    config = yarn(32768, 4.0, 32768)
    config["rope_scaling"]["rope_type"] = kind
    model = write(tmp_path / "m", config, tokenizer_config=dict(model_max_length=32768))
    diagnosis = examine(model)
    assert diagnosis.verdict == "incomplete" and diagnosis.summary.endswith("window open")
    assert sentences(diagnosis, 3, "not checked") and not any(row.window_differs for row in diagnosis.readers)
    [said] = sentences(diagnosis, 4, "note")
    assert "8192 belongs there" in said and "--current-window 131072 says so" in said and "raise it" not in said
    assert exit_status(str(model)) == 3
    answered = examine(model, answers=Answers(current_window=131072))
    assert answered.summary.endswith("window 131072") and not sentences(answered, 3, "not checked")
    mends = "the original window in the config is wrong, and 8192 belongs there" if kind == "yarn" else "does not fit"
    with pytest.raises(UserError, match=mends):
        examine(model, answers=Answers(current_window=32768))


@pytest.mark.parametrize(
    ("config", "tokenizer"),
    [
        (yarn(32768, 4.0, 32768) | dict(max_sequence_length=131072), {}),
        (yarn(262144, 4.0, 262144), dict(model_max_length=1010000)),  # as Qwen rounds a million
        (
            shelf.llama_2()
            | dict(rope_scaling=dict(factor=4.0, type="dynamic", original_max_position_embeddings=4096)),
            {},
        ),
        (shelf.llama_31(), {}),
        (shelf.extended_yarn(), {}),
    ],
)
def test_a_window_that_another_length_or_the_scaling_itself_settles_is_not_asked_about(
    config: dict[str, Any], tokenizer: dict[str, Any], tmp_path: Path
) -> None:
    assert "window open" not in examine(write(tmp_path / "m", config, tokenizer_config=tokenizer)).summary


def test_a_config_without_scaling_says_what_it_cannot_tell(tmp_path: Path) -> None:
    """max_position_embeddings raised to 32768 and nothing else: no file shows that, a measurement does."""
    model = write(tmp_path / "m", shelf.llama_2() | dict(max_position_embeddings=32768))
    [sentence] = sentences(examine(model), 4, "note")
    assert "a config alone cannot tell whether 32768 tokens were trained" in sentence
    command = sentence.partition("by ropewalk ")[2].partition(" (where")[0]
    assert cli.parse(command.split())[0] == "perplexity" and "8192 32768" in command  # a command that exists


def test_a_tokenizers_limit_is_a_note_where_ropewalk_wrote_nothing(tmp_path: Path) -> None:
    limit = dict(model_max_length=4096)
    for config, answers, window in (
        (LINEAR, Answers(), "may be 8192 or 32768"),  # open: below either reading
        (LINEAR, Answers(current_window=32768), "is 32768"),
        (yarn(8192, 4.0, 32768), Answers(), "is 32768"),
    ):
        found = examine(write(tmp_path / "m", config, tokenizer_config=limit), answers=answers)
        assert [each for each in sentences(found, 3, "note") if "model_max_length 4096" in each and window in each]
    ours = write(tmp_path / "ours", shelf.extended(), tokenizer_config=limit)
    assert any("model_max_length 4096" in each for each in sentences(examine(ours), 3, "wrong"))


def test_a_whole_model_is_sound_and_one_without_tokenizer_or_weights_is_not(tmp_path: Path, capsys) -> None:
    ropewalk.extend("hemp", window=512, out=tmp_path / "whole")
    whole = tmp_path / "whole"
    assert exit_status(str(whole), "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == "sound"
    for lacking, number in (("tokenizer*", 5), ("*.safetensors", 10)):
        part = shutil.copytree(whole, tmp_path / f"without{number}")
        for file in part.glob(lacking):
            file.unlink()
        assert exit_status(str(part), "--json") == 3, lacking
        shown = json.loads(capsys.readouterr().out)
        assert shown["verdict"] == "incomplete" and not shown["sound"]
        assert number in {each["number"] for each in shown["findings"] if each["verdict"] == "not checked"}
        assert exit_status(str(part)) == 3
        assert capsys.readouterr().out.splitlines()[-1].startswith("incomplete: ")
