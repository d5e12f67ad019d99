"""Context gain and LongPPL: against plain transformers, two perplexities, and the published formula."""

import dataclasses
import json
import math

import numpy as np
import pytest
import torch

from byte_documents import documents
from ropewalk import records
from ropewalk.data.documents import read_documents
from ropewalk.data.scores import chosen_by, ranked
from ropewalk.data.select import TokenizedDocument
from ropewalk.data.sliding import SlidingWindow
from ropewalk.data.stdlib import standard_library
from ropewalk.errors import UserError
from ropewalk.evals.loaded import open_model
from ropewalk.evals.perplexity.context_gain import data_score, gain
from ropewalk.evals.perplexity.gain_figures import of_documents, sums
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.evals.perplexity.two_pass import Contexts, Twice
from ropewalk.testing import byte_tokenizer, prose, tiny, tiny_directory


@pytest.fixture(scope="module")
def modules():
    """Three held-out modules of the standard library: hemp has not seen them."""
    return list(read_documents(sorted(standard_library("held_out"), key=lambda path: path.name)[:40]))


@pytest.fixture(scope="module")
def measured(modules):
    """hemp on the first 400 tokens of three of them, 48 tokens of context against 256."""
    return gain("hemp", data=modules, window=256, short=48, stride=16, limit=3, max_tokens=400)


def line(row):
    """As a file has it: there, two figures that are not finite are equal."""
    return records.to_line(row)


def plain_nlls(model, ids, window, stride):
    """Oracle: one window a forward, log-softmax in float64; a token's nll by its place."""
    nll, scored_to = np.zeros(len(ids)), 1
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        with torch.no_grad():
            log_p = torch.log_softmax(model(torch.tensor([ids[begin:end]])).logits[0].double(), -1)
        for token in range(scored_to, end):
            nll[token] = -log_p[token - begin - 1, ids[token]]
        scored_to = end
        if end == len(ids):
            return nll
    raise AssertionError("unreachable")


def published_longppl(whole, short):
    """Fang et al. 2024, equations 5 to 8, token by token, from probabilities as they write them."""
    chosen = []
    for nll_whole, nll_short in zip(whole, short, strict=True):
        p_whole, p_short = math.exp(-nll_whole), math.exp(-nll_short)
        if math.log(p_whole / p_short) > 2 and math.log(p_whole) > -2:
            chosen.append(math.log(p_whole))
    return math.exp(-sum(chosen) / len(chosen)), len(chosen)


def test_hemp_by_plain_transformers_token_by_token(measured, modules):
    """float32 log-likelihoods of 1000 tokens, batched otherwise than here: 1e-5 nats a token is tens of roundings."""
    loaded = open_model("hemp")
    long_enough = [
        ids for doc in modules if len(ids := loaded.tokenizer(doc.text, verbose=False).input_ids[:400]) >= 256
    ][:3]
    each = [[plain_nlls(loaded.model, ids, window, 16)[48:] for window in (256, 48)] for ids in long_enough]
    whole, short = (np.concatenate(parts) for parts in zip(*each, strict=True))
    assert measured.tokens == len(whole) and measured.documents == 3
    assert measured.gain == pytest.approx((short - whole).mean(), abs=1e-5)
    assert measured.perplexity == pytest.approx(math.exp(whole.mean()), rel=1e-5)
    assert measured.short_perplexity == pytest.approx(math.exp(short.mean()), rel=1e-5)
    longppl, chosen = published_longppl(whole, short)
    assert chosen > 0 and (measured.longppl, measured.key_tokens) == (pytest.approx(longppl, rel=1e-5), chosen)
    for row, (of_whole, of_short) in zip(measured.per_document, each, strict=True):
        assert (row["nll"], row["short_nll"]) == pytest.approx((of_whole.sum(), of_short.sum()), rel=1e-5)
    places = np.concatenate([np.arange(48, len(ids)) for ids in long_enough])
    for part in measured.by_place:
        inside = (places >= part["start"]) & (places < part["stop"])
        assert part["tokens"] == inside.sum()
        assert part["gain"] == pytest.approx((short - whole)[inside].mean(), abs=1e-5)
    assert [part["start"] for part in measured.by_place] == [48, 96, 192, 256]


def test_a_trained_model_gains_and_it_is_the_difference_of_two_perplexities(measured, modules):
    """Tokens before the short context ends are read alike by both, so the sums over all tokens differ as those over the others do."""
    assert measured.gain > 0 and measured.by_place[-1]["gain"] > 0
    short, whole = perplexity("hemp", data=modules, windows=[48, 256], stride=16, limit=3, max_tokens=400)
    assert short.per_document[0]["tokens"] == whole.per_document[0]["tokens"] == 399
    gained = [a["nll"] - b["nll"] for a, b in zip(short.per_document, whole.per_document, strict=True)]
    assert measured.gain == pytest.approx(sum(gained) / measured.tokens, abs=1e-5)
    assert measured.texts == whole.texts and measured.skipped == whole.skipped


def test_the_worked_example():
    """The figures of the module's head; by the published formula too."""
    short, whole = np.array([3.0, 4.0, 2.5, 5.0, 0.5], np.float32), np.array([0.4, 1.8, 0.6, 2.9, 0.4], np.float32)
    twice, contexts = Twice(whole, short), Contexts(window=16, short=4, stride=2)
    assert twice.key.tolist() == [True, True, False, False, False]
    document = TokenizedDocument("nine", np.arange(9))
    found = of_documents([document], np.array([sums(SlidingWindow(0, 9, 4), twice, twice.key, contexts)]), contexts)
    assert found["gain"] == pytest.approx(1.78) and found["key_tokens"] == 2 and found["tokens"] == 5
    assert found["longppl"] == pytest.approx(math.exp(1.1)) == pytest.approx(published_longppl(whole, short)[0])
    assert [part["tokens"] for part in found["by_place"]] == [4, 1], "places 4 to 7, and 8"


def test_the_published_implementations_short_contexts():
    """longppl 0.3 (trunc_len 12, sliding_window 4): passes of 16 tokens by 4 score their last 4; its first scores what both contexts share."""
    contexts, length = Contexts(window=42, short=16, stride=4), 42
    (whole,) = contexts.windows(length)
    theirs = [(at, min(at + 16, length), at + 12) for at in range(0, length - 12, 4)]
    assert contexts.short_windows(whole) == theirs[1:] and theirs[0] == (0, 16, 12)


@pytest.mark.parametrize(("window", "short", "stride"), [(64, 16, 8), (64, 17, 6), (50, 49, 48), (3, 2, 1)])
def test_each_token_past_the_short_context_is_scored_once_each_way(window, short, stride):
    contexts = Contexts(window, short, stride)
    for length in (window, window + 1, 3 * window + 5):
        windows = contexts.windows(length)
        for passes in (windows, [each for place in windows for each in contexts.short_windows(place)]):
            assert [at for each in passes for at in range(each.first_scored, each.stop)] == list(range(short, length))
        for each in (each for place in windows for each in contexts.short_windows(place)):
            assert each.first_scored - each.start == short - stride and each.length <= short


def test_documents_are_scored_best_first_shorter_ones_than_the_window_too(tmp_path):
    model, tokenizer, out = tiny(window=64, seed=1), byte_tokenizer(), tmp_path / "scores.jsonl"
    rows = [{"body": prose(900, n)[: length - 1], "id": f"d{n}"} for n, length in enumerate((150, 60, 31, 40, 128))]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    options = dict(model=model, tokenizer=tokenizer, window=64, short=16, stride=8, field="body")
    row = data_score([tmp_path / "rows.jsonl"], out=out, **options)
    expected = {}
    for each in rows:
        ids = tokenizer(each["body"]).input_ids
        whole, short = (plain_nlls(model, ids, window, 8)[16:] for window in (64, 16))
        if len(ids) >= 32:
            expected[each["id"]] = (short - whole).mean()
    found = {each["name"].partition(":")[2]: each for each in ranked(row)}
    assert list(found) == sorted(expected, key=lambda name: -expected[name]) and row.skipped == 1
    assert [each["rank"] for each in found.values()] == [1, 2, 3, 4]
    assert [each["score"] for each in found.values()] == pytest.approx(
        sorted(expected.values(), reverse=True), abs=1e-5
    )
    assert chosen_by(out, 0.5).left_out == {each["text"] for each in list(found.values())[2:]}
    with pytest.raises(UserError, match="past the short context of 16 tokens alone, and --min-tokens is 16"):
        data_score([tmp_path / "rows.jsonl"], **options, min_tokens=16)


def test_an_evaluator_chooses_the_key_tokens(measured, modules):
    """hemp's choice for a model that is hemp with noise: its key tokens, the noisy model's log-likelihoods."""
    loaded = open_model("hemp")
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in loaded.model.parameters():
            weight.add_(0.1 * weight.std() * torch.randn_like(weight))
    options = {"data": modules, "window": 256, "short": 48, "stride": 16, "limit": 3, "max_tokens": 400}
    noisy = gain(loaded.model, tokenizer=loaded.tokenizer, evaluator="hemp", **options)
    assert noisy.key_tokens == measured.key_tokens and noisy.evaluator == "hemp" and measured.evaluator == ""
    assert noisy.perplexity > measured.perplexity and noisy.longppl > measured.longppl
    with pytest.raises(UserError, match="must share a tokenizer"):
        gain(tiny(), tokenizer=byte_tokenizer(), evaluator="hemp", data=documents(300), window=64)


def test_a_killed_run_goes_on_and_a_finished_one_adds_nothing(tmp_path):
    model, out = tiny_directory(tmp_path / "model"), tmp_path / "out.jsonl"
    options = {"data": documents(150, 90, 201), "window": 64, "short": 16, "out": out}
    whole = gain(model, **options)
    lines = out.read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["run", *["document_gain"] * 3, "context_gain"]
    out.write_text("\n".join(lines[:3]) + "\n" + lines[3][:40])
    again = gain(model, **options)
    kept = records.read([out])
    assert [m.row.document for m in kept.of(records.DocumentGain)] == ["doc0", "doc1", "doc2"]
    assert line(dataclasses.replace(again, seconds=0)) == line(dataclasses.replace(whole, seconds=0))
    assert [line(m.row) for m in kept.of(records.ContextGain)] == [line(again)]
    assert line(gain(model, **options)) == line(again) and len(records.read([out]).of(records.ContextGain)) == 1
    # Another short context, another stride or an evaluator are other figures.
    for other in ({"short": 17}, {"stride": 6}, {"evaluator": model}):
        gain(model, **(options | other))
    assert len(records.read([out]).of(records.DocumentGain)) == 12


def test_an_estimate_is_near_the_exact_figure_and_all_windows_give_it():
    model, tokenizer, docs = tiny(), byte_tokenizer(), documents(400, 700, 500)
    options = {"tokenizer": tokenizer, "data": docs, "window": 64, "short": 16, "stride": 8, "batch_tokens": 256}
    exact = gain(model, **options)
    every = gain(model, **options, budget=10, tolerance=0)
    assert not every.estimate and every.per_document == exact.per_document and every.by_place == exact.by_place
    some = gain(model, **options, budget=10, tolerance=0.01)
    assert some.estimate and some.tokens < exact.tokens and not some.per_document
    assert some.low <= exact.gain <= some.high and some.high - some.low <= 0.0201
    assert some.perplexity == pytest.approx(exact.perplexity, rel=0.01)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"short": 64}, "got 31, 64 and 64"),
        ({"stride": 16, "short": 16}, "must be shorter"),
        ({"window": 4000}, "at least 4000 tokens"),
        ({"max_tokens": 60}, "cut to 60 tokens"),
    ],
)
def test_what_cannot_be_measured_is_refused(asked, words):
    with pytest.raises(UserError, match=words):
        gain(tiny(), tokenizer=byte_tokenizer(), data=documents(300), **({"window": 64} | asked))


def test_the_defaults():
    row = gain(tiny(), tokenizer=byte_tokenizer(), data=documents(300))
    assert (row.window, row.short, row.stride) == (64, 16, 7)
    assert math.isnan(row.low) and row.key_tokens == 0 and math.isnan(row.longppl)


def tokens_through(model, measure):
    """How many tokens go through a model in a measurement."""
    counted = []
    hook = model.model.embed_tokens.register_forward_pre_hook(lambda _, ids: counted.append(ids[0].numel()))
    measure()
    hook.remove()
    return sum(counted)


@pytest.mark.parametrize(("short", "window"), [(16, 64), (32, 64), (64, 256), (100, 256), (32, 256)])
@pytest.mark.parametrize("length", [1, 2, 3])
def test_at_the_defaults_no_more_than_2_2_times_as_many_tokens_are_read_as_by_perplexity_at_both_windows(
    short, window, length
):
    model, asked = (
        tiny(window=window),
        dict(tokenizer=byte_tokenizer(), data=documents(length * window, length * window)),
    )
    ours = tokens_through(model, lambda: gain(model, **asked, short=short, window=window))
    theirs = tokens_through(model, lambda: perplexity(model, **asked, windows=[short, window]))
    assert ours <= 2.2 * theirs


def test_what_reads_more_than_3_times_as_many_tokens_as_perplexity_at_the_window_alone_is_said_beforehand(caplog):
    model, asked = tiny(window=64), dict(tokenizer=byte_tokenizer(), short=16, window=64)
    caplog.set_level("INFO", "ropewalk")
    # At the defaults that is never so where documents fill the window, at other strides it is.
    for length, stride, dear in ((64, None, False), (64, 4, True), (640, None, False)):
        caplog.clear()
        data = documents(length)
        ours = tokens_through(model, lambda data=data, stride=stride: gain(model, data=data, stride=stride, **asked))
        alone = tokens_through(
            model, lambda data=data: perplexity(model, data=data, tokenizer=asked["tokenizer"], windows=[64])
        )
        assert (ours > 3 * alone) == dear == (f"context gain reads {ours / alone:.1f} times the tokens" in caplog.text)


def test_a_stride_of_half_the_short_context_is_warned_of(caplog):
    asked = dict(tokenizer=byte_tokenizer(), data=documents(100), window=64, short=16)
    gain(tiny(), **asked, stride=7)
    assert not caplog.text
    gain(tiny(), **asked, stride=8)
    assert "half of the shortest context, which is 16 tokens, got 8" in caplog.text


def test_no_number_is_refused_with_its_place():
    model = tiny()
    with torch.no_grad():
        model.lm_head.weight.fill_(math.nan)
    with pytest.raises(UserError, match="NaN in doc0, tokens 0 to 63"):
        gain(model, tokenizer=byte_tokenizer(), data=documents(300))
