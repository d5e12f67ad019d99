"""Text on its way to a model: documents, tokens, blocks for training, windows for measuring.

documents.py     files, directories and data sets read as text; compression.py, compressed ones
stdlib.py        the standard library's own source as documents; recall.py, the recall exercise
encode.py        text to token ids
token_corpus.py  a corpus tokenised once and kept on disk; packing.py, cut into blocks for training
select.py        the documents that a measurement is taken on; sliding.py, their windows
jsonlines.py     items to measure on: questions, pairs
"""
