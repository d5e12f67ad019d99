"""Made-up documents of so many tokens for the byte tokenizer."""

from ropewalk.data.documents import Document
from ropewalk.testing import prose


def documents(*lengths, seed=0):
    """Made-up documents; a byte a token, and one more for BOS."""
    return [Document(f"doc{i}", prose(900, seed + i)[: n - 1]) for i, n in enumerate(lengths)]
