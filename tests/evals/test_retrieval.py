"""The retrieval set: exact lengths, answers that follow from the text, facts where they are said to be."""

import re

import numpy as np
import pytest

from ropewalk import records
from ropewalk.errors import UserError
from ropewalk.evals.retrieval import facts
from ropewalk.evals.retrieval import harder as retrieval
from ropewalk.evals.retrieval.haystack import NAMES, SENTENCES, THINGS
from ropewalk.testing import byte_tokenizer, tiny

WINDOW = 2200


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def solve(family, said):
    """Oracle: read the prompt as a person would, and answer its last line."""
    notes, question = said.rsplit("\n", 1)
    if family == "keys":
        return re.search(rf"{re.escape(question.strip())} (\d+)\.", notes)[1]
    if family == "values":
        thing = re.match(r"The codes of the ([\w-]+),", question)[1]
        return ", ".join(re.findall(rf"One code of the {thing} is (\d+)\.", notes))
    if family == "lookalikes":
        locker = re.search(r"locker (\d+) is", question)[1]
        return re.search(rf"The code of locker {locker} is (\d+)\.", notes)[1]
    name = re.match(r"The value of (\w+) is", question)[1]
    while given := re.search(rf"{name} has the value of (\w+)\.", notes):
        assert notes.index(f"{given[1]} has the value") < given.start()  # told before it is handed on
        name = given[1]
    return re.search(rf"{name} has the value (\d+)\.", notes)[1]


@pytest.mark.parametrize("family", retrieval.FAMILIES)
def test_prompts_are_exactly_the_window_and_their_answers_follow_from_their_text(tokenizer, family):
    for prompt, digits, _ in retrieval.prompts_of(tokenizer, family, WINDOW, 12, seed=0):
        assert len(prompt.ids) == WINDOW
        text = tokenizer.decode(prompt.ids, skip_special_tokens=True)
        answer = tokenizer.decode(prompt.answer)
        assert text.endswith(" ") and answer == solve(family, text)
        assert "".join(np.array(list(answer))[digits]) == re.sub(r"\D", "", answer)


@pytest.mark.parametrize("family", ["keys", "lookalikes"])
def test_the_asked_fact_stands_where_the_record_says_from_end_to_end(tokenizer, family):
    places = []
    for prompt, _, placed in retrieval.prompts_of(tokenizer, family, 4000, 24, seed=1):
        text = tokenizer.decode(prompt.ids[len(prompt.ids) - placed :])
        assert text.strip().startswith(text.rsplit("\n", 1)[1].strip())  # the fact begins as the question reads
        places.append(placed / 4000)
    counts, _ = np.histogram(places, bins=4, range=(0, 1))
    assert (counts >= 3).all(), counts


def test_a_look_alike_differs_in_one_digit():
    task = facts.lookalikes(np.random.default_rng(0))
    lockers = [re.search(r"locker (\d+)", fact)[1] for fact in task.facts]
    asked = lockers[task.asked]
    assert len(set(lockers)) == 16
    assert {sum(a != b for a, b in zip(asked, other, strict=True)) for other in lockers} == {0, 1}


def test_the_chain_has_four_hops_among_two_others():
    task = facts.chain(np.random.default_rng(0))
    assert sum(bool(re.search(r"value \d", fact)) for fact in task.facts) == 3
    assert sum("value of" in fact for fact in task.facts) == 12


def test_the_prose_holds_nothing_that_could_be_a_fact():
    for sentence in SENTENCES:
        assert not re.search(r"\d|code|value|locker", sentence)
        assert not any(name in sentence for name in NAMES)
    assert len(set(SENTENCES)) == len(SENTENCES) and len(set(THINGS)) == len(THINGS) and len(set(NAMES)) == len(NAMES)


def test_the_same_seed_makes_the_same_prompts_and_more_trials_only_add_some(tokenizer):
    few = retrieval.prompts_of(tokenizer, "keys", WINDOW, 3, seed=4)
    more = retrieval.prompts_of(tokenizer, "keys", WINDOW, 5, seed=4)
    other = retrieval.prompts_of(tokenizer, "keys", WINDOW, 3, seed=5)
    assert all((a[0].ids == b[0].ids).all() for a, b in zip(few, more, strict=False))
    assert not any((a[0].ids == b[0].ids).all() for a, b in zip(few, other, strict=True))


def test_a_window_too_small_for_the_facts_is_refused(tokenizer):
    with pytest.raises(UserError, match=r"take \d+ tokens, and the window is 200"):
        retrieval.prompts_of(tokenizer, "lookalikes", 200, 1, seed=0)


def test_nothing_is_measured_where_one_family_does_not_fit(tokenizer, tmp_path):
    """The bound is the true one: at it every prompt can be made, a token below it one cannot."""
    least = retrieval.least_windows(tokenizer, trials=3, seed=0)
    for family, window in least.items():
        assert len(retrieval.prompts_of(tokenizer, family, window, 3, 0)) == 3
        with pytest.raises(UserError, match=f"the window is {window - 1};"):
            retrieval.prompts_of(tokenizer, family, window - 1, 3, 0)
    window = max(least.values()) - 1
    with pytest.raises(UserError, match=rf"keys \d+, values \d+, .* and the window is {window}; ask for a larger"):
        retrieval.retrieval(tiny(), tokenizer=tokenizer, window=window, trials=3, out=tmp_path / "r.jsonl")
    assert not (tmp_path / "r.jsonl").exists()


def test_the_smallest_window_that_does_has_facts_and_no_prose(tokenizer):
    task = facts.keys(np.random.default_rng(0))
    least = None
    try:
        retrieval.Haystack(tokenizer, 10).prompt(task, np.random.default_rng(0), 0.5)
    except UserError as error:
        least = int(re.search(r"take (\d+) tokens", str(error))[1])
    prompt, _, _ = retrieval.Haystack(tokenizer, least).prompt(task, np.random.default_rng(0), 0.5)
    assert len(prompt.ids) == least
    assert not any(sentence in tokenizer.decode(prompt.ids) for sentence in SENTENCES)


def test_rows_go_on_record(tokenizer, tmp_path):
    rows = retrieval.retrieval(
        tiny(window=WINDOW), tokenizer=tokenizer, families=["keys", "chain"], trials=3, out=tmp_path / "r.jsonl"
    )
    assert [row.family for row in rows] == ["keys", "chain"]
    assert all(row.successes == 0 and len(row.per_trial) == 3 and row.high > 0.5 for row in rows)
    assert len(records.read([tmp_path / "r.jsonl"]).of(records.Retrieval)) == 2


def test_a_model_that_knows_is_right_and_the_commas_are_not_judged(tokenizer, monkeypatch):
    """With every digit right and every comma wrong a trial counts; with one digit wrong it does not."""
    prompts = retrieval.prompts_of(tokenizer, "values", WINDOW, 2, seed=0)
    wrong = [prompts[0][1].copy(), prompts[1][1].copy()]
    wrong[1][0] = False
    monkeypatch.setattr(retrieval, "verdicts", lambda *args, **kwargs: wrong)
    (row,) = retrieval.retrieval(tiny(window=WINDOW), tokenizer=tokenizer, families=["values"], trials=2)
    assert [one["right"] for one in row.per_trial] == [True, False] and row.successes == 1


def test_an_unknown_family_is_refused_by_name(tokenizer):
    with pytest.raises(UserError, match="keys, values, lookalikes, chain, got .'needles'"):
        retrieval.retrieval(tiny(), tokenizer=tokenizer, families=["needles"])
