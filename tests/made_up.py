"""Made-up records for the tests of the page: the shape of real ones, no model behind them. Written through record.Recorder."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import re
import tempfile
import zlib
from html import unescape
from pathlib import Path
from statistics import stdev

from scipy.stats import t

from ropewalk import records
from ropewalk.records import ModelInfo, Recorder, Run
from ropewalk.rope.scaling import Rope, from_dict
from ropewalk.suite.theory import forecast

BASE = ModelInfo("hemp", "llama", 256, 256, head_dim=32, parameters=3_412_480)
TASKS = {"boolq": 0.58, "piqa": 0.61, "race-middle": 0.33, "race-high": 0.29, "winogrande": 0.51}


def extended(factor: int = 4, steps: int = 0, method: str = "linear", name: str | None = None) -> ModelInfo:
    """A made-up extension of the made-up base."""
    run = f"runs/hemp-{method}-{256 * factor}"
    name = name or (f"{run}/checkpoints/step-{steps:06d}" if steps else run)
    parameters = {"method": method, "factor": float(factor)}
    scaling = from_dict(parameters if method != "plain" else {"method": "plain"})
    return ModelInfo(name, "llama", 256, 256 * factor, scaling, 10000.0, 32, 3_412_480, steps)


def run(state: ModelInfo, command: str, started: str = "2026-11-22T05:00:00+00:00", **changes) -> Run:
    """A header with made-up versions, the same on every machine."""
    found = dict(
        python="3.11.2",
        platform="Linux-6.1-x86_64",
        ropewalk="0.1.0",
        torch="2.13.0",
        transformers="5.23.0",
        numpy="2.4.0",
    )
    header = dict(
        id=f"{zlib.crc32(repr((state, command, started)).encode()):012x}", command=command, started=started, model=state
    )
    header |= dict(seed=0, device="cpu", dtype="float32", versions=found, settings={})
    return Run(**(header | changes))


def perplexity(window: int, nll: float, seed: int = 0, documents: int = 20, **changes) -> records.Perplexity:
    """A row whose documents scatter about a mean nll, so that the paired bootstrap has something to do."""
    draw = random.Random(seed)
    hardness = [draw.gauss(0, 0.25) for _ in range(documents)]
    noise = random.Random(f"{window}{nll}")
    rows = [
        {
            "name": f"module_{i:02d}.py",
            "tokens": 4000 + 37 * i,
            "nll": (nll + h + noise.gauss(0, 0.01)) * (4000 + 37 * i),
        }
        for i, h in enumerate(hardness)
    ]
    tokens = sum(row["tokens"] for row in rows)
    value = math.exp(sum(row["nll"] for row in rows) / tokens)
    fields = dict(window=window, stride=64, perplexity=value, low=value * 0.93, high=value * 1.08, documents=documents)
    fields |= dict(skipped=0, tokens=tokens, bos=True, data="shared/data/held-out", seconds=21.0, per_document=rows)
    return records.Perplexity(**(fields | changes))


def passkey(recorder: Recorder, window: int, reach: int, trials: int = 10, seed: int = 0) -> None:
    """32 depths that succeed up to `reach` tokens from the end, with a little noise, and their summary."""
    draw = random.Random(seed)
    k_max, right = 0, 0
    for depth in range(1, 33):
        k = window * depth // 32
        noise = draw.choice([0, 0, 0, 1] if k <= reach else [0, 0, 0, 0, 1])
        successes = max(1, trials - noise) if k <= reach else noise * (trials > 5)  # so that k_max is `reach`
        right += successes
        if k <= reach:
            k_max = k
        recorder.add(records.Passkey(window, k, trials, successes, successes * 5))
    recorder.add(records.PasskeySummary(window, k_max, 32, trials, right / (32 * trials), 12.0))


def steps(recorder: Recorder, count: int, start: float = 3.6, end: float = 2.2, tokens: int = 8192) -> None:
    """A made-up training: the loss falls exponentially, with noise."""
    draw = random.Random(count)
    for step in range(1, count + 1):
        loss = end + (start - end) * math.exp(-step / (count / 6)) + draw.gauss(0, 0.05)
        rate = 2e-5 * min(1.0, 0.1 + 0.9 * step / 20)
        recorder.add(records.Step(step, loss, rate, 0.7, tokens, 2048.0, tokens / 2048.0, 0.41, 3 * 2**30))


def benchmark(task: str, accuracy: float, seed: int, flips: float = 0.06, items: int = 500) -> records.Benchmark:
    """Answers to the same items for every seed, some of which flip."""
    draw = random.Random(task)
    answers = [draw.random() < accuracy for _ in range(items)]
    flip = random.Random(f"{task}{seed}")
    if seed:
        answers = [a if flip.random() > flips else flip.random() < accuracy - 0.25 for a in answers]
    correct = sum(answers)
    share = correct / items
    half = 1.96 * math.sqrt(share * (1 - share) / items)
    text = "".join("1" if a else "0" for a in answers)
    return records.Benchmark(
        task,
        share,
        share - half,
        share + half,
        items,
        correct,
        0,
        256,
        text,
        f"digest-{task}",
        f"{task} v1",
        "local",
        seconds=9.0,
    )


def write(path: Path, *, suite: bool = True) -> Path:
    """A whole made-up demo: base, extrapolation, PI before and after training; with `suite` everything else too."""
    path.write_bytes(_written(suite))
    return path


@functools.cache
def _written(suite: bool) -> bytes:
    """Once a session: the recorder forces every row to disk, which takes seconds for thousands of rows."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "records.jsonl"
        _demo(path)
        if suite:
            _suite(path)
        return path.read_bytes()


def _demo(path: Path) -> None:
    base = Recorder(
        path,
        run(
            BASE,
            "ropewalk perplexity hemp --data held-out --windows 128 256 512 1024 --out r.jsonl",
            "2026-11-22T05:00:00+00:00",
        ),
    )
    for window, nll in ((128, 2.42), (256, 2.283), (512, 3.9), (1024, 5.2)):
        base.add(perplexity(window, nll))
    for window, reach in ((256, 256), (512, 250), (1024, 240)):
        passkey(base, window, reach)
    training = Recorder(
        path,
        run(
            extended(),
            "ropewalk train runs/hemp-linear-1024 --data train --window 1024 --steps 200 --out runs/t",
            "2026-11-22T05:10:00+00:00",
        ),
    )
    steps(training, 200)
    for state, curve in (
        (extended(), {128: 2.9, 256: 2.77, 512: 2.70, 1024: 2.66}),
        (extended(steps=50), {1024: 2.30}),
        (extended(steps=100), {1024: 2.25}),
        (extended(steps=200), {128: 2.45, 256: 2.302, 512: 2.26, 1024: 2.232}),
    ):
        made = Recorder(
            path,
            run(
                state,
                f"ropewalk perplexity {state.name} --data held-out --out r.jsonl",
                f"2026-11-22T05:2{state.steps // 50}:00+00:00",
            ),
        )
        for window, nll in curve.items():
            made.add(perplexity(window, nll))
        passkey(made, 1024, {0: 96, 50: 600, 100: 1024, 200: 1024}[state.steps], seed=state.steps)
        if state.steps == 200:
            passkey(made, 512, 512, seed=1)
            passkey(made, 256, 256, seed=2)


def _suite(path: Path) -> None:
    theory = Recorder(path, run(BASE, "ropewalk theory hemp --window 1024", "2026-11-22T04:00:00+00:00"))
    for row in forecast(Rope(32, 10000.0, 256), 1024, seeds=2).rows:
        theory.add(row)
    for factor, method, nll, own in (
        (2, "linear", 2.295, 2.255),
        (8, "linear", 2.36, 2.26),
        (4, "yarn", 2.29, 2.235),
        (8, "yarn", 2.31, 2.24),
    ):
        state = extended(factor, 200, method)
        made = Recorder(
            path, run(state, f"ropewalk perplexity {state.name} --data held-out", "2026-11-22T06:00:00+00:00")
        )
        made.add(perplexity(256, nll))
        made.add(perplexity(256 * factor, own))
        training = Recorder(
            path,
            run(
                extended(factor, 0, method),
                f"ropewalk train … --window {256 * factor} --method {method}",
                "2026-11-22T05:50:00+00:00",
            ),
        )
        steps(training, 200, end=2.1 + 0.02 * factor)
    for state, seed in ((BASE, 0), (extended(steps=200), 1)):
        made = Recorder(
            path, run(state, f"ropewalk benchmarks {state.name} --data benchmarks", "2026-11-22T06:10:00+00:00")
        )
        for task, accuracy in TASKS.items():
            made.add(benchmark(task, accuracy, seed))
    made = Recorder(path, run(extended(steps=200), "ropewalk summarize runs/t --data gov", "2026-11-22T06:20:00+00:00"))
    intervals = {"rouge_1": [0.21, 0.27], "rouge_2": [0.05, 0.08], "rouge_l": [0.18, 0.22]}
    made.add(
        records.Summary(
            0.241,
            0.062,
            0.203,
            intervals,
            14,
            9,
            3,
            "sampling",
            1024,
            900,
            100,
            0.5,
            0.95,
            data="leval_gov_report_summ",
            seconds=120.0,
        )
    )
    for state, window, share in (
        (BASE, 256, 0.9),
        (BASE, 1024, 0.1),
        (extended(), 1024, 0.2),
        (extended(steps=200), 1024, 0.7),
    ):
        made = Recorder(
            path, run(state, f"ropewalk retrieval {state.name} --window {window}", "2026-11-22T06:30:00+00:00")
        )
        for place, family in enumerate(("keys", "values", "lookalikes", "chain")):
            made.add(retrieval(family, window, max(0.0, share - 0.15 * place)))
        made.add(gain(window, share / 4, share / 4 - 0.05, share / 4 + 0.05))
        made = Recorder(
            path, run(state, f"ropewalk attention {state.name} --window {window}", "2026-11-22T06:40:00+00:00")
        )
        for layer in range(4):
            made.add(scores(layer, window, 40.0 if state == BASE and window > 256 else 9.0))
            resolution = [0.4 / state.factor, 0.3 / state.factor]
            made.add(
                records.Adjacent(
                    layer, window, 1, 200, [0.8, 0.6], [2.0, 2.0], resolution, [0.3 - 0.02 * layer, 0.1], "held-out"
                )
            )


def gain(window: int, gained: float, low: float, high: float, seed: int = 0) -> records.ContextGain:
    """A made-up context gain against 64 tokens, twice as high at the end as on average."""
    parts = [
        {
            "start": start,
            "stop": 2 * start,
            "tokens": 9 * start,
            "gain": gained * start * 2 / window,
            "low": low,
            "high": high,
        }
        for start in (64 << power for power in range(6))
        if start < window
    ]
    row = records.ContextGain(
        window, 64, 32, gained, low, high, 5.0, 5.0 * math.exp(gained), 2.5, 2.2, 2.8, 9000, 70 + seed, 9, 3, bos=True
    )
    return dataclasses.replace(row, data="held-out", by_place=parts)


def retrieval(family: str, window: int, share: float, trials: int = 40) -> records.Retrieval:
    """Made-up trials, right with probability `share`, evenly spread over the window."""
    draw = random.Random(f"{family}{window}{share}")
    each = [{"placed": window * (i + 1) // (trials + 1), "right": draw.random() < share} for i in range(trials)]
    right = sum(trial["right"] for trial in each)
    half = 1.96 * math.sqrt(max(right, 1) * max(trials - right, 1) / trials**3)
    low, high = max(0.0, right / trials - half), min(1.0, right / trials + half)
    return records.Retrieval(window, family, trials, right, low, high, 3.0, each)


def scores(layer: int, window: int, far: float) -> records.AttentionScores:
    """Made-up scores of two heads that fall with distance inside 256 tokens and reach `far` beyond."""
    edges = [0, *(2**power for power in range(int(math.log2(window)) + 1))]
    top = [
        [12.0 - i - layer if edge < 256 else far + i + head for i, edge in enumerate(edges[:-1])] for head in range(2)
    ]
    low = [[-value for value in head] for head in top]
    typical = [[0.6 * value for value in head] for head in top]
    mean = [[0.0 for _ in head] for head in top]
    bound = [0.4343 * 9, 0.4343 * 7]
    corrected = [value * 0.4998 / 0.4343 for value in bound]
    deviation = [value * 0.3 for value in bound]
    return records.AttentionScores(
        layer,
        window,
        1,
        edges,
        top,
        low,
        typical,
        mean,
        [9.0, 7.0],
        deviation,
        bound,
        corrected,
        corrected,
        [40.0, 30.0],
        [60.0, 50.0],
        0.01,
        None,
        "held-out",
    )


def words(page: str) -> str:
    """What a reader reads: tags and the style sheet gone, blanks as one, narrow blanks as blanks."""
    body = re.sub(r"<style>.*?</style>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", body)).replace("\u202f", " "))


def row(
    nll: float, window: int = 256, documents: int = 5, tokens: int = 1000, reach: float = 0.0, **changes
) -> records.Perplexity:
    """A perplexity row whose documents all have the same nll a token, or scatter about it so that Student's interval of the mean reaches so far to either side."""
    places = [at - (documents - 1) / 2 for at in range(documents)]
    scatter = reach * math.sqrt(documents) / (t.ppf(0.975, documents - 1) * stdev(places)) if reach and documents > 1 else 0.0  # fmt: skip
    each = [
        {"name": f"d{i}", "tokens": tokens, "nll": (nll + scatter * place) * tokens} for i, place in enumerate(places)
    ]
    fields = dict(
        window=window,
        stride=64,
        perplexity=math.exp(nll),
        low=math.exp(nll - reach),
        high=math.exp(nll + reach),
        documents=documents,
    )
    fields |= dict(skipped=0, tokens=tokens * documents, bos=True, data="held-out", per_document=each)
    return records.Perplexity(**(fields | changes))


def record_rows(path: Path, *measured: tuple, **changes) -> Path:
    """(state, row, row, …) each as a run of its own."""
    for state, *rows in measured:
        recorder = Recorder(path, run(state, f"ropewalk measure {state.name}", **changes))
        for one in rows:
            recorder.add(one)
    return path
