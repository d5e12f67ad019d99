"""Points that the planner is held against, measured on this machine's CPU.

    OMP_NUM_THREADS=1 python -m bench.plan --json docs/points.json

For each setting: the ten-second calibration, then two runs of training that differ in their number of steps. Their difference is the time of
a step without loading and saving. Both are counted in CPU seconds of one thread, since the machine may be shared. Memory is the
process's peak, against the plan's tensors on top of what the same process takes to train a model of next to no size. The file's points
from other machines stay.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ropewalk import records, testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.planner import calibrate
from ropewalk.planner.job import NONE, Job
from ropewalk.planner.named import shape_of
from ropewalk.settings.recipe import Recipe

#: name, sizes of a Llama (None: hemp), window, batch, micro batch, steps of the short and of the long run.
SETTINGS: list[tuple[str, dict[str, int] | None, int, int, int, tuple[int, int]]] = [
    ("hemp", None, 1024, 4, 4, (3, 9)),
    ("hemp", None, 4096, 1, 1, (3, 9)),
    ("hemp", None, 1024, 8, 2, (2, 5)),
    (
        "18M",
        dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8),
        1024,
        2,
        2,
        (2, 6),
    ),
    (
        "18M",
        dict(hidden_size=512, intermediate_size=1376, num_hidden_layers=6, num_attention_heads=8),
        2048,
        1,
        1,
        (2, 6),
    ),
    (
        "70M",
        dict(hidden_size=1024, intermediate_size=2816, num_hidden_layers=6, num_attention_heads=8),
        512,
        2,
        2,
        (2, 4),
    ),
]
#: The setting that the planner's two constants for a CPU's memory were taken from.
CALIBRATION = ("hemp", 1024, 4)
_TRAIN = """
import json, resource, sys
import ropewalk.training.run, torch, transformers.models.llama.modeling_llama
from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.training import train
asked = json.loads(sys.argv[1])
text = [Document("prose", testing.prose(asked.pop("words")))]
train(asked.pop("model"), data=text, save_every=0, threads=1, **asked)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(dict(peak=used.ru_maxrss * 1024, seconds=used.ru_utime + used.ru_stime)))
"""


def trained(**asked: Any) -> dict[str, float]:
    """What one training process took: bytes at its peak, CPU seconds."""
    done = subprocess.run([sys.executable, "-c", _TRAIN, json.dumps(asked)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


def process(folder: Path) -> float:
    """Bytes that a training process takes for itself: the peak of one whose tensors are a few hundred kilobytes."""
    model = testing.tiny_directory(folder / "tiny", window=64)
    asked = dict(window=128, steps=1, batch_size=1, micro_batch=1, words=200, allow_short=True)
    return trained(model=str(model), out=str(folder / "nothing"), **asked)["peak"]


def point(
    name: str,
    sizes: dict[str, int] | None,
    window: int,
    batch: int,
    micro: int,
    steps: tuple[int, int],
    folder: Path,
    before: float,
) -> dict[str, Any]:
    """Calibrate and measure one setting."""
    model = "hemp" if sizes is None else str(folder / name)
    if sizes is not None and not Path(model).exists():
        heads = sizes["num_attention_heads"]
        testing.tiny_directory(model, window=512, num_key_value_heads=heads, vocab_size=4096, **sizes)
    config = Checkpoint.open(model).config  # in the point, so that it holds when the model is another
    shape = shape_of(model)
    recipe = Recipe(window=window, steps=1, batch_size=batch, precision="float32", optimizer="adamw")
    job = Job(shape, recipe, micro=micro, activations=NONE, fused=False)
    _, rates = calibrate.present(job, clock=time.process_time)
    runs = [
        trained(
            model=model,
            window=window,
            steps=count,
            batch_size=batch,
            micro_batch=micro,
            words=2 * batch * window,
            out=str(folder / f"{name}-{window}-{batch}-{count}"),
        )
        for count in steps
    ]
    seconds = (runs[1]["seconds"] - runs[0]["seconds"]) / (steps[1] - steps[0])
    return dict(
        role="calibration" if (name, window, batch) == CALIBRATION else "check",
        machine="CPU, one thread, CPU seconds",
        engine="ropewalk",
        model=name,
        config=config,
        window=window,
        batch=batch,
        micro=micro,
        precision="float32",
        keep="none",
        fused=False,
        rates=asdict(rates),
        tokens_per_second=round(batch * window / seconds, 2),
        peak_gib=round(runs[1]["peak"] / 2**30, 4),
        process_gib=round(before / 2**30, 4),
        date=str(datetime.date.today()),
        versions={key: records.versions()[key] for key in ("torch", "transformers")},
        command="OMP_NUM_THREADS=1 python -m bench.plan --json docs/points.json",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="the points; those of this machine are replaced")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of settings to measure, from 0")
    arguments = parser.parse_args()
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("set OMP_NUM_THREADS=1: CPU seconds of several threads are not the time of a step")
    chosen = [SETTINGS[i] for i in arguments.only] if arguments.only else SETTINGS
    with tempfile.TemporaryDirectory() as folder:
        before = process(Path(folder))
        for setting in chosen:
            measured = point(*setting, Path(folder), before)
            print(json.dumps(measured), flush=True)
            points = json.loads(arguments.json.read_text()) if arguments.json.exists() else []
            same = ("machine", "engine", "model", "window", "batch", "micro")
            points = [p for p in points if any(p.get(key) != measured[key] for key in same)]
            arguments.json.write_text(json.dumps([*points, measured], indent=1) + "\n")


if __name__ == "__main__":
    main()
