"""Read models with whatever transformers is installed, without ropewalk.

python in_transformers.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers


def read(job: dict[str, Any]) -> dict[str, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(job["path"], torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["path"])
    ids = job["ids"]
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        new = list(ids)
        for _ in range(job["new"]):
            new.append(int(model(torch.tensor([new]), use_cache=False).logits[0, -1].argmax()))
    return {
        "logprobs": [float(logprobs[at - 1, ids[at]]) for at in job["positions"]],
        "tokens": new[len(ids) :],
        "window": min(tokenizer.model_max_length, model.config.get_text_config().max_position_embeddings),
        "text": tokenizer(job["text"])["input_ids"] == job["text_ids"],
    }


def read_all(jobs: list[dict[str, Any]]) -> dict[str, Any]:
    done = {}
    for job in jobs:
        try:
            done[job["name"]] = read(job)
        except Exception as error:  # a reader that fails is a result
            done[job["name"]] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return done


def main(jobs: str, results: str) -> None:
    transformers.utils.logging.set_verbosity_error()
    json.dump(read_all(json.load(open(jobs))), open(results, "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
