"""Everything that is measured on a model, or asked of it.

perplexity/     the definition, its estimate from sampled windows, other projects' conventions
retrieval/      the passkey and harder tests
downstream/     benchmarks and summaries
attention/      scores before the softmax, by distance
factor_search.py  a factor a pair, searched by perplexity
conversation.py questions and answers, streamed; answering.py, an answer as it is written, and what was read

Shared by them: loaded.py (a model with its tokenizer and ModelInfo), likelihood.py (negative log-likelihoods, batched) on
compile.py (cheaper passes), time_needed.py (how long passes take on a CPU), tokenize_parts.py (prompts of an exact length), intervals.py, reach.py (of k_max), digits.py (of keys), checkpoints_of_run.py (by fine-tuning
steps), pairing.py (a model and its base). Rows that need not be measured again are found by records/resume.py.
"""
