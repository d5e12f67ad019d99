"""Write docs/cli.md from the commands' own --help, so that the page cannot drift; tests/cli/test_cli.py holds it to that.

python docs/make_cli.py
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ropewalk.cli import COMMANDS

PAGE = Path(__file__).with_name("cli.md")
HEAD = """# The command line

Written by `make docs` from each command's `--help`; do not edit.

MODEL is `hemp` (the embedded model), a local directory or a hub id. Nothing that exists is overwritten without `--overwrite`.
Exit status: 0 done, 2 your mistake (one sentence on stderr), 130 interrupted, 143 ended by SIGTERM (training has saved), 3 `doctor` could not check all, 1 anything else.
"""


def help_of(command: str) -> str:
    """What `ropewalk COMMAND --help` prints in a terminal of 100 columns without colours."""
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    arguments = [sys.executable, "-m", "ropewalk", *command.split(), "--help"]
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, check=True).stdout


def page() -> str:
    """The whole page."""
    with ThreadPoolExecutor() as pool:
        helps = list(pool.map(help_of, COMMANDS))
    parts = [f"\n## ropewalk {name}\n\n```\n{text.rstrip()}\n```\n" for name, text in zip(COMMANDS, helps, strict=True)]
    return HEAD + "".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
