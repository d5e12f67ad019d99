"""The first paragraph and the tiles above everything: what came of the extension, worked out from the rows.

Every sentence is a comparison of two rows of the same page. None is written where one of the two is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ropewalk.checkpoint.model_card import by_skipping
from ropewalk.records import Bounds, Growth, Perplexity, Resolution, Step
from ropewalk.records import format as number_format
from ropewalk.records.variant import Variant, befores, seeds_of_rows
from ropewalk.reports import (
    benchmarks,
    comparable,
    damage,
    gain,
    perplexity,
    reach,
    retrieval,
    training,
    two_windows,
    verdict_passkey,
)
from ropewalk.reports.content import Tile, Verdict
from ropewalk.reports.contests import contest, not_comparable, other_trainings
from ropewalk.reports.helped import in_short
from ropewalk.reports.inside import compared, extensions, only_inside
from ropewalk.reports.paired import ratio
from ropewalk.reports.passkey import summaries
from ropewalk.reports.rows import Clean
from ropewalk.sentences import counted, joined

#: What is on record of a model without its having been read.
_NOT_MEASURED = (Step, Bounds, Growth, Resolution)


def verdicts(clean: Clean) -> list[Verdict]:
    """One for each base model on the page."""
    variants = clean.variants  # in an order that is the same in every process
    lineages = sorted({variant.lineage for variant in variants}, key=str)
    return [_verdict(clean, [v for v in variants if v.lineage == lineage]) for lineage in lineages]


def _verdict(clean: Clean, variants: list[Variant]) -> Verdict:
    measured = {m.model_variant for m in clean.measurements if not isinstance(m.row, _NOT_MEASURED)}
    lineage = variants[0].lineage
    fair = contest(clean, lineage)
    within = only_inside(clean, variants)
    if within:
        return _inside(clean, variants, within)
    target = fair.leader.variants[0] if fair else _target(clean, [v for v in variants if v.extended and v in measured])
    alike = [g for g in comparable.groups(clean) if g.lineage == lineage and (not target or target in g.variants())]
    group = fair.group if fair else _of_window(alike, target)
    near = _of_short_window(alike, group, target)
    bases = [v for v in variants if v.role == "base" and not v.steps]  # what a training began from, too
    base = min(bases, key=lambda v: (not group or v not in group.variants(), v not in measured, v.name), default=None)
    verdict = Verdict((base or variants[0]).base_name, extended=target is not None)
    if fair is not None:
        verdict.winner = fair.headline
        verdict.sentences.append(fair.sentence)
    seeds = next((row for row in seeds_of_rows([v for v in variants if v in measured]) if target in row), [])
    seeds = sorted(seeds, key=lambda seed: seed.recipe.seed or 0)
    tuned = [v for v in variants if v.role == "base" and v.steps and v in measured]
    if target is None and tuned:
        seeds = tuned[-1:]
        for variant in tuned:
            own = next((each for each in alike if variant in each.variants()), None)
            verdict.sentences += [_trained_on(base, variant, alike), reach.sentence(clean, own, own, [variant])]
    elif target is None:
        verdict.sentences = _nothing_extended(clean, base, variants, measured)
    else:
        _extension(verdict, clean, base, target, len(seeds))
        further = not_comparable(clean, lineage) or ("" if fair else other_trainings(seeds, [v for v in variants if v in measured]))  # fmt: skip
        verdict.sentences += [further] if further else []
        if group and near and target.steps and not fair:
            verdict.sentences.append(in_short(group, near, seeds))
        verdict.sentences.append(reach.sentence(clean, group, near, seeds))
        known = [seed for seed in seeds if seed in near.variants()] if near else []
        priced = damage.sentence(near, known, training.trainings(clean)) if near else ""
        verdict.sentences += [priced] if priced else []
    if group is not None and (target or not tuned):
        two_windows.tell(verdict, group, near or group, base, seeds)
    _beside(verdict, gain.sentence(clean, seeds))
    verdict_passkey.tell(verdict, clean, base, seeds)
    untrained = befores(target, variants) if target else []
    _beside(verdict, retrieval.sentence(clean, seeds, untrained))
    benchmarks.tell(verdict, clean, seeds)
    verdict.sentences.append(_basis(clean, group, seeds or bases))
    return verdict


def _nothing_extended(
    clean: Clean, base: Variant | None, variants: Sequence[Variant], measured: set[Variant]
) -> list[str]:
    """Where no model that was extended or trained on was measured: what there is instead, and what came of trainings that were not measured."""
    lineage = variants[0].lineage
    runs = [run for run in training.trainings(clean) if run.variant.lineage == lineage]
    sentences = []
    if measured or not runs:  # of each training a sentence says it
        sentences.append(
            "Nothing was measured: what follows is theory, from the model's config alone."
            if not measured and any(isinstance(m.row, Bounds) for m in clean.measurements)
            else f"Only the base model was measured ({variants[0].original_window} tokens); {_yet(runs)}."
            if base in measured
            else "No extended model was measured."
        )
    if base in measured:
        sentences.append(reach.of_base(clean, base))
    left = {run.run.id for run in training.unmeasured(clean)}
    sentences += dict.fromkeys(reach.of_unmeasured(r) for r in runs if r.variant.extended or r.run.id in left)
    return [*sentences, *_unfinished(runs)]


def _trained_on(base: Variant | None, variant: Variant, alike: Sequence[comparable.Group]) -> str:
    """Of a model that was trained on in the window that it had: what it is, and its perplexity against that before."""
    model = base.base_name if base else variant.base or "the model"
    earlier = f", on top of {variant.recipe.earlier}" if variant.recipe.earlier else ""
    sentence = f"Nothing was extended: {model} was trained for {counted(variant.steps, 'step')} more in its own window of {variant.original_window} tokens{earlier}."
    rows = next((group.variants() for group in alike if variant in group.variants()), {})
    if not (own := rows.get(variant, {})):
        return f"{sentence} Its perplexity was not measured."
    window = variant.original_window if variant.original_window in own else max(own)
    before = rows.get(base, {}).get(window) if base else None
    change = ratio(before, own[window]) if before else None
    was = f", before it {number_format.perplexity(before.perplexity)}: {change}" if before and change else ""
    return f"{sentence} Its perplexity at {window} tokens is {number_format.perplexity(own[window].perplexity)}{was}."


def _of_window(alike: Sequence[comparable.Group], target: Variant | None) -> comparable.Group | None:
    """The first group; of those of its text, other tokens of it or by another stride, one in which the new window was measured."""
    of_text = [group for group in alike if group.text == alike[0].text]
    return next(
        (g for g in of_text if target and target.window in g.variants().get(target, {})), next(iter(alike), None)
    )


def _of_short_window(
    alike: Sequence[comparable.Group], group: comparable.Group | None, target: Variant | None
) -> comparable.Group | None:
    """That group, if the short window was measured with its base's in it or nowhere; else the one of its text where it was."""
    of_text = [each for each in alike if group and each.text == group.text]
    paired = [each for each in of_text if target and damage.short_pair(each, target)]
    return group if group in paired or not paired else paired[0]


def _beside(verdict: Verdict, sentence: str) -> None:
    """In the paragraph of the last sentence, so that all still print on one page."""
    if sentence:
        verdict.sentences[-1] += f" {sentence}"


def _inside(clean: Clean, variants: list[Variant], within: Sequence[Variant]) -> Verdict:
    """Of several methods of which none was measured beyond the old window: all of them, and no one."""
    lineage = variants[0].lineage
    groups = [group for group in comparable.groups(clean) if group.lineage == lineage]
    found = [(group, sentence) for group in groups if (sentence := compared(group, within))]
    verdict = Verdict(next((v for v in variants if v.role == "base"), variants[0]).base_name, extended=True)
    verdict.sentences.append(extensions(verdict.heading, within))
    verdict.sentences += [sentence for _, sentence in found[:1]]
    verdict.sentences += [apart] if (apart := not_comparable(clean, lineage)) else []
    verdict.sentences.append(_basis(clean, found[0][0] if found else None, within))
    return verdict


def _target(clean: Clean, extended: list[Variant]) -> Variant | None:
    """The variant the page is about: trained, and left so, and no further, of the farthest k_max where all have one, by PI, measured in the most ways, then the longest window, trained further, the most steps."""
    kinds: dict[Variant, set[str]] = {}
    for m in clean.measurements:
        kinds.setdefault(m.model_variant, set()).add(m.row.kind)
    tests = summaries(clean)
    reached = {v: (own.k_max, own.accuracy) for v in extended if (own := tests.get(v, {}).get(v.window))}
    by_keys = len(reached) == len(extended) and len({v.window for v in extended}) == 1
    return max(
        extended,
        key=lambda v: (
            v.role == "trained",
            not v.is_worse,
            not any(v.is_before(other) for other in extended),
            reached[v] if by_keys else (),
            v.method == "linear",
            len(kinds[v]),
            v.window,
            bool(v.recipe.earlier),
            v.steps,
        ),
        default=None,
    )


def _extension(verdict: Verdict, clean: Clean, base: Variant | None, target: Variant, seeds: int) -> None:
    name, label = (base or target).base_name, target.method_label
    method = "Position Interpolation" if target.method == "linear" else label
    if target.method == "plain":
        done = f"{name} was trained directly at {target.window} tokens, its rotation unchanged"
    else:
        done = f"{name} was extended from {target.original_window} to {target.window} tokens (×{target.factor:.4g}) by {method}"
    runs = training.trainings(clean)
    tokens = training.budget(target, runs)
    budget = f" ({number_format.tokens(tokens)} tokens)" if tokens else ""
    chunk = target.recipe.chunk(target.original_window)
    how = f" {by_skipping(chunk, target.window)}" if chunk else target.recipe.by_way
    since = [run for run in training.unmeasured(clean) if not target.steps and training.is_like(target, run)]
    if target.steps:
        several = (
            f", by {seeds} seeds: figures are means, brackets 95\u202f% intervals or, after “seeds”, least and largest"
            if seeds > 1
            else ""
        )
        earlier = f" more, on top of {target.recipe.earlier}" if target.recipe.earlier else ""
        done += f" and trained for {number_format.steps(target.steps)}{budget}{earlier}{how}{several}."
    elif since:
        steps = number_format.steps(since[-1].model_step)
        done += f" and trained for {steps}, not measured yet: what follows is of the model before."
    else:
        done += "; it was not trained afterwards."
    verdict.sentences.append(done)
    verdict.sentences += _unfinished(since)
    if target.steps:
        others = {run.run.id for run in training.unmeasured(clean)}
        verdict.sentences += _unfinished([run for run in training.trained_by(target, runs) if run.run.id not in others])
    verdict.tiles.append(
        Tile("window", f"{target.original_window} → {target.window}", f"×{target.factor:.4g}, {label}")
    )


def _unfinished(runs: list[training.Training]) -> list[str]:
    """How far trainings came that took fewer steps than were asked for, and which model they left where that is not their last."""
    return [
        f"Its training to {run.variant.window} tokens: {run.ended} steps{run.left}." for run in runs if run.is_cut_short
    ]


def _yet(runs: Sequence[training.Training]) -> str:
    """What there is beside a base that alone was measured."""
    names = list(dict.fromkeys(run.variant.name for run in runs))
    if not names:
        return "nothing was extended"
    return f"{joined(names)} {'was' if len(names) == 1 else 'were'} trained and not measured yet"


def _basis(clean: Clean, group: comparable.Group | None, variants: Sequence[Variant]) -> str:
    """Which text, when and which seeds the figures of these rest on, in a sentence; of several strides which one is taken."""
    rows = [m for m in clean.measurements if m.model_variant in variants]
    own = [m.row for m in group.measurements if m.model_variant in variants] if group else []
    windows = {window for v in variants for window in (v.original_window, v.window)}
    own = [row for row in own if row.window in windows] or own
    text = ""
    if group and own:
        counts = [row.documents for row in own]  # at a longer window there may be fewer
        number = f"{perplexity.least_to_most(counts)} document{'s' if max(counts) != 1 else ''}"
        others = len({m.row.data for m in rows if isinstance(m.row, Perplexity)}) - 1
        more = f" and {number_format.counted(others, 'more text')}" if others else ""
        alike = [g for g in comparable.groups(clean) if (g.lineage, g.data) == (group.lineage, group.data)]
        stride = f", {group.stride}" if len({g.stride for g in alike}) > 1 else ""
        text = f"Perplexity is of {comparable.short_data(group.data) or 'a text not named'} ({number}{stride}){more}; "
    days = sorted({m.run.started[:10] for m in rows})
    done = "measured" if any(not isinstance(m.row, _NOT_MEASURED[1:]) for m in rows) else "worked out"
    when = f"{done} {' to '.join(dict.fromkeys([days[0], days[-1]]))}" if days else "not measured"
    known = [str(v.recipe.seed) for v in variants if v.recipe.seed is not None]
    seeds = f"seed{'s' if len(known) > 1 else ''} {', '.join(known)}" if known else "seed not on record"
    trained = f"; training {seeds}" if any(v.steps for v in variants) else ""
    sentence = f"{text}{when}{trained}."
    return sentence[0].upper() + sentence[1:]
