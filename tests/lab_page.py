"""The lab's page as it is, and the columns and claims that it was drawn from."""

import functools
from pathlib import Path

import claims
import results
import rows

LAB = Path(results.__file__).parent


@functools.cache
def text_of_page() -> str:
    """As it is in docs, which another test holds against the records."""
    return results.PAGE.read_text(encoding="utf-8")


@functools.cache
def _columns(model: str) -> list[claims.Column]:
    return claims.columns(results.full_rows(model), rows.rows_in(results.RECORDS / "slid" / model))


def column_of(model: str, tokens: int) -> claims.Column:
    return next(column for column in _columns(model) if column.models[0].tokens == tokens * 2**20)


def claim_of(words: str) -> claims.Claim:
    return next(claim for claim in claims.CLAIMS if claim.text.startswith(words))
