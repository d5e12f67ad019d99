"""How long context gain takes, as a multiple of perplexity's time at the same window, stride and documents.

    python -m bench.gain                                  hemp on one core: a minute
    python -m bench.gain --model MODEL --window 32768 --short 4096 --stride 256 --tokens 65536

Random texts of the model's own tokens, as long as asked. Contestants take turns after one that is not timed; CPU seconds of the process on a
CPU, where cores may be shared, else wall seconds; the median turn counts.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from ropewalk.data.select import TokenizedDocument
from ropewalk.evals.loaded import open_model
from ropewalk.evals.perplexity.gain_reader import Reader
from ropewalk.evals.perplexity.measure import score_document
from ropewalk.evals.perplexity.two_pass import Contexts


def main() -> None:
    """Print seconds and their ratio."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="hemp")
    parser.add_argument("--window", type=int, default=256)
    parser.add_argument("--short", type=int, default=64)
    parser.add_argument("--stride", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=1024, help="of a document")
    parser.add_argument("--turns", type=int, default=5)
    args = parser.parse_args()
    loaded, contexts = open_model(args.model), Contexts(args.window, args.short, args.stride)
    ids = np.random.default_rng(0).integers(10, len(loaded.tokenizer), args.tokens)
    document, reader = TokenizedDocument("random", ids), Reader(loaded, None, contexts)
    places = [(document, place) for place in contexts.windows(args.tokens)]
    clock = time.process_time if loaded.device.type == "cpu" else time.perf_counter
    contestants = {
        "perplexity": lambda: score_document(loaded, document, args.window, args.stride),
        "gain": lambda: list(reader(places)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(args.turns + 1):
        for name, measure in contestants.items():
            started = clock()
            measure()
            if turn:
                seconds[name].append(clock() - started)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    ratio = medians["gain"] / medians["perplexity"]
    print(
        f"{args.model}, {args.tokens} tokens, window {args.window}, short {args.short}, stride {args.stride} on {loaded.device}: "
        + ", ".join(f"{name} {median:.2f} s" for name, median in medians.items())
        + f", ratio {ratio:.2f}"
    )


if __name__ == "__main__":
    main()
