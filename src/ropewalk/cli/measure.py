"""Commands that measure a model itself and append rows to a record file. Call, print."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from ropewalk.cli.terminal import say, say_rows
from ropewalk.errors import UserError
from ropewalk.sentences import counted
from ropewalk.settings.command import arguments, option_name
from ropewalk.settings.measure import (
    AttentionSettings,
    DataScoreSettings,
    GainSettings,
    PasskeySettings,
    PerplexitySettings,
    RetrievalSettings,
    RulerSettings,
)


def perplexity(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_perplexity
    from ropewalk.evals.perplexity.measure import perplexity

    _show(perplexity, PerplexitySettings, show_perplexity, options)


def gain(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_gain
    from ropewalk.evals.perplexity.context_gain import gain

    _show(gain, GainSettings, show_gain, options)


def data_score(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_scores
    from ropewalk.data.scores import ranked
    from ropewalk.evals.perplexity.context_gain import data_score

    row = data_score(**arguments(DataScoreSettings, options))
    if options.json:
        say(json.dumps(ranked(row), indent=2))
    else:
        show_scores(row, options.out)


def passkey(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_passkey
    from ropewalk.evals.retrieval.passkey import passkey

    _show(passkey, PasskeySettings, lambda measured, name: show_passkey(*measured, name=name), options)


def retrieval(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_retrieval
    from ropewalk.evals.retrieval import retrieval

    _show(retrieval, RetrievalSettings, show_retrieval, options)


def ruler(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_ruler
    from ropewalk.evals.long_context import ruler

    if options.items_only is not None:
        return _ruler_items(options)
    _show(ruler, RulerSettings, lambda measured, name: show_ruler(*measured, name=name), options)


def _ruler_items(options: Any) -> None:
    """The items of `ruler` into files."""
    from ropewalk.evals.long_context import write_items

    for name in ("out", "interval", "by_step", "json"):
        if getattr(options, name):
            raise UserError(
                f"with --items-only no model reads the items, so that there is nothing for --{option_name(name)}; leave it out"
            )
    count = write_items(RulerSettings(**arguments(RulerSettings, options)), options.items_only)
    say(
        f"{options.items_only}: {counted(count, 'item')}, each a JSON line with its prompt and what its response is scored against"
    )


def attention(options: Any) -> None:
    from ropewalk.cli.tables.attention import show_attention
    from ropewalk.evals.attention import attention
    from ropewalk.records.variant import variant_of

    variants = attention(**arguments(AttentionSettings, options))
    if options.json:
        say_rows((variant_of(each.run.model, each.rows[0].window).label, each.rows) for each in variants)
    else:
        show_attention(variants, full=options.full)


def _show(measure: Callable[..., Any], settings: type, table: Callable[[Any, str], None], options: Any) -> None:
    """A table for each model, as it comes; with --json the rows of all, once they are there."""
    given = arguments(settings, options)
    measured = ((name, measure(**given | {"model": model})) for name, model in _models(options))
    if options.json:
        return say_rows(measured)
    for name, rows in measured:
        table(rows, name)


def _models(options: Any) -> Iterator[tuple[str, Any]]:
    """What is measured, by name: the model, or with --by-step each checkpoint of a training run."""
    if not getattr(options, "by_step", False):
        yield str(options.model), options.model
        return
    from ropewalk.evals.checkpoints_of_run import checkpoints

    for _, checkpoint in checkpoints(options.model, trust_remote_code=options.trust_remote_code):
        yield str(checkpoint), checkpoint
