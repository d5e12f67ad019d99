"""Other projects' perplexities, by their own rules: to explain their figures, not to replace ropewalk's.

in   documents as token ids, a window and a stride (tokens)
out  the forward passes of a rule, and the figure it computes from their log-likelihoods

Each rule was read from its project's code (named below) and is reproduced with what we hold to be its flaws. On the same
documents and the same model they differ by several per cent, more than most of the methods they are used to compare.

    rule         each window sees          scores                    figure
    ropewalk     W tokens, moved by S      the S new ones            exp(sum of nll / tokens)
    yarn         BOS + W - 1, moved by S   the new ones              exp(mean of windows' means)
    pose         BOS + W - 1, moved by S   the new ones              exp(sum of nll / tokens)
    longlora     W tokens, moved by S      all W - 1 each time       2.71828 ** (mean of windows' means)
    lm-eval      W tokens, disjoint        all but the first one     exp(sum of nll / tokens)
    huggingface  W tokens, moved by S      the S new ones            windows' means weighted by S - 1
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from ropewalk import records
from ropewalk.data.encode import TokenIds, check_ids, prefix_ids
from ropewalk.data.select import TokenizedDocument
from ropewalk.distributed.ranks import gathered, rank
from ropewalk.distributed.ranks import size as world_size
from ropewalk.errors import UserError
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.evals.loaded import LoadedModel
from ropewalk.progress import Progress

#: Per pass, the negative log-likelihoods of its scored tokens (each of its own length).
Likelihoods = Sequence[Float[np.ndarray, " _"]]


@dataclass(frozen=True)
class Texts:
    """Tokenized documents and settings, as the input of any rule.

    Attributes:
        documents: token ids of each, without what the tokenizer puts in front.
        front: what the tokenizer puts in front of a text: BOS, nothing, or several tokens (GLM).
        start: the tokenizer's BOS, whether it puts it in front or not.
        prefix: BOS, or EOS where there is no BOS; lm-eval puts it in front.
        joined: the tokens of all texts as one, a blank line between them: what the transformers guide tokenizes. Empty where no text was kept.
        window, stride: tokens.
    """

    documents: Sequence[TokenIds]
    front: Sequence[int]
    start: int | None
    prefix: int | None
    joined: TokenIds
    window: int
    stride: int

    def with_front(self, ids: TokenIds) -> TokenIds:
        return np.concatenate([np.array(self.front, dtype=np.int64), ids])


def texts_of(tokenizer: Any, documents: Sequence[TokenizedDocument], *, window: int, stride: int) -> Texts:
    """`Texts` of documents as they were selected: what the tokenizer puts in front is taken off, since each rule places it differently."""
    front = prefix_ids(tokenizer)
    bare = [document.ids[len(front) :] for document in documents]
    start = tokenizer.bos_token_id
    prefix = start if start is not None else tokenizer.eos_token_id
    words = "\n\n".join(document.words for document in documents)
    joined = np.array(tokenizer(words, verbose=False)["input_ids"] if words.strip() else [], dtype=np.int64)
    check_ids(tokenizer, joined)
    return Texts(bare, front, start, prefix, joined, window, stride)


@dataclass(frozen=True)
class Convention:
    """A rule: the forward passes it makes of documents, and the figure it computes from their log-likelihoods.

    joins_texts: it tokenizes all texts as one.
    """

    source: str
    passes: Callable[[Texts], list[Pass]]
    figure: Callable[[Texts, Likelihoods], float]
    joins_texts: bool = False


# ---- YaRN: eval/perplexity.py of jquesnelle/yarn (2024) ---------------------------------------------------------------


def _windows_with_bos(texts: Texts) -> Iterator[tuple[Pass, int]]:
    """BOS in front of every window, which leaves W - 1 tokens for text; with each pass's number of new tokens.

    Raises:
        UserError: what is put in front leaves no room for text.
    """
    text_tokens = texts.window - len(texts.front)
    if text_tokens < 1:
        raise UserError(
            f"the rule puts {len(texts.front)} tokens in front of each window, which leaves none of {texts.window} for text; ask for longer --windows"
        )
    for ids in texts.documents:
        scored_to = 0
        for begin in range(0, len(ids), texts.stride):
            end = min(begin + text_tokens, len(ids))
            window_ids = texts.with_front(ids[begin:end])
            # At a stride above that, tokens between two windows are skipped: score only what the window holds.
            scored = min(end - scored_to, len(window_ids) - 1)
            if scored > 0:
                yield Pass(window_ids, scored), end - scored_to
            scored_to = end
            if end == len(ids):
                break


def _yarn_passes(texts: Texts) -> list[Pass]:
    return [item for item, _ in _windows_with_bos(texts)]


def _mean_of_means(likelihoods: Likelihoods) -> float:
    return float(np.mean([nll.mean(dtype=np.float64) for nll in likelihoods]))


# ---- PoSE: src/eval_ppl.py of dwzhu-pku/PoSE (2024), YaRN's code with another mean ------------------------------------


def _pose_windows(texts: Texts) -> list[tuple[Pass, int]]:
    """Every window begins with the tokenizer's BOS, even where the tokenizer itself puts none in front of a text."""
    if texts.start is None:
        raise UserError("PoSE's rule puts BOS before every window, and this tokenizer has none; use another --as")
    return list(_windows_with_bos(dataclasses.replace(texts, front=[texts.start])))


def _pose_figure(texts: Texts, likelihoods: Likelihoods) -> float:
    return _weighted(likelihoods, [new for _, new in _pose_windows(texts)])


def _weighted(likelihoods: Likelihoods, weights: Sequence[int]) -> float:
    """exp of the windows' means, weighted."""
    means = np.array([nll.mean(dtype=np.float64) for nll in likelihoods])
    return math.exp(float(np.average(means, weights=weights)))


# ---- LongLoRA: eval.py of dvlab-research/LongLoRA (2023) --------------------------------------------------------------


def _longlora_passes(texts: Texts) -> list[Pass]:
    """All documents in one row; every window scores everything it sees; the last window is dropped."""
    row = np.concatenate([texts.with_front(ids) for ids in texts.documents])
    starts = list(range(0, len(row) - texts.window, texts.stride))[:-1]
    if not starts:
        raise UserError(
            f"LongLoRA's rule drops its last window, so it needs more than {texts.window + texts.stride} tokens in all, "
            f"got {len(row)}; give more documents"
        )
    return [Pass(row[start : start + texts.window], texts.window - 1) for start in starts]


# ---- lm-evaluation-harness: loglikelihood_rolling (0.4.13) ------------------------------------------------------------


def _lm_eval_passes(texts: Texts) -> list[Pass]:
    """Disjoint windows with one token of context each; the last one is extended to the left by more context.

    The prefix token comes before the tokenizer's own output: two BOS where the tokenizer puts one itself.
    """
    if texts.prefix is None:
        raise UserError(
            "lm-eval's rule puts BOS or EOS before a text, and this tokenizer has neither; use another --as"
        )
    passes = []
    for ids in texts.documents:
        row = np.concatenate([[texts.prefix], texts.with_front(ids)])
        for begin in range(1, len(row), texts.window):
            end = min(begin + texts.window, len(row))
            # The model sees the W tokens before the last one scored; a pass holds that one too.
            passes.append(Pass(row[max(0, end - 1 - texts.window) : end], end - begin))
    return passes


# ---- transformers' guide "Perplexity of fixed-length models" (2024) ---------------------------------------------------


def _huggingface_windows(texts: Texts) -> Iterator[tuple[Pass, int]]:
    """Passes over all texts tokenized as one; with each pass's number of labels."""
    row, scored_to = texts.joined, 0
    for begin in range(0, len(row), texts.stride):
        end = min(begin + texts.window, len(row))
        labels = min(end - scored_to, end - begin)
        # The shift of labels drops the window's first token, which costs a label only where all its tokens are labels.
        scored = min(labels, end - begin - 1)
        if scored > 0:
            yield Pass(row[begin:end], scored), labels
        scored_to = end
        if end == len(row):
            return


def _huggingface_figure(texts: Texts, likelihoods: Likelihoods) -> float:
    """Each window's mean is weighted by its labels less one, for the label that the shift is assumed to drop.

    The shift drops one in the first window only: later windows score a token more than their weight counts.
    """
    return _weighted(likelihoods, [labels - 1 for _, labels in _huggingface_windows(texts)])


def _per_token(texts: Texts, likelihoods: Likelihoods) -> float:
    return math.exp(math.fsum(float(nll.sum(dtype=np.float64)) for nll in likelihoods) / sum(map(len, likelihoods)))


CONVENTIONS: dict[str, Convention] = {
    "yarn": Convention(
        "jquesnelle/yarn eval/perplexity.py", _yarn_passes, lambda texts, nlls: math.exp(_mean_of_means(nlls))
    ),
    "pose": Convention(
        "dwzhu-pku/PoSE src/eval_ppl.py", lambda texts: [item for item, _ in _pose_windows(texts)], _pose_figure
    ),
    "longlora": Convention(
        "dvlab-research/LongLoRA eval.py",
        _longlora_passes,
        lambda texts, nlls: 2.71828 ** _mean_of_means(nlls),
    ),
    "lm-eval": Convention("lm-eval 0.4.13 loglikelihood_rolling", _lm_eval_passes, _per_token),
    "huggingface": Convention(
        "transformers' guide to perplexity",
        lambda texts: [item for item, _ in _huggingface_windows(texts)],
        _huggingface_figure,
        joins_texts=True,
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


def measure_window(
    loaded: LoadedModel,
    documents: Sequence[TokenizedDocument],
    window: int,
    stride: int,
    name: str,
    batch_tokens: int | None = None,
) -> records.Perplexity:
    """One window's row by another project's rule."""
    started, rule = time.perf_counter(), convention(name)
    texts = texts_of(loaded.tokenizer, documents, window=window, stride=stride)
    passes, scored_here = rule.passes(texts), {}
    local = range(rank(), len(passes), world_size())
    with Progress(f"perplexity as {name}, window {window}", len(local)) as advance:
        scored = negative_log_likelihoods(loaded.model, [passes[place] for place in local], batch_tokens=batch_tokens)
        for place, nll in zip(local, scored, strict=True):
            if np.isnan(nll).any():
                raise UserError(
                    f"log-likelihoods must be numbers, but the model gave NaN in {_document_of(passes[place], documents)}; "
                    "try --dtype float32, or another copy of the model"
                )
            scored_here[place] = nll
            advance(1)
    likelihoods = [nll for _, nll in sorted(gathered(scored_here).items())]
    figure = rule.figure(texts, likelihoods)
    return records.Perplexity(
        window=window,
        stride=stride,
        perplexity=figure,
        low=math.nan,
        high=math.nan,
        documents=len(documents),
        skipped=0,
        tokens=sum(map(len, likelihoods)),
        bos=loaded.bos is not None,
        convention=name,
        seconds=time.perf_counter() - started,
    )


def _document_of(item: Pass, documents: Sequence[TokenizedDocument]) -> str:
    """The document that a window ends in, found by its last tokens, since some rules put all documents in one row."""
    tail = item.ids[-min(item.scored, 16) :].astype("<i8").tobytes()
    return next((document.name for document in documents if tail in document.ids.astype("<i8").tobytes()), "a window")
