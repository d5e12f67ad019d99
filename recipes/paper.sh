#!/usr/bin/env bash
# The paper's 7B run, end to end, with its own settings: LLaMA 7B from 2048 to 8192 tokens (Chen et al. 2023, arXiv 2306.15595).
#
# Needs hub access and, for the paper's hours, many GPUs; `ropewalk plan` says how many hours on yours. Every value below is the
# paper's, with its section beside it; what the paper leaves open is ropewalk's default and stands in the records.
#
#     bash recipes/paper.sh                  eight GPUs of this machine
#     GPUS=4 WINDOW=16384 bash recipes/paper.sh
set -euo pipefail
GPUS=${GPUS:-8} OUT=${OUT:-paper} MODEL=${MODEL:-huggyllama/llama-7b}
WINDOW=${WINDOW:-8192}   # 3.1: 8192, 16384 or 32768
BATCH=${BATCH:-}         # 3.1: 64 up to 8192 tokens, 128 beyond and for 65B, which `train` and `plan` know
STEPS=${STEPS:-1000}     # 3.1: 1000 for Position Interpolation, 10000 for direct fine-tuning (--method plain)
DATA=${DATA:-monology/pile-uncopyrighted}   # 3.1: the Pile
PG19=${PG19:-emozilla/pg19::test}           # 3.2: PG-19, 100 test books
mkdir -p "$OUT"

ropewalk plan "$MODEL" --window "$WINDOW" --steps "$STEPS" ${BATCH:+--batch-size "$BATCH"}

# 2.3 and 3.1: squeeze positions, then 1000 steps of AdamW 0.9/0.95 at 2e-5 (7B, 13B), 20 steps of warm-up from 10 %. Saved every 200: table 3.
torchrun --nproc-per-node "$GPUS" -m ropewalk train "$MODEL" --data "$DATA" --window "$WINDOW" --method linear --steps "$STEPS" \
    ${BATCH:+--batch-size "$BATCH"} --save-every 200 --resume --out "$OUT/model"

# Tables 1 to 6, as far as their data is at hand; before and after, resumable, on one GPU, and the page at the end.
ropewalk evaluate "$OUT/model" --base "$MODEL" --data "$PG19" --out "$OUT/suite"
