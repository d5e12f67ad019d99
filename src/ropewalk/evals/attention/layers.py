"""One state of one model, measured layer by layer.

in   a model with its tokenizer and state, sequences of token ids
out  two rows a layer: its scores by distance with the bounds evaluated on it, and how it tells neighbours apart
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ropewalk.checkpoint.rope_config import RopeConfig, read_rope, text_section
from ropewalk.errors import UserError
from ropewalk.evals.attention import complex_pairs
from ropewalk.evals.attention.adjacent import Nearby
from ropewalk.evals.attention.distances import Tally, blocks, edges_to, largest
from ropewalk.evals.attention.probe import Layer, probing
from ropewalk.evals.loaded import LoadedModel
from ropewalk.model.verify import rotary_tables
from ropewalk.progress import Progress
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.rope.bounds import chord_gap, extrapolation_bound, interpolation_bound, interpolation_bound_printed
from ropewalk.rope.scaling import InvFreq, Rope

_WAY_OUT = "its weights or the dtype are broken: try --dtype float32, or another copy of the model"


@dataclass
class _Layer:
    """What is known of one layer so far."""

    tally: Tally
    rope: Rope
    speeds: InvFreq
    scale: float
    local: int | None
    nearby: Nearby = field(default_factory=Nearby)
    sizes: np.ndarray | float = 0.0  # max |h_j|, (heads, pairs)
    strays: np.ndarray | float = 0.0  # (heads,)
    still: np.ndarray | float = 0.0  # (heads,), the largest part of a score that does not turn


@torch.inference_mode()
def measure(
    loaded: LoadedModel, sequences: Sequence[np.ndarray], window: int, data: str = ""
) -> list[AttentionScores | Adjacent]:
    """The rows of one state, layer by layer, over sequences of `window` token ids each.

    Raises:
        UserError: a score, or what the model says in the end, is not a number.
    """
    layers: dict[int, _Layer] = {}
    turning = read_rope(loaded.model.config.to_dict())
    original = loaded.info.original_window
    count = len(sequences) * text_section(loaded.model.config.to_dict()).get("num_hidden_layers", 0)
    with Progress(f"attention scores, {window} tokens", count) as advance:

        def see(layer: Layer) -> None:
            if layer.index not in layers:
                layers[layer.index] = _begin(loaded, turning, layer, window)
            _take(layers[layer.index], layer, original)
            advance(1)

        with probing(loaded.model, see):
            for ids in sequences:
                inputs = torch.as_tensor(ids, device=loaded.device)[None]
                # One position's logits: nothing else is wanted of the model here.
                logits = loaded.model(input_ids=inputs, use_cache=False, logits_to_keep=1).logits
                if bool(torch.isnan(logits).any()):
                    raise UserError(f"a model's logits must be numbers, but some of this one's are not; {_WAY_OUT}")
    rows: list[AttentionScores | Adjacent] = []
    for index, layer in sorted(layers.items()):
        rows += _rows(layer, index, window, len(sequences), data)
    return rows


def _begin(loaded: LoadedModel, turning: RopeConfig, layer: Layer, window: int) -> _Layer:
    kinds = getattr(loaded.model.config.get_text_config(), "layer_types", None) or []
    kind = kinds[layer.index] if turning.per_layer and layer.index < len(kinds) else ""
    tables = {name: table for _, _, name, table in rotary_tables(loaded.model)}
    speeds = tables[kind].detach().double().cpu().numpy()
    # By Cauchy and Schwarz no score of this document is larger; another document's may be a little.
    limit = 1.25 * layer.scale * float(layer.query.float().norm(dim=-1).max() * layer.key.float().norm(dim=-1).max())
    edges = edges_to(min(window, layer.local or window))
    return _Layer(
        tally=Tally(layer.query.shape[0], edges, limit, layer.query.device),
        rope=turning.local.get(kind, turning.rope),
        speeds=speeds,
        scale=layer.scale,
        local=layer.local,
    )


def _take(known: _Layer, layer: Layer, original: int) -> None:
    groups = layer.query.shape[0] // layer.key.shape[0]
    query, key = layer.query.float(), layer.key.float().repeat_interleave(groups, dim=0)
    for block in blocks(query, key, layer.scale):
        known.tally.add(*block)
    extremes = torch.stack([known.tally.highest[:, 0], known.tally.lowest[:, 0]])
    if not bool(torch.isfinite(extremes).all()):
        raise UserError(f"attention scores must be numbers, but layer {layer.index} has some that are not; {_WAY_OUT}")
    turned, other = (complex_pairs.planes(x, len(known.speeds), layer.pairing) for x in (query, key))
    known.sizes = np.maximum(known.sizes, complex_pairs.largest_h(turned, other).cpu().numpy())
    strays = complex_pairs.strays(turned, other, known.rope.inv_freq(), layer.scale)
    known.strays = np.maximum(known.strays, strays.cpu().numpy())
    rotated = 2 * len(known.speeds)
    if rotated < query.shape[-1]:
        still = largest(query[..., rotated:], key[..., rotated:], layer.scale)
        known.still = np.maximum(known.still, still.cpu().numpy())
    known.nearby.add(layer, key, known.speeds, original)


def _rows(known: _Layer, index: int, window: int, documents: int, data: str) -> list[AttentionScores | Adjacent]:
    tally, near = known.tally, known.nearby
    scores = AttentionScores(
        layer=index,
        window=window,
        documents=documents,
        edges=tally.edges,
        maximum=_short(tally.highest),
        minimum=_short(tally.lowest),
        quantile=_short(tally.quantile()),
        mean=_short(tally.mean()),
        **bounds_on(np.asarray(known.sizes), known.rope, known.speeds, known.scale, tally.edges[-1], known.still),
        strays=_short(known.strays),
        grain=tally.grain,
        local=known.local,
        data=data,
    )
    told = {name: _short(getattr(near, name)) for name in ("change", "spread", "resolution", "previous")}
    return [scores, Adjacent(layer=index, window=window, documents=documents, rows=near.rows, data=data, **told)]


def bounds_on(
    sizes: np.ndarray, rope: Rope, speeds: InvFreq, scale: float, window: int, still: np.ndarray | float = 0.0
) -> dict[str, list[float]]:
    """The bounds of theory.py with a model's own max|h_j|, by head, in the unit the softmax sees.

    Args:
        sizes: (heads, pairs), max |h_j| of every frequency.
        rope, speeds: the rotation as pretrained, and as it is now.
        scale: what q.k is multiplied by.
        window: extrapolation is looked at over distances 1 .. window - 1.
        still: (heads,), the largest part of a score that does not turn, in the softmax's unit (partial rotary). It cancels in
            a deviation; a magnitude may be as much larger.
    """
    middle, theta = np.array([0.5]), rope.inv_freq()
    highest = sizes.max(axis=1) * scale
    distances = np.arange(1, max(2, window), max(1, window // (1 << 16)))
    lowest = float(extrapolation_bound(speeds, distances).min())
    gaps = np.abs(chord_gap(theta, middle, 0, 1)[0])
    return {
        "largest_h": _short(highest),
        "printed": _short(highest * interpolation_bound_printed(rope, middle, 0, 1)),
        "corrected": _short(highest * interpolation_bound(theta, middle, 0, 1)),
        "profile": _short(sizes @ gaps * scale),
        "extrapolation": _short(highest * lowest + still),
        "trivial": _short(sizes.sum(axis=1) * scale + still),
    }


def _short(values: torch.Tensor | np.ndarray | float) -> list:
    """Six digits are more than float32 scores have, and records stay small."""
    array = values.cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
    rounded = np.vectorize(lambda x: float(f"{x:.6g}"), otypes=[float])(array)
    return rounded.tolist()
