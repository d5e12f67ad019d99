"""Conversations for those who have none at hand: a module of Python's standard library is talked about, a function a turn, and its docstring is the answer.

    python3 examples/stdlib_chats.py

writes `chats.jsonl` (to train on: long ones, of whole modules, and short ones, of one function each) and `held-out.jsonl` (three long ones, to measure on).
"""

import ast
import json
import sysconfig
from pathlib import Path

STDLIB = Path(sysconfig.get_path("stdlib"))
HELD_OUT = ("inspect.py", "pydoc.py", "tarfile.py")


def turns(module: Path) -> list[tuple[str, str]]:
    """(question with a function's source, its docstring) of each function that has one, in the module's order."""
    tree = ast.parse(module.read_text(encoding="utf-8"))
    pairs = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and (answer := ast.get_docstring(node)):
            node.body = node.body[1:] or [ast.Pass()]
            pairs.append((f"What does this function of {module.name} do?\n\n{ast.unparse(node)}", answer))
    return pairs


def row(pairs: list[tuple[str, str]]) -> str:
    """A conversation as a line of JSON."""
    said = [text for pair in pairs for text in pair]
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return json.dumps({"messages": messages}) + "\n"


modules = {path: pairs for path in sorted(STDLIB.glob("*.py")) if (pairs := turns(path))}
with open("chats.jsonl", "w", encoding="utf-8") as chats, open("held-out.jsonl", "w", encoding="utf-8") as held_out:
    for path, pairs in modules.items():
        if path.name in HELD_OUT:
            held_out.write(row(pairs))
        else:
            chats.write(row(pairs))
            chats.writelines(row([pair]) for pair in pairs[:2])
