"""Run by torchrun in test_train_distributed.py: training on two processes of a CPU, in a directory that holds a tiny model.

usage: torchrun --nproc-per-node 2 many_processes.py DIRECTORY
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path

from ropewalk import testing
from ropewalk.errors import UserError
from ropewalk.text import Document
from ropewalk.train import train

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(12)]
SHARED = dict(data=DOCUMENTS, window=96, batch_size=4, learning_rate=1e-3, save_every=2, device="cpu", progress=False)


def refusal(place: Path, **options) -> str:
    try:
        train(place / "base", out=place / "never", **{**SHARED, **options})
    except UserError as error:
        return str(error)
    return ""


def main() -> None:
    warnings.simplefilter("ignore")
    place = Path(sys.argv[1])
    base = place / "base"
    # Two ranks share the data, then the windows; one process goes on from there.
    train(base, out=place / "moved", steps=3, **SHARED)
    train(base, out=place / "moved", steps=4, resume=True, cp=2, **SHARED)
    # One process began this; two go on.
    train(base, out=place / "grown", steps=4, resume=True, **SHARED)
    train(base, out=place / "documents", steps=2, cp=2, mask_documents=True, **SHARED)
    train(base, out=place / "adapted", steps=2, mode="lora", **SHARED)
    train(base, out=place / "skipped", steps=2, mode="pose", cp=2, **SHARED)
    said = {
        "batch": refusal(place, batch_size=3),
        "window": refusal(place, window=97, cp=2),
        "nan": refusal(place / "poisoned", steps=20),
    }
    if os.environ["RANK"] == "0":
        (place / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
