"""Perplexity over a sliding window: the one definition (section 3.2 of the paper, and what it leaves open).

in   a model, documents, windows W and a stride S (tokens)
out  records: perplexity per window with a 95 % interval, and each document's sum of negative log-likelihoods

**The definition.** A document is encoded once, with BOS in front where the tokenizer puts one (the record says whether).
A window of W tokens slides over it by S tokens. The first window scores all its tokens, each further one only its S new
ones (data/sliding.py), so that a token past the first window is predicted from at least W - S tokens, at S = W from one: the first token of each such window is not
scored, so that the shorter of two windows counts fewer tokens there. The first token of a document, BOS or not, is never scored: nothing comes before it. Nor
is a further one that the tokenizer puts in front of the text (GLM's two). BOS is seen by the first window alone. The last window
stops where the document stops. Perplexity is exp(sum of nll / number of scored tokens), over all tokens of all documents
alike: a token counts the same wherever it stands, a long document for more than a short one.

**The stride** is one for all windows asked for: an eighth of the shortest, at most the paper's 256, if not given. It decides what a fall from one window
to a longer one tells: that context beyond W - S tokens of the shorter is of use (records/slide.py). At S = W / 2 and more that is little, and is warned of.

**Worked example.** Two documents of 11 and 7 tokens, W = 6, S = 2. The first has windows 0-5, 2-7, 4-9, 6-10, which score
5 + 2 + 2 + 1 = 10 tokens; the second has 0-5 and 2-6, which score 5 + 1 = 6. If their sums of nll are 25 and 9 nats, the
perplexity is exp((25 + 9) / (10 + 6)) = exp(2.125) = 8.37. The mean of the six windows' means would weigh the lone token
of the last window as much as the five of the first; the mean of the two documents' perplexities would be 8.33.

**Which documents.** One with fewer tokens than the largest window asked for cannot fill it: it is left out of every column,
so that columns compare the same text (the paper: "documents of at least 32768 tokens"), and counted in `skipped`. A smaller `min_tokens`
lets it in, in every column: it is one window then, all its tokens with all that stands before them, and the row counts it in `shorter`.
What a longer window is worth such a row does not tell; two models at one window compare by it as by any other.

**The interval** is Student's over documents (evals/intervals.py): how far the figure would move with other documents of the same
kind. There is none for a single document.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from ropewalk import records
from ropewalk.data.select import TokenizedDocument, name_of, select_documents, texts_of
from ropewalk.distributed import ranks
from ropewalk.evals.compile import faster
from ropewalk.evals.intervals import documents_interval, exp, perplexity_interval
from ropewalk.evals.likelihood import (
    Pass,
    check_window,
    default_batch_tokens,
    negative_log_likelihoods,
    not_a_number,
    warn_of_guessing,
)
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.perplexity import conventions, sampled
from ropewalk.evals.time_needed import announce, passes_of
from ropewalk.progress import Progress
from ropewalk.records.resume import already_recorded, by_key, on_record
from ropewalk.records.slide import Slide, coarse_warning
from ropewalk.sentences import counted
from ropewalk.settings.command import takes
from ropewalk.settings.measure import PerplexitySettings
from ropewalk.settings.windows import forgotten_k

_logger = logging.getLogger(__name__)
_TOO_SHORT = (
    "perplexity here needs a document of at least {min_tokens} tokens (--min-tokens; the largest window if that is not given), but the "
    "longest of {skipped} has {longest}; give longer documents, or --min-tokens {longest} or less: a document shorter than a window is then read whole"
)


@takes(PerplexitySettings)
def perplexity(settings: PerplexitySettings) -> records.Rows[records.Perplexity]:
    """Perplexity of one model at several windows on the same documents; the definition heads this module.

    A killed run continues where it stopped: documents that `out` already holds under the same weights, tokens, window, stride
    and dtype are not scored again. Under torchrun the documents are shared out over the ranks; each is scored by one of
    them, so the figures equal those of one device bit for bit.

    Returns:
        One row a window, in the order asked for; the same on every rank.

    Raises:
        UserError: an impossible window, stride or limit; documents that are all too short; logits that are NaN.
    """
    loaded = open_model(
        settings.model, tokenizer=settings.tokenizer, data=settings.data, **settings.loading, **settings.opening
    )
    windows = settings.windows or [loaded.info.window]
    slide = Slide(min(windows), settings.stride_of(windows))
    if settings.stride is not None and slide.is_coarse and ranks.rank() == 0:
        _logger.warning(coarse_warning(slide))
    return records.Rows(measure(loaded, settings))


def measure(loaded: LoadedModel, settings: PerplexitySettings) -> list[records.Perplexity]:
    """`perplexity` of a model that is loaded already."""
    windows = list(dict.fromkeys(settings.windows or [loaded.info.window]))
    if ranks.rank() == 0 and (question := forgotten_k("--windows", min(windows), loaded.info.window)):
        _logger.warning(question)
    stride = settings.stride_of(windows)
    for window in windows:
        check_window(loaded.model, window)
    documents, skipped = select_documents(
        loaded.tokenizer,
        settings.data,
        min_tokens=settings.least(windows),
        refusal=_TOO_SHORT,
        limit=settings.limit,
        max_tokens=settings.max_tokens,
        copies_count=settings.convention != "ropewalk",  # others count them
        keep_words=settings.convention != "ropewalk" and conventions.convention(settings.convention).joins_texts,
    )
    shorter = {window: sum(len(document.ids) < window for document in documents) for window in windows}
    if shorter[max(windows)] and ranks.rank() == 0:
        _logger.warning(
            f"{shorter[max(windows)]} of {counted(len(documents), 'document')} shorter than {max(windows)} tokens, read whole: models compare by them, but what a longer window is worth they do not tell"
        )
    if settings.budget is not None:
        for window in windows:
            sampled.refuse_hopeless(loaded.model, documents, window, stride, settings)
    on_header = {name: getattr(settings, name) for name in ("convention", "budget", "max_tokens", "limit")}
    run = ranks.same(loaded.run(seed=settings.seed, windows=windows, stride=stride, **on_header))
    recorder, recorded = records.Recorder(settings.out, run), on_record(settings.out)
    recorded_scores = by_key(recorded, records.DocumentScore)
    rows = []
    for window in windows:
        row = _measure_one(loaded, documents, window, stride, settings, recorder, recorded_scores)
        each: list[records.DocumentLoss] = [
            {**loss, "text": document.text} for loss, document in zip(row.per_document, documents, strict=False)
        ]
        row = dataclasses.replace(
            row,
            skipped=skipped,
            shorter=shorter[window],
            data=name_of(settings.data),
            per_document=each,
            texts=texts_of(documents),
            extrapolation=loaded.extrapolates(window),
        )
        rows.append(row)
        # The memory of a run that had nothing left to score differs, and is no reason to record the row again.
        old = recorded.of(records.Perplexity)
        if ranks.rank() == 0 and not already_recorded(row, old, run, ignore=("peak_bytes",)):
            recorder.add(row)
    if ranks.rank() == 0 and settings.convention == "ropewalk":  # others count words
        warn_of_guessing(loaded.model, max(row.perplexity for row in rows))
    return rows


def _measure_one(
    loaded: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    settings: PerplexitySettings,
    recorder: records.Recorder,
    recorded_scores: dict[str, records.DocumentScore],
) -> records.Perplexity:
    """One window's row: by another convention, estimated, or by the definition."""
    batch_tokens, seed = settings.batch_tokens, settings.seed
    if settings.convention != "ropewalk":
        return conventions.measure_window(loaded, documents, window, stride, settings.convention, batch_tokens)
    if settings.budget is None:
        return measure_window(loaded, documents, window, stride, batch_tokens, recorder, recorded_scores)
    minutes, tolerance = settings.budget, settings.tolerance
    return sampled.measure_window(
        loaded, documents, window, stride, batch_tokens, minutes=minutes, tolerance=tolerance, seed=seed
    )


def measure_window(
    loaded: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    recorder: records.Recorder | None = None,
    recorded_scores: dict[str, records.DocumentScore] | None = None,
) -> records.Perplexity:
    """One window's row: score each document, or take it from `recorded_scores` (by key); record what is new; then sum up."""
    if loaded.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(loaded.device)
    local_scores = _score_documents(loaded, documents, window, stride, batch_tokens, recorder, recorded_scores or {})
    scores = [score for _, score in sorted(ranks.gathered(local_scores).items())]
    peak = torch.cuda.max_memory_allocated(loaded.device) if loaded.device.type == "cuda" else 0
    nll, tokens = np.array([score.nll for score in scores]), np.array([score.tokens for score in scores])
    low, high = perplexity_interval(*documents_interval(nll, tokens))
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=exp(math.fsum(nll) / int(tokens.sum())),
        low=low,
        high=high,
        documents=len(scores),
        skipped=0,
        tokens=int(tokens.sum()),
        bos=loaded.bos is not None,
        seconds=math.fsum(score.seconds for score in scores),
        peak_bytes=peak,
        per_document=[{"name": score.document, "tokens": score.tokens, "nll": score.nll} for score in scores],
    )


def _score_documents(
    loaded: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    batch_tokens: int | None,
    recorder: records.Recorder | None,
    recorded_scores: dict[str, records.DocumentScore],
) -> dict[int, records.DocumentScore]:
    """This rank's documents, by their place in `documents`."""
    weights = f"{fingerprint(loaded)} {loaded.dtype}"
    local = range(ranks.rank(), len(documents), ranks.size())
    windows = {place: documents[place].windows(window, stride) for place in local}
    keys = {place: key_of(weights, documents[place], window, stride) for place in local}
    scores = {
        place: dataclasses.replace(recorded_scores[key], document=documents[place].name)
        for place, key in keys.items()
        if key in recorded_scores
        and recorded_scores[key].tokens == sum(each.scored for each in windows[place])  # else somebody edited it
    }
    title, total = f"perplexity, window {window}", sum(map(len, windows.values()))
    new = [each for place in local if place not in scores for each in windows[place]]
    announce(
        title,
        loaded.model,
        counted(len(new), "window"),
        passes_of(new),
        "--budget MINUTES reads a random sample of them and estimates the figure; a larger --stride or a smaller --max-tokens leaves fewer windows",
    )
    batch = max(1, (batch_tokens or default_batch_tokens(loaded.device)) // window)
    with (
        Progress(title, total, done=total - len(new)) as advance,
        faster(loaded.model, passes=total, window=window, shapes=[(batch, window)]),
    ):
        try:
            for place in local:
                if place not in scores:
                    scores[place] = score_document(
                        loaded, documents[place], window, stride, batch_tokens, key=keys[place], advance=advance
                    )
                    if recorder is not None:
                        recorder.add(scores[place])
        except KeyboardInterrupt:
            _logger.warning(_kept(title, len(scores), len(local), recorder))
            raise
    return scores


def _kept(title: str, done: int, total: int, recorder: records.Recorder | None) -> str:
    """What of a measurement that is interrupted need not be done again: whole documents, in a file."""
    if recorder is None or recorder.path is None:
        return f"{title}: nothing is kept, since no --out names a file; with one the same command goes on behind each whole document"
    if not done:
        return f"{title}: nothing is kept, since a document is kept once all its windows are read; --max-tokens makes it shorter"
    return f"{title}: {done} of {counted(total, 'document')} are kept in {recorder.path}, and the one that was being read is lost; the same command goes on with it"


def score_document(
    loaded: LoadedModel,
    document: TokenizedDocument,
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    *,
    key: str = "",
    advance: Callable[[int], None] = lambda done: None,
) -> records.DocumentScore:
    """One document's summed negative log-likelihood, in nats.

    A batch holds windows of one document only, so that its figure depends neither on other documents nor on the rank.

    Raises:
        UserError: a logit was NaN; the error names the document and the window's place in it.
    """
    started = time.perf_counter()
    windows = document.windows(window, stride)
    passes = [Pass(document.ids[place.start : place.stop], place.scored) for place in windows]
    window_nlls = []
    scored = negative_log_likelihoods(loaded.model, passes, batch_tokens=batch_tokens)
    for place, nll in zip(windows, scored, strict=True):
        window_nlls.append(float(nll.sum(dtype=np.float64)))
        if math.isnan(window_nlls[-1]):
            raise not_a_number(document.name, place)
        advance(1)
    return records.DocumentScore(
        key=key,
        document=document.name,
        window=window,
        stride=stride,
        tokens=sum(place.scored for place in windows),
        nll=math.fsum(window_nlls),
        seconds=time.perf_counter() - started,
    )


def key_of(weights: str, document: TokenizedDocument, window: int, stride: int) -> str:
    """A short hash of everything that decides a document's figure."""
    tokens = hashlib.sha256(document.ids.astype("<i8").tobytes()).hexdigest()
    return hashlib.sha256(json.dumps([weights, window, stride, tokens]).encode()).hexdigest()[:20]
