"""Perplexity over a sliding window.

measure.py      the one definition, and what is on record of it
sampled.py      the same figure estimated from random windows
conventions.py  other people's rules
"""
