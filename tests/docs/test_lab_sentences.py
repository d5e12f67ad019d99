"""What the lab's page and the README's table say in sentences, by hand from single records."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from statistics import fmean
from typing import Any

import between
import chosen
import inside
import pytest
import results
import rows
from scipy import stats

from lab_page import LAB, text_of_page
from ropewalk.records.format import share

MODEL = "smollm2-135m"


def records(row: str, kind: str, **equal: Any) -> Iterable[dict[str, Any]]:
    """Of one file of lab/records the records of a kind."""
    for line in (results.RECORDS / f"{row}.jsonl").read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        if record["kind"] == kind and all(record[name] == value for name, value in equal.items()):
            yield record


def loss(row: str, window: int, data: str = "books/test.jsonl.xz") -> float:
    (found,) = records(row, "perplexity", window=window, data=data)
    return math.log(found["perplexity"])


def keys(row: str, window: int) -> str:
    (found,) = records(row, "passkey_summary", window=window)
    prompts = found["depths"] * found["trials"]
    return f"{found['accuracy'] * prompts:.0f} of {prompts}"


def digits(row: str, window: int) -> float:
    """Of five a prompt, over the depths of the file."""
    asked = list(records(row, "passkey", window=window))
    return sum(each["digits_right"] for each in asked) / (5 * sum(each["trials"] for each in asked))


def part_of_page(title: str) -> str:
    return text_of_page().split(f"### {title}")[1].split("\n### ")[0]


def written(value: float) -> str:
    return f"{value:.3f}".replace("-", "−")


def test_the_default_is_held_against_the_others_at_one_rate():
    part, there = part_of_page(f"Every method, {MODEL}"), f"a/{MODEL}"
    yarn, llama3 = (f"{there}/{method}-x4-5M-1e-4-s0" for method in ("yarn", "llama3"))
    said = re.search(
        r"Llama 3 scaling, (\S+) .*? and (67 of 80) passkeys, beside which YaRN reads (\S+) .*? at 8192 and (\S+) ",
        part,
    )
    assert (
        said and said[2] == keys(llama3, 32768) and said[1] == written(loss(llama3, 8192) - loss(f"{there}/none", 8192))
    )
    for group, window in ((3, 8192), (4, 32768)):
        assert float(said[group].replace("−", "-")) == pytest.approx(
            loss(yarn, window) - loss(llama3, window), abs=1.5e-3
        )
    assert (
        f"YaRN, {written(loss(yarn, 8192) - loss(f'{there}/none', 8192))} " in part
        and f"and {keys(yarn, 32768)} passkeys" in part
    )
    best = [
        fmean(loss(f"{there}/{method}-x4-5M-3e-4-s0", window, "books/validation.jsonl.xz") for window in (8192, 32768))
        for method in ("llama3", "yarn")
    ]
    assert f"{written(best[0] - best[1])} higher for Llama 3 scaling" in part


def test_of_models_whose_default_has_one_rate_or_finds_no_half_nothing_is_said_of_one_rate():
    assert [between.at_one_rate(results.RECORDS / "a" / model) for model in ("lab-2k", "hemp")] == ["", ""]


def test_gemma_s_table_says_that_no_rate_was_chosen_and_what_its_rows_say():
    part, there = part_of_page("gemma-3-270m, full-attention layers alone"), "e/gemma-3-270m"
    above = {
        method: loss(f"{there}/{method}-x4-5M-1e-4-s0", 131072) - loss(f"{there}/linear-x4-5M-1e-4-s0", 131072)
        for method in ("yarn", "ntk")
    }
    said = re.search(r"PI reads best at 131072; above it, paired, lie YaRN (\S+) \(.*?\) and NTK (\S+) \(", part)
    assert said and [float(value) for value in said.groups()] == pytest.approx([*above.values()], abs=1.5e-3)
    assert "No learning rate was chosen here: all have 0.0001, the default of `ropewalk ablate`, of 1 seed." in part
    assert f"The base finds {share(10 / 40)}" in part and keys(f"{there}/none", 32768) == "10 of 40"
    assert digits(f"{there}/none", 32768) * 40 * 5 == pytest.approx(10 * 5 + 30 * 4)
    assert "each of the 30 keys that it does not find lacks one digit" in part and "no verdict" not in part
    trained = {name: f"{there}/{method}-x4-5M-1e-4-s0" for name, method in (("PI", "linear"), ("NTK", "ntk"), ("YaRN", "yarn"))}  # fmt: skip
    assert [keys(row, 32768) for row in trained.values()] == ["14 of 40", "36 of 40", "8 of 40"]
    assert "beyond chance NTK more than PI and YaRN. Their digits are " in part
    of_digits, verdict = part.split("Their digits are ")[1].split(".", 1)[0].split(": ")
    assert verdict == "the same evidence once more, since each key that is not found lacks one digit of five; paired by depth, beyond chance NTK more than PI and YaRN"  # fmt: skip
    for row in trained.values():  # 5 right of a key that is found, 4 of one that is not
        assert all(each["digits_right"] == 4 * each["trials"] + each["successes"] for each in records(row, "passkey", window=32768))  # fmt: skip
    assert re.findall(r"(\w+) (\d+\u202f%) \(", of_digits) == [
        (name, share(digits(row, 32768))) for name, row in trained.items()
    ]
    breaks = [
        loss(f"{there}/none", 131072) - loss(f"{there}/none", 32768),
        loss(f"a/{MODEL}/none", 32768) - loss(f"a/{MODEL}/none", 8192),
    ]
    said = re.search(r"At 131072 the base reads (\S+) .*? where smollm2-135m at 32768 reads (\S+) ", part)
    assert said and [float(value) for value in said.groups()] == pytest.approx(breaks, abs=1.5e-3)


def test_digits_are_told_apart_by_their_difference_at_each_depth_where_their_intervals_overlap():
    """Scipy's paired interval of four depths, of 80, 90, 70 and 80 % beside 76, 82, 68 and 74: about 5 points, that vary less than either does."""
    mine, other = {1: 0.8, 2: 0.9, 3: 0.7, 4: 0.8}, {1: 0.76, 2: 0.82, 3: 0.68, 4: 0.74, 5: 1.0}
    paired = stats.ttest_rel([*mine.values()], [*other.values()][:4])
    assert between._above(mine, other) == pytest.approx((0.05, *paired.confidence_interval()))
    assert between._apart(["a", "b"], lambda one, _: between._above(*((mine, other) if one == "a" else (other, mine)))) == "beyond chance a more than b"  # fmt: skip


def test_why_interpolation_loses_retrieval_is_said_beside_what_the_count_does_not_explain():
    """PI by 1.25 keeps 1 / 1.25 of every angle. ABF keeps no more and finds nearly all; p-RoPE keeps nearly all and finds none; both by 4."""
    part = part_of_page(f"Why does PI lose retrieval inside the old window, and when does it come back? {MODEL}")
    found = [keys(f"b/{MODEL}/linear-x{factor}-0", 8192) for factor in ("1.125", "1.25", "1.5", "2")]
    assert found == ["75 of 80", "13 of 80", "0 of 80", "0 of 80"]
    assert f"{share(75 / 80)} by 1.125, which keeps {share(1 / 1.125, 1)} of" in part
    assert (
        f"{share(13 / 80)} by 1.25, which keeps {share(1 / 1.25, 1)} of the mean angle a token and none by more; of their digits"
        in part
    )
    by_factor = [
        f"{share(digits(f'b/{MODEL}/linear-x{factor}-0', 8192))} by {factor}"
        for factor in ("1.125", "1.25", "1.5", "2", "4", "8", "16")
    ]
    assert f"{', '.join(by_factor[:-1])} and {by_factor[-1]}. So" in part
    assert (
        "digits are lost by degrees" in part and "more than by chance up to 1.5" in part and "why the edge" not in part
    )
    angles = [100_000 ** (-pair / 32) for pair in range(32)]
    kept = fmean((50 * 100_000) ** (-pair / 32) for pair in range(32)) / fmean(angles)
    assert kept < 1 / 1.25 and f"ABF by 4 ({share(kept, 1)} kept) finds {share(79 / 80)} (digits" in part
    assert (keys(f"a/{MODEL}/abf-x4-0", 8192), keys(f"a/{MODEL}/p-rope-x4-0", 8192)) == ("79 of 80", "0 of 80")
    assert "YaRN by 16" in part and f"p-RoPE, fast pairs kept by 4 ({share(0.999, 1)} kept) finds {share(0.0)}" in part
    told = [keys(f"c/{MODEL}/linear-x4-20M-1e-3-s{seed}", 8192) for seed in range(3)]
    right = [share(digits(f"c/{MODEL}/linear-x4-20M-1e-3-s{seed}", 8192)) for seed in range(3)]
    assert (
        f"after 20 M tokens {told[0]}, {told[1]} and {told[2]}, of the digits {right[0]}, {right[1]} and {right[2]} (seeds 0, 1, 2, at 0.001)"
        in part
    )
    assert (
        f"seeds differ less in digits ({right[2]} to {right[0]}) than in keys ({share(3 / 80)} to {share(68 / 80)})"
        in part
    )
    assert "More digits are right than by chance in every seed from 5 M on" in part
    assert f"after 100 M tokens {keys(f'c/{MODEL}/linear-x4-100M-1e-3-s0', 8192)}, of the digits" in part
    resolutions = re.search(
        r"over its spread is (\S+), (\S+), (\S+), (\S+)\. So the resolution itself hardly comes back", part
    )
    assert resolutions and float(resolutions[4]) < 0.6 * float(resolutions[1])


def test_pages_that_show_few_keys_show_their_digits():
    """PI on SmolLM2 after 100 M tokens finds 2 of 80 keys at 32768, and of their 400 digits more than half."""
    row = f"c/{MODEL}/linear-x4-100M-1e-3-s0"
    right = share(digits(row, 32768))
    assert keys(row, 32768) == "2 of 80" and digits(row, 32768) > 0.5
    (line,) = re.findall(r"^\| PI \| 100 M \|.*", part_of_page(f"More tokens, {MODEL}"), re.MULTILINE)
    assert f", digits {right} |" in line
    assert f"{share(2 / 80)} of the passkeys at 32768 and {right} (" in part_of_page("Past the paper: as much with a quarter of the tokens, smollm2")  # fmt: skip
    readme = results.README.read_text(encoding="utf-8")
    assert f"{share(0.0)} to {share(0.09)}) and {right} of their digits" in readme
    mean = share(fmean(digits(f"c/{MODEL}/linear-x4-20M-1e-3-s{seed}", 32768) for seed in range(3)))
    assert f"PI has {mean} (keys: {share(fmean([37, 1, 2]) / 80)})" in results.choice()
    gemma = [digits(f"e/gemma-3-270m/{name}", 32768) for name in ("ntk-x4-5M-1e-4-s0", "linear-x4-5M-1e-4-s0", "yarn-x4-5M-1e-4-s0", "none")]  # fmt: skip
    assert "of their digits {}, {} and {} (the base {})".format(*(share(each).replace("\u202f", " ") for each in gemma)) in readme  # fmt: skip
    assert "the same evidence once more: each key that is not found lacks one digit, and was read." in readme
    ends = [share(digits(f"c/{MODEL}/linear-x4-20M-1e-3-s{seed}", 32768)).split("\u202f")[0] for seed in (1, 0)]
    assert f"single digits {ends[0]} to {ends[1]} %" in (LAB.parent / "docs/guide.md").read_text(encoding="utf-8")


def test_the_penalty_s_scores_are_called_the_highest_as_they_are_signed():
    assert "| highest score below 256 |" in part_of_page("A penalty on |h_j| in pretraining, hemp")


def test_nothing_is_said_of_retrieval_that_the_model_itself_does_not_find():
    by_factor = rows.rows_in(results.RECORDS / "b/lab-2k")
    assert inside.section("lab-2k", by_factor, results.full_rows("lab-2k")) == ""


def test_the_penalty_s_conclusion_is_what_its_models_read():
    part = part_of_page("A penalty on |h_j| in pretraining, hemp").split("\n\n")[1]

    def read(weight: str, window: int) -> float:
        rows_of_seeds = (f"penalty/hemp-3000-h{weight}-s{seed}/none" for seed in range(3))
        return math.exp(fmean(loss(row, window, "penalty/held_out.jsonl") for row in rows_of_seeds))

    assert f"{read('0.01', 512):.2f} at 512 beside {read('0.01', 256):.2f} at 256" in part
    assert (
        f"the model without reads {read('0', 512):.2f}." in part
        and f"at four times it reads {read('0.01', 1024):.2f} " in part
    )
    assert "3.7 million parameters" in part and part.endswith("a window of 256 tokens and 3 seeds.")


def test_the_readme_s_table_marks_other_rates_and_says_where_k_max_is_a_wall():
    table, notes, _ = results.choice().rsplit("\n\n", 2)
    at_5, at_20 = ([line.split(" | ")[column] for line in table.splitlines()[2:]] for column in (3, 5))
    marked = {line.split("`")[1] for line in table.splitlines()[2:] if line.split(" | ")[3].endswith("†")}
    assert (
        marked == {"llama3", "abf", "longrope", "ntk", "linear"}
        and len(at_5) == 6
        and not any("†" in cell for cell in at_20)
    )
    assert f"at 0.0001 too YaRN has −0.13 nats and finds {share(66 / 80)} (seed 0)" in notes
    assert keys(f"a/{MODEL}/yarn-x4-5M-1e-4-s0", 32768) == "66 of 80"
    for seed in range(3):
        found = {
            each["k"]: each["successes"] / each["trials"]
            for each in records(f"c/{MODEL}/yarn-x4-20M-3e-4-s{seed}", "passkey", window=32768)
        }
        assert found == {k: float(k <= 28672) for k in range(2048, 32769, 2048)}
    assert "are a wall: of 3 seeds each finds every key up to 28672 tokens" in notes and "ABF's" not in notes
    assert "p-RoPE, fast pairs kept, CoPE and direct fine-tuning, which find none of the passkeys" in notes
    assert "| 88\u202f% (3 seeds), 28672 |" in table


def test_a_mark_is_of_what_was_trained_at_another_rate_than_the_best():
    figures = results.Figures(
        damage=0.0, inside=1.0, passkeys=1.0, least=1.0, most=1.0, seeds=1, k_max=8, steps=20, learning_rate=1e-4
    )
    assert chosen._cells(figures, 3e-4)[0].endswith("†") and not chosen._cells(figures, 1e-4)[0].endswith("†")
    assert chosen._cells(figures, 1e-4)[1] == f"{share(1.0)}, 8"
