"""Other people's perplexities, by their own rules: to explain their numbers, not to replace ours.

in   documents as token ids, a window and a stride (tokens)
out  the passes that a rule makes, and the figure it makes of their log-likelihoods

Each rule was read from its project's code (named below) and is reproduced with what we hold to be its flaws. Given the same
documents and the same model they differ by several per cent, more than most methods they are used to compare.

    rule         each window sees          scores                    figure
    ropewalk     W tokens, moved by S      the S new ones            exp(sum of nll / tokens)
    yarn         BOS + W - 1, moved by S   the new ones              exp(mean of windows' means)
    longlora     W tokens, moved by S      all W - 1 each time       2.71828 ** (mean of windows' means)
    lm-eval      W tokens, disjoint        all but the first one     exp(sum of nll / tokens)
    huggingface  W tokens, moved by S      the S new ones            windows' means weighted by S - 1
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ropewalk import records
from ropewalk.data.select import TokenizedDocument
from ropewalk.errors import UserError
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.evals.loaded import LoadedModel
from ropewalk.evals.tokenize_parts import Ids, after
from ropewalk.progress import Progress

Likelihoods = Sequence[Float[np.ndarray, " scored"]]


@dataclass(frozen=True)
class Reading:
    """What a rule has to go by.

    Attributes:
        documents: token ids of each, without BOS.
        bos: what the tokenizer puts in front of a text, if anything.
        prefix: BOS, or EOS where there is no BOS; what lm-eval puts in front.
        joint: the tokens of a blank line, which the transformers guide puts between documents.
        window, stride: tokens.
    """

    documents: Sequence[Ids]
    bos: int | None
    prefix: int | None
    joint: Ids
    window: int
    stride: int

    def with_bos(self, ids: Ids) -> Ids:
        return ids if self.bos is None else np.concatenate([[self.bos], ids])


def reading(tokenizer: Any, documents: Sequence[Ids], *, bos: int | None, window: int, stride: int) -> Reading:
    """Documents as `text.encode` gives them, for a rule that does its own with BOS."""
    bare = [ids[1:] if bos is not None else ids for ids in documents]
    prefix = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    return Reading(bare, bos, prefix, after(tokenizer, "a", "\n\n"), window, stride)


@dataclass(frozen=True)
class Convention:
    """A rule: the passes it makes of documents, and the figure it makes of their log-likelihoods."""

    source: str
    passes: Callable[[Reading], list[Pass]]
    figure: Callable[[Reading, Likelihoods], float]


# ---- YaRN: eval/perplexity.py of jquesnelle/yarn (2024) ---------------------------------------------------------------


def _yarn_passes(reading: Reading) -> list[Pass]:
    """BOS in front of every window, which leaves room for W - 1 tokens of text."""
    room = reading.window - (reading.bos is not None)
    found = []
    for ids in reading.documents:
        reached = 0
        for begin in range(0, len(ids), reading.stride):
            end = min(begin + room, len(ids))
            seen = reading.with_bos(ids[begin:end])
            # At a stride above the room, tokens between two windows are lost; those of a window are never more than it has.
            scored = min(end - reached, len(seen) - 1)
            if scored > 0:
                found.append(Pass(seen, scored))
            reached = end
            if end == len(ids):
                break
    return found


def _mean_of_means(likelihoods: Likelihoods) -> float:
    return float(np.mean([nll.mean(dtype=np.float64) for nll in likelihoods]))


# ---- LongLoRA: eval.py of dvlab-research/LongLoRA (2023) --------------------------------------------------------------


def _longlora_passes(reading: Reading) -> list[Pass]:
    """All documents in one row; every window scores everything it sees; the last window is dropped."""
    row = np.concatenate([reading.with_bos(ids) for ids in reading.documents])
    starts = list(range(0, len(row) - reading.window, reading.stride))[:-1]
    if not starts:
        raise UserError(
            f"LongLoRA's rule drops its last window, so it needs more than {reading.window + reading.stride} tokens in all, "
            f"got {len(row)}; give more documents"
        )
    return [Pass(row[start : start + reading.window], reading.window - 1) for start in starts]


# ---- lm-evaluation-harness: loglikelihood_rolling (0.4.13) ------------------------------------------------------------


def _lm_eval_passes(reading: Reading) -> list[Pass]:
    """Disjoint windows with one token of context each; the last one is filled up with context on its left.

    The prefix token comes before whatever the tokenizer made of the text: two BOS where it puts one itself.
    """
    if reading.prefix is None:
        raise UserError(
            "lm-eval's rule puts BOS or EOS before a text, and this tokenizer has neither; use another --as"
        )
    found = []
    for ids in reading.documents:
        row = np.concatenate([[reading.prefix], reading.with_bos(ids)])
        for begin in range(1, len(row), reading.window):
            end = min(begin + reading.window, len(row))
            # The model sees the W tokens before the last one scored; a pass holds that one too.
            found.append(Pass(row[max(0, end - 1 - reading.window) : end], end - begin))
    return found


# ---- transformers' guide "Perplexity of fixed-length models" (2024) ---------------------------------------------------


def _huggingface_windows(reading: Reading) -> Iterator[tuple[Pass, int]]:
    """Passes over all documents in one row, BOS before the first and a blank line between, and each one's labels."""
    parts: list[Ids] = []
    for ids in reading.documents:
        parts += [reading.joint, ids]
    row, reached = reading.with_bos(np.concatenate(parts[1:])), 0
    for begin in range(0, len(row), reading.stride):
        end = min(begin + reading.window, len(row))
        labels = min(end - reached, end - begin)
        # The shift of labels takes the first token of what is seen, and a token of a label only where the two are one.
        scored = min(labels, end - begin - 1)
        if scored > 0:
            yield Pass(row[begin:end], scored), labels
        reached = end
        if end == len(row):
            return


def _huggingface_figure(reading: Reading, likelihoods: Likelihoods) -> float:
    """Each window's mean counts for one token less than it has labels, the one that the shift is thought to take.

    It takes one in the first window only: later windows score a token that their weight leaves out.
    """
    weights = np.array([labels - 1 for _, labels in _huggingface_windows(reading)])
    means = np.array([nll.mean(dtype=np.float64) for nll in likelihoods])
    return math.exp(float((means * weights).sum() / weights.sum()))


def _per_token(reading: Reading, likelihoods: Likelihoods) -> float:
    return math.exp(math.fsum(float(nll.sum(dtype=np.float64)) for nll in likelihoods) / sum(map(len, likelihoods)))


CONVENTIONS: dict[str, Convention] = {
    "yarn": Convention(
        "jquesnelle/yarn eval/perplexity.py", _yarn_passes, lambda reading, nlls: math.exp(_mean_of_means(nlls))
    ),
    "longlora": Convention(
        "dvlab-research/LongLoRA eval.py",
        _longlora_passes,
        lambda reading, nlls: 2.71828 ** _mean_of_means(nlls),
    ),
    "lm-eval": Convention("lm-eval 0.4.13 loglikelihood_rolling", _lm_eval_passes, _per_token),
    "huggingface": Convention(
        "transformers' guide to perplexity",
        lambda reading: [one for one, _ in _huggingface_windows(reading)],
        _huggingface_figure,
    ),
}


def convention(name: str) -> Convention:
    """A rule by its name.

    Raises:
        UserError: there is no such rule.
    """
    if name not in CONVENTIONS:
        raise UserError(f"a convention is ropewalk or one of {', '.join(CONVENTIONS)}, got {name}; choose one of them")
    return CONVENTIONS[name]


def measure(
    subject: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    name: str,
    batch_tokens: int | None = None,
) -> records.Perplexity:
    """One window's row by somebody else's rule."""
    started, rule = time.perf_counter(), convention(name)
    ids = [document.ids for document in documents]
    read = reading(subject.tokenizer, ids, bos=subject.bos, window=window, stride=stride)
    passes, likelihoods = rule.passes(read), []
    with Progress(f"perplexity as {name}, window {window}", len(passes)) as advance:
        scored = negative_log_likelihoods(subject.model, passes, batch_tokens=batch_tokens)
        for one, nll in zip(passes, scored, strict=True):
            if np.isnan(nll).any():
                raise UserError(
                    f"log-likelihoods must be numbers, but the model gave NaN in {_holder(one, documents)}; try --dtype float32"
                )
            likelihoods.append(nll)
            advance(1)
    figure = rule.figure(read, likelihoods)
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=figure,
        low=math.nan,
        high=math.nan,
        documents=len(documents),
        skipped=0,
        tokens=sum(map(len, likelihoods)),
        bos=subject.bos is not None,
        convention=name,
        seconds=time.perf_counter() - started,
    )


def _holder(one: Pass, documents: Sequence[TokenizedDocument]) -> str:
    """The document that a window ends in, told by the window's last tokens: some rules lay all documents in one row."""
    tail = one.ids[-min(one.scored, 16) :].astype("<i8").tobytes()
    return next((document.name for document in documents if tail in document.ids.astype("<i8").tobytes()), "a window")
