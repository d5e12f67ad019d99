"""The attention scores themselves, by distance: do they stay as bounded in the new window as at short range?

in   a model, documents, a window of N tokens
out  records: per layer and head, the scores before the softmax by distance, the largest |h_j|, the paper's bounds evaluated
     with it beside the deviation that was found; and how well neighbouring tokens are told apart (adjacent.py)

The paper argues about scores and never shows one (Chen et al. 2023, section 2). Here is every causal pair of the first N tokens
of each document, N² / 2 a head, without an N × N matrix: distances.py. The model runs as ever: probe.py.

A base model in a window longer than its own is measured in three states on the same documents: inside its own window; beyond
it, as it is (extrapolation); and beyond it with its positions interpolated (PI before training). An extended model with
`base` is measured after these three, which makes four: what extension promised, what it breaks, and what training mends.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ropewalk import records
from ropewalk.checkpoint.rope_config import read_rope
from ropewalk.data.select import TokenizedDocument, name_of, select_documents
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.attention.adjacent import FEWEST
from ropewalk.evals.attention.layers import measure
from ropewalk.evals.attention.memory_check import check_room
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model
from ropewalk.evals.recorded import recorded_rows
from ropewalk.model.verify import pin_rope
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.rope.bounds import check_reach
from ropewalk.rope.scaling import Linear, Plain

_TOO_SHORT = (
    "scores in a window of {min_tokens} tokens need a document that fills it, but the longest has {longest}; "
    "give longer documents or a smaller --window"
)


@dataclass(frozen=True)
class Measured:
    """One state of a model, its header and its rows."""

    run: records.Run
    rows: list[AttentionScores | Adjacent]


def attention(
    model: Any,
    *,
    data: Any,
    window: int | None = None,
    base: Any = None,
    documents: int = 1,
    dtype: str | torch.dtype | None = None,
    device: str | torch.device | None = None,
    tokenizer: Any = None,
    out: str | Path | None = None,
) -> list[Measured]:
    """Measure the scores of a model, and of the states it came from.

    Args:
        model: a name (`hemp`, directory, hub id) or a transformers model (then with its tokenizer).
        data: files, directories or data-set ids, or `text.Document`s; each document is cut to its first N tokens.
        window: N, tokens; the model's own if not given.
        base: the model before extension, to be measured inside its window, beyond it, and interpolated.
        documents: how many of those that are long enough. One has N² / 2 scores a head.
        dtype, device: as in `model.load`.
        out: record file to append to; one run a state. A state that it holds already is not measured again.

    Under torchrun every rank does the same work, and the first one records it.

    Raises:
        UserError: no document is long enough; it would not fit in memory; a score is not a number; no RoPE.
    """
    if documents < 1:
        raise UserError(f"scores are measured on at least 1 document, got {documents}; ask for 1")
    if window is not None:
        check_reach(window)
    records.check_file(out)
    for one in (base, model):
        if one is not None:
            check_room(one, window, dtype=dtype, device=device)
    loaded = open_model(model, tokenizer=tokenizer, dtype=dtype, device=device)
    window = window or loaded.info.window
    if min(window, loaded.info.original_window) < FEWEST:
        raise UserError(
            f"neighbours are told apart in windows of at least {FEWEST} tokens, got "
            f"{min(window, loaded.info.original_window)}; ask for a longer --window"
        )
    chosen, _ = select_documents(
        loaded.tokenizer, data, min_tokens=window, refusal=_TOO_SHORT, limit=documents, max_tokens=window
    )
    found: list[Measured] = []
    if base is not None:
        before = open_model(base, tokenizer=tokenizer or loaded.tokenizer, dtype=dtype, device=device)
        _check_related(before, loaded)
        found += [_measure(*state, chosen, data, out) for state in _states(before, window, loaded.info.factor)]
        del before
    found += [_measure(*state, chosen, data, out) for state in _states(loaded, window)]
    return found


def _check_related(base: LoadedModel, model: LoadedModel) -> None:
    for what in ("family", "original_window", "head_dim", "rope_theta"):
        was, now = getattr(base.info, what), getattr(model.info, what)
        if was != now:
            raise UserError(
                f"--base is the model before extension, but its {what} is {was} and the model's {now}; name the right one"
            )
    if base.info.method != "plain":
        raise UserError(
            f"--base is the model before extension, but {base.info.name} is scaled ({base.info.method}); name the original"
        )


def _states(
    loaded: LoadedModel, window: int, factor: float | None = None
) -> Iterator[tuple[LoadedModel, int, contextlib.AbstractContextManager]]:
    """(loaded, window, context it is measured in): a base inside its window, beyond it, interpolated; another as it is."""
    own = loaded.info.window
    if loaded.info.method != "plain" or window <= own:
        yield loaded, window, contextlib.nullcontext()
        return
    yield loaded, own, contextlib.nullcontext()
    yield loaded, window, contextlib.nullcontext()
    factor = factor if factor and factor > 1 else window / own
    state = dataclasses.replace(loaded.info, scaling=Linear(factor), window=round(own * factor), steps=0)
    yield dataclasses.replace(loaded, info=state), window, interpolated(loaded.model, factor)


@contextlib.contextmanager
def interpolated(model: Any, factor: float) -> Iterator[None]:
    """While the block runs, a plain model turns `factor` times slower: PI before training, without a second copy of it.

    What `ropewalk extend` writes would turn alike: the rotary tables are put to rope.Linear's closed form and verified.
    """
    found = read_rope(model.config.to_dict())
    if not isinstance(found.scaling, Plain):
        raise UserError(
            f"only an unscaled model can be interpolated here, this one is {found.scaling.method}; extend it"
        )
    pin_rope(model, dataclasses.replace(found, scaling=Linear(factor)))
    try:
        yield
    finally:
        pin_rope(model, found)


def _measure(
    loaded: LoadedModel,
    window: int,
    context: contextlib.AbstractContextManager,
    documents: Sequence[TokenizedDocument],
    data: Any,
    out: str | Path | None,
) -> Measured:
    names = [document.name for document in documents]
    with context:
        # The rotary tables are among what is fingerprinted, so a base as it is and interpolated are told apart.
        run = ranks.same(loaded.run(window=window, documents=names, weights=fingerprint(loaded.model)))
        done = ranks.same(_known(loaded, out, run))
        if done:
            return Measured(run, done)
        rows = measure(loaded, [document.ids[:window] for document in documents], window, name_of(data))
    if ranks.rank() == 0:
        recorder = records.Recorder(out, run)
        for row in rows:
            recorder.add(row)
    return Measured(run, rows)


def _known(loaded: LoadedModel, out: str | Path | None, run: records.Run) -> list[AttentionScores | Adjacent]:
    """What is on record of this very state on these documents, if it is there of every layer."""
    layers = loaded.model.config.get_text_config().num_hidden_layers
    kinds: list[list[Any]] = [recorded_rows(out, run, kind)[-layers:] for kind in (AttentionScores, Adjacent)]
    whole = all({row.layer for row in rows} == set(range(layers)) for rows in kinds)
    return [row for rows in kinds for row in rows] if whole else []
