"""A run of some families writes their rows of readers.md, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

from readers.part import with_rows_of

PAGE = Path(__file__).parents[2] / "docs" / "readers.md"


def test_a_page_put_into_itself_is_itself() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert with_rows_of(page, page, ["qwen3_moe", "llama", "falcon-7b"]) == page


def test_new_rows_take_the_place_of_old_ones_and_footnotes_are_numbered_again() -> None:
    head = "# Page\n\n| family | method | a |\n|---|---|---|\n"
    page = (
        head + "| x | linear | refused (1) |\n| y | linear | refused (2) |\n\n1. one\n2. two\n\n- lm-eval: as it was\n"
    )
    part = head + "| x | linear | 1e-06 |\n| z | linear | does not load (1) |\n\n1. three\n\n- lm-eval: less\n"
    assert with_rows_of(page, part, ["x", "z"]) == (
        head + "| x | linear | 1e-06 |\n| y | linear | refused (1) |\n| z | linear | does not load (2) |\n\n"
        "1. two\n2. three\n\n- lm-eval: as it was\n"
    )
