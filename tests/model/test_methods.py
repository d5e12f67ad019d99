"""Every method of extension as a user has it: what plain transformers computes from the new checkpoint, and what training makes of it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import ropewalk
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import read_config
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.evals import factor_search
from ropewalk.evals.loaded import fingerprint, open_model
from ropewalk.model.extend import extend, extended_config
from ropewalk.model.load import load_model
from ropewalk.model.verify import pin_rope, verify_rope
from ropewalk.rope.scaling import Dynamic, Factors, Linear, Llama3, LongRope, Yarn
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.scaling import ScalingOptions
from ropewalk.settings.train import TrainSettings
from ropewalk.training.setup import trained_checkpoint

WINDOW, LONGER = 64, 256
DOCUMENTS = [Document("a", testing.prose(300))]
#: One number a pair of the tiny models' heads of 16.
VECTOR = [1.0, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 4.0]
SHORT = [1.0, 1.0, 1.0, 1.0, 1.25, 1.5, 1.5, 2.0]
THETA = [10000.0 ** (-2 * j / 16) for j in range(8)]


def by_ramp(first: int, last: int) -> list[float]:
    return [
        (1 - ramp) * theta + ramp * theta / 4
        for ramp, theta in ((min(max((j - first) / (last - first), 0), 1), theta) for j, theta in enumerate(THETA))
    ]


# 32 turns in 64 tokens: no pair. 1 turn: pair 16 ln(64 / 2 pi) / (2 ln 10000) = 2.016, rounded up to 3.
YARN = by_ramp(0, 3)
#: Method and parameters → inv_freq past the original window and attention factor, by hand; the scaling that is read back.
METHODS: dict[str, tuple[dict[str, Any], list[float], float]] = {
    "pi": ({"method": "pi"}, [theta / 4 for theta in THETA], 1.0),
    "yarn": ({"method": "yarn"}, YARN, 0.1 * math.log(4) + 1),
    "yarn, temperature 0.25": ({"method": "yarn", "temperature": 0.25}, YARN, 2.0),
    # 1 and 4 turns in 64 tokens: theta = 2 pi / 64 = 0.098 and 0.393; pair 1 (0.316) lies in between.
    "llama3": (
        {"method": "llama3"},
        [
            1.0,
            THETA[1] * (kept := (64 * THETA[1] / (2 * math.pi) - 1) / 3) + THETA[1] / 4 * (1 - kept),
            THETA[2] * (kept := (64 * THETA[2] / (2 * math.pi) - 1) / 3) + THETA[2] / 4 * (1 - kept),
            *(theta / 4 for theta in THETA[3:]),
        ],
        1.0,
    ),
    "factors": ({"method": "factors", "factors": VECTOR}, [t / f for t, f in zip(THETA, VECTOR, strict=True)], 1.0),
    "longrope": (
        {"method": "longrope", "factors": {"short_factor": SHORT, "long_factor": VECTOR}},
        [t / f for t, f in zip(THETA, VECTOR, strict=True)],
        math.sqrt(1 + math.log(4) / math.log(64)),
    ),
    "proportional": ({"method": "proportional", "rotated_share": 0.5}, [t / 4 for t in THETA[:4]] + [0.0] * 4, 1.0),
    "NoPE": ({"method": "proportional", "rotated_share": 0.0}, [0.0] * 8, 1.0),
}


def options(name: str, directory: Path) -> dict[str, Any]:
    """The options of a method; two lists are given as a file, as on the command line."""
    given = dict(METHODS[name][0])
    if isinstance(given.get("factors"), dict):
        (directory / "factors.json").write_text(json.dumps(given["factors"]))
        given["factors"] = str(directory / "factors.json")
    return given


def ids(n: int) -> torch.Tensor:
    return torch.randint(0, testing.BYTE_VOCABULARY, (1, n), generator=torch.Generator().manual_seed(0))


def plain(directory: Path) -> transformers.PreTrainedModel:
    return transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()


def logits(model: Any, length: int) -> torch.Tensor:
    with torch.no_grad():
        return model(ids(length)).logits


def by_hand(directory: Path, turns: list[float], attention: float, length: int) -> torch.Tensor:
    """Logits of the unextended model, whose cosines and sines are computed here instead of by transformers."""
    model = plain(directory)
    angles = np.outer(np.arange(length), turns)
    angles = np.concatenate([angles, angles], axis=1)[None]
    tables = tuple(torch.tensor(attention * f(angles), dtype=torch.float32) for f in (np.cos, np.sin))
    model.model.rotary_emb.forward = lambda x, position_ids: tables
    return logits(model, length)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return testing.tiny_directory(tmp_path_factory.mktemp("base") / "llama", window=WINDOW)


@pytest.mark.parametrize("name", METHODS)
def test_plain_transformers_computes_the_method(name: str, base: Path, tmp_path: Path) -> None:
    _, turns, attention = METHODS[name]
    info = extend(base, window=LONGER, out=tmp_path / "longer", **options(name, tmp_path))
    assert (info.original_window, info.window, info.factor) == (WINDOW, LONGER, 4.0)
    extended = logits(plain(tmp_path / "longer"), LONGER)
    # Theirs are float32 phases: 256 radians x 6e-8 = 1.5e-5 at the fastest pair.
    torch.testing.assert_close(extended, by_hand(base, turns, attention, LONGER), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(extended, logits(plain(base), LONGER), atol=1e-3)
    # Loading, pinning, saving: the same scaling, the same tables.
    model = load_model(tmp_path / "longer")
    pin_rope(model)
    torch.testing.assert_close(logits(model, LONGER), extended, rtol=1e-4, atol=1e-4)
    verify_rope(model)  # after a long input too, which leaves LongRoPE another table
    assert Checkpoint.open(tmp_path / "longer").rope.scaling == info.scaling


@pytest.mark.parametrize(
    ("family", "weights", "words"),
    [
        (
            "deepseek_v3",
            dict(mscale=1.0, mscale_all_dim=1.0),
            "mscale_all_dim, by which YaRN multiplied all scores by 1.296",
        ),
        ("llama", {}, "YaRN multiplied them by 1.296, factors by 1"),
    ],
)
def test_a_temperature_that_goes_with_the_scaling_that_had_it_is_said(family, weights, words, caplog):
    """(0.1 ln 4 + 1)^2 = 1.2965: eq. 22 of YaRN, and DeepSeek's yarn_get_mscale squared."""
    yarn = dict(rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16)
    config = testing.tiny_config(family, rope_parameters=yarn | weights).to_dict()
    checkpoint = Checkpoint("made up", Path(), config)
    extended_config(checkpoint, window=256, options=ScalingOptions(method="factors", factors=[2.0] * 8))
    assert words in caplog.text
    caplog.clear()
    extended_config(checkpoint, window=256, options=ScalingOptions(method="yarn"))
    assert not caplog.text


def test_longrope_turns_by_its_short_factors_inside_the_original_window(base: Path, tmp_path: Path) -> None:
    extend(base, window=LONGER, out=tmp_path / "longer", **options("longrope", tmp_path))
    turns = [theta / factor for theta, factor in zip(THETA, SHORT, strict=True)]
    short = by_hand(base, turns, METHODS["longrope"][2], WINDOW)
    torch.testing.assert_close(logits(plain(tmp_path / "longer"), WINDOW), short, rtol=1e-4, atol=1e-4)


#: What a Phi-3 config can say, as factors and the windows' ratio alone.
ON_PHI3 = ["pi", "llama3", "factors", "longrope"]


@pytest.mark.parametrize("name", [*ON_PHI3, "yarn, temperature 1"])
def test_phi_3_has_every_method_that_leaves_attention_as_factors(name: str, tmp_path: Path) -> None:
    a = testing.tiny_directory(tmp_path / "a", "phi3", window=WINDOW)
    given = {"method": "yarn", "temperature": 1.0} if name not in METHODS else options(name, tmp_path)
    turns, attention = (YARN, 1.0) if name not in METHODS else METHODS[name][1:]
    info = extend(a, window=LONGER, out=tmp_path / "b", **given)
    extended = logits(plain(tmp_path / "b"), LONGER)
    torch.testing.assert_close(extended, by_hand(a, turns, attention, LONGER), rtol=1e-4, atol=1e-4)
    legacy = read_config(tmp_path / "b")["rope_scaling"]
    assert legacy.keys() == {"type", "short_factor", "long_factor"}, "v4's Phi-3 takes these three alone"
    again = Checkpoint.open(tmp_path / "b").rope
    assert (again.scaling, again.window, again.rope.window) == (info.scaling, LONGER, WINDOW)


def test_phi_3_refuses_what_its_config_cannot_say(tmp_path: Path) -> None:
    a = testing.tiny_directory(tmp_path / "a", "phi3", window=WINDOW)
    for given in ({"method": "yarn"}, {"method": "proportional", "rotated_share": 0.5}):
        with pytest.raises(UserError, match="Phi-3 config can say neither .* yarn with --temperature 1"):
            extend(a, window=LONGER, out=tmp_path / "b", **given)


def test_p_rope_is_refused_where_only_a_part_of_each_head_turns(tmp_path: Path) -> None:
    a = testing.tiny_directory(tmp_path / "a", "gpt_neox", window=WINDOW)
    with pytest.raises(UserError, match="share of whole heads, and this model rotates 4 of 16 coordinates"):
        extend(a, window=LONGER, out=tmp_path / "b", method="proportional", rotated_share=0.5)


def test_r2_readers_that_would_leave_the_scaling_out_are_named(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    a = testing.tiny_directory(tmp_path / "a", "gpt_neox", window=WINDOW)
    with caplog.at_level("WARNING", "ropewalk"):
        extend(base, window=LONGER, method="linear", out=tmp_path / "llama")
        assert not caplog.records
        extend(a, window=LONGER, method="linear", out=tmp_path / "neox")
    assert "llama.cpp, mlx would leave the scaling of this model out" in caplog.text


def test_verify_compares_the_attention_factor(base: Path, tmp_path: Path) -> None:
    extend(base, window=LONGER, out=tmp_path / "longer", method="yarn")
    model = load_model(tmp_path / "longer")
    model.model.rotary_emb.attention_scaling = 1.0  # as a reader that forgets it
    with pytest.raises(UserError, match=r"weigh attention as its config says: .* by 1, but yarn .* has 1\.13863"):
        verify_rope(model)


def test_parameters_are_on_record_and_kept_by_a_second_extension(base: Path, tmp_path: Path) -> None:
    extend(base, window=128, out=tmp_path / "b", method="yarn", beta_fast=16.0, temperature=0.9)
    info = extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="auto")
    assert info.scaling == Yarn(4.0, beta_fast=16.0, temperature=0.9)
    history = read_config(tmp_path / "c")["ropewalk"]["history"]
    assert (history[0]["beta_fast"], history[0]["temperature"]) == (16.0, 0.9) and "beta_fast" not in history[1]
    with pytest.raises(UserError, match="has the parameters of the first; leave them out"):
        extend(tmp_path / "b", window=LONGER, out=tmp_path / "d", method="yarn", beta_slow=2.0)


def test_factors_take_the_place_of_any_scaling(base: Path, tmp_path: Path) -> None:
    extend(base, window=128, out=tmp_path / "b", method="ntk")
    info = extend(tmp_path / "b", window=LONGER, out=tmp_path / "c", method="factors", factors=VECTOR)
    assert info.scaling == Factors(4.0, tuple(VECTOR)) and info.rope_theta == 10000.0
    further = extend(tmp_path / "c", window=512, out=tmp_path / "d", method="auto")
    assert further.scaling == Factors(8.0, tuple(2 * factor for factor in VECTOR))


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
#: How other tools scale a model: changes of a config.json whose window is 64, and the window that comes of it.
FOREIGN: dict[str, tuple[dict[str, Any], int]] = {
    "llama3": (
        {"max_position_embeddings": 512, "rope_scaling": LLAMA3 | {"original_max_position_embeddings": 64}},
        512,
    ),
    "yarn": (
        {
            "max_position_embeddings": 256,
            "rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "finetuned": True},
        },
        256,
    ),
    "vicuna": ({"max_sequence_length": 256, "rope_scaling": {"type": "linear", "factor": 4.0}}, 256),
    "longrope": (
        {
            "max_position_embeddings": 256,
            "original_max_position_embeddings": 64,
            "rope_scaling": {"type": "longrope", "short_factor": SHORT, "long_factor": VECTOR},
        },
        256,
    ),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 4.0}}, 256),
}
SCALINGS = {
    "llama3": Llama3(8.0, 1.0, 4.0, 64),
    "yarn": Yarn(4.0),
    "vicuna": Linear(4.0),
    "longrope": LongRope(4.0, tuple(SHORT), tuple(VECTOR)),
    "dynamic": Dynamic(4.0),
}


def foreign(name: str, base: Path, out: Path) -> Path:
    """A model scaled by another tool, in v4's spelling."""
    testing.tiny_directory(out, window=WINDOW)
    config = read_config(out)
    del config["rope_parameters"]
    (out / "config.json").write_text(json.dumps(config | {"rope_theta": 10000.0} | FOREIGN[name][0]))
    return out


def train(model: Path, out: Path, window: int, **given: Any) -> Any:
    settings = dict(data=DOCUMENTS, window=window, steps=1, batch_size=1, warmup=0, out=out)
    return ropewalk.train(model, **settings | given)


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_model_is_measured_at_its_own_window(name: str, base: Path, tmp_path: Path) -> None:
    model = foreign(name, base, tmp_path / "a")
    found = Checkpoint.open(model).rope
    assert (found.scaling, found.rope.window, found.window) == (SCALINGS[name], WINDOW, FOREIGN[name][1])
    rows = ropewalk.perplexity(model, data=DOCUMENTS, stride=64)
    assert rows[0].window == FOREIGN[name][1]


@pytest.mark.parametrize("name", ["longrope", "dynamic"])
def test_what_was_read_last_does_not_make_another_model_of_one(name: str, base: Path, tmp_path: Path) -> None:
    loaded = open_model(foreign(name, base, tmp_path / "a"))
    before = fingerprint(loaded)
    short, long = logits(loaded.model, WINDOW), logits(loaded.model, LONGER)
    assert fingerprint(loaded) == before
    torch.testing.assert_close(logits(loaded.model, WINDOW), short, rtol=0, atol=0)
    torch.testing.assert_close(logits(loaded.model, LONGER), long, rtol=0, atol=0)
    for length, measured in ((WINDOW, short), (LONGER, long)):  # a fresh model has read nothing before
        torch.testing.assert_close(measured, logits(plain(tmp_path / "a"), length), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", [name for name in FOREIGN if name != "dynamic"])
def test_r9_training_at_a_models_own_window_works_whatever_its_scaling(name: str, base: Path, tmp_path: Path) -> None:
    model, window = foreign(name, base, tmp_path / "a"), FOREIGN[name][1]
    info = train(model, tmp_path / "b", window)
    assert (info.scaling, info.window, info.original_window, info.steps) == (SCALINGS[name], window, WINDOW, 1)
    loaded = load_model(tmp_path / "b")  # which verifies
    assert read_rope(loaded.config.to_dict()).scaling == SCALINGS[name]
    again = train(tmp_path / "b", tmp_path / "c", window)
    assert again.scaling == SCALINGS[name]


@pytest.mark.parametrize(("name", "factor"), [("llama3", 16.0), ("yarn", 8.0), ("vicuna", 8.0)])
def test_r9_auto_goes_on_with_the_method_the_model_has(name: str, factor: float, base: Path, tmp_path: Path) -> None:
    model, window = foreign(name, base, tmp_path / "a"), FOREIGN[name][1]
    info = extend(model, window=2 * window, out=tmp_path / "b", method="auto")
    assert info.method == SCALINGS[name].method and info.factor == factor
    assert (info.original_window, info.window) == (WINDOW, 2 * window)


def test_r6_a_foreign_yarn_model_is_extended_without_a_question(base: Path, tmp_path: Path) -> None:
    model = foreign("yarn", base, tmp_path / "a")
    assert extend(model, window=512, out=tmp_path / "b", method="yarn").scaling == Yarn(8.0)


def test_factors_that_depend_on_length_are_not_trained_over_devices_that_share_a_window(
    base: Path, tmp_path: Path
) -> None:
    given = dict(data="books", window=LONGER, out=tmp_path / "b", cp=2)
    with pytest.raises(UserError, match="LongRoPE has others for short inputs; use --cp 1, or --factors"):
        trained_checkpoint(TrainSettings(base, **given, **options("longrope", tmp_path)))
    trained_checkpoint(TrainSettings(base, **given, **options("factors", tmp_path)))


def test_dynamic_ntk_is_refused_for_training_and_the_way_out_works(base: Path, tmp_path: Path) -> None:
    model = foreign("dynamic", base, tmp_path / "a")
    told = "is measured, and neither trained nor extended: .*changes with the length of each input.* take the scaling out of its"
    for window in (256, 512):
        with pytest.raises(UserError, match=told):
            train(model, tmp_path / "b", window, method="auto")
    with pytest.raises(UserError, match=told):
        extend(model, window=512, out=tmp_path / "b")
    with pytest.raises(UserError, match=told):
        factor_search._searchable(read_rope(read_config(model)), 512)
    config = read_config(model) | {"rope_scaling": None}
    (model / "config.json").write_text(json.dumps(config))
    assert extend(model, window=512, out=tmp_path / "b").factor == 8.0


def test_a_longrope_model_made_longer_asks_for_factors(base: Path, tmp_path: Path) -> None:
    model = foreign("longrope", base, tmp_path / "a")
    with pytest.raises(UserError, match="longrope scaling needs --factors"):
        extend(model, window=512, out=tmp_path / "b", method="auto")
    info = extend(model, window=512, out=tmp_path / "b", method="longrope", factors=[2 * factor for factor in VECTOR])
    assert info.factor == 8.0 and info.original_window == WINDOW


@pytest.mark.parametrize(
    ("factors", "sentence"),
    [
        ("nowhere.json", "nowhere.json cannot be read"),
        (["1", "x"], "a JSON file, or a finite number above 0 for each pair, got"),
        ([1.0, math.nan], "a JSON file, or a finite number above 0 for each pair, got"),
    ],
)
def test_factors_that_cannot_be_read_are_refused(factors: Any, sentence: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=sentence):
        extend(base, window=LONGER, out=tmp_path / "b", method="factors", factors=factors)


def test_factors_are_the_same_from_words_and_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "factors.json").write_text(json.dumps(VECTOR))
    given: list[Any] = [VECTOR, [str(x) for x in VECTOR], tmp_path / "factors.json", [str(tmp_path / "factors.json")]]
    for factors in given:
        settings = ExtendSettings("hemp", window=LONGER, out=tmp_path / "b", method="factors", factors=factors)
        assert settings.parameters == {"factors": VECTOR}


@pytest.mark.parametrize("method", ["pi", "yarn", "llama3", "factors"])
@pytest.mark.parametrize("named", [True, False])
def test_a_head_size_that_no_class_derives_is_written(method: str, named: bool, tmp_path: Path) -> None:
    """Mixtral's published configs name no head_dim, or null, which stops transformers 5's functions of yarn, longrope and llama3."""
    base = testing.tiny_directory(tmp_path / "base", "mixtral", head_dim=None)
    config = read_config(base)
    assert config["head_dim"] is None
    if not named:
        del config["head_dim"]
    (base / "config.json").write_text(json.dumps(config))
    options: dict[str, Any] = {"factors": VECTOR} if method == "factors" else {}
    extend(base, window=LONGER, method=method, out=tmp_path / "longer", **options)
    assert read_config(tmp_path / "longer")["head_dim"] == 16
    load_model(tmp_path / "longer")


def test_hunyuans_alpha_is_the_rope_theta_of_pretraining(tmp_path: Path) -> None:
    """A dynamic scaling with an alpha is the same at every length; the oracle is transformers' own rotary module."""
    scaling = {"rope_type": "dynamic", "type": "dynamic", "alpha": 1000.0, "factor": 1.0, "rope_theta": 10000.0}
    base = testing.tiny_directory(tmp_path / "base", "hunyuan_v1_dense", rope_parameters=scaling)
    rope = Checkpoint.open(base).rope
    assert rope.scaling.method == "plain" and rope.rope.rope_theta == pytest.approx(1e4 * 1000 ** (16 / 14))
    original = load_model(base)  # verified: transformers' inv_freq is the closed form
    extend(base, window=LONGER, method="linear", out=tmp_path / "longer")
    longer = load_model(tmp_path / "longer")
    ids = torch.arange(1, 50)[None]
    at = torch.arange(49)[None]
    with torch.no_grad():
        before, after = original(ids, position_ids=at).logits, longer(ids, position_ids=4 * at).logits
    torch.testing.assert_close(after, before, rtol=0, atol=1e-5)
    assert not any(
        row.inv_freq_differs for row in ropewalk.doctor(base).readers
    )  # and every reader's rule has the alpha
    rows = {row.reader: row for row in ropewalk.doctor(tmp_path / "longer").readers}
    assert not rows["vllm"].inv_freq_differs and rows["mlx"].refusal


def test_auto_takes_yarn_and_where_a_config_cannot_say_it_the_nearest(tmp_path: Path) -> None:
    for family, method in (("llama", "yarn"), ("phi3", "llama3")):  # of a learned table: test_position_table.py
        base = testing.tiny_directory(tmp_path / family, family, window=WINDOW)
        assert extend(base, window=LONGER, out=tmp_path / f"{family}-longer").method == method
        assert Checkpoint.open(tmp_path / f"{family}-longer").info.window == LONGER
    with pytest.raises(UserError, match="a Phi-3 config can say neither"):
        extend(tmp_path / "phi3", window=LONGER, method="yarn", out=tmp_path / "asked")
