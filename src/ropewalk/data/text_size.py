"""How much text there is, in tokens, and how long it takes to tokenise: estimated before that is begun.

in   files, the texts in them, an encoder
out  `TextSize`; nothing where the files are small

All texts are read, which takes about a hundredth of tokenising them and shows every bad row first; a sample is tokenised: pieces at equal
distances over all of the text. A text is met in proportion to its length, so the mean of the pieces' tokens a character, times all characters,
is an unbiased estimate of all tokens (Hansen & Hurwitz 1943).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ropewalk.data.corpus_encoder import Encoder, Text
from ropewalk.data.reading import Document
from ropewalk.progress import Progress
from ropewalk.records.format import duration, large

#: Bytes of files below which tokenising is a matter of seconds, and nothing is estimated.
_LITTLE = 4 * 2**20
#: Seconds of tokenising that a user is told of beforehand.
_LONG = 20.0
#: Pieces of a sample, at least (of a text that is longer than all of them) and half of the most; characters of a piece of running text, and of all pieces.
_PIECES, _PIECE, _SAMPLED = 64, 4096, 2**20
#: A share of the text below which a run is told how to begin sooner.
_SMALL = 0.1


@dataclass(frozen=True)
class TextSize:
    """Text in files.

    Attributes:
        size: bytes of the files, as they lie on disk.
        tokens: about how many.
        seconds: about how long tokenising takes on this machine.
    """

    size: int
    tokens: int
    seconds: float

    @property
    def is_long(self) -> bool:
        """Whether a user should know before it is begun."""
        return self.seconds >= _LONG

    def announced(self, needed: int | None) -> str:
        """What is said before it is begun. needed: tokens that a run reads, where that is known."""
        share = 1.0 if needed is None else min(1.0, needed / max(1, self.tokens))
        read = (
            f", of which this run reads {large(needed)} ({share:.2g} of all)"
            if needed is not None and share < 1
            else ""
        )
        sooner = "; to begin sooner, give --data fewer files, or a part of one" if share < _SMALL else ""
        return (
            f"{self.size / 2**20:,.1f} MiB of files, about {large(self.tokens)} tokens{read}: tokenising all of it takes about "
            f"{duration(self.seconds)} here, once, since it is kept for later runs{sooner}"
        )


def text_size(files: Sequence[Path], texts: Iterable[Text], encoder: Encoder) -> TextSize | None:
    """About how much text the files hold; None where they are small.

    Raises:
        UserError: a text that cannot be read.
    """
    size = sum(file.stat().st_size for file in files)
    if size < _LITTLE:
        return None
    characters, pieces = _sampled(texts)
    if not pieces:
        return None
    started = time.perf_counter()
    rates = [len(ids) / len(piece.text) for piece, ids, _ in encoder.encode(pieces)]
    seconds = time.perf_counter() - started
    # A conversation is counted by what is said in it, as in the sum of all characters.
    return TextSize(
        size,
        round(characters * sum(rates) / len(rates)),
        characters * seconds / sum(len(piece.text) for piece in pieces),
    )


def _sampled(texts: Iterable[Text]) -> tuple[int, list[Text]]:
    """All characters, and pieces at equal distances: where there are too many, every second one goes and the distance doubles."""
    characters, distance, pieces = 0, _PIECE, list[Text]()
    with Progress("looking through the text") as advance:
        for text in texts:
            begins, characters = characters, characters + len(text.text)
            while len(pieces) * distance < characters:
                pieces.append(_piece(text, len(pieces) * distance - begins))
                if len(pieces) == 2 * _PIECES:
                    pieces, distance = pieces[::2], 2 * distance
            advance(len(text.text))
    step = -(-sum(len(piece.text) for piece in pieces) // _SAMPLED)  # conversations are taken whole, and may be long
    return characters, pieces[:: step or 1]


def _piece(text: Text, at: int) -> Text:
    if not isinstance(text, Document):
        return text
    first = max(0, min(at, len(text.text) - _PIECE))
    return dataclasses.replace(text, text=text.text[first : first + _PIECE])
