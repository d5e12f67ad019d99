"""What other programs make of a checkpoint: one row a reader, and the checks of `ropewalk doctor`. No torch.

reader.py   `Reader`: the window it would serve, the inv_freq it would compute, what it refuses
rules.py    `READERS`: one row a reader
spectra.py  the closed forms as the readers' own code has them
"""
