"""The attention scores themselves, by distance: do they stay as bounded in the new window as at short range?

in   a model, documents, a window of N tokens
out  records: per layer and head, the scores before the softmax by distance, the largest |h_j|, the paper's bounds evaluated
     with it beside the measured deviation; and how well neighbouring tokens are told apart (adjacent.py)

The paper argues about scores and never shows one (Chen et al. 2023, section 2). Here every causal pair of the first N tokens
of each document is measured, N² / 2 a head, without an N × N matrix (distances.py) and without changing what the model
computes (probe.py).

A base model in a window longer than its own is measured as three variants on the same documents: inside its own window;
beyond it, as it is (extrapolation); and beyond it with its positions interpolated (PI before training). An extended model
with `base` is measured after these three: what interpolation promises, what it costs, and what training recovers.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk import records
from ropewalk.data.select import TokenizedDocument, name_of, select_documents
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.attention.adjacent import FEWEST
from ropewalk.evals.attention.layers import measure_layers
from ropewalk.evals.attention.memory_check import check_memory
from ropewalk.evals.loaded import LoadedModel, fingerprint, open_model, opened
from ropewalk.model.verify import pin_rope, rope_of
from ropewalk.records import Adjacent, AttentionScores, Measurement
from ropewalk.records.resume import recorded_rows
from ropewalk.rope.bounds import check_reach
from ropewalk.rope.scaling import Linear, Plain
from ropewalk.settings.command import takes
from ropewalk.settings.measure import AttentionSettings

_TOO_SHORT = (
    "scores in a window of {min_tokens} tokens need a document that fills it, but the longest has {longest}; "
    "give longer documents or a smaller --window"
)


@dataclass(frozen=True)
class Measured:
    """One variant of a model, measured: its run's header and its rows."""

    run: records.Run
    rows: list[AttentionScores | Adjacent]

    @property
    def measurements(self) -> list[Measurement[AttentionScores | Adjacent]]:
        """Each row with its run, as a frame takes them."""
        return [Measurement(row, self.run) for row in self.rows]


@takes(AttentionSettings)
def attention(settings: AttentionSettings) -> records.Rows[Measured]:
    """Measure the scores of a model, and of the variants of its base.

    A variant that `out` holds already is not measured again; each is a run of its own there. Under torchrun every rank does the same
    work, and the first one records it.

    Returns:
        One entry a variant: its header and its rows; `to_pandas()` has a line a layer, head and distance.

    Raises:
        UserError: no document is long enough; it does not fit in memory; a score is NaN; the model has no RoPE.
    """
    records.check_file(settings.out)
    model, base = opened(settings.model, settings.base, **settings.opening)
    settings = dataclasses.replace(settings, model=model, base=base)
    if settings.window is not None:
        check_reach(settings.window)
    for checked in (settings.base, settings.model):
        if checked is not None:
            check_memory(checked, settings.window, **settings.loading)
    loaded = open_model(
        settings.model, tokenizer=settings.tokenizer, data=settings.data, **settings.loading, **settings.opening
    )
    return measure(loaded, settings)


def measure(loaded: LoadedModel, settings: AttentionSettings) -> records.Rows[Measured]:
    """`attention` of a model that is loaded already; dtype and device are those of a base that is given by its name."""
    data, base, out = settings.data, settings.base, settings.out
    window = settings.window or loaded.info.window
    shortest = min(window, loaded.info.original_window)
    if shortest < FEWEST:
        raise UserError(
            f"neighbours are told apart in windows of at least {FEWEST} tokens, got {shortest}; ask for a longer --window"
        )
    texts, _ = select_documents(
        loaded.tokenizer, data, min_tokens=window, refusal=_TOO_SHORT, limit=settings.documents, max_tokens=window
    )
    measured = records.Rows[Measured]()
    if base is not None:
        base_model = open_model(
            base, tokenizer=loaded.tokenizer, **settings.loading, trust_remote_code=settings.trust_remote_code
        )
        _check_related(base_model, loaded)
        for variant in _variants(base_model, window, loaded.info.factor):
            measured.append(_measure_variant(*variant, texts, data, out))
        del base_model, variant  # its memory goes to the other model
    measured += [_measure_variant(*variant, texts, data, out) for variant in _variants(loaded, window)]
    return measured


def _check_related(base: LoadedModel, model: LoadedModel) -> None:
    for field in ("family", "original_window", "head_dim", "rope_theta"):
        before, after = getattr(base.info, field), getattr(model.info, field)
        if before != after:
            raise UserError(
                f"--base is the model before extension, but its {field} is {before} and the model's {after}; name the right one"
            )
    if base.info.method != "plain":
        raise UserError(
            f"--base is the model before extension, but {base.info.name} is scaled ({base.info.method}); name the original"
        )


def _variants(
    loaded: LoadedModel, window: int, factor: float | None = None
) -> Iterator[tuple[LoadedModel, int, contextlib.AbstractContextManager]]:
    """(model, window, context it is measured in): a base inside its window, beyond it, interpolated; any other as it is."""
    base_window = loaded.info.window
    if loaded.info.method != "plain" or window <= base_window:
        yield loaded, window, contextlib.nullcontext()
        return
    yield loaded, base_window, contextlib.nullcontext()
    yield loaded, window, contextlib.nullcontext()
    factor = factor if factor and factor > 1 else window / base_window
    info = dataclasses.replace(loaded.info, scaling=Linear(factor), window=round(base_window * factor), steps=0)
    yield dataclasses.replace(loaded, info=info), window, interpolated(loaded.model, factor)


@contextlib.contextmanager
def interpolated(model: Any, factor: float) -> Iterator[None]:
    """While the block runs, the rotation of an unscaled model is that of PI at `factor`, without a second copy of its weights.

    The rotary tables are set to `rope.scaling.Linear`'s closed form and verified, as `ropewalk extend` would have them.
    """
    rope_config = rope_of(model)
    if not isinstance(rope_config.scaling, Plain):
        raise UserError(
            f"only an unscaled model can be interpolated here, this one is {rope_config.scaling.method}; extend it"
        )
    pin_rope(model, dataclasses.replace(rope_config, scaling=Linear(factor)))
    try:
        yield
    finally:
        pin_rope(model, rope_config)


def _measure_variant(
    loaded: LoadedModel,
    window: int,
    context: contextlib.AbstractContextManager,
    documents: Sequence[TokenizedDocument],
    data: Any,
    out: str | Path | None,
) -> Measured:
    names, read = [document.name for document in documents], [document.text for document in documents]
    with context:
        # The fingerprint includes the rotary tables, so it tells a base as it is from the same one interpolated.
        run = ranks.same(loaded.run(window=window, documents=names, texts=read, weights=fingerprint(loaded)))
        recorded = ranks.same(_recorded(loaded, out, run))
        if recorded:
            return Measured(run, recorded)
        rows = measure_layers(loaded, [document.ids[:window] for document in documents], window, name_of(data))
    if ranks.rank() == 0:
        recorder = records.Recorder(out, run)
        for row in rows:
            recorder.add(row)
    return Measured(run, rows)


def _recorded(loaded: LoadedModel, out: str | Path | None, run: records.Run) -> list[AttentionScores | Adjacent]:
    """The rows on record of this variant on these documents, if there are rows of every layer; else none."""
    layers = loaded.model.config.get_text_config().num_hidden_layers
    kinds: list[list[Any]] = [recorded_rows(out, run, kind)[-layers:] for kind in (AttentionScores, Adjacent)]
    complete = all({row.layer for row in rows} == set(range(layers)) for rows in kinds)
    return [row for rows in kinds for row in rows] if complete else []
