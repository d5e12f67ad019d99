"""The checks of what lies beside config.json: tokenizer, adapter, weights.

in   a `Subject`
out  findings, a sentence each: rule, value, way out
"""

from __future__ import annotations

import contextlib
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import OWN_ADAPTER, is_own_adapter, without_its_config
from ropewalk.checkpoint.headers import tensors
from ropewalk.checkpoint.links import links_out
from ropewalk.checkpoint.own_code import own_code as code_of
from ropewalk.checkpoint.tensor_problems import embedding_rows, special_ids, tokens_of
from ropewalk.checkpoint.tokenizer_config import ONLY_V5, has_tokenizer, tokenizer_elsewhere
from ropewalk.errors import UserError
from ropewalk.readers.diagnosis import Finding
from ropewalk.readers.rules import READERS
from ropewalk.readers.small_files import template_faults, tokenizer_faults, unreadable
from ropewalk.readers.spelling_checks import same
from ropewalk.readers.stored_rotation import STORED
from ropewalk.readers.subject import Subject
from ropewalk.sentences import joined

#: Problems of the tensors that other tools may be at ease with: they are said, and are no fault of the files.
_NO_FAULT = ("quantised weights", "pickles")
#: Dtypes that a config may name, by what safetensors calls them.
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


def tokenizer(subject: Subject) -> Iterator[Finding]:
    """5. The tokenizer opens in transformers 4.57 too, which llama.cpp's converter runs on, and its chat templates can be parsed."""
    config, path = subject.tokenizer_config, subject.path
    yield from _small_files(path)
    if elsewhere := tokenizer_elsewhere(path):
        yield Finding(5, "note", elsewhere, stops=True)
    if not has_tokenizer(path):
        if subject.adapter:
            yield Finding(5, "note", "no tokenizer lies here; the adapter's base has it")
        else:
            yield Finding(
                5, "not checked", "no tokenizer lies here; put the files of the model's own beside config.json"
            )
        return
    name = config.get("tokenizer_class")
    if name in ONLY_V5:
        yield Finding(
            5,
            "wrong",
            f"tokenizer_class is {name}, which transformers 4 and llama.cpp's converter do not know; copy the tokenizer files of the model it "
            "was made from" + (", or run ropewalk doctor --fix" if (path / "tokenizer.json").is_file() else ""),
        )
    if isinstance(config.get("extra_special_tokens"), list):
        yield Finding(
            5,
            "wrong",
            "extra_special_tokens is a list, as transformers 5 writes it; version 4 takes an object there: ropewalk doctor --fix names the "
            "key additional_special_tokens, which both read",
        )
    yield from _of_another_model(subject)


def _of_another_model(subject: Subject) -> Iterator[Finding]:
    """5. Signs that the tokenizer is another model's: far fewer tokens than rows, and a first or last token that the config has elsewhere."""
    tokens, rows, signs = tokens_of(subject.path), 0, list[str]()
    if not tokens or not subject.config:
        return
    with contextlib.suppress(UserError):  # weights that cannot be read are said by check 10
        rows = embedding_rows(subject.checkpoint) or 0
    if len(tokens) < rows / 2:
        signs.append(f"it has {len(tokens)} tokens and the embedding {rows} rows")
    ids = list(special_ids(subject.checkpoint))
    for key in ("bos_token", "eos_token"):
        token = subject.tokenizer_config.get(key)
        spelled = token.get("content") if isinstance(token, dict) else token
        number = tokens.get(spelled) if isinstance(spelled, str) else None
        named = {each for _, of, each in ids if of == f"{key}_id"}
        if number is not None and named and number not in named:
            signs.append(
                f"its {key} {spelled!r} is {number} and the config's {key}_id {joined([str(each) for each in sorted(named)])}"
            )
    if signs:
        yield Finding(
            5,
            "note",
            f"the tokenizer may be another model's: {joined(signs)}; hold it against the files of the model that this was made from, and put theirs "
            "here, or the tokenizer's own ids into the config where it was changed on purpose",
        )


def _small_files(directory: Path) -> Iterator[Finding]:
    of_templates = template_faults(directory)
    if of_templates is None:
        yield Finding(5, "not checked", "whether its chat template can be parsed needs jinja2: pip install jinja2")
    yield from (
        Finding(5, "wrong", fault, stops=True) for fault in [*tokenizer_faults(directory), *(of_templates or ())]
    )


def adapter(subject: Subject) -> Iterator[Finding]:
    """8. An adapter names its base, has a type that peft knows, and its base rotates as it was trained."""
    about = subject.adapter
    if not about:
        return
    kind, base = about.get("peft_type"), about.get("base_model_name_or_path")
    own = is_own_adapter(about)
    if own:
        yield Finding(
            8,
            "note",
            f"peft_type is {OWN_ADAPTER}, which plain peft stops at, so that no adapter lands on a model with another rotation; "
            "`ropewalk export --for peft` writes one that it loads",
        )
        if not subject.config:
            yield Finding(8, "wrong", without_its_config(subject.path))
    elif kind != "LORA":
        yield Finding(8, "note", f"peft_type is {kind!r}, and ropewalk knows LORA alone")
    if not isinstance(base, str | None):
        yield Finding(8, "wrong", f"base_model_name_or_path is a name, got {base!r}; write the base model's name there")
    elif base:
        yield from _base(subject, base, own)
    elif not subject.config:
        yield Finding(
            8,
            "wrong",
            "the adapter names no base_model_name_or_path and carries no config.json, so nobody can tell the rotation it was trained "
            "with; write the base model's name there",
        )
    if not any((subject.path / name).is_file() for name in ("adapter_model.safetensors", "adapter_model.bin")):
        yield Finding(
            8,
            "wrong",
            "there is no adapter_model.safetensors beside adapter_config.json; take the directory as it was written",
        )


def _base(subject: Subject, base: str, own: bool) -> Iterator[Finding]:
    """The base is there, and rotates as the adapter was trained; one of our own brings its rotation with it, onto whatever it began from."""
    path = next((path for path in (Path(base), subject.path / base) if path.is_dir()), None)
    if path is None:
        yield Finding(8, "not checked", f"the base {base} is no directory here")
        return
    try:
        config = Checkpoint.open(path).config
    except UserError as error:
        yield Finding(8, "wrong", f"the base {base} cannot be read: {error}")
        return
    reader = READERS["transformers 5"]
    if not own and subject.config and not same(reader.inv_freq(config), reader.inv_freq(subject.config)):
        yield Finding(
            8,
            "wrong",
            f"the base {base} does not rotate as the adapter's own config.json says it was trained; name the extended base",
        )


def files(subject: Subject) -> Iterator[Finding]:
    """10. The files hold one set of weights, whole, that fits the config and the tokenizer."""
    findings = list(_weights(subject))
    yield from findings
    said = " ".join(finding.sentence for finding in findings if finding.verdict == "wrong")  # an index, perhaps
    for fault in unreadable(subject.path):
        if fault.partition(" is a JSON file")[0] not in said:
            yield Finding(10, "wrong", fault, stops=True)


def files_and_dtype(subject: Subject) -> Iterator[Finding]:
    """10. As `files`; and the weights have the dtype that the config names."""
    findings = list(files(subject))
    yield from findings
    objected = any(finding.verdict in ("wrong", "not checked") for finding in findings)
    is_here = subject.checkpoint.has_weights and not subject.fetched
    if is_here and not objected and (sentence := _other_dtype(subject.checkpoint)):
        yield Finding(10, "note", sentence)


def _other_dtype(checkpoint: Checkpoint) -> str:
    """That the weights are of several dtypes, or most bytes of another than the config names; empty where neither is so."""
    named = checkpoint.config.get("dtype") or checkpoint.config.get("torch_dtype")
    named = named or checkpoint.text_config.get("dtype") or checkpoint.text_config.get("torch_dtype")
    said = str(named).removeprefix("torch.")
    sizes: Counter[str] = Counter()
    of_dtype: dict[str, list[str]] = {}
    for header in checkpoint.headers.values():
        for name, entry in tensors(header):
            if STORED.search(name):  # a buffer that was float32 whatever the weights were; check 7 reads it
                continue
            begin, end = entry["data_offsets"]
            sizes[dtype := _DTYPES.get(entry["dtype"], "")] += end - begin
            of_dtype.setdefault(dtype, []).append(name)
    most = max(sizes, key=lambda dtype: sizes[dtype], default="")
    others = {dtype: names for dtype, names in of_dtype.items() if dtype not in ("", most)}
    if most and others:
        listed = "; ".join(f"{len(names)} {dtype} ({names[0]})" for dtype, names in others.items())
        return (
            f"one set of weights, but of several dtypes: {len(of_dtype[most])} tensors {most}, {listed}; some models keep norms or routers in float32 "
            "on purpose, else a part was converted or taken from another checkpoint: hold it against the original"
        )
    if not most or said not in _DTYPES.values() or most == said:
        return ""
    return (
        f"one set of weights, but its headers say {most} and the config {said}, which transformers casts them to as it loads them: if they were "
        f"converted, write {most} there"
    )


def links(subject: Subject) -> Iterator[Finding]:
    """10. The files are the directory's own."""
    if places := links_out(subject.path):
        named = ", ".join(f"{name} -> {place}" for name, place in places.items())
        yield Finding(
            10,
            "note",
            f"links lead out of its directory: {named}; nobody looks below those to directories, weights are read and linked through theirs, "
            "and what is made of the model or uploaded of it has none of the others: if they are its own, put copies in their place",
        )


def _weights(subject: Subject) -> Iterator[Finding]:
    checkpoint: Any = subject.checkpoint
    if subject.fetched:
        why = "a hub model's weights are not fetched: download it (hf download NAME --local-dir DIR) and name the directory"
        yield Finding(10, "not checked", why)
        return
    if subject.adapter and not checkpoint.has_weights:
        yield Finding(10, "note", "an adapter's base has the weights")
        return
    if not _any(subject.path):
        gguf = next(iter(sorted(subject.path.glob("*.gguf"))), None)
        why = (
            f"the weights are in {gguf.name}: ropewalk doctor {shlex.quote(str(gguf))} examines it"
            if gguf
            else "no weights lie here"
        )
        yield Finding(10, "not checked", why)
        return
    try:
        problems = checkpoint.tensor_problems()
    except UserError as error:
        yield Finding(10, "wrong", str(error), stops=checkpoint.has_weights)
        return
    for problem in problems:
        yield Finding(10, "note" if problem.kind in _NO_FAULT else "wrong", problem.sentence, problem.stops)


def own_code(subject: Subject) -> Iterator[Finding]:
    """13. Code that comes with the model, which doctor neither reads nor runs."""
    if code := code_of(subject.path):
        yield Finding(
            13,
            "note",
            f"it brings code ({', '.join(code)}), which any program that is told to trust it runs as you; ropewalk runs and carries it with "
            "--trust-remote-code alone: read it first",
        )


def _any(directory: Path) -> bool:
    """Whether any file of weights, or an index of some, lies in a directory."""
    return any(
        path.name.endswith((".safetensors", ".index.json", ".bin", ".pt", ".pth")) for path in directory.iterdir()
    )
