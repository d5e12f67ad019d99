"""What tests of RULER share: facts to ask for, items on disk, a small measurement."""

from __future__ import annotations

import json

from ropewalk.evals.long_context import measure, write_items
from ropewalk.settings.measure import RulerSettings
from ropewalk.testing import byte_tokenizer, tiny

FACTS = [("Anna", "The letter was written by Anna."), ("Oslo", "The museum is in Oslo."), ("red", "The gate is red.")]


def written(folder, **fields):
    """The rows of hemp's items on disk."""
    count = write_items(RulerSettings("hemp", **fields), folder)
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(rows) == count
    return rows


def ruler(out=None, **changes):
    fields = dict(windows=[1000, 1300], tasks=["niah_single_1", "vt"], items=3) | changes
    return measure.ruler(tiny(window=2000), tokenizer=byte_tokenizer(), out=out, **fields)
