"""Text on its way to a model: documents, tokens, blocks for training, windows for measuring.

documents.py     files, directories and data sets read as text; archives.py, compression.py, packed ones; folders.py, splits.py, which files of them
rows.py          files of rows; reading.py, what of a row is read; conversations.py, rows of turns
left_out.py      the files of a directory that could not be read, in a sentence
stdlib.py        the standard library's own source as documents; recall.py, the recall exercise
encode.py        text to token ids; chat_template.py, chat_answers.py, unwritten.py, chat_tokens.py, conversations to token ids
tokenising.py    a corpus tokenised once, and found again; token_corpus.py, as it lies on disk; corpus_encoder.py, how; text_size.py, how much there is beforehand; remarks.py, what was said of its texts; packing.py, best_fit.py, cut into blocks for training; mixture.py, of several sources
select.py        the documents that a measurement is taken on; sliding.py, their windows
scores.py        documents chosen by what a long context gives a model in them
jsonlines.py     items to measure on: questions, pairs
"""
