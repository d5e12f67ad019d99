"""Checkpoints for one reader each: what vLLM, llama.cpp, MLX and others need, written and read back by that reader's own rule.

export.py         `export`: the way through, a row a reader, the line to type
checkpoints.py    a directory of safetensors whose config says the promised window to that reader
adapters.py       `merge`, and an adapter for plain peft beside its extended base
gguf.py           a GGUF file: converted by llama.cpp's own program, its RoPE read, mended and held against the closed form
converter.py      where that program comes from; driver.py runs it
pretokenizers.py  llama.cpp's name for what a tokenizer.json does before it merges
"""

from __future__ import annotations

from ropewalk.exports.adapters import merge
from ropewalk.exports.export import export

__all__ = ["export", "merge"]
