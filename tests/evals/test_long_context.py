"""Long-context tasks: exact lengths, answers that follow from the text, RULER's scores as lm-eval gives them, and how long a context is used."""

import dataclasses
import importlib.metadata
import itertools
from collections import Counter
from types import SimpleNamespace

import nltk
import pytest
import torch

from ropewalk import records
from ropewalk.data.encode import encode
from ropewalk.errors import UserError
from ropewalk.evals.loaded import open_model
from ropewalk.evals.long_context import greedy, measure, scoring
from ropewalk.evals.long_context.items import Item, TooSmall
from ropewalk.evals.long_context.respond import respond
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS, THIRTEEN
from ropewalk.settings.measure import LongTaskName
from ropewalk.testing import byte_tokenizer
from ruler_items import ruler


def test_what_is_measured_and_what_is_left_out_is_said_before_the_first_item(answered, caplog, monkeypatch):
    monkeypatch.setattr(measure, "item", None)  # fails if asked for
    with caplog.at_level("INFO", logger="ropewalk"), pytest.raises(TypeError):
        ruler(windows=[3000], tasks=["niah_single_1", "qa_1", "qa_2"])
    lines = [record.getMessage() for record in caplog.records]
    assert "items of niah_single_1, at 3000 tokens" in lines
    assert "left out: qa_1, qa_2: it is made of the user's questions: give --questions" in lines


def test_each_item_is_made_once(answered, monkeypatch):
    made, asked = measure.item, Counter()

    def item(source, *which):
        asked[which] += 1
        return made(source, *which)

    monkeypatch.setattr(measure, "item", item)
    ruler(windows=[3000, 3500])
    assert len(asked) == 12 and {*asked.values()} == {1}


def test_the_words_of_settings_are_the_tasks_of_the_table():
    assert list(LongTaskName.__args__) == list(TASKS) and len(THIRTEEN) == 13


@pytest.fixture(scope="module")
def hemp():
    return open_model("hemp")


def lm_eval_scores(loaded, texts, items):
    """What lm-eval's own model class generates after these prompts, scored by lm-eval's own function."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks.ruler import common_utils

    lm = HFLM(pretrained=loaded.model, tokenizer=loaded.tokenizer, max_length=2**20)
    requests = [
        Instance("generate_until", {}, (text, {"do_sample": False, "max_gen_toks": item.room, "until": []}), at)
        for at, (text, item) in enumerate(zip(texts, items, strict=True))
    ]
    docs = [{"max_length": 4096, "outputs": list(item.answers)} for item in items]
    written = lm.generate_until(requests, disable_tqdm=True)
    return [common_utils.process_results(doc, [text])["4096"] for doc, text in zip(docs, written, strict=True)]


def our_scores(loaded, items):
    return [scoring.match_all(text, item.answers) for text, item in zip(respond(loaded, items), items, strict=True)]


def _items(loaded, tasks, count, window):
    source = Source(loaded.tokenizer, window)
    return [measure.item(source, task, window, 3, number) for task in tasks for number in range(count)]


def test_scores_of_shared_items_are_those_that_lm_eval_generates_and_gives(hemp):
    """Short prompts, and the same with what hemp says for an answer; lm-eval reads the same text, generates, and scores by its own function."""
    asked = [dataclasses.replace(each, room=12) for each in _items(hemp, ["niah_single_1"], 4, 270)]
    said = [text.strip() for text in respond(hemp, asked)]
    told = [
        dataclasses.replace(each, answers=(text,), forced=f" {text}") for each, text in zip(asked, said, strict=True)
    ]
    items = [*asked, *told]
    texts = [hemp.tokenizer.decode(each.ids, skip_special_tokens=True) for each in items]
    scores = our_scores(hemp, items)
    assert scores == lm_eval_scores(hemp, texts, items) and scores[4:] == [1.0] * 4 and 0.0 in scores
    # Judging one string in one pass gives what generating does, and so does ending a response that has its score.
    assert scores == our_scores(hemp, [dataclasses.replace(each, forced="") for each in items])
    ended = respond(hemp, items, settled=TASKS["niah_single_1"].settled)
    assert scores == [scoring.match_all(text, item.answers) for text, item in zip(ended, items, strict=True)]


@pytest.mark.parametrize("fits", [3, 1, 0])
def test_where_memory_runs_out_fewer_prompts_are_held_and_the_responses_are_the_same(hemp, monkeypatch, fits):
    """A GPU that holds the keys and values of so many prompts and no more."""
    items = [dataclasses.replace(each, room=6) for each in _items(hemp, ["niah_single_1"], 5, 270)]
    expected, read, done = respond(hemp, items), greedy._read, []

    def short(model, cache, row, prompts, count):
        if cache.rows > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 86.00 MiB. GPU 0 has")
        return read(model, cache, row, prompts, count)

    monkeypatch.setattr(greedy, "_read", short)
    monkeypatch.setattr(greedy, "rows_for", lambda *given: 5)
    if fits:
        assert respond(hemp, items, done=lambda place, text: done.append(place)) == expected and sorted(done) == [
            *range(5)
        ]
    else:
        with pytest.raises(UserError, match=r"a prompt of \d+ tokens takes more memory than there is .*86.00 MiB"):
            respond(hemp, items)


def test_scores_of_lm_evals_own_items_are_lm_evals(hemp, monkeypatch):
    """The six tasks that lm-eval makes without a network, with its own words."""
    # Imported, it asks the network for words that these do without, and nltk says that there is none to a stream of an earlier test.
    monkeypatch.setattr(nltk, "download", lambda *_, **__: False)
    from lm_eval.tasks.ruler import cwe_utils, fwe_utils, prepare_niah, vt_utils
    from lm_eval.tasks.ruler.niah_utils import TEMPLATE

    length = dict(max_seq_length=1100, num_samples=1)

    def needles(hay, key, value):
        about = dict(type_haystack=hay, type_needle_k=key, type_needle_v=value, template=TEMPLATE)
        return prepare_niah.generate_samples(prepare_niah.get_haystack(hay), hemp.tokenizer, **about, **length)

    docs = [
        *needles("repeat", "words", "numbers"),
        *needles("needle", "words", "numbers"),
        *needles("needle", "uuids", "uuids"),
        *vt_utils.sys_vartrack_w_noise_random(hemp.tokenizer, add_fewshot=False, incremental=5, **length),
        *cwe_utils.sys_word_pair_random(tokenizer=hemp.tokenizer, **length | {"max_seq_length": 2000}),
        *fwe_utils.sys_kwext(hemp.tokenizer, **length),
    ]
    texts = [f"{doc['input']} {doc['gen_prefix']}" for doc in docs]
    items = [
        Item(encode(hemp.tokenizer, text), tuple(doc["outputs"]), 16) for text, doc in zip(texts, docs, strict=True)
    ]
    assert len(items) == 6
    assert our_scores(hemp, items) == lm_eval_scores(hemp, texts, items)


def test_rows_go_on_record_and_a_finished_measurement_is_not_repeated(tmp_path, answered):
    fields = dict(windows=[3000, 3500], out=tmp_path / "r.jsonl")
    rows, summary = ruler(**fields)
    assert [(row.task, row.window, row.items, row.score) for row in rows] == [
        ("niah_single_1", 3000, 3, 1.0),
        ("vt", 3000, 3, 1.0),
        ("niah_single_1", 3500, 3, 1.0),
        ("vt", 3500, 3, 1.0),
    ]
    assert all(row.extrapolation and row.rule.startswith("RULER") for row in rows) and len(answered) == 12
    again, _ = ruler(**fields)
    assert [row.scores for row in again] == [row.scores for row in rows] and len(answered) == 12
    ruler(**fields | {"items": 4})
    assert len(answered) == 16  # one more item a task and length
    recorded = records.read([tmp_path / "r.jsonl"])
    assert len(recorded.of(records.LongItem)) == 16 and len(recorded.of(records.LongTask)) == 8
    assert recorded.of(records.EffectiveLength)[0].row == summary
    assert recorded.of(records.LongTask)[0].run.versions["wonderwords"] == importlib.metadata.version("wonderwords")


def test_responses_that_are_empty_are_warned_of(monkeypatch, caplog):
    """What a chat model gives behind plain text: the score is then not of what it finds."""
    said = ["", " ", "", "The answer."]
    monkeypatch.setattr(
        measure, "respond", lambda _, items, done, **how: [done(at, said[at]) for at in range(len(items))]
    )
    ruler(windows=[700], tasks=["niah_single_1"], items=4)
    assert "niah_single_1 at 700 tokens: 3 of 4 responses are empty" in caplog.text
    caplog.clear()
    said[1] = "None."
    said[0] = "42"
    ruler(windows=[700], tasks=["niah_single_1"], items=4)
    assert "are empty" not in caplog.text


def test_a_task_that_does_not_fit_a_length_is_left_out_there_and_counts_in_no_mean(tmp_path, answered):
    fields = dict(windows=[700, 2500, 3000], tasks=["niah_single_1", "vt"], items=1)
    rows, summary = ruler(**fields, out=tmp_path / "r.jsonl")
    assert [(row.task, row.window) for row in rows] == [
        ("niah_single_1", 700),
        ("niah_single_1", 2500),
        ("vt", 2500),
        ("niah_single_1", 3000),
        ("vt", 3000),
    ]
    (cell,) = summary.unfit
    assert (cell["task"], cell["window"]) == ("vt", 700) and cell["least"] > 700 and summary.tasks == ["niah_single_1"]
    with pytest.raises(TooSmall):
        measure.item(Source(byte_tokenizer(), 3000), "vt", 700, 0, 0)
    assert [part["window"] for part in summary.by_window] == [700, 2500, 3000]
    assert summary.omissions == [
        f"vt is left out at 700 tokens: an item takes at least {cell['least']}.",
        "The means, and the lengths that follow from them, are of what was measured at every length from 700 to 3000: niah_single_1.",
    ]
    assert records.read([tmp_path / "r.jsonl"]).of(records.EffectiveLength)[0].row == summary
    # A length that nothing fits is left out; where there is no other, the command refuses.
    rows, summary = ruler(**fields | {"windows": [200, 2500]})
    assert {row.window for row in rows} == {2500} and [(each["task"], each["window"]) for each in summary.unfit] == [
        ("niah_single_1", 200),
        ("vt", 200),
    ]
    with pytest.raises(
        UserError, match=r"at least so many tokens: niah_single_1 \d+, vt \d+, and the longest of --windows is 300"
    ):
        ruler(**fields | {"windows": [200, 300]})


def test_an_item_that_does_not_fit_though_the_first_did_leaves_the_cell_out(answered, monkeypatch):
    made = measure.item

    def item(source, name, window, seed, number):
        if (name, window) == ("vt", 2500) and number == 2:
            raise TooSmall(2600, window)
        return made(source, name, window, seed, number)

    monkeypatch.setattr(measure, "item", item)
    rows, summary = ruler(windows=[2500, 3000])
    assert [(row.task, row.window) for row in rows] == [
        ("niah_single_1", 2500),
        ("niah_single_1", 3000),
        ("vt", 3000),
    ]
    assert summary.unfit == [{"task": "vt", "window": 2500, "least": 2600}] and summary.tasks == ["niah_single_1"]


def test_a_task_ends_when_its_interval_is_narrow_enough(answered):
    rows, _ = ruler(windows=[3000], tasks=["niah_single_1"], items=100, interval=20)
    # The exact interval of 8 of 8 is 63.1 to 100: half of it 18.5.
    assert rows[0].items == 8 == len(answered)
    assert ruler(windows=[3000], tasks=["niah_single_1"], items=20, interval=10.5)[0][0].items == 16  # 79.4 to 100


def test_the_same_prompt_again_is_no_further_evidence(answered, caplog, monkeypatch):
    made = measure.item
    monkeypatch.setattr(
        measure, "item", lambda source, name, window, seed, number: made(source, name, window, seed, number % 3)
    )
    with caplog.at_level("INFO", logger="ropewalk"):
        rows, _ = ruler(windows=[3000], tasks=["niah_single_1"], items=9)
    assert rows[0].items == 3 and rows[0].low == pytest.approx(0.025 ** (1 / 3))  # Clopper and Pearson's of 3 of 3
    assert "niah_single_1 at 3000 tokens: 3 of 9 prompts differ, and each counts once" in caplog.text


def test_after_a_length_it_is_told_what_the_longer_ones_will_take(answered, caplog, monkeypatch):
    clock = SimpleNamespace(perf_counter=itertools.count(0, 60).__next__)  # a minute an item
    monkeypatch.setattr(measure, "time", clock)
    with caplog.at_level("INFO", logger="ropewalk"):
        ruler(windows=[3000, 6000], tasks=["niah_single_1"], items=3)
    told = [record.getMessage() for record in caplog.records if "will take" in record.getMessage()]
    assert len(told) == 1 and told[0].startswith(
        "3000 tokens took 180 s; by their tokens 6000 will take about 6 minutes"
    )
