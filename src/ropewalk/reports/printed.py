"""A page as PDF, printed by a browser where there is one.

in   the page's text
out  the bytes of a PDF
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from ropewalk.errors import UserError

_BROWSERS = (
    "chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge", "microsoft-edge",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)  # fmt: skip
_SECONDS = 300


def browser() -> str:
    """The browser that prints. Raises UserError if there is none."""
    program = next(filter(None, map(shutil.which, _BROWSERS)), None)
    if program is None:
        raise UserError(
            "a .pdf is printed by a browser, and there is no Chromium, Chrome or Edge on this machine; name an .html and print that, or install one"
        )
    return program


def printed(page: str, made_by: bytes) -> bytes:
    """The page on A4. `made_by` is a comment after its end, by which it is known as ropewalk's.

    Raises:
        UserError: no browser, or one that printed nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "page.html"), Path(folder, "page.pdf")
        source.write_text(page, encoding="utf-8", errors="backslashreplace")
        flags = [
            "--headless",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--no-pdf-header-footer",
        ]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # which root cannot have; the page has no script and fetches nothing
        command = [browser(), *flags, f"--user-data-dir={folder}/browser", f"--print-to-pdf={target}", source.as_uri()]
        try:
            ended = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise UserError(f"the browser could not print ({error}); name an .html and print that") from None
        if not target.is_file():
            complaint = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise UserError(f"{command[0]} printed nothing ({complaint}); name an .html and print that")
        return target.read_bytes() + b"%" + made_by + b"\n"
