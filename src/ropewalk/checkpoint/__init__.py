"""A checkpoint as files: where it lies, what its config says of RoPE, what its headers say of its weights. No torch.

hub.py          a name → a directory
files.py        directories that are whole or absent, links, refusals
headers.py      what safetensors files promise, without reading a weight
rope_config.py  a config.json → a `RopeConfig`, and back
"""
