"""What tests of several commands begin from."""

from pathlib import Path

import pytest

from ropewalk import cli, testing


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A directory with a model, a text, and a run of two steps with a checkpoint after each."""
    place = tmp_path_factory.mktemp("trained")
    testing.tiny_directory(place / "a", window=64)
    (place / "book.txt").write_text(testing.prose(60, 1), encoding="utf-8")
    words = "--window 128 --steps 2 --batch-size 1 --save-every 1 --learning-rate 1e-4 --allow-short --quiet"
    cli.main(
        ["train", str(place / "a"), "--data", str(place / "book.txt"), *words.split(), "--out", str(place / "run")]
    )
    return place
