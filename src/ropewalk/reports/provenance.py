"""What was run, with which versions, and what a reader must know before comparing: mixed runs, damaged lines, gaps."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ropewalk.records import format as number_format
from ropewalk.records import paper
from ropewalk.records.variant import Variant, variant_of
from ropewalk.reports import perplexity
from ropewalk.reports.paired import ratio
from ropewalk.reports.rows import Clean
from ropewalk.reports.training import kind_of_device


@dataclass(frozen=True)
class RunCard:
    """One run as the page shows it: name → text, and the versions that differ from those most runs share."""

    id: str
    command: str
    state: str
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
    keys = list(dict.fromkeys(key for run in runs for key in run["versions"]))
    shared = {key: runs[0]["versions"].get(key) for key in keys if len({run["versions"].get(key) for run in runs}) == 1}
    cards = [_card(run, clean, shared) for run in runs]
    return Setting([(key, str(value)) for key, value in shared.items()], _groups(cards))


def _groups(cards: list[RunCard]) -> list[RunGroup]:
    by_command: dict[str, list[RunCard]] = {}
    for card in cards:
        by_command.setdefault(card.command, []).append(card)
    made = []
    for command, mine in by_command.items():
        alike = [fact for fact in mine[0].facts if all(fact in card.facts for card in mine)] if len(mine) > 1 else []
        rest = [RunCard(c.id, c.command, c.state, [fact for fact in c.facts if fact not in alike]) for c in mine]
        made.append(RunGroup(command, alike, rest))
    return made


def _card(run: dict[str, Any], clean: Clean, shared: dict[str, Any]) -> RunCard:
    state = variant_of(run)
    model = run["model"]
    kinds = dict.fromkeys(row["kind"].replace("_", " ") for row in clean.rows if row["run"] == run["id"])
    facts = [
        (
            "model",
            f"{state.name} ({model.get('family', '')}), {number_format.large(model.get('parameters') or None)} parameters",
        ),
        ("state", describe(state)),
        (
            "rope_theta",
            f"{number_format.significant(model.get('rope_theta'))}, {model.get('head_dim', 0)} rotated dimensions a head",
        ),
        ("rows", ", ".join(kinds)),
        ("started", str(run.get("started", ""))),
        ("device", f"{run.get('device', '')}, {run.get('dtype', '')}"),
        ("seed", str(run.get("seed", ""))),
    ]
    facts += [(str(key), _short(value)) for key, value in _settings(run).items()]
    facts += [(key, str(value)) for key, value in run["versions"].items() if key not in shared]
    return RunCard(run["id"], str(run.get("command", "")), state.label, facts)


def describe(state: Variant) -> str:
    """A state in full: what its window was, is, and how it turns."""
    if not state.extended:
        return f"{state.label}; window {state.original_window}"
    return f"{state.label}; window {state.original_window} → {state.window}"


def _settings(run: dict[str, Any]) -> dict[str, Any]:
    return run["settings"] if isinstance(run.get("settings"), dict) else {}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "…"


def cautions(clean: Clean) -> list[str]:
    """What to know before comparing two figures of the page."""
    said = [*_left_out(clean), *_mixed(clean), *_pairs(clean)]
    return said


def _left_out(clean: Clean) -> Iterable[str]:
    if clean.damaged:
        yield f"{_lines(clean.damaged)} of the record files could not be read (cut short or edited) and {_was(clean.damaged)} left out."
    if clean.headless:
        yield f"{_rows(clean.headless)} without the header of a run, so of unknown origin, {_was(clean.headless)} left out."
    for kind, number in sorted(clean.malformed.items()):
        yield f"{_rows(number)} of kind “{kind}” with a field missing or of the wrong type {_was(number)} left out."
    if clean.unknown:
        kinds = ", ".join(f"“{kind}” ({number})" for kind, number in sorted(clean.unknown.items()))
        yield f"Rows of unknown kind, not shown: {kinds}."
    if clean.repeated:
        number = sum(clean.repeated.values())
        other = f" ({clean.replaced} of them over more or fewer tokens or trials)" if clean.replaced else ""
        yield f"{_rows(number)} measured what another row measured too{other}; the newest is shown."


def _mixed(clean: Clean) -> Iterable[str]:
    runs = clean.used_runs
    if len(runs) < 2:
        return
    # The theory reads a config and measures nothing: it may be worked out anywhere.
    figured = {row["run"] for row in clean.rows if not row["kind"].startswith("theory_")}
    models = {variant_of(run).lineage for run in runs}
    if len(models) > 1:
        yield f"{len(models)} base models are mixed on this page; each is compared with itself alone."
    # A training's weights are often kept in another format than those that are measured: that is no mixture.
    measured = {row["run"] for row in clean.rows if row["run"] in figured and row["kind"] != "step"}
    formats = {run["dtype"] for run in runs if run["id"] in measured}
    devices = {kind_of_device(run["device"]) for run in runs if run["id"] in figured}
    seeds = {run["seed"] for run in runs if run["id"] in figured}
    plain = [(f"devices ({_listed(devices)})", devices), (f"number formats ({_listed(formats)})", formats)]
    plain.append((f"seeds ({_listed(seeds)})", seeds))
    for key in ("ropewalk", "torch", "transformers", "lm-eval", "rouge-score", "platform"):
        values = {run["versions"].get(key, "none") for run in runs}
        plain.append((f"{'machines' if key == 'platform' else key + ' versions'} ({_listed(values)})", values))
    different = [text for text, values in plain if len(values) > 1]
    if different:
        yield f"The {len(runs)} runs on this page were made with different {'; '.join(different)}."


def _pairs(clean: Clean) -> Iterable[str]:
    """A before/after pair whose token counts differ was cut by two tokenizers, or from two texts."""
    found = perplexity.groups(clean)
    told: set[str] = set()
    for group in found:
        states = group.states()
        base = next((rows for state, rows in states.items() if state.role == "base"), {})
        for state, rows in states.items():
            for window in base.keys() & rows.keys() if state.extended else ():
                change = ratio(base[window], rows[window])
                if change and not change.same_text:
                    told.add(
                        f"{state.label} and its base count different tokens in the same documents ({group.title}): their "
                        "tokenizers or texts differ, and their perplexities are no pair."
                    )
                elif change and not change.same_documents:
                    told.add(
                        f"{state.label} and its base were not measured on the same documents at {window} tokens "
                        f"({group.title}); part of their difference may be the text's."
                    )
    names = {
        run["model"].get("name"): _settings(run)["tokenizer"]
        for run in clean.used_runs
        if "tokenizer" in _settings(run)
    }
    if len({str(value) for value in names.values()}) > 1:
        told.add(
            f"The models were read with different tokenizers: {'; '.join(f'{k}: {_short(v)}' for k, v in names.items())}."
        )
    yield from sorted(told)
    measures = {(g.stride, g.convention, g.bos) for g in found}
    if len(measures) > 1:
        yield "Perplexities were measured in different ways (stride, convention or BOS); only those measured alike share a figure."


def not_measured(clean: Clean) -> list[str]:
    """The paper's tables that nothing on this page stands beside."""
    kinds = {row["kind"] for row in clean.rows}
    groups = perplexity.groups(clean)
    by_text = {perplexity.paper_table(group.data).number for group in groups}
    steps = any(perplexity.step_curves(group) for group in groups)
    have = {
        1: 1 in by_text,
        2: 2 in by_text,
        3: steps,
        4: "passkey_summary" in kinds,
        5: "benchmark" in kinds or "benchmark_comparison" in kinds,
        6: "summary" in kinds,
    }
    return [f"{table.number} ({table.title.lower()}, {table.text})" for table in paper.TABLES if not have[table.number]]


def _listed(values: Iterable[Any]) -> str:
    texts = sorted({re.sub(r"\s+", " ", str(value)) for value in values})
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")


def _lines(number: int) -> str:
    return f"{number} line{'s' if number != 1 else ''}"


def _rows(number: int) -> str:
    return f"{number} row{'s' if number != 1 else ''}"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"
