"""What was run, with which versions, and what a reader must know before comparing: mixed runs, damaged lines, gaps."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ropewalk.records import (
    Benchmark,
    BenchmarkComparison,
    Bounds,
    Growth,
    LeftOut,
    ModelInfo,
    PasskeySummary,
    Resolution,
    Run,
    Step,
    Summary,
    Unspecified,
    paper,
)
from ropewalk.records import format as number_format
from ropewalk.records.recipe import is_training, recipe_of
from ropewalk.records.variant import Variant, seeds_of_rows, trained_variant, variant_of
from ropewalk.reports import beside_paper, chosen, comparable, perplexity, texts
from ropewalk.reports.asked import interrupted, not_on_record
from ropewalk.reports.contests import contests
from ropewalk.reports.damage import no_control
from ropewalk.reports.paired import has_same_documents
from ropewalk.reports.rows import Clean
from ropewalk.reports.texts import listed
from ropewalk.reports.training import kind_of_device, unread
from ropewalk.reports.training import not_measured as not_measured_trainings
from ropewalk.rope.scaling import Scaling, to_dict
from ropewalk.sentences import joined


@dataclass(frozen=True)
class RunCard:
    """One run as the page shows it: its command, and on lines of their own those that went on with it; name → text, and the versions that differ from those most runs share."""

    id: str
    command: str
    label: str
    facts: list[tuple[str, str]]


@dataclass(frozen=True)
class RunGroup:
    """The runs of one command: what all of them share, and each with the rest. A suite makes dozens."""

    command: str
    facts: list[tuple[str, str]]
    cards: list[RunCard]


@dataclass(frozen=True)
class Setting:
    """All runs of the page: those versions that all of them share, and the runs by their commands."""

    shared: list[tuple[str, str]]
    groups: list[RunGroup]

    @property
    def cards(self) -> list[RunCard]:
        return [card for group in self.groups for card in group.cards]


def setting(clean: Clean) -> Setting:
    runs = clean.used_runs
    keys = list(dict.fromkeys(key for run in runs for key in run.versions))
    shared = {key: runs[0].versions.get(key) for key in keys if len({run.versions.get(key) for run in runs}) == 1}
    cards = [_card(run, clean, shared) for run in runs]
    return Setting([(key, str(value)) for key, value in shared.items()], _groups(cards))


def _groups(cards: list[RunCard]) -> list[RunGroup]:
    by_command: dict[str, list[RunCard]] = {}
    for card in cards:
        by_command.setdefault(card.command, []).append(card)
    groups = []
    for command, runs in by_command.items():
        alike = [fact for fact in runs[0].facts if all(fact in card.facts for card in runs)] if len(runs) > 1 else []
        rest = [dataclasses.replace(c, facts=[fact for fact in c.facts if fact not in alike]) for c in runs]
        groups.append(RunGroup(command, alike, rest))
    return groups


def _card(run: Run, clean: Clean, shared: dict[str, Any]) -> RunCard:
    label, state = _label_and_state(run)
    model = run.model
    kinds = dict.fromkeys(m.row.kind.replace("_", " ") for m in clean.measurements if m.run is run)
    facts = [
        ("model", f"{model.name} ({model.family}), {number_format.large(model.parameters or None)} parameters"),
        ("state", state),
        *([("scaling", parameters)] if (parameters := _parameters(model.scaling)) else []),
        _positions(model),
        ("rows", ", ".join(kinds)),
        ("started", run.started),
        ("device", f"{run.device}, {run.dtype}"),
        ("seed", str(run.seed)),
    ]
    facts += [(str(key), _short(value)) for key, value in run.settings.items() if _says(value)]
    facts += [(key, str(value)) for key, value in run.versions.items() if key not in shared]
    return RunCard(run.id, "\n".join(clean.commands_of(run)), label, facts)


def _label_and_state(run: Run) -> tuple[str, str]:
    """What a run is called, and the model that it measured in full; of a training what it made of which model."""
    if not is_training(run):
        variant = variant_of(run.model, recipe=recipe_of(run))
        return variant.label, describe(variant)
    goal = trained_variant(run.model, recipe_of(run))
    windows = f"window {goal.original_window} → {goal.window}" if goal.extended else f"window {goal.window}"
    return (
        f"training, {goal.method_and_factor}{goal.recipe.after}",
        f"training of {goal.base or goal.name} to {goal.method_and_factor}{goal.recipe.after}; {windows}",
    )


def _shown(value: object) -> str:
    """A parameter in a line; a vector by its ends."""
    return f"{value[0]:.4g} to {value[-1]:.4g} ({len(value)} pairs)" if isinstance(value, tuple) else str(value)


def _positions(model: ModelInfo) -> tuple[str, str]:
    if not model.rope_theta:
        return "positions", "a learned table"
    return "rope_theta", f"{number_format.significant(model.rope_theta)}, {model.head_dim} rotated dimensions a head"


def _parameters(scaling: Scaling) -> str:
    """What decides a scaling besides its factor, in words; nothing where the factor is all."""
    if isinstance(scaling, Unspecified):
        return f"{scaling.method}; thresholds not on record"
    known = {name: value for name, value in to_dict(scaling).items() if name not in ("method", "factor")}
    rest = [f"{name} {_shown(value)}" for name, value in known.items()]
    return f"{scaling.method}, {', '.join(rest)}" if rest else ""


def describe(variant: Variant) -> str:
    """A variant in full: what its window was, is, and how it is scaled."""
    if not variant.extended:
        return f"{variant.label}; window {variant.original_window}"
    return f"{variant.label}; window {variant.original_window} → {variant.window}"


def _says(value: Any) -> bool:
    """Whether a setting is worth a line: not what was left alone, nor the notes that a program keeps for itself."""
    return value is not None and value is not False and not isinstance(value, dict) and value != []


def _in_words(value: Any) -> str:
    """One of a list: a record, such as a source that was read, by its names and figures."""
    if not isinstance(value, dict):
        return str(value)
    rounded = {
        key: f"{each:.4g}" if isinstance(each, float) else each for key, each in value.items() if each is not None
    }
    return "; ".join(f"{key} {each}" for key, each in rounded.items())


def _short(value: Any) -> str:
    text = ", ".join(map(_in_words, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= 200 else text[:197] + "…"


def cautions(clean: Clean) -> list[str]:
    """What to know before comparing two figures of the page."""
    return [
        *_left_out(clean),
        *_mixed(clean),
        *clean.same_states,
        *chosen.cautions(clean),
        *not_measured_trainings(clean),
        *unread(clean),
        *texts.cautions(clean),
        *_pairs(clean),
    ]


def unknown(clean: Clean) -> list[str]:
    """What no figure of the page tells."""
    return [*_one_seed(clean), *no_control(clean), *interrupted(clean), *not_on_record(clean)]


def _one_seed(clean: Clean) -> Iterable[str]:
    """Trainings that nobody repeated, as far as their seeds are on record; where others were, those whose figures the verdict compares, or is of."""
    trained = sorted(
        {m.model_variant for m in clean.measurements if m.model_variant.role == "trained"}, key=lambda v: v.order
    )
    alone = [row[0] for row in seeds_of_rows(trained) if len(row) == 1 and row[0].recipe.seed is not None]
    unknown_spread = "by how much another would differ is not known, and no interval"
    if alone and len(alone) == len(seeds_of_rows(trained)):
        yield f"Each training was run with one seed: {unknown_spread} here holds it."
        return
    for one in contests(clean):
        names = [each.label for each in one.contenders if each.variants[0] in alone]
        base = clean.base_of(one.group.lineage)
        if names:
            yield f"{joined(names)}{f' of {base}' if base else ''} {'was' if len(names) == 1 else 'were each'} trained with one seed: {unknown_spread} of {'its' if len(names) == 1 else 'their'} figures holds it."


def damaged(clean: Clean) -> list[str]:
    """Files that are not whole, rows of `ablate`, and lines that are left out."""
    return [*clean.left_out.files, *clean.unfinished, *_lines_left_out(clean.left_out)]


def _lines_left_out(left_out: LeftOut) -> Iterable[str]:
    if left_out.damaged:
        yield f"{number_format.counted(left_out.damaged, 'line')} of the record files could not be read (cut short or edited) and {_was(left_out.damaged)} left out."
    if left_out.headless:
        yield f"{number_format.counted(left_out.headless, 'row')} without the header of a run, so of unknown origin, {_was(left_out.headless)} left out."
    for kind, number in sorted(left_out.malformed.items()):
        yield (
            f"{number_format.counted(number, 'row')} of kind “{kind}” with a field missing or of the wrong type {_was(number)} left out. "
            f"The first: {left_out.reasons[kind]}."
        )
    if left_out.unknown:
        kinds = ", ".join(f"“{kind}” ({number})" for kind, number in sorted(left_out.unknown.items()))
        yield f"Rows of unknown kind, not shown: {kinds}."


def _left_out(clean: Clean) -> Iterable[str]:
    yield from damaged(clean)
    if clean.repeated:
        number = sum(clean.repeated.values())
        other = (
            f" ({clean.replaced} of them over more or fewer tokens or trials, or other texts)" if clean.replaced else ""
        )
        yield f"{number_format.counted(number, 'row')} measured what another row measured too{other}; the newest is shown."


def _mixed(clean: Clean) -> Iterable[str]:
    runs = clean.used_runs
    if len(runs) < 2:
        return
    models = {variant_of(run.model).lineage for run in runs}
    if len(models) > 1:
        yield f"{len(models)} base models are mixed on this page; each is compared with itself alone."
    # The theory reads a config and measures nothing: it may be worked out anywhere.
    figured = {m.run.id for m in clean.measurements if not isinstance(m.row, Bounds | Growth | Resolution)}
    # A training's weights are often kept in another format than those that are measured: that is no mixture.
    measured = {m.run.id for m in clean.measurements if m.run.id in figured and not isinstance(m.row, Step)}
    seeded = [run for run in runs if run.id in figured and "row" not in run.settings]
    differing = {
        "devices": {kind_of_device(run.device) for run in runs if run.id in figured},
        "number formats": {run.dtype for run in runs if run.id in measured},
        # The seeds of a grid's rows are there to be compared; a training's draws other things than a measurement's.
        "seeds of trainings": {run.seed for run in seeded if is_training(run)},
        "seeds of measurements": {run.seed for run in seeded if not is_training(run)},
    }
    for key in ("ropewalk", "torch", "transformers", "lm-eval", "rouge-score", "platform"):
        name = "machines" if key == "platform" else f"{key} versions"
        differing[name] = {run.versions.get(key, "none") for run in runs}
    mixed = [f"{name} ({listed(values)})" for name, values in differing.items() if len(values) > 1]
    if mixed:
        yield f"The {len(runs)} runs on this page were made with different {'; '.join(mixed)}."


def _pairs(clean: Clean) -> Iterable[str]:
    """Before/after pairs that are none, and perplexities that are not to be compared."""
    groups = comparable.groups(clean)
    yield from sorted({*_unpaired(groups), *_tokenizers(clean)})
    for caveat in dict.fromkeys(group.caveat for group in groups if group.caveat):
        yield perplexity.not_across(*(group for group in groups if group.caveat == caveat))
    if len({(g.stride, g.convention, g.bos) for g in groups}) > 1:
        yield "Perplexities were measured in different ways (stride, convention or BOS); only those measured alike share a figure."


def _unpaired(groups: list[comparable.Group]) -> Iterable[str]:
    """A before/after pair that was not measured on the same documents."""
    for group in groups:
        variants, unlike = group.variants(), dict[str, list[str]]()
        base = next((rows for variant, rows in variants.items() if variant.role == "base"), {})
        for variant, rows in variants.items():
            for window in base.keys() & rows.keys() if variant.extended else ():
                if not has_same_documents(base[window], rows[window]):
                    differ = f"were not measured on the same documents at {window} tokens ({group.title}): a change is of those that both read, if any"
                    unlike.setdefault(differ, []).append(variant.label)
        for differ, names in unlike.items():
            yield f"{listed(names)} and {'its' if len(set(names)) == 1 else 'their'} base {differ}."


def _tokenizers(clean: Clean) -> Iterable[str]:
    names = {run.model.name: run.settings["tokenizer"] for run in clean.used_runs if "tokenizer" in run.settings}
    if len({str(value) for value in names.values()}) > 1:
        yield f"The models were read with different tokenizers: {'; '.join(f'{k}: {_short(v)}' for k, v in names.items())}."


def not_measured(clean: Clean) -> list[str]:
    """The paper's tables that nothing on this page stands beside."""
    kinds = {type(m.row) for m in clean.measurements}
    groups = comparable.groups(clean)
    beside = {beside_paper.paper_table(group.data).number for group in groups if beside_paper.lines_of_paper(group)}
    beside |= {3} if any(perplexity.step_curves(group) for group in groups) else set()
    beside |= {4} if PasskeySummary in kinds else set()
    beside |= {5} if kinds & {Benchmark, BenchmarkComparison} else set()
    beside |= {6} if Summary in kinds else set()
    missing = [table for table in paper.TABLES if table.number not in beside]
    return [f"{table.number} ({table.title.lower()}, {table.text})" for table in missing]


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
