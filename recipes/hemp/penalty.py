"""The paper's open question (arXiv 2306.15595, section 2.2): hemp pretrained with a penalty on |h_j| and without, and how far each extrapolates.

in   the folder corpus.py and exercises.py wrote
out  build/penalty/hemp-STEPS-hWEIGHT-sSEED, models that differ in the penalty's weight and the seed alone (pretrain.py), and held_out.jsonl, the held-out
     modules; lab/records/penalty/hemp-STEPS-hWEIGHT-sSEED, rows of `ropewalk ablate`: as it is and interpolated, untrained, at 1, 2 and 4 times the window

Models are trained side by side, as many as asked for on every GPU, and each is measured when all are there. The same command goes on: what lies there is not
made again. Nothing is chosen by these figures, so they are of held-out modules.

    python recipes/hemp/penalty.py --corpus build/hemp                 # 9 models of 3000 steps, as lab/grids.toml has them
    python recipes/hemp/penalty.py --corpus build/hemp --smoke         # to see that it runs: 2 models of 2 steps, below build/penalty-smoke alone
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import torch
from pretrain import WINDOW, refuse_missing

import ropewalk
from ropewalk.data.stdlib import standard_library

ROOT = Path(__file__).resolve().parents[2]
#: Says which tokenizer tokenizer.json is of.
_TOKENIZER = ROOT / "src/ropewalk/assets/hemp/tokenizer_config.json"
#: Weights, seeds and steps, which the page waits for.
GRID = tomllib.loads((ROOT / "lab/grids.toml").read_text(encoding="utf-8"))["penalty"]
_SMOKE = {
    "out": Path("build/penalty-smoke"),
    "records": Path("build/penalty-smoke/records"),
    "weights": [0.0, 0.01],
    "seeds": [0],
    "steps": 2,
    "pretrain": "--batch 4 --eager",
}


def _gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that this process sees; one that is none where it sees none."""
    if not torch.cuda.is_available():
        return [""]
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(number) for number in range(torch.cuda.device_count())]


def train(arguments: argparse.Namespace, models: dict[Path, tuple[float, int]]) -> None:
    """Pretrain the models that are not there, several at a time."""
    to_do = [out for out in models if not (out / "pretraining.json").exists()]
    refuse_missing(arguments.corpus)
    gpus = _gpus()
    for start in range(0, len(to_do), arguments.together * len(gpus)):
        running = []
        for number, out in enumerate(to_do[start : start + arguments.together * len(gpus)]):
            weight, seed = models[out]
            command = [sys.executable, str(Path(__file__).with_name("pretrain.py")), "--corpus", str(arguments.corpus), "--out", str(out)]  # fmt: skip
            command += [
                "--shape",
                "256,4,4,64,688",
                "--steps",
                str(arguments.steps),
                "--penalty",
                f"{weight:g}",
                "--seed",
                str(seed),
            ]
            own = {"CUDA_VISIBLE_DEVICES": gpus[number % len(gpus)]}
            running.append(subprocess.Popen(command + shlex.split(arguments.pretrain), env=os.environ | own))
        if any([process.wait() for process in running]):
            sys.exit("a pretraining failed; what it said stands above")
    for out in models:
        shutil.copy(_TOKENIZER, out)
        shutil.copy(arguments.corpus / "tokenizer.json", out)


def measure(out: Path, records: Path, test: Path, smoke: bool) -> None:
    """The rows of one model: as it is, and interpolated to 2 and 4 times its window; of a smoke run perplexity alone, of one document."""
    ropewalk.ablate(
        out,
        test=[test],
        out=records / out.name,
        methods=["none", "linear"],
        factors=[2, 4],
        windows="prompts",
        prompt_windows=[WINDOW, 2 * WINDOW, 4 * WINDOW],
        measure=["perplexity"] if smoke else ["perplexity", "attention"],
        documents=1 if smoke else 14,
        test_tokens=(4 if smoke else 16) * WINDOW,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("build/penalty"))
    parser.add_argument("--records", type=Path, default=Path("lab/records/penalty"))
    parser.add_argument(
        "--weights", type=float, nargs="*", default=GRID["weights"], help="of the penalty; 0 is without"
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=GRID["seeds"])
    parser.add_argument("--steps", type=int, default=GRID["steps"])
    parser.add_argument("--together", type=int, default=9, help="models at a time on every GPU")
    parser.add_argument("--pretrain", default="", help="further options of pretrain.py, the same for all")
    parser.add_argument("--smoke", action="store_true", help="to see that it runs: few steps and documents, another --out and --records")  # fmt: skip
    if parser.parse_known_args()[0].smoke:
        parser.set_defaults(**_SMOKE)
    arguments = parser.parse_args()
    kind = "smoke" if arguments.smoke else "hemp"  # by which the page knows its models
    models = {
        arguments.out / f"{kind}-{arguments.steps}-h{weight:g}-s{seed}": (weight, seed)
        for seed in arguments.seeds
        for weight in arguments.weights
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    test = arguments.out / "held_out.jsonl"
    texts = [path.read_text(encoding="utf-8") for path in standard_library("held_out")]
    test.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    train(arguments, models)
    for out in models:
        measure(out, arguments.records, test, arguments.smoke)
        print(f"{out.name}: measured", flush=True)


if __name__ == "__main__":
    main()
