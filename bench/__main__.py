"""`python -m bench` says which timings there are."""

from __future__ import annotations

import ast
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    text = path.read_text(encoding="utf-8")
    if "__main__" not in text:
        continue  # what a timing is made of
    docstring = ast.get_docstring(ast.parse(text)) or ""
    print(f"python -m bench.{path.stem:12} {docstring.splitlines()[0] if docstring else ''}")
