"""What completes commands, options, values and files in a shell: tyro's script, mended where it leaves files out.

in   what tyro prints for `--tyro-print-completion SHELL`
out  the same, with the names of files wherever no other word fits
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator

from ropewalk.errors import UserError

FLAG = "--tyro-print-completion"
#: tyro's line → what it becomes. Its scripts know files after an option of one path, and not in a list (`--data`) or by themselves (`report a.jsonl`).
_MENDED = {
    "\n    # Output one completion per line.\n": "\n    completions = completions or ['__TYRO_COMPLETE_FILES__']\n",
    # In bash, readline itself: a list of names has no / behind a directory and breaks at blanks.
    'COMPREPLY=($(compgen -f -- "$cur"))': "COMPREPLY=()",
    "\ncomplete -F ": "\ncomplete -o default -F ",
    # fish asks for what fits without the word that is being typed, so that something always does.
    "\ncomplete --no-files ": "\ncomplete ",
}


@contextlib.contextmanager
def printed_with_files() -> Iterator[None]:
    """Prints what tyro prints inside, so that it completes files too.

    Raises:
        UserError: a shell whose script another package makes, which is not installed.
    """
    script = io.StringIO()
    try:
        with contextlib.redirect_stdout(script):
            yield
    except ImportError:
        raise UserError(f"{FLAG} tcsh needs shtab, which is not installed: pip install shtab") from None
    finally:
        mended = script.getvalue()
        for line, instead in _MENDED.items():
            mended = mended.replace(line, instead)
        print(mended, end="")
