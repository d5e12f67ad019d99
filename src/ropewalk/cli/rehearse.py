"""`--dry-run`: what a command that takes long would do, read off the same settings and files. Nothing is written, no weight is loaded."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path
from typing import Any

from ropewalk.cli.terminal import say, tell
from ropewalk.sentences import counted, joined, size_in_words
from ropewalk.settings.command import arguments
from ropewalk.settings.downstream import EvaluateSettings
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.pages import DemoSettings, DemoSizes
from ropewalk.settings.plan import PlanSettings
from ropewalk.settings.search import SearchSettings
from ropewalk.settings.train import TrainSettings

_NOTHING = "a dry run: nothing was written"
#: Tokens of a conversation that are shown.
_SHOWN = 200


def extend(options: Any) -> None:
    """The model as it would be, after every check that the command makes before it writes."""
    from ropewalk.checkpoint.rope_config import RopeConfig
    from ropewalk.model.extend import prepared
    from ropewalk.records.choice import of_choice
    from ropewalk.records.evidence import evidence

    settings = ExtendSettings(**arguments(ExtendSettings, options))
    extended, written = prepared(settings)
    before, info = (extended.weights_of or extended).info, extended.info
    if options.json:
        return say(json.dumps({"out": str(options.out), "measured": evidence(info), **info.to_dict()}, indent=2))
    if isinstance(extended.positions, RopeConfig):
        tell(of_choice(settings.method, info))
    say(
        f"extend {before.name}, {info.family}, window {before.window} → {info.window} tokens, {info.method} factor {info.factor:g}\n"
        f"into {settings.out}: config.json, README.md, tokenizer, weights ({size_in_words(written.weights)}) {written.how}\n{_NOTHING}"
    )


def train(options: Any) -> None:
    """The run, what it reads (which is tokenised for it where that is quick, else estimated), and the plan for this machine."""
    from ropewalk.checkpoint.replacement import begun, goes_on_in, taken_up
    from ropewalk.checkpoint.steps import all_taken, steps_left
    from ropewalk.cli.tables.plan import show_plan
    from ropewalk.cli.tables.plan_sentences import ends_early, in_short
    from ropewalk.distributed import ranks
    from ropewalk.planner.planner import plan
    from ropewalk.suite.digests import warn_of_trained_texts
    from ropewalk.training.batch import batches_of, estimates_of
    from ropewalk.training.deadline import Deadline
    from ropewalk.training.run import method_taken
    from ropewalk.training.setup import mesh_for, settled_for, trained_checkpoint

    settings = asked = TrainSettings(**arguments(TrainSettings, options))
    warn_of_trained_texts("watch-data", settings.watch_data, settings.data)
    deadline = Deadline(settings.budget, settings.mode)
    checkpoint = trained_checkpoint(settings)
    before, after = (checkpoint.weights_of or checkpoint).info, checkpoint.info
    mesh = mesh_for(settings)
    settings = settled_for(settings, checkpoint, mesh)
    run = goes_on_in(settings.out)
    if settings.resume and (beside := begun(settings.out)):
        tell(taken_up(beside, settings.out))
    left = steps_left(run, settings.steps) if settings.resume else settings.steps
    if not left:
        return say(f"{settings.out} has {all_taken(run, settings.steps)}\n{_NOTHING}")
    readings, seconds = ranks.first(lambda: estimates_of(settings, checkpoint))
    batches = None if readings else batches_of(settings, checkpoint, mesh)
    sources = [f"{reading} (estimated)" for reading in readings] if batches is None else batches.readings
    shown = "" if batches is None else _a_conversation(batches.windows, checkpoint)
    tell(
        f"train {before.name}, {after.family}, {after.parameters / 1e6:,.1f} M weights, window {before.window} → {settings.window} tokens, "
        f"{after.method} factor {after.factor:g}\n"
        f"{_steps(settings, left, settings.tokens_in_memory(checkpoint.positions.original_window))}:\n"
        + "".join(f"  {source}\n" for source in sources)
        + shown
        + _unread(seconds) * bool(readings)
        + f"into {settings.out}: {_saves(settings)}, then the model"
    )
    if sentence := method_taken(settings, checkpoint):
        tell(sentence)
    # As asked for, since what is proposed is typed beside that.
    given = {name: value for name, value in vars(asked).items() if name in PlanSettings.__dataclass_fields__}
    planned = plan(**given | {"steps": left})
    tell(in_short(planned))
    show_plan(planned)
    _ask_disk(settings, checkpoint, planned, settings.steps - left)
    if planned.rates.known:
        deadline.will_save(2 * (planned.memory.weights + planned.memory.states))  # as in the run itself
        deadline.refuse_hopeless(planned.time.seconds, settings.batch)
    if settings.budget is not None and (sentence := ends_early(planned, settings.budget)):
        tell(sentence)
    say(_NOTHING)


def _steps(settings: TrainSettings, left: int, tokens: int) -> str:
    """The steps that are left, and what they read. tokens: of one window, or of one chunk of it."""
    done = (
        f"{settings.steps - left} of {counted(settings.steps, 'step')} are done, and " if left < settings.steps else ""
    )
    read = (
        f"{counted(settings.batch, 'chunk')} of {counted(tokens, 'token')}"
        if settings.mode == "pose"
        else counted(settings.batch, "window")
    )
    return f"{done}{counted(left, 'step')} of {read}, {left * settings.batch * tokens:,} tokens in all"


def _saves(settings: TrainSettings) -> str:
    """When a checkpoint is saved."""
    from ropewalk.training.deadline import BY_TIME

    often = [f"every {counted(settings.save_steps, 'step')}"] if 0 < settings.save_steps < settings.steps else []
    often += [f"after every {counted(round(BY_TIME / 60), 'minute')} without"] if settings.saves_by_time else []
    often += ["at each look"] if settings.saves_by_time and settings.watch_stop is not None else []
    return f"a checkpoint {' and '.join(often)}" if often else "no checkpoint before the end"


def _a_conversation(windows: Any, checkpoint: Any) -> str:
    """How a conversation of the first row begins, as the model reads it, with what the loss looks at between « and »; empty where all is text."""
    from ropewalk.data.best_fit import FittedBlocks
    from ropewalk.data.mixture import Mixture
    from ropewalk.data.packing import IGNORED
    from ropewalk.model.load import load_tokenizer

    each = [part.rows for part in windows.parts] if isinstance(windows, Mixture) else [windows]
    rows = next((rows for rows in each if isinstance(rows, FittedBlocks) and rows.tokens.marks is not None), None)
    if rows is None:
        return ""
    tokenizer, first = load_tokenizer(checkpoint), rows.rows([0])
    ids, positions = first["input_ids"][0].tolist(), first["position_ids"][0].tolist()
    length = (positions[1:] + [0]).index(0) + 1  # where the next one begins
    scored = [False, *(first["labels"][0] != IGNORED).tolist()]
    text = ""
    for is_scored, run in itertools.groupby(range(min(length, _SHOWN)), key=scored.__getitem__):
        piece = str(tokenizer.decode([ids[place] for place in run]))
        text += f"«{piece}»" if is_scored else piece
    more = "…" * (length > _SHOWN)
    text = text.replace("\n", "\\n")
    return f"a conversation, what is scored between « and »: {text}{more}\n"


def _unread(seconds: float) -> str:
    """What a rehearsal leaves to the run, where the data are many."""
    from ropewalk.records.format import duration

    return (
        f"tokens and windows are estimated from a sample: tokenising all takes about {duration(seconds)} here, before the first step, once, since it is kept for "
        "later runs. Which texts are long enough, what of conversations fits no window, and each source's share of the scored tokens, the run says then\n"
    )


def _ask_disk(settings: TrainSettings, checkpoint: Any, planned: Any, done: int) -> None:
    """Say what the run will write, and refuse it as the run itself does where there is no room; the states are the plan's, since no weight is loaded."""
    from ropewalk.checkpoint.disk_room import free
    from ropewalk.checkpoint.replacement import goes_on_in
    from ropewalk.training import disk
    from ropewalk.training.snapshots import CHECKPOINTS, Snapshots

    memory, job = planned.memory, planned.job
    adapter = 4 * job.trained if settings.mode == "lora" else 0  # float32
    weights = adapter or job.shards * memory.weights
    state = int(weights + job.shards * memory.states + job.trained * job.regime.host)
    there = len(Snapshots(goes_on_in(settings.out) / CHECKPOINTS).steps()) if settings.resume else 0
    writes = disk.writes(settings, disk.model_bytes(checkpoint), state, adapter, done=done, there=there)
    tell(f"{writes}; {size_in_words(free(Path(settings.out)))} are free there")
    disk.ask(Path(settings.out), settings, checkpoint, writes, done=done, there=there)


def search(options: Any) -> None:
    """How many vectors are scored, on what."""
    from ropewalk.checkpoint.checkpoint import Checkpoint

    settings = SearchSettings(**arguments(SearchSettings, options))
    model = Checkpoint.open(settings.model, **settings.opening).info
    children = 2 * max(1, settings.population // 4)
    vectors = settings.population + settings.generations * children
    say(
        f"search factors for {model.name}, window {model.window} → {settings.window} tokens\n"
        f"{vectors} vectors, {settings.population} at first and {children} in each of {counted(settings.generations, 'generation')}, each scored on "
        f"{counted(settings.documents, 'document')} of {settings.window} tokens from {_files(settings.data)}: "
        f"{vectors * settings.documents * settings.window:,} tokens are read\n"
        f"into {settings.out}\n{_NOTHING}"
    )


def evaluate(options: Any) -> None:
    """The stages, in their order."""
    from ropewalk.suite.runner import stages_in

    settings = EvaluateSettings(**arguments(EvaluateSettings, options))
    with tempfile.TemporaryDirectory(prefix="ropewalk-") as place:
        stages = stages_in(settings, Path(place))
    for number, stage in enumerate(stages, start=1):
        sizes = ("window", "windows", "documents", "limit", "depths", "trials", "prompts", "items", "stride")
        sizes_given = [f"{name} {stage.settings[name]}" for name in sizes if stage.settings.get(name) is not None]
        say(f"{number}. {stage.name}, {stage.model}" + (f": {', '.join(sizes_given)}" if sizes_given else ""))
    say(f"into {settings.out}; what lies there already is not measured again\n{_NOTHING}")


def demo(options: Any) -> None:
    """The sizes."""
    settings = DemoSettings(**arguments(DemoSettings, options))
    sizes = settings.sizes or DemoSizes()
    say(
        f"extend hemp to {sizes.window} tokens, train it for {counted(sizes.steps, 'step')} of {counted(sizes.batch_size, 'window')} on this machine's standard "
        f"library, and measure perplexity on {counted(sizes.documents, 'held-out module')} and {sizes.depths} × {counted(sizes.trials, 'passkey')} before and after: "
        f"under six minutes on one core\ninto {settings.out}\n{_NOTHING}"
    )


def _files(data: Any) -> str:
    """What is read, in words."""
    from ropewalk.data.documents import files_of, kind_of

    sources = [data] if isinstance(data, str | Path) else list(data)
    on_hub = [str(source) for source in sources if kind_of(source) == "hub"]
    files = [file for source in sources if kind_of(source) != "hub" for file in files_of(source)]
    size = sum(file.stat().st_size for file in files) / 2**20
    local = [f"{counted(len(files), 'file')} ({size:,.1f} MiB)"] if files else []
    return joined([*local, *on_hub])
