"""Tables of what was measured on a model itself: perplexity, context gain, passkey, retrieval."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from ropewalk.cli.terminal import console
from ropewalk.data.scores import ranked
from ropewalk.evals.digits import digits
from ropewalk.evals.intervals import lacking, share_interval
from ropewalk.evals.reach import leaves_open
from ropewalk.records import ContextGain, EffectiveLength, LongTask, Passkey, PasskeySummary, Perplexity, Retrieval
from ropewalk.records.format import fixed
from ropewalk.records.retrieval import CHANCE, FIRST_DIGIT
from ropewalk.sentences import counted

#: Documents that are shown of each end of a longer list.
_SHOWN = 12


def _of(what: str, name: str, data: str = "") -> str:
    """A table's title: what was measured of which model, on which texts."""
    return what + f" of {name}" * bool(name) + f" on {data}" * bool(data)


def show_perplexity(rows: Sequence[Perplexity], name: str = "") -> None:
    """Print rows as a table; `name` is the model's."""
    first = rows[0]
    conditions = (
        f"stride {first.stride}, {'BOS first' if first.bos else 'no BOS'}, {sum(row.seconds for row in rows):.1f} s"
    )
    if first.convention != "ropewalk":
        conditions += f", as {first.convention}"
    table = Table(title=f"{_of('perplexity', name, first.data)} ({conditions})", title_justify="left")
    skipped = any(row.skipped for row in rows)  # eighty columns hold no column of zeros
    for heading in ("window", "perplexity", "95 % interval", "documents", *["too short"] * skipped, "tokens"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(
            f"{row.window}{', extrapolation' * row.extrapolation}",
            f"{'about ' if row.estimate else ''}{row.perplexity:.3f}",
            _interval(row),
            f"{row.documents}" + f", {row.shorter} shorter" * bool(row.shorter),
            *[f"{row.skipped}"] * skipped,
            f"{row.tokens}",
        )
    console().print(table)


def show_gain(row: ContextGain, name: str = "") -> None:
    """Print the gain by place in a document, and in sum; and LongPPL."""
    conditions = f"{row.window} tokens{_beyond(row)}, against {row.short}; stride {row.stride}, {'BOS first' if row.bos else 'no BOS'}, {row.seconds:.1f} s"
    table = Table(title=f"{_of('context gain', name, row.data)}, {conditions}", title_justify="left")
    for heading in ("place", "tokens", "gain", "95 % interval"):
        table.add_column(heading, justify="right")
    for part in row.by_place:
        interval = _nats(part["low"], part["high"]) if not row.estimate else ""
        table.add_row(f"{part['start']} to {part['stop'] - 1}", f"{part['tokens']}", fixed(part["gain"], 4), interval)
    about = "about " * row.estimate
    table.add_section()
    table.add_row("all", f"{row.tokens}", f"{about}{fixed(row.gain, 4)}", _nats(row.low, row.high))
    terminal = console()
    terminal.print(table)
    terminal.print(
        f"Gain in nats a token over {counted(row.documents, 'document')} ({row.skipped} too short): "
        f"perplexity {about}{row.perplexity:.3f}, with the short context, of {row.short - row.stride} to {row.short - 1} tokens, {row.short_perplexity:.3f}"
    )
    chosen = f"{counted(row.key_tokens, 'key token')} of {row.tokens}, chosen by {row.evaluator or 'the model itself'}"
    low, high = row.longppl_bounds
    interval = f" ({low:.3f} to {high:.3f})" if low == low else " (no interval: too few documents)" * (not row.estimate)
    terminal.print(
        f"LongPPL {about}{row.longppl:.3f}{interval}, over {chosen}" if row.key_tokens else f"LongPPL: none, {chosen}"
    )


def show_scores(row: ContextGain, out: Any) -> None:
    """Print documents, the best first; of many, both ends of the list."""
    title = f"what {row.window} tokens{_beyond(row)} give beyond {row.short}, nats a token"
    table = Table(title=f"{title} ({row.seconds:.1f} s)", title_justify="left")
    for heading in ("rank", "score", "tokens"):
        table.add_column(heading, justify="right")
    table.add_column("document", overflow="fold")
    documents = ranked(row)
    for place, each in enumerate(documents):
        if place < _SHOWN or place >= len(documents) - _SHOWN:
            table.add_row(str(each["rank"]), fixed(each["score"], 4), str(each["tokens"]), escape(each["name"]))
        elif place == _SHOWN:
            table.add_row("…", "", "", f"{len(documents) - 2 * _SHOWN} more")
    terminal = console()
    terminal.print(table)
    worse = sum(each["score"] <= 0 for each in documents)
    terminal.print(
        f"{counted(len(documents), 'document')} scored, {row.skipped} too short; {worse} gain nothing"
        + ("" if out is None else f"; `ropewalk train --scores {escape(shlex.quote(str(out)))}` chooses by them")
    )


def _nats(low: float, high: float) -> str:
    return "none, of 1 document" if math.isnan(low) else f"{fixed(low, 4)} to {fixed(high, 4)}"


def _interval(row: Perplexity) -> str:
    """Over documents, of which a few say nothing about others; another's rule has none."""
    if row.says_nothing:
        return lacking(row)
    return "none" if math.isnan(row.low) else f"{row.low:.2f} to {row.high:.2f}"


def _beyond(row: PasskeySummary | Retrieval | ContextGain) -> str:
    return ", extrapolation: beyond the model's own window" * row.extrapolation


def show_passkey(rows: Sequence[Passkey], summary: PasskeySummary, name: str = "") -> None:
    """Print the depths, near to far, and k_max."""
    table = Table(title=f"{_of('passkey', name)}, {summary.window} tokens{_beyond(summary)}", title_justify="left")
    for heading in ("k", "placed", "right", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in rows:
        low, high = share_interval(row.successes, row.trials)
        table.add_row(
            f"{row.k}", f"{row.placed}", f"{row.successes} of {row.trials}", f"{100 * low:.0f} to {100 * high:.0f} %"
        )
    terminal = console()
    terminal.print(table)
    interval = f"95 % interval {summary.k_low} to {summary.k_high}"
    if summary.says_nothing:
        interval = f"and {leaves_open(summary)}"
    terminal.print(
        f"k_max {summary.reach}, {interval}; "
        f"{100 * summary.accuracy:.0f} % of {counted(summary.prompts, 'prompt')} right, in {summary.seconds:.1f} s"
    )
    if right := digits(summary, rows):
        value, low, high = (100 * each for each in right)
        guess = f": {FIRST_DIGIT}" * (low > 100 * CHANCE and summary.accuracy < 1)
        terminal.print(
            f"{value:.0f} % of the keys' digits right, 95 % interval {low:.0f} to {high:.0f} %, {100 * CHANCE:.0f} % by chance{guess}"
        )
    if summary.after_blank is not None:
        where = "after the blank" if summary.after_blank else "before the blank, which this tokenizer joins to the key"
        terminal.print(f"the prompt ends {where}; the key is {summary.key_tokens} tokens")


def show_retrieval(rows: Sequence[Retrieval], name: str = "") -> None:
    """Print the families as a table."""
    table = Table(title=f"{_of('retrieval', name)}, {rows[0].window} tokens{_beyond(rows[0])}", title_justify="left")
    for heading in ("family", "right", "share", "95 % interval", "seconds"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    for row in rows:
        share = f"{100 * row.successes / row.trials:.0f} %"
        interval = f"{100 * row.low:.0f} to {100 * row.high:.0f} %"
        table.add_row(row.family, f"{row.successes} of {row.trials}", share, interval, f"{row.seconds:.1f}")
    console().print(table)


def show_ruler(rows: Sequence[LongTask], summary: EffectiveLength, name: str = "") -> None:
    """Print a line a task and a column a length, the mean below, and how long a context is used."""
    windows = sorted({row.window for row in rows})
    title = f"{_of('long-context tasks', name)}, {sum(row.seconds for row in rows):.0f} s"
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    for window in windows:
        beyond = any(row.extrapolation for row in rows if row.window == window)
        table.add_column(f"{window}{', extrapolation' * beyond}", justify="right")
    by_task: dict[str, dict[int, LongTask]] = {}
    for row in rows:
        by_task.setdefault(row.task, {})[row.window] = row
    for task, of_task in by_task.items():
        cells = (
            _points(of_task[window]) + f" of {of_task[window].items}" if window in of_task else "does not fit"
            for window in windows
        )
        table.add_row(task, *cells)
    table.add_section()
    means = {part["window"]: LengthMean(part["score"], part["low"], part["high"]) for part in summary.by_window}
    mean_of = f"mean of {counted(len(summary.tasks), 'task')}{' that fit all lengths' * bool(summary.unfit)}"
    table.add_row(mean_of, *(_points(means[window]) if window in means else "" for window in windows))
    terminal = console()
    terminal.print(table)
    terminal.print("Scores in points of 100 with their 95 % intervals, and of how many items.", style="dim")
    terminal.print(summary.in_words)
    for sentence in [*summary.omissions, *summary.besides(rows)]:
        terminal.print(sentence)


class LengthMean(NamedTuple):
    """A mean over tasks."""

    score: float
    low: float
    high: float


def _points(row: LongTask | LengthMean) -> str:
    return f"{100 * row.score:.0f} ({100 * row.low:.0f} to {100 * row.high:.0f})"
