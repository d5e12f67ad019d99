"""Perplexity: the definition against a plain loop, and everything that must not change it."""

import dataclasses
import gc
import json
import math
import weakref
from contextlib import nullcontext

import numpy as np
import pytest
import torch
import transformers
from tokenizers import processors

from byte_documents import documents
from ropewalk.data import select
from ropewalk.data.documents import Document
from ropewalk.data.encode import encode_all
from ropewalk.data.select import TokenizedDocument, choose
from ropewalk.errors import UserError
from ropewalk.evals import likelihood
from ropewalk.evals.perplexity.measure import perplexity
from ropewalk.testing import FAMILIES, byte_tokenizer, prose, tiny, tiny_directory


def plain_loop(model, ids, window, stride):
    """Oracle: one window a forward, all logits, log-softmax in float64, token by token."""
    total, count, previous = 0.0, 0, 0
    for begin in range(0, len(ids), stride):
        end = min(begin + window, len(ids))
        with torch.no_grad():
            logits = model(torch.tensor([ids[begin:end]])).logits[0].double()
        for token in range(max(previous, 1), end):
            total -= torch.log_softmax(logits[token - begin - 1], dim=-1)[ids[token]].item()
            count += 1
        previous = end
        if end == len(ids):
            return total, count
    raise AssertionError("unreachable")


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_plain_loop_in_every_family(family):
    model, tokenizer = tiny(family), byte_tokenizer()
    docs = documents(157, 64, 101)
    (row,) = perplexity(model, tokenizer=tokenizer, data=docs, windows=[64], stride=24)
    sums = [plain_loop(model, tokenizer(doc.text).input_ids, 64, 24) for doc in docs]
    # float32 log-likelihoods of some 300 tokens against float64: 1e-6 relative is a few roundings.
    assert row.perplexity == pytest.approx(math.exp(sum(s for s, _ in sums) / sum(n for _, n in sums)), rel=1e-6)
    assert [(d["tokens"], pytest.approx(d["nll"], rel=1e-6)) for d in row.per_document] == [(n, s) for s, n in sums]
    assert row.tokens == 156 + 63 + 100 and row.documents == 3 and row.bos


def test_log_likelihoods_over_a_large_vocabulary_are_those_of_float64():
    """torch's float32 cross_entropy is 1e-5 nats too low at 256000 tokens; a rounding of a logit is 1e-6, of either sign."""
    random = torch.Generator().manual_seed(0)
    logits, targets = 3 * torch.randn(48, 256_000, generator=random), torch.randint(256_000, (48,), generator=random)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets, reduction="none")
    computed = likelihood.token_nlls(logits, targets).double()
    torch.testing.assert_close(computed, exact, rtol=0, atol=3e-6)
    assert abs(float((computed - exact).mean())) < 5e-7


def test_a_token_counts_the_same_wherever_it_stands():
    """Not the mean of windows' means nor of documents' perplexities: the worked example of the module."""
    nll = {"first": 25.0, "second": 9.0}
    tokens = {"first": 10, "second": 6}
    value = math.exp(sum(nll.values()) / sum(tokens.values()))
    assert f"{value:.2f}" == "8.37"
    assert f"{(math.exp(25 / 10) + math.exp(9 / 6)) / 2:.2f}" == "8.33"


@pytest.mark.parametrize("batch_tokens", [1, 200, 10_000])
def test_batching_windows_changes_nothing(batch_tokens):
    model, tokenizer, docs = tiny(), byte_tokenizer(), documents(300, 173)
    (row,) = perplexity(model, tokenizer=tokenizer, data=docs, stride=10, batch_tokens=batch_tokens)
    (one,) = perplexity(model, tokenizer=tokenizer, data=docs, stride=10, batch_tokens=64)
    # Only the order of float32 sums inside a matrix product may differ.
    assert row.perplexity == pytest.approx(one.perplexity, rel=1e-6)


def test_chunks_of_the_head_change_nothing(monkeypatch):
    model, tokenizer, docs = tiny(), byte_tokenizer(), documents(300)
    (whole,) = perplexity(model, tokenizer=tokenizer, data=docs, stride=16)
    monkeypatch.setattr(likelihood, "LOGIT_BYTES", 4 * 258 * 10)
    (parts,) = perplexity(model, tokenizer=tokenizer, data=docs, stride=16)
    assert parts.perplexity == pytest.approx(whole.perplexity, rel=1e-6)


def test_logits_exist_only_where_they_are_scored():
    model, sizes = tiny(), []
    model.lm_head.register_forward_hook(lambda module, args, output: sizes.append(output.shape[1]))
    perplexity(model, tokenizer=byte_tokenizer(), data=documents(200), stride=8)
    assert sizes[0] == 64 and set(sizes[1:]) == {9}


def test_several_windows_are_measured_on_the_same_documents():
    rows = perplexity(
        tiny(), tokenizer=byte_tokenizer(), data=documents(300, 80, 250), windows=[32, 64, 128], stride=32
    )
    assert [row.window for row in rows] == [32, 64, 128]
    assert {(row.documents, row.skipped) for row in rows} == {(2, 1)}
    # At 32 the stride is the whole window, whose first token has nothing before it: 9 and 7 windows after the first.
    assert [row.tokens for row in rows] == [299 - 9 + 249 - 7, 299 + 249, 299 + 249]


@pytest.mark.parametrize("front", ["", "<s>", "</s> <s>"])
@pytest.mark.parametrize("window", [64, 16])
def test_what_the_tokenizer_puts_in_front_is_seen_and_not_scored(front, window):
    """GLM puts two tokens there. Oracle: transformers' own loss, their labels masked."""
    model, tokenizer, docs = tiny(), byte_tokenizer(), documents(64, 50)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{front} $A".strip(), special_tokens=[("<s>", 256), ("</s>", 257)]
    )
    settings = {"tokenizer": tokenizer, "data": docs, "windows": [window], "stride": 8, "min_tokens": 8}
    (row,) = perplexity(model, **settings, max_tokens=window)  # one window a document
    prefix, total, tokens = len(front.split()), 0.0, 0
    for document in docs:
        ids = torch.tensor([tokenizer(document.text).input_ids[:window]])
        labels = ids.clone()
        labels[:, :prefix] = -100
        scored = ids.shape[1] - max(1, prefix)
        with torch.no_grad():
            total += model(ids, labels=labels).loss.item() * scored
        tokens += scored
    assert row.tokens == tokens and row.perplexity == pytest.approx(math.exp(total / tokens), rel=1e-5)
    (slid,) = perplexity(model, **settings)
    assert slid.tokens == sum(len(tokenizer(document.text).input_ids) - max(1, prefix) for document in docs)
    (drawn,) = perplexity(model, **settings, budget=10, tolerance=1e-9)
    assert drawn.tokens == slid.tokens and drawn.perplexity == pytest.approx(slid.perplexity, rel=1e-5)


def test_a_document_of_nothing_but_what_the_tokenizer_puts_in_front_is_too_short():
    short, longer = (TokenizedDocument(str(n), np.arange(n), prefix=2) for n in (2, 3))
    assert choose([short, longer], min_tokens=2, refusal="") == ([longer], 1)


def test_a_document_shorter_than_every_window_is_read_whole_at_each(caplog):
    """All its tokens with all before them: what a plain loop of one window as long as the document gives."""
    model, tokenizer, docs = tiny(window=256), byte_tokenizer(), documents(30, 20, 50, 300)
    rows = perplexity(model, tokenizer=tokenizer, data=docs, windows=[64, 128], stride=16, min_tokens=30)
    assert [(row.documents, row.skipped, row.shorter) for row in rows] == [(3, 1, 2), (3, 1, 2)]
    assert "2 of 3 documents shorter than 128 tokens, read whole" in caplog.text
    for row in rows:
        for loss, text in zip(row.per_document[:2], (docs[0], docs[2]), strict=True):
            ids = tokenizer(text.text).input_ids
            total, count = plain_loop(model, ids, len(ids), len(ids))
            assert loss["tokens"] == count and loss["nll"] == pytest.approx(total, rel=1e-6)  # as above
    with pytest.raises(
        UserError, match=r"at least 64 tokens \(--min-tokens; .*the longest of 2 has 30; .*--min-tokens 30 or less"
    ):
        perplexity(model, tokenizer=tokenizer, data=docs[:2], windows=[64], stride=16)


def test_a_window_whose_k_was_forgotten_is_asked_about(tmp_path, caplog):
    model = tiny_directory(tmp_path / "tiny", window=1024)
    perplexity(model, data=[Document("a", prose(2000))], windows=[128, 64], limit=1)
    assert "did you mean" not in caplog.text
    perplexity(model, data=[Document("a", prose(2000))], windows=[16], limit=1)
    assert "--windows 16 is 16 tokens, and the model reads 1024 (did you mean 16k?)" in caplog.text


def test_a_model_that_guesses_is_said_to(caplog):
    model = tiny()
    model.get_output_embeddings().weight.data.zero_()
    (row,) = perplexity(model, tokenizer=byte_tokenizer(), data=documents(100), windows=[64], stride=32)
    vocabulary = len(model.get_output_embeddings().weight)
    assert row.perplexity == pytest.approx(vocabulary)
    assert (
        f"no better than guessing among the {vocabulary} tokens" in caplog.text and "run ropewalk doctor" in caplog.text
    )
    caplog.clear()
    likelihood.warn_of_guessing(model, 0.9 * vocabulary)
    assert "guessing" not in caplog.text


def test_documents_shorter_than_the_window_are_counted():
    docs = [TokenizedDocument(str(n), np.arange(n)) for n in (5, 20, 7, 30, 40)]
    chosen, skipped = choose(docs, min_tokens=10, refusal="")
    assert [d.name for d in chosen] == ["20", "30", "40"] and skipped == 2
    chosen, skipped = choose(docs, min_tokens=10, limit=2, refusal="")
    assert [d.name for d in chosen] == ["20", "30"] and skipped == 2


def test_the_same_file_three_times_is_one_document(tmp_path):
    """Copies say nothing more of the texts that there are, and would narrow the interval by the root of three."""
    for name in ("a.txt", "copy of a.txt", "b.txt"):
        (tmp_path / name).write_text(prose(100, seed=name.startswith("b")) + "\n" * name.startswith("copy"))
    measured = {}
    for which, data in (("once", ["a.txt", "b.txt"]), ("again", ["a.txt", "copy of a.txt", "a.txt", "b.txt"])):
        told = (
            pytest.warns(UserWarning, match="2 documents are copies of others") if which == "again" else nullcontext()
        )
        with told:
            paths = [tmp_path / name for name in data]
            (measured[which],) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=paths, stride=32)
    once, again = measured["once"], measured["again"]
    assert again.documents == 2 and (again.perplexity, again.low, again.high) == (once.perplexity, once.low, once.high)
    assert once.texts == again.texts and len({document["text"] for document in once.per_document}) == 2


@pytest.mark.parametrize("settings", [{}, {"budget": 0.01}, {"convention": "yarn"}])
def test_a_row_says_which_texts_it_read_whatever_they_are_called(settings, tmp_path):
    def texts(name, seed):
        return perplexity(
            tiny(), tokenizer=byte_tokenizer(), data=[Document(name, prose(100, seed))], stride=32, **settings
        )[0].texts

    assert texts("a", 1) == texts("b", 1) != texts("a", 2)


def test_documents_that_are_all_too_short_are_an_error_with_the_longest():
    with pytest.raises(UserError, match="at least 64 tokens .* the longest of 2 has 50"):
        perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(50, 40), windows=[64], stride=32)
    with pytest.raises(UserError, match="--min-tokens 40 keeps 2 of them"):
        perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(50, 30, 40), windows=[64], stride=32, limit=2)


def test_documents_are_cut_where_asked():
    (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(300), stride=32, max_tokens=100)
    assert row.tokens == 99


@pytest.mark.parametrize("limit", [0, -3])
def test_a_limit_of_no_document_is_refused_and_not_taken_for_all(limit):
    with pytest.raises(UserError, match=f"limit is a whole number of at least 1 .*, got {limit}"):
        perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(100), windows=[64], stride=32, limit=limit)


@pytest.mark.parametrize("max_tokens", [1, 63])
def test_documents_cut_below_the_window_are_refused_with_the_cut_that_would_do(max_tokens):
    arguments = dict(tokenizer=byte_tokenizer(), data=documents(100), stride=32, max_tokens=max_tokens)
    for windows, least in (([64], 64), (None, 64), ([32, 64], 64)):
        with pytest.raises(UserError, match=f"give a --max-tokens of {least} or more"):
            perplexity(tiny(window=64), windows=windows, **arguments)


def test_a_window_named_twice_is_measured_once():
    rows = perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(100), windows=[64, 32, 64], stride=32)
    assert [row.window for row in rows] == [64, 32]


def test_a_rope_model_may_be_asked_beyond_its_window_a_learned_table_may_not():
    perplexity(tiny(window=64), tokenizer=byte_tokenizer(), data=documents(200), windows=[128], stride=64)
    config = transformers.GPT2Config(n_positions=64, n_embd=32, n_layer=1, n_head=2, vocab_size=258)
    with pytest.raises(UserError, match="table of 64 learned positions, got 128"):
        likelihood.check_window(transformers.GPT2LMHeadModel(config), 128)
    opt = transformers.OPTConfig(
        max_position_embeddings=64, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, ffn_dim=32
    )
    with pytest.raises(UserError, match="learned positions"):
        likelihood.check_window(transformers.OPTForCausalLM(opt), 128)


@pytest.mark.parametrize("stride", [0, 65])
def test_a_stride_of_zero_or_above_the_window_is_refused(stride):
    with pytest.raises(UserError, match="stride"):
        perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(200), windows=[64], stride=stride)


def test_the_default_stride_is_an_eighth_of_the_shortest_window_and_one_that_is_half_of_it_is_warned_of(
    tmp_path, caplog
):
    """The figures are those of that stride asked for, and every row says which it was."""
    asked = dict(tokenizer=byte_tokenizer(), data=documents(200, 150), windows=[64, 32])
    rows = perplexity(tiny(), **asked, out=tmp_path / "r.jsonl")
    same = perplexity(tiny(), **asked, stride=4)
    assert [(row.window, row.stride, row.perplexity) for row in rows] == [
        (row.window, 4, row.perplexity) for row in same
    ]
    assert json.loads((tmp_path / "r.jsonl").read_text().splitlines()[0])["settings"]["stride"] == 4
    assert perplexity(tiny(), **asked | {"windows": None})[0].stride == 8  # the model's own window is 64
    perplexity(tiny(), **asked, stride=15)
    assert "stride" not in caplog.text
    perplexity(tiny(), **asked, stride=16)
    (warned,) = [record.message for record in caplog.records if "stride" in record.message]
    assert "half of the shortest context, which is 32 tokens, got 16" in warned and "--stride 8 would" in warned


def test_nan_logits_name_the_document_and_leave_no_record(tmp_path):
    model = tiny()
    model.lm_head.weight.data[ord("q")] = float("nan")
    with pytest.raises(UserError, match="NaN in doc0, tokens 0 to 63"):
        perplexity(model, tokenizer=byte_tokenizer(), data=documents(200), stride=32, out=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_bfloat16_errs_no_more_than_the_plain_way():
    """Truth in float32, the plain loop in bfloat16, ours in bfloat16: ours may err as the plain one does, plus a little."""
    docs, tokenizer = documents(200), byte_tokenizer()
    (truth,) = perplexity(tiny(), tokenizer=tokenizer, data=docs, stride=16)
    low = tiny().to(torch.bfloat16)
    naive_sum, count = plain_loop(low, tokenizer(docs[0].text).input_ids, 64, 16)
    (ours,) = perplexity(low, tokenizer=tokenizer, data=docs, stride=16)
    naive = math.exp(naive_sum / count)
    # 1e-3 relative: bfloat16 has 8 bits, and the mean of 200 tokens leaves a good deal less than 2^-8 of it.
    assert abs(ours.perplexity / truth.perplexity - 1) <= abs(naive / truth.perplexity - 1) + 1e-3


def test_the_interval_holds_the_figure_and_one_document_has_none():
    (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(*range(100, 200, 10)), stride=32)
    assert row.low < row.perplexity < row.high
    (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=documents(100), stride=32)
    assert math.isnan(row.low) and math.isnan(row.high)


def test_files_are_read_by_their_paths(tmp_path):
    path = tiny_directory(tmp_path / "m")
    (tmp_path / "a.txt").write_text(prose(60))
    (row,) = perplexity(path, data=[tmp_path / "a.txt"], stride=32)
    assert row.documents == 1 and row.data.endswith("a.txt")


def test_several_models_are_measured_on_documents_that_are_tokenised_once(tmp_path, monkeypatch):
    """As a suite does it; another choice, or a file that was written again, is read again."""
    path = tmp_path / "rows.jsonl"

    def write(seed):
        rows = [json.dumps({"text": prose(900, seed + at)[:n]}) for at, n in enumerate((30, 60, 70, 80, 20, 90))]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")

    batches = []
    usual = encode_all
    monkeypatch.setattr(
        select,
        "encode_all",
        lambda tokenizer, texts, **more: batches.append(len(texts)) or usual(tokenizer, texts, **more),
    )

    def measured(**choice):
        batches.clear()
        (row,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=[path], windows=[40], stride=20, **choice)
        return row

    write(seed=0)
    first = measured()
    assert batches == [1, 2, 3] and (first.documents, first.skipped) == (4, 2)  # ever more at a time
    assert dataclasses.replace(measured(), seconds=first.seconds) == first and not batches
    assert measured(limit=2).documents == 2 and batches == [1, 2]  # no more is read than is asked for
    assert measured(max_tokens=50).tokens == 4 * 49 and batches
    measured()
    monkeypatch.chdir(tmp_path)
    (renamed,) = perplexity(tiny(), tokenizer=byte_tokenizer(), data=["rows.jsonl"], windows=[40], stride=20)
    assert [one["name"] for one in renamed.per_document][0].startswith("rows.jsonl")  # not as it was named before
    write(seed=1)
    assert measured().perplexity != first.perplexity and batches


def test_what_was_found_of_a_models_head_does_not_keep_the_model():
    model = tiny()
    assert likelihood.head_is_linear(model) and likelihood.head_is_linear(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_a_window_whose_scores_no_memory_holds_is_refused_where_attention_makes_them_whole():
    model = tiny("llama", window=64)
    likelihood.check_window(model, 10**6)
    model.set_attn_implementation("eager")
    with pytest.raises(UserError, match="a window of 1000000 tokens takes .* GiB here and more"):
        likelihood.check_window(model, 10**6)
