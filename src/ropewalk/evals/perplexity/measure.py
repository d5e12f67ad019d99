"""Perplexity over a sliding window: the one definition (section 3.2 of the paper, and what it leaves open).

in   a model, documents, windows W and a stride S (tokens)
out  records: perplexity per window with a 95 % interval, and every document's own figure

**The definition.** A document is encoded once, with BOS in front where the tokenizer puts one (the record says whether).
A window of W tokens slides over it by S tokens. The first window scores all its tokens, each further one only its S new
ones (windows.sliding), so that a token past the first window is predicted from at least W - S tokens. The first token of
a document, BOS or not, is never scored: nothing comes before it. BOS is seen by the first window alone. The last window
stops where the document stops. Perplexity is exp(sum of nll / number of scored tokens), over all tokens of all documents
alike: a token counts the same wherever it stands, a long document for more than a short one.

**Worked example.** Two documents of 11 and 7 tokens, W = 6, S = 2. The first has windows 0-5, 2-7, 4-9, 6-10, which score
5 + 2 + 2 + 1 = 10 tokens; the second has 0-5 and 2-6, which score 5 + 1 = 6. If their sums of nll are 25 and 9 nats, the
perplexity is exp((25 + 9) / (10 + 6)) = exp(2.125) = 8.37. The mean of the six windows' means would weigh the lone token
of the last window as much as the five of the first; the mean of the two documents' perplexities would be 8.33.

**Which documents.** One with fewer tokens than the largest window asked for cannot fill it: it is left out of every column,
so that columns compare the same text (the paper: "documents of at least 32768 tokens"), and it is counted in `skipped`.

**The interval** is a percentile bootstrap over documents: how far the figure would move with other documents of the same kind.
One document has no such interval.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ropewalk import records
from ropewalk.data.select import TokenizedDocument, check_cuts, name_of, select_documents
from ropewalk.data.sliding import check, sliding
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.compile import faster
from ropewalk.evals.intervals import bootstrap_ratio
from ropewalk.evals.likelihood import (
    Pass,
    check_window,
    default_batch_tokens,
    exp,
    negative_log_likelihoods,
    not_a_number,
)
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.perplexity import conventions
from ropewalk.evals.perplexity import sampled as budgets
from ropewalk.evals.recorded import already_recorded, by_key, on_record
from ropewalk.progress import Progress

_TOO_SHORT = (
    "perplexity here needs a document of at least {min_tokens} tokens (the largest window, or --min-tokens), but the "
    "longest of {skipped} has {longest}; give longer documents, or a smaller --windows or --min-tokens"
)


def perplexity(
    model: Any,
    *,
    data: Any,
    windows: Sequence[int] | None = None,
    stride: int = 256,
    convention: str = "ropewalk",
    budget: float | None = None,
    tolerance: float = 0.005,
    limit: int | None = None,
    max_tokens: int | None = None,
    min_tokens: int | None = None,
    batch_tokens: int | None = None,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    out: str | Path | None = None,
) -> list[records.Perplexity]:
    """Perplexity of one model at several windows on the same documents; the definition heads this module.

    A run that was killed goes on where it stopped: documents that `out` already holds under the same weights, tokens,
    window, stride and dtype are not scored again. Under torchrun the documents are spread over the ranks; each is scored
    whole by one of them, so the figures are those of one device, bit for bit.

    Args:
        model: a name (`hemp`, directory, hub id) or a transformers model (then with its tokenizer).
        data: files, directories or data-set ids; or `text.Document`s.
        windows: tokens, each a row of the result; the model's own window if not given. A RoPE model may be asked beyond it:
            that is extrapolation, and the paper's first figure.
        stride: S, tokens (paper: 256).
        convention: "ropewalk" is the definition above; "yarn", "longlora", "lm-eval" and "huggingface" follow those projects'
            rules instead (conventions.py), to explain their figures. They have no interval and are not resumed.
        budget: minutes a window; estimate the figure from a random sample of windows instead of computing it (budget.py).
        tolerance: with a budget, stop when half the interval is at most this share of the perplexity.
        limit: use the first so many documents that are long enough.
        max_tokens: cut every document to its first so many tokens (paper, proof-pile: 32768).
        min_tokens: leave out documents with fewer tokens; the largest window if not given.
        batch_tokens: tokens of one forward pass; changes speed and memory, and figures by rounding only.
        dtype, device: as in `model.load`.
        seed: of the bootstrap, and of a budget's sample.
        out: record file to append to and to resume from.

    Returns:
        One row a window, in the order asked for; the same on every rank.

    Raises:
        UserError: a window, stride or limit that cannot be; documents that are all too short; logits that are not numbers.
    """
    for window in windows or ():
        check(window, stride)
    if convention != "ropewalk":
        conventions.convention(convention)
    _check_budget(budget, convention)
    if windows:  # before a model is loaded, where that can be
        check_cuts(limit, max_tokens, max(*windows, min_tokens or 0))
    subject = open_model(model, tokenizer=tokenizer, dtype=dtype, device=device)
    windows = list(dict.fromkeys(windows or [subject.state.window]))
    for window in windows:
        check(window, stride)
        check_window(subject.model, window)
    shortest = max(*windows, min_tokens or 0)
    check_cuts(limit, max_tokens, shortest)
    documents, skipped = select_documents(
        subject.tokenizer, data, min_tokens=shortest, refusal=_TOO_SHORT, limit=limit, max_tokens=max_tokens
    )
    run = ranks.same(
        subject.run(
            seed=seed,
            windows=windows,
            stride=stride,
            convention=convention,
            budget=budget,
            max_tokens=max_tokens,
            limit=limit,
        )
    )
    recorder, found = records.Recorder(out, run), on_record(out)
    known, before = by_key(found, records.DocumentScore), found.of(records.Perplexity.kind)
    rows = []
    for window in windows:
        if convention != "ropewalk":
            row = conventions.measure(subject, documents, window, stride, convention, batch_tokens)
        elif budget is not None:
            row = budgets.measure(
                subject, documents, window, stride, batch_tokens, minutes=budget, tolerance=tolerance, seed=seed
            )
        else:
            row = measure(subject, documents, window, stride, batch_tokens, recorder=recorder, known=known, seed=seed)
        row = dataclasses.replace(row, skipped=skipped, data=name_of(data))
        rows.append(row)
        if ranks.rank() == 0 and not already_recorded(row, before, whatever=("peak_bytes",)):
            recorder.add(row)
    return rows


def measure(
    subject: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    *,
    recorder: records.Recorder | None = None,
    known: dict[str, records.DocumentScore] | None = None,
    seed: int = 0,
) -> records.Perplexity:
    """One window's row: score what is not known yet, put it on record document by document, and sum up."""
    known = known or {}
    weights = f"{fingerprint(subject.model)} {subject.dtype}"
    mine = [(at, document) for at, document in enumerate(documents) if at % ranks.size() == ranks.rank()]
    found: dict[int, records.DocumentScore] = {}
    if subject.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(subject.device)
    total = sum(len(sliding(len(document.ids), window, stride)) for _, document in mine)
    batch = max(1, (batch_tokens or default_batch_tokens(subject.device)) // window)
    with (
        Progress(f"perplexity, window {window}", total) as advance,
        faster(subject.model, passes=total, window=window, shape=(batch, window)),
    ):
        for at, document in mine:
            key = key_of(weights, document, window, stride)
            if key in known:
                found[at] = dataclasses.replace(known[key], document=document.name)
                advance(len(sliding(len(document.ids), window, stride)))
                continue
            found[at] = score_document(subject, document, window, stride, batch_tokens, key=key, advance=advance)
            if recorder is not None:
                recorder.add(found[at])
    scores = [score for _, score in sorted(ranks.gathered(found).items())]
    peak = torch.cuda.max_memory_allocated(subject.device) if subject.device.type == "cuda" else 0
    nll, tokens = np.array([one.nll for one in scores]), np.array([one.tokens for one in scores])
    low, high = bootstrap_ratio(nll, tokens, seed=seed)
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=exp(math.fsum(nll) / int(tokens.sum())),
        low=exp(low),
        high=exp(high),
        documents=len(scores),
        skipped=0,
        tokens=int(tokens.sum()),
        bos=subject.bos is not None,
        seconds=math.fsum(one.seconds for one in scores),
        peak_bytes=peak,
        per_document=[{"name": one.document, "tokens": one.tokens, "nll": one.nll} for one in scores],
    )


def _check_budget(budget: float | None, convention: str) -> None:
    if budget is None:
        return
    if not budget > 0:
        raise UserError(
            f"a budget is a number of minutes above 0, got {budget}; leave --budget out for the exact figure"
        )
    if convention != "ropewalk":
        raise UserError(
            f"a budget estimates ropewalk's own perplexity, not that of {convention}; leave out --budget or --as"
        )


def score_document(
    subject: LoadedModel,
    document: TokenizedDocument,
    window: int,
    stride: int,
    batch_tokens: int | None = None,
    *,
    key: str = "",
    advance: Callable[[int], None] = lambda done: None,
) -> records.DocumentScore:
    """One document's summed negative log-likelihood, in nats.

    Windows of one document alone share a forward pass: so its figure does not depend on its neighbours, nor on the rank.

    Raises:
        UserError: a logit was not a number; the sentence names the document and the window's place.
    """
    started = time.perf_counter()
    spans = sliding(len(document.ids), window, stride)
    passes = [Pass(document.ids[one.start : one.stop], one.scored) for one in spans]
    sums = []
    for one, nll in zip(spans, negative_log_likelihoods(subject.model, passes, batch_tokens=batch_tokens), strict=True):
        sums.append(float(nll.sum(dtype=np.float64)))
        if math.isnan(sums[-1]):
            raise not_a_number(document.name, one)
        advance(1)
    return records.DocumentScore(
        key=key,
        document=document.name,
        window=window,
        stride=stride,
        tokens=sum(one.scored for one in spans),
        nll=math.fsum(sums),
        seconds=time.perf_counter() - started,
    )


def key_of(weights: str, document: TokenizedDocument, window: int, stride: int) -> str:
    """Everything that decides a document's figure, as a short name."""
    said = json.dumps([weights, window, stride, hashlib.sha256(document.ids.astype("<i8").tobytes()).hexdigest()])
    return hashlib.sha256(said.encode()).hexdigest()[:20]
