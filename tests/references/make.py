"""What ropewalk computes on a CPU, as numbers to compare with: 20 steps of each way to train, and two measurements.

usage: python tests/references/make.py                       write cpu.json beside this file
       python tests/references/make.py --out other.json      write elsewhere, as tests/test_golden.py does

in   nothing: the models' weights and all text are drawn here, by generators whose numbers never change
out  JSON: the environment (processor, torch, threads), and per run each step's loss and gradient norm and a digest of the
     final weights; floats with all the digits it takes to read back the same bits

A reference is made again only by a change that means to change what is computed, and that change says so.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# Before torch starts: the order of a sum depends on the number of threads.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np
import safetensors.torch
import torch

import ropewalk
from ropewalk import testing

CPU_REFERENCE = Path(__file__).with_name("cpu.json")
STEPS = 20
#: Tokens: what the tiny models were made for, and what they are trained at.
SHORT, LONG = 64, 96
SHARED: dict[str, Any] = dict(
    window=LONG,
    method="linear",
    steps=STEPS,
    batch_size=4,
    micro_batch=2,
    learning_rate=1e-3,
    warmup=20,
    save_every=0,
    seed=7,
)
#: One process each: the family of the model, and how it is trained.
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("llama", dict()),
    "lora": ("llama", dict(mode="lora")),
    "pose": ("llama", dict(mode="pose")),
    "documents": ("llama", dict(mask_documents=True)),
    "yarn": ("qwen3", dict(method="yarn")),
    "two_rope_tables": ("gemma3_text", dict()),
}
#: Two processes joined by gloo, on the llama.
PAIRS: dict[str, list[str]] = {
    "two_processes": [],
    "two_processes_one_window": ["--cp", "2", "--mask-documents"],
}
#: Of the processor: what decides which kernels run.
_FLAGS = ("avx", "avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "asimd", "sve")


def environment() -> dict[str, Any]:
    """What the last bit of a result may depend on."""
    return dict(
        machine=platform.machine(),
        processor=_cpuinfo("model name"),
        flags=[flag for flag in _FLAGS if flag in _cpuinfo("flags").split()],
        kernels=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__,
        threads=torch.get_num_threads(),
    )


def _cpuinfo(field: str) -> str:
    """A field of the first processor; "" where the system does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field), "")


def write_model(directory: Path, family: str) -> Path:
    """A tiny model whose weights come from a generator of ours, since those of transformers may change with its version."""
    model = testing.tiny(family, SHORT)
    generator = np.random.RandomState(0)  # its numbers are promised to stay what they are
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            drawn = torch.from_numpy(generator.standard_normal(tuple(parameter.shape)).astype(np.float32))
            parameter.copy_(0.02 * drawn if parameter.dim() > 1 else 1 + 0.02 * drawn)
    model.save_pretrained(directory)
    testing.byte_tokenizer(SHORT).save_pretrained(directory)
    return directory


def write_documents(path: Path, count: int, words: int) -> Path:
    """JSON lines, a made-up document each."""
    rows = [json.dumps({"name": f"d{number}", "text": testing.prose(words, number)}) for number in range(count)]
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def trajectory(out: Path) -> dict[str, Any]:
    """Losses, gradient norms and a digest of the weights that a run left in a directory."""
    rows = [json.loads(line) for line in (out / "records.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = {row["step"]: row for row in rows if row.get("kind") == "step"}
    return dict(
        loss=[steps[number]["loss"] for number in sorted(steps)],
        grad_norm=[steps[number]["grad_norm"] for number in sorted(steps)],
        weights=digest(out),
    )


def digest(directory: Path) -> str:
    """sha256 over the name, dtype, shape and bytes of every tensor of a checkpoint, in the order of the names."""
    tensors = {
        name: tensor
        for path in directory.glob("*.safetensors")
        for name, tensor in safetensors.torch.load_file(path).items()
    }
    hashed = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        hashed.update(tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return hashed.hexdigest()


def train_alone(place: Path) -> dict[str, Any]:
    """Every run of one process."""
    results = {}
    for name, (family, options) in RUNS.items():
        ropewalk.train(
            place / family,
            data=[place / "train.jsonl"],
            out=place / name,
            device="cpu",
            threads=1,
            **{**SHARED, **options},
        )
        results[name] = trajectory(place / name)
    return results


def train_in_pairs(place: Path) -> dict[str, Any]:
    """Every run of two processes, through the command line."""
    shared = [part for name, value in SHARED.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    shared += ["--device", "cpu", "--threads", "1", "--data", str(place / "train.jsonl")]
    results = {}
    for name, options in PAIRS.items():
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command = [*launch, "-m", "ropewalk", "train", str(place / "llama"), "--out", str(place / name)]
        done = subprocess.run([*command, *shared, *options], capture_output=True, text=True, timeout=200)
        if done.returncode:
            raise RuntimeError(f"{name} ended with {done.returncode}:\n{done.stderr[-3000:]}")
        results[name] = trajectory(place / name)
    return results


def measure(place: Path) -> dict[str, Any]:
    """Perplexity on made-up text and passkey, both of hemp, inside its window of 256 tokens and past it."""
    perplexities = ropewalk.perplexity(
        "hemp", data=[place / "held-out.jsonl"], windows=[128, 512], stride=64, device="cpu"
    )
    retrieved = [
        ropewalk.passkey("hemp", window=window, depths=4, trials=3, seed=7, device="cpu") for window in (256, 320)
    ]
    return dict(
        perplexity=[_facts(row, "window tokens perplexity low high") for row in perplexities],
        passkey=[
            [_facts(row, "window k placed trials successes digits_right") for row in depths] for depths, _ in retrieved
        ],
        passkey_summary=[_facts(summary, "window k_max accuracy") for _, summary in retrieved],
    )


def _facts(row: Any, names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names.split()}


def results() -> dict[str, Any]:
    """Everything, in a directory of its own."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["ROPEWALK_CACHE"] = str(place / "cache")
        write_documents(place / "train.jsonl", count=12, words=80)
        write_documents(place / "held-out.jsonl", count=3, words=700)
        for family in dict.fromkeys(family for family, _ in RUNS.values()):
            write_model(place / family, family)
        measured = measure(place)
        return dict(environment=environment(), runs=train_alone(place) | train_in_pairs(place), measured=measured)


def recorded() -> dict[str, Any]:
    """When and with what a reference was made: for its readers, nothing is compared with it."""
    import transformers

    asked = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short", "HEAD"]
    commit = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    versions = dict(python=platform.python_version(), numpy=np.__version__, transformers=transformers.__version__)
    return dict(commit=commit, ropewalk=ropewalk.__version__, platform=platform.platform(), **versions)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=CPU_REFERENCE)
    out = parser.parse_args().out
    out.write_text(json.dumps(dict(recorded=recorded(), **results()), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
