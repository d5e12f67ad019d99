"""RULER's items: exactly as long as said, whole, with answers that follow from their text; written to files."""

import itertools
import json
import random
import re
import shutil
from collections import Counter, deque

import pytest
from safetensors.torch import load_file, save_file

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.errors import UserError
from ropewalk.evals.long_context import measure, needles, write_items
from ropewalk.evals.long_context.source import Source
from ropewalk.evals.long_context.tasks import TASKS
from ropewalk.model.load import load_tokenizer
from ropewalk.settings.measure import RulerSettings
from ropewalk.testing import byte_tokenizer, tiny
from ruler_items import FACTS, written


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
