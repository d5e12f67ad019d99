"""A measurement on the training text is warned of: by the name, by the contents of files, of a checkpoint too; and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

import ropewalk
from ropewalk import cli, testing
from ropewalk.evals.seen_texts import warn_of_seen_texts


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "books").mkdir()
    (tmp_path / "books/a.txt").write_text("words of a book")
    (tmp_path / "run/checkpoints/step-000002").mkdir(parents=True)
    (tmp_path / "run/run.yaml").write_text(
        f"command: train\ndata:\n- {tmp_path / 'books'}\n- '0.7'\n- some/set\n- '0.3'\n"
    )
    return tmp_path / "run"


@pytest.mark.parametrize(
    ("source", "seen"),
    [
        ("books", True),
        ("books/a.txt", True),
        ("copy.txt", True),
        ("some/set", True),
        ("other.txt", False),
        ("a/set", False),
    ],
)
@pytest.mark.parametrize("below", ["", "checkpoints/step-000002"])
def test_texts_that_a_run_read_are_named(run, source, seen, below, tmp_path, monkeypatch, caplog) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    Path("copy.txt").write_text("words of a book")
    Path("other.txt").write_text("words of A book")
    warn_of_seen_texts(str(run / below), [source])
    assert (f"was trained on texts of {source}: what is measured there" in caplog.text) is seen


def test_a_model_that_no_run_wrote_is_not_asked(tmp_path, caplog) -> None:
    (tmp_path / "text.txt").write_text("words")
    for model in ("hemp", str(tmp_path)):
        warn_of_seen_texts(model, [tmp_path / "text.txt"])
    assert not caplog.text


def test_python_and_the_command_line_say_it_once_however_often_the_model_is_opened(
    run, tmp_path, caplog, capsys
) -> None:
    text = tmp_path / "books/a.txt"
    text.write_text(testing.prose(300))
    ropewalk.extend("hemp", window=1024, out=tmp_path / "model")
    (run / "run.yaml").rename(tmp_path / "model/run.yaml")
    for _ in range(2):
        ropewalk.perplexity(tmp_path / "model", data=[text], windows=[256], device="cpu")
    assert caplog.text.count(f"was trained on texts of {text}") == 1
    cli.main(
        [
            "gain",
            str(tmp_path / "model"),
            "--data",
            str(text),
            str(tmp_path / "books"),
            "--window",
            "256",
            "--short",
            "64",
        ]
    )
    assert capsys.readouterr().err.count("was trained on texts of") == 1


def test_a_page_says_it_too(run, tmp_path) -> None:
    """A file of a directory that was trained on has another name than that."""
    text = tmp_path / "books/a.txt"
    text.write_text(testing.prose(300))
    ropewalk.extend("hemp", window=1024, out=tmp_path / "model")
    (run / "run.yaml").rename(tmp_path / "model/run.yaml")
    for name in ("model", "hemp"):
        model = tmp_path / name if name == "model" else name
        ropewalk.perplexity(model, data=[text], windows=[256], device="cpu", out=tmp_path / f"{name}.jsonl")
        page = ropewalk.report([tmp_path / f"{name}.jsonl"], tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert ("those figures tell what it learnt by heart" in page) is (name == "model")
