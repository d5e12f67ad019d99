"""An inv_freq among the weights, which older programs stored there and take from there: against the rotation that the config says.

in   a `Subject`
out  findings, a sentence each: rule, value, way out

transformers stored Llama's up to 4.31 (a persistent buffer of each layer, as remote code of that age still has it). What it stored was the
unscaled one for a linear scaling, which divided positions instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.headers import begin_of_data, tensors
from ropewalk.checkpoint.tensor_problems import listed, several_are
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.spelling_checks import TOLERANCE
from ropewalk.readers.subject import Subject

#: Of a language model's layers, or of all of them at once; one of an encoder of images or sound is none of its config's.
STORED = re.compile(r"^(?!.*(vision|visual|audio)).*rotary_emb\.inv_freq$")
#: Of each dtype: how it is read, and how far rounding to it moves a value: a part of it, and of what float16 holds last, radians a token.
_DTYPES = {
    "F64": ("<f8", TOLERANCE, 0.0),
    "F32": ("<f4", TOLERANCE, 0.0),
    "F16": ("<f2", 2**-11 + TOLERANCE, 2**-25),
    "BF16": ("<u2", 2**-8 + TOLERANCE, 0.0),
}
_WHO = (
    "whoever stores it loads it (transformers up to 4.31, a model's own code), while later versions, vLLM, SGLang, llama.cpp and MLX compute it "
    "from the config and leave this out"
)


def stored_rotation(subject: Subject) -> Iterator[Finding]:
    """7. An inv_freq in the files is the config's, or its unscaled one."""
    if (
        subject.rope is None or subject.fetched or subject.closed_form is None
    ):  # check 7's other half, or 9, says why there is none
        return
    rope = subject.rope
    plain = [rope.rope.inv_freq(), *(each.inv_freq() for each in rope.unscaled.values())]
    scaled = [*rope.inv_freq().values(), *rope.inv_freq(1).values()]
    other, unscaled = dict[str, str](), list[str]()
    for file, name, entry in _stored(subject):
        values = _read(file, entry)
        if any(_same(values, each, entry["dtype"]) for each in scaled):
            continue
        if any(_same(values, each, entry["dtype"]) for each in plain):
            unscaled.append(name)
        else:
            other[name] = _difference(values, scaled[0])
    if other:
        name = next(iter(other))
        yield Finding(
            7,
            "wrong",
            f"an inv_freq that lies among the weights is that of the config, scaled or unscaled, and {several_are([*other])} neither "
            f"({listed([*other])}; {other[name]}): {_WHO}. Delete it from the file: every reader of today computes the right one",
        )
    if unscaled:
        yield Finding(
            7,
            "note",
            f"among the weights {several_are(unscaled)} the unscaled inv_freq ({listed(unscaled)}): {_WHO}; the former rotate without the "
            f"{rope.scaling.method} scaling, unless they divide positions by its factor",
        )


def _stored(subject: Subject) -> Iterator[tuple[Path, str, dict[str, Any]]]:
    try:
        headers = subject.checkpoint.headers if subject.checkpoint.has_weights else {}
    except UserError:  # check 10 says it
        return
    for file, header in headers.items():
        for name, entry in tensors(header):
            if STORED.search(name) and entry["dtype"] in _DTYPES:
                yield subject.path / file, name, entry


def _read(file: Path, entry: dict[str, Any]) -> np.ndarray:
    """The values of a tensor, shape (n,), float64."""
    begin, end = entry["data_offsets"]
    dtype = np.dtype(_DTYPES[entry["dtype"]][0])
    values = np.fromfile(file, dtype, (end - begin) // dtype.itemsize, offset=begin_of_data(file) + begin)
    if entry["dtype"] == "BF16":  # the upper half of a float32
        values = (values.astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float64)


def _same(values: np.ndarray, closed_form: np.ndarray, dtype: str) -> bool:
    _, relative, absolute = _DTYPES[dtype]
    return values.shape == closed_form.shape and bool(np.allclose(values, closed_form, rtol=relative, atol=absolute))


def _difference(values: np.ndarray, closed_form: np.ndarray) -> str:
    if values.shape != closed_form.shape:
        return f"it has {values.size} pairs, and the config {closed_form.size}"
    worst = int(np.nan_to_num(np.abs(values - closed_form), nan=np.inf).argmax())
    return f"pair {worst} is {values[worst]:.6g} radians a token, where the config says {closed_form[worst]:.6g}"
