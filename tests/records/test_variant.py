"""What a state of a model is called, told from its config."""

from __future__ import annotations

import dataclasses

import pytest

import made_up
from ropewalk.records import Unspecified
from ropewalk.records.variant import labels, variant_of


@pytest.mark.parametrize(
    ("state", "window", "role", "label"),
    [
        (made_up.BASE, None, "base", "base"),
        (made_up.BASE, 256, "base", "base"),
        (made_up.BASE, 257, "extrapolation", "base, extrapolating"),
        (made_up.extended(4), 1024, "untrained", "PI ×4, before training"),
        (made_up.extended(4, 200), 256, "trained", "PI ×4, 200 steps"),
        (made_up.extended(4, 200), 4096, "trained", "PI ×4, 200 steps"),
        (made_up.extended(8, 10, "yarn"), 2048, "trained", "YaRN ×8, 10 steps"),
        (
            dataclasses.replace(made_up.BASE, window=1024, steps=500),
            1024,
            "trained",
            "direct fine-tuning ×4, 500 steps",
        ),
        (dataclasses.replace(made_up.BASE, window=1024), 512, "extrapolation", "base, extrapolating"),
        (dataclasses.replace(made_up.BASE, steps=7), 256, "base", "base, 7 steps more"),
        (dataclasses.replace(made_up.BASE, steps=1), 256, "base", "base, 1 step more"),
        (made_up.extended(steps=1), 1024, "trained", "PI ×4, 1 step"),
    ],
)
def test_the_state_is_told_from_the_config_and_the_window(state, window, role, label):
    variant = variant_of(state, window)
    assert (variant.role, variant.label) == (role, label)


def test_a_method_of_another_version_is_called_by_its_own_word():
    model = dataclasses.replace(made_up.extended(4), scaling=Unspecified("my-rope", 4.0))
    variant = variant_of(model, 1024)
    assert (variant.role, variant.label) == ("untrained", "my-rope ×4, before training")


def test_states_that_share_a_label_are_told_apart():
    first, other = (variant_of(made_up.extended(4, 200, name=name)) for name in ("seed-1", "seed-2"))
    assert sorted(labels([first, other]).values()) == ["PI ×4, 200 steps (seed-1)", "PI ×4, 200 steps (seed-2)"]
    assert labels([first]) == {first: "PI ×4, 200 steps"}


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("hemp", "hemp"),
        ("meta-llama/Llama-2-7b", "meta-llama/Llama-2-7b"),
        ("/data/runs/t", "t"),
        ("./t/", "t"),
        ("a/b/c", "c"),
    ],
)
def test_a_path_is_named_by_its_last_part(name, short):
    assert variant_of(dataclasses.replace(made_up.BASE, name=name)).short_name == short
