"""A model in memory: extended, loaded, verified, saved; its layers and its loss.

extend.py   a longer window as a new checkpoint; carry.py, what it takes over from the old one
load.py     from a directory to a verified model
verify.py   every rotary table against the closed form
proof.py    what the layers do with the tables, on a small copy (small.py) of the user's own config
architecture.py  which class of transformers, and where the language model is in it
doctor.py   what is wrong with a checkpoint; opens.py, what transformers makes of it
position_table.py  models without RoPE: their learned table made longer in the files
save.py     back to a directory that every reader gets right
loss.py     from tokens to one number; logits.py, what a family does to its logits
layers.py   where the decoder layers are; torch_internals.py, what looking into them takes of PyTorch
devices.py  devices and dtypes by their words; pickles.py, pickled weights rewritten
"""
