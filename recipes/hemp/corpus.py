"""hemp's text: Python source of this machine, without the validation and held-out modules in any copy.

in   the standard library's training modules, and the source of the packages installed beside this interpreter
out  a folder: tokenizer.json, train.npy (the packages' tokens, uint16, BOS before each document), stdlib.npy (the same
     of the library's training modules, which are kept for fine-tuning), validation.npz (one array a module), corpus.json (what went in, with a hash)

A file is left out when a fiftieth of its five-line runs, or twenty of them, also stand in a validation or held-out
module: vendored copies, forks and back-ports carry other names.

    python recipes/hemp/corpus.py --out build/hemp
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sysconfig
from collections import defaultdict
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from ropewalk.data.recall import FORBIDDEN, prose
from ropewalk.data.stdlib import split_of, standard_library

VOCABULARY = 2048
#: A word with the blank before it, one digit, punctuation to the line's end, indentation.
PIECES = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
PER_PACKAGE = 8_000_000  # characters: no single package may set the tone


def runs(text: str, length: int = 5) -> set[int]:
    """Hashes of every run of `length` consecutive lines, blank and one-word lines skipped."""
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if len(line) > 8]
    return {hash("\n".join(lines[i : i + length])) for i in range(len(lines) - length + 1)}


def read(path: Path) -> str | None:
    """A file's text, or None where it is not plain source: tables, generated or foreign text."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return None
    if not 500 < len(text) < 400_000 or not text.isascii():
        return None
    if any(phrase in text.lower() for phrase in FORBIDDEN):
        return None
    if sum(map(str.isdigit, text)) > 0.08 * len(text) or max(map(len, text.splitlines())) > 400:
        return None
    return text


def packages(root: Path, others: list[Path]) -> dict[str, list[Path]]:
    """Source files by top-level package, in a fixed shuffled order."""
    found = defaultdict(list)
    for folder in [root, *others]:
        for path in sorted(folder.rglob("*.py")):
            found[path.relative_to(folder).parts[0]].append(path)
    for name, paths in found.items():
        random.Random(name).shuffle(paths)
    return dict(sorted(found.items()))


def collect(libraries: list[Path], site: Path, others: list[Path]) -> tuple[list[str], list[str], dict]:
    """Training documents of the standard library and of the packages, and what was counted on the way."""
    kept_away: set[int] = set()
    for library in libraries:  # every version of the library that is at hand, since copies may stem from any
        for path in sorted(library.rglob("*.py")):
            if "site-packages" not in path.parts and split_of(path.relative_to(library)) in ("validation", "held_out"):
                kept_away |= runs(path.read_text(encoding="utf-8", errors="replace"))
    seen: set[str] = set()
    counts = dict(copies_left_out=[], duplicates=0)

    def keep(path: Path) -> str | None:
        text = read(path)
        if text is None:
            return None
        digest = hashlib.sha256(text.encode()).hexdigest()
        own = runs(text)
        shared = len(own & kept_away)
        if shared >= 20 or shared > 0.02 * len(own):
            counts["copies_left_out"].append("/".join(path.parts[-3:]))
        elif digest in seen:
            counts["duplicates"] += 1
        else:
            seen.add(digest)
            return text
        return None

    library_texts = [text for path in standard_library("train") if (text := keep(path))]
    package_texts = []
    for paths in packages(site, others).values():
        room = PER_PACKAGE
        for path in paths:
            if room > 0 and (text := keep(path)):
                package_texts.append(text)
                room -= len(text)
    return library_texts, package_texts, counts


def train_tokenizer(texts: list[str], seed: int) -> Tokenizer:
    """A byte-level BPE with every digit a token; a share of exercises keeps plain English from falling to pieces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    rng = random.Random(seed)
    sample = rng.sample(texts, min(len(texts), 3000))
    sentences = prose(rng, sum(map(len, sample)) // 3)
    tokenizer.train_from_iterator([*sample, *sentences], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return tokenizer


def encode(tokenizer: Tokenizer, texts: list[str]) -> np.ndarray:
    """One flat array of token ids, BOS before each document."""
    pieces = []
    for start in range(0, len(texts), 500):
        for encoding in tokenizer.encode_batch(texts[start : start + 500]):
            pieces.append(np.array(encoding.ids, dtype=np.uint16))
    return np.concatenate(pieces)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--library", type=Path, action="append", default=[], help="further standard libraries to keep apart"
    )
    parser.add_argument("--packages", type=Path, action="append", default=[], help="further folders of packages")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)

    own = Path(sysconfig.get_path("stdlib"))
    library, package, counts = collect(
        [own, *arguments.library], Path(sysconfig.get_path("purelib")), arguments.packages
    )
    tokenizer = train_tokenizer(library + package, arguments.seed)
    tokenizer.save(str(arguments.out / "tokenizer.json"))
    random.Random(arguments.seed).shuffle(package)
    tokens = encode(tokenizer, package)
    np.save(arguments.out / "train.npy", tokens)
    np.save(arguments.out / "stdlib.npy", encode(tokenizer, library))
    validation = {
        path.stem if path.stem != "__init__" else path.parent.name: path for path in standard_library("validation")
    }
    np.savez(
        arguments.out / "validation.npz",
        **{name: encode(tokenizer, [path.read_text(encoding="utf-8")]) for name, path in validation.items()},
    )
    summary = dict(
        library_files=len(library),
        library_characters=sum(map(len, library)),
        package_files=len(package),
        package_characters=sum(map(len, package)),
        tokens=len(tokens),
        sha256=hashlib.sha256(tokens.tobytes()).hexdigest(),
        **counts,
    )
    (arguments.out / "corpus.json").write_text(json.dumps(summary, indent=1))
    print(json.dumps({**summary, "copies_left_out": len(counts["copies_left_out"])}, indent=1))


if __name__ == "__main__":
    main()
