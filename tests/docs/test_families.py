"""docs/families.md: a verdict for every family, and none that is silent."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ropewalk import testing

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "families.md"
ROW = re.compile(r"^\| ([\w.-]+) \| (extended|refused|table interpolated) \| (.+) \|$", re.MULTILINE)


def _verdicts() -> dict[str, tuple[str, str]]:
    return {name: (outcome, sentence) for name, outcome, sentence in ROW.findall(PAGE.read_text(encoding="utf-8"))}


def test_no_silent_family_each_has_a_verdict_and_those_refused_a_sentence() -> None:
    verdicts = _verdicts()
    made_with = re.search(r"transformers ([\d.]+)", PAGE.read_text(encoding="utf-8"))
    assert made_with is not None
    if made_with.group(1) == transformers.__version__:
        # Of these no config can be made without more keys.
        assert set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(verdicts) <= {"gemma4_assistant"}
    assert sum(outcome == "extended" for outcome, _ in verdicts.values()) >= 100
    for name, (outcome, sentence) in verdicts.items():
        if outcome == "refused":
            assert "; " in sentence, f"{name} is told no way out"
            assert "put the model's own value back" not in sentence or name == "cohere"


def test_every_small_model_of_the_table_has_the_verdict_that_its_own_test_shows() -> None:
    verdicts = _verdicts()
    for name in testing.PUBLISHED:
        assert testing.tiny_config(name).model_type in verdicts
    for family in ("cohere2", "exaone4", "llama4_text", "bloom", "mpt"):
        assert verdicts[family][0] == "refused"
    for family in (
        "llama",
        "mixtral",
        "qwen3_next",
        "olmo3",
        "gemma4_text",
        "deepseek_v2",
        "mistral3",
        "qwen3_vl",
        "gemma3",
    ):
        assert verdicts[family][0] == "extended"


@pytest.mark.slow
def test_no_silent_family_the_page_is_what_every_family_does() -> None:
    make: dict[str, Any] = runpy.run_path(str(ROOT / "docs" / "make_families.py"))
    page = PAGE.read_text(encoding="utf-8")
    if f"transformers {transformers.__version__}," not in page:
        pytest.skip("made with another transformers")
    assert make["verdicts_text"]() == page
