"""Perplexity over a sliding window.

measure.py      the definition, and the function `perplexity`
sampled.py      the same figure estimated from a random sample of windows
strata.py       how windows are sampled and what they say of all
conventions.py  other projects' rules
"""
