"""The rows of benchmarks and summaries: what was measured, field by field, with units.

in   figures
out  dataclasses, as in rows.py
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, NotRequired, TypedDict

from ropewalk.records.rows import Share, Tokens, Whole


@dataclass(frozen=True)
class Benchmark:
    """One zero-shot benchmark of section 3.4, scored by lm-eval.

    Shares are in [0, 1]; `low` and `high` bound the 95 % interval of `accuracy`. `answers` holds a "1" or a "0" for
    each item in the set's order, so that two rows over the same `digest` can be paired later. `truncated` counts items
    that lost text from their left because the prompt was longer than `window`. `rule` names lm-eval's task and version,
    `key` everything that decides the row: weights, dtype, items, window.
    """

    kind: ClassVar[str] = "benchmark"
    task: str
    accuracy: Share
    low: float
    high: float
    items: Whole
    correct: Whole
    truncated: Whole
    window: Tokens
    answers: str
    digest: str
    rule: str
    key: str = ""
    data: str = "hub"
    limit: int | None = None
    accuracy_norm: float | None = None
    seconds: float = 0.0


@dataclass(frozen=True)
class BenchmarkComparison:
    """The same items before and after: `difference` is after minus before, with its paired 95 % interval.

    `lost` items were right before and are wrong after, `gained` the reverse; `p_value` is the exact McNemar test.
    """

    kind: ClassVar[str] = "benchmark_comparison"
    task: str
    before: str
    after: str
    items: Whole
    accuracy_before: Share
    accuracy_after: Share
    difference: float
    low: float
    high: float
    lost: Whole
    gained: Whole
    p_value: Share


class DocumentRouge(TypedDict):
    """One document of a summary row: tokens written, the document's own before it is cut (of old records not known), and F-measures in [0, 1]."""

    name: str
    tokens: Whole
    rouge_1: Share
    rouge_2: Share
    rouge_l: Share
    rouge_l_plain: NotRequired[float]
    document_tokens: NotRequired[Whole]


@dataclass(frozen=True)
class Summary:
    """ROUGE of summaries written by the model (section 3.5): mean F-measures in [0, 1] over documents.

    `rouge_l` is rouge-score's `rougeLsum` (the longest common subsequence line by line), `rouge_l_plain` its `rougeL`, all
    with the Porter stemmer. `intervals` holds a 95 % interval over documents (Student's) for each. `cut` counts documents
    longer than `document_tokens`; `unfinished` counts summaries stopped by `summary_tokens` and not by the model. `trained_on`
    names the pairs that the model was fine-tuned on for this, if it was.
    """

    kind: ClassVar[str] = "summary"
    rouge_1: Share
    rouge_2: Share
    rouge_l: Share
    intervals: dict[str, list[float]]
    documents: Whole
    cut: Whole
    unfinished: Whole
    decoding: str
    window: Tokens
    document_tokens: Whole
    summary_tokens: Whole
    temperature: float | None = None
    top_p: float | None = None
    seed: int = 0
    data: str = ""
    seconds: float = 0.0
    generated_tokens: Whole = 0
    rouge_l_plain: float | None = None
    per_document: list[DocumentRouge] = field(default_factory=list)
    trained_on: str = ""


@dataclass(frozen=True)
class DocumentSummary:
    """One document's summary, as written, with its own scores: what lets a killed run go on, and a reader look.

    `key` names everything that decides it: weights, dtype, prompt, reference, decoding.
    """

    kind: ClassVar[str] = "document_summary"
    key: str
    document: str
    decoding: str
    text: str
    tokens: Whole
    finished: bool
    rouge_1: Share
    rouge_2: Share
    rouge_l: Share
    rouge_l_plain: Share
    seconds: float = 0.0
