"""attention: what one state's rows hold when a model is interpolated, measured on two documents, or broken."""

from __future__ import annotations

import dataclasses
import math
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from ropewalk import testing
from ropewalk.cli.tables.attention import conclusion, gists_of, show_attention
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals.attention import attention, distances, interpolated, memory_check
from ropewalk.evals.attention.adjacent import Nearby
from ropewalk.evals.attention.layers import measure_layers
from ropewalk.evals.attention.probe import probing
from ropewalk.evals.loaded import open_model
from ropewalk.model.extend import extend
from ropewalk.rope.scaling import Linear, Rope

TOKENIZER = testing.byte_tokenizer()
ROPE = Rope(16, 10000.0, 64)


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 250, count)


def loud(family: str = "llama") -> torch.nn.Module:
    """A tiny model whose queries and keys are large enough for scores to differ."""
    model = testing.tiny(family)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "q_proj" in name or "k_proj" in name or "query_key_value" in name:
                weight.mul_(30)
    return model


def test_the_deviation_of_an_interpolated_model_is_from_the_chords_of_the_grid_it_was_trained_on():
    """Half a token of the old grid, two of the new one at factor 4: the deviation that theorem 2.1 speaks of."""
    model = loud()
    loaded, seen = open_model(model, tokenizer=TOKENIZER), []
    with interpolated(model, 4.0):
        rows = [row for row in measure_layers(loaded, [ids(200)], 200) if row.kind == "attention"]
        with torch.inference_mode(), probing(model, seen.append):
            model(input_ids=torch.from_numpy(ids(200))[None])
    inv_freq, causal = ROPE.inv_freq(), np.tril(np.ones((200, 200), bool))
    for row, layer in zip(rows, seen, strict=True):
        query, key = (x.double().numpy()[..., :8] + 1j * x.double().numpy()[..., 8:] for x in (layer.query, layer.key))
        phase = np.exp(0.5j * inv_freq) - (1 + np.exp(1j * inv_freq)) / 2
        deviation = np.abs(((query * phase) @ key.conj().transpose(0, 2, 1)).real[:, causal]).max(axis=1) * layer.scale
        np.testing.assert_allclose(row.deviation, deviation, rtol=1e-4)  # float32, six digits kept


def test_with_partial_rotary_the_bounds_on_a_score_count_the_part_that_does_not_turn():
    """GPT-NeoX turns a quarter of a head; the rest of the score is no smaller, and no bound on h knows of it."""
    model, seen = loud("gpt_neox"), []
    with torch.no_grad():
        for (
            layer
        ) in model.gpt_neox.layers:  # the turning part next to nothing: its own bound is broken by the whole score
            layer.attention.query_key_value.weight.view(4, 3, 16, -1)[:, :2, :4] *= 0.01
            layer.attention.query_key_value.bias.view(4, 3, 16)[:, :2, :4] *= 0.01
    rows = [
        row for row in measure_layers(open_model(model, tokenizer=TOKENIZER), [ids(64)], 64) if row.kind == "attention"
    ]
    with torch.inference_mode(), probing(model, seen.append):
        model(input_ids=torch.from_numpy(ids(64))[None])
    causal = np.tril(np.ones((64, 64), bool))
    for row, layer in zip(rows, seen, strict=True):
        rest = (layer.query[..., 4:] @ layer.key[..., 4:].transpose(1, 2)).numpy()[:, causal] * layer.scale
        turning = layer.query[..., :4] @ layer.key[..., :4].transpose(1, 2) * layer.scale
        size = np.maximum(np.max(row.maximum, axis=1), -np.min(row.minimum, axis=1))
        assert np.all(size > np.array(row.trivial) - np.abs(rest).max(axis=1))
        assert np.all(size <= np.array(row.trivial) * (1 + 1e-5))  # float32
        assert np.all(turning.abs().amax(dim=(1, 2)).numpy() <= np.array(row.trivial) - np.abs(rest).max(axis=1) + 1e-4)
        assert np.all(np.array(row.trivial) < np.array(row.extrapolation))


def test_neighbours_of_an_interpolated_model_are_told_apart_at_its_own_speeds():
    model, seen = loud(), []
    with interpolated(model, 4.0):
        rows = [
            row
            for row in measure_layers(open_model(model, tokenizer=TOKENIZER), [ids(200)], 200)
            if row.kind == "adjacent"
        ]
        with torch.inference_mode(), probing(model, seen.append):
            model(input_ids=torch.from_numpy(ids(200))[None])
    near = Nearby()
    near.add(seen[0], seen[0].key, Linear(4.0).inv_freq(ROPE), within=64)
    np.testing.assert_allclose(rows[0].change, near.change, rtol=1e-4)


def test_neighbours_are_asked_about_in_the_old_window_alone():
    loaded = open_model(loud(), tokenizer=TOKENIZER)
    short, long = ([r for r in measure_layers(loaded, [ids(200)[:n]], n) if r.kind == "adjacent"] for n in (64, 200))
    for here, there in zip(short, long, strict=True):
        assert here.rows == there.rows
        np.testing.assert_allclose(here.resolution, there.resolution, rtol=1e-4)


def test_two_documents_give_the_larger_of_their_figures():
    loaded, texts = open_model(loud(), tokenizer=TOKENIZER), [ids(64, seed=1), ids(64, seed=2)]
    both = measure_layers(loaded, texts, 64)[0]
    for name in ("deviation", "largest_h", "maximum"):
        each = [np.array(getattr(measure_layers(loaded, [one], 64)[0], name)) for one in texts]
        assert (each[0] > each[1]).any() and (each[0] < each[1]).any()
        np.testing.assert_array_equal(getattr(both, name), np.maximum(*each))


def test_a_base_is_interpolated_by_the_factor_of_the_model_that_came_of_it(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=64)
    extend(str(base), window=256, out=tmp_path / "pi")
    text = [Document("made-up", testing.prose(400)[:399])]
    measured = attention(str(tmp_path / "pi"), base=str(base), data=text, window=128)
    assert [(variant.run.model.factor, variant.rows[0].window) for variant in measured][2:] == [(4.0, 128), (4.0, 128)]


def test_four_states_stand_beside_one_another_in_80_columns(tmp_path, capsys):
    base = testing.tiny_directory(tmp_path / "base", window=64)
    extend(str(base), window=256, out=tmp_path / "pi")
    text = [Document("made-up", testing.prose(400)[:399])]
    measured = attention(str(tmp_path / "pi"), base=str(base), data=text)
    short = ("heads out of range", "change / spread", "on the token before")
    every = (*short, "highest score, beyond", "largest |h|", "deviation, of the printed", "extrapolation bound")
    for full, labels in ((False, short), (True, every)):
        capsys.readouterr()
        show_attention(measured, full=full)
        printed = capsys.readouterr().out.splitlines()
        assert max(map(len, printed)) <= 80
        rows = printed[next(n for n, line in enumerate(printed) if "softmax, 1 document " in line) :]
        for label in labels:
            row = next(line for line in rows if label in line)
            assert len(row.split(label)[1].replace("\u202f", "").split()) == 4, label
        assert any("highest score" in line for line in rows) == full


def test_the_conclusion_compares_each_state_with_the_base_in_its_window(tmp_path):
    """Half the change of a score a token is half as well told apart; no head is out of range where no key stands beyond."""
    base = testing.tiny_directory(tmp_path / "base", window=64)
    measured = attention(str(base), data=[Document("made-up", testing.prose(400)[:399])], window=128)
    gists = gists_of(measured, 64)
    in_range, beyond, interpolated_one = (dataclasses.replace(each, resolution=0.4) for _, each in gists)
    beyond = dataclasses.replace(beyond, out_of_range=0.75)
    interpolated_one = dataclasses.replace(interpolated_one, out_of_range=0.0, resolution=0.2)
    variants = [variant for variant, _ in gists]
    said = conclusion(list(zip(variants, (in_range, beyond, interpolated_one), strict=True)), 64).replace("\u202f", " ")
    assert "beyond 64 tokens" in said
    assert "75 % (base, extrapolating), 0 % (PI ×2, before training)" in said
    assert "power to tell neighbouring tokens apart there is left: 50 % (PI ×2, before training)" in said
    alone = conclusion([(variants[0], dataclasses.replace(gists[0][1], resolution=0.25))], 64)
    assert (
        alone.startswith("base in 64 tokens: a score changes by 0.250 of its spread") and "No key stood beyond" in alone
    )


class Live(TorchDispatchMode):
    """Bytes of all tensors that operations made and nobody has dropped yet; and the most there were at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.most = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        results = function(*arguments, **(options or {}))
        for result in results if isinstance(results, tuple | list) else (results,):
            if isinstance(result, torch.Tensor) and (place := result.untyped_storage().data_ptr()):
                if place not in self.sizes:
                    weakref.finalize(result.untyped_storage(), self.sizes.pop, place, None)
                self.sizes[place] = result.untyped_storage().nbytes()
        self.most = max(self.most, sum(self.sizes.values()))
        return results


@pytest.mark.parametrize("window", [256, 2048])
@pytest.mark.parametrize("heads", [1, 8])  # one: the rows of neighbours weigh most; eight: queries and keys
def test_a_measurement_keeps_within_the_room_that_was_reckoned_for_it(window, heads):
    shape = dict(hidden_size=64 * heads, num_attention_heads=heads, num_key_value_heads=heads, intermediate_size=128)
    model = testing.tiny(window=window, num_hidden_layers=1, **shape)
    working, block = memory_check.working_bytes(model.config.to_dict(), window, 4), distances.block_bytes("cpu")
    with Live() as live:
        measure_layers(open_model(model, tokenizer=TOKENIZER), [ids(window)], window)
    assert live.most <= working + block
    assert working < 4 * live.most  # nor is much refused that would fit


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_window_without_four_keys_before_a_token_is_refused(window):
    text = [Document("made-up", testing.prose(400)[:399])]
    with pytest.raises(UserError, match=f"at least 4 tokens, got {window}; "):
        attention(testing.tiny(), tokenizer=TOKENIZER, data=text, window=window)
    assert len(attention(testing.tiny(), tokenizer=TOKENIZER, data=text, window=4)) == 1


def test_a_model_that_is_broken_behind_its_scores_is_refused_too(tmp_path):
    """The last layer's values touch no score, but what the model says is no number."""
    model = testing.tiny()
    model.model.layers[-1].self_attn.v_proj.weight.data[0] = math.nan
    text = [Document("made-up", testing.prose(100)[:99])]
    with pytest.raises(UserError, match="logits must be numbers, but some of this one's are not"):
        attention(model, tokenizer=TOKENIZER, data=text, window=40, out=tmp_path / "f.jsonl")
    assert not (tmp_path / "f.jsonl").exists()


@pytest.mark.parametrize("device", ["nonsense", "cuda:99"])
def test_a_device_that_is_not_here_is_refused_before_loading(tmp_path, device):
    base = testing.tiny_directory(tmp_path / "base", window=64)
    with pytest.raises(UserError, match=f"got .?{device}"):
        attention(str(base), data=[Document("made-up", testing.prose(100))], device=device)


@pytest.mark.parametrize(("place", "said"), [(".", "is a directory"), ("mine/x.jsonl", "mine is a file")])
def test_a_record_file_that_cannot_be_is_refused_before_anything_is_measured(tmp_path, monkeypatch, place, said):
    (tmp_path / "mine").write_text("mine")
    monkeypatch.setattr("ropewalk.evals.attention.measure.open_model", lambda *a, **k: pytest.fail("loaded"))
    with pytest.raises(UserError, match=said):
        attention(testing.tiny(), tokenizer=TOKENIZER, data=["x"], window=40, out=tmp_path / place)
    assert (tmp_path / "mine").read_text() == "mine"
