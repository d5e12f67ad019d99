"""A run that ends in time: `--budget`.

in   minutes from when the command began; how long steps, saving and watching took so far, or what they take before they were seen
out  whether there is time for another step, and for the rest of one; whether a checkpoint is due by time

What comes after the last step is kept back: measuring it (`--watch`), the checkpoint from which the run can go on, the model itself.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Iterator

import torch

from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.progress import IN_TIME, began, clock

#: Bytes a second written and hashed, before the first save has shown it: a slow disk's.
_DISK = 100e6
#: Of a large product's rate what a step reaches, before the first one has shown it (docs/plan.md: 0.6 on the CPUs that were measured).
_REACHED = 0.6
#: Seconds and share of a step that are kept back for what nobody times: leaving, a step that takes longer than those before it.
_LEAVING, _SLOWER = 2.0, 1.1
_EDGE = 1024
#: Seconds of training after which a checkpoint comes by time: what a kill may cost by default, long beside writing a small model and short beside a night.
#: Where writing one takes long, they come so seldom that it takes a twentieth of the time at most.
BY_TIME, _OF_TIME = 600.0, 20


class OutOfTime(Exception):
    """A step of about `seconds` would not be done in time; what it has done so far is dropped."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Deadline:
    """When a run has to be over. minutes: from when the command began; None is never. mode: of the run."""

    def __init__(self, minutes: float | None = None, mode: str = "full") -> None:
        self._ways = "ask for a shorter " + ("--chunk-window" if mode == "pose" else "--window, or for --mode pose")
        self.is_set = minutes is not None
        self._end = began() + (math.inf if minutes is None else 60 * minutes)
        self._recent: deque[float] = deque(maxlen=5)
        self._guessed, self._seen = dict[str, float](), dict[str, float]()
        self._since: float | None = None

    @property
    def left(self) -> float:
        """Seconds for steps."""
        return self._end - time.monotonic() - sum((self._guessed | self._seen).values()) - _LEAVING

    @property
    def next_step(self) -> float:
        """Seconds: as the slowest of the last five, and a little."""
        return _SLOWER * max(self._recent, default=0.0)

    @property
    def saving(self) -> float:
        """Seconds of a checkpoint: the longest that was seen, else by its size."""
        return (self._guessed | self._seen).get("saving", 0.0)

    def will_save(self, size: float) -> None:
        """Checkpoints of so many bytes are written."""
        self._guessed["saving"] = size / _DISK

    def step(self, seconds: float) -> None:
        """A step took so long."""
        self._recent.append(seconds)
        if self._since is None:
            self._since = time.monotonic() - seconds

    def is_checkpoint_due(self) -> bool:
        """Whether so much was trained since the last checkpoint, or the first step, that another one is worth its writing; True once, then after as long again."""
        wait = max(BY_TIME, _OF_TIME * self._seen.get("saving", 0.0))
        if self._since is None or (now := time.monotonic()) - self._since < wait:
            return False
        self._since = now
        return True

    def check(self, rest: float, spent: float = 0.0) -> None:
        """Raises OutOfTime, on all processes, if `rest` more seconds of a step of which `spent` are over would come too late. Without a budget nobody asks."""
        if self.is_set and ranks.same(rest > self.left):
            raise OutOfTime(rest + spent)

    @contextlib.contextmanager
    def before_steps(self) -> Iterator[None]:
        """What comes before the first step, reading data and watching, is given up when no time is left for a step."""
        before = IN_TIME.set(self._refuse_late)
        try:
            yield
        finally:
            IN_TIME.reset(before)

    def _refuse_late(self, work: str) -> None:
        if self.left <= 0:
            raise UserError(
                f"--budget is spent by {work} before the first step; give it more minutes, or less to do (--data, --watch)"
            )

    @contextlib.contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Saving or watching: the longest that was seen is kept back from now on."""
        begin = time.monotonic()
        yield
        end = time.monotonic()
        self._seen[what] = max(self._seen.get(what, 0.0), end - begin)
        if what == "saving":
            self._since = end

    def refuse_hopeless(self, seconds: float, windows: int) -> None:
        """Refuse a first step of so many seconds and windows that is not done in time. Raises UserError."""
        if seconds > self.left:
            raise self.refusal(seconds, windows)

    def refusal(self, seconds: float, windows: int) -> UserError:
        """Of a first step of about so many seconds: what it takes, what there is, and what would do."""
        if self.left <= 0:
            return UserError(
                "--budget leaves no time for a step beside loading, saving and measuring; give it more minutes"
            )
        fewer = int(windows * self.left / seconds)
        way = f"ask for a --batch-size of {fewer} at most" if fewer >= 1 else self._ways
        return UserError(
            f"a step of {windows} window{'s' if windows > 1 else ''} takes about {clock(seconds)} here, and --budget leaves {clock(self.left)} "
            f"for it beside saving and measuring; {way}, or give it more minutes"
        )


def seconds_of(
    flops: float, device: torch.device, dtype: torch.dtype = torch.float32, *, lasting: float = 0.0
) -> float:
    """What so many FLOPs of a model take there, before any of them was seen: at best; as busy as it is now, where products are timed `lasting` seconds."""
    return flops / (_REACHED * _rate(device, dtype, lasting))


def _rate(device: torch.device, dtype: torch.dtype, lasting: float = 0.0) -> float:
    """FLOP/s of a square product: the fastest of three; the mean of all in so many seconds, in which other programs have their turns."""
    a = torch.ones(_EDGE, _EDGE, device=device, dtype=dtype)  # nothing random: a run's own numbers stay the same
    times = []
    while len(times) < 4 or sum(times[1:]) < lasting:
        begin = time.perf_counter()
        float((a @ a)[0, 0])  # waits for it
        times.append(time.perf_counter() - begin)
    return 2 * _EDGE**3 / (sum(times[1:]) / len(times[1:]) if lasting else min(times[1:]))
