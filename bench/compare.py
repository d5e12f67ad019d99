"""Whether two versions of ropewalk compute the same, as fast and in as little memory, in turns on one machine.

    python -m bench.compare HEAD~1 HEAD --assert
    python -m bench.compare before/ after/ --only train --rounds 3

A and B are commits of this repository, or directories of checkouts (then git is not needed). Each turn is a process of its own
(turn.py) that imports its tree's ropewalk; the turns go A B A B …, so that a machine that slows down slows both. Without a GPU a
small model is trained and measured in a minute or two, and rates are per CPU second; with one, LLaMA 7B's shape at 32768.

With --assert it exits with 1 where figures differ or B is slower or larger than allowed. Slower is what is slower by its median
and by its fastest step alike: another program on the machine lowers a median, hardly ever the fastest of many steps. On a CPU figures are equal to the last
bit. On a GPU they may differ by --tolerance: sums have no fixed order there, and bfloat16 weights are rounded at random, by which
two turns of one version end up to 0.1 % apart after two steps.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
TURN = Path(__file__).with_name("turn.py")
PARTS = ("train", "perplexity", "passkey")


@dataclass(frozen=True)
class Limits:
    """What --assert allows, as shares: of a figure, of A's rate, of A's memory."""

    tolerance: float
    slower: float
    memory: float


@dataclass(frozen=True)
class Measured:
    """One measurement of one tree over all its turns.

    figures: losses or scores, a list a turn. rates: tokens or prompts per second, a list a turn. peak: bytes, the least of
    all turns, since what else happens to be loaded can only add.
    """

    figures: list[list[float]]
    rates: list[list[float]]
    peak: int

    @property
    def rate(self) -> float:
        """The median of all."""
        return statistics.median(rate for turn in self.rates for rate in turn)

    @property
    def best(self) -> float:
        """The fastest of all: the one that other programs of the machine delayed least."""
        return max(rate for turn in self.rates for rate in turn)

    @property
    def spread(self) -> float:
        """How far the medians of the turns lie apart, as a share of the median."""
        medians = [statistics.median(turn) for turn in self.rates]
        return (max(medians) - min(medians)) / self.rate


def tree_of(version: str, folder: Path) -> Path:
    """The directory of a checkout: the one that was named, or a commit's files written to `folder`.

    Raises:
        UserError: neither a directory with ropewalk in it nor a commit.
    """
    if Path(version).is_dir():
        if not (Path(version) / "src" / "ropewalk").is_dir():
            raise UserError(f"a directory to compare holds src/ropewalk, {version} does not; name a checkout's root")
        return Path(version).resolve()
    archive = folder.with_suffix(".tar")
    command = ["git", "-C", str(ROOT), "archive", "--output", str(archive), version]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(f"{version!r} is no directory, and a commit needs git; name two directories instead") from None
    if done.returncode:
        raise UserError(f"{version!r} is neither a directory nor a commit ({done.stderr.strip()}); see `git log`")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder


def run_turn(tree: Path, out: Path, options: list[str]) -> dict[str, Any]:
    """What turn.py measures with the tree's ropewalk, in a new process.

    Raises:
        UserError: the process failed; its own output says why.
    """
    # The tree's own ropewalk first; then whatever else was there, as libraries that were put on the path by hand.
    path = os.pathsep.join(filter(None, [str(tree / "src"), os.environ.get("PYTHONPATH")]))
    environment = {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-P", str(TURN), "--tree", str(tree), "--out", str(out), *options]
    done = subprocess.run(command, env=environment, cwd=tree, stdout=sys.stderr)
    if done.returncode:
        raise UserError(f"a turn ends with 0, that of {tree} with {done.returncode}; its messages stand above")
    return json.loads(out.read_text(encoding="utf-8"))


def collect(turns: list[dict[str, Any]]) -> dict[str, Measured]:
    """All turns of one tree, by what was measured."""
    names = [row["what"] for row in turns[0]["rows"]]
    rows = {name: [row for turn in turns for row in turn["rows"] if row["what"] == name] for name in names}
    return {
        name: Measured(
            figures=[row["figures"] for row in same],
            rates=[row["rates"] for row in same],
            peak=min(row["peak"] for row in same),
        )
        for name, same in rows.items()
    }


def difference(a: Measured, b: Measured) -> float:
    """The largest relative difference between a figure of A's first turn and the same of any other turn of A or B.

    Infinite where one is not a number or there are more of them.
    """
    first, *others = a.figures + b.figures
    if any(len(other) != len(first) for other in others):
        return float("inf")
    pairs = [(x, y) for other in others for x, y in zip(first, other, strict=True) if x != y]
    shares = [abs(x - y) / max(abs(x), abs(y)) for x, y in pairs]
    return max((share if share == share else float("inf") for share in shares), default=0.0)


def complaints(a: dict[str, Measured], b: dict[str, Measured], limits: Limits) -> list[str]:
    """A sentence for each thing that is worse than allowed; none where all is well."""
    sentences = []
    for what in a:
        apart, before, after = difference(a[what], b[what]), a[what], b[what]
        if apart > limits.tolerance:
            sentences.append(f"{what}: figures may be {limits.tolerance:g} apart, they are {apart:.2g}")
        loss = 1 - max(after.rate / before.rate, after.best / before.best)
        if loss > limits.slower:
            sentences.append(f"{what}: B may be {limits.slower:.1%} slower, it is {loss:.1%}")
        if after.peak > (1 + limits.memory) * before.peak:
            growth = after.peak / before.peak - 1
            sentences.append(f"{what}: B may take {limits.memory:.1%} more memory, it takes {growth:.1%}")
    return sentences


def table(a: dict[str, Measured], b: dict[str, Measured]) -> str:
    """A line a measurement: last figure, median rate and peak memory of A and B."""
    lines = [
        "| what | last figure A | B | apart | rate/s A | B | ratio | of the fastest | spread A | B | peak GiB A | B | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for what, before in a.items():
        after = b[what]
        cells = [what, repr(before.figures[0][-1]), repr(after.figures[0][-1]), f"{difference(before, after):.1e}"]
        cells += [f"{before.rate:.1f}", f"{after.rate:.1f}", f"{after.rate / before.rate:.3f}"]
        cells += [f"{after.best / before.best:.3f}", f"{before.spread:.1%}", f"{after.spread:.1%}"]
        cells += [f"{before.peak / 2**30:.3f}", f"{after.peak / 2**30:.3f}", f"{after.peak / before.peak:.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def measure_in_turns(versions: list[str], rounds: int, options: list[str]) -> list[list[dict[str, Any]]]:
    """Turns A B A B …: what each turn of A measured, and each of B."""
    with tempfile.TemporaryDirectory(prefix="compare-") as folder:
        place = Path(folder)
        trees = [tree_of(version, place / name) for name, version in zip("ab", versions, strict=True)]
        turns: list[list[dict[str, Any]]] = [[], []]
        for number in range(rounds):
            for tree, own_turns, name in zip(trees, turns, "AB", strict=True):
                print(f"turn {number + 1} of {rounds}, {name}: {tree}", file=sys.stderr, flush=True)
                own_turns.append(run_turn(tree, place / f"{name}{number}.json", options))
    return turns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("a", metavar="A", help="a commit or a directory: what was")
    parser.add_argument("b", metavar="B", help="a commit or a directory: what is")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--device", choices=["cpu", "cuda"], help="the GPU if there is one")
    parser.add_argument("--assert", dest="asserted", action="store_true", help="exit with 1 where B is worse")
    parser.add_argument(
        "--tolerance", type=float, help="of figures, relative; 0 on a CPU and 0.002 on a GPU if not given"
    )
    parser.add_argument("--slower", type=float, default=0.02, help="the share by which B may be slower")
    parser.add_argument("--memory", type=float, default=0.02, help="the share by which B may take more memory")
    parser.add_argument("--json", type=Path, help="write every turn here")
    asked = parser.parse_args()
    options = ["--only", *asked.only, *(["--device", asked.device] if asked.device else [])]
    try:
        if asked.rounds < 1:
            raise UserError(f"there is at least 1 round, got {asked.rounds}; leave --rounds out for 2")
        turns = measure_in_turns([asked.a, asked.b], asked.rounds, options)
    except UserError as error:
        parser.error(str(error))
    if asked.json:
        asked.json.parent.mkdir(parents=True, exist_ok=True)
        about = dict(command=sys.argv, a=asked.a, b=asked.b)
        asked.json.write_text(json.dumps({**about, "turns": turns}, indent=1), encoding="utf-8")
    a, b = (collect(own_turns) for own_turns in turns)
    first = turns[0][0]
    print(f"{first['device']}, torch {first['torch']}; A is {asked.a}, B is {asked.b}\n\n{table(a, b)}")
    tolerance = asked.tolerance if asked.tolerance is not None else 0.002 if first["on_gpu"] else 0.0
    sentences = complaints(a, b, Limits(tolerance, asked.slower, asked.memory))
    print("", *(sentences or ["B computes what A computes, and is no slower and no larger than allowed"]), sep="\n")
    if asked.asserted and sentences:
        sys.exit(1)


if __name__ == "__main__":
    main()
