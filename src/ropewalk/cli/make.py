"""Commands that make something: a longer model, a trained one, a page, the demo. Call, print."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ropewalk.cli import rehearse
from ropewalk.cli.terminal import agreed, say
from ropewalk.errors import UserError
from ropewalk.sentences import counted
from ropewalk.settings.command import arguments
from ropewalk.settings.export import ExportSettings, MergeSettings, PushSettings
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.pages import CardSettings, DemoSettings, ReportSettings
from ropewalk.settings.search import SearchSettings
from ropewalk.settings.train import TrainSettings

if TYPE_CHECKING:
    from ropewalk.model.push import Parcel


def _typed(name: Any) -> str:
    """A name as a shell takes it."""
    return shlex.quote(str(name))


def _made(options: Any, result: str, *advice: str) -> None:
    """What came of a command, and what a person may do or know next; --quiet is the result alone."""
    say("\n".join([result, *([] if options.quiet else advice)]))


def extend(options: Any) -> None:
    if options.dry_run:
        return rehearse.extend(options)
    from ropewalk.model.extend import extend
    from ropewalk.records.choice import of_choice
    from ropewalk.records.evidence import evidence
    from ropewalk.rope.scaling import InterpolatedTable

    settings = ExtendSettings(**arguments(ExtendSettings, options))
    info = extend(**arguments(ExtendSettings, settings))
    if options.json:
        say(json.dumps({"out": str(options.out), "measured": evidence(info), **info.to_dict()}, indent=2))
        return
    if info.method == InterpolatedTable.method:
        say(
            f"{options.out}: {info.family}, window {info.original_window} → {info.window} tokens, {info.method} factor {info.factor:g}; the "
            "table of positions in its weights is that long, and every reader finds it there"
        )
        return
    _made(
        options,
        f"{options.out}: {info.family}, window {info.original_window} → {info.window} tokens, {info.method} factor {info.factor:g}; "
        "transformers computes this inv_freq",
        of_choice(settings.method, info),
        f"until it is trained it may read worse than before, in its old window too: ropewalk train {_typed(options.out)} --data … --window {info.window} --out …",
        f"short answers may change too: ask both models a few of your own questions, now and after training, by ropewalk chat {_typed(settings.model)} --question … "
        f"and ropewalk chat {_typed(options.out)} --question …",
        f"for vLLM, SGLang, llama.cpp, MLX or Ollama: ropewalk export {_typed(options.out)} --for … --out …",
    )


def search(options: Any) -> None:
    if options.dry_run:
        return rehearse.search(options)
    from ropewalk.checkpoint.window import Answers
    from ropewalk.evals.factor_search import search

    searched = search(**arguments(SearchSettings, options))
    answers = str(Answers(options.current_window, options.original_window))
    starts = ", ".join(f"{method} {perplexity:.4f}" for method, perplexity in searched.starts.items())
    _made(
        options,
        f"{searched.out}: {searched.factors[0]:g} to {searched.factors[-1]:g} over {len(searched.factors)} pairs; perplexity {searched.perplexity:.4f} on the "
        f"sample, where it began: {starts}",
        f"now: ropewalk extend {_typed(options.model)} --window {searched.window} --method {searched.method} --factors {_typed(searched.out)} "
        f"{answers and f'{answers} '}--out …",
    )


def train(options: Any) -> None:
    if options.dry_run:
        return rehearse.train(options)
    from ropewalk.checkpoint.steps import ENDED_BY, MODEL_STEP, WATCH_STOP, asked_of, taken
    from ropewalk.suite.watch import train

    info = train(**arguments(TrainSettings, options))
    out, windows = _typed(options.out), " ".join(str(window) for window in sorted({info.original_window, info.window}))
    end = asked_of(options.out)
    is_stopped, is_worse = end.get(ENDED_BY) == WATCH_STOP, MODEL_STEP not in end
    model = (
        f"worse at {info.original_window} tokens than before"
        if is_worse
        else f"this is the model of step {info.steps} of {taken(Path(options.out))}, from before it was worse at {info.original_window} tokens"
    )
    _made(
        options,
        f"{options.out}: {info.family}, window {info.window} tokens, {info.method} factor {info.factor:g}, {info.trained}"
        + f", ended by {WATCH_STOP}: {model}" * is_stopped
        + f"; the loss of every step is in {options.out}/records.jsonl",
        f"now: ropewalk report {out}/watch.jsonl {out}/records.jsonl --out watch.html"
        if is_stopped and is_worse
        else f"now: ropewalk perplexity {out} --data … --windows {windows}",
    )


def merge(options: Any) -> None:
    from ropewalk.exports import merge

    info = merge(**arguments(MergeSettings, options))
    say(
        f"{options.out}: {info.family}, window {info.window} tokens, {info.method} factor {info.factor:g}, adapter merged"
    )


def export(options: Any) -> None:
    from ropewalk.exports import export

    exported = export(**arguments(ExportSettings, options))
    serves = f"{exported.reader} reads back a window of {exported.window} tokens and the rotation of the checkpoint"
    says = "; ".join(filter(None, [serves, exported.says]))
    say("\n".join(filter(None, [f"{exported.out}: {says}", exported.cost, exported.command])))


def report(options: Any) -> None:
    from ropewalk.reports import report

    say(str(report(**arguments(ReportSettings, options))))


def card(options: Any) -> None:
    from ropewalk.reports.card import card

    say(str(card(**arguments(CardSettings, options))))


def push(options: Any) -> None:
    from ropewalk.model.push import Parcel, upload

    settings = PushSettings(**arguments(PushSettings, options))
    parcel = Parcel.of(settings)
    say(_listed(parcel, options))
    if options.dry_run:
        return
    parcel = parcel.beside(options.repository)
    say(_on_the_hub(parcel, options))
    if not options.yes and not agreed(f"Upload to {options.repository}?"):
        raise UserError("nothing was uploaded, since nobody said yes; add --yes")
    say(upload(parcel, settings))


def _listed(parcel: Parcel, options: Any) -> str:
    """What would be uploaded and what would not, a file a line; the hub is not asked."""
    seen_by = "public, by --public" if options.public else "private; --public for everyone"
    size = f"{counted(len(parcel.sizes), 'file')}, {sum(parcel.sizes.values()):,} bytes"
    lines = [f"{size}, to {options.repository} ({seen_by}):"]
    lines += [f"{size:16,}  {name}" for name, size in parcel.sizes.items()]
    if parcel.stays:
        lines.append(f"not uploaded: {', '.join(parcel.stays)}")
    lines += [f"{name} names what only this machine has: {', '.join(places)}" for name, places in parcel.places.items()]
    lines += [f"{name} is a link, and what it leads to is uploaded: {place}" for name, place in parcel.links.items()]
    if parcel.code:
        lines.append(parcel.says_of_code)
    if parcel.is_unlicensed:
        lines.append(
            "its card says license: unknown; ask the base's owner what others may do with it, and write that there"
        )
    return "\n".join(lines)


def _on_the_hub(parcel: Parcel, options: Any) -> str:
    """What the hub has by that name, and which of its files would be replaced."""
    new = "new, public" if options.public else "new, private"
    there = {None: new, True: "there, public", False: "there, private"}[parcel.public]
    replaced = f"; replaced there: {', '.join(parcel.replaced)}" if parcel.replaced else ""
    return f"{options.repository}: {there}{replaced}"


def demo(options: Any) -> None:
    if options.dry_run:
        return rehearse.demo(options)
    from ropewalk.cli.tables.demo import show_demo
    from ropewalk.suite.demo import demo

    started = time.perf_counter()
    show_demo(demo(**arguments(DemoSettings, options)), time.perf_counter() - started)
    say(f"the page: {options.out}/report.html")
