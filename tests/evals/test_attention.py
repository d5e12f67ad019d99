"""attention: the scores that are tallied are the model's own, by distance, and the model does not notice."""

import importlib
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Gemma2Config, Gemma2ForCausalLM

from ropewalk import records, testing
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals import loaded as loaded_models
from ropewalk.evals.attention import attention, complex_pairs, distances, interpolated, memory_check
from ropewalk.evals.attention.layers import bounds_on, measure_layers
from ropewalk.evals.attention.probe import pairing_of, probing
from ropewalk.evals.loaded import open_model
from ropewalk.model.extend import extend
from ropewalk.model.load import load_model
from ropewalk.records.variant import variant_of
from ropewalk.reports.rows import clean
from ropewalk.rope.rotate import rotate
from ropewalk.rope.scaling import Rope

IDS = torch.arange(40)[None] * 7 % 250
TOKENIZER = testing.byte_tokenizer()


def seen(model, ids=IDS):
    """Every layer's queries and keys, and the logits that came out meanwhile."""
    layers = []
    with torch.inference_mode(), probing(model, layers.append):
        logits = model(input_ids=ids).logits
    return layers, logits


def naive(layer) -> torch.Tensor:
    """(heads, N, N) scores, the whole matrix at once."""
    groups = layer.query.shape[0] // layer.key.shape[0]
    return layer.query @ layer.key.repeat_interleave(groups, 0).transpose(1, 2) * layer.scale


def text_of(tokens: int) -> Document:
    return Document("made-up", testing.prose(tokens)[: tokens - 1])


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "m", window=64)


# The probe


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_logits_are_the_same_to_the_last_bit_while_the_probe_looks(family):
    model = testing.tiny(family)
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
    layers, during = seen(model)
    with torch.inference_mode():
        after = model(input_ids=IDS).logits
    assert torch.equal(before, during) and torch.equal(before, after)
    assert [layer.index for layer in layers] == [0, 1]
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("family", testing.FAMILIES)
def test_what_the_probe_sees_is_what_transformers_softmaxes(family):
    """The oracle is the family's own eager attention, which returns its weights."""
    model = testing.tiny(family)
    layers, _ = seen(model)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        weights = model(input_ids=IDS, output_attentions=True).attentions
    distance = torch.arange(40)[:, None] - torch.arange(40)[None]
    for layer, expected in zip(layers, weights, strict=True):
        hidden = (distance < 0) | (distance >= (layer.local or 40))
        attention = naive(layer).masked_fill(hidden, -math.inf).softmax(-1)
        torch.testing.assert_close(attention, expected[0])  # float32 defaults


def test_capped_scores_and_eager_attention_are_seen_too():
    config = dict(vocab_size=258, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4)
    model = Gemma2ForCausalLM(Gemma2Config(**config, num_key_value_heads=2, head_dim=16, sliding_window=16)).eval()
    with torch.inference_mode():
        before = model(input_ids=IDS).logits
    layers, during = seen(model)
    assert torch.equal(before, during)
    assert [(layer.softcap, layer.local) for layer in layers] == [(50.0, 16), (50.0, None)]


def test_the_probe_leaves_a_model_as_it_was_when_something_breaks_inside():
    model = testing.tiny()

    def broken(layer):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"), probing(model, broken):
        model(input_ids=IDS)
    assert model.config._attn_implementation == "sdpa"
    model(input_ids=IDS)


def test_the_pairing_is_read_off_the_familys_own_rotation():
    from transformers.models.cohere import modeling_cohere
    from transformers.models.llama import modeling_llama

    assert pairing_of(object.__new__(modeling_llama.LlamaAttention)) == "half"
    assert pairing_of(object.__new__(modeling_cohere.CohereAttention)) == "interleaved"


# Scores by distance


@pytest.mark.parametrize(("n", "block"), [(1, 1 << 20), (2, 1), (37, 64), (50, 1 << 20), (300, 5000)])
def test_the_tally_is_what_the_whole_matrix_says(monkeypatch, n, block):
    monkeypatch.setitem(distances._BLOCK, "cpu", block)
    query, key = torch.randn(2, 3, n, 8, generator=torch.Generator().manual_seed(n))
    scores = query @ key.transpose(1, 2) * 0.3
    edges = distances.edges_to(n)
    tally = distances.Tally(3, edges, 20.0, query.device)
    for found in distances.blocks(query, key, 0.3):
        tally.add(*found)
    distance = torch.arange(n)[:, None] - torch.arange(n)[None]
    for bucket, (start, stop) in enumerate(zip(edges, edges[1:], strict=False)):
        values = scores[:, (distance >= start) & (distance < stop)]
        assert tally.counts[bucket] == values.shape[1]
        torch.testing.assert_close(tally.highest[:, bucket], values.amax(1))
        torch.testing.assert_close(tally.lowest[:, bucket], values.amin(1))
        np.testing.assert_allclose(tally.mean()[:, bucket], values.mean(1), atol=1e-5)  # float32 sums
        rank = math.ceil(0.999 * values.shape[1]) - 1
        exact = values.sort(dim=1).values[:, rank].numpy()
        over = tally.quantile()[:, bucket] - exact
        assert np.all(over >= -1e-5) and np.all(over <= tally.grain + 1e-5)


def test_buckets_cover_every_distance_once_and_are_the_same_in_every_window():
    short, long = distances.edges_to(2048), distances.edges_to(32768)
    assert short[:-1] == long[: len(short) - 1]
    assert short[-1] == 2048 and long[0] == 0 and sorted(set(long)) == long
    assert distances.edges_to(1) == [0, 1]


class Largest(TorchDispatchMode):
    """Watches every tensor that any operation makes."""

    def __init__(self):
        super().__init__()
        self.most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        results = function(*arguments, **(options or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, torch.Tensor):
                self.most = max(self.most, result.numel())
        return results


def test_no_n_by_n_matrix_is_ever_made(monkeypatch):
    monkeypatch.setitem(distances._BLOCK, "cpu", 1 << 16)
    n = 2048
    loaded = open_model(testing.tiny(window=n, num_hidden_layers=1), tokenizer=TOKENIZER)
    with Largest() as watched:
        measure_layers(loaded, [np.arange(n) % 250], n)
    assert 0 < watched.most < n * n / 2


# h, deviations and bounds


def paired(x: torch.Tensor, count: int) -> np.ndarray:
    """Half pairing, by hand."""
    return x[..., :count].double().numpy() + 1j * x[..., count : 2 * count].double().numpy()


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_the_largest_h_is_the_largest_over_all_causal_pairs(family):
    layer = seen(testing.tiny(family))[0][0]
    count = read_rope(testing.tiny_config(family).to_dict()).rope.head_dim // 2
    query, key = (complex_pairs.to_complex(x, count, "half") for x in (layer.query, layer.key))
    h = paired(layer.query, count)[:, :, None] * paired(layer.key, count)[:, None].conj()
    causal = np.tril(np.ones((40, 40), bool))
    expected = np.abs(h)[:, causal].max(axis=1)
    np.testing.assert_allclose(complex_pairs.largest_h(query, key), expected, rtol=1e-5)  # float32


def test_the_deviation_is_the_distance_from_the_chord_half_a_token_on():
    """The oracle turns the keys by rope.rotate to fractional places and subtracts."""
    rope = Rope(16, 10000.0, 64)
    inv_freq = rope.inv_freq()
    draw = np.random.default_rng(0)
    plain = draw.standard_normal((2, 1, 20, 16))
    places = np.arange(20.0)
    query, key = (rotate(x[0], places, inv_freq) for x in plain)
    scores = [query @ rotate(plain[1, 0], places - shift, inv_freq).T for shift in (0.0, 0.5, 1.0)]
    expected = np.abs(np.tril(scores[1] - (scores[0] + scores[2]) / 2)).max()
    turned = [complex_pairs.to_complex(torch.tensor(x, dtype=torch.float32)[None], 8, "half") for x in (query, key)]
    deviation = complex_pairs.deviation(*turned, inv_freq, 1.0)
    assert float(deviation[0]) == pytest.approx(expected, rel=1e-5)


def test_both_pairings_give_the_same_score():
    x = torch.randn(2, 3, 5, 8, generator=torch.Generator().manual_seed(0))
    shuffle = [0, 4, 1, 5, 2, 6, 3, 7]
    half = [complex_pairs.to_complex(y, 4, "half") for y in x]
    woven = [complex_pairs.to_complex(y[..., shuffle], 4, "interleaved") for y in x]
    for pair in (half, woven):
        product = complex_pairs.to_real(pair[0]) @ complex_pairs.to_real(pair[1]).transpose(1, 2)
        torch.testing.assert_close(product, x[0] @ x[1].transpose(1, 2))


def test_what_is_found_keeps_within_the_bounds_that_hold():
    loaded = open_model(testing.tiny(), tokenizer=TOKENIZER)
    # Random weights at transformers' scale give scores near 0; make them matter.
    with torch.no_grad():
        for name, weight in loaded.model.named_parameters():
            if "q_proj" in name or "k_proj" in name:
                weight.mul_(30)
    for row in measure_layers(loaded, [IDS[0].numpy()], 40):
        if row.kind == "attention":
            deviation, profile, corrected = (
                np.array(getattr(row, name)) for name in ("deviation", "profile", "corrected")
            )
            assert np.all(deviation > 0.01)
            assert np.all(deviation <= profile * (1 + 1e-5)) and np.all(profile <= corrected * (1 + 1e-5))  # float32
            assert np.all(np.max(row.maximum, axis=1) <= np.array(row.trivial) * (1 + 1e-5))


def test_the_bounds_of_a_record_are_the_theorys_times_the_largest_h_and_the_scale():
    rope = Rope(128)
    bounds = bounds_on(np.full((1, 64), 2.0), rope, rope.inv_freq(), 0.5, 4096)
    assert bounds["largest_h"] == [1.0]
    assert bounds["printed"] == pytest.approx([0.4343], abs=5e-5)
    assert bounds["corrected"] == pytest.approx([0.4998], abs=5e-5)
    assert bounds["profile"] == pytest.approx([0.4939], abs=5e-5)
    assert bounds["extrapolation"] == pytest.approx([2 * 128 * 1.1159], rel=1e-4)
    assert bounds["trivial"] == [64.0]


# States


def test_interpolating_in_place_is_what_extending_writes(base, tmp_path):
    extend(str(base), window=256, method="linear", out=tmp_path / "pi")
    saved = load_model(tmp_path / "pi")
    here = load_model(base)
    before = here(input_ids=IDS).logits
    with interpolated(here, 4.0):
        # transformers computes its table in float32, ours is rounded once: the last bit of a speed may differ.
        torch.testing.assert_close(here(input_ids=IDS).logits, saved(input_ids=IDS).logits)
    assert not torch.allclose(saved(input_ids=IDS).logits, before)
    torch.testing.assert_close(here(input_ids=IDS).logits, before)


def test_a_base_past_its_window_is_measured_in_three_states(base, tmp_path):
    out = tmp_path / "scores.jsonl"
    measured = attention(str(base), data=[text_of(400)], window=200, out=out)
    states = [variant_of(variant.run.model, variant.rows[0].window) for variant in measured]
    assert [state.role for state in states] == ["base", "extrapolation", "untrained"]
    assert [variant.rows[0].window for variant in measured] == [64, 200, 200]
    # Inside the old window, extrapolation has seen the same tokens at the same places.
    short, long = (variant.rows[0] for variant in measured[:2])
    assert np.all(np.array(long.maximum)[:, :4] >= np.array(short.maximum)[:, :4] - 1e-5)
    frame = measured.to_pandas()
    assert dict.fromkeys(frame.state) == dict.fromkeys(variant.label for variant in states)
    of_head = frame.query("kind == 'attention' and window == 64 and layer == 1 and head == 2")
    assert of_head["maximum"].tolist() == measured[0].rows[2].maximum[2]  # layer 1, after both kinds of layer 0
    kept = clean(records.read([out]))
    assert len(kept.measurements) == 3 * 2 * 2
    assert kept.left_out == records.LeftOut()


def test_an_extended_model_and_its_base_make_four_states(base, tmp_path):
    extend(str(base), window=256, method="linear", out=tmp_path / "pi")
    measured = attention(str(tmp_path / "pi"), base=str(base), data=[text_of(400)])
    assert [(variant.run.model.method, variant.rows[0].window) for variant in measured] == [
        ("plain", 64),
        ("plain", 256),
        ("linear", 256),
        ("linear", 256),
    ]
    # Untrained, the checkpoint is the base interpolated: the third and the fourth are the same measurement.
    for here, there in zip(measured[2].rows, measured[3].rows, strict=True):
        for name, value in vars(here).items():
            # The last bit of a table (see above) moves a score by 1e-6; a 99.9 % quantile falls in this bin or the next.
            if isinstance(value, list):
                np.testing.assert_allclose(value, getattr(there, name), rtol=1e-3, atol=1e-4, err_msg=name)
            elif name != "grain":
                assert value == getattr(there, name)


def test_a_layer_that_looks_back_sixteen_tokens_has_no_longer_distances():
    loaded = open_model(testing.tiny("gemma3_text"), tokenizer=TOKENIZER)
    rows = [row for row in measure_layers(loaded, [IDS[0].numpy()], 40) if row.kind == "attention"]
    assert [row.local for row in rows] == [16, None]
    assert [row.edges[-1] for row in rows] == [16, 40]
    # Its own base (10000) and not the global layers' (a million): the slow pairs differ, so the bounds do.
    assert rows[0].printed[0] / rows[0].largest_h[0] != pytest.approx(rows[1].printed[0] / rows[1].largest_h[0])


def test_two_documents_are_at_least_as_extreme_as_one():
    loaded = open_model(testing.tiny(), tokenizer=TOKENIZER)
    sequences = [IDS[0].numpy(), IDS[0].numpy()[::-1].copy()]
    one, two = measure_layers(loaded, sequences[:1], 40)[0], measure_layers(loaded, sequences, 40)[0]
    assert np.all(np.array(two.maximum) >= np.array(one.maximum))
    assert (one.documents, two.documents) == (1, 2)


@pytest.mark.gpus(1)
def test_a_gpu_finds_what_a_cpu_finds():
    rows = []
    for device in ("cpu", "cuda"):
        loaded = open_model(testing.tiny(window=512).to(device), tokenizer=TOKENIZER)
        rows.append(measure_layers(loaded, [np.arange(512) * 7 % 250], 512))
    for here, there in zip(*rows, strict=True):
        for name, value in vars(here).items():
            if isinstance(value, list):
                # Both sum in float32, in another order; a quantile may fall in the next bin.
                np.testing.assert_allclose(value, getattr(there, name), rtol=2e-3, atol=1e-3, err_msg=name)


def test_a_state_on_record_is_not_measured_again_and_a_half_one_is(base, tmp_path, monkeypatch):
    """Three states of a base, of two layers each; the last line of the second state is lost, as by a kill."""
    out, asked = tmp_path / "r.jsonl", []
    module = importlib.import_module("ropewalk.evals.attention.measure")
    real = module.measure_layers
    monkeypatch.setattr(module, "measure_layers", lambda *a, **k: asked.append(a[2]) or real(*a, **k))
    arguments = dict(data=[text_of(200)], window=100, out=out)
    first = attention(str(base), **arguments)
    assert asked == [64, 100, 100] and len(first) == 3
    again = attention(str(base), **arguments)
    assert len(asked) == 3 and sorted(map(repr, again[2].rows)) == sorted(map(repr, first[2].rows))
    lines = out.read_text(encoding="utf-8").splitlines(keepends=True)
    assert len(lines) == 3 * (1 + 2 * 2)
    out.write_text("".join(lines[:9] + lines[10:]), encoding="utf-8")
    attention(str(base), **arguments)
    assert asked == [64, 100, 100, 100]


# Bad input


def test_scores_on_record_of_another_text_of_that_name_are_not_taken(base, tmp_path):
    first, other, again = (
        attention(str(base), data=[Document("book", testing.prose(200, seed))], window=64, out=tmp_path / "r.jsonl")[0]
        for seed in (1, 2, 1)
    )
    assert first.rows[0].maximum != other.rows[0].maximum
    assert sorted(map(repr, again.rows)) == sorted(map(repr, first.rows))


def test_documents_that_do_not_fill_the_window_are_refused(base):
    with pytest.raises(UserError, match="need a document that fills it, but the longest has 100"):
        attention(str(base), data=[text_of(100)], window=4096)


def test_weights_that_are_not_numbers_are_named_by_their_layer(tmp_path):
    model = testing.tiny()
    model.model.layers[1].self_attn.q_proj.weight.data[3] = math.nan
    with pytest.raises(UserError, match="layer 1"):
        attention(model, tokenizer=TOKENIZER, data=[text_of(100)], window=40, out=tmp_path / "f.jsonl")
    assert not (tmp_path / "f.jsonl").exists()


def test_a_window_that_does_not_fit_is_refused_before_anything_is_loaded(base, monkeypatch):
    monkeypatch.setattr(loaded_models, "load_model", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(UserError, match=r"16777216 tokens take about \d+\.\d GiB here, and 1\.0 GiB are free"):
        monkeypatch.setattr(memory_check, "free_bytes", lambda device: 2**30)
        attention(str(base), data=[text_of(100)], window=1 << 24)


def test_the_memory_is_reckoned_part_by_part():
    text = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    buckets = len(distances.edges_to(1000))
    bins = 2 * 4 * buckets * distances.BINS * 8
    near = 512 * 1000 * 32
    assert memory_check.working_bytes(text, 1000, 4) == bins + near + 1000 * (4 * (6 * 64 + 3 * 128 + 4 * 64) + 40 * 64)
    assert (
        memory_check.working_bytes(text | {"sliding_window": 100}, 1000, 4) - memory_check.working_bytes(text, 1000, 4)
        == 1000**2
    )
    # A family whose own attention makes the whole matrix is refused where that does not fit.
    capped = text | {"attn_logit_softcapping": 50.0}
    assert memory_check.working_bytes(capped, 1000, 4) - memory_check.working_bytes(text, 1000, 4) == 4 * 1000**2 * 8


@pytest.mark.parametrize(("window", "documents"), [(0, 1), (-5, 1), (10**12, 1), (40, 0)])
def test_sizes_that_cannot_be_are_refused(window, documents):
    with pytest.raises(UserError, match=r"got .+; |GiB are free"):
        attention(testing.tiny(), tokenizer=TOKENIZER, data=[text_of(100)], window=window, documents=documents)


def test_a_base_that_is_another_model_is_refused(base):
    other = testing.tiny(rope_parameters={"rope_type": "default", "rope_theta": 5e5})
    with pytest.raises(UserError, match="theta is 10000.0 and the model's 500000.0"):
        attention(other, tokenizer=TOKENIZER, base=str(base), data=[text_of(100)], window=40)


def test_a_model_without_rope_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_positions": 64}')
    with pytest.raises(UserError, match="learned table of 64 positions"):
        attention(str(tmp_path), data=[text_of(100)], window=40)
