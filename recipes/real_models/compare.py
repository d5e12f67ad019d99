"""Do transformers 4, llama.cpp, vLLM and MLX continue real extended models past the original window as transformers 5 does?

    python recipes/real_models/fetch.py real
    make readers                                             # their environments, in .readers
    python recipes/real_models/compare.py real --out real/compared      an hour on two cores

Each model is extended (factor 2; by PI and YaRN, or --methods), exported for llama.cpp and vLLM, or --readers, and given a prompt
longer than its original window: Python's standard library. Transformers 5 in float32 says which 8 tokens follow; the readers are asked for theirs. Nothing is trained, so what
is compared is arithmetic and no merit. What stands in OUT already is left as it is, so that an interrupted run goes on. The table stands in
docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import transformers

from ropewalk.exports import export
from ropewalk.model.extend import extend

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "readers"))
from in_transformers import continued  # noqa: E402

#: The directory that fetch.py makes → the original window, and how far past it the prompt goes, in tokens.
MODELS = {"smollm2-135m": (8192, 256), "gemma-3-270m": (32768, 64)}
METHODS = ("linear", "yarn", "ntk", "llama3")
#: Reader → what is exported for it, its environment and its script.
READERS = {
    "llama.cpp": ("llama.cpp", "llama.cpp", "in_llama_cpp.py"),
    "vllm": ("vllm", "vllm", "in_vllm.py"),
    "transformers-4": ("transformers", "transformers-4", "in_transformers.py"),
    "mlx": ("mlx", "mlx", "in_mlx.py"),
}
FACTOR, NEW = 2, 8
TEXT = "def walk(rope, tokens=12345):\n    # don't turn 'some' of them\n    return rope\n"


def prompt(tokenizer: Any, length: int) -> list[int]:
    """The standard library's modules by name, from their beginnings."""
    words, ids = "", []
    for path in sorted(Path(os.__file__).parent.glob("*.py")):
        words += path.read_text(encoding="utf-8")
        if len(words) > 6 * length:
            break
    ids = tokenizer(words)["input_ids"]
    assert len(ids) >= length
    return ids[:length]


def asked(
    reader: str, directory: Path, ids: list[int], window: int, tokenizer: Any, environments: Path
) -> dict[str, Any]:
    """What a reader says, from its own environment."""
    _, environment, script = READERS[reader]
    job = {"name": "it", "path": str(directory), "ids": ids, "positions": [], "new": NEW, "text": TEXT, "vocabulary": 20,
           "text_ids": tokenizer(TEXT)["input_ids"], "window": window, "letter": tokenizer(" a", add_special_tokens=False)["input_ids"][-1]}  # fmt: skip
    questions, answers = directory / "jobs.json", directory / "results.json"
    if answers.exists():
        return json.loads(answers.read_text())["it"]
    questions.write_text(json.dumps([job]))
    python = environments.absolute() / environment / "bin" / "python"
    outside = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    outside["VLLM_CPU_KVCACHE_SPACE"] = "3"
    subprocess.run([python, ROOT / "tests" / "readers" / script, questions, answers], env=outside, check=True)
    return json.loads(answers.read_text())["it"]


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("models", type=Path)
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--environments", type=Path, default=ROOT / ".readers")
    options.add_argument("--only", choices=MODELS, nargs="*", default=list(MODELS))
    options.add_argument("--methods", choices=METHODS, nargs="*", default=METHODS[:2])
    options.add_argument("--readers", choices=READERS, nargs="*", default=list(READERS)[:2])
    arguments = options.parse_args()
    print(
        "| model | method | tokens | reader | greedy tokens | log-probabilities | window | tokenizer | seconds |\n"
        + "|---" * 9
        + "|"
    )
    for name in arguments.only:
        original, beyond = MODELS[name]
        tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.models / name)
        ids = prompt(tokenizer, original + beyond)
        for method in arguments.methods:
            extended = arguments.out / f"{name}-{method}"
            if not extended.exists():
                extend(arguments.models / name, window=FACTOR * original, method=method, out=extended)
            # Written before anything reads beside it: transformers loads one model at a time in a process.
            exported = {reader: export_for(reader, extended) for reader in arguments.readers}
            # The readers, one after the other, while transformers reads here.
            with ThreadPoolExecutor(max_workers=1) as beside:
                answers = {
                    reader: beside.submit(timed, reader, out, ids, FACTOR * original, tokenizer, arguments.environments)
                    for reader, out in exported.items()
                }
                wanted = reference(extended, ids)
            for reader, answer in answers.items():
                found, seconds = answer.result()
                print(
                    f"| {name} | {method} | {len(ids)} | {reader} | {compared(found, wanted)} | {seconds:.0f} |",
                    flush=True,
                )


def reference(directory: Path, ids: list[int]) -> dict[str, Any]:
    """`continued`, kept beside the model, so that what was interrupted goes on."""
    kept = directory / "reference.json"
    if not kept.exists():
        model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        with torch.no_grad():
            kept.write_text(json.dumps(continued(model, ids, NEW)))
    return json.loads(kept.read_text())


def export_for(reader: str, extended: Path) -> Path:
    """The directory of a reader's export, which is written if it is not there."""
    out = extended.with_name(f"{extended.name}-{reader}")
    if not out.exists():
        export(extended, reader=READERS[reader][0], out=out, gguf_type="f32")
    return out


def timed(
    reader: str, out: Path, ids: list[int], window: int, tokenizer: Any, environments: Path
) -> tuple[dict[str, Any], float]:
    """What a reader makes of its export, and the seconds it took to answer."""
    started = time.time()
    return asked(reader, out, ids, window, tokenizer, environments), time.time() - started


def compared(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    """The cells of a reader's row."""
    if "error" in found:
        return found["error"]
    same = sum(a == b for a, b in zip(found["tokens"], wanted["tokens"], strict=True))
    off = max(abs(a - b) for a, b in zip(found["chosen"], wanted["chosen"], strict=True))
    text = "the same" if found["text"] else "ANOTHER"
    return (
        f"{same} of {NEW} (nearest other {wanted['gap']:.2f} nats away) | within {off:.0e} | {found['window']} | {text}"
    )


if __name__ == "__main__":
    sys.exit(main())
