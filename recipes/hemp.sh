#!/usr/bin/env bash
# hemp, from nothing: a LLaMA of 3.7 million parameters with a window of 256 tokens, trained on this machine's Python source.
#
# Needs a GPU, and ropewalk with its dependencies in PYTHON. About five minutes on one H200: two for the text, two for the
# training, one to measure. The text is what this machine has installed, so another machine makes another hemp; what the
# shipped one was made of stands in its card, src/ropewalk/assets/hemp/README.md.
#
#     bash recipes/hemp.sh                       writes build/hemp/hemp
#     OUT=/data/hemp MINUTES=4 bash recipes/hemp.sh
#     MINUTES=0.1 ROWS=1000 PRETRAIN="--batch 8 --eager" TRY=2x2@4e-5 MEASURE="--depths 4 --tokens 1024" bash recipes/hemp.sh
#                                                does the steps only, in minutes and without a GPU: to see that they run
#     LIBRARIES="/usr/lib/python3.12" bash recipes/hemp.sh      further standard libraries whose held-out modules to keep apart
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-.venv/bin/python} OUT=${OUT:-build/hemp} MINUTES=${MINUTES:-1.7}
export PYTHONPATH=src:recipes/hemp TOKENIZERS_PARALLELISM=false

# Text: source of the library's training modules and of installed packages, copies of held-out modules left out. Then the exercise.
$PYTHON recipes/hemp/corpus.py --out "$OUT" ${LIBRARIES:+$(printf -- '--library %s ' $LIBRARIES)}
$PYTHON recipes/hemp/exercises.py --corpus "$OUT" --rows "${ROWS:-120000}"

# Four layers of width 256, four heads of 64, inner width 688. Six narrower layers were tried beside it: docs/log.md.
$PYTHON recipes/hemp/pretrain.py --corpus "$OUT" --out "$OUT/plain" --shape 256,4,4,64,688 --minutes "$MINUTES" ${PRETRAIN:-}

# The same function with weights of other sizes, so that one learning rate suits a change of positions.
$PYTHON recipes/hemp/balance.py --model "$OUT/plain" --out "$OUT/hemp" --scale 16

# On the validation modules; --held-out is for the model that ships, once.
$PYTHON recipes/hemp/measure.py --model "$OUT/hemp" --corpus "$OUT" --exercises 0.16 --try ${TRY:-2x500@4e-5} ${MEASURE:-}

cp "$OUT/tokenizer.json" src/ropewalk/assets/hemp/tokenizer_config.json src/ropewalk/assets/hemp/held_out.json "$OUT/hemp/"
echo "made $OUT/hemp; to ship it, copy its files to src/ropewalk/assets/hemp and write down what was measured in its README.md"
