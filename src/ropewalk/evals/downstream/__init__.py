"""What a model can do: the five benchmarks of section 3.4 and the summaries of section 3.5.

benchmarks.py  accuracy on lm-eval's tasks, base and model paired
harness.py     lm-eval's model around one that is loaded
tasks.py       the tasks, over the hub's data or local files
choices.py     log-likelihoods of answers, prompts read once where that pays
summary.py     summaries written and scored by ROUGE
finetune.py    training a model to summarise
pairs.py       documents and their summaries, and the prompt
generation.py  decoding in batches
jsonlines.py   local files of items
"""
