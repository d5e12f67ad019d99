"""README.md of a checkpoint, the model card: what every one says, and whether a person has written in it.

in   what a model was made from, its windows and its history; sentences and sections of whoever measured it
out  Markdown with the front matter that the hub reads, and a last line by which an edited card is known

**The seal.** The last line is a comment that names the base and holds a hash of everything above it. A card whose seal is not broken may
be written anew; any other README is somebody's, and stays.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ropewalk.checkpoint import guard, half_written
from ropewalk.checkpoint.licence import licence_of
from ropewalk.checkpoint.model_info import ModelInfo
from ropewalk.errors import read_text

README, BASE_README = "README.md", "README.base.md"
_SEAL = re.compile(r"<!-- ropewalk (?P<words>\{.*\}) -->\n?")
#: What a card takes over from the front matter of its base's.
_INHERITED = ("language",)
#: What `ropewalk export` writes of an export, beside it.
EXPORT = "export.json"
#: The hub's word for what a reader's files are, where that is not transformers.
_LIBRARIES = {"mlx": "mlx", "llama.cpp": "gguf", "ollama": "gguf", "peft": "peft"}
NOT_MEASURED = "was not measured when this was written"
_COLUMNS = ("from", "to", "method", "factor")
_USE = """## Use

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

path = "."  # this directory, or owner/name once it is on the hub
model = AutoModelForCausalLM.from_pretrained(path)
tokenizer = AutoTokenizer.from_pretrained(path)
```

Its positions are in config.json and its weights; no code of ropewalk is needed to run it."""


@dataclass(frozen=True)
class ModelCard:
    """What a card says.

    Attributes:
        base: what the model was made from is called.
        info: of the model.
        history: of the `ropewalk` block: every extension, oldest first.
        said: one or more sentences: how far it was trained, how far it holds.
        sections: in Markdown, between what was done and how it is used.
    """

    base: str
    info: ModelInfo
    history: list[dict[str, Any]]
    said: str
    sections: tuple[str, ...] = ()

    def text(self, directory: Path) -> str:
        """The card of a model in `directory`, where its base's may lie as README.base.md."""
        about = f"# {self.base}, {self.info.window} tokens"
        original = f"{BASE_README} is the card of the original." if (directory / BASE_README).is_file() else ""
        fields, sentence = licence_of(front_matter_of(directory / BASE_README), directory)
        front, licence = _front(self.base, directory, fields), f"## Licence\n\n{sentence}"
        parts = [front, about, self.said, self._history(), *self.sections, _use(directory), licence, original]
        return _sealed("\n\n".join(part for part in parts if part) + "\n", self.base)

    def _history(self) -> str:
        if not self.history:
            return ""
        rows = ["| " + " | ".join(_shown(step.get(name, "")) for name in _COLUMNS) + " |" for step in self.history]
        head = [f"| {' | '.join(_COLUMNS)} |", "|---" * len(_COLUMNS) + "|"]
        done = "extended" if self.info.window > self.info.original_window else "trained on in that window"
        return "\n".join([f"Pretrained at {self.info.original_window} tokens, then {done}:\n", *head, *rows])


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def called(name: str, path: Path) -> str:
    """What the base of a model made from `path` is called: as that one's own base, if ropewalk made it; a directory by its last part."""
    if name == guard.EMBEDDED:
        return name
    if base := base_in(path / README):
        return base
    if cached := re.search(r"models--([^/]+)--([^/]+)/snapshots/", str(path)):
        return f"{cached[1]}/{cached[2]}"
    return half_written.known_as(path.resolve()).name if Path(name).exists() else name


def is_hub_id(base: str) -> bool:
    """Whether a base is called as models on the hub are."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base, re.ASCII) is not None and not base.startswith(".")


def base_in(readme: Path) -> str:
    """What the card that ropewalk wrote there names as the base, edited or not; nothing of another README."""
    return str(_words(_read(readme))[1].get("base", ""))


def is_theirs(readme: Path) -> bool:
    """Whether there is a README that ropewalk did not write, or that was edited since."""
    if not os.path.lexists(readme):
        return False
    sealed, words, after = _words(_read(readme))
    return bool(after) or words.get("seal") != _hash(sealed)


def by_skipping(chunk: int, window: int) -> str:
    """How mode pose trains, in a sentence. chunk, window: tokens that are read at a time, and positions at which they are placed."""
    return f"by positional-skip training, in chunks of {chunk} tokens placed at positions up to {window}"


def not_measured(info: ModelInfo, chunk: int | None = None, *, model: str = ".") -> str:
    """What is said of a model of which nothing is on record but how it was made.

    Args:
        info: of the model.
        chunk: tokens of one, if positions were skipped.
        model: as a command names it; the directory of its card if not given.
    """
    short, window = info.original_window, info.window
    done = f"Extended, not trained, to {window} tokens"
    if info.steps:
        how = f" {by_skipping(chunk, window)}" if chunk else ""
        done = f"Trained to {window} tokens ({info.trained}){how}"
    there = f", and what became of the short window of {short} tokens," if window > short else ""
    windows = " ".join(map(str, sorted({short, window})))
    return (
        f"{done}; it {NOT_MEASURED}, so that what it holds to{there} is not known. Measure it and its base alike "
        f"(ropewalk perplexity {model} --data … --windows {windows} --out FILE.jsonl); ropewalk card {model} --records FILE.jsonl writes it down."
    )


def say_export(directory: Path) -> bool:
    """Have the card that an export took over from its model say how the export is used; False where somebody wrote in it, and it stays."""
    readme = directory / README
    if is_theirs(readme):
        return False
    text, words, _ = _words(_read(readme))
    text = text.replace(_USE, _use(directory), 1)
    text = text.replace("\nlibrary_name: transformers\n", f"\nlibrary_name: {_library(directory)}\n", 1)
    readme.write_text(_sealed(text, str(words.get("base", ""))), encoding="utf-8")
    return True


def _use(directory: Path) -> str:
    """The section that says how the files are used: as transformers reads them, or what an export was written for."""
    export = _export(directory)
    reader, command = export.get("reader", "transformers"), export.get("here")
    if reader == "transformers" or not command:
        return _USE
    gguf = next((path.name for path in sorted(directory.glob("*.gguf"))), None)
    is_written = f"the weights are in {gguf}" if gguf else "safetensors, and a config as it reads one"
    return f"## Use\n\nWritten for {reader} by `ropewalk export`: {is_written}. In this directory:\n\n    {command}"


def _library(directory: Path) -> str:
    return _LIBRARIES.get(_export(directory).get("reader", ""), "transformers")


def _export(directory: Path) -> dict[str, str]:
    """What an export says of itself; empty of anything else."""
    try:
        content = json.loads(_read(directory / EXPORT))
    except (ValueError, RecursionError):
        return {}
    return (
        {name: value for name, value in content.items() if isinstance(value, str)} if isinstance(content, dict) else {}
    )


def _sealed(text: str, base: str) -> str:
    words = json.dumps({"base": base.replace("-->", ""), "seal": _hash(text)})
    return f"{text}<!-- ropewalk {words} -->\n"


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="backslashreplace")).hexdigest()[:16]


def _words(text: str) -> tuple[str, dict[str, Any], str]:
    """A card before its seal, what the seal says, and what stands after it; no words in a README that is no card."""
    seal = next(reversed(list(_SEAL.finditer(text))), None)
    try:
        words = json.loads(seal["words"]) if seal else {}
    except ValueError:
        words = {}
    return (text[: seal.start()], words, text[seal.end() :]) if seal else (text, words, "")


def _read(readme: Path) -> str:
    """A README, or nothing if it cannot be read."""
    try:
        return read_text(readme)
    except (OSError, ValueError):
        return ""


def _front(base: str, directory: Path, licence: dict[str, Any]) -> str:
    """The front matter that the hub reads. A base is named there only if it lies on the hub; else what its own card says that it was made from."""
    of_base = front_matter_of(directory / BASE_README)
    fields: dict[str, Any] = {"base_model": base, "base_model_relation": "finetune"} if is_hub_id(base) else {}
    if not fields and "base_model" in of_base:
        fields["base_model"] = of_base["base_model"]
    fields |= licence | {name: of_base[name] for name in _INHERITED if name in of_base}
    fields |= {
        "library_name": _library(directory),
        "pipeline_tag": "text-generation",
        "tags": ["ropewalk", "long-context"],
    }
    return f"---\n{yaml.safe_dump(fields, sort_keys=False, allow_unicode=True)}---"


def front_matter_of(readme: Path) -> dict[str, Any]:
    """What the hub reads at the head of a card; empty where there is none, or none that can be read."""
    front_matter = re.match(r"---\n(.*?)\n---", _read(readme), re.DOTALL)
    try:
        fields = yaml.safe_load(front_matter[1]) if front_matter else None
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}
