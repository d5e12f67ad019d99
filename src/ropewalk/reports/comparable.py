"""Which perplexities may be compared: groups of rows of the same tokens of one text, measured alike.

in   the rows of a page
out  `Group`s, and what is said where rows of one text are of other tokens
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ropewalk.records import Measurement, Perplexity
from ropewalk.records import format as number_format
from ropewalk.records.recipe import ablated
from ropewalk.records.sources import read_names
from ropewalk.records.variant import Variant
from ropewalk.reports.rows import Clean, once
from ropewalk.reports.same_tokens import apart
from ropewalk.sentences import joined

ByWindow = dict[int, Perplexity]


@dataclass
class Group:
    """Perplexities that may be compared: one base model, the same tokens of one text, one stride, one convention, one rule for BOS.

    `stride` is in words, since a stride may be the same number of tokens or the same part of every window; `scored` says how many tokens,
    where other rows are of other tokens of the same text.
    """

    lineage: tuple
    data: str
    convention: str
    bos: bool
    stride: str = ""
    scored: str = ""
    measurements: list[Measurement[Perplexity]] = field(default_factory=list)
    base: str = ""  # where the page is of several

    def variants(self) -> dict[Variant, ByWindow]:
        """variant → window → row; the base and its extrapolation are one here, as in the paper's tables."""
        rows: dict[Variant, ByWindow] = {}
        for m in self.measurements:
            rows.setdefault(m.model_variant, {})[m.row.window] = m.row
        return dict(sorted(rows.items(), key=lambda item: item[0].order))

    def base_row(self) -> Perplexity | None:
        """The base in its own window: what everything else is held against."""
        for variant, rows in self.variants().items():
            if variant.role == "base" and variant.steps == 0 and variant.original_window in rows:
                return rows[variant.original_window]
        return None

    def base_level(self) -> float | None:
        """The base's perplexity in its own window, if it is a number."""
        base = self.base_row()
        return base.perplexity if base and number_format.is_finite(base.perplexity) else None

    @property
    def is_validation(self) -> bool:
        """Whether a grid chose by it, learning rates say: what was chosen so looks better there than it is."""
        return any(is_of_validation(m) for m in self.measurements)

    @property
    def caveat(self) -> str:
        """Why its figures of different windows do not tell what a longer context is worth; nothing where they do, or are of one window.

        It is that of the window of pretraining, with which the verdict compares, where there is one; else that of the shortest.
        """
        rows = sorted((m.row for m in self.measurements), key=lambda row: row.window)[:-1]
        own = [row for row in rows if row.window == self.measurements[0].model_variant.original_window]
        longest = max(m.row.window for m in self.measurements)
        return next((row.caveat for row in own or rows if row.caveat and row.window < longest), "")

    @property
    def title(self) -> str:
        return f"{self.text_name}, {self.reading}"

    @property
    def text_name(self) -> str:
        return short_data(self.data) or "text not named"

    @property
    def reading(self) -> str:
        """How the text was read."""
        convention = "" if self.convention == "ropewalk" else f", as {self.convention} counts"
        return f"{self.stride}{convention}{f', {self.scored}' if self.scored else ''}"

    @property
    def heading(self) -> str:
        """The title, with the base where the page is of several."""
        return f"{self.title}; {self.base}" if self.base else self.title

    @property
    def text(self) -> tuple:
        """What is the same of groups that are of other tokens of one text, or were read by another stride."""
        return (self.lineage, self.data, self.convention, self.bos)

    @property
    def rule(self) -> tuple:
        """What is the same of groups that are of other tokens of one text."""
        return (*self.text, self.stride)


def is_of_validation(m: Measurement[Perplexity]) -> bool:
    """Whether a row is of its grid's validation text, which may bear the letter of `reports/same_names.py`."""
    grid = ablated(m.run)
    own, validation, test = (re.sub(r"\[\w+\]$", "", str(name)) for name in (m.row.data, grid.get("validation"), grid.get("test")))  # fmt: skip
    return own == validation != test


@once
def groups(clean: Clean) -> list[Group]:
    """Comparable groups: test texts before validation texts and what a training was watched by, then the one with the most variants first."""
    by_rule: dict[tuple, Group] = {}
    for m in clean.of(Perplexity):
        rule = (m.model_variant.lineage, m.row.data, m.row.convention, m.row.bos)
        by_rule.setdefault(rule, Group(*rule, base=clean.base_of(m.model_variant.lineage))).measurements.append(m)
    alike = [part for group in by_rule.values() for each in _by_stride(group) for part in _by_tokens(each)]

    def rank(g: Group) -> tuple:
        is_watch = all(m.run.id in clean.looks for m in g.measurements)
        return g.convention != "ropewalk", g.is_validation, is_watch, -len(g.variants()), -len(g.measurements)

    return sorted(alike, key=rank)


def _by_stride(group: Group) -> list[Group]:
    """Rows of one stride together; or all of them, if their stride is the same part of every window."""
    rows = [m.row for m in group.measurements]
    strides, parts = {row.stride for row in rows}, {row.window / row.stride for row in rows}
    if len(strides) > 1 and len(parts) == 1:
        return [dataclasses.replace(group, stride=f"stride window/{parts.pop():g}")]
    return [
        dataclasses.replace(
            group, stride=f"stride {stride}", measurements=[m for m in group.measurements if m.row.stride == stride]
        )
        for stride in sorted(strides)
    ]


def _by_tokens(group: Group) -> list[Group]:
    """Rows of the same tokens together."""
    parts = apart(group.measurements)
    if len(parts) == 1:
        return [group]
    scored = [f"{max(m.row.tokens for m in part)} tokens scored" for part in parts]
    return [
        dataclasses.replace(group, scored=words, measurements=part) for words, part in zip(scored, parts, strict=True)
    ]


def other_tokens(comparable: Sequence[Group]) -> Iterator[str]:
    """Of groups that are of other tokens of one text, that they are not compared, and what would let them be."""
    for rule in dict.fromkeys(group.rule for group in comparable if group.scored):
        parts = [group for group in comparable if group.rule == rule]
        states = [f"{joined(sorted({v.label for v in part.variants()}))} ({part.scored})" for part in parts]
        text = short_data(parts[0].data) or "a text not named"
        yield f"Of {text} not the same tokens were scored: {'; '.join(states)}. No figure of one is compared with one of another; measure all with the same --max-tokens, and tokenizer, and they are."


def short_data(data: str) -> str:
    """The last two parts of each path: enough to know a text by. Of many sources the first."""
    names, more = read_names(data)
    parts = [re.sub(r"^.*?([^/]+/[^/]+)/?$", r"\1", name) for name in names]
    if not more and len(parts) <= 3:
        return ", ".join(parts)
    return f"{parts[0]} and {len(parts) - 1 + more} more"
