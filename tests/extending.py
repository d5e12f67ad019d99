"""What tests of `extend` share: the windows, tokens, a model as plain transformers reads it, a config that was edited."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers

from ropewalk import testing
from ropewalk.checkpoint.files import read_config

WINDOW, LONGER = 64, 256


def random_ids(n: int) -> torch.Tensor:
    return torch.randint(0, testing.BYTE_VOCABULARY, (2, n), generator=torch.Generator().manual_seed(0))


def plain_model(directory: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def edit_config(directory: Path, **changes: object) -> None:
    config_dict = read_config(directory)
    for key, value in changes.items():
        if value is None:
            config_dict.pop(key, None)
        else:
            config_dict[key] = value
    (directory / "config.json").write_text(json.dumps(config_dict))
