"""Long-context tasks: RULER's thirteen without a network, and further ones: order, graphs, look-up, one's own needle.

tasks.py      the table of all tasks: how an item is made, how a response is scored
items.py      an item of exactly so many tokens, laid out of parts
source.py     what items are made of: parts of text as token ids, the user's documents, questions and needles
words.py      RULER's words, numbers and keys
needles.py    facts in a haystack, a look-up among key-value pairs, one's own needle
tracing.py    chains of variables, walks in a graph
counting.py   the words that are most frequent
reading.py    questions about documents
turns.py      which of several turns of a conversation was asked for
scoring.py    RULER's string match, and the scores of the others
respond.py    what a model responds: teacher-forced where one string settles it, else generated
greedy.py     both from one pass over each prompt
drawing.py    which items of which tasks, at which lengths, from which seeds
measure.py    the command
written.py    the items in files, without a model's passes
effective.py  how long a context is used, from the scores by length
"""

from ropewalk.evals.long_context.measure import ruler
from ropewalk.evals.long_context.written import write_items

__all__ = ["ruler", "write_items"]
