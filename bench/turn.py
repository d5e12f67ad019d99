"""One tree's turn in `bench.compare`: train, perplexity, passkey, through doors that every version has.

    PYTHONPATH=TREE/src python -P bench/turn.py --tree TREE --out turn.json

in   a tree, whose ropewalk is the one that is imported
out  JSON: the device, and a row a measurement: its figures, its rates (per second), its peak memory (bytes)

A file that stands alone: it runs in trees older and newer than itself, so it imports nothing of theirs but what users may. On a
CPU all is hemp's, and rates are per CPU second. On a GPU training is the tree's own `bench.train` at 1 x 32768 (which needs
torchao), and what is measured is random weights of LLaMA 7B's shape in bfloat16: they know no passkey, so that this figure is 0
and its rate alone tells.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")

PARTS = ("train", "perplexity", "passkey")


@dataclass(frozen=True)
class Size:
    """How much is measured. Windows and strides are tokens; `windows` is of each document."""

    window: int
    stride: int
    windows: int
    passkey_window: int
    depths: int
    trials: int


SMALL = Size(window=1024, stride=128, windows=5, passkey_window=320, depths=8, trials=4)
LARGE = Size(window=32768, stride=256, windows=9, passkey_window=8192, depths=32, trials=4)
SEVEN_B = dict(
    hidden_size=4096, intermediate_size=11008, num_hidden_layers=32, num_attention_heads=32, vocab_size=32000
)
DOCUMENTS = 3


def row(what: str, figures: list[float], rates: list[float], peak: int) -> dict[str, Any]:
    """figures: what must not change. rates: tokens or prompts per second, each timed by itself. peak: bytes."""
    return dict(what=what, figures=figures, rates=rates, peak=peak)


def train_small(place: Path) -> dict[str, Any]:
    """hemp at 2 x 512, 12 steps, by `ropewalk.train`; loading and saving included, imports not."""
    import ropewalk

    shared: dict[str, Any] = dict(
        data=[write_documents(place / "train.jsonl")],
        window=512,
        method="linear",
        batch_size=2,
        micro_batch=2,
        save_every=0,
        device="cpu",
        threads=1,
    )
    ropewalk.train("hemp", steps=1, out=place / "warm", **shared)
    seconds = cpu_seconds(lambda: ropewalk.train("hemp", steps=12, out=place / "trained", **shared))
    losses = [line["loss"] for line in read_lines(place / "trained" / "records.jsonl") if line.get("kind") == "step"]
    return row("train hemp 2 x 512", losses, [12 * 2 * 512 / seconds], host_peak())


def train_large(place: Path, tree: Path) -> dict[str, Any]:
    """LLaMA 7B's shape at 1 x 32768, three timed steps, by the tree's own bench."""
    out = place / "train.json"
    options = "--who ropewalk --sizes 1x32768 --longest --rounds 1 --steps 3 --json".split()
    subprocess.run([sys.executable, "-m", "bench.train", *options, str(out)], cwd=tree, check=True)
    turn = json.loads(out.read_text(encoding="utf-8"))["turns"][-1]
    if turn["error"]:
        raise RuntimeError(f"bench.train in {tree}: {turn['error']}")
    rates = [turn["batch"] * turn["tokens"] / seconds for seconds in turn["seconds"][1:]]
    return row("train 7B 1 x 32768", turn["losses"], rates, int(turn["peak"] * 2**30))


def perplexity(place: Path, model: Any, tokenizer: Any, size: Size) -> dict[str, Any]:
    """Each document's nll. On a GPU the first document's time, in which things are compiled, is not counted."""
    import ropewalk

    reset_peak()
    out = place / "perplexity.jsonl"
    measure_it = partial(
        ropewalk.perplexity,
        model,
        data=[write_documents(place / "held-out.jsonl", words=size.window // 2 + size.windows * size.stride)],
        windows=[size.window],
        stride=size.stride,
        max_tokens=size.window + (size.windows - 1) * size.stride,
        limit=DOCUMENTS,
        out=out,
        **({"tokenizer": tokenizer} if tokenizer else {}),
    )
    seconds = cpu_seconds(measure_it)
    lines = [line for line in read_lines(out) if "document" in line and "nll" in line]
    tokens = size.windows * size.window
    rates = [tokens / line["seconds"] for line in lines[1:]] if tokenizer else [DOCUMENTS * tokens / seconds]
    return row(f"perplexity W {size.window} S {size.stride}", [line["nll"] for line in lines], rates, peak())


def passkey(model: Any, tokenizer: Any, size: Size) -> dict[str, Any]:
    """Right digits at each depth; prompts a second, on a GPU with what is compiled on the way."""
    import ropewalk

    reset_peak()
    measured: list[Any] = []
    options = {"tokenizer": tokenizer} if tokenizer else {}
    measure_it = partial(
        ropewalk.passkey, model, window=size.passkey_window, depths=size.depths, trials=size.trials, seed=7, **options
    )
    spent = cpu_seconds(lambda: measured.extend(measure_it()))
    depths, summary = measured
    rate = size.depths * size.trials / (summary.seconds if tokenizer else spent)
    return row(f"passkey W {size.passkey_window}", [float(depth.digits_right) for depth in depths], [rate], peak())


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Of this process, so that what else runs on the machine does not count."""
    begin = time.process_time()
    call()
    return time.process_time() - begin


def random_model() -> tuple[Any, Any]:
    """LLaMA 7B's shape on the GPU, the same weights each time, and a tokenizer that needs no file."""
    import torch
    import transformers

    from ropewalk import testing

    config = transformers.LlamaConfig(**SEVEN_B, max_position_embeddings=32768, attn_implementation="sdpa")
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    return model.eval(), testing.byte_tokenizer(32768)


def write_documents(path: Path, words: int = 1500) -> Path:
    """JSON lines, made-up documents."""
    from ropewalk import testing

    rows = [json.dumps({"name": f"d{number}", "text": testing.prose(words, number)}) for number in range(2 * DOCUMENTS)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def host_peak() -> int:
    """Bytes of this process at its largest."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def reset_peak() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak() -> int:
    """Bytes: of the GPU since `reset_peak`, else of this process since it began."""
    import torch

    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else host_peak()


def measure(tree: Path, parts: list[str], on_gpu: bool, place: Path) -> list[dict[str, Any]]:
    """A row a part, in their order. On a GPU the bench's process trains before this one takes any memory."""
    rows = []
    if "train" in parts:
        rows.append(train_large(place, tree) if on_gpu else train_small(place))
    if set(parts) - {"train"}:
        size = LARGE if on_gpu else SMALL
        model, tokenizer = random_model() if on_gpu else ("hemp", None)
        if "perplexity" in parts:
            rows.append(perplexity(place, model, tokenizer, size))
        if "passkey" in parts:
            rows.append(passkey(model, tokenizer, size))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the GPU if there is one")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    arguments = parser.parse_args()
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    import torch

    import ropewalk

    imported = Path(ropewalk.__file__).resolve()
    if not imported.is_relative_to(arguments.tree.resolve()):
        sys.exit(f"ropewalk must come from {arguments.tree}, got {imported}; set PYTHONPATH to {arguments.tree}/src")
    on_gpu = torch.cuda.is_available()
    if arguments.device == "cuda" and not on_gpu:
        sys.exit("--device cuda needs a GPU that torch can see, got none; leave it out to measure on the CPU")
    name = torch.cuda.get_device_name() if on_gpu else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        os.environ["ROPEWALK_CACHE"] = str(Path(folder) / "cache")
        rows = measure(arguments.tree, arguments.only, on_gpu, Path(folder))
    about = dict(device=name, on_gpu=on_gpu, torch=torch.__version__)
    arguments.out.write_text(json.dumps({**about, "rows": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
