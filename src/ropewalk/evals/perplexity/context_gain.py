"""Context gain and LongPPL: what a model makes of the context beyond a short one.

in   a model, documents, a window W, a short context K and a stride S (tokens)
out  a record: the gain with a 95 % interval, by place in a document and by document, and LongPPL

**Context gain** is the mean over tokens of nll(short context) - nll(whole context), in nats a token, over all tokens from place K of each
document on: those that the two contexts tell apart (two_pass.py). It is the difference of the two logarithms of perplexity at the windows K and W
and the stride S over these tokens, where the short window slides anew from place W (which changes nothing where S divides W - K). A model that
ignores everything but the last K - S tokens gains 0, which perplexity at W alone does not show.

**LongPPL** (Fang et al. 2024, arXiv 2410.23771, ICLR 2025) is exp of the mean nll(whole context) over the key tokens. Taken from the paper: the
rule for key tokens, long-short difference above alpha = 2 *and* log-likelihood in the whole context above beta = -2, which the evaluator decides; the mean
over key tokens alike; short contexts that slide (theirs, 4096 to 5119 tokens, are --short 5120 --stride 1024). Not taken: the evaluator (theirs
is Llama 3.1 8B; here it is --evaluator, or the model itself), which must have the model's tokenizer, since key tokens are not carried over from one
tokenization to another; the whole context of a token past W slides, where theirs is the whole document (the same with --max-tokens W); and their soft weights,
which are of training. **A model that is its own evaluator** chooses the tokens that it gets right, so its LongPPL is below exp(2) whatever it is worth: models
are compared by LongPPL under one evaluator only. Context gain needs none.

**Worked example.** Five tokens with nll 3.0, 4.0, 2.5, 5.0, 0.5 in the short context and 0.4, 1.8, 0.6, 2.9, 0.4 in the whole one. Gains: 2.6, 2.2, 1.9,
2.1, 0.1, their mean 1.78. Key tokens: the first two; the third gains too little, the fourth is too unlikely still, the fifth gains nothing. LongPPL is
exp((0.4 + 1.8) / 2) = 3.00.

**Documents, BOS, resuming, ranks** are perplexity's (measure.py), and so is the estimate from a sample of windows (sampled.py): what is estimated is the gain.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.encode import check_ids
from ropewalk.data.scores import score_of
from ropewalk.data.select import TokenizedDocument, name_of, select_documents, texts_of
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.likelihood import check_window, default_batch_tokens
from ropewalk.evals.loaded import LoadedModel, open_model, opened
from ropewalk.evals.pairing import refuse_other_tokenizer
from ropewalk.evals.perplexity.gain_figures import Sums, gained, of_documents, of_sample
from ropewalk.evals.perplexity.gain_reader import Reader
from ropewalk.evals.perplexity.measure import key_of
from ropewalk.evals.perplexity.sampled import draw
from ropewalk.evals.perplexity.strata import Population, units_of
from ropewalk.evals.perplexity.time_needed import OfWhat, reckon
from ropewalk.evals.perplexity.two_pass import Contexts
from ropewalk.evals.time_needed import announce, passes_of
from ropewalk.model.load import load_tokenizer
from ropewalk.progress import Progress
from ropewalk.records.resume import already_recorded, by_key, on_record
from ropewalk.records.slide import Slide, coarse_warning
from ropewalk.sentences import counted
from ropewalk.settings.command import arguments, takes
from ropewalk.settings.measure import DataScoreSettings, GainSettings, ReadTwice, check_cuts

_logger = logging.getLogger(__name__)
#: Times the tokens of perplexity at the same window: more is said beforehand. Default strides stay below it where documents fill a window; tokens of a short
#: context take less time each, so that this is about 2.2 times perplexity's time there.
_DEAR = 3.0
_TOO_SHORT = (
    "context gain needs a document of at least {min_tokens} tokens (the window, or --min-tokens), but the longest of "
    "{skipped} has {longest}; give longer documents, or a smaller --window or --min-tokens"
)


@takes(GainSettings)
def gain(settings: GainSettings) -> records.ContextGain:
    """Context gain and LongPPL of one model; the definitions head this module.

    A killed run continues where it stopped, and under torchrun the documents are shared out over the ranks, as with `perplexity`.

    Returns:
        The row; the same on every rank.

    Raises:
        UserError: an impossible window, short context, stride or limit; documents that are all too short; an evaluator of another tokenizer or
            of a shorter window; logits that are NaN.
    """
    model, evaluator = opened(settings.model, settings.evaluator, **settings.opening)
    loaded, contexts = _loaded(settings, model)
    if evaluator is None:
        return measure(loaded, settings, contexts)
    return measure(loaded, settings, contexts, _evaluator(evaluator, loaded, contexts.window, settings.loading))


@takes(DataScoreSettings)
def data_score(settings: DataScoreSettings) -> records.ContextGain:
    """What a long context gives a model in each document. A killed run continues where it stopped; under torchrun documents are shared out.

    Returns:
        The row of `gain`, whose documents stand best first; `data.scores.ranked` lists them.

    Raises:
        UserError: what `gain` raises.
    """
    asked = GainSettings(**arguments(ReadTwice, settings), data=settings.data, min_tokens=settings.min_tokens)
    loaded, contexts = _loaded(asked, asked.model)
    least = asked.min_tokens or min(2 * contexts.short, contexts.window)
    row = measure(loaded, dataclasses.replace(asked, min_tokens=least), contexts, field=settings.field)
    return dataclasses.replace(row, per_document=sorted(row.per_document, key=score_of, reverse=True))


def _loaded(settings: GainSettings, model: Any) -> tuple[LoadedModel, Contexts]:
    """The model in memory, and what it is to read; what cannot be is refused before that, where it can be seen."""
    if settings.window and settings.short:
        _contexts(settings, settings.window, settings.window)
    loaded = open_model(model, tokenizer=settings.tokenizer, data=settings.data, **settings.loading, **settings.opening)
    contexts = _contexts(settings, loaded.info.window, loaded.info.original_window)
    check_window(loaded.model, contexts.window)
    slide = Slide(contexts.short, contexts.stride)
    if settings.stride is not None and slide.is_coarse and ranks.rank() == 0:
        _logger.warning(coarse_warning(slide))
    return loaded, contexts


def _evaluator(evaluator: Any, loaded: LoadedModel, window: int, loading: dict[str, Any]) -> LoadedModel:
    """The evaluator in memory, beside the model; one that was given as an object has the model's tokenizer."""
    named = isinstance(evaluator, Checkpoint)
    if named:
        names = (loaded.info.name, str(evaluator))
        refuse_other_tokenizer(loaded.tokenizer, load_tokenizer(evaluator), names=names)
    judge = open_model(evaluator, tokenizer=None if named else loaded.tokenizer, **loading)
    if judge.extrapolates(window):
        raise UserError(
            f"an evaluator must read the whole window of {window} tokens, but {judge.info.name} reads {judge.info.window}; "
            "choose another --evaluator, or a smaller --window"
        )
    check_window(judge.model, window)
    return judge


def _contexts(settings: GainSettings, own: int, original: int) -> Contexts:
    """What was asked for. If not: the model's own window, the one it was pretrained at (or a quarter), and the largest stride that is not coarse."""
    window = settings.window or own
    short = settings.short or (original if original < window else max(2, window // 4))
    contexts = Contexts(window, short, settings.stride or max(1, (short - 1) // 2))
    least = settings.min_tokens or window
    if least <= short:
        raise UserError(
            f"a document gains past the short context of {short} tokens alone, and --min-tokens is {least}; ask for more than {short}"
        )
    check_cuts(settings.max_tokens, least)
    return contexts


def measure(
    loaded: LoadedModel,
    settings: GainSettings,
    contexts: Contexts,
    judge: LoadedModel | None = None,
    *,
    field: str | None = None,
) -> records.ContextGain:
    """`gain` of models that are loaded already."""
    started = time.perf_counter()
    documents, skipped = select_documents(
        loaded.tokenizer,
        settings.data,
        min_tokens=settings.min_tokens or contexts.window,
        refusal=_TOO_SHORT,
        limit=settings.limit,
        max_tokens=settings.max_tokens,
        field=field,
    )
    if judge is not None:
        for document in documents:  # the model may know added tokens that the evaluator does not
            check_ids(judge.tokenizer, document.ids)
    reader = Reader(loaded, judge, contexts, settings.batch_tokens)
    on_header = {name: getattr(settings, name) for name in ("budget", "max_tokens", "limit")}
    run = ranks.same(
        loaded.run(seed=settings.seed, **vars(contexts), **on_header, evaluator=judge and judge.info.fingerprint)
    )
    recorder, recorded = records.Recorder(settings.out, run), on_record(settings.out)
    if settings.budget is None:
        _tell_if_dear(documents, contexts)
        scores = _score_documents(reader, documents, recorder, by_key(recorded, records.DocumentGain))
        figures = of_documents(documents, np.array([score.sums for score in scores]), contexts)
        figures["seconds"] = math.fsum(score.seconds for score in scores)
    else:
        figures = _estimated(reader, documents, settings) | {"seconds": time.perf_counter() - started}
    row = records.ContextGain(
        **vars(contexts),
        **figures,
        documents=len(documents),
        skipped=skipped,
        bos=loaded.bos is not None,
        evaluator=judge.info.name if judge else "",
        data=name_of(settings.data),
        texts=texts_of(documents),
        extrapolation=loaded.extrapolates(contexts.window),
    )
    if ranks.rank() == 0 and not already_recorded(row, recorded.of(records.ContextGain), run):
        recorder.add(row)
    return row


def _tell_if_dear(documents: Sequence[TokenizedDocument], contexts: Contexts) -> None:
    """Say beforehand that many more tokens are read than perplexity reads, and what reads fewer."""
    times = contexts.times_perplexity([len(document.ids) for document in documents])
    if times > _DEAR and ranks.rank() == 0:
        _logger.info(
            f"context gain reads {times:.1f} times the tokens of perplexity at {contexts.window} alone: the short context slides by {contexts.stride}; a larger --stride or --short reads fewer"
        )


def _score_documents(
    reader: Reader,
    documents: Sequence[TokenizedDocument],
    recorder: records.Recorder,
    recorded: dict[str, records.DocumentGain],
) -> list[records.DocumentGain]:
    """Every document's sums: scored by one of the ranks, or on record already."""
    identity, contexts = reader.identity(), reader.contexts
    local = {
        place: contexts.windows(len(documents[place].ids), documents[place].prefix) for place in range(len(documents))
    }
    local = {place: local[place] for place in range(ranks.rank(), len(documents), ranks.size())}
    every_window = [window for windows in local.values() for window in windows]
    scores: dict[int, records.DocumentGain] = {}
    title = f"context gain, window {contexts.window}"
    announce(
        title,
        reader.loaded.model,
        counted(len(every_window), "window"),
        passes_of(contexts.passes(every_window)),
        "--budget MINUTES reads a random sample of them and estimates the figure; a smaller --max-tokens or --limit leaves fewer windows",
    )
    with Progress(title, len(every_window)) as advance, reader.faster(every_window):
        for place, windows in local.items():
            document, started = documents[place], time.perf_counter()
            key = key_of(identity, document, contexts.window, contexts.stride)
            if key in recorded:
                scores[place] = recorded[key]
                advance(len(windows))
                continue
            total = np.zeros((5, len(contexts.ranges)))
            for each in reader([(document, window) for window in windows]):
                total += each
                advance(1)
            scores[place] = records.DocumentGain(key, document.name, total.tolist(), time.perf_counter() - started)
            recorder.add(scores[place])
    return [score for _, score in sorted(ranks.gathered(scores).items())]


def _estimated(reader: Reader, documents: Sequence[TokenizedDocument], settings: GainSettings) -> dict[str, Any]:
    """The fields of a row estimated from a random sample of windows; those of a row that is exact, where the time allowed all of them."""
    contexts = reader.contexts
    units = units_of(contexts.windows(len(document.ids), document.prefix) for document in documents)

    def score(places: Sequence[int]) -> Iterator[Sums]:
        return reader([(documents[units[place].document], units[place].window) for place in places])

    batch = max(1, (settings.batch_tokens or default_batch_tokens(reader.loaded.device)) // contexts.window)
    limits: dict[str, Any] = {"minutes": settings.budget, "tolerance": settings.tolerance, "seed": settings.seed}
    of_what = OfWhat(f"context gain, window {contexts.window}", "a shorter --window")
    reckon(reader.loaded.model, units, of_what, minutes=limits["minutes"], seed=settings.seed)
    estimate, drawn = draw(units, score, gained, size=batch, of_what=of_what, **limits)
    by_document = np.zeros((len(documents), 5, len(contexts.ranges)))
    for place, of_window in sorted(drawn.items()):
        by_document[units[place].document] += of_window
    figures = of_documents(documents, by_document, contexts)
    return figures if estimate.drawn == estimate.windows else figures | of_sample(estimate, Population(units), drawn)
