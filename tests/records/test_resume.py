"""What a record file already holds."""

from __future__ import annotations

import shutil
import sysconfig
from pathlib import Path

import ropewalk
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.records import Perplexity, read


def test_two_models_with_equal_figures_are_both_on_record_and_each_once(tmp_path):
    hemp = Checkpoint.open("hemp").path
    for name in ("mine", "yours"):
        shutil.copytree(hemp, tmp_path / name)
    text = Path(sysconfig.get_path("stdlib")) / "tarfile.py"
    asked = dict(data=text, windows=[64], stride=32, limit=1, max_tokens=128, out=tmp_path / "rows.jsonl", device="cpu")
    for _ in range(2):
        for name in ("mine", "yours"):
            ropewalk.perplexity(tmp_path / name, **asked)
    found = [(m.run.model.name, m.row.perplexity) for m in read([tmp_path / "rows.jsonl"]).of(Perplexity)]
    assert [Path(name).name for name, _ in found] == ["mine", "yours"]
    assert found[0][1] == found[1][1]
