"""Which option was meant by a word that is none: a slip, the beginning of a name, or what another tool calls it.

in   the word, without dashes before it, and the options that there are
out  the option's name; or none
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_LENGTHS = (
    "ctx ctx-len ctx-size context context-len context-length context-size context-window n-ctx num-ctx seq seq-len seq-length "
    "sequence-length max-len max-length max-seq-len max-seq-length max-sequence-length max-position-embeddings model-max-length "
    "max-model-len block-size cutoff-len length"
)
#: Option → words of transformers' Trainer, TRL, Axolotl, torchtitan, llama.cpp, vLLM, lm-eval and of habit. Of several options that a word may
#: mean, the first that a command has.
_OTHERS = {
    "window": f"{_LENGTHS} factor scale scaling-factor rope-scale",
    "windows": _LENGTHS,
    "learning-rate": "lr max-lr peak-lr",
    "learning-rates": "lr",
    "batch-size": "bs batch global-batch-size train-batch-size",
    "micro-batch": "micro-batch-size per-device-batch-size per-device-train-batch-size ga grad-accum gradient-accumulation "
    "gradient-accumulation-steps accumulate-grad-batches",
    "batch-tokens": "bs batch batch-size",
    "epochs": "num-epochs num-train-epochs",
    "steps": "epochs num-epochs num-train-epochs max-steps num-steps train-steps iters iterations max-iters",
    "warmup": "num-warmup-steps warmup-ratio",
    "weight-decay": "wd",
    "clip": "grad-clip max-grad-norm max-norm",
    "save-every": "save-steps save-freq save-interval checkpointing-steps",
    "keep-checkpoints": "save-total-limit",
    "watch-every": "eval-every eval-steps eval-interval",
    "watch-data": "eval-data eval-dataset eval-file validation-data",
    "data": "d dataset datasets train-data train-file test-data test-file eval-data eval-file input input-file corpus files texts",
    "out": "o output outdir output-dir output-file output-path save-dir save-path dest",
    "model": "m model-id model-name-or-path checkpoint pretrained base-model",
    "method": "rope-scaling rope-type scaling scaling-type",
    "rope-theta": "theta base rope-base rope-freq-base base-frequency",
    "lora-rank": "r rank",
    "mode": "lora use-lora peft pose",
    "base-bits": "qlora load-in-4bit bits quantization",
    "precision": "bf16 fp16 mixed-precision dtype torch-dtype",
    "dtype": "bf16 fp16 precision torch-dtype",
    "activations": "gradient-checkpointing activation-checkpointing recompute",
    "cp": "context-parallel context-parallel-size sequence-parallel",
    "max-new-tokens": "max-tokens max-length n-predict num-predict max-completion-tokens",
    "question": "prompt text message",
    "limit": "num-samples max-samples n-samples",
    "for": "reader target format to",
    "gpus": "chip hardware",
    "resume": "resume-from-checkpoint resume-from continue",
    "overwrite": "f force exist-ok",
    "log": "report-to logger",
}


def meant_option(word: str, options: Iterable[str]) -> str | None:
    """The option that a word means, by the name that it has among the options; `_` and `-` are one sign."""
    known, word = {option.replace("_", "-"): option for option in options}, word.replace("_", "-").lower()
    by_others = [option for option, words in _OTHERS.items() if option in known and word in words.split()]
    begun = [option for option in known if option.startswith(word)]
    similar = difflib.get_close_matches(word, known, 1)
    in_part = [option for option in known if word in option.split("-")]
    candidates = (by_others[:1], begun if len(begun) == 1 else [], similar, in_part if len(in_part) == 1 else [])
    return next((known[options_found[0]] for options_found in candidates if options_found), None)
