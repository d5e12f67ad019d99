"""What of a model's matrices is unlike its siblings in other layers, where a sound model may be so too: said in notes, and refused nowhere.

in   what was read of each matrix (checkpoint/finite.py), the tokenizer's ids
out  sentences
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from ropewalk.checkpoint.finite import Matrix
from ropewalk.checkpoint.tensor_problems import listed
from ropewalk.sentences import counted, joined

#: Binary orders between a matrix and the median of its siblings. The furthest in SmolLM2-135M, gemma-3-270m, hemp and a model of the lab is
#: 2.05 (a v_proj of SmolLM2's first layers); a factor of 16 leaves as much again.
_FAR = 4.0
#: Of fewer, the median is no witness against one of them.
_FEWEST = 3
_NUMBER = re.compile(r"(\d+)")


def oddities(matrices: Mapping[str, Matrix], token_ids: Callable[[], set[int]]) -> Iterator[str]:
    """A sentence for each kind of thing that is unlike. token_ids: asked only where rows of tokens are zeros."""
    siblings: dict[str, list[str]] = {}
    for name in matrices:
        siblings.setdefault(_NUMBER.sub("#", name), []).append(name)
    if far := [each for names in siblings.values() for each in _far(names, matrices)]:
        yield (
            f"the scale of {listed(far)}; a program that multiplied or divided them did that, or the model was made so: compare it with its base"
        )
    if same := _identical(siblings.values(), matrices):
        yield (
            f"identical to the last bit are {'; '.join(same[:3])}{'; …' if len(same) > 3 else ''}: so are models that were made deeper by repeating "
            "layers, or experts that were copied; in any other, one was written over the other"
        )
    for name, matrix in matrices.items():
        if matrix.zero_rows and not _is_padding(matrix, token_ids()):
            yield _of_zero_rows(name, matrix.zero_rows, token_ids())


def padding(matrices: Mapping[str, Matrix], token_ids: Callable[[], set[int]]) -> Iterator[str]:
    """A sentence for each matrix whose rows of zeros are of no token, as rows of padding are."""
    for name, matrix in matrices.items():
        if matrix.zero_rows and _is_padding(matrix, token_ids()):
            yield f"{_counted(name, matrix.zero_rows)}, none of a token that the tokenizer has: padding"


def _is_padding(matrix: Matrix, token_ids: set[int]) -> bool:
    return bool(token_ids) and token_ids.isdisjoint(matrix.zero_rows)


def _far(names: Sequence[str], matrices: Mapping[str, Matrix]) -> Iterator[str]:
    """Each that lies far from the median of its siblings, with by how much."""
    if len(names) < _FEWEST:
        return
    median = statistics.median(matrices[name].scale for name in names)
    for name in names:
        off = matrices[name].scale - median
        if abs(off) > _FAR:
            times = f"{2**off:.3g} times" if off > 0 else f"1/{2**-off:.3g} of"
            yield f"{name} is about {times} that of its {len(names) - 1} siblings in other layers"


def _identical(siblings: Iterable[Sequence[str]], matrices: Mapping[str, Matrix]) -> list[str]:
    """Places (layers, experts) whose matrices are the same, with which of them are."""
    alike: dict[tuple[str, ...], list[str]] = {}
    for names in siblings:
        by_signature: dict[tuple[int, bytes], list[str]] = {}
        for name in names:
            by_signature.setdefault(matrices[name].signature, []).append(name)
        for same in by_signature.values():
            if len(same) > 1:
                places, rest = _split(same)
                alike.setdefault(places, []).append(rest)
    return [
        f"{joined(places)}{f' in {len(rests)} matrices' if len(rests) > 1 else ''} ({listed(rests)})"
        for places, rests in alike.items()
    ]


def _split(names: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """Names that differ in numbers, cut behind the first number in which they differ: the beginnings, and the end of the first name."""
    parts = [_NUMBER.split(name) for name in names]
    cut = next(index for index, each in enumerate(zip(*parts, strict=True)) if len({*each}) > 1) + 1
    return tuple(dict.fromkeys("".join(each[:cut]) for each in parts)), "".join(parts[0][cut:]).lstrip(".")


def _of_zero_rows(name: str, rows: Sequence[int], token_ids: set[int]) -> str:
    whose = (
        f"{len(token_ids.intersection(rows))} of tokens that the tokenizer has"
        if token_ids
        else "of tokens or of padding, which no tokenizer.json here tells"
    )
    return (
        f"{_counted(name, rows)}, {whose}: a token without a row says nothing to the model; sound models have such rows for padding and for tokens "
        "that no text had, in others they were lost"
    )


def _counted(name: str, rows: Sequence[int]) -> str:
    return f"{name} has {counted(len(rows), 'row')} of zeros (ids {listed(_ranges(rows))})"


def _ranges(ids: Sequence[int]) -> list[str]:
    """Ascending numbers as runs of consecutive ones."""
    runs: list[list[int]] = []
    for number in ids:
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [str(first) if first == last else f"{first} to {last}" for first, last in runs]
