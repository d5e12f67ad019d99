"""Long-context tasks: exact lengths, answers that follow from the text, RULER's scores as lm-eval gives them, and how long a context is used."""

import dataclasses
import importlib.metadata
import itertools
import json
import random
import re
import shutil
from collections import Counter, deque
from types import SimpleNamespace

import nltk
import pytest
import torch
from safetensors.torch import load_file, save_file

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.encode import encode
from ropewalk.errors import UserError
from ropewalk.evals.loaded import open_model
from ropewalk.evals.long_context import greedy, measure, needles, scoring, write_items
from ropewalk.evals.long_context.items import Item, TooSmall
from ropewalk.evals.long_context.respond import respond
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS, THIRTEEN
from ropewalk.model.load import load_tokenizer
from ropewalk.settings.measure import LongTaskName, RulerSettings
from ropewalk.testing import byte_tokenizer, tiny

FACTS = [("Anna", "The letter was written by Anna."), ("Oslo", "The museum is in Oslo."), ("red", "The gate is red.")]


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """What a user may give: documents, questions, a needle."""
    folder = tmp_path_factory.mktemp("given")
    essay = " ".join(f"On day {day} nothing of note was seen by the keeper of light {day % 7}." for day in range(200))
    (folder / "essay.txt").write_text(essay)
    single = [{"question": f"Fact {n}?", "answer": answer, "context": text} for n, (answer, text) in enumerate(FACTS)]
    several = {"question": "Whose gate?", "answer": ["Anna", "Ann"], "context": ["Anna has a gate.", "It is hers."]}
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*single, several]))
    needle = {"needle": "The captain keeps a green parrot.", "question": "What does he keep?", "answer": "green parrot"}
    (folder / "needle.jsonl").write_text(json.dumps(needle) + "\n")
    return {
        "data": folder / "essay.txt",
        "questions": folder / "questions.jsonl",
        "needle": folder / "needle.jsonl",
    }


@pytest.fixture(scope="module")
def source(given):
    return Source(load_tokenizer("hemp"), 8192, **given)


def solve(task, said):
    """Oracle: read the prompt as a person would, and answer it."""
    if task.startswith("niah"):
        keys = re.split(r", and |, ", re.search(r"for ([^?]*) mentioned in", said.rpartition("What ")[2])[1])
        return [value for key in keys for value in re.findall(rf"for {re.escape(key)} is: ([\w-]+)\.", said)]
    if task == "vt":
        value = re.search(r"assigned the value (\d+) in", said.rpartition("Question:")[2])[1]
        known: dict[str, str] = {}
        for new, old in re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", said):
            known[new] = known.get(old, old)
        return [name for name, given in known.items() if given == value]
    if task == "cwe":
        words = re.findall(r"\d+\. (.+?)(?= \d+\. |$)", said.rpartition("most often.\n")[2].partition("\nQuestion")[0])
        return [word for word, _ in Counter(words).most_common(10)]
    if task == "fwe":
        words = said.partition("coded words. ")[2].partition("\nQuestion")[0].split(" ")
        return [word for word, _ in Counter(word for word in words if set(word) != {"."}).most_common(3)]
    if task.startswith("qa"):
        number = re.search(r"Question: Fact (\d)\?", said)
        text, answer = (FACTS[int(number[1])][1], [FACTS[int(number[1])][0]]) if number else ("hers.", ["Anna", "Ann"])
        return answer if re.search(rf"Document \d+:\n{re.escape(text)}|{text}", said) else []
    if task == "key_value":
        key = re.search(r'Key: "(.+?)"', said)[1]
        head, _, rest = said.partition("JSON data:\n")
        assert re.fullmatch(r"( [ .]*\n|\n)?", rest[: rest.index("{")])
        return [json.loads(rest[rest.index("{") : rest.rindex("}") + 1])[key]]
    if task.startswith("mrcr"):
        code, place, what = re.search(
            r"Prepend (\w+) to the (\d)\w\w \(1 indexed\) (\w+ about the \w+)\.", said
        ).groups()
        return [code, re.findall(rf"User: Write a {what}\.\nAssistant: (.*)\n", said)[int(place) - 1]]
    if task.startswith("graphwalks"):
        edges = re.findall(r"(\w{10}) -> (\w{10})\n", said)
        if parents := re.search(r"parents of node (\w{10})\.", said):
            return [begin for begin, end in edges if end == parents[1]]
        start, depth = re.search(r"from node (\w{10}) with depth (\d)\.\nFinal", said).groups()
        distance, queue = {start: 0}, deque([start])
        while queue:
            node = queue.popleft()
            for begin, end in edges:
                if begin == node and end not in distance:
                    distance[end] = distance[node] + 1
                    queue.append(end)
        return [node for node, steps in distance.items() if steps == int(depth)]
    assert "The captain keeps a green parrot." in said
    return ["green parrot"]


def check(source, task, window, number):
    item = measure.item(source, task, window, 7, number)
    assert len(item.ids) + item.room == window
    said = source.tokenizer.decode(item.ids, skip_special_tokens=True)
    assert sorted(solve(task, said)) == sorted(item.answers)
    # Tokenized as a whole it is the same text but for the place where it was cut.
    assert abs(len(source.head(said)) - len(item.ids)) <= 2
    return said


@pytest.mark.parametrize("task", TASKS)
def test_items_are_exactly_as_long_as_said_and_their_answers_follow_from_their_text(source, task):
    window = 4096 if task != "cwe" else 6000  # hemp has few tokens, and RULER's list of 330 words many of them
    assert check(source, task, window, 0) != check(source, task, window + 1, 1)


_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
_DOCUMENTS = "|".join(["Anna has a gate.", "It is hers.", *(text for _, text in FACTS)]).replace(".", r"\.")
#: What stands before a list, a whole entry of it, and what stands after it.
LISTS = {
    "niah_multikey_2": ("afterwards.\n", r"One of the special magic numbers for [^:]+ is: \d{7}\.\n", "\nWhat is"),
    "niah_multikey_3": ("afterwards.\n", rf"One of the special magic uuids for {_UUID} is: {_UUID}\.\n", "\nWhat is"),
    "cwe": ("most often.\n", r" \d+\. (\S+?|[\w -]+)(?= \d+\. |$)", "\nQuestion"),
    "qa_1": ("given documents.\n\n", rf"Document \d+:\n({_DOCUMENTS})\n\n", "Answer the"),
    "qa_2": ("given documents.\n\n", rf"Document \d+:\n({_DOCUMENTS})\n\n", "Answer the"),
    "key_value": ("JSON data:\n", rf'({{\n)?"{_UUID}": "{_UUID}"(,|(?=\n$))\n', "}\n"),
    "mrcr_4": ("asked for again.\n\n", r"User: Write a \w+ about the \w+\.\nAssistant: [^\n]+[.!?]\n", "\n\nUser: Prepend"),
    "graphwalks_bfs": ("Here is the graph to operate on. The graph has the following edges:\n", r"\w{10} -> \w{10}\n", "\nOp"),
    "graphwalks_parents": ("to operate on. The graph has the following edges:\n", r"\w{10} -> \w{10}\n", "\nOp"),
}  # fmt: skip


@pytest.mark.parametrize("letters", [False, True], ids=["hemp", "a token a letter"])
@pytest.mark.parametrize("task", LISTS)
def test_every_entry_of_a_list_is_whole_whatever_the_length(source, task, letters):
    source = Source(byte_tokenizer(16384), 16384, questions=source.questions) if letters else source
    before, entry, after = LISTS[task]
    for number, window in enumerate(range(12000, 12060, 7)):
        item = measure.item(source, task, window, 7, number)
        assert len(item.ids) + item.room == window
        said = source.tokenizer.decode(item.ids, skip_special_tokens=True)
        listed = said.rpartition(before)[2].rpartition(after)[0]
        assert re.fullmatch(rf"( [ .]*\n|\n)?({entry})+", listed), listed[:200] + listed[-200:]


@pytest.mark.parametrize("task", ["niah_multivalue", "needle"])
def test_what_stands_first_among_documents_has_no_blank_before_it_and_one_behind(source, task, monkeypatch):
    monkeypatch.setattr(needles, "_DEPTHS", [0.0, 0.25, 0.5, 1.0])
    monkeypatch.setattr(random.Random, "random", lambda self: 0.0)
    first = {"niah_multivalue": "One of the special magic", "needle": "The captain keeps"}[task]
    for window in range(1000, 1010):
        said = check(source, task, window, 0)
        text = re.split(r"afterwards\.\n|after it\.\n\n", said)[1]
        assert text.startswith(first) and re.search(r"\. On day 0 nothing", text) and not re.search(r"\.\w", text)


def test_the_pair_that_is_asked_for_stands_first_and_last_too(source):
    places = set()
    for number in range(60):
        said = check(source, "key_value", 600, number)
        keys = re.findall(r'^"(.{36})": ', said, re.MULTILINE)
        places.add((len(keys), keys.index(re.search(r'Key: "(.+?)"', said)[1])))
    assert all({place for count, place in places if count == each} == {*range(each)} for each, _ in places), places


def test_made_up_answers_are_sentences_and_all_different(source):
    """One in ten began in lower case ("slowly we go inside the empty box, and back."), and one answer said a thing twice."""
    said = check(source, "mrcr_8", 8192, 0)
    answers = re.findall(r"^Assistant: (.+)$", said, re.MULTILINE)
    sentences = [each for answer in answers for each in re.split(r"(?<=[.!?]) ", answer)]
    assert len(answers) > 100 and all(re.fullmatch(r"[A-Z][a-zA-Z ,]+[.?]", each) for each in sentences)
    assert not re.search(r"\b[Aa]n? ", " ".join(sentences))  # which would have to agree with milk, and with apples
    assert all(len(set(re.split(r"(?<=[.!?]) ", answer))) >= 3 for answer in answers)


def test_an_item_of_a_million_tokens_is_made_and_answered(source):
    check(source, "fwe", 2**20, 0)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_items_of_every_task_reach_a_million_tokens(given, task):
    check(Source(load_tokenizer("hemp"), 2**20, **given), task, 2**20, 0)


def written(folder, **fields):
    """The rows of hemp's items on disk."""
    count = write_items(RulerSettings("hemp", **fields), folder)
    rows = [json.loads(line) for path in folder.glob("*.jsonl") for line in path.read_text().splitlines()]
    assert len(rows) == count
    return rows


def test_items_are_written_that_are_measured_and_solved_by_their_text_and_no_model_is_loaded(
    source, given, tmp_path, monkeypatch
):
    monkeypatch.setattr("ropewalk.model.load.load_model", None)
    rows = written(tmp_path / "items", **given, windows=[6000], items=2, tasks=list(TASKS))
    assert {(row["task"], row["number"]) for row in rows} == {*itertools.product(TASKS, range(2))}
    for row in rows:
        assert sorted(solve(row["task"], row["prompt"])) == sorted(row["answers"])
        assert row["tokens"] + row["room"] == row["window"] == 6000 and row["rule"] == TASKS[row["task"]].rule
        # As a whole it is as many tokens, but for the place where it was cut.
        assert (
            row["tokens_of_text"] == len(source.head(row["prompt"])) and abs(row["tokens_of_text"] - row["tokens"]) <= 2
        )
        item = measure.item(Source(source.tokenizer, 6000, **given), row["task"], 6000, 0, row["number"])
        assert source.tokenizer.decode(item.ids, skip_special_tokens=True) == row["prompt"]


def test_of_items_that_do_not_fit_none_is_written_and_no_directory_is_replaced(tmp_path, caplog):
    with caplog.at_level("INFO", logger="ropewalk"):
        rows = written(tmp_path / "items", windows=[300, 4096], items=1, tasks=["vt"])
    assert [row["window"] for row in rows] == [4096] and "left out: vt at 300 tokens" in caplog.text
    assert not (tmp_path / "items" / "vt-300.jsonl").exists()
    with pytest.raises(UserError, match="items exists; name another one"):
        written(tmp_path / "items", windows=[4096])
    with pytest.raises(UserError, match=r"vt \d+, and the longest of --windows is 300"):
        written(tmp_path / "none", windows=[300], tasks=["vt"])
    assert not (tmp_path / "none").exists()
    with pytest.raises(UserError, match="a model that is named, got an object"):
        write_items(RulerSettings(tiny(window=64), tokenizer=byte_tokenizer()), tmp_path / "none")


@pytest.mark.parametrize("weights", [True, False], ids=["weights", "config alone"])
def test_no_item_is_written_that_the_model_has_no_embedding_for(weights, tmp_path):
    """As measuring refuses it; by the config where the weights are not here, and of a tokenizer of the user's own."""
    model = saved_hemp(tmp_path / "model", vocab_size=100, weights=weights)
    fields = dict(windows=[1024], items=1, tasks=["niah_single_1"])
    for tokenizer in (None, load_tokenizer("hemp")):
        with pytest.raises(UserError, match=r"has token \d+ .*embedding has 100 rows"):
            write_items(RulerSettings(model, tokenizer=tokenizer, **fields), tmp_path / "items")
    assert not (tmp_path / "items").exists()


def saved_hemp(place, vocab_size, weights):
    """hemp with fewer rows in its embedding than its tokenizer has tokens."""
    shutil.copytree(Checkpoint.open("hemp").path, place)
    config = json.loads((place / "config.json").read_text(encoding="utf-8"))
    (place / "config.json").write_text(json.dumps(config | {"vocab_size": vocab_size}), encoding="utf-8")
    stored = load_file(place / "model.safetensors")
    (place / "model.safetensors").unlink()
    if weights:
        rows = {
            name: value[:vocab_size] if len(value) == config["vocab_size"] else value for name, value in stored.items()
        }
        save_file(rows, place / "model.safetensors")
    return place


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


@pytest.fixture
def answered(monkeypatch):
    """`respond` answers as told; what it was asked is counted."""
    asked = []

    def respond(loaded, items, *, batch_tokens, settled, done):
        for place, each in enumerate(items):
            asked.append(each)
            done(place, f" {' '.join(each.answers)}")
        return []

    monkeypatch.setattr(measure, "respond", respond)
    return asked


def ruler(out=None, **changes):
    fields = dict(windows=[1000, 1300], tasks=["niah_single_1", "vt"], items=3) | changes
    return measure.ruler(tiny(window=2000), tokenizer=byte_tokenizer(), out=out, **fields)


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


def test_what_cannot_be_made_is_named(answered, given):
    _, summary = ruler(windows=[3000], tasks=["niah_single_1", "niah_single_2", "qa_1"], items=1)
    assert set(summary.left_out) == {"niah_single_2", "qa_1"} and "--questions" in summary.left_out["qa_1"]
    with pytest.raises(UserError, match="no task can be made of what was given: qa_2: .*--questions"):
        ruler(tasks=["qa_2"])
    with pytest.raises(UserError, match=r"niah_single_1 \d+, vt \d+, and the longest of --windows is 100;"):
        ruler(windows=[100])
    assert len(answered) == 1


@pytest.mark.parametrize(
    ("line", "sentence"),
    [('{"question": "Who?"}', "no answer"), ('{"question": "Who?", "answer": [], "context": "x"}', "answer is a text")],
)
def test_questions_that_are_none_are_refused_by_their_line(tmp_path, line, sentence):
    (tmp_path / "q.jsonl").write_text(line + "\n")
    with pytest.raises(UserError, match=f"line 1 of .*{sentence}|{sentence}.*"):
        _ = Source(byte_tokenizer(), 4096, questions=tmp_path / "q.jsonl").asked


def test_the_published_files_of_questions_are_read(tmp_path):
    squad = {"data": [{"paragraphs": [{"context": "C", "qas": [
        {"question": "Q?", "is_impossible": False, "answers": [{"text": "A"}, {"text": "B"}]},
        {"question": "N?", "is_impossible": True, "answers": []}]}]}]}  # fmt: skip
    hotpot = [{"question": "H?", "answer": "yes", "context": [["T", ["a. ", "b."]], ["U", ["c."]]]}]
    for name, whole in (("dev-v2.0.json", squad), ("hotpot.json", hotpot)):
        (tmp_path / name).write_text(json.dumps(whole))
    asked = Source(byte_tokenizer(), 4096, questions=[tmp_path / "dev-v2.0.json", tmp_path / "hotpot.json"]).asked
    assert [(each.question, each.answers, each.documents) for each in asked] == [
        ("Q?", ("A", "B"), ("C",)),
        ("H?", ("yes",), ("T\na. b.", "U\nc.")),
    ]


@pytest.mark.parametrize("end", ["\r", "\r\n"])
def test_line_ends_of_another_system_are_those_of_documents(tmp_path, end):
    text, name = f"One.{end}Two.", "q.jsonl"
    (tmp_path / name).write_text(json.dumps({"question": text, "answer": text, "context": [text]}))
    (tmp_path / "n.jsonl").write_text(json.dumps({"needle": text, "question": text, "answer": [text]}))
    qas = [{"question": text, "is_impossible": False, "answers": [{"text": text}]}]
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": text, "qas": qas}]}]}))
    row = {"question": text, "answer": text, "context": [["T", [f"One.{end}", "Two."]]]}
    (tmp_path / "hotpot.json").write_text(json.dumps([row]))
    files = [tmp_path / each for each in (name, "squad.json", "hotpot.json")]
    source = Source(byte_tokenizer(), 4096, questions=files, needle=tmp_path / "n.jsonl")
    unix = "One.\nTwo."
    assert [vars(asked) for asked in source.asked] == [
        {"question": unix, "answers": (unix,), "documents": (context,)} for context in (unix, unix, f"T\n{unix}")
    ]
    assert [vars(needle) for needle in source.needles] == [{"needle": unix, "question": unix, "answers": (unix,)}]


@pytest.mark.parametrize(
    ("needle", "answer", "why"),
    [
        ("The keeper of light 3 has\na lamp.", "Keeper of  light 3", "is in the documents too"),
        ("The keeper of light 3 has a lamp.", "a lamp", ""),
    ],
)
def test_a_needle_whose_answer_the_documents_have_is_warned_of(given, tmp_path, caplog, needle, answer, why):
    (tmp_path / "n.jsonl").write_text(json.dumps({"needle": needle, "question": "What?", "answer": answer}))
    source = Source(load_tokenizer("hemp"), 4096, data=given["data"], needle=tmp_path / "n.jsonl")
    assert len(source.needles) == 1
    assert [message for message in caplog.messages if "take one that is in the needle alone" in message] == [
        message for message in caplog.messages if why and why in message
    ]
    assert bool(caplog.messages) == bool(why)


def test_an_answer_that_is_not_in_its_needle_is_refused_before_any_item_unless_the_line_says_so(
    given, tmp_path, monkeypatch
):
    line = {"needle": "The key is 5.", "question": "Which key?", "answer": ["5", "odd"]}
    file = tmp_path / "n.jsonl"
    file.write_text(json.dumps(line))
    source = Source(load_tokenizer("hemp"), 4096, data=given["data"], needle=file)
    with monkeypatch.context() as patched, pytest.raises(UserError) as refused:
        patched.setattr(measure, "item", None)
        ruler(windows=[3000], tasks=["niah_single_1", "needle"], data=given["data"], needle=file)
    for part in (f"in {file} 'odd' (asked by 'Which key?') is not in 'The key is 5.'", 'add "inferred": true'):
        assert part in str(refused.value)
    file.write_text(json.dumps(line | {"inferred": True}))
    assert source.needles[0].answers == ("5", "odd")
    file.write_text(json.dumps(line | {"inferred": "yes"}))
    with pytest.raises(UserError, match="line 1 of .* inferred is one of true, false"):
        assert Source(source.tokenizer, 4096, needle=file).needles
