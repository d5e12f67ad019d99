"""Summaries: prompts and labels, drawing, ROUGE, records, and what users get wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from rouge_score import rouge_scorer

from ropewalk import records, testing
from ropewalk.cli.tables.downstream import show_summaries
from ropewalk.errors import UserError
from ropewalk.evals.downstream import generation, summary
from ropewalk.evals.downstream.finetune import finetune
from ropewalk.evals.downstream.generation import write
from ropewalk.evals.downstream.pairs import HEAD, TAIL, Pair, PairRows, Sizes, document_length, first, pairs, prompt_ids
from ropewalk.settings.downstream import Decoding

SHARED = Path(__file__).resolve().parents[3] / "shared"
WINDOW = 512
GREEDY = Decoding(temperature=0.0)


@pytest.fixture(scope="module")
def model():
    return testing.tiny("llama", window=WINDOW, seed=2)


def _pairs(count: int = 4) -> list[Pair]:
    return [Pair(f"d{i}", testing.prose(20 + 10 * i, i), testing.prose(6, 100 + i)) for i in range(count)]


def _file(path: Path, count: int = 4) -> Path:
    rows = [{"document": pair.document, "summary": pair.summary, "source": "made up"} for pair in _pairs(count)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Prompts and sizes


def test_the_prompt_is_the_papers_wording_around_the_document():
    tokenizer, document = testing.byte_tokenizer(WINDOW), "One. Two."
    ids = prompt_ids(tokenizer, document, 100)
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(ids[1:]) == (
        "Read the following article and then summarize it.\nOne. Two.\nNow summarize the above article.\nSummary:\n"
    )
    assert tokenizer.decode(prompt_ids(tokenizer, document, 4)[1:]) == HEAD + "One." + TAIL


def test_the_papers_sizes_hold_where_they_fit_and_shrink_where_not():
    tokenizer = testing.byte_tokenizer()
    assert Sizes.fitting(tokenizer, 16384) == Sizes(16384, 15000, 1000)
    small = Sizes.fitting(tokenizer, 1024)
    assert small.summary == 1024 * 1000 // 16384
    words = len(HEAD) + len(TAIL) + 2  # a byte a token, BOS and the end of the summary
    assert small.document == 1024 - small.summary - words
    for wrong in (dict(document=1000), dict(summary=0), dict(document=900, summary=100)):
        with pytest.raises(UserError, match="a window of 1024 tokens must hold"):
            Sizes.fitting(tokenizer, 1024, **wrong)


def test_the_loss_is_on_the_summary_alone():
    """Labels are the next token's wherever they count, and they count exactly on summary and end mark."""
    tokenizer, sizes = testing.byte_tokenizer(), Sizes(400, 100, 20)
    rows = PairRows(_pairs(3), tokenizer, sizes, end=257)
    tensors = rows.rows([0, 2])
    for row, pair in zip(range(2), (_pairs(3)[0], _pairs(3)[2]), strict=True):
        ids, labels = tensors["input_ids"][row], tensors["labels"][row]
        counted = np.flatnonzero(labels != -100)
        assert tokenizer.decode(labels[counted][:-1]) == pair.summary[:20]
        assert labels[counted][-1] == 257
        assert (ids[counted[1:]] == labels[counted[:-1]]).all(), "a label is the token that follows"
        prompt = ids[: counted[0] + 1]
        assert tokenizer.decode(prompt[1:]).endswith("Summary:\n")
        assert (prompt == prompt_ids(tokenizer, pair.document, 100)).all(), "trained on what is later asked"
        assert (tensors["position_ids"][row] == np.arange(400)).all()
    assert document_length(tokenizer, Pair("s", "short", "s")) == len("short")


def test_a_masked_loss_is_that_of_the_summary_in_plain_transformers(model):
    """The rows' loss against transformers' own, which shifts labels itself."""
    tokenizer, sizes = testing.byte_tokenizer(), Sizes(400, 100, 20)
    rows = PairRows(_pairs(1), tokenizer, sizes, end=257)
    tensors = {name: torch.from_numpy(value) for name, value in rows.rows([0]).items()}
    logits = model(tensors["input_ids"], position_ids=tensors["position_ids"]).logits
    ours = torch.nn.functional.cross_entropy(logits[0], tensors["labels"][0])
    prompt, target = (torch.from_numpy(part).long() for part in rows.examples[0])
    whole = torch.cat([prompt, target])[None]
    labels = torch.cat([torch.full_like(prompt, -100), target])[None]
    torch.testing.assert_close(ours, model(whole, labels=labels).loss)


# Writing


def test_a_text_does_not_depend_on_who_shared_its_batch(model):
    draw = np.random.default_rng(0)
    prompts = [draw.integers(0, 256, size) for size in (5, 40, 17, 23)]
    for decoding in (GREEDY, Decoding(0.5, 0.95, seed=3)):
        settings = dict(new_tokens=12, decoding=decoding, ends=[257])
        together = write(model, prompts, batch=4, **settings)
        alone = write(model, prompts, batch=1, **settings)
        assert [one.ids.tolist() for one in together] == [one.ids.tolist() for one in alone]


def test_greedy_is_the_argmax_of_a_plain_forward(model):
    prompt = np.arange(40, 60)
    written = write(model, [prompt], new_tokens=8, decoding=GREEDY, ends=[])[0]
    ids = torch.from_numpy(prompt)[None]
    with torch.no_grad():
        for token in written.ids:
            assert model(ids).logits[0, -1].argmax() == token
            ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    assert not written.finished and len(written.ids) == 8


def test_draws_fall_as_often_as_temperature_and_top_p_say():
    """The first token of many draws against the shares computed by hand."""
    logits = torch.tensor([2.0, 1.0, 0.0, -3.0])
    shares = (logits / 0.5).softmax(0)
    kept = shares * (shares.cumsum(0) - shares < 0.95)  # sorted already: kept while the ones before have less than 0.95
    expected = (kept / kept.sum()).numpy()

    warped = generation.TemperatureLogitsWarper(0.5)(None, logits[None])
    warped = generation.TopPLogitsWarper(0.95)(None, warped)
    generators = [generation._generator(0, key) for key in range(4000)]
    drawn = (
        generation.Draw(generators)(torch.zeros(4000, 1, dtype=torch.long), warped.expand(4000, 4))
        .argmax(dim=1)
        .numpy()
    )
    drawn_shares = np.bincount(drawn, minlength=4) / 4000
    # Standard error of a share over 4000 draws: at most 0.008; 4 of them.
    assert drawn_shares == pytest.approx(expected, abs=0.032)
    assert expected[3] == drawn_shares[3] == 0


def test_another_seed_writes_another_text(model):
    prompts = [np.arange(30, 60)]
    settings = dict(new_tokens=16, ends=[])
    texts = [write(model, prompts, decoding=Decoding(1.0, 1.0, seed), **settings)[0].ids.tolist() for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]


def test_at_a_temperature_that_float32_hardly_holds_the_likeliest_is_drawn(model):
    prompts, settings = [np.arange(30, 60)], dict(new_tokens=4, ends=[])
    cold, greedy = (write(model, prompts, decoding=how, **settings)[0] for how in (Decoding(1e-40), GREEDY))
    assert cold.ids.tolist() == greedy.ids.tolist()


def test_a_text_ends_at_the_end_mark(model):
    prompt = np.arange(40, 60)
    free = write(model, [prompt], new_tokens=8, decoding=GREEDY, ends=[])[0].ids.tolist()
    mark = free[3]
    stopped = write(model, [prompt], new_tokens=8, decoding=GREEDY, ends=[mark])[0]
    assert stopped.finished and stopped.ids.tolist() == free[: free.index(mark)]


def test_a_checkpoints_own_generation_settings_do_not_mix_in(model):
    prompt, settings = [np.arange(40, 60)], dict(new_tokens=8, decoding=GREEDY, ends=[])
    plain = write(model, prompt, **settings)[0].ids.tolist()
    before = model.generation_config
    model.generation_config = type(before)(repetition_penalty=50.0, do_sample=True, temperature=3.0, max_length=21)
    try:
        assert write(model, prompt, **settings)[0].ids.tolist() == plain
        assert model.generation_config.repetition_penalty == 50.0
    finally:
        model.generation_config = before


# Scores and records


def test_rouge_is_rouge_scores_with_the_stemmer():
    written, reference = "The ships were sailing.\nRopes are long.", "Ropes are longer.\nA ship sails."
    scores = summary.rouge(written, reference)
    theirs = rouge_scorer.RougeScorer(["rouge1", "rougeL", "rougeLsum"], use_stemmer=True).score(reference, written)
    assert scores["rouge_1"] == theirs["rouge1"].fmeasure
    assert scores["rouge_l"] == theirs["rougeLsum"].fmeasure > scores["rouge_l_plain"] == theirs["rougeL"].fmeasure
    # By hand: ship(s), sail(ing), rope(s), are match, of 7 and 6 words; without the stemmer only ropes and are would.
    words = dict(match=4, written=7, reference=6)
    assert scores["rouge_1"] == pytest.approx(2 * words["match"] / (words["written"] + words["reference"]))


def test_summaries_end_in_records_and_are_not_written_twice(model, tmp_path, monkeypatch):
    data, out = _file(tmp_path / "pairs.jsonl"), tmp_path / "records.jsonl"
    settings = dict(tokenizer=testing.byte_tokenizer(WINDOW), summary_tokens=12, batch=2, out=out)
    rows = summary.summarize(model, data=data, limit=3, **settings)
    read = records.read([out])
    kinds = [m.row.kind for m in read.measurements]
    assert kinds == (["document_summary"] * 3 + ["summary"]) * 2
    assert [row.decoding for row in rows] == ["sampled", "greedy"]
    for row in rows:
        of_it = [m.row for m in read.of(records.DocumentSummary) if m.row.decoding == row.decoding]
        assert row.rouge_1 == pytest.approx(np.mean([r.rouge_1 for r in of_it]))
        assert row.documents == 3 and row.unfinished == 3 and row.generated_tokens == 36
        lengths = [each["document_tokens"] for each in row.per_document]  # bytes, whatever is shown of them
        assert lengths == [len(pair.document.encode()) for pair in _pairs(3)]
        assert row.cut == sum(length > row.document_tokens for length in lengths)
        low, high = row.intervals["rouge_1"]
        assert low <= row.rouge_1 <= high
    assert rows[0].temperature == 0.5 and rows[0].top_p == 0.95 and rows[1].temperature is None

    asked = []
    written = summary.write
    monkeypatch.setattr(
        summary, "write", lambda m, prompts, **k: asked.append(len(prompts)) or written(m, prompts, **k)
    )
    assert summary.summarize(model, data=data, limit=3, **settings) == rows
    assert len(records.read([out]).measurements) == len(read.measurements), "a finished run, repeated, adds nothing"
    more = summary.summarize(model, data=data, limit=4, **settings)
    assert asked == [0, 0, 1, 1] and more[0].documents == 4


def test_pairs_name_what_is_wrong(tmp_path):
    path = tmp_path / "pairs.jsonl"
    with pytest.raises(UserError, match="does not exist"):
        list(pairs(path))
    path.write_text('{"document": "a"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1 of .*no summary"):
        list(pairs(path))
    path.write_text('{"document": "a", "summary": " "}\n', encoding="utf-8")
    with pytest.raises(UserError, match="summary is a text that is not empty"):
        list(pairs(path))
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="has no pairs"):
        first(path, None)
    with pytest.raises(UserError, match="is a directory"):
        list(pairs(tmp_path))


def test_mistakes_in_settings_are_said(model, tmp_path):
    data, tokenizer = _file(tmp_path / "pairs.jsonl"), testing.byte_tokenizer(WINDOW)
    for settings, message in (
        (dict(window=WINDOW + 1), f"at most the model's own {WINDOW}"),
        (dict(summary_tokens=WINDOW), "must hold a document"),
        (dict(limit=0), "limit is a whole number of at least 1"),
        (dict(trained=tmp_path / "tuned"), "needs pairs to train on; give --train"),
    ):
        with pytest.raises(UserError, match=message):
            summary.summarize(model, data=data, tokenizer=tokenizer, **settings)
    for wrong in (dict(temperature=-1.0), dict(top_p=0.0), dict(top_p=1.5)):
        with pytest.raises(UserError):
            Decoding(**wrong)


@pytest.mark.parametrize("decoding", [GREEDY, Decoding(0.5, 0.95)], ids=["greedy", "drawn"])
def test_nan_logits_name_the_document_and_no_summary_is_written(tmp_path, decoding):
    """One token alone is broken, and it stands in one document alone: `generate` would go on with some token."""
    model, tokenizer, out = testing.tiny("llama", window=WINDOW, seed=2), testing.byte_tokenizer(WINDOW), tmp_path / "r"
    rows = [{"document": text, "summary": "s"} for text in ("a" * 60, "b" * 50 + "~" + "b" * 50, "c" * 80)]
    data = tmp_path / "made.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with torch.no_grad():
        model.get_input_embeddings().weight[tokenizer("~", add_special_tokens=False).input_ids[0]] = float("nan")
    with pytest.raises(UserError, match="NaN after made:1;"):
        summary.summarize(model, data=data, tokenizer=tokenizer, decodings=[decoding], batch=3, out=out)
    assert not out.exists()


def test_one_document_has_no_interval_on_the_terminal_either(model, tmp_path, capsys):
    tokenizer = testing.byte_tokenizer(WINDOW)
    rows = summary.summarize(
        model, data=_file(tmp_path / "p.jsonl"), tokenizer=tokenizer, decodings=[GREEDY], limit=1, summary_tokens=4
    )
    show_summaries(rows)
    assert capsys.readouterr().out.count("none") == len(summary.SCORES)


def test_a_pair_that_comes_again_is_one(tmp_path):
    rows = [{"document": document, "summary": "s"} for document in ("one", "two", "two\n")]
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.warns(UserWarning, match="are measured once: 4"):
        assert [pair.name for pair in first([tmp_path / "a.jsonl", tmp_path / "b.jsonl"], None)] == ["a:0", "a:1"]


def test_the_govreport_documents_are_read():
    path = SHARED / "data" / "pairs" / "leval_gov_report_summ.jsonl.xz"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    with pytest.warns(UserWarning, match="are measured once: 1"):  # one report is in there twice
        first_pairs = first(path, None)
    assert len(first_pairs) == 13 and all(len(pair.document) > 10_000 for pair in first_pairs)


# Fine-tuning


def test_fine_tuning_starts_at_the_loss_of_the_summaries_alone_and_lowers_it(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=256, seed=6)
    data = _file(tmp_path / "pairs.jsonl", 4)
    sizes = dict(document_tokens=100, summary_tokens=30)
    state = finetune(
        base,
        data=data,
        out=tmp_path / "tuned",
        epochs=6,
        batch_size=4,
        learning_rate=1e-2,
        warmup=0,
        **sizes,
    )
    steps = records.read([tmp_path / "tuned" / "records.jsonl"]).of(records.Step)
    assert len(steps) == state.steps == 6
    # The first step's loss by plain transformers: each pair alone, prompt masked, summed over labels, averaged once.
    model, total, count = testing.tiny("llama", window=256, seed=6), 0.0, 0
    rows = PairRows(list(pairs(data)), testing.byte_tokenizer(256), Sizes(256, 100, 30), end=257)
    for prompt, target in rows.examples:
        whole = torch.from_numpy(np.concatenate([prompt, target])).long()[None]
        labels = whole.clone()
        labels[0, : len(prompt)] = -100
        total += model(whole, labels=labels).loss.item() * len(target)
        count += len(target)
    assert steps[0].row.loss == pytest.approx(total / count, rel=1e-5)  # float32 sums of 120 terms
    assert steps[-1].row.loss < 0.8 * steps[0].row.loss
    [row] = summary.summarize(tmp_path / "tuned", data=data, decodings=[GREEDY], **sizes)
    assert row.documents == 4 and row.cut == 3  # the first is shorter than 100 tokens


def test_a_model_trained_to_its_end_is_not_trained_again(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=256, seed=6)
    train = _file(tmp_path / "train.jsonl", 5)
    data = tmp_path / "test.jsonl"
    data.write_text('{"document": "quite another text", "summary": "text"}\n', encoding="utf-8")
    settings = dict(data=data, train=train, trained=tmp_path / "tuned", epochs=2, batch_size=3, decodings=[GREEDY])
    settings |= dict(document_tokens=100, summary_tokens=20)
    first = summary.summarize(base, **settings)
    steps = records.read([tmp_path / "tuned" / "records.jsonl"]).of(records.Step)
    assert len(steps) == 4, "two passes over five pairs, three at a time"
    again = summary.summarize(base, **settings)
    assert len(records.read([tmp_path / "tuned" / "records.jsonl"]).of(records.Step)) == 4
    assert [row.rouge_1 for row in again] == [row.rouge_1 for row in first]
    assert [row.trained_on for row in again] == [f"{tmp_path.name}/train.jsonl"], (
        "a page must tell it from a checkpoint"
    )


def test_what_is_measured_is_not_trained_on(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=256)
    data = _file(tmp_path / "pairs.jsonl", 3)
    held_out = [Pair("x", _pairs(3)[1].document.replace(" ", "\n"), "another summary")]
    with pytest.raises(UserError, match="must not be trained on, but 1 document is"):
        finetune(base, data=data, out=tmp_path / "tuned", held_out=held_out)
    assert not (tmp_path / "tuned").exists()


def test_none_is_no_summary_and_a_list_is_its_lines(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"document": ["A.", "B."], "summary": ["Short .", "So it is ."]}))
    assert [(pair.document, pair.summary) for pair in pairs(path)] == [("A.\nB.", "Short .\nSo it is .")]
    for nothing in (None, [], [None], 3, {"a": "b"}, True):
        path.write_text(json.dumps({"document": "Long.", "summary": nothing}))
        with pytest.raises(UserError, match="^in line 1 of .* summary is a text that is not empty, got "):
            list(pairs(path))


def test_line_ends_of_another_system_are_read_as_one_character(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"document": "One.\r\nTwo.", "summary": "One.\rTwo."}))
    (pair,) = pairs(tmp_path / "a.jsonl")
    assert (pair.document, pair.summary) == ("One.\nTwo.", "One.\nTwo.")


@pytest.mark.parametrize(
    ("source", "name", "split"),
    [("owner/govreport-v1.2:validation", "owner/govreport-v1.2", "validation"), ("a/b", "a/b", "test")],
)
def test_a_data_set_of_the_hub_is_one_with_a_dot_in_its_name_too(monkeypatch, source, name, split):
    import datasets

    from ropewalk.data import documents

    def load(asked_name, config, *, split, streaming):
        asked.append((asked_name, config, split, streaming))
        return [{"report": "Long.", "summary": "Short."}]

    asked = []
    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.setattr(documents, "reach_hub", lambda *_: None)
    assert [(pair.document, pair.summary) for pair in pairs(source)] == [("Long.", "Short.")]
    assert asked == [(name, None, split, True)]


def test_half_a_surrogate_pair_is_read_as_a_replacement_character(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"document": "a \\ud83d b", "summary": "c"}')
    assert next(pairs(path)).document == "a \ufffd b"


def test_rouge_of_a_script_that_it_does_not_know_is_refused_and_of_a_mixed_one_warned_of():
    assert not any(summary.rouge("预算 委员会", "预算 委员会").values())  # a perfect summary
    with pytest.raises(UserError, match="of a reference none is left: '预算"):
        summary.check_script(["A budget.", "预算 委员会"])
    with pytest.warns(UserWarning, match="11% of those of the references"):
        summary.check_script(["预算委员会开会讨 5"])
    summary.check_script(["Résumé of the café's budget."])
