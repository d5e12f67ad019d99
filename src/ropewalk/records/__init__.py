"""Records: the seam between what runs a model and what draws a page.

in   typed rows from training and measuring, each tied to a run
out  a JSON-lines file: a `run` header (command, versions, device, seed, model), then that run's rows

Left of this room there is torch and maybe eight GPUs; right of it, small text that any machine reads. Every number in a
table or on a page comes from a row, and every row names the run that made it.

    {"kind":"run","schema":1,"id":"3f9a…","command":"ropewalk perplexity hemp …","model":{…,"scaling":{…}},…}
    {"kind":"perplexity","run":"3f9a…","window":1024,"stride":256,"perplexity":9.81,…}

    rows.py                 runs, perplexity, context gain, training steps; what all kinds share
    retrieval.py, long_context.py, attention.py, downstream.py
                            the other kinds; kinds.py has the table of all
    files.py, reading.py    writing a run's rows; reading them back as the classes that were written (decoding.py, a line)
    tables.py               rows as a pandas frame, or a notebook's table
    measurement.py          a row with its run: what figures and the page are made from
    variant.py              base, extrapolating, PI before or after training: what a run's model is called
    attention_summary.py    attention rows in a few numbers
    resume.py               what a record file already holds
    sources.py              texts by name in one line, and back
    evidence.py             what the lab measured nearest to a model and its scaling, in sentences
    paper.py, format.py     the paper's own figures; how a figure is written
"""

from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.records.attention import Adjacent, AttentionScores
from ropewalk.records.decoding import Unspecified
from ropewalk.records.downstream import Benchmark, BenchmarkComparison, DocumentRouge, DocumentSummary, Summary
from ropewalk.records.files import SCHEMA, Recorder, append_lines, check_file, new_run, rename_in, to_line, versions
from ropewalk.records.kinds import BOOKKEEPING, KINDS, Bounds, Growth, Resolution, Row
from ropewalk.records.long_context import EffectiveLength, LengthScore, LongItem, LongTask, Unfit
from ropewalk.records.measurement import Measurement
from ropewalk.records.reading import LeftOut, Records, read
from ropewalk.records.retrieval import Passkey, PasskeySummary, Retrieval, Trial
from ropewalk.records.rows import (
    ContextGain,
    DocumentGain,
    DocumentLoss,
    DocumentLosses,
    DocumentScore,
    Perplexity,
    PlaceGain,
    Run,
    Step,
)
from ropewalk.records.tables import Rows

__all__ = [
    "BOOKKEEPING",
    "KINDS",
    "SCHEMA",
    "Adjacent",
    "AttentionScores",
    "Benchmark",
    "BenchmarkComparison",
    "Bounds",
    "ContextGain",
    "DocumentGain",
    "DocumentLoss",
    "DocumentLosses",
    "DocumentRouge",
    "DocumentScore",
    "DocumentSummary",
    "EffectiveLength",
    "Growth",
    "LeftOut",
    "LengthScore",
    "LongItem",
    "LongTask",
    "Measurement",
    "ModelInfo",
    "Passkey",
    "PasskeySummary",
    "Perplexity",
    "PlaceGain",
    "Recorder",
    "Records",
    "Resolution",
    "Retrieval",
    "Row",
    "Rows",
    "Run",
    "Step",
    "Summary",
    "Trial",
    "Unfit",
    "Unspecified",
    "append_lines",
    "check_file",
    "new_run",
    "read",
    "rename_in",
    "to_line",
    "versions",
]
