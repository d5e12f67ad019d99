"""Read models with mlx-lm, on its CPU backend.

python in_mlx.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model, load_tokenizer


def scored(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Every token of a short prompt, and greedy ones without a cache."""
    ids = job["ids"]

    def logprobs(tokens: list[int]) -> mx.array:
        logits = model(mx.array([tokens]))[0].astype(mx.float32)
        return logits - mx.logsumexp(logits, axis=-1, keepdims=True)

    whole = logprobs(ids)
    new = list(ids)
    for _ in range(job["new"]):
        new.append(int(mx.argmax(logprobs(new)[-1])))
    return {"logprobs": [float(whole[at - 1, ids[at]]) for at in job["positions"]], "tokens": new[len(ids) :]}


def continued(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Greedy tokens after a long prompt, as mlx-lm generates: in chunks into its cache."""
    steps = [
        (int(token), float(logprobs[token]))
        for token, logprobs in generate_step(mx.array(job["ids"]), model, max_tokens=job["new"])
    ]
    return {"tokens": [token for token, _ in steps], "chosen": [logprob for _, logprob in steps]}


def read(job: dict[str, Any]) -> dict[str, Any]:
    model, _ = load_model(Path(job["path"]))
    model.set_dtype(mx.float32)
    tokenizer = load_tokenizer(Path(job["path"]))
    return {
        **(scored if job["positions"] else continued)(model, job),
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
