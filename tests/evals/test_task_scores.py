"""Scores of responses: lm-eval's for RULER's tasks, and further ones on worked examples."""

import pytest

from ropewalk.evals.long_context import scoring

RESPONSES = [
    ("the numbers are 12 and 34", ["12", "34"]),
    ("  12\x01 ABC", ["12", "34", "abc"]),
    ("", ["12"]),
    ("a\x00bc", ["abc"]),
    ("OSLO, of course", ["Oslo"]),
]


@pytest.mark.parametrize(("response", "answers"), RESPONSES)
def test_scores_are_those_of_lm_eval(response, answers):
    from lm_eval.tasks.ruler import common_utils

    doc = {"max_length": 4096, "outputs": answers}
    assert scoring.match_all(response, answers) == common_utils.process_results(doc, [response])["4096"]
    # lm-eval's string_match_part is a share of the references; RULER's, one of them. They agree where there is one.
    if len(answers) == 1:
        assert scoring.match_part(response, answers) == common_utils.process_results_part(doc, [response])["4096"]


def test_further_scores_on_worked_examples():
    assert scoring.match_part("in Rome", ["Oslo", "rome"]) == 1
    assert scoring.nodes("a, b, x] and c", ["a", "b", "c"]) == pytest.approx(
        2 / 3
    )  # two of three right, two of three found
    assert scoring.nodes("]", ["a"]) == 0
    assert (
        scoring.repetition("KEYit rains", ["KEY", "it rains"]) == 1
        and scoring.repetition("it rains", ["KEY", "it rains"]) == 0
    )
    # difflib: twice the matching letters over all letters; "it rain" of 7 and 8.
    assert scoring.repetition("KEYit rain", ["KEY", "it rains"]) == pytest.approx(14 / 15)
