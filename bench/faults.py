"""Everything that can go wrong, tried: bad options, hostile files, full disks, limits, kills, two writers; one table.

    python -m bench.faults                    all of it: minutes on two cores
    python -m bench.faults --share 0.1        a tenth of each kind, drawn by --seed
    python -m bench.faults --only configs     one kind; --named WORDS: those whose name has them
    python -m bench.faults --write            all of it, and its table into docs/reliability.md

Every case is a process forked from one that has imported everything heavy, in a directory of its own. Exit status 1 if any ended otherwise
than promised.
"""

from __future__ import annotations

import argparse
import codecs
import contextlib
import gc
import io
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from bench import fault_choices, fault_files, fault_inputs, fault_places, fault_reading
from bench.fault_worker import Case, outcome

PAGE = Path(__file__).parents[1] / "docs/reliability.md"
#: What workers inherit.
_CASES: list[Case] = []
_ABOUT: list = []
BEGIN, END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="one kind of faults")
    parser.add_argument("--without", help="all kinds but this")
    parser.add_argument("--named", default="", help="only cases whose name has these words")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--write", action="store_true", help=f"write the table into {PAGE.name}")
    chosen = parser.parse_args(arguments)
    _warm()
    with tempfile.TemporaryDirectory(prefix="faults-template-") as folder:
        template = Path(folder) / "template"
        _made(template)
        tables = (fault_inputs, fault_files, fault_reading, fault_choices, fault_places)
        every = [case for table in tables for case in table.cases()]
        wanted = [
            case
            for case in every
            if chosen.only in (None, case.kind) and chosen.without != case.kind and chosen.named in case.name
        ]
        drawn = _drawn(wanted, chosen.share, chosen.seed)
        began = time.monotonic()
        found = _run(drawn, template, chosen.workers)
        if chosen.only in (None, "Python") and not chosen.named:
            found += _python(chosen.share, chosen.seed)
    table = report(found)
    print(table)
    print(f"{time.monotonic() - began:.0f} s")
    if chosen.write:
        write(table)
    return int(any(reason for _, _, reason in found))


def _drawn(cases: list[Case], share: float, seed: int) -> list[Case]:
    """A share of each kind, at least one of it."""
    if share >= 1:
        return cases
    draw, by_kind = random.Random(seed), dict[str, list[Case]]()
    for case in cases:
        by_kind.setdefault(case.kind, []).append(case)
    return [case for kind in by_kind.values() for case in draw.sample(kind, max(1, round(len(kind) * share)))]


def _made(template: Path) -> None:
    """The template, by a process of its own: threads that it starts (of tokenizers, of progress bars) would be missing in what is forked from here."""
    with contextlib.redirect_stderr(io.StringIO()):
        maker = multiprocessing.get_context("fork").Process(target=fault_files.make_template, args=(template,))
        maker.start()
        maker.join()
    if maker.exitcode:
        raise RuntimeError(f"{template} could not be made")


def _warm() -> None:
    """Import what any command imports, so that a fork has it; one thread, since forks have no others."""
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    import torch

    torch.set_num_threads(1)
    import ropewalk
    from ropewalk.evals.downstream import tasks  # noqa: F401

    for name in ropewalk.__all__:
        getattr(ropewalk, name)
    for encoding in ("unicode-escape", "cp1252", "latin-1", "utf-16"):
        codecs.lookup(encoding)  # another user may not read where Python lies
    gc.collect()
    gc.freeze()  # or each collection in a fork would copy the memory of everything imported


def _run(cases: list[Case], template: Path, workers: int) -> list[tuple[str, str, str]]:
    """(kind, name, what happened if it was not as promised) of each case. Workers are forked: cases hold functions that no pickle takes."""
    patience = min(4.0, 1.0 + os.getloadavg()[0] / 2)
    _CASES[:] = cases
    found = []
    with multiprocessing.get_context("fork").Pool(workers, _begin, (template, patience)) as pool:
        for number, (at, reason) in enumerate(pool.imap_unordered(_one, range(len(cases)), chunksize=4), 1):
            found.append((at, cases[at].kind, cases[at].name, reason))
            if reason:
                print(f"{cases[at].kind}: {cases[at].name}: {reason}", file=sys.stderr, flush=True)
            if number % 100 == 0:
                print(f"{number} of {len(cases)}", file=sys.stderr, flush=True)
    return [(kind, name, reason) for _, kind, name, reason in sorted(found)]


def _begin(template: Path, patience: float) -> None:
    _ABOUT[:] = [template, patience]


def _one(at: int) -> tuple[int, str]:
    template, patience = _ABOUT
    return at, outcome(_CASES[at], template, patience=patience)


def _python(share: float, seed: int) -> list[tuple[str, str, str]]:
    """Nonsense for every argument of every public function, in this process: a sentence, and nothing else."""
    import warnings

    import ropewalk

    found, draw = [], random.Random(seed)
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Path("base").write_text("not a directory\n")
        for function, argument, given in fault_inputs.calls():
            if draw.random() >= share:
                continue
            reason = ""
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    getattr(ropewalk, function)(**given)
                reason = "silent: returned"
            except ropewalk.UserError as error:
                reason = "" if str(error).strip() else "no words"
            except Exception as error:  # noqa: BLE001 - that is what is looked for
                reason = f"{type(error).__name__}: {str(error)[:100]}"
            name = f"{function}({argument}={given[argument]!r})"[:90]
            if reason:
                print(f"Python: {name}: {reason}", file=sys.stderr, flush=True)
            found.append(("Python", name, reason))
    return found


def report(found: list[tuple[str, str, str]]) -> str:
    """The table in Markdown, and what ended otherwise by name."""
    tried = Counter(kind for kind, _, _ in found)
    wrong = [(kind, name, reason) for kind, name, reason in found if reason]
    otherwise = Counter(kind for kind, _, _ in wrong)
    lines = ["| kind | tried | as promised | otherwise |", "|---|---|---|---|"]
    lines += [f"| {kind} | {count} | {count - otherwise[kind]} | {otherwise[kind]} |" for kind, count in tried.items()]
    total = sum(tried.values())
    lines.append(f"| **all** | {total} | {total - len(wrong)} ({(total - len(wrong)) / total:.1%}) | {len(wrong)} |")
    silent = sum(reason.startswith("silent") for _, _, reason in wrong)
    lost = sum(reason.startswith("lost") for _, _, reason in wrong)
    lines += ["", f"Silent {silent}, lost {lost}." + (" Otherwise:" if wrong else ""), ""]
    lines += [f"- {kind}: `{name}`: {' '.join(reason.split())}" for kind, name, reason in wrong]
    return "\n".join(lines).rstrip() + "\n"


def write(table: str) -> None:
    """Put the table between its marks in the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table + END + after, encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
