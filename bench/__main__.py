"""`python -m bench` says which timings there are."""

from __future__ import annotations

import ast
from pathlib import Path

for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
    said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    print(f"python -m bench.{path.stem:12} {said.splitlines()[0] if said else ''}")
