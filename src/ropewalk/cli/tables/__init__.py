"""Every table that a command prints: typed rows in, a table on stdout.

measured.py    perplexity, passkey, retrieval
attention.py   attention scores by distance, neighbouring tokens
downstream.py  benchmarks, summaries, the suite's outcomes
theory.py      bounds, growth, angular resolution
plan.py        memory, layout, time and cost of a training run
doctor.py      what is wrong with a checkpoint, and what each reader makes of it
demo.py        what the demo shows

The rooms that measure return rows and print nothing. Of the processes that torchrun started, commands print in the first alone.
"""
