"""Run llama.cpp's converter as it is, and tell it two things that its own files leave out. Run by converter.py, never imported.

    python driver.py CONVERTER PRE_TOKENIZER MODEL --outfile FILE …

- It knows a pre-tokenizer by the hash of what the whole tokenizer makes of a text, so a vocabulary that nobody listed stops it,
  though llama.cpp has the pre-tokenizer itself. PRE_TOKENIZER is its name, used where the hash is unknown.
- It reads the config through transformers, whose version 5 renames keys that the converter looks for (GPT-NeoX's rotary_pct).
  What the config.json has and transformers leaves out is put back.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

place, pre_tokenizer, model, *options = sys.argv[1:]
sys.path[:0] = [place, f"{place}/gguf-py"]

import conversion.base  # noqa: E402  # pyrefly: ignore[missing-import]  # the converter's own

recognised = conversion.base.TextModel.get_vocab_base_pre
loaded = conversion.base.ModelBase.load_hparams


def named(self: Any, tokenizer: Any) -> str:
    try:
        return recognised(self, tokenizer)
    except NotImplementedError:
        if not pre_tokenizer:
            raise
        return pre_tokenizer


def completed(directory: Path, is_mistral_format: bool) -> dict[str, Any]:
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    return config | loaded(directory, is_mistral_format)


conversion.base.TextModel.get_vocab_base_pre = named
conversion.base.ModelBase.load_hparams = staticmethod(completed)
sys.argv = [f"{place}/convert_hf_to_gguf.py", model, *options]
runpy.run_path(sys.argv[0], run_name="__main__")
