"""How a response is scored: RULER's string match, and what the other tasks are scored by. Each is a number from 0 to 1.

in   a response and the answers
out  its score
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence


def plain(response: str) -> str:
    """A response as RULER compares it: without blanks around it, control characters as line ends."""
    return re.sub(r"[\x00-\x1f]", "\n", response.strip()).strip()


def match_all(response: str, answers: Sequence[str]) -> float:
    """The share of the answers that stand in the response, in capitals or not (RULER's string_match_all)."""
    return sum(_stands_in(answer, response) for answer in answers) / len(answers)


def match_part(response: str, answers: Sequence[str]) -> float:
    """1 if one of the answers stands in the response (RULER's string_match_part)."""
    return float(any(_stands_in(answer, response) for answer in answers))


def _stands_in(answer: str, response: str) -> bool:
    return answer.lower() in plain(response).lower()


def nodes(response: str, answers: Sequence[str]) -> float:
    """F1 of the nodes listed up to the first bracket that closes (GraphWalks)."""
    listed = {node.strip() for node in response.partition("]")[0].split(",") if node.strip()}
    common = len(listed & set(answers))
    return 2 * common / (len(listed) + len(set(answers)))


def repetition(response: str, answers: Sequence[str]) -> float:
    """How alike the response is to the answer behind its code, by difflib's ratio; 0 without the code (MRCR)."""
    code, answer = answers
    if not plain(response).startswith(code):
        return 0.0
    return difflib.SequenceMatcher(None, plain(response).removeprefix(code), answer).ratio()
