"""Benchmarks against plain lm-eval on the same rows, pairs, truncation, and what users get wrong."""

import dataclasses
import gc
import json
import lzma
import random
import weakref
from pathlib import Path

import datasets
import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM

from ropewalk import records, testing
from ropewalk.cli.tables.downstream import show_benchmarks
from ropewalk.data import jsonlines
from ropewalk.errors import UserError
from ropewalk.evals.downstream import benchmarks, tasks
from ropewalk.evals.downstream.choices import log_likelihoods
from ropewalk.evals.loaded import open_model
from ropewalk.evals.pairing import refuse_other_tokenizer

SHARED = Path(__file__).resolve().parents[3] / "shared"
WINDOW = 768


def _items() -> dict[str, list[dict]]:
    """Made-up items of each benchmark in the fields of the local files."""
    draw = random.Random(0)
    word = lambda n=3: testing.prose(n, draw.randrange(10**6)).rstrip(".")  # noqa: E731
    race = []
    for article in range(4):
        text = testing.prose(20, article)
        for question in range(1 + article % 3):
            asked = f"{word(4)}  _  ." if question % 2 else f"{word(4)}?"
            race.append(
                dict(article=text, question=asked, options=[word() for _ in "ABCD"], answer=draw.choice("ABCD"))
            )
    return {
        "boolq": [dict(passage=testing.prose(15, i), question=word(5), answer=i % 2 == 0) for i in range(6)],
        "piqa": [dict(goal=word(5), sol1=word(6), sol2=word(9), label=i % 2) for i in range(6)],
        "winogrande": [
            dict(sentence=f"{word(3)} _ {word(4)}.", option1=word(1), option2=word(1), answer=str(1 + i % 2))
            for i in range(6)
        ],
        "race-high": race,
        "race-middle": race[3:],  # without the first two articles
    }


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    for name, items in _items().items():
        lines = "".join(json.dumps(item) + "\n" for item in items)
        with lzma.open(folder / f"{name}.jsonl.xz", "wt", encoding="utf-8") as file:
            file.write(lines)
    return folder


@pytest.fixture(scope="module")
def loaded():
    return open_model(testing.tiny("llama", window=WINDOW, seed=3), tokenizer=testing.byte_tokenizer(WINDOW))


def _as_published(path: str, name: str | None = None, **_) -> dict:
    """What the hub would give to lm-eval for our items, in the hub's fields; grouped by hand, not by our code."""
    items = _items()
    if path == "aps/super_glue":
        rows = [{**item, "label": 1 if item["answer"] else 0, "idx": i} for i, item in enumerate(items["boolq"])]
        split = "validation"
    elif path == "EleutherAI/race":
        assert name == "high"
        grouped: dict[str, list] = {}
        for item in items["race-high"]:
            grouped.setdefault(item["article"], []).append({k: item[k] for k in ("question", "answer", "options")})
        rows = [{"article": article, "problems": str(problems)} for article, problems in grouped.items()]
        split = "test"
    else:
        rows = items[{"baber/piqa": "piqa", "allenai/winogrande": "winogrande"}[path]]
        split = "validation"
    rows = [{k: v for k, v in row.items() if k != "answer" or path == "allenai/winogrande"} for row in rows]
    dataset = datasets.Dataset.from_list(rows)
    return {split: dataset, "train": dataset}


def test_local_files_give_plain_lm_evals_numbers(data, loaded, monkeypatch):
    theirs = {"boolq": "boolq", "piqa": "piqa", "race-high": "race", "winogrande": "winogrande"}
    built = tasks.build(theirs, data)
    rows = {name: benchmarks.measure_task(loaded, built[name], window=WINDOW, batch_tokens=900) for name in theirs}
    # Plain lm-eval: its own tasks by name, its own model, its own length; only the download is replaced.
    monkeypatch.setattr(datasets, "load_dataset", _as_published)
    plain = lm_eval.simple_evaluate(
        model=HFLM(pretrained=loaded.model, tokenizer=testing.byte_tokenizer(WINDOW), batch_size=1),
        tasks=list(theirs.values()),
        bootstrap_iters=0,
    )
    for ours, name in theirs.items():
        assert rows[ours].truncated == 0
        assert rows[ours].accuracy == plain["results"][name]["acc,none"]
        samples = sorted(plain["samples"][name], key=lambda sample: sample["doc_id"])
        assert rows[ours].answers == "".join(str(int(sample["acc"])) for sample in samples)
    assert rows["piqa"].accuracy_norm == plain["results"]["piqa"]["acc_norm,none"]


@pytest.mark.parametrize("family", [*testing.FAMILIES, "qwen3_next"])
def test_answers_are_as_likely_as_when_read_whole(family):
    """Shared prompts, padded batches and cut prompts against one plain forward pass a pair."""
    model, draw = testing.tiny(family, window=512), random.Random(0)
    pairs = []
    for length in (300, 20, 150, 40):
        prompt = [draw.randrange(256) for _ in range(length)]
        pairs += [(prompt, [draw.randrange(256) for _ in range(n)]) for n in (1, 5, 1, 9)]
    for window in (512, 200):
        values = log_likelihoods(model, pairs, window=window, batch_tokens=900)
        for (prompt, answer), value in zip(pairs, values, strict=True):
            text = (prompt + answer)[-(window + 1) :]
            with torch.no_grad():
                logits = model(torch.tensor([text[:-1]])).logits[0, -len(answer) :].double()
            expected = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None]).sum().item()
            # Sums of up to nine float32 terms of size 6: a few units in the last place of 50.
            assert value == pytest.approx(expected, abs=5e-5)


def test_an_answer_longer_than_the_window_is_scored_in_pieces():
    """Each piece of half a window after what stands before it, against a loop that says just that."""
    model, draw = testing.tiny("llama", window=64), random.Random(1)
    prompt, answer = ([draw.randrange(256) for _ in range(n)] for n in (30, 45))
    values = log_likelihoods(model, [(prompt, answer), (prompt, answer[:5])], window=20, batch_tokens=64)
    expected = [0.0, 0.0]
    for which, whole in enumerate((answer, answer[:5])):
        for start in range(0, len(whole), 10):
            piece = whole[start : start + 10]
            text = (prompt + whole[:start] + piece)[-21:]
            with torch.no_grad():
                logits = model(torch.tensor([text[:-1]])).logits[0, -len(piece) :]
            expected[which] += logits.log_softmax(-1).gather(1, torch.tensor(piece)[:, None]).sum().item()
    assert values == pytest.approx(expected, abs=1e-4)  # 45 float32 terms of size 6


def test_race_middle_asks_as_race_high_does(data):
    """lm-eval has no race-middle: on the same rows its prompts must be those of its race task."""
    built = tasks.build(["race-high", "race-middle"], data)
    middle, high = built["race-middle"], built["race-high"]
    prompts = [high.doc_to_text(doc) for doc in high.eval_docs]
    assert [middle.doc_to_text(doc) for doc in middle.eval_docs] == prompts[2:] and len(prompts) == 4
    assert middle.task_name == "race-middle" and high.config.metric_list == middle.config.metric_list


def test_items_that_lose_text_are_counted(data, loaded):
    task = tasks.build(["boolq"], data)["boolq"]
    tokenizer = loaded.tokenizer
    lengths = [
        max(len(tokenizer(task.doc_to_text(doc) + " " + choice)["input_ids"]) for choice in task.doc_to_choice(doc))
        for doc in task.eval_docs
    ]
    window = sorted(lengths)[2] - 1  # the three shortest fit: the last token is predicted, never read
    row = benchmarks.measure_task(loaded, task, window=window)
    assert row.truncated == sum(length > window + 1 for length in lengths) == 3
    assert row.window == window


def test_a_model_that_was_measured_makes_room_for_the_next_at_once(data):
    """Not when Python next collects: two models of billions of weights do not fit beside each other."""
    loaded = open_model("hemp")
    held = weakref.ref(loaded.model)
    gc.collect()
    gc.disable()
    try:
        benchmarks.measure_task(loaded, tasks.build(["piqa"], data)["piqa"], window=256, limit=2)
        del loaded
        assert held() is None
    finally:
        gc.enable()


def test_a_pair_tells_lost_from_gained():
    def row(answers: str, **change):
        shape = dict(task="boolq", low=0.0, high=1.0, truncated=0, window=9, digest="d", rule="", items=len(answers))
        correct = answers.count("1")
        return records.Benchmark(**{**shape, "answers": answers, "correct": correct, "accuracy": correct / 8, **change})

    before, after = row("11110000"), row("10001000")
    pair = benchmarks.compare(before, after, names=("base", "new"))
    assert (pair.lost, pair.gained, pair.items, pair.difference) == (3, 1, 8, -0.25)
    assert pair.p_value == pytest.approx(2 * (1 + 4) / 16)  # 4 items changed; at most 1 of them one way
    assert pair.low < pair.difference < pair.high
    with pytest.raises(UserError, match="digest differs"):
        benchmarks.compare(before, row("10001000", digest="other"), names=("base", "new"))


@pytest.fixture
def pair_of_models(tmp_path):
    base = testing.tiny_directory(tmp_path / "base", window=WINDOW, seed=3)
    other = testing.tiny_directory(tmp_path / "other", window=WINDOW, seed=4)
    return base, other


def test_before_and_after_end_in_records(pair_of_models, data, tmp_path):
    base, other = pair_of_models
    out = tmp_path / "records.jsonl"
    rows = benchmarks.benchmarks(other, base=base, tasks=["piqa", "boolq"], data=data, limit=4, out=out)
    read = records.read([out])
    assert [m.row.kind for m in read.measurements] == ["benchmark"] * 4 + ["benchmark_comparison"] * 2
    assert len(read.runs) == 2 and not read.left_out.damaged
    assert {m.run.model.name for m in read.measurements[:2]} == {str(base)}
    assert rows[-1].accuracy_after - rows[-1].accuracy_before == pytest.approx(rows[-1].difference)
    # Pairs can be made again from the file alone.
    kept = [m.row for m in read.of(records.Benchmark)]
    assert benchmarks.compare(kept[0], kept[2], names=(str(base), str(other))) == rows[-2]
    assert kept[0].items == 4 and kept[0].limit == 4


def test_tables_name_the_model_and_are_whole_in_eighty_columns(pair_of_models, data, monkeypatch, capsys):
    """The widest a figure gets: 100.0 of 100.0, a loss of -100.0, thousands of items changed."""
    rows = benchmarks.benchmarks(pair_of_models[1], base=pair_of_models[0], data=data)
    widest = dict(accuracy_before=1.0, accuracy_after=0.0, difference=-0.125, low=-0.999, high=-0.101)
    widest |= dict(lost=1234, gained=1234, p_value=1.0, before="base-model", after="long-model")
    shown = [
        dataclasses.replace(row, **widest) if isinstance(row, records.BenchmarkComparison) else row for row in rows
    ]
    monkeypatch.setenv("COLUMNS", "80")
    assert "it/s" not in capsys.readouterr().err  # lm-eval's own bar
    show_benchmarks(shown)
    output = capsys.readouterr().out
    assert "…" not in output and max(map(len, output.splitlines())) <= 80
    assert output.count("1.000") == 5 and output.count("-12.5, -99.9 to -10.1") == 5
    assert (
        output.index("base-model: accuracy")
        < output.index("long-model: accuracy")
        < output.index("base-model → long-model")
    )


def test_what_is_on_record_is_not_measured_again(pair_of_models, data, tmp_path, monkeypatch):
    base, other = pair_of_models
    out = tmp_path / "records.jsonl"
    settings = dict(base=base, data=data, limit=3, out=out)
    first = benchmarks.benchmarks(other, tasks=["piqa"], **settings)
    asked = []
    measure = benchmarks.measure_task
    monkeypatch.setattr(
        benchmarks, "measure_task", lambda loaded, task, **k: asked.append(task.task_name) or measure(loaded, task, **k)
    )
    again = benchmarks.benchmarks(other, tasks=["piqa", "boolq"], **settings)
    assert asked == ["boolq", "boolq"]
    assert [row for row in again if row.task == "piqa"] == first
    kinds = [m.row.kind for m in records.read([out]).measurements]
    assert kinds.count("benchmark") == 4 and kinds.count("benchmark_comparison") == 2
    # Other weights in the same directory are another model.
    testing.tiny_directory(other, window=WINDOW, seed=5)
    benchmarks.benchmarks(other, tasks=["piqa"], **settings)
    assert asked == ["boolq", "boolq", "piqa"]


def test_another_tokenizer_is_refused_before_anything_is_measured(pair_of_models, data, tmp_path):
    base, other = pair_of_models
    tokenizer_dict = json.loads((other / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = tokenizer_dict["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer_dict), encoding="utf-8")
    out = tmp_path / "records.jsonl"
    with pytest.raises(UserError, match="share a tokenizer"):
        benchmarks.benchmarks(other, base=base, tasks=["piqa"], data=data, out=out)
    assert not out.exists()


def test_a_further_token_is_no_other_tokenizer():
    ours, base = testing.byte_tokenizer(), testing.byte_tokenizer()
    ours.add_special_tokens({"pad_token": "[PAD]"})
    refuse_other_tokenizer(ours, base, names=("ours", "base"))


def test_nan_is_an_error_that_names_the_item(data):
    broken = testing.tiny("llama", window=WINDOW)
    with torch.no_grad():
        broken.get_output_embeddings().weight[ord("a")] = float("nan")
    broken = open_model(broken, tokenizer=testing.byte_tokenizer(WINDOW))
    with pytest.raises(UserError, match="item 0 of piqa gave NaN"):
        benchmarks.measure_task(broken, tasks.build(["piqa"], data)["piqa"], window=WINDOW, limit=2)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(tasks=["hellaswag"]), "tasks is .*one of boolq, piqa"),
        (dict(data="nowhere"), "nowhere has no piqa.jsonl"),
        (dict(window=WINDOW + 1), "that the model can hold, got 769"),
        (dict(window=1), "between 2 tokens and the 768"),
        (dict(limit=0), "limit is a whole number of at least 1 .*, got 0"),
    ],
)
def test_mistakes_are_said_in_a_sentence(arguments, message, pair_of_models, data):
    settings = {"tasks": ["piqa"], "data": data, **arguments}
    with pytest.raises(UserError, match=message):
        benchmarks.benchmarks(pair_of_models[0], **settings)


def test_a_bad_line_is_named(tmp_path):
    path = tmp_path / "piqa.jsonl"
    path.write_text('{"goal": "g", "sol1": "a", "sol2": "b", "label": 0}\n{"goal": "g"}\n', encoding="utf-8")
    with pytest.raises(UserError, match="line 2 of .*no sol1"):
        tasks.build(["piqa"], tmp_path)
    path.write_text('{"goal": \n', encoding="utf-8")
    with pytest.raises(UserError, match="line 1 of"):
        list(jsonlines.read(path, {"goal": jsonlines.text}))
    path.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="has no lines"):
        tasks.build(["piqa"], tmp_path)


@pytest.mark.parametrize(
    "name, items", [("boolq", 3270), ("piqa", 1838), ("race-middle", 362), ("race-high", 1045), ("winogrande", 1267)]
)
def test_the_real_sets_have_as_many_items_as_lm_eval_scores(name, items):
    """boolq, piqa, winogrande: the published validation sets; RACE: one item an article of the test sets."""
    folder = SHARED / "data" / "benchmarks"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not here")
    assert len(tasks.build([name], folder)[name].eval_docs) == items


def test_lm_eval_is_left_as_it_was(data, loaded):
    task = tasks.build(["boolq"], data)["boolq"]
    with tasks.cached_templates():
        assert lm_eval.utils.env.from_string("{{a}}") is lm_eval.utils.env.from_string("{{a}}")
        benchmarks.measure_task(loaded, task, window=WINDOW, limit=1)
        assert "from_string" in vars(lm_eval.utils.env)
    tasks.digest(task)
    assert "from_string" not in vars(lm_eval.utils.env)


RIGHT = {
    "piqa": {"goal": "To open jar", "sol1": "turn", "sol2": "eat", "label": 1, "more": [1, "a"]},
    "boolq": {"passage": "Stone is hard.", "question": "is stone soft", "answer": False},
    "winogrande": {"sentence": "The _ broke.", "option1": "cup", "option2": "box", "answer": "1"},
    "race-high": {"article": "A day.", "question": "When?", "options": ["1", "2", "3", "4"], "answer": "A"},
}


@pytest.mark.parametrize("name", RIGHT)
def test_columns_that_a_benchmark_does_not_need_may_hold_anything(name: str, tmp_path: Path) -> None:
    lines = [RIGHT[name], {**RIGHT[name], "more": {"other": None}}]
    (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert len(tasks.build([name], tmp_path)[name].eval_docs) >= 1


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        *(("piqa", "label", value) for value in (-1, 2, "0", True, None, 1.0)),
        *(("boolq", "answer", value) for value in ("false", 0, None)),
        *(("winogrande", "answer", value) for value in ("", "3", 1)),
        ("winogrande", "sentence", "No gap."),
        *(("race-high", "answer", value) for value in ("E", 0, "")),
        *(("race-high", "options", value) for value in ("1234", ["1", "2"], ["1", "2", "3", 4])),
        ("piqa", "goal", None),
    ],
)
def test_labels_of_another_type_are_refused_and_never_scored(name: str, field: str, value, tmp_path: Path) -> None:
    (tmp_path / f"{name}.jsonl").write_text(json.dumps(RIGHT[name]) + "\n" + json.dumps({**RIGHT[name], field: value}))
    with pytest.raises(UserError, match=rf"^in line 2 of .* {field} is .*; mend or drop it"):
        tasks.build([name], tmp_path)
