"""Read models with vLLM, on its CPU backend, in float32.

python in_vllm.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import gc
import json
import os
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB
os.environ |= {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}

from vllm import LLM, SamplingParams  # noqa: E402


def read(job: dict[str, Any]) -> dict[str, Any]:
    model = LLM(model=job["path"], dtype="float32", enforce_eager=True, max_num_seqs=1, seed=0)
    ids = job["ids"]
    scored = 0 if job["positions"] else None
    greedy = SamplingParams(temperature=0, max_tokens=job["new"], prompt_logprobs=scored, logprobs=0, ignore_eos=True)
    [answer] = model.generate([{"prompt_token_ids": ids}], greedy, use_tqdm=False)
    [text] = model.generate([job["text"]], SamplingParams(max_tokens=1), use_tqdm=False)
    return {
        "logprobs": [answer.prompt_logprobs[at][ids[at]].logprob for at in job["positions"]],
        "tokens": list(answer.outputs[0].token_ids),
        "chosen": [
            step[token].logprob
            for step, token in zip(answer.outputs[0].logprobs, answer.outputs[0].token_ids, strict=True)
        ],
        "window": model.llm_engine.model_config.max_model_len,
        "text": list(text.prompt_token_ids) == job["text_ids"],
    }


def main(jobs: str, results: str) -> None:
    done = {}
    for job in json.load(open(jobs)):
        try:
            done[job["name"]] = read(job)
        except Exception as error:  # a reader that fails is a result
            done[job["name"]] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        gc.collect()
    json.dump(done, open(results, "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
