"""Read models with mlx-lm, on its CPU backend.

python in_mlx.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.utils import load_model, load_tokenizer


def read(job: dict[str, Any]) -> dict[str, Any]:
    model, _ = load_model(Path(job["path"]))
    tokenizer = load_tokenizer(Path(job["path"]))
    ids = job["ids"]

    def logprobs(tokens: list[int]) -> mx.array:
        logits = model(mx.array([tokens]))[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    whole = logprobs(ids)
    new = list(ids)
    for _ in range(job["new"]):
        new.append(int(mx.argmax(logprobs(new)[-1])))
    return {
        "logprobs": [float(whole[at - 1, ids[at]]) for at in job["positions"]],
        "tokens": new[len(ids) :],
        "window": None,  # mlx-lm has no limit
        "text": list(tokenizer.encode(job["text"])) == job["text_ids"],
    }


def main(jobs: str, results: str) -> None:
    mx.set_default_device(mx.cpu)
    done = {}
    for job in json.load(open(jobs)):
        try:
            done[job["name"]] = read(job)
        except Exception as error:  # a reader that fails is a result
            done[job["name"]] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    json.dump(done, open(results, "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
