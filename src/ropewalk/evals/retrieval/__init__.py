"""Retrieval of facts from a long text: the paper's passkey (section 3.3), and harder tasks.

passkey.py   one key in a filler: k_max and success by depth
harder.py    several keys, several values, look-alikes, chains
facts.py     the facts and questions of those four
haystack.py  the prose that they are hidden in
forced.py    verdicts in one forward pass, with a prefix that prompts share read once
"""

from ropewalk.evals.retrieval.harder import FAMILIES, least_windows, retrieval

__all__ = ["FAMILIES", "least_windows", "retrieval"]
