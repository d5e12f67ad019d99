"""What other programs make of a checkpoint: one row a reader, and the checks of `ropewalk doctor`. No torch.

rules.py          `READERS`: one row a reader; objections.py, why one would not load a config or get it wrong
reader.py         `Reader`: the window it would serve, the inv_freq it would compute, what it refuses
spectra.py        the closed forms as the readers' own code has them
examine.py        every check in order, and a row a reader: a `Diagnosis` (diagnosis.py)
spelling_checks.py window_checks.py config_checks.py file_checks.py   the checks of a directory (subject.py)
refusals.py       what of it stops whoever makes something of a model, or uploads it
gguf_checks.py    those of a GGUF file, by its header (gguf_header.py)
mend.py           what `--fix` changes
"""
