"""Finding what stands in a long text: the paper's passkey (section 3.3), and what is harder.

passkey.py   one key in a filler: k_max and its map
harder.py    several keys, several values, look-alikes, chains
facts.py     what those four hide and ask for
haystack.py  the text they are hidden in
forced.py    verdicts in one forward pass, and prompts that share their beginning
"""

from ropewalk.evals.retrieval.harder import FAMILIES, least_windows, retrieval

__all__ = ["FAMILIES", "least_windows", "retrieval"]
