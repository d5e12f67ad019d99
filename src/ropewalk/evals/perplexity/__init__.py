"""Perplexity over a sliding window.

measure.py      the definition, and the function `perplexity`
sampled.py      the same figure estimated from a random sample of windows
strata.py       how windows are sampled and what they say of all
time_needed.py  minutes that are too few for that, refused
two_pass.py     the same tokens read with the whole context and with a short one
context_gain.py  context gain and LongPPL, which are made of that: the function `gain`; gain_reader.py reads windows for it, by model and evaluator
conventions.py  other projects' rules
"""
