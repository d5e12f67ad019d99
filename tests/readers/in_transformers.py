"""Read models with whatever transformers is installed, without ropewalk.

python in_transformers.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
import transformers

#: Of a long prompt, in tokens: the mask of sliding layers is as long as what they see, not as the prompt.
CHUNK = 1024


def scored(model: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Every token of a short prompt, and greedy ones without a cache."""
    ids = job["ids"]
    logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    new = list(ids)
    for _ in range(job["new"]):
        new.append(int(model(torch.tensor([new]), use_cache=False).logits[0, -1].argmax()))
    return {"logprobs": [float(logprobs[at - 1, ids[at]]) for at in job["positions"]], "tokens": new[len(ids) :]}


def continued(model: Any, ids: list[int], new: int) -> dict[str, Any]:
    """Greedy tokens after a long prompt, their log-probabilities, and how near the next best was; the prompt in chunks into a cache."""
    tokens, chosen, gaps = [], [], []
    *before, step = torch.tensor([ids]).split(CHUNK, dim=1)
    cache = transformers.DynamicCache(config=model.config)
    for chunk in before:
        model(chunk, past_key_values=cache, use_cache=True, logits_to_keep=1)
    for _ in range(new):
        logits = model(step, past_key_values=cache, use_cache=True, logits_to_keep=1).logits[0, -1]
        best = logits.double().log_softmax(-1).topk(2)
        tokens.append(int(best.indices[0]))
        chosen.append(float(best.values[0]))
        gaps.append(float(best.values[0] - best.values[1]))
        step = torch.tensor([[tokens[-1]]])
    return {"tokens": tokens, "chosen": chosen, "gap": min(gaps)}


@torch.no_grad()
def read(job: dict[str, Any]) -> dict[str, Any]:
    model = transformers.AutoModelForCausalLM.from_pretrained(job["path"], torch_dtype=torch.float32).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["path"])
    found = scored(model, job) if job["positions"] else continued(model, job["ids"], job["new"])
    return {
        **found,
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
