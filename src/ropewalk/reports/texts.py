"""What is to be known of the texts that a page's states were trained on and measured on, before two figures are compared.

in   clean rows
out  sentences
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from ropewalk.records import Perplexity, Run
from ropewalk.records.recipe import ablated, is_training, place, recipe_of
from ropewalk.records.variant import Variant
from ropewalk.reports.comparable import groups, other_tokens, short_data
from ropewalk.reports.rows import Clean
from ropewalk.sentences import joined


def cautions(clean: Clean) -> list[str]:
    """All of them."""
    return [*other_texts(clean), *_tested_on_training_texts(clean), *_other_content(clean)]


def other_texts(clean: Clean) -> list[str]:
    """What was measured or trained on texts, or tokens of them, that are not the same for all, whether they are called the same or not."""
    return [*_called_the_same(clean), *_measured_on(clean), *other_tokens(groups(clean)), *_trained_on(clean)]


def _called_the_same(clean: Clean) -> Iterable[str]:
    names = [f"{name} ({listed(text.called for text in texts)})" for name, texts in clean.same_names.items()]
    if names:
        yield f"By the digests and documents on record, different texts are called {joined(names)}: rows of one are compared with none of another."


def _measured_on(clean: Clean) -> Iterable[str]:
    """Where some states were measured on one text alone and some on another."""
    texts: dict[Variant, set[str]] = {}
    for m in clean.of(Perplexity):
        texts.setdefault(m.model_variant, set()).add(short_data(m.row.data))
    every = set().union(*texts.values())
    if len(every) > 1 and not set.intersection(*texts.values()):
        yield f"Not all states were measured on the same documents ({listed(every)}): a figure is to be compared with those of its own text alone."


def _trained_on(clean: Clean) -> Iterable[str]:
    texts = {m.model_variant.recipe.data for m in clean.measurements if m.model_variant.role == "trained"} - {""}
    if len(texts) > 1:
        yield f"States were trained on different texts ({listed(texts)}): methods are compared among those of one text alone."


def _tested_on_training_texts(clean: Clean) -> Iterable[str]:
    """States that were measured on what they were trained on, by the names or the digests of both on record, or by what measuring found of the files."""
    trained: dict[str, set[str]] = {}
    for run in clean.used_runs:
        if is_training(run):
            out = place(str(run.settings["out"]))
            trained.setdefault(out, set()).update(_texts(run, "data"))
    seen: dict[str, str] = {}
    for m in clean.measurements:
        own = place(str(m.trained_by.settings["out"])) if m.trained_by else ""
        texts = trained.get(own, set()) if not is_training(m.run) else set()
        data = str(getattr(m.row, "data", "") or "")
        if texts & ({data, *_texts(m.run, "data")} - {""}) or m.run.settings.get("seen_in_training"):
            seen.setdefault(m.model_variant.label, short_data(data) or "its own texts")
    for label, data in seen.items():
        yield f"{label} is trained on and tested on the same texts ({data}): those figures tell what it learnt by heart, and not how well it reads."


def _texts(run: Run, what: str) -> set[str]:
    """What a header calls the texts of a run, and their digest where it has one; no weights."""
    named = run.settings.get(what)
    words = [named] if isinstance(named, str) else list(named or ())
    digest = dict(run.settings.get("digests") or {}).get(what)
    return {str(each) for each in [*words, digest] if each and not re.fullmatch(r"[\d.]*(@\w+)?", str(each))}


def _other_content(clean: Clean) -> Iterable[str]:
    """Rows of `ablate` that name a model or texts alike which are others, by the digests on record."""
    digests: dict[tuple[str, str], set[str]] = {}
    for run in clean.used_runs:
        row = ablated(run)
        for what, digest in dict(row.get("digests") or {}).items():
            name = recipe_of(run).base if what == "model" else str(row.get(what))
            digests.setdefault((what, name), set()).add(str(digest))
    for (what, name), several in digests.items():
        if len(several) > 1 and name != "None":
            yield f"{len(several)} different ones are called {name} as {what} of rows of `ablate` (digests {listed(several)}): what differs between those rows is not the method alone."


def listed(values: Iterable[Any]) -> str:
    texts = sorted({re.sub(r"\s+", " ", str(value)) for value in values})
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
