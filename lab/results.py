"""What the lab found: the tables and figures of docs/results.md, from lab/records alone, on any machine.

    python lab/results.py [--records DIR]

in   lab/records/LEVEL/MODEL/ROW.jsonl, held against lab/records/SHA256SUMS
out  docs/results.md and README.md between their two marks; docs/figures/lab-*.svg; src/ropewalk/records/evidence.json. Of another directory DIR/results.md
     and DIR/figures alone
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import between
import cheaper
import chosen
import claims
import committed
import explain
import inside
import measures
import never
import penalty
import reading
import summaries
import trained_states
import tuning
import ways
from cases import WEIGHTS, cases, figures
from rows import Row, at_chosen_rate, base_of, chosen_rates, plain_rows, refuse_copies, rows_in
from tables import at_other_rates, budgets_table, factors_table, method_map, order, rates_table

from ropewalk.errors import UserError
from ropewalk.figures import style
from ropewalk.figures.axes import window_axis
from ropewalk.figures.measured import save
from ropewalk.records import evidence as known
from ropewalk.records.evidence import Figures
from ropewalk.rope.scaling import SCALINGS
from ropewalk.sentences import counted, joined

ROOT = Path(__file__).resolve().parents[1]
RECORDS, PAGE, FIGURES = ROOT / "lab/records", ROOT / "docs/results.md", ROOT / "docs/figures"
MARKS = ("<!-- The lab: written by `make results`, do not edit. -->", "<!-- The lab ends here. -->")
README, EVIDENCE = ROOT / "README.md", ROOT / "src/ropewalk/records/evidence.json"
#: The README's table is of this model, at the factor that was measured most.
README_MODEL, FACTOR = "smollm2-135m", 4
CLIFF = ("linear", "ntk", "yarn")


@style.styled
def cliff(grids: dict[str, list[Row]]):
    """Passkeys found by factor, untrained, inside the old window; and beside it what the loss there says."""
    figure = style.Figure(figsize=(2 * style.WIDTH, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for model, dashes in zip(grids, ("-", "--", ":"), strict=False):
        base = base_of(grids[model])
        for method in CLIFF:
            rows = sorted((r for r in grids[model] if r.asked["method"] == method and not r.asked["tokens"]), key=order)
            points = [(1.0, base), *((row.asked["factor"], row) for row in rows)]
            looks = dict(
                color=style.METHOD_COLOURS[method],
                linestyle=dashes,
                marker=style.MARKERS[method],
                label=f"{SCALINGS[method].label}, {model}",
            )
            shortest = min(base.passkeys) if base.passkeys else 0
            left.plot(
                [f for f, r in points if shortest in r.passkeys],
                [100 * r.passkeys[shortest].accuracy for _, r in points if shortest in r.passkeys],
                **looks,
            )
            losses = [(f, math.log(found.value)) for f, r in points if (found := r.damage(base)) is not None]
            if losses:
                right.plot(*zip(*losses, strict=True), **looks)
    for axes, name in ((left, "passkeys found inside the old window, %"), (right, "loss there above the base's, nats")):
        factors = sorted({row.asked["factor"] for rows in grids.values() for row in rows} | {1.0})
        window_axis(figure, axes, factors, written="{:g}")
        axes.set_title(name, loc="left")
        axes.set_xlabel("factor, untrained")
        axes.tick_params(axis="x", labelsize=6.5)
    right.set_visible(bool(right.lines))
    style.legend(figure, left)
    return figure


def sections() -> Iterable[str]:
    models = sorted(
        {path.name for path in RECORDS.glob("*/*") if any(path.glob("*.jsonl"))},
        key=lambda name: (name == "hemp", name == "lab-2k", name),
    )
    if found := weights(models):
        yield found
    if found := claimed(models):
        yield found
    for model in models:
        mapped, longer = RECORDS / "a" / model, {row.method for row in rows_in(RECORDS / "c" / model)}
        known, chosen_there = plain_rows(model, RECORDS, "a", "c"), chosen_rates(mapped)
        if found := method_map(model, plain_rows(model, RECORDS, "a"), chosen_there):
            yield f"### Every method, {model}\n\n{found}"
            if compared := between.at_one_rate(mapped):
                yield compared
            if rates := rates_table(mapped):
                yield f"Learning rates, by the mean validation loss at the old and the new window. {rates_taken(model)}\n\n{rates}"
        if found := budgets_table(known, longer, chosen_there):
            yield (
                f"### More tokens, {model}\n\nThe control has read as many tokens of the same books in the old window: what is above it is the price of the longer window, what it gains itself is "
                f"books; where its rate is another, or only some seeds have one, the cell says so. Several seeds: their mean, its interval for other documents or prompts and for other seeds (what each finds of the passkeys at the new window stands beside it); seconds are those of the quickest and the slowest. Two perplexities of the same documents are not to be compared by their own intervals, which are of other documents, but by the differences beside them, which are paired.\n\n{found}"
            )
        if found := cheaper.section(model, full_rows(model)):
            yield found
        if found := trained_states.section(model, known):
            yield found
        if found := reading.section(model, RECORDS, known):
            yield found
        if found := tuning.section(model, RECORDS):
            yield found
        if found := ways.section(model, RECORDS):
            yield found
        if found := ways.widest(model, RECORDS):
            yield found
        if found := full_attention(model):
            yield found
    for level, words in (
        ("b", ""),
        ("cpu", ", untrained, inside the old window: 12 prompts and six documents in float32 on a CPU"),
    ):
        grids = {model: rows for model in models if base_of(rows := rows_in(RECORDS / level / model)) is not None}
        if grids:
            save(cliff(grids), FIGURES / f"lab-factors-{level}.svg")
            yield f"### By factor{words}\n\n![Passkeys and loss by factor](figures/lab-factors-{level}.svg)"
        for model, rows in grids.items():
            base = base_of(rows)
            yield f"{model}, {next(iter(base.perplexities.values())).documents} documents cut to {base.asked['test_tokens'] or 'the longest window'} tokens:\n\n{factors_table(rows, base)}"
    for model in models:
        if found := inside.section(model, rows_in(RECORDS / "b" / model), full_rows(model)):
            yield found
    if found := explained(models):
        yield found
    if found := measures.section((model, plain_rows(model, RECORDS, "a", "c")) for model in models):
        yield found
    for found in (summaries.section(RECORDS), penalty.section(RECORDS)):
        if found:
            yield found


def weights(models: list[str]) -> str:
    """What the models that others made are here, in a sentence; nothing without any."""
    if not (named := [f"{model} ({WEIGHTS[model]})" for model in models if model in WEIGHTS]):
        return ""
    return (
        "Models that others made are not the published files but what [recipes/real_models/fetch.py](../recipes/real_models/fetch.py) makes of 4-bit ones, back in bfloat16: "
        f"{joined(named)}. So they are a little worse than the published ones; by how much was not measured."
    )


def rates_taken(model: str) -> str:
    """Which rates the tables have, in a sentence."""
    if not (others := at_other_rates(plain_rows(model, RECORDS, "a"), RECORDS / "a" / model)):
        return "The best is what the tables take:"
    return (
        "The tables take the best where it was measured in full, as all rows of 20 M tokens and more are (the best at 5 M: none was chosen again); else the rate that was, of which these are worse on validation than at "
        f"their best, in nats: {others}. So what these lack at that budget is in part their rate, and between such a row and one of more tokens the rate changes too:"
    )


def full_rows(model: str) -> list[Row]:
    """Of the method map, the paper's budget and its 1000 steps, at the rates chosen in the first."""
    return at_chosen_rate(plain_rows(model, RECORDS, "a", "c", "e", "paper"), chosen_rates(RECORDS / "a" / model))


def full_attention(model: str) -> str:
    """The rows of level e, of a model of which the full-attention layers alone were extended, beside the base of the README's model."""
    rows = rows_in(RECORDS / "e" / model)
    if not (found := method_map(model, rows, chosen_rates(RECORDS / "e" / model))):
        return ""
    told = between.without_choice(rows, base_of(rows_in(RECORDS / "a" / README_MODEL)))
    return f"### {model}, full-attention layers alone\n\nIts other layers look back over a sliding window, which no row changes. {told}\n\n{found}"


def claimed(models: list[str]) -> str:
    """The paper's claims, by the rows of every model and budget that has what they are about."""
    return claims.section([
        (model, column)
        for model in models
        for column in claims.columns(full_rows(model), rows_in(RECORDS / "slid" / model))
    ])  # fmt: skip


def explained(models: list[str]) -> str:
    """Whether what the theory counts says beforehand what untrained rows do."""
    grids = [
        (model, rows, base)
        for level in ("a", "cpu")
        for model in models
        if (base := base_of(rows := rows_in(RECORDS / level / model)))
    ]
    found = explain.points(grids)
    if told := explain.section(found):
        save(explain.figure(found), FIGURES / "lab-theory.svg")
    return told


def page(beside: Path | None = None) -> str:
    """What stands between the marks. beside: where other records lie than the committed ones, of which alone it is said what was never run and how older rows were made."""
    parts = [*sections()]
    source = "[lab/records](../lab/records) by `make results`" if beside is None else f"`{beside}` by `make results RECORDS={shlex.quote(str(beside))}`"  # fmt: skip
    older = ", and what the commands in the older records leave out" * (beside is None)
    claimed = "; The paper's claims, below, say what the difference means" * any(part.startswith(claims.TITLE) for part in parts)  # fmt: skip
    crowded = "; rows of levels pose, lora and steps on an H200, and lab-2k's of 100 M tokens above 300, ran beside two to four others on one GPU, so theirs are too many" * (beside is None)  # fmt: skip
    head = (
        "## The lab: every method on the same documents, prompts and budgets\n\n"
        f"Drawn from {source}; [lab/README.md](../lab/README.md) says how a row is run again{older}. The base is the model before any extension or training; the control is the base trained at its old window on as many tokens of the same documents. Damage is the loss in the old window above the base's on the same "
        f"tokens, paired over documents; gain the loss that context beyond the old window saves; passkey the share of prompts whose key is found, digits that of the keys' digits (by chance 10 %{claimed}), and k_max, the distance in tokens up to which at least a fifth of the keys of every depth are. In brackets 95 % intervals; those of shares are exact (Clopper and Pearson), those of several seeds are of their mean, for other documents or prompts and for other seeds. A figure without one has it in its record, but for digits: those of a prompt depend on each other, and their prompts are those of the keys. Retrieval is the harder "
        f"set, its four families together. Seconds are GPU seconds of training alone, without compiling, of several GPUs their sum{crowded}. Tokens are of training, 1 M = 2^20; nothing was chosen on test documents: LongRoPE's factors, and the learning rate where several were tried, are from validation."
    )
    return "\n\n".join([head, *parts, *([never.sentences(RECORDS)] if beside is None else [])])


def evidence() -> list[dict[str, Any]]:
    """What `extend`, `train` and `plan` say was measured: levels a, c and e of every model, the other factors of level b, and x32, each beside its own base.

    Left out are levels that trained otherwise (pose, lora, steps) or on other data (read-*, tuned-*), or measured the same rows anew or in part (slid, cpu, found-*).
    """
    found = []
    for model in sorted({directory.name for directory in RECORDS.glob("[ae]/*")}):
        factors = rows_in(RECORDS / "b" / model)
        others = [row for row in factors if row.asked["factor"] != FACTOR or row is base_of(factors)]
        found += [*cases(full_rows(model)), *cases(others), *cases(rows_in(RECORDS / "x32" / model))]
    return found


def choice() -> str:
    """The README's table and figure: what `evidence` has of the one real model at factor 4; and what the table leaves out, from its rows."""
    methods = {
        case["model"]["scaling"]["method"]: {int(tokens): Figures(**each) for tokens, each in case["budgets"].items()}
        for case in evidence()
        if case["model"]["name"] == README_MODEL
        and case["model"]["window"] == FACTOR * case["model"]["original_window"]
    }
    save(chosen.figure(methods), FIGURES / "lab-methods.svg")
    picture = (
        "![Passkeys found in the new window by the loss in the old one, method by method](docs/figures/lab-methods.svg)"
    )
    tried, best = rows_in(RECORDS / "a" / README_MODEL), chosen_rates(RECORDS / "a" / README_MODEL)
    base = base_of(tried)
    at_rates = {
        (row.asked["method"], row.asked["tokens"], row.asked["learning_rate"]): Figures(**figures([row], base))
        for row in tried
        if row.passkeys
    }
    notes = chosen.notes(methods, best, at_rates, full_rows(README_MODEL))
    return f"{chosen.lines(methods, best)}\n\n{notes}\n\n{picture}"


def _refuse_unmarked(path: Path) -> None:
    """
    Raises:
        UserError: a page is not there, or lacks a mark.
    """
    if not path.is_file() or any(path.read_text(encoding="utf-8").count(mark) != 1 for mark in MARKS):
        raise UserError(
            f"what the lab found is written between two marks of {path}, which is not there or has not each of them once; git checkout {path} restores it"
        )


def _redraw(path: Path, text: str) -> None:
    before, rest = path.read_text(encoding="utf-8").split(MARKS[0])
    path.write_text(f"{before}{MARKS[0]}\n\n{text}\n\n{MARKS[1]}{rest.split(MARKS[1])[1]}", encoding="utf-8")


def _draw_beside(records: Path) -> None:
    """The page of other records than the committed ones, beside them: README, evidence and docs stay those of lab/records."""
    global RECORDS, FIGURES
    RECORDS, FIGURES = records, records / "figures"
    refuse_copies(RECORDS)
    FIGURES.mkdir(exist_ok=True)
    # Links go from docs/, where the committed page lies, but for figures, which are drawn beside it.
    linked = re.sub(r"\]\((?!figures/)([^)]+)\)", lambda link: f"]({os.path.relpath(PAGE.parent / link[1], records)})", page(records))  # fmt: skip
    (records / PAGE.name).write_text(f"{linked}\n", encoding="utf-8")
    print(f"{records / PAGE.name} is drawn; docs, README and what commands say was measured are of lab/records alone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=Path, metavar="DIR", help="of another make lab, drawn into DIR")
    records = parser.parse_args().records or RECORDS
    try:
        own = committed.refuse_altered(records)
        if own:
            print(
                f"not committed, by {committed.SUMS}: {counted(len(own), 'file')}, {own[0]}{' and more' * (len(own) > 1)}"
            )
        if records.resolve() != RECORDS.resolve():
            return _draw_beside(records)
        refuse_copies(RECORDS)
        _refuse_unmarked(PAGE)
        _refuse_unmarked(README)
        measured, drawn = evidence(), page()  # before anything is written
    except UserError as error:
        parser.error(str(error))
    lines = ",\n".join(json.dumps(case) for case in measured)
    if (said := f"[\n{lines}\n]\n") != EVIDENCE.read_text(encoding="utf-8"):
        EVIDENCE.write_text(said, encoding="utf-8")
        known.cases.cache_clear()
        drawn = page()  # what `--method auto` takes is by these
    _redraw(PAGE, drawn)
    _redraw(README, choice())


if __name__ == "__main__":
    main()
