"""One variant of a model, measured layer by layer.

in   a loaded model, sequences of token ids
out  two rows a layer: its scores by distance with the bounds evaluated on them, and how it tells neighbours apart
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float

from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.data.encode import TokenIds
from ropewalk.errors import UserError
from ropewalk.evals.attention import complex_pairs
from ropewalk.evals.attention.adjacent import Nearby
from ropewalk.evals.attention.distances import Tally, blocks, edges_to, largest
from ropewalk.evals.attention.probe import Layer, probing
from ropewalk.evals.loaded import LoadedModel
from ropewalk.model.verify import rope_of, rotary_tables
from ropewalk.progress import Progress
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.rope.bounds import chord_gap, extrapolation_bound, interpolation_bound, interpolation_bound_printed
from ropewalk.rope.scaling import InvFreq, Rope

_WAY_OUT = "its weights or the dtype are broken: try --dtype float32, or another copy of the model"


@dataclass
class _LayerTotals:
    """One layer's statistics over the documents so far.

    Attributes:
        tally: its scores by distance.
        rope: its rotation as pretrained.
        inv_freq: its rotation as it is now.
        scale: what q.k is multiplied by.
        local: the sliding window, tokens; None if it sees all.
        nearby: how it tells neighbours apart.
        sizes: max |h_j|, (heads, pairs).
        deviation: from the chord, (heads,).
        unrotated: the largest part of a score that is not rotated, (heads,).
    """

    tally: Tally
    rope: Rope
    inv_freq: InvFreq
    scale: float
    local: int | None
    nearby: Nearby = field(default_factory=Nearby)
    sizes: np.ndarray | float = 0.0
    deviation: np.ndarray | float = 0.0
    unrotated: np.ndarray | float = 0.0


@torch.inference_mode()
def measure_layers(
    loaded: LoadedModel, sequences: Sequence[TokenIds], window: int, data: str = ""
) -> list[AttentionScores | Adjacent]:
    """The rows of one variant, layer by layer, over sequences of `window` token ids each.

    Raises:
        UserError: a score or a logit is NaN.
    """
    layers: dict[int, _LayerTotals] = {}
    config_dict = loaded.model.config.to_dict()
    rope_config, original_window = rope_of(loaded.model), loaded.info.original_window
    count = len(sequences) * text_section(config_dict).get("num_hidden_layers", 0)
    with Progress(f"attention scores, {window} tokens", count) as advance:

        def see(layer: Layer) -> None:
            if layer.index not in layers:
                layers[layer.index] = _new_totals(loaded, rope_config, layer, window)
            _add(layers[layer.index], layer, original_window)
            advance(1)

        with probing(loaded.model, see):
            for ids in sequences:
                inputs = torch.as_tensor(ids, device=loaded.device)[None]
                # One position's logits suffice: the probe sees queries and keys, the logits only tell NaN.
                logits = loaded.model(input_ids=inputs, use_cache=False, logits_to_keep=1).logits
                if bool(torch.isnan(logits).any()):
                    raise UserError(f"a model's logits must be numbers, but some of this one's are not; {_WAY_OUT}")
    rows: list[AttentionScores | Adjacent] = []
    for index, totals in sorted(layers.items()):
        rows += _rows(totals, index, window, len(sequences), data)
    return rows


def _new_totals(loaded: LoadedModel, rope_config: RopeConfig, layer: Layer, window: int) -> _LayerTotals:
    layer_types = getattr(loaded.model.config.get_text_config(), "layer_types", None) or []
    layer_type = layer_types[layer.index] if rope_config.unscaled and layer.index < len(layer_types) else ""
    tables = {name: table for _, _, name, table in rotary_tables(loaded.model)}
    inv_freq = tables[layer_type].detach().double().cpu().numpy()
    # By Cauchy and Schwarz no score of this document is larger; one of another document may be, a little.
    limit = 1.25 * layer.scale * float(layer.query.float().norm(dim=-1).max() * layer.key.float().norm(dim=-1).max())
    edges = edges_to(min(window, layer.local or window))
    return _LayerTotals(
        tally=Tally(layer.query.shape[0], edges, limit, layer.query.device),
        rope=rope_config.unscaled.get(layer_type, rope_config.rope),
        inv_freq=inv_freq,
        scale=layer.scale,
        local=layer.local,
    )


def _add(totals: _LayerTotals, layer: Layer, original_window: int) -> None:
    """Add what a layer received for one document."""
    groups = layer.query.shape[0] // layer.key.shape[0]
    query, key = layer.query.float(), layer.key.float().repeat_interleave(groups, dim=0)
    for block in blocks(query, key, layer.scale):
        totals.tally.add(*block)
    extremes = torch.stack([totals.tally.highest[:, 0], totals.tally.lowest[:, 0]])
    if not bool(torch.isfinite(extremes).all()):
        raise UserError(f"attention scores must be numbers, but layer {layer.index} has some that are not; {_WAY_OUT}")
    pairs = len(totals.inv_freq)
    query_pairs, key_pairs = (complex_pairs.to_complex(x, pairs, layer.pairing) for x in (query, key))
    totals.sizes = np.maximum(totals.sizes, complex_pairs.largest_h(query_pairs, key_pairs).cpu().numpy())
    deviation = complex_pairs.deviation(query_pairs, key_pairs, totals.rope.inv_freq(), layer.scale)
    totals.deviation = np.maximum(totals.deviation, deviation.cpu().numpy())
    if 2 * pairs < query.shape[-1]:
        unrotated = largest(query[..., 2 * pairs :], key[..., 2 * pairs :], layer.scale)
        totals.unrotated = np.maximum(totals.unrotated, unrotated.cpu().numpy())
    totals.nearby.add(layer, key, totals.inv_freq, original_window)


def _rows(totals: _LayerTotals, index: int, window: int, documents: int, data: str) -> list[AttentionScores | Adjacent]:
    tally, nearby = totals.tally, totals.nearby
    bounds = bounds_on(
        np.asarray(totals.sizes), totals.rope, totals.inv_freq, totals.scale, tally.edges[-1], totals.unrotated
    )
    scores = AttentionScores(
        layer=index,
        window=window,
        documents=documents,
        edges=tally.edges,
        maximum=_short(tally.highest),
        minimum=_short(tally.lowest),
        quantile=_short(tally.quantile()),
        mean=_short(tally.mean()),
        **bounds,
        deviation=_short(totals.deviation),
        grain=tally.grain,
        local=totals.local,
        data=data,
    )
    means = {name: _short(getattr(nearby, name)) for name in ("change", "spread", "resolution", "previous")}
    return [scores, Adjacent(layer=index, window=window, documents=documents, rows=nearby.rows, data=data, **means)]


def bounds_on(
    sizes: Float[np.ndarray, "heads pairs"],
    rope: Rope,
    inv_freq: InvFreq,
    scale: float,
    window: int,
    unrotated: Float[np.ndarray, " heads"] | float = 0.0,
) -> dict[str, list[float]]:
    """The bounds of rope/bounds.py with a model's own max|h_j|, by head, in the unit the softmax sees.

    Args:
        sizes: max |h_j| of every frequency.
        rope, inv_freq: the rotation as pretrained, and as it is now.
        scale: what q.k is multiplied by.
        window: extrapolation is evaluated over distances 1 .. window - 1.
        unrotated: the largest part of a score that is not rotated, in the softmax's unit (partial rotary). It cancels in a
            deviation, and adds to the bounds on a score's size.
    """
    middle, original_inv_freq = np.array([0.5]), rope.inv_freq()
    highest = sizes.max(axis=1) * scale
    distances = np.arange(1, max(2, window), max(1, window // (1 << 16))).astype(np.float64)
    lowest = float(extrapolation_bound(inv_freq, distances).min())
    gaps = np.abs(chord_gap(original_inv_freq, middle, 0.0, 1.0)[0])
    return {
        "largest_h": _short(highest),
        "printed": _short(highest * interpolation_bound_printed(rope, middle, 0.0, 1.0)),
        "corrected": _short(highest * interpolation_bound(original_inv_freq, middle, 0.0, 1.0)),
        "profile": _short(sizes @ gaps * scale),
        "extrapolation": _short(highest * lowest + unrotated),
        "trivial": _short(sizes.sum(axis=1) * scale + unrotated),
    }


def _short(values: torch.Tensor | np.ndarray | float) -> list:
    """As lists, rounded to six digits: more than float32 scores have, and records stay small."""
    array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    rounded = np.vectorize(lambda x: float(f"{x:.6g}"), otypes=[float])(array)
    return rounded.tolist()
