"""Text to token ids, with BOS where the tokenizer itself puts one.

in   a transformers tokenizer and texts
out  int64 token ids, one array a text

Apart from documents.py, which needs neither torch nor transformers.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Integer
from transformers import PreTrainedTokenizerBase

from ropewalk.errors import UserError

_logger = logging.getLogger(__name__)
_Text = TypeVar("_Text", bound=Any)
#: Where a tokenizer remembers what `limit_ids` told it.
_ROWS = "embedding_rows"
#: Token ids of one text, (tokens,), of any integer type: its own length, whatever other texts beside it have.
TokenIds = Integer[np.ndarray, " _"]


def prefix_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids put in front of a document: BOS where the tokenizer itself puts one (LLaMA), none where it does not (Qwen), two for GLM.

    Read off what the tokenizer does, not whether it names a BOS token (some that put one in front name none): so a document
    looks as it did in pretraining.
    """
    with_special, bare = tokenizer("a").input_ids, tokenizer("a", add_special_tokens=False).input_ids
    begins = [at for at in range(len(with_special)) if with_special[at : at + len(bare)] == bare]
    return list(with_special[: begins[0]]) if begins else list(with_special[:1])


def bos_id(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The first of `prefix_ids`, or None."""
    return next(iter(prefix_ids(tokenizer)), None)


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Each control token (BOS, EOS, `<|im_end|>`, …) as it is spelled."""
    spelled = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return sorted(filter(None, spelled | set(tokenizer.all_special_tokens)))


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Matches each of these words, the longest first; nothing if there are none."""
    return re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))) or r"(?!)")


def telling_spelled(tokenizer: PreTrainedTokenizerBase, texts: Iterable[_Text], way_out: str = "") -> Iterator[_Text]:
    """These texts, or what has a `text`, one by one; once no more are asked for, a line says how many spell a control token, which `encode` reads as text."""
    control = any_of(control_tokens(tokenizer))
    count = spelled = 0
    example = ""
    try:
        for each in texts:
            count += 1
            if match := control.search(each if isinstance(each, str) else each.text):
                spelled, example = spelled + 1, example or match[0]
            yield each
    finally:
        if spelled:
            _logger.info(
                f"{spelled} of {count} texts spell a control token ({example}), which is read as text{way_out}"
            )


def encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, bos: bool = True, eos: bool = False, control: bool = False
) -> TokenIds:
    """Token ids of a text, int64.

    Args:
        tokenizer: a transformers tokenizer.
        text: of any length; it is neither cut at the tokenizer's `model_max_length` nor warned of.
        bos: put BOS in front if the tokenizer does so itself (`prefix_ids`).
        eos: put EOS at the end if the tokenizer has one.
        control: a control token that is spelled in the text is one; otherwise it is text like any other, so that no document can end
            itself or speak in another's name.

    Raises:
        UserError: a token that the model has no embedding for (`limit_ids`).
    """
    return encode_all(tokenizer, [text], bos=bos, eos=eos, control=control)[0]


def encode_all(
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    bos: bool = True,
    eos: bool = False,
    control: bool = False,
) -> list[TokenIds]:
    """As `encode`, for many texts at once: a fast tokenizer spreads them over all cores."""
    with on_all_cores() if len(texts) > 1 else contextlib.nullcontext():
        rows = _encode_bare(tokenizer, list(texts), control=control)
    eos_token = tokenizer.eos_token_id if eos else None
    head = prefix_ids(tokenizer) if bos else []
    tail = [] if eos_token is None else [eos_token]
    encoded = [np.array(head + row + tail, dtype=np.int64) for row in rows]
    for ids in encoded:
        check_ids(tokenizer, ids)
    return encoded


def _encode_bare(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, control: bool) -> list[list[int]]:
    """Ids of each text alone, whole. A fast tokenizer is asked itself: through transformers it also works out where in the text each token lies."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        # verbose=False: the warning that a text exceeds model_max_length is wrong for text that is cut into windows later.
        options = {"add_special_tokens": False, "split_special_tokens": not control, "return_attention_mask": False}
        return tokenizer(texts, verbose=False, **options)["input_ids"]
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = not control
    return [encoded.ids for encoded in backend.encode_batch_fast(texts, add_special_tokens=False)]


def limit_ids(tokenizer: PreTrainedTokenizerBase, rows: int | None) -> None:
    """Tell a tokenizer how many rows its model's embedding has; from then on no text is encoded that the model cannot read."""
    setattr(tokenizer, _ROWS, rows)


def check_ids(tokenizer: PreTrainedTokenizerBase, ids: TokenIds | Sequence[int]) -> None:
    """Hold token ids against the embedding of `limit_ids`, if that was called.

    Raises:
        UserError: an id without a row.
    """
    rows = getattr(tokenizer, _ROWS, None)
    largest = int(max(ids, default=0)) if isinstance(ids, list) else int(np.max(ids, initial=0))
    if rows is not None and largest >= rows:
        raise UserError(
            f"the text has token {largest} ({tokenizer.convert_ids_to_tokens(largest)!r}), the model's embedding has {rows} rows (0 … {rows - 1}); "
            "take that token out of the text or out of the tokenizer, or resize the embedding"
        )


@contextlib.contextmanager
def on_all_cores() -> Iterator[None]:
    """The tokenizer's threads are Rust's, and it reads how many from the environment at each call."""
    before = os.environ.get("TOKENIZERS_PARALLELISM")
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    try:
        yield
    finally:
        if before is None:
            del os.environ["TOKENIZERS_PARALLELISM"]
        else:
            os.environ["TOKENIZERS_PARALLELISM"] = before
