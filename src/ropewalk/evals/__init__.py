"""Everything that is measured on a model.

perplexity.py   the definition, and what is on record of it; budget.py estimates it, conventions.py follows other people's rules
retrieval/      the passkey and harder tests
downstream/     benchmarks and summaries
attention/      scores before the softmax, by distance

What they share: subject.py (a model, its tokenizer, its state), documents.py and pieces.py (texts as tokens), score.py (log-likelihoods,
batched) on engine.py (cheaper passes), intervals.py, known.py (what need not be measured again), by_step.py (a run's checkpoints),
pairing.py (two models side by side).
"""
