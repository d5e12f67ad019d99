"""Whether a claim of the paper held, stayed open or did not, by its interval over the seeds of the lab's records."""

from __future__ import annotations

import math
import re

import cheaper
import claims
import explain
import numpy as np
import pytest
import results
import rows
from scipy import stats

from lab_page import LAB, claim_of, column_of, text_of_page
from ropewalk.cli.tables.theory import show_theory
from ropewalk.records.format import share
from ropewalk.suite.theory import theory


def test_a_claim_is_held_or_not_by_its_interval_and_open_where_that_tells_nothing():
    def cell(low: float, high: float) -> str:
        claim = claims.Claim("t", "table 1", lambda model: ((low + high) / 2, low, high), "nats", most=0.02)
        return claim.cell(claims.Column([column_of("lab-2k", 5).models[0]], [])).split(":")[0]

    assert [cell(-0.1, 0.02), cell(-0.1, 0.03), cell(0.021, 0.03), cell(float("nan"), float("nan"))] == [
        "**held**",
        "open",
        "**did not**",
        "open",
    ]


def test_what_a_longer_window_is_worth_is_read_from_rows_of_a_stride_that_tells():
    found = claims.columns(results.full_rows("lab-2k"), rows.rows_in(results.RECORDS / "slid/lab-2k"))
    (claim,) = (each for each in claims.CLAIMS if each.text.startswith("It makes use"))
    coarse = claims.columns(results.full_rows("lab-2k"))
    assert [claim.cell(column).split(":")[0] for column in coarse] == ["open"] * 3
    assert [claim.cell(column).split(":")[0] for column in found] == ["open", "**held**", "**held**"]
    (model, *_) = found[-1].slid
    here, there = (model.trained.perplexities[window] for window in (model.new, model.old))
    assert (here.stride, there.stride) == (256, 256)
    assert claim.measure(model)[0] == pytest.approx(math.log(here.perplexity / there.perplexity), abs=2e-3)


def test_a_correlation_over_rows_has_an_interval_that_is_narrow_only_where_ranks_agree():
    rho, low, high = explain.correlation([(float(x), 2.0**x) for x in range(20)], [str(x) for x in range(20)])
    assert rho == 1 and low > 0.99
    few = explain.correlation([(float(x), 2.0**x) for x in range(20)], [*"abc", *"c" * 17])  # of three methods
    assert explain.cell(*few, ["a", "b", "c"], 1) == ""
    rho, low, high = explain.correlation(
        [(float(x), float(7 * x % 19)) for x in range(19)], [str(x) for x in range(19)]
    )
    assert low < 0 < high


def test_rows_of_one_method_are_drawn_together_in_the_interval_of_a_correlation():
    """Against scipy's ρ of each resample; and seeds and budgets that repeat what a method does tell no more than it does once."""
    pairs, methods = [(float(x), float(7 * x % 19)) for x in range(12)], list("aabbbcddddef")
    rho, low, high = explain.correlation(pairs, methods)
    generator, rows = np.random.default_rng(1), [[pair for pair, method in zip(pairs, methods, strict=True) if method == name] for name in "abcdef"]  # fmt: skip
    drawn = [stats.spearmanr(sum((rows[n] for n in generator.integers(6, size=6)), [])).statistic for _ in range(2000)]
    assert rho == pytest.approx(stats.spearmanr(pairs).statistic)
    assert (low, high) == pytest.approx(np.nanquantile(drawn, [0.025, 0.975]), abs=0.06)
    once, five = explain.correlation(pairs, [*"abcdefghijkl"]), explain.correlation(pairs * 5, [*"abcdefghijkl"] * 5)
    assert five == pytest.approx(once, abs=1e-6)


def test_passkeys_that_no_model_finds_in_its_own_window_decide_no_claim():
    """lab-2k finds none at 2048 before it has read 100 M tokens; SmolLM2 does from the start."""
    for words in ("Direct fine-tuning", "It finds the passkey"):
        for tokens in (5, 20):
            assert claim_of(words).cell(column_of("lab-2k", tokens)).startswith(claims.NOT_TESTABLE)
        for model, tokens in (("lab-2k", 100), ("smollm2-135m", 5), ("smollm2-135m", 20)):
            assert claims.NOT_TESTABLE not in claim_of(words).cell(column_of(model, tokens))
    assert re.search(
        r"Before any extension gemma-3-270m finds 25\u202f% of them and 85\u202f% \(.*?\) of their digits at 32768 and lab-2k finds 0\u202f% of them and 21\u202f% \(.*?\) of their digits at 2048\.",
        text_of_page(),
    )


def test_a_loss_below_the_base_s_is_open_where_no_control_read_the_same_tokens():
    """Of Gemma 3 no control was trained: 0.093 nats less at 32768 may be of the books. SmolLM2's stay as they were."""
    for words in ("The old window hardly suffers", "Trained briefly"):
        cell = claim_of(words).cell(column_of("gemma-3-270m", 5))
        assert cell.startswith("open: −") and cell.endswith(", no control")
        assert claim_of(words).cell(column_of("smollm2-135m", 20)).startswith(claims.HELD)
    assert claim_of("The old window hardly suffers").cell(column_of("lab-2k", 5)).startswith("**did not**")
    assert "no control" not in claim_of("Interpolated and untrained").cell(column_of("gemma-3-270m", 5))


@pytest.mark.parametrize(
    ("found", "of_none", "told"),
    [
        (claims.HELD, claims.HELD, claims.NOT_TESTABLE),
        ("open", claims.HELD, claims.NOT_TESTABLE),
        ("**did not**", claims.HELD, "**did not**"),
    ],
)
def test_passkeys_that_are_found_beyond_count_whatever_the_base_finds(found, of_none, told):
    base = column_of("lab-2k", 5).models[0].base
    assert claims.of_passkeys(found, of_none, [base, None]) == told
    assert claims.of_passkeys(found, of_none, [base, column_of("smollm2-135m", 5).models[0].base]) == found


def test_a_claim_rests_on_the_seeds_that_it_names_and_on_an_interval_over_them():
    """Level slid has seeds 0, 1 and 2 of lab-2k at 20 M, the other rows seed 0 alone."""
    column = column_of("lab-2k", 20)
    assert column.seeds == "seed 0"
    cell = claim_of("Trained briefly").cell(column)
    assert re.fullmatch(r"\S+: −0\.\d{3} \(−0\.\d{3} to −0\.\d{3}\), level slid, seeds 0, 1, 2", cell)
    assert claim_of("The old window").cell(column).endswith(")")
    # By hand: log(25.2825 / 25.3808), log(25.0643 / 25.2027), log(25.1871 / 25.2860) of the three seeds are −0.0039, −0.0055 and −0.0039. They are those
    # of the column's head, which are not named again.
    three = claim_of("It makes use").cell(column_of("smollm2-135m", 20))
    assert re.fullmatch(r"\*\*held\*\*: −0\.004 \(−0\.00[5-9] to −0\.00[0-3]\), level slid", three)
    for line in claims.lines([column_of("smollm2-135m", 20)]):
        assert not line[3] or re.search(r"\(.+ to .+\)", line[3]), line


def test_the_paper_s_figure_stands_beside_ours_in_one_unit():
    """By hand from tables 1 to 5: log(6.95 / 7.13), log(6.95 / 7.20), log(7.13 / 7.20), log(7.23 / 7.20), log(2.79 / 2.77), 1792 / 2048."""
    told = {claim.text: claim.source for claim in claims.CLAIMS}
    assert "7.13 → 6.95, −0.026 nats" in told["It makes use of the longer context"]
    assert "7.20 → 6.95, −0.035 nats" in told["Trained briefly, it is no worse at L' than the base at L"]
    assert re.search("7.13, −0.010 nats; when ×16 7.20 → 7.23, 0.004 nats", told["The old window hardly suffers"])
    assert "2.79, 0.007 nats" in told["The old window hardly suffers on mathematics, of which none was read"]
    assert "0.875 to 1.250" in told["Direct fine-tuning hardly lengthens what is used"]
    assert "above 4.934 nats" in told["A model breaks beyond its window"]
    assert "BoolQ −2.9, PIQA −0.7, RACE-m −1.9" in told["Benchmarks of the old window hardly suffer"]
    assert "of what the longer context is worth, −0.004 to −0.010 nats where it held here, −0.026 in the paper" in text_of_page()  # fmt: skip


def test_what_the_readme_says_of_interpolation_is_in_the_records():
    (model,) = column_of("smollm2-135m", 100).models
    figures = [
        claim_of("And not because books").measure(model),
        claim_of("The old window hardly suffers on math").measure(model),
    ]
    (above_control, *control), (above_base, *base) = ([f"{value:.2f}" for value in each] for each in figures)
    said = f"loses {above_base} nats there above the base ({' to '.join(base)}) and {above_control} above the control ({' to '.join(control)})"
    text = results.README.read_text(encoding="utf-8")
    key = model.trained.passkeys[model.new]
    found = f"finds {share(key.accuracy)} of the passkeys ({share(key.low)} to {share(key.high)})"
    assert said in text and found in text
    decision = (LAB.parent / "docs/decisions/063-auto-is-the-default.md").read_text(encoding="utf-8")
    assert f"finds {share(key.accuracy)} of the passkeys (2 of 80)".replace("\u202f", " ") in decision
    at_20 = {claim.what: claim.cell(column_of("smollm2-135m", 20)).split(":")[0] for claim in claims.CLAIMS}
    assert (
        at_20["nats at L' above the base's at L; held up to 0"]
        == at_20["nats at L above the base's there; held up to 0.02"]
        == claims.HELD
    )
    assert at_20["nats at L' above the control's at L; held up to 0"] == "**did not**"
    assert at_20["nats at L above the control's there; held up to 0.02"] == "**did not**"


def _claims_table() -> dict[tuple[str, str, str], str]:
    """By a claim (what is beside the control after the one it goes with), a model and its training tokens: the cell of the page."""
    part = text_of_page().split("### The paper's claims")[1].split("\n### ")[0]
    heads, _, *lines = ([cell.strip() for cell in line.strip("|").split(" | ")] for line in re.findall(r"^\|.*", part, re.MULTILINE))  # fmt: skip
    columns = [(head.split(",")[0], re.search(r", ([\d.]+ [kMG]) tokens", head)[1]) for head in heads[3:]]
    table, claim = {}, ""
    for text, _, _, *cells in lines:
        claim = f"{claim}, control" if text.startswith("And not because") else text
        table |= {(claim, *column): cell for column, cell in zip(columns, cells, strict=True)}
    return table


_SMOLLM2, _GEMMA, _LAB, _HEMP = "smollm2-135m", "gemma-3-270m", "lab-2k", "hemp"
_UNTRAINED = "Interpolated and untrained, a model already does better at L' than one that is not"
_NEW, _OLD = "Trained briefly, it is no worse at L' than the base at L", "The old window hardly suffers"
_OF_THE_README = {
    "Held": (claims.HELD, [(_UNTRAINED, _SMOLLM2, "5 M"), (_UNTRAINED, _GEMMA, "5 M"), (_UNTRAINED, _LAB, "5 M"), (_UNTRAINED, _HEMP, "512 k"), (_NEW, _SMOLLM2, "100 M"), (_NEW, _LAB, "100 M"), (f"{_OLD}, control", _LAB, "100 M"), (claims.LONGER, _SMOLLM2, "20 M"), (claims.LONGER, _LAB, "100 M")]),
    "Did not hold": ("**did not**", [("It finds the passkey anywhere", _SMOLLM2, "100 M"), ("It finds the passkey anywhere", _LAB, "100 M"), (f"{_OLD} on mathematics, of which none was read", _SMOLLM2, "100 M"), (_NEW, _SMOLLM2, "5 M"), (_NEW, _LAB, "5 M"), ("A model breaks beyond its window", _GEMMA, "5 M")]),
    "Open": ("open", [(f"{_NEW}, control", _SMOLLM2, "100 M"), (f"{_OLD}, control", _SMOLLM2, "100 M"), ("Benchmarks of the old window hardly suffer", _SMOLLM2, "100 M")]),
}  # fmt: skip


@pytest.mark.parametrize("heading", _OF_THE_README)
def test_the_readme_has_the_verdicts_and_the_figures_of_the_page(heading):
    """Each in its order, and no other figure but the paper's own."""
    table, (verdict, asked) = _claims_table(), _OF_THE_README[heading]
    cells = [table[each] for each in asked]
    assert all(cell.startswith(f"{verdict}: ") for cell in cells)
    (line,) = re.findall(rf"^- \*\*{heading}\*\*: (.*)$", results.README.read_text(encoding="utf-8"), re.MULTILINE)
    said = re.findall(r"−?\d\.\d{3}", line.replace(", in the paper −0.026", ""))
    assert said == [re.search(r"−?\d+\.\d{3}", cell)[0] for cell in cells]


def test_the_readme_names_the_models_that_break_beyond_their_window_and_the_paper_s_worth_of_it():
    table = _claims_table()
    broken = [table["A model breaks beyond its window", model, tokens] for model, tokens in ((_SMOLLM2, "5 M"), (_LAB, "5 M"), (_HEMP, "512 k"))]  # fmt: skip
    assert all(cell.startswith(claims.HELD) for cell in broken)
    (paper,) = re.findall(rf"^\| {claims.LONGER} \| ([^|]*)", text_of_page(), re.MULTILINE)
    assert "−0.026 nats" in paper
    assert "](docs/results.md#the-papers-claims)" in results.README.read_text(encoding="utf-8")


def test_gpu_seconds_are_compared_on_as_many_gpus_of_one_kind_alone():
    smollm, lab = (cheaper.section(model, results.full_rows(model)) for model in ("smollm2-135m", "lab-2k"))
    assert (
        "| GPU seconds, of PI's |" not in smollm
        and "| GPU seconds, of PI's |" in lab
        and "1816 GPU seconds are of H100 × 4" in smollm
    )
    assert "| YaRN | 20 M | 0 | 20\u202f% | 19\u202f% |" in lab and "| YaRN | 20 M | 0 | 20\u202f% | **did" in smollm
    assert "| PI | 20 M | 0 | 20\u202f% | 19\u202f% |" in lab and f"{claims.NOT_TESTABLE}: 0" in lab
    assert "| 1816, H100 × 4 |" in text_of_page()


def test_what_is_said_of_the_mixtures_retrieval_is_the_verdict_over_its_seeds():
    """The figure of the table's own line, and a verdict that its interval bears out."""
    said = re.search(
        r"Of four fifths whole.* it is open whether retrieval is more than a point below the plain rows' over 4 seeds: (.+) \((.+) to (.+)\) points\.",
        text_of_page(),
    )
    assert said and f"| 4 seeds |  |  | open: {said[1]} ({said[2]} to {said[3]}) |" in text_of_page()
    low, high = (float(end.replace("−", "-")) for end in said.groups()[1:])
    assert low < -1 < high


def test_the_theory_is_said_to_have_told_what_the_records_bear_out(capsys):
    page, said = text_of_page(), theory_in_words(capsys)
    assert "of the 4 correlations of angles never seen with what happens in the new window none" in page and "of all 8 correlations of which it says one, none." in page  # fmt: skip
    assert "neither count of unseen angles said which lose more there" in said
    assert "blurred went with the loss in the old window no more than chance may make it over eight methods" in said
    theory_rows = page.split("### Does the theory")[1].split("### Which measure")[0]
    assert "**" not in theory_rows.split("| --- |")[1] and "12 intervals stand here" in theory_rows
    assert "18 intervals stand here" in page.split("### Which measure")[1]
    for column in ("smollm2-135m", "lab-2k"):
        assert claim_of("A model breaks").cell(column_of(column, 20)).startswith(claims.HELD)
    bold = [explain.cell(-0.6, -0.7, -0.4, ["a", "a", "b"], sign)[0] == "*" for sign in (0, -1, 1)]
    assert bold == [False, True, False]
    assert explain.cell(-0.6, -0.7, -0.4, ["a", "a", "b"], 0).endswith(", 3 rows of 2 methods")


def theory_in_words(capsys) -> str:
    show_theory(theory("hemp", window=1024))
    return " ".join(capsys.readouterr().out.split())
