"""What is said of a method before it is chosen. Figures are those of docs/results.md; tests/docs/test_lab.py holds evidence.json against the lab's records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ropewalk.records import ModelInfo
from ropewalk.records.evidence import Figures, Training, evidence
from ropewalk.rope.scaling import Abf, Factors, Linear, LongRope, Scaling, Yarn

SMOLLM2 = ModelInfo("here", "llama", 8192, 32768, Yarn(4.0), 100_000.0, 64, 134_515_008)
LAB_2K = ModelInfo("here", "llama", 2048, 8192, Yarn(4.0), 10_000.0, 64, 24_388_992)
GEMMA = ModelInfo("here", "gemma3_text", 32768, 131072, Yarn(4.0), 1e6, 256, 268_098_176)
HEMP = ModelInfo("here", "llama", 256, 1024, Yarn(4.0), 10_000.0, 64, 3_688_704)


def by(scaling: Scaling, info: ModelInfo = SMOLLM2) -> ModelInfo:
    """The model made longer by this scaling, by its factor."""
    return replace(info, scaling=scaling, window=round(info.original_window * scaling.factor))


def test_a_model_that_was_measured_has_its_own_figures_and_nothing_is_an_extrapolation() -> None:
    told = {info.original_window: evidence(info) for info in (SMOLLM2, LAB_2K, HEMP, GEMMA)}
    assert "measured on smollm2-135m" in told[8192]
    assert (
        "untrained: +0.10 nats in the old window, 100\u202f% of passkeys there (digits 100\u202f%), 79\u202f% in the new one (digits 86\u202f%), k_max 28672"
        in told[8192]
    )
    assert (
        "after 20M training tokens at a rate of 0.0003: −0.22 nats" in told[8192]
        and "88\u202f% (3 seeds)" in told[8192]
    )
    # lab-2k: none untrained, at 5 M and at 20 M, 28 % at 100 M; and as it was none in its own window.
    assert (
        "measured on lab-2k, 2048 to 8192 tokens, which finds 0\u202f% of passkeys (digits 21\u202f%) in its own window before any extension"
        in told[2048]
    )
    assert (
        told[2048].count(" 0\u202f% in the new one") == 3
        and "80\u202f% of passkeys there (digits 96\u202f%), 28\u202f% (3 seeds" in told[2048]
    )
    assert "88\u202f% (3 seeds)" not in told[2048] and "79\u202f% in" not in told[2048]
    assert "measured on hemp" in told[256]
    assert (
        "untrained: +0.19 nats in the old window, 60\u202f% of passkeys there (digits 92\u202f%), 20\u202f% in the new one (digits 84\u202f%)"
        in told[32768]
    )
    assert not any("extrapolation" in each for each in told.values())
    assert all(each.count(f"digits count singly, 10{chr(0x202F)}% by chance") == 1 for each in told.values())


@pytest.mark.parametrize(
    ("info", "found", "apart"),
    [
        # Level b: YaRN by 16 on SmolLM2.
        (
            by(Yarn(128.0)),
            "smollm2-135m (instruct, from 4-bit Q4_1), 8192 to 131072 tokens, which finds 93\u202f% of passkeys (digits 95\u202f%) in its own window before any extension: untrained: +0.54 nats in the old window, "
            "28\u202f% of passkeys there (digits 67\u202f%), 4\u202f% in the new one (digits 54\u202f%)",
            "factor 128 (measured: 16)",
        ),
        (replace(HEMP, window=280, scaling=Yarn(280 / 256)), "hemp, 256 to 1024", "factor 1.09 (measured: 4)"),
        (
            ModelInfo("here", "qwen3", 40960, 163_840, Yarn(4.0), 1e6, 128, 8_190_735_360),
            "gemma-3-270m (pretrained, from 4-bit Q4_K_M), 32768 to 131072",
            "family qwen3 (measured: gemma3_text), weights 8.19B (measured: 268M), rotated coordinates a head 128 (measured: 256) "
            "and old window 40960 (measured: 32768)",
        ),
        (
            ModelInfo("here", "llama", 2048, 32768, Linear(16.0), 10_000.0, 128, 6_738_415_616),
            "lab-2k, 2048 to 32768",
            "weights 6.74B (measured: 24.4M) and rotated coordinates a head 128 (measured: 64)",
        ),
        # Level x32: the paper's largest factor.
        (
            ModelInfo("here", "llama", 2048, 65536, Yarn(32.0), 10_000.0, 128, 6_738_415_616),
            "lab-2k, 2048 to 65536",
            "weights 6.74B (measured: 24.4M) and rotated coordinates a head 128 (measured: 64)",
        ),
    ],
)
def test_another_model_or_factor_is_told_what_is_nearest_and_every_respect_in_which_it_is_another(
    info, found, apart
) -> None:
    told = evidence(info)
    assert f"measured nearest on {found}" in told and told.endswith(f"; here it is an extrapolation: {apart}")


@pytest.mark.parametrize(
    ("info", "apart"),
    [
        (by(Abf(4.0, 418_294.0)), "rope_theta 418294 (measured: 5000000)"),
        (by(Abf(4.0, 5e6), HEMP), "rope_theta 5000000 (measured: 500000)"),
        (by(Yarn(4.0, 4.0, 3.0)), "beta_fast 4 (measured: 32) and beta_slow 3 (measured: 1)"),
        (by(Yarn(4.0, temperature=1.0)), "temperature 1 (measured: by the method's rule)"),
        (
            by(LongRope(4.0, (1.0,) * 32, (2.0,) * 32)),
            "long_factor (measured: as searched for smollm2-135m) and short_factor",
        ),
        (by(Factors(4.0, (2.0,) * 32)), ""),
    ],
)
def test_a_setting_that_was_not_measured_has_no_figures_but_what_was_is_said(info, apart) -> None:
    told = evidence(info)
    assert told.startswith(f"not measured with {apart}" if apart else "not measured (docs") and "%" not in told


def test_parameters_that_go_with_the_model_are_carried_over() -> None:
    """ABF was measured at 50 times the base, on models of two bases."""
    for info, base in ((SMOLLM2, 5e6), (HEMP, 5e5), (LAB_2K, 5e5)):
        assert evidence(by(Abf(4.0, base), info)).startswith("measured on")
    told = evidence(by(Abf(4.0, 2.5e7), replace(SMOLLM2, rope_theta=5e5)))
    assert told.endswith("here it is an extrapolation: RoPE base 500000 (measured: 100000)")


def test_a_training_is_held_against_those_that_were_measured() -> None:
    as_measured = Training("full", 20 * 2**20, 3e-4)
    assert evidence(SMOLLM2, as_measured) == evidence(SMOLLM2)
    told = evidence(SMOLLM2, Training("lora", 1024, 2e-5))
    assert told.endswith(
        "mode lora (measured: full), training tokens 1k (measured: 5M, 20M and 100M) and learning rate 2e-05 (measured: 0.0003)"
    )
    # By 16, YaRN was never trained.
    assert evidence(by(Yarn(16.0)), as_measured).endswith(
        "here it is an extrapolation: training tokens 20M (measured: none)"
    )


def test_a_training_on_top_of_another_says_both_and_is_not_one_of_those_that_were_measured() -> None:
    as_measured = Training("full", 20 * 2**20, 3e-4)
    for trained in (replace(SMOLLM2, steps_before=15, steps=5), replace(SMOLLM2, earlier_steps=20)):
        told = evidence(trained, as_measured)
        assert told.endswith(
            "here it is an extrapolation: trained before for 20 steps (measured: 0 steps) and training tokens now 20M (measured: 5M, 20M and 100M)"
        )
        assert evidence(trained).endswith(
            "here it is an extrapolation: trained before for 20 steps (measured: 0 steps)"
        )


def test_shares_are_rounded_as_the_lab_rounds_them_and_a_range_of_seeds_is_called_one() -> None:
    """66 of 80 is 82.5 %, which a format string would make 82."""
    assert Figures(damage=0.0, inside=1.0, passkeys=0.825, seeds=1, least=0.825, most=0.825).found == "83\u202f%"
    figures = Figures(damage=0.0, inside=1.0, passkeys=0.1667, seeds=3, least=0.0125, most=0.4625)
    assert figures.found == "17\u202f% (3 seeds, by seed from 1\u202f% to 46\u202f%)"
