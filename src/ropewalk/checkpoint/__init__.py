"""A checkpoint on disk: where it lies, what its config says of RoPE, what its headers say of its weights. No torch.

checkpoint.py   `Checkpoint`: opened once, handed on
model_info.py   `ModelInfo`: what records say of a model
families.py     one row a family (family.py): what its config.json need not say; class_defaults.py, what transformers takes for keys left out
layers.py       which layers rotate, which slide and how far they reach; read_layers.py reads that from a config
hub.py          a name → a directory
files.py        directories that are whole or absent, links, refusals; guard.py, what may be replaced; marks.py, what in a directory is ropewalk's;
                half_written.py, one directory in the place of another, and what a kill leaves
headers.py      which files hold the weights, and what their headers promise; tensor_problems.py, what is wrong with them; quantisation.py, whether they are quantised
digests.py      hashes of large files, computed once
rope_config.py  what a config.json says of RoPE: `RopeConfig`; read_rope.py reads it, write_rope.py writes it; named_scaling.py, the scaling it names; ropewalk_block.py, the block of our own
longer.py       the scaling by which a window is a longer one, of a method or of `auto`
position_table.py  a config.json → a `PositionTable`, where positions are learned and nothing rotates
window.py       which window a config names, and the question where it leaves that open
"""
