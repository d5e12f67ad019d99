"""Commands that measure a model itself and append rows to a record file. Call, print."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ropewalk.cli.terminal import say
from ropewalk.settings.command import arguments
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

    for name, model in _models(options):
        rows = perplexity(**arguments(PerplexitySettings, options) | {"model": model})
        show_perplexity(rows, name)


def gain(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_gain
    from ropewalk.evals.perplexity.context_gain import gain

    for name, model in _models(options):
        show_gain(gain(**arguments(GainSettings, options) | {"model": model}), name)


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

    for name, model in _models(options):
        rows, summary = passkey(**arguments(PasskeySettings, options) | {"model": model})
        show_passkey(rows, summary, name)


def retrieval(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_retrieval
    from ropewalk.evals.retrieval import retrieval

    show_retrieval(retrieval(**arguments(RetrievalSettings, options)), str(options.model))


def ruler(options: Any) -> None:
    from ropewalk.cli.tables.measured import show_ruler
    from ropewalk.evals.long_context import ruler

    for name, model in _models(options):
        show_ruler(*ruler(**arguments(RulerSettings, options) | {"model": model}), name)


def attention(options: Any) -> None:
    from ropewalk.cli.tables.attention import show_attention
    from ropewalk.evals.attention import attention

    show_attention(attention(**arguments(AttentionSettings, options)), full=options.full)


def _models(options: Any) -> Iterator[tuple[str, Any]]:
    """What is measured, by name: the model, or with --by-step each checkpoint of a training run."""
    if not options.by_step:
        yield str(options.model), options.model
        return
    from ropewalk.evals.checkpoints_of_run import checkpoints

    for _, checkpoint in checkpoints(options.model, trust_remote_code=options.trust_remote_code):
        yield str(checkpoint), checkpoint
