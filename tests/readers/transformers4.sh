#!/usr/bin/env bash
# Does transformers 4.57 read what `ropewalk extend` writes? It knows neither `rope_parameters` nor ropewalk.
#
#   bash tests/readers/transformers4.sh        about 2 minutes; the outcome of the last run stands in docs/log.md
#
# Writes a tiny model of each family and its extension with this checkout's ropewalk, makes an environment with
# transformers 4.57.6 of its own, and there compares the extended model's logits with the original's at squeezed positions.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=${PYTHON:-.venv/bin/python}
there=$(mktemp -d)
trap 'rm -rf "$there"' EXIT

"$python" tests/readers/write_models.py "$there/models"
"$python" -m venv "$there/env"
"$there/env/bin/pip" install -q "torch==2.13.0" "transformers==4.57.6" numpy
"$there/env/bin/python" tests/readers/read_models.py "$there/models"
