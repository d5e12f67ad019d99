"""Following links: RULER's chain of variables, and walks in a graph after GraphWalks.

in   a source, a random generator, a length in tokens
out  an item

vt is RULER's (section 3.2), one example before it. The graph's are after OpenAI's GraphWalks (2025): directed edges, of which most lead nowhere,
and the nodes at a distance or the parents of one are asked for; its example and rules are shortened, and nodes are fewer where the answer must fit.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Sequence

import numpy as np

from ropewalk.evals.long_context import words
from ropewalk.evals.long_context.items import Frame, Item
from ropewalk.evals.long_context.needles import noise
from ropewalk.evals.long_context.source import Source

_HOPS = 4
_TRACE = "Memorize and track the chain(s) of variable assignment hidden in the following text.\n\n"
_TRACED = (
    "Question: Find all variables that are assigned the value {value} in the text above. Answer: According to the chain(s) of variable "
    "assignment in the text above, {count} variables are assigned the value {value}, they are:"
)
#: Tokens of RULER's example, about.
_EXAMPLE = 500


def variables(source: Source, drawn: random.Random, tokens: int) -> Item:
    """RULER's vt: a value handed on from variable to variable, all of which are asked for; one example comes first."""
    room = 30
    names, chain, value = _chain(drawn, 5)
    shown, example, shown_value = _chain(drawn, 3)
    frame = Frame(source.head(_TRACE), source.part(f"\n{_traced(shown_value)} {' '.join(shown)}\n\n"), _EXAMPLE, 0)
    first = frame.hide(source.parts(example), [drawn.random() for _ in example], lambda left: noise(source, left))
    frame = Frame(np.concatenate([first, source.part(_TRACE)]), source.part(f"\n{_traced(value)}"), tokens, room)
    ids = frame.hide(source.parts(chain), [drawn.random() for _ in chain], lambda left: noise(source, left))
    return Item(ids, tuple(names), room)


def _chain(drawn: random.Random, length: int) -> tuple[list[str], list[str], str]:
    """Names of so many letters, the lines that hand a value on from one to the next, and the value."""
    names = words.different(drawn, _HOPS + 1, length, string.ascii_uppercase)
    value = str(drawn.randint(10_000, 99_998))
    lines = [f"VAR {new} = VAR {old} \n" for old, new in zip(names, names[1:], strict=False)]
    return names, [f"VAR {names[0]} = {value}\n", *lines], value


def _traced(value: str) -> str:
    return _TRACED.format(value=value, count=_HOPS + 1)


_GRAPH = """You will be given a graph as a list of directed edges. You will also get an operation to perform on the graph. \
Return the set of nodes that the operation results in.
If asked for a breadth-first search (BFS), return only the nodes that are exactly at that depth, not those in between and not the starting node.
If asked for the parents of a node, return only the nodes that have an edge leading to it.

Example. The graph has the following edges:
uvwx -> alke
abcd -> uvwx
abcd -> efgh
efgh -> uvwx
Operation: Perform a BFS from node abcd with depth 1.
Final Answer: [uvwx, efgh]
Operation: Find the parents of node uvwx.
Final Answer: [abcd, efgh]

Here is the graph to operate on. The graph has the following edges:
"""


def breadth_first(source: Source, drawn: random.Random, tokens: int) -> Item:
    """The nodes at distance 2 or 3 from one: no other edge leaves those that are nearer."""
    depth, levels, edges = drawn.choice([2, 3]), [[_node(drawn)]], []
    for _ in range(depth):
        levels.append([])
        for parent in levels[-2]:
            for child in [_node(drawn) for _ in range(drawn.choice([1, 2]))]:
                levels[-1].append(child)
                edges.append((parent, child))
    asked = f"Perform a BFS from node {levels[0][0]} with depth {depth}."
    leads_nowhere = _edges(drawn, tokens, targets=[node for level in levels for node in level])
    return _walk(source, drawn, tokens, asked, levels[-1], edges, leads_nowhere)


def parents(source: Source, drawn: random.Random, tokens: int) -> Item:
    """The nodes with an edge to one: no other edge leads there."""
    node, found = _node(drawn), [_node(drawn) for _ in range(drawn.randint(2, 6))]
    edges = [(parent, node) for parent in found]
    others = _edges(drawn, tokens, targets=found, sources=[node, *found])
    return _walk(source, drawn, tokens, f"Find the parents of node {node}.", found, edges, others)


def _node(drawn: random.Random) -> str:
    """Ten hexadecimal digits."""
    return f"{drawn.getrandbits(40):010x}"


def _edges(drawn: random.Random, tokens: int, targets: Sequence[str], sources: Sequence[str] = ()) -> Callable[[], str]:
    """A function that draws one more edge: between other nodes, or to `targets` and from `sources`."""
    others = [_node(drawn) for _ in range(max(16, tokens // 100))]
    begin, end = [*others, *sources], [*others, *targets]
    return lambda: _edge(drawn.choice(begin), drawn.choice(end))


def _edge(begin: str, end: str) -> str:
    return f"{begin} -> {end}\n"


def _walk(
    source: Source,
    drawn: random.Random,
    tokens: int,
    asked: str,
    answers: Sequence[str],
    edges: list[tuple[str, str]],
    others: Callable[[], str],
) -> Item:
    """The item of an operation: its own edges, in any order, anywhere among as many others as there is room for."""
    room = 128
    frame = Frame(source.head(_GRAPH), source.part(f"\nOperation: {asked}\nFinal Answer: ["), tokens, room)
    drawn.shuffle(edges)
    facts = source.parts([_edge(*edge) for edge in edges])
    ids = frame.hide_in_list(source, facts, [drawn.random() for _ in facts], lambda left: source.enough(others, left))
    return Item(ids, tuple(answers), room)
