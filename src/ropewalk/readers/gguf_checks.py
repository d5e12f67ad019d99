"""The checks of a GGUF file: what llama.cpp and Ollama make of its keys, and what transformers loses on import.

in   a path
out  a `Diagnosis`

llama.cpp's rule (src/llama-model.cpp: load_hparams, src/llama-context.cpp, of llama-cpp-python 0.3.36): a missing scaling type is
linear, a missing factor 1, a missing freq_base 10000, a missing original length the whole context; another type than these ends
the program. transformers' integrations/ggml.py maps freq_base and context_length, and the scaling of gpt-oss alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from ropewalk.errors import UserError
from ropewalk.readers import spectra
from ropewalk.readers.diagnosis import Diagnosis, Finding, ReaderRow
from ropewalk.readers.gguf_header import Header, read_header
from ropewalk.readers.reader import BAD_VALUES
from ropewalk.readers.rules import READERS
from ropewalk.readers.spectra import Keys
from ropewalk.rope.rope import InvFreq

_TYPES = ("none", "linear", "yarn", "longrope")


def examine_gguf(path: Path) -> Diagnosis:
    """Read a GGUF file's header and say what is wrong with it.

    Raises:
        UserError: it is damaged, or no language model.
    """
    header = read_header(path)
    try:
        keys = _keys(header)
    except BAD_VALUES:
        raise UserError(
            f"{path} names no size of a head ({header.architecture}.rope.dimension_count, or embedding_length and "
            "attention.head_count), so it is no language model with RoPE; choose another file"
        ) from None
    findings = [*_scaling(header, keys), *_window(header, keys), *_tokenizer(header), *_import(keys)]
    checked = {finding.number for finding in findings}
    fine = {
        1: "the keys say one scaling that llama.cpp knows",
        3: "the context length is there",
        5: "every token has a row",
    }
    findings += [Finding(number, "ok", sentence) for number, sentence in fine.items() if number not in checked]
    summary = f"GGUF, {header.architecture}, {keys.rope_type} scaling on rope_theta {keys.rope_theta:g}, window {keys.positions}"
    ordered = sorted(findings, key=lambda finding: finding.number)
    return Diagnosis(str(path), summary, tuple(ordered), tuple(_rows(header, keys)))


def _keys(header: Header) -> Keys:
    head = header.get("rope.dimension_count") or header.get("attention.key_length")
    rotated = int(head or header.get("embedding_length") // header.get("attention.head_count"))
    factor = float(header.get("rope.scaling.factor") or 1.0)
    window = int(header.get("context_length") or 0)
    entry = {
        "factor": factor,
        "beta_fast": header.get("rope.scaling.yarn_beta_fast"),
        "beta_slow": header.get("rope.scaling.yarn_beta_slow"),
    }
    rope_type = str(header.get("rope.scaling.type", "linear" if factor != 1 else "none"))
    base = float(header.get("rope.freq_base", 10000.0))
    if not 2 <= rotated <= 2**16 or not (np.isfinite([base, factor]).all() and base > 0 and factor > 0):
        raise ValueError("no rotation")
    return Keys(
        rope_type, entry, base, rotated, window, int(header.get("rope.scaling.original_context_length") or window)
    )


def _inv_freq(keys: Keys) -> InvFreq | None:
    """llama.cpp's, without the factors that lie in a tensor (Llama 3, longrope), which no header shows."""
    known = {
        "none": spectra.unscaled,
        "linear": spectra.linear,
        "yarn": spectra.rounded_yarn,
        "longrope": spectra.unscaled,
    }
    try:
        return known[keys.rope_type](keys)
    except BAD_VALUES:
        return None


def _scaling(header: Header, keys: Keys) -> Iterator[Finding]:
    """1. The scaling is one that llama.cpp knows, and what it needs is there."""
    if keys.rope_type not in _TYPES:
        yield Finding(
            1,
            "wrong",
            f"rope.scaling.type is {keys.rope_type!r}, at which llama.cpp stops; it knows {', '.join(_TYPES)}",
        )
    factors = {"rope_factors_long.weight", "rope_factors_short.weight"}
    if keys.rope_type == "longrope" and not factors <= set(header.tensors):
        yield Finding(
            1,
            "wrong",
            "the scaling is longrope and its factors (rope_factors_long, rope_factors_short) are not in the file; convert it again",
        )
    if "rope_freqs.weight" in header.tensors:
        yield Finding(
            1, "note", "a tensor rope_freqs divides each pair's inv_freq (Llama 3); a header does not show by how much"
        )
    if header.architecture == "gptneox" and header.get("rope.freq_base") is None:
        yield Finding(
            1,
            "note",
            "the converter writes no RoPE key for GPT-NeoX: if the model was extended, run it with --rope-freq-scale 1/factor",
        )


def _window(header: Header, keys: Keys) -> Iterator[Finding]:
    """3. The context length is the window that the scaling is for."""
    if keys.positions <= 0:
        yield Finding(
            3,
            "wrong",
            f"{header.architecture}.context_length is missing, and llama.cpp does not load the file without it; convert it again",
        )
        return
    original, factor = keys.original, keys.entry["factor"]
    if keys.rope_type == "yarn" and header.get("rope.scaling.original_context_length") is None:
        yield Finding(
            3,
            "wrong",
            "a YaRN file names rope.scaling.original_context_length; without it llama.cpp lays the ramp out for the new window",
        )
    elif keys.rope_type == "yarn" and round(original * factor) != keys.positions:
        yield Finding(
            3,
            "note",
            f"the scaling is for {original} × {factor:g} = {round(original * factor)} tokens, the context length says {keys.positions}",
        )


def _tokenizer(header: Header) -> Iterator[Finding]:
    """5. There is a tokenizer, its pre-tokenizer is named, and every token has a row of the embedding."""
    tokens, shape = header.keys.get("tokenizer.ggml.tokens"), header.tensors.get("token_embd.weight")
    if not isinstance(tokens, list):
        yield Finding(
            5,
            "wrong",
            "there is no tokenizer in the file (tokenizer.ggml.tokens); convert it again beside its tokenizer",
        )
        return
    if shape and len(shape) == 2 and len(tokens) > shape[1]:
        yield Finding(
            5,
            "wrong",
            f"the tokenizer has {len(tokens)} tokens and the embedding {shape[1]} rows; convert the model again",
        )
    if header.keys.get("tokenizer.ggml.model") == "gpt2" and header.keys.get("tokenizer.ggml.pre") in (None, "default"):
        yield Finding(
            5, "note", "no pre-tokenizer is named (tokenizer.ggml.pre), and llama.cpp splits text by its own default"
        )


def _import(keys: Keys) -> Iterator[Finding]:
    """11. What transformers loses."""
    if keys.entry["factor"] != 1:
        yield Finding(
            11,
            "note",
            "transformers (from_pretrained with gguf_file) leaves the scaling out: load the directory that the file was made from",
        )


def _rows(header: Header, keys: Keys) -> Iterator[ReaderRow]:
    own = _inv_freq(keys)
    kept = header.architecture == "gpt-oss"
    imported = own if kept else spectra.unscaled(keys)
    refusal = None if keys.rope_type in _TYPES else f"llama.cpp knows no rope.scaling.type {keys.rope_type!r}"
    for name in ("llama.cpp", "ollama", "transformers 5"):
        reader, computed = READERS[name], imported if name == "transformers 5" else own
        row = ReaderRow(
            name, reader.version, keys.positions or None, refusal=None if name == "transformers 5" else refusal
        )
        if computed is not None:
            differs = own is not None and not np.allclose(computed, own, rtol=1e-5, atol=0)
            row = replace(row, first=float(computed[0]), last=float(computed[-1]), inv_freq_differs=differs)
        yield row
