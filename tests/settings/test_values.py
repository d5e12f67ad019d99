"""Every field of every settings class refuses what it cannot hold, and takes what means the same: numpy's numbers, arrays, paths as bytes."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest

import ropewalk
from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.settings.chat import GenerateSettings
from ropewalk.settings.command import Settings, fields
from ropewalk.settings.export import ExportSettings
from ropewalk.settings.extend import ExtendSettings
from ropewalk.settings.measure import PerplexitySettings, RetrievalSettings
from ropewalk.settings.train import TrainSettings
from ropewalk.settings.values import Range, kind_of
from ropewalk.settings.written_numbers import minutes

ROOMS = Path(ropewalk.__file__).parent / "settings"
for _path in ROOMS.glob("[a-z]*.py"):
    importlib.import_module(f"ropewalk.settings.{_path.stem}")


def _below(settings: type) -> Iterator[type]:
    for each in settings.__subclasses__():
        yield each
        yield from _below(each)


#: Every settings class; those that `ropewalk.cli.parse` makes of them for tyro are unchecked on purpose.
CLASSES = sorted(
    {each for each in _below(Settings) if each.__module__.startswith("ropewalk.settings")},
    key=lambda each: each.__name__,
)
EVERY = [(settings, field.name) for settings in CLASSES for field in fields(settings)]
#: Of no use to any field.
NONSENSE = [
    object(),
    {},
    [],
    (),
    [None],
    [[]],
    math.nan,
    -1.5,
    b"",
    "",
    " ",
    "a\0b",
    10**30,
    -(10**30),
    1j,
    len,
    int,
    {1: 2},
    b"\0",
    ["a", 3],
]
#: What all the same has a meaning: no sentences at all, any dictionary.
MEANT = {"left_out": ([], ()), "change": ({}, {1: 2}), "hear": (len,)}
#: For what has to be given.
GIVEN: dict[str, Any] = {
    "window": 512,
    "model": "m",
    "data": "d",
    "test": "t",
    "out": "o",
    "records": ["r"],
    "adapter": "a",
    "watch": ["perplexity"],
    "watch_data": "d",
    "reader": "vllm",
    "readers": ["vllm"],
    "accept": ["config.json"],
    "repository": "me/mine",
}
NUMPY = {int: np.int64, float: np.float32}


def _is_list(settings: type, name: str) -> bool:
    hint = get_type_hints(settings)[name]
    return any(get_origin(part) is Sequence for part in (hint, *get_args(hint)))


def _made(settings: type, **values: Any) -> Any:
    known = {field.name for field in fields(settings)}
    needed = {name: value for name, value in GIVEN.items() if name in known}
    if settings is GenerateSettings and not values.get("prompt"):
        needed["text"] = "t"
    return settings(**needed | values)


def _parts(hint: Any) -> Iterator[Any]:
    """A type and all it is made of; what is `Annotated` comes with its annotations."""
    yield hint
    for part in get_args(hint)[:1] if get_origin(hint) is Annotated else get_args(hint):
        yield from _parts(part)


def _parts_of(settings: type, name: str) -> list[Any]:
    return list(_parts(get_type_hints(settings, include_extras=True)[name]))


@pytest.mark.parametrize(("settings", "name"), EVERY, ids=lambda each: getattr(each, "__name__", each))
def test_nonsense_is_refused_in_a_sentence_that_names_the_option(settings: type, name: str) -> None:
    for value in NONSENSE:
        if any(value is meant or (value == meant and type(value) is type(meant)) for meant in MEANT.get(name, ())):
            continue
        with pytest.raises(UserError) as refused:
            _made(settings, **{name: value})
        sentence = str(refused.value)
        assert sentence.startswith(f"{name.replace('_', '-')} is ") and "; " in sentence
        assert "\n" not in sentence and len(sentence) < 400


def test_every_number_has_a_range_and_holds_its_ends() -> None:
    for settings, name in EVERY:
        for part in _parts_of(settings, name):
            if part not in (int, float):
                continue
            (limits,) = [
                each
                for each in _parts_of(settings, name)
                if get_origin(each) is Annotated and get_args(each)[0] is part
            ]
            (found,) = [each for each in get_args(limits)[1:] if isinstance(each, Range)]
            for end, outside in ((found.least, found.above), (found.most, found.below)):
                assert math.isfinite(end) and (end in found) is not outside, (settings, name)


@pytest.mark.parametrize(("settings", "name"), EVERY, ids=lambda each: getattr(each, "__name__", each))
def test_a_number_beyond_its_range_is_refused_and_numpys_is_taken(settings: type, name: str) -> None:
    for part in _parts_of(settings, name):
        if get_origin(part) is not Annotated or get_args(part)[0] not in NUMPY:
            continue
        kind = get_args(part)[0]
        (found,) = [each for each in get_args(part)[1:] if isinstance(each, Range)]
        for value in (
            found.least - 1,
            found.most * 2 + 1,
            str(found.most),
            True,
            None if getattr(settings, name, 0) is not None else "",
        ):
            with pytest.raises(UserError, match=f"^{name.replace('_', '-')} is .*{found.least:.10g}"):
                _made(settings, **{name: value})
        middle = NUMPY[kind](
            found.least + min(1, found.most - found.least) * (1 if kind is int else 0.5) + (found.least > 0)
        )
        # Taken beside other options only.
        alone = ("chunk_window", "longce", "longce_stride", "longce_most", "keep", "lora_rank", "lora_alpha")
        cuts_window = name == "max_tokens" and "window" in {field.name for field in fields(settings)}
        if name in alone or cuts_window or _is_list(settings, name):  # a list of them
            continue
        held = getattr(_made(settings, **{name: middle}), name)
        assert type(held) is kind and held == middle


@pytest.mark.parametrize(("settings", "name"), EVERY, ids=lambda each: getattr(each, "__name__", each))
def test_a_word_that_is_no_choice_is_refused_and_the_choices_are_named(settings: type, name: str) -> None:
    choices = [get_args(part) for part in _parts_of(settings, name) if get_origin(part) is Literal]
    for words in choices:
        for value in ("bogus", f"{words[0]}x", f"{words[0]}/", 0):
            with pytest.raises(UserError, match=f"is .*one of {', '.join(map(str, words))}.*got .*; ."):
                _made(settings, **{name: value})


def test_words_are_taken_in_any_capitals_and_with_any_sign_between_their_parts() -> None:
    """Each of all choices, and none of them is another's spelling."""
    for words in {get_args(part) for each in EVERY for part in _parts_of(*each) if get_origin(part) is Literal}:
        bare = [str(word).upper().replace("-", "_").replace(".", "") for word in words]
        assert len(set(bare)) == len(bare)
        for word in words if words[0] != 4 else ():
            typed = f" {word.replace('-', '_').replace('.', '-').swapcase()}"
            assert kind_of(Literal[words]).take(typed) == word
    assert ExportSettings("m", reader="LLAMA-CPP", out="o").reader == "llama.cpp"  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize(
    ("typed", "method"),
    [("PI", "linear"), ("Linear", "linear"), ("Position Interpolation", "linear"), ("position_interpolation", "linear"), ("YaRN", "yarn"),
     ("NTK", "ntk"), ("ntk-aware", "ntk"), ("NTK_aware", "ntk"), ("ABF", "abf"), ("LongRoPE", "longrope"), ("long-rope", "longrope"),
     ("su", "longrope"), ("Llama-3", "llama3"), ("llama3.1", "llama3"), ("Auto", "auto")],
)  # fmt: skip
def test_a_method_is_taken_by_its_usual_names(typed: str, method: str) -> None:
    assert ExtendSettings("m", window=512, out="o", method=typed).method == method  # pyrefly: ignore[bad-argument-type]
    assert TrainSettings("m", data="d", window=512, out="o", method=typed).method == method  # pyrefly: ignore[bad-argument-type]


@pytest.mark.parametrize(
    ("typed", "near"), [("dynamic", "ntk"), ("Dynamic-NTK", "ntk"), ("ntk-by-parts", "yarn"), ("YRAN", "yarn")]
)
def test_a_method_that_is_in_doubt_is_refused_with_the_near_one(typed: str, near: str) -> None:
    with pytest.raises(UserError, match=f"got '{typed}'; did you mean {near}?"):
        ExtendSettings("m", window=512, out="o", method=typed)  # pyrefly: ignore[bad-argument-type]


def test_each_of_several_words_is_checked() -> None:
    assert RetrievalSettings("m", families=("keys", "chain")).families == ["keys", "chain"]
    assert RetrievalSettings("m", families=["chain", "keys", "chain"]).families == [
        "chain",
        "keys",
    ]  # not counted twice
    with pytest.raises(UserError, match=r"families is .*keys, values, lookalikes, chain, got \['keys', 'lock'\]"):
        RetrievalSettings("m", families=["keys", "lock"])  # pyrefly: ignore[bad-argument-type]


def test_what_means_the_same_is_taken() -> None:
    import torch

    settings = PerplexitySettings(
        b"m", data=(Path("a"), b"b"), windows=np.array([64, 128]), seed=np.array(3), tolerance=Fraction(1, 4)
    )
    assert (settings.model, settings.data, settings.windows) == ("m", [Path("a"), "b"], [64, 128])
    assert PerplexitySettings(PurePosixPath("m"), data="a").model == "m"  # any object that stands for a path
    assert all(type(window) is int for window in settings.windows) and settings.tolerance == 0.25
    assert PerplexitySettings("m", data=np.array(["a", "b"])).data == ["a", "b"]
    assert PerplexitySettings("m", data=(Document("a", "b"),) * 2).data == [Document("a", "b")] * 2
    assert PerplexitySettings("m", data="d", dtype=torch.float32, device=torch.device("cpu")).dtype is torch.float32
    assert TrainSettings("m", data="d", window=512, out="o", resume=np.bool_(True)).resume is True


def test_a_model_in_memory_is_kept_as_it_is() -> None:
    model, tokenizer = testing.tiny(), testing.byte_tokenizer()
    settings = PerplexitySettings(model, data="d", tokenizer=tokenizer)
    assert settings.model is model and settings.tokenizer is tokenizer


@pytest.mark.parametrize("path", ["a" * 256, "b/" + "ä" * 128, "a/" * 2100, Path("c" * 300)])
def test_a_path_longer_than_any_file_system_takes_is_refused(path: str | Path) -> None:
    with pytest.raises(UserError, match="^out is a path"):
        PerplexitySettings("m", data="d", out=path)


@pytest.mark.parametrize(("word", "number"), [("5", 5), ("0.5", 0.5), ("5m", 5), ("1.5h", 90), ("1e-3", 0.001)])
def test_minutes_are_written_as_people_write_them(word, number):
    assert minutes(word) == number
    for wrong in ("5x", "", "h", "five"):
        with pytest.raises(ValueError, match="as in 5, 0.5, 5m or 1h"):
            minutes(wrong)
