"""What the commands' signatures have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

Model = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Out = Annotated[Path, tyro.conf.arg(metavar="DIR")]
RecordFile = Annotated[Path | None, tyro.conf.arg(metavar="FILE.jsonl")]
Data = Annotated[list[str], tyro.conf.arg(metavar="DATA...")]
#: A switch that is off unless named; without its `--no-` twin, which would only lengthen every help page.
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
