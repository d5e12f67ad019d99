"""The table of all kinds of rows. A new kind is a dataclass with a `kind`, and an entry in `Row`."""

from __future__ import annotations

from typing import get_args

from ropewalk.records.attention import Adjacent, AttentionScores
from ropewalk.records.downstream import Benchmark, BenchmarkComparison, DocumentSummary, Summary
from ropewalk.records.long_context import EffectiveLength, LongItem, LongTask
from ropewalk.records.retrieval import Passkey, PasskeySummary, Retrieval
from ropewalk.records.rows import ContextGain, DocumentGain, DocumentScore, Perplexity, Step

# The theory's results are rows as they are.
from ropewalk.rope.bounds import Bounds
from ropewalk.rope.growth import Growth
from ropewalk.rope.resolution import Resolution

Row = (
    Perplexity
    | ContextGain
    | Passkey
    | PasskeySummary
    | Step
    | Benchmark
    | BenchmarkComparison
    | Summary
    | DocumentSummary
    | DocumentScore
    | DocumentGain
    | AttentionScores
    | Adjacent
    | Retrieval
    | LongItem
    | LongTask
    | EffectiveLength
    | Bounds
    | Growth
    | Resolution
)
#: Every kind of row, by what a record's line calls it.
KINDS: dict[str, type[Row]] = {row.kind: row for row in get_args(Row)}
#: By these a killed measurement goes on. They are no result: what they add up to is another row.
BOOKKEEPING = (DocumentScore, DocumentGain, DocumentSummary, LongItem)
