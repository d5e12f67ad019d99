#!/usr/bin/env bash
# All of the paper's experiments on a small model, in minutes on one GPU: four times its window, trained and measured in full; and
# its scores at the longest window.
#
#     MODEL=lab-2k WINDOW=8192 TRAIN=books/train.jsonl.xz TEST=books/test.jsonl.xz bash recipes/lab.sh
#
# MATH, BENCHMARKS (a directory), PAIRS and TRAIN_PAIRS are measured where they are given. Each step is left out where its result is
# there, so that the same command goes on where it was stopped.
set -euo pipefail
MODEL=${MODEL:?a model with a short window} WINDOW=${WINDOW:?the new window, tokens}
TRAIN=${TRAIN:?documents to train on} TEST=${TEST:?documents to measure on, others than TRAIN}
OUT=${OUT:-lab} METHOD=${METHOD:-linear} STEPS=${STEPS:-100} BATCH=${BATCH:-32} RATE=${RATE:-2e-4} BUDGET=${BUDGET:-0.2} LONGEST=${LONGEST:-32768}
mkdir -p "$OUT"

# A rate ten times the paper's: the model is a hundred times smaller. Saved five times: tables 3 and 4.
[ -f "$OUT/model/config.json" ] || ropewalk train "$MODEL" --data "$TRAIN" --window "$WINDOW" --method "$METHOD" --steps "$STEPS" --batch-size "$BATCH" \
    --learning-rate "$RATE" --save-every $((STEPS / 5)) --keep-checkpoints 9 --resume --out "$OUT/model"

# Tables 1 to 6 and the page. BUDGET: minutes a perplexity; every window is read where it suffices.
more=()
[ -z "${MATH:-}" ] || more+=(--math "$MATH")
[ -z "${BENCHMARKS:-}" ] || more+=(--benchmarks "$BENCHMARKS")
[ -z "${PAIRS:-}" ] || more+=(--pairs "$PAIRS")
if [ -n "${TRAIN_PAIRS:-}" ]; then
    read -ra files <<< "$TRAIN_PAIRS"  # several, with blanks between them
    more+=(--train-pairs "${files[@]}")
fi
ropewalk evaluate "$OUT/model" --base "$MODEL" --data "$TEST" "${more[@]}" --budget "$BUDGET" --size "${SIZE:-auto}" --out "$OUT/suite"

# Section 2's question to the model itself, as far out as one GPU goes.
[ -f "$OUT/longest.jsonl" ] || ropewalk attention "$MODEL" --data "$TEST" --window "$LONGEST" --out "$OUT/longest.jsonl"
