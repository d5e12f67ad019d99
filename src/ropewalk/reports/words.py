"""The words of a page, explained before they are used: those that the rows at hand bring with them.

in   rows
out  (word, what it means in plain words)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from ropewalk.records import ContextGain, EffectiveLength, LongTask, PasskeySummary, Perplexity, Step
from ropewalk.records import format as number_format
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import trainings


def _rows(*kinds: type) -> Callable[[Clean], bool]:
    return lambda clean: any(isinstance(m.row, kinds) for m in clean.measurements)


def _states(*roles: str) -> Callable[[Clean], bool]:
    return lambda clean: any(m.variant.role in roles for m in clean.measurements if not isinstance(m.row, Step))


def _called(words: str) -> Callable[[Clean], bool]:
    """Whether a label ends so."""
    return lambda clean: any(m.variant.label.endswith(words) for m in clean.measurements if not isinstance(m.row, Step))


_EXTENDED = _states("untrained", "trained")
#: Word, meaning, and whether a page needs it.
_WORDS: tuple[tuple[str, str, Callable[[Clean], bool]], ...] = (
    ("window", "the tokens (pieces of words) that a model reads at once; L is the one it was pretrained with", bool),
    ("×2, ×4, …", "how many times longer the new window is; positions are rescaled to fit into it", _EXTENDED),
    ("base", "the model as it was; extrapolating, it reads past its window unchanged", _states("base", "extrapolation")),
    ("before training", "extended, and not yet trained at the new window", _called(", before training")),
    ("before further training", "as the last training found it, which came on top of an earlier one", _called(", before further training")),
    ("perplexity", "among how many equally likely next tokens the model is left to guess; lower is better; a model holds to the longest window in which it is not surely worse", _rows(Perplexity)),
    ("k_max", "how many tokens back a five-digit number may stand in filler text and still be named", _rows(PasskeySummary)),
    ("context gain", "how much better a token is predicted with all that stands before it than with a short context, in nats (1 nat: 2.7 times as likely)", _rows(ContextGain)),
    ("effective length", "up to which length the mean over made-up tasks (find, trace, count, answer) stays above a threshold", _rows(LongTask, EffectiveLength)),
    ("95\u202f% interval", "drawn so that 95 of 100 such intervals, each from other documents or prompts, hold the true figure", bool),
)  # fmt: skip


def words(clean: Clean) -> Iterator[tuple[str, str]]:
    """The words that a page of these rows uses."""
    yield from ((word, meaning) for word, meaning, is_used in _WORDS if is_used(clean))
    yield from _budgets(clean)


def _budgets(clean: Clean) -> Iterator[tuple[str, str]]:
    """What the M and the k of training tokens are, by the smallest budget that has them."""
    asked = {tokens for m in clean.measurements if (tokens := m.variant.recipe.tokens)}
    names = {
        number_format.tokens(tokens): tokens
        for tokens in sorted(asked | {run.tokens for run in trainings(clean)}, reverse=True)
    }
    by_unit = {name[-1]: (name, tokens) for name, tokens in names.items() if re.fullmatch(r"\d+[Mk]", name)}
    for unit, (name, tokens) in by_unit.items():
        power = {"M": "2²⁰", "k": "2¹⁰"}[unit]
        yield f"{name} tokens", f"{name[:-1]} × {power} = {number_format.count(tokens)}, as a budget is typed"
