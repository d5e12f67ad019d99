"""adjacent: neighbouring positions told apart, against a by-hand reckoning and transformers' own attention weights."""

import numpy as np
import pytest
import torch

from ropewalk import testing
from ropewalk.evals.attention import adjacent, complex_pairs
from ropewalk.evals.attention.adjacent import Nearby
from ropewalk.evals.attention.layers import measure_layers
from ropewalk.evals.attention.probe import Layer, probing
from ropewalk.evals.loaded import open_model
from ropewalk.rope.rotate import rotate
from ropewalk.rope.scaling import Linear, Rope

ROPE = Rope(16, 10000.0, 64)


def layer_of(query: np.ndarray, key: np.ndarray, **options) -> Layer:
    """A layer with one head from turned vectors (n, d)."""
    fields = dict(index=0, scale=0.25, local=None, softcap=None, pairing="half") | options
    return Layer(query=torch.tensor(query)[None].float(), key=torch.tensor(key)[None].float(), **fields)


def turned(n: int, inv_freq: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Random queries and keys before and after rotation."""
    query, key = np.random.default_rng(seed).standard_normal((2, n, 16))
    return query, key, *(rotate(x, np.arange(float(n)), inv_freq) for x in (query, key))


def test_change_is_what_moving_the_key_one_token_farther_does():
    inv_freq = ROPE.inv_freq()
    query, key, q, k = turned(64, inv_freq)
    near = Nearby()
    layer = layer_of(q, k)
    near.add(layer, layer.key, inv_freq, within=64)
    rows = adjacent.query_rows(64).numpy()
    found = []
    for m in rows:
        for s in range(4):
            at = [float(q[m] @ rotate(key[m - s][None], np.array([m - s - moved]), inv_freq)[0]) for moved in (0, 1)]
            found.append(abs(at[1] - at[0]) * 0.25)
    assert near.rows == len(rows) == 32
    assert near.change[0] == pytest.approx(np.mean(found), rel=1e-5)  # float32


def test_spread_is_the_standard_deviation_over_the_keys_in_sight():
    inv_freq = ROPE.inv_freq()
    _, _, q, k = turned(64, inv_freq)
    near = Nearby()
    layer = layer_of(q, k)
    near.add(layer, layer.key, inv_freq, within=48)
    expected = np.mean([np.std(q[m] @ k[: m + 1].T * 0.25) for m in adjacent.query_rows(48).numpy()])
    assert near.spread[0] == pytest.approx(expected, rel=1e-5)
    assert near.resolution[0] == pytest.approx(near.change[0] / near.spread[0])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text"])
def test_the_share_of_the_previous_token_is_transformers_own(family):
    model = testing.tiny(family)
    ids = torch.arange(60)[None] * 7 % 250
    rows = adjacent.query_rows(60)
    found = [row for row in measure_layers(open_model(model, tokenizer=testing.byte_tokenizer()), [ids[0].numpy()], 60)]
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        weights = model(input_ids=ids, output_attentions=True).attentions
    for row, expected in zip((row for row in found if row.kind == "adjacent"), weights, strict=True):
        share = expected[0][:, rows, rows - 1].mean(dim=1)
        np.testing.assert_allclose(row.previous, share, rtol=1e-4)  # float32 softmax, six digits kept


def test_a_head_that_looks_at_the_token_before_is_found():
    """Slow pairs cannot tell neighbours, so the head is made of what the fast pair alone can: keys one turn behind."""
    inv_freq = np.array([np.pi])  # a neighbour is half a turn away, the one after that a whole turn
    n = 40
    same = np.tile([3.0, 0.0], (n, 1))
    q, k = rotate(same, np.arange(n) - 1.0, inv_freq), rotate(same, np.arange(float(n)), inv_freq)
    odd_only = k.copy()
    odd_only[0::2] *= 0.5
    near = Nearby()
    layer = layer_of(q, odd_only, local=2)
    near.add(layer, layer.key, inv_freq, within=n)
    assert near.previous[0] > 0.9


def test_interpolation_makes_neighbours_alike_by_about_the_factor():
    """The same content, turned 8 times slower: every pair's step is 8 times smaller, and 2 sin(x/2) nearly linear there."""
    changes = []
    for factor in (1.0, 8.0):
        inv_freq = Linear(factor).inv_freq(Rope(16, 10000.0, 64))
        _, _, q, k = turned(64, inv_freq)
        near, layer = Nearby(), layer_of(q, k)
        near.add(layer, layer.key, inv_freq, within=64)
        changes.append(near.change[0])
    assert changes[0] / changes[1] == pytest.approx(8, rel=0.1)


def test_softcapped_scores_are_capped_before_the_softmax():
    inv_freq = ROPE.inv_freq()
    _, _, q, k = turned(64, inv_freq)
    rows = adjacent.query_rows(64).numpy()
    near, layer = Nearby(), layer_of(q, k, softcap=0.5)
    near.add(layer, layer.key, inv_freq, within=64)
    expected = []
    for m in rows:
        weight = np.exp(0.5 * np.tanh(q[m] @ k[: m + 1].T * 0.25 / 0.5))
        expected.append(weight[m - 1] / weight.sum())
    assert near.previous[0] == pytest.approx(np.mean(expected), rel=1e-5)


@pytest.mark.parametrize("within", [2, 5, 33, 64, 2048, 100_000])
def test_rows_lie_in_the_window_and_have_four_keys_before_them(within):
    rows = adjacent.query_rows(within)
    assert rows.min() >= 3 or within < 5
    assert 1 <= len(rows) <= adjacent.ROWS


def test_planes_and_back_is_an_inner_product():
    x, y = torch.randn(2, 1, 7, 16, generator=torch.Generator().manual_seed(0))
    z = [complex_pairs.to_complex(v, 8, "half") for v in (x, y)]
    torch.testing.assert_close((z[0] * z[1].conj()).real.sum(-1), (x * y).sum(-1))


def test_the_probe_is_asked_about_the_same_rows_in_every_window():
    model, layers = testing.tiny(window=64), []
    with torch.inference_mode(), probing(model, layers.append):
        model(input_ids=torch.arange(100)[None])
    short, long = Nearby(), Nearby()
    key = layers[0].key
    cut = Layer(0, layers[0].query[:, :64], key[:, :64], layers[0].scale, None, None, "half")
    short.add(cut, key[:, :64], ROPE.inv_freq(), within=64)
    long.add(layers[0], key, ROPE.inv_freq(), within=64)
    np.testing.assert_allclose(short.resolution, long.resolution, rtol=1e-6)
