"""What completes commands, options, values and files in a shell: tyro's script, mended where it leaves out files, and commands of two words.

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
    # A command of two words, which tyro's scripts know as one.
    "\n    words = sys.argv[1:-1]\n": """
    words = sys.argv[1:-1]
    if words[1:2] == ['data'] and current_index == 2 and 'score'.startswith(words[2]):
        print('score')
        return
    if words[1:3] == ['data', 'score'] and current_index > 2:
        words, current_index = [words[0], 'data-score', *words[3:]], current_index - 1
""",
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
