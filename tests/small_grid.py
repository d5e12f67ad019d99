"""What tests of `ropewalk ablate` share: texts of the standard library, sizes of seconds."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import ropewalk

LIBRARY = Path(sysconfig.get_path("stdlib"))
TEXTS = {"test": [LIBRARY / "tarfile.py"], "data": [LIBRARY / "asyncio"], "validation": [LIBRARY / "ast.py"]}
SMALL = {"factors": [2], "documents": 1, "depths": 2, "trials": 1, "prompts": 1, "step_tokens": 1024, "device": "cpu"}


def ablate(out: Path, **options):
    return ropewalk.ablate("hemp", out=out, **{**TEXTS, **SMALL, **options})


def header(path: Path) -> dict:
    return json.loads(path.read_text().split("\n", 1)[0])
