"""Run as a script by test_kill.py: a warmed process that forks training runs and kills them, as the kernel kills.

usage: killing.py DIRECTORY KILLS SEED [OPTIMIZER]     (DIRECTORY holds a tiny model in `base`)

Importing torch takes seconds; forked from here a run starts in a fraction of one, so that twenty kills fit into a test.
Prints one JSON object: how many children died of SIGKILL, and the step each resumed run started from.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import traceback
import warnings
from pathlib import Path

import torch

from many_processes import MODES, asked, mix
from ropewalk.training import train
from ropewalk.training.snapshots import Snapshots

STEPS = 120
OPTIMIZER = sys.argv[4] if len(sys.argv) > 4 else "adamw"


def run(base: Path, out: Path, steps: int = STEPS, threads: int | None = None) -> None:
    """The whole run, resumed if there is something to resume. A damaged checkpoint would warn, and here a warning is an error."""
    warnings.simplefilter("error")
    warnings.simplefilter("ignore", DeprecationWarning)  # of what the compiler of an optimiser imports
    options = dict(
        data=asked(base.parent, MODES["mixed"][1])["data"],
        window=96,
        steps=steps,
        batch_size=2,
        learning_rate=1e-3,
        optimizer=OPTIMIZER,
        save_every=2,
        resume=True,
        threads=threads,
    )
    train(base, out=out, **options)


def fork(base: Path, out: Path) -> int:
    child = os.fork()
    if child == 0:
        code = 1
        try:
            torch.set_num_threads(len(os.sched_getaffinity(0)))  # as in a process of its own
            run(base, out)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    return child


def whole(base: Path, out: Path) -> float:
    """Seconds of a run that nobody kills."""
    begin = time.monotonic()
    if os.waitpid(fork(base, out), 0)[1]:
        raise SystemExit("a run failed by itself")
    return time.monotonic() - begin


def newest(out: Path) -> int:
    """The step of the newest checkpoint."""
    return (Snapshots(out / "checkpoints").steps() or [0])[-1]


def main() -> None:
    # A process that has used several threads must not be forked: the children would wait for threads that they do not have.
    torch.set_num_threads(1)
    place, kills, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    base, chance = place / "base", random.Random(seed)
    mix(place)  # sources with weights and lengths, conversations among them
    run(base, place / "warm", steps=2, threads=1)  # imports what training needs, and tokenises
    seconds = whole(base, place / "once")
    between = 2 * seconds / STEPS  # from one checkpoint to the next
    killed, starts = 0, []
    for _ in range(kills):
        reached = newest(place / "killed")
        child = fork(base, place / "killed")
        # Sometimes while it is still loading; else when it is a little further, anywhere in a step or in a checkpoint's writing.
        further = chance.choice((0, 1, 1, 2))
        while further and newest(place / "killed") < reached + 2 * further:
            time.sleep(between / 20)
        time.sleep(chance.uniform(0, between))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        starts.append(newest(place / "killed"))
    whole(base, place / "killed")
    print(json.dumps({"killed": killed, "starts": starts, "seconds": seconds}))


if __name__ == "__main__":
    main()
