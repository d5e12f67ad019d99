"""Records: the seam between what runs a model and what draws a page.

in   typed rows from training and measuring, each tied to a run
out  a JSON-lines file: a `run` header (command, versions, device, seed, model), then that run's rows

Left of this room there is torch and maybe eight GPUs; right of it, small text that any machine reads. Every number in a
table or on a page comes from a row, and every row names the run that made it.

    {"kind": "run", "id": "3f9a…", "command": "ropewalk perplexity hemp …", "model": {…}, …}
    {"kind": "perplexity", "run": "3f9a…", "window": 1024, "stride": 256, "perplexity": 9.81, …}

    rows.py   what was measured, kind by kind
    files.py  writing a run's rows, reading them back
"""

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records.files import Recorder, Records, check_file, new_run, read, to_line, versions
from ropewalk.records.rows import (
    Adjacent,
    AttentionScores,
    Benchmark,
    BenchmarkComparison,
    DocumentScore,
    DocumentSummary,
    Passkey,
    PasskeySummary,
    Perplexity,
    Retrieval,
    Run,
    Step,
    Summary,
)

# The theory's results are rows as they are, so their classes are among those of this room.
from ropewalk.rope.bounds import Bounds
from ropewalk.rope.growth import Growth
from ropewalk.rope.resolution import Resolution

__all__ = [
    "Adjacent",
    "AttentionScores",
    "Benchmark",
    "BenchmarkComparison",
    "Bounds",
    "DocumentScore",
    "DocumentSummary",
    "Growth",
    "ModelInfo",
    "Passkey",
    "PasskeySummary",
    "Perplexity",
    "Recorder",
    "Records",
    "Resolution",
    "Retrieval",
    "Run",
    "Step",
    "Summary",
    "check_file",
    "new_run",
    "read",
    "to_line",
    "versions",
]
