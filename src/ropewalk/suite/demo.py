"""The main job on a fresh machine: extend the embedded model, train it, measure it, and write the page.

in   nothing but this machine's standard library: its modules are the documents
out  a directory with the extended and the trained checkpoint, records.jsonl and report.html

base → extrapolation → Position Interpolation untrained → trained, each measured by the same two instruments: perplexity on
held-out modules, and the passkey test. Every stage calls what the command line calls.
"""

from __future__ import annotations

import logging
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import refuse_unwritable, whole_directory
from ropewalk.records import PasskeySummary, Perplexity, Records, read, rename_in
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.pages import DemoSettings, DemoSizes
from ropewalk.settings.recipe import Precision

_logger = logging.getLogger(__name__)
R = TypeVar("R", Perplexity, PasskeySummary)


@dataclass(frozen=True)
class Goal:
    """One line of the demo's verdict: what was asked, what came out."""

    promise: str
    result: str
    met: bool


@takes(DemoSettings)
def demo(settings: DemoSettings) -> list[Goal]:
    """Run the whole demo and write it to `out`, which appears when it is complete.

    Returns:
        What the demo promises, and what came out.

    Raises:
        UserError: `out` exists, or the disk is full.
    """
    out, sizes = Path(settings.out), settings.sizes or DemoSizes()
    refuse_unwritable(out)
    with whole_directory(out, overwrite=settings.overwrite) as beside, _fastest_threads() as threads:
        precision = choose_precision()
        _logger.info(f"measuring and training with {threads} thread{'s' if threads > 1 else ''} and {precision}")
        run_file.write(settings, beside)
        _run(beside, sizes, precision)
        for records in (beside / "records.jsonl", beside / "trained" / "records.jsonl"):
            rename_in(records, str(beside), str(out))
        goals = verdict(read([beside / "records.jsonl"]), sizes)
        _page(beside)
    return goals


def _run(out: Path, sizes: DemoSizes, precision: Precision) -> None:
    """Every stage, in the order of the paper's argument; each appends its rows to records.jsonl."""
    from ropewalk.model.extend import extend
    from ropewalk.training import train

    base = Checkpoint.open("hemp").info
    _logger.info(f"hemp, {base.parameters / 1e6:.1f} M parameters, reads {base.window} tokens")
    _measure("hemp", out, sizes, [base.window, sizes.window])
    _logger.info(f"Position Interpolation to {sizes.window} tokens, untrained")
    extend("hemp", window=sizes.window, method="linear", out=out / "extended")
    _measure(out / "extended", out, sizes, [base.window, sizes.window], keys=[sizes.window])
    documents = training_documents(sizes)
    modules = len(documents) - sizes.exercises
    _logger.info(f"fine-tuning for {sizes.steps} steps on {modules} modules and {sizes.exercises} exercises")
    train(
        out / "extended",
        data=documents,
        window=sizes.window,
        method="linear",
        steps=sizes.steps,
        batch_size=sizes.batch_size,
        learning_rate=sizes.learning_rate,
        seed=sizes.seed,
        precision=precision,
        out=out / "trained",
    )
    _logger.info("Position Interpolation, trained")
    _measure(out / "trained", out, sizes, [base.window, sizes.window])


def training_documents(sizes: DemoSizes) -> list[Any]:
    """The exercises, each as long as a window, and then the training modules of this machine's standard library."""
    import numpy as np

    from ropewalk.data import recall
    from ropewalk.data.documents import read_documents
    from ropewalk.data.encode import encode
    from ropewalk.data.stdlib import standard_library
    from ropewalk.model.load import load_tokenizer

    tokenizer = load_tokenizer("hemp")
    modules = list(read_documents(standard_library("train")))
    # A hundred modules are text enough to hide facts in.
    ordinary = np.concatenate([encode(tokenizer, module.text) for module in modules[:100]])
    exercises = recall.documents(
        tokenizer.backend_tokenizer, ordinary, count=sizes.exercises, window=sizes.window, seed=sizes.seed
    )
    return [*exercises, *modules]


def _measure(model: str | Path, out: Path, sizes: DemoSizes, windows: list[int], keys: list[int] | None = None) -> None:
    """Perplexity at `windows`, and the passkey test at `keys` (the same if not given)."""
    from ropewalk.data.stdlib import standard_library
    from ropewalk.evals.perplexity.measure import perplexity
    from ropewalk.evals.retrieval.passkey import passkey

    for window in windows:
        perplexity(
            model,
            data=standard_library("held_out"),
            windows=[window],
            stride=window // sizes.overlap,
            limit=sizes.documents,
            min_tokens=sizes.window,
            max_tokens=sizes.tokens_each,
            seed=sizes.seed,
            out=out / "records.jsonl",
        )
    for window in keys or windows:
        passkey(
            model, window=window, depths=sizes.depths, trials=sizes.trials, seed=sizes.seed, out=out / "records.jsonl"
        )


def _fastest_threads() -> AbstractContextManager[int]:
    """Measure and train with the number of threads that was fastest when this machine was first tried; OMP_NUM_THREADS holds if it is set."""
    import torch

    from ropewalk.training import threads

    return threads.settled(None, None, torch.device("cpu"))


def choose_precision() -> Precision:
    """bfloat16 arithmetic (on float32 weights) where this processor has it in hardware, else float32; by trying, once a machine."""
    import torch

    from ropewalk.training import threads

    def seconds(dtype: torch.dtype) -> float:
        a, b = torch.randn(2048, 256, dtype=dtype), torch.randn(256, 1024, dtype=dtype)
        times = []
        for _ in range(20):
            start = time.perf_counter()
            a @ b
            times.append(time.perf_counter() - start)
        return sorted(times)[5]

    def faster() -> str:
        return "bfloat16" if seconds(torch.bfloat16) < 0.8 * seconds(torch.float32) else "float32"

    return "bfloat16" if threads.kept("precision", ["bfloat16", "float32"], faster) == "bfloat16" else "float32"


def verdict(records: Records, sizes: DemoSizes) -> list[Goal]:
    """The demo's four promises against its own records."""
    variants = {"base": ("plain", False), "untrained": ("linear", False), "trained": ("linear", True)}

    def pick(kind: type[R], which: str, window: int) -> R:
        method, trained = variants[which]
        return next(
            m.row
            for m in records.of(kind)
            if (m.row.window, m.run.model.method, m.run.model.steps > 0) == (window, method, trained)
        )

    short = min(m.row.window for m in records.of(Perplexity))
    long = sizes.window

    def ppl(which: str, window: int) -> float:
        return pick(Perplexity, which, window).perplexity

    def passkey(which: str, window: int) -> PasskeySummary:
        return pick(PasskeySummary, which, window)

    def k_max(which: str, window: int) -> int:
        return passkey(which, window).k_max

    base, beyond = ppl("base", short), ppl("base", long)
    after_short, after_long = ppl("trained", short), ppl("trained", long)
    return [
        Goal(
            "extrapolation is at least 4 times worse than the base in its window",
            f"{base:.2f} at {short}, {beyond:.2f} at {long}: {beyond / base:.1f} times",
            beyond >= 4 * base,
        ),
        Goal(
            "interpolation, trained, stays within 5 % of the base at the original window",
            f"{base:.2f} → {after_short:.2f}: {100 * (after_short / base - 1):+.1f} %",
            after_short <= 1.05 * base,
        ),
        Goal(
            "interpolation, trained, beats the base at the new window",
            f"{beyond:.2f} → {after_long:.2f} at {long} (the base in its own window: {base:.2f})",
            after_long < beyond,
        ),
        Goal(
            f"the base finds the passkey no farther than {short} tokens back",
            f"k_max {passkey('base', short).reach}, {passkey('base', long).reach}",
            max(k_max("base", short), k_max("base", long)) <= short,
        ),
        Goal(
            f"interpolation, trained, finds it at least {3 * long // 4} tokens back",
            f"k_max {passkey('trained', long).reach} (untrained: {k_max('untrained', long)})",
            k_max("trained", long) >= 3 * long // 4,
        ),
    ]


def _page(out: Path) -> None:
    from ropewalk.reports import report

    report([out / "records.jsonl", out / "trained" / "records.jsonl"], out / "report.html")
