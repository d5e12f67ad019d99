"""What attention did in a longer window: a conclusion, and a column a variant; 80 characters wide."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from ropewalk.cli.terminal import console
from ropewalk.records import Adjacent, AttentionScores
from ropewalk.records.attention_summary import Gist, gist
from ropewalk.records.format import fixed, is_finite, share, times
from ropewalk.records.variant import Variant, variant_of

if TYPE_CHECKING:
    from ropewalk.evals.attention import Measured

Gists = Sequence[tuple[Variant, Gist]]


def show_attention(variants: Sequence[Measured], *, full: bool = False) -> None:
    """Print what the variants came to; with `full` every figure of each."""
    original = variants[0].run.model.original_window
    gists = gists_of(variants, original)
    # Fewer than were asked for where fewer fill the window.
    documents = variants[0].rows[0].documents
    title = f"Attention scores before the softmax, {documents} document{'s' if documents > 1 else ''}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(no_wrap=True)
    for variant, _ in gists:
        table.add_column(variant.label, justify="right")
    for label, write in _EVERY_LINE if full else _LINES:
        table.add_row(label, *(write(column) for _, column in gists))
    terminal = console()
    terminal.print(f"{conclusion(gists, original)}\n")
    terminal.print(table)
    terminal.print(_EVERY_WORD.format(original=original, far=original // 4) if full else _WORDS, style="dim")


def conclusion(gists: Gists, original: int) -> str:
    """Whether far keys outbid what heads were trained on, and whether neighbours are told apart, variant by variant."""
    sentences = _out_of_range(gists, original) + _neighbours(gists)
    return sentences or _inside(gists, original)


def _inside(gists: Gists, original: int) -> str:
    """What stands there of windows that have nothing beyond and no base beside them, and what would tell more."""
    words = [
        f"{variant.label} in {each.window} tokens: a score changes by {fixed(each.resolution, 3)} of its spread when the key moves one token, and the "
        f"strongest heads have {share(each.previous)} of their attention on the token before. "
        for variant, each in gists
        if is_finite(each.resolution)
    ]
    return "".join(words) + (
        f"No key stood beyond the original {original} tokens, and no base is beside it: what a longer context does to attention is told by a "
        "--window that is longer, or by an extended MODEL with its --base."
    )


def _out_of_range(gists: Gists, original: int) -> str:
    shares = [
        f"{share(each.out_of_range)} ({variant.label})" for variant, each in gists if is_finite(each.out_of_range)
    ]
    words = f"Heads that score keys beyond {original} tokens above all that they gave in the base: {', '.join(dict.fromkeys(shares))}. "
    return words * bool(shares)


def _neighbours(gists: Gists) -> str:
    base = next((each.resolution for variant, each in gists if variant.role == "base"), 0.0)
    if not is_finite(base) or not base:
        return ""
    shares = [f"{share(each.resolution / base)} ({variant.label})" for variant, each in gists if variant.extended]
    words = f"Of the base's power to tell neighbouring tokens apart there is left: {', '.join(dict.fromkeys(shares))}."
    return words * bool(shares)


def gists_of(variants: Sequence[Measured], original: int) -> list[tuple[Variant, Gist]]:
    """Each variant in numbers, beside the base in its own window, which is measured first."""
    columns: list[tuple[Variant, Gist]] = []
    base: Sequence[AttentionScores | Adjacent] = []
    for measured in variants:
        variant = variant_of(measured.run.model, measured.rows[0].window)
        columns.append((variant, gist(measured.rows, original, base)))
        base = measured.rows if variant.role == "base" else base
    return columns


_Line = tuple[str, Callable[[Gist], str]]
_WINDOW: _Line = ("window", lambda column: f"{column.window}")
_OUT_OF_RANGE: _Line = ("heads out of range", lambda column: share(column.out_of_range))
_NEIGHBOURS: tuple[_Line, ...] = (
    ("change / spread", lambda column: fixed(column.resolution, 3)),
    ("on the token before", lambda column: share(column.previous)),
)
_LINES: tuple[_Line, ...] = (_WINDOW, _OUT_OF_RANGE, *_NEIGHBOURS)
_EVERY_LINE: tuple[_Line, ...] = (
    _WINDOW,
    ("highest score, inside", lambda column: fixed(column.inside, 1)),
    ("highest score, beyond", lambda column: fixed(column.beyond, 1)),
    ("far keys, inside", lambda column: fixed(column.typical_inside, 1)),
    ("far keys, beyond", lambda column: fixed(column.typical_beyond, 1)),
    _OUT_OF_RANGE,
    ("largest |h|", lambda column: fixed(column.largest_h, 1)),
    ("deviation, of the printed", lambda column: share(column.of_printed)),
    ("  of what holds", lambda column: share(column.of_corrected)),
    ("size, of the trivial", lambda column: share(column.of_trivial)),
    ("  extrapolation bound", lambda column: times(column.slack)),
    *_NEIGHBOURS,
)
_WORDS = (
    "Change / spread: of a score when its key moves one token, over the spread of a query's scores, median head: how well neighbouring "
    "tokens are told apart. Token before: the attention on it of the strongest head, mean over layers. --full prints the scores "
    "themselves and the paper's bounds on them."
)
_EVERY_WORD = (
    "Inside: distances below the original {original} tokens. Far keys: from {far} on, the 99.9 % quantile of the "
    "median head. Out of range: a head whose highest score beyond is above all that it gave in the base. Deviation: from the "
    "chord between two tokens, over theorem 2.1 with the head's own max|h|, as printed and as it holds. Size: of a score, "
    "over sum_j max|h_j|, which none exceeds; the extrapolation bound at its smallest is so many times it. Change: of a "
    "score when its key moves one token, over the spread of a query's scores, median head. Token before: strongest head, "
    "mean over layers."
)
