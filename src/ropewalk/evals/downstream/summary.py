"""Summaries of long documents: written by the model, scored by ROUGE (section 3.5).

in   a model, and pairs of documents and summaries to measure on
out  records: each document's summary with its scores, and the means with 95 % bootstrap intervals

**The figures** are mean F-measures of rouge-score with the Porter stemmer: ROUGE-1, ROUGE-2 and `rougeLsum`, the longest
common subsequence taken sentence by sentence, where a sentence is a line. Texts are scored as they are: no sentence
splitter puts line breaks in, as its choice would move the figure more than most models do. `rouge_l_plain` is `rougeL`,
over the whole text as one sequence. Where texts have no line breaks the two are one number. Published GovReport tables
that show an R-L near 30 beside an R-1 near 60, the paper's among them, are of that kind.

**Two ways of decoding**: as the paper, temperature 0.5 and top-p 0.95; and greedy, which no seed can move.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int
from rouge_score.rouge_scorer import RougeScorer

from ropewalk import records
from ropewalk.data.select import name_of
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.downstream.generation import Decoding, Written, end_marks, write
from ropewalk.evals.downstream.pairs import Pair, Sizes, first, is_cut, pairs, prompt_ids
from ropewalk.evals.intervals import bootstrap_mean
from ropewalk.evals.likelihood import check_window
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.progress import Progress
from ropewalk.records.resume import already_recorded, by_key, on_record
from ropewalk.settings.command import takes
from ropewalk.settings.downstream import SummarizeSettings

#: Our name of a score → rouge-score's.
SCORES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeLsum", "rouge_l_plain": "rougeL"}


@functools.cache
def _scorer() -> RougeScorer:
    return RougeScorer(list(SCORES.values()), use_stemmer=True)


def rouge(summary: str, reference: str) -> dict[str, float]:
    """F-measures in [0, 1] of one summary, by our names (SCORES)."""
    found = _scorer().score(reference, summary)
    return {ours: float(found[theirs].fmeasure) for ours, theirs in SCORES.items()}


def measure(
    loaded: LoadedModel,
    found: Sequence[Pair],
    sizes: Sizes,
    decoding: Decoding,
    *,
    batch: int | None = None,
    recorder: records.Recorder | None = None,
    known: dict[str, records.DocumentSummary] | None = None,
    data: str = "",
) -> records.Summary:
    """Write a summary of every document and score it.

    Args:
        loaded: the model.
        found: pairs.
        sizes: how much of a document is shown, and how long a summary may be (tokens).
        decoding: greedy or drawn.
        batch: documents at a time; from the memory if not given.
        recorder: where each batch of documents goes as soon as it is written.
        known: what is on record already, by key.
        data: what the row calls the pairs.
    """
    known = known or {}
    prompts = [prompt_ids(loaded.tokenizer, pair.document, sizes.document) for pair in found]
    weights = f"{fingerprint(loaded.model)} {loaded.dtype}"
    keys = [_key(weights, prompt, pair, sizes, decoding) for prompt, pair in zip(prompts, found, strict=True)]
    rows = {place: known[key] for place, key in enumerate(keys) if key in known}
    open_places = [place for place in range(len(found)) if place not in rows][ranks.rank() :: ranks.size()]
    last = time.perf_counter()

    def done(batch_places: list[int], texts: list[Written]) -> None:
        nonlocal last
        seconds, last = time.perf_counter() - last, time.perf_counter()
        for at, text in zip(batch_places, texts, strict=True):
            place = open_places[at]
            rows[place] = _row(loaded, keys[place], found[place], text, decoding, seconds / len(texts))
            if recorder is not None:
                recorder.add(rows[place])
        advance(len(texts))

    with Progress(f"summaries, {decoding.name}", len(open_places)) as advance:
        write(
            loaded.model,
            [prompts[place] for place in open_places],
            new_tokens=sizes.summary,
            decoding=decoding,
            ends=end_marks(loaded.tokenizer, loaded.model),
            keys=open_places,
            names=[found[place].name for place in open_places],
            batch=batch,
            done=done,
        )
    rows = ranks.gathered(rows)
    documents = [rows[place] for place in range(len(found))]
    cut = sum(is_cut(loaded.tokenizer, pair, sizes) for pair in found)
    return _summed_up(documents, sizes, decoding, cut=cut, data=data)


def _key(weights: str, prompt: Int[np.ndarray, " n"], pair: Pair, sizes: Sizes, decoding: Decoding) -> str:
    """Everything that decides a document's row, as a short name. A greedy text has no seed."""
    drawn = dataclasses.astuple(decoding) if decoding.temperature else ()
    texts = hashlib.sha256(prompt.astype("<i8").tobytes() + pair.summary.encode()).hexdigest()
    return hashlib.sha256(json.dumps([weights, texts, pair.name, sizes.summary, drawn]).encode()).hexdigest()[:20]


def _row(
    loaded: LoadedModel, key: str, pair: Pair, text: Written, decoding: Decoding, seconds: float
) -> records.DocumentSummary:
    written = loaded.tokenizer.decode(text.ids, skip_special_tokens=True).strip()
    return records.DocumentSummary(
        key=key,
        document=pair.name,
        decoding=decoding.name,
        text=written,
        tokens=len(text.ids),
        finished=text.finished,
        seconds=seconds,
        **rouge(written, pair.summary),
    )


def _summed_up(
    documents: Sequence[records.DocumentSummary], sizes: Sizes, decoding: Decoding, *, cut: int, data: str
) -> records.Summary:
    scores = {name: np.array([getattr(one, name) for one in documents]) for name in SCORES}
    drawn = decoding.temperature > 0
    return records.Summary(
        **{name: float(values.mean()) for name, values in scores.items()},
        intervals={name: list(bootstrap_mean(values, seed=decoding.seed)) for name, values in scores.items()},
        documents=len(documents),
        cut=cut,
        unfinished=sum(not one.finished for one in documents),
        decoding=decoding.name,
        window=sizes.window,
        document_tokens=sizes.document,
        summary_tokens=sizes.summary,
        temperature=decoding.temperature if drawn else None,
        top_p=decoding.top_p if drawn else None,
        seed=decoding.seed,
        data=data,
        trained_on="",
        seconds=sum(one.seconds for one in documents),
        generated_tokens=sum(one.tokens for one in documents),
        per_document=[
            {
                "name": one.document,
                "tokens": one.tokens,
                "rouge_1": one.rouge_1,
                "rouge_2": one.rouge_2,
                "rouge_l": one.rouge_l,
                "rouge_l_plain": one.rouge_l_plain,
            }
            for one in documents
        ],
    )


@takes(SummarizeSettings)
def summarize(settings: SummarizeSettings) -> list[records.Summary]:
    """Summaries of the documents in `data`, scored (section 3.5, table 6), by a model fine-tuned on `train` first if given.

    A killed run continues where it stopped: a document that `out` holds for the same weights, dtype, prompt and
    decoding is not written again. Under torchrun the documents are shared out over the ranks; the fine-tuning is not.

    Raises:
        UserError: sizes that do not fit the window, a window above what the model can hold, pairs that cannot be read,
            `trained` without `train`, logits that are not numbers.
    """
    data, decodings = settings.data, settings.decodings or _decodings(settings)
    selected = first(data, settings.limit)
    model = settings.model if settings.train is None else _finetuned(settings)
    loaded = open_model(model, tokenizer=settings.tokenizer, dtype=settings.dtype, device=settings.device)
    sizes = sizes_for(loaded, settings.window, settings.document_tokens, settings.summary_tokens)
    run = ranks.same(loaded.run(seed=decodings[0].seed, sizes=dataclasses.asdict(sizes), limit=settings.limit))
    recorder, recorded = records.Recorder(settings.out, run), on_record(settings.out)
    known, before = ranks.same((by_key(recorded, records.DocumentSummary), recorded.of(records.Summary)))
    rows = []
    for decoding in decodings:
        row = measure(
            loaded, selected, sizes, decoding, batch=settings.batch, recorder=recorder, known=known, data=name_of(data)
        )
        row = dataclasses.replace(row, trained_on="" if settings.train is None else name_of(settings.train))
        if ranks.rank() == 0 and not already_recorded(row, before):
            recorder.add(row)
        rows.append(row)
    return rows


def _decodings(settings: SummarizeSettings) -> list[Decoding]:
    """Drawn as asked for, and beside it the likeliest token at every step."""
    return [Decoding(settings.temperature, settings.top_p, settings.seed), Decoding(temperature=0.0)]


def _finetuned(settings: SummarizeSettings) -> Path:
    """The model after it was trained on pairs, or what is left of that training."""
    from ropewalk.evals.downstream.finetune import finetune

    if ranks.size() > 1:
        raise UserError(
            "fine-tuning on pairs runs in one process; run it without torchrun, then measure the result with it"
        )
    if settings.train is None or settings.trained is None or not isinstance(settings.model, str | Path):
        raise UserError(
            "fine-tuning starts from a checkpoint and ends in one; name the model, and --trained DIR for the result"
        )
    finetune(
        settings.model,
        data=settings.train,
        out=settings.trained,
        held_out=list(pairs(settings.data)),
        window=settings.window,
        document_tokens=settings.document_tokens,
        summary_tokens=settings.summary_tokens,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        device=settings.device,
        resume=True,
    )
    return Path(settings.trained)


def sizes_for(
    loaded: LoadedModel,
    window: int | None = None,
    document_tokens: int | None = None,
    summary_tokens: int | None = None,
) -> Sizes:
    """The sizes asked for, or the paper's where they fit the model's window.

    Raises:
        UserError: they do not fit the window, or the window not the model.
    """
    if window is None:
        window = min(loaded.info.window, 16384)
    if window > loaded.info.window:
        raise UserError(
            f"a summary's window is at most the model's own {loaded.info.window}, got {window}; extend the model first "
            f"(`ropewalk extend … --window {window}`)"
        )
    check_window(loaded.model, window)
    return Sizes.fitting(loaded.tokenizer, window, document_tokens, summary_tokens)
