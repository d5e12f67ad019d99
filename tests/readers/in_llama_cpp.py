"""Read GGUF files with llama.cpp's server, through xllamacpp, with the cache it has by default (half precision).

python in_llama_cpp.py JOBS.json RESULTS.json        what stands in both: jobs.py
"""

from __future__ import annotations

import json
import math
import re
import sys
from typing import Any

import xllamacpp


def read(job: dict[str, Any]) -> dict[str, Any]:
    options = xllamacpp.CommonParams()
    options.model.path = f"{job['path']}/model.gguf"
    options.n_ctx, options.n_parallel, options.n_gpu_layers = 0, 1, 0
    options.warmup, options.fit_params, options.verbosity = False, False, -1
    options.cpuparams.n_threads = 1
    if job.get("exact"):  # the cache in float32, to tell its rounding from anything else
        options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    server = xllamacpp.Server(options)

    def ask(prompt: list[int] | str, anew: bool = False) -> dict[int, float]:
        """Log-probability of each token that may come next, as the model has them.

        What is sampled is always the same whole character: the server says nothing of a token that is a part of one.
        """
        answer = server.handle_completions(
            {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": job["vocabulary"], "cache_prompt": not (anew or job["positions"]),
             "logit_bias": [[job["letter"], 1000.0]]}
        )  # fmt: skip
        [step] = answer["choices"][0]["logprobs"]["content"]
        return {each["id"]: each["logprob"] for each in step["top_logprobs"]}

    ids = job["ids"]
    logprobs = [ask(ids[:at]).get(ids[at], -math.inf) for at in job["positions"]]
    new, chosen = list(ids), []
    for _ in range(job["new"]):
        others = ask(new)
        new.append(max(others, key=others.__getitem__))
        chosen.append(others[new[-1]])
    too_long = ids[:1] + [ids[1]] * (4 * job["window"])
    try:
        refused = str(server.handle_completions({"prompt": too_long, "n_predict": 1}))
    except Exception as error:
        refused = str(error)
    limit = re.search(r"n_ctx['\"]?[^0-9]{1,4}(\d+)|context size \((\d+) tokens\)", refused)
    # The text is cut by llama.cpp's own tokenizer: what may come next is the same as after transformers' ids.
    by_text, by_ids = ask(job["text"], anew=True), ask(job["text_ids"], anew=True)
    return {
        "logprobs": logprobs,
        "tokens": new[len(ids) :],
        "chosen": chosen,
        "window": int(next(group for group in limit.groups() if group)) if limit else refused[:200],
        "text": all(math.isclose(by_text.get(token, 0.0), by_ids[token], abs_tol=1e-6) for token in by_ids),
    }


def main(jobs: str, results: str) -> None:
    done = {}
    for job in json.load(open(jobs)):
        try:
            done[job["name"]] = read(job)
        except Exception as error:  # a reader that fails is a result
            done[job["name"]] = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    json.dump(done, open(results, "w"))


if __name__ == "__main__":
    main(*sys.argv[1:])
