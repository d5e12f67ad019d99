"""What a measurement is of: the whole model, and token ids that it has an embedding for."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals.loaded import fingerprint, open_model
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.evals.retrieval.passkey import passkey
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.records.variant import labels
from ropewalk.reports.rows import clean
from ropewalk.training import train

DOCUMENTS = [Document(f"d{number}", testing.prose(60, number)) for number in range(3)]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return testing.tiny_directory(tmp_path / "model", window=64)


def measured(model: Path, out: Path) -> float:
    return perplexity(model, data=DOCUMENTS, windows=[64], stride=32, out=out)[0].perplexity


def _other_activation(model: Path) -> None:
    config = json.loads((model / "config.json").read_text()) | {"hidden_act": "gelu", "rms_norm_eps": 0.5}
    (model / "config.json").write_text(json.dumps(config))


def _one_weight(model: Path) -> None:
    """One number that no sample of 64 evenly spread ones would hold."""
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][63, 63] += 5
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("change", [_other_activation, _one_weight])
def test_a_record_of_another_model_in_the_same_place_is_not_taken_for_this_ones(change, model, tmp_path) -> None:
    out = tmp_path / "r.jsonl"
    before = measured(model, out)
    scored = len(records.read([out]).of(records.DocumentScore))
    assert measured(model, out) == before and len(records.read([out]).of(records.DocumentScore)) == scored
    change(model)
    after = measured(model, out)
    assert after == measured(model, tmp_path / "fresh.jsonl") != before
    # A page takes them for two models, and tells them apart.
    found = {m.variant for m in clean(records.read([out])).of(records.Perplexity)}
    assert len(found) == len(set(labels(sorted(found, key=lambda v: v.fingerprint)).values())) == 2


def test_a_model_given_as_an_object_is_known_by_every_weight_too(model) -> None:
    loaded, tokenizer = load_model(model), load_tokenizer(model)
    before = fingerprint(open_model(loaded, tokenizer=tokenizer))
    assert fingerprint(open_model(load_model(model), tokenizer=tokenizer)) == before
    loaded.get_parameter("model.layers.0.mlp.up_proj.weight").data[63, 63] += 5
    assert fingerprint(open_model(loaded, tokenizer=tokenizer)) != before


def _louder(loaded) -> None:
    loaded.model.layers[1].self_attn.scaling *= 2


def _patched(loaded) -> None:
    forward = loaded.model.layers[0].forward
    loaded.model.layers[0].forward = functools.wraps(forward)(lambda *given, **named: 1.1 * forward(*given, **named))


CHANGES = {
    "a number of a module": _louder,
    "the attention factor": lambda loaded: setattr(loaded.model.rotary_emb, "attention_scaling", 1.5),
    "the config": lambda loaded: setattr(loaded.config, "rms_norm_eps", 0.5),
    "a hook": lambda loaded: loaded.model.layers[0].register_forward_hook(lambda module, given, out: 1.1 * out),
    "another forward": _patched,
    "another module": lambda loaded: setattr(loaded.model.layers[0].mlp, "act_fn", torch.nn.Tanh()),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_an_object_that_was_changed_after_it_was_measured_is_measured_again(change, model, tmp_path) -> None:
    loaded, named = load_model(model), dict(tokenizer=load_tokenizer(model), data=DOCUMENTS, windows=[64], stride=32)
    out = tmp_path / "r.jsonl"

    def scored() -> tuple[float, int]:
        (row,) = perplexity(loaded, out=out, **named)
        return row.perplexity, len(records.read([out]).of(records.DocumentScore))

    first = scored()
    loaded(torch.zeros(1, 80, dtype=torch.long), output_hidden_states=True, output_attentions=False)
    assert scored() == first and first[1] == 3  # using it changes nothing
    change(loaded)
    assert scored()[1] == 6


def test_what_an_object_with_dynamic_ntk_gives_does_not_depend_on_what_it_read_before(model) -> None:
    scaling = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    loaded, tokenizer = testing.tiny(window=64, rope_parameters=scaling), load_tokenizer(model)
    named = dict(tokenizer=tokenizer, data=DOCUMENTS, stride=32, current_window=128, original_window=64)
    before = perplexity(loaded, windows=[80], **named)[0].perplexity
    with torch.no_grad():
        loaded(torch.zeros(1, 200, dtype=torch.long))
    assert perplexity(loaded, windows=[80], **named)[0].perplexity == before
    assert len(loaded.model.rotary_emb._forward_pre_hooks) == 1


def test_a_model_given_as_an_object_is_trained_on_in_the_modes_and_the_dtype_that_it_had(model) -> None:
    loaded, measure = load_model(model).train(), dict(data=DOCUMENTS, windows=[64], stride=32)
    loaded.model.layers[0].eval()
    before = [module.training for module in loaded.modules()]
    with pytest.warns(UserWarning, match="keeps its own dtype, torch.float32"):
        perplexity(loaded, tokenizer=load_tokenizer(model), dtype="bfloat16", **measure)
    assert [module.training for module in loaded.modules()] == before and loaded.dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda place: load_model(place).to("meta"), "are on the device meta"),
        (lambda place: load_model(place).model, "a LlamaModel has no head"),
        (
            lambda place: _resized(load_model(place), 100),
            "the text has token 256 .*, the model's embedding has 100 rows",
        ),
        (lambda _: transformers.BertForMaskedLM(_BERT), "a bert model reads in both directions"),
    ],
    ids=["meta", "headless", "cut", "bert"],
)
def test_an_object_that_predicts_no_text_is_refused(make, said, model) -> None:
    with pytest.raises(UserError, match=said):
        perplexity(make(model), tokenizer=load_tokenizer(model), data=DOCUMENTS, windows=[64], stride=32)


_BERT = transformers.BertConfig(
    vocab_size=258, hidden_size=16, num_attention_heads=2, num_hidden_layers=1, intermediate_size=8
)


def _resized(loaded: transformers.PreTrainedModel, rows: int) -> transformers.PreTrainedModel:
    loaded.resize_token_embeddings(rows)
    return loaded


@pytest.fixture
def padded(model: Path) -> Path:
    """A tokenizer with one token more than the embedding has rows, as after adding a padding token without resizing."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["added_tokens"].append({**tokenizer["added_tokens"][0], "id": 258, "content": "[PAD]", "special": False})
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    return model


TOKEN = r"the text has token 258 \('\[PAD\]'\), the model's embedding has 258 rows"


def test_ids_beyond_the_embedding_are_refused_before_anything_is_computed(padded, tmp_path) -> None:
    documents = [*DOCUMENTS, Document("last", 'tok = "[PAD]" ' + testing.prose(60, 9))]
    with pytest.raises(UserError, match=TOKEN):
        perplexity(padded, data=documents, windows=[64], stride=32)
    with pytest.raises(UserError, match=TOKEN):
        perplexity(load_model(padded), tokenizer=load_tokenizer(padded), data=documents, windows=[64], stride=32)
    for _ in range(2):  # the second time the corpus comes from the cache, if it was kept
        with pytest.raises(UserError, match=TOKEN):
            train(padded, data=documents, window=128, steps=3, batch_size=1, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert measured(padded, tmp_path / "r.jsonl") > 1  # no text has the token: nothing is wrong


def test_a_tokenizer_whose_bos_lies_beyond_the_vocabulary(model) -> None:
    content = (model / "tokenizer.json").read_text()
    content = content.replace('"id": 256', '"id": 1000').replace('"<s>": 256', '"<s>": 1000')
    (model / "tokenizer.json").write_text(json.dumps(json.loads(content)).replace("[256]", "[1000]"))
    for measure in (
        lambda: perplexity(model, data=DOCUMENTS, windows=[64], stride=32),
        lambda: passkey(model, window=64),
    ):
        with pytest.raises(UserError, match="token 1000"):
            measure()


def test_weights_that_became_nan_are_not_saved(model, tmp_path, monkeypatch) -> None:
    """The last step's update is looked at by no loss."""
    step = torch.optim.AdamW.step

    def spoils(self, *arguments, **options):
        step(self, *arguments, **options)
        self.param_groups[0]["params"][0].data.fill_(float("nan"))

    monkeypatch.setattr(torch.optim.AdamW, "step", spoils)
    with pytest.raises(UserError, match="NaN or infinity .*nothing was written"):
        train(model, data=DOCUMENTS, window=96, steps=1, batch_size=1, out=tmp_path / "out", allow_short=True)
    assert not (tmp_path / "out/config.json").exists() and not list((tmp_path / "out").rglob("*.safetensors"))
