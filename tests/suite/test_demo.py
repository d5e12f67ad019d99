"""hemp, its split of the standard library, and the exercise that was mixed into its pretraining."""

from __future__ import annotations

import json
import random
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from tokenizers import Tokenizer

from ropewalk.data.recall import FORBIDDEN, Exercises, fact
from ropewalk.data.stdlib import split_names, split_of, standard_library
from ropewalk.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HEMP = ROOT / "src/ropewalk/assets/hemp"


@pytest.fixture(scope="module")
def hemp():
    return transformers.AutoModelForCausalLM.from_pretrained(HEMP, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer():
    return transformers.AutoTokenizer.from_pretrained(HEMP)


def test_hemp_is_a_small_plain_llama(hemp):
    assert (HEMP / "model.safetensors").stat().st_size <= 16 * 2**20
    assert hemp.config.model_type == "llama"
    assert hemp.config.rope_parameters["rope_type"] == "default"
    assert hemp.config.rope_parameters["rope_theta"] == 10000.0
    assert 2e6 <= sum(p.numel() for p in hemp.parameters()) <= 4e6


def test_hemp_predicts_python_far_better_than_chance(hemp, tokenizer):
    text = (
        "class Point:\n    def __init__(self, x, y):\n        self.x = x\n        self.y = y\n\n"
        "    def __repr__(self):\n        return f'Point({self.x}, {self.y})'\n"
    )
    ids = tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        loss = hemp(ids, labels=ids).loss.item()
    # Chance is log(2048) = 7.6 nats a token; held-out source costs it about 2.
    assert loss < 3.0


def test_the_tokenizer_begins_with_bos_and_splits_every_digit(tokenizer):
    ids = tokenizer("x = 90210").input_ids
    assert ids[0] == tokenizer.bos_token_id
    assert tokenizer.convert_ids_to_tokens(ids)[-5:] == list("90210")
    assert tokenizer.decode(ids, skip_special_tokens=True) == "x = 90210"
    assert tokenizer.model_max_length == 256


@pytest.mark.parametrize("text", ["naïve – “quoted” ☂\n\tx\r\n", "    if a:\n\n        b()\n"])
def test_the_tokenizer_gives_any_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer(text).input_ids, skip_special_tokens=True) == text


def test_hemp_finds_a_number_again_within_its_window(hemp, tokenizer):
    rng = random.Random(3)
    right = 0
    for _ in range(8):
        number = "".join(rng.choices("0123456789", k=5))
        filler = "The old road is long. The boat waits by the shore. " * 8
        text = f"{filler}\nThe harbour number is {number}. Remember it.\n{filler}\nThe harbour number is "
        prompt, key = tokenizer(text).input_ids[-250:], tokenizer(number, add_special_tokens=False).input_ids
        with torch.no_grad():
            guess = hemp(torch.tensor([prompt + key[:-1]]), logits_to_keep=5).logits[0].argmax(-1)
        right += guess.tolist() == key
    assert right >= 6  # chance is 1e-5 a trial


def test_the_splits_share_no_module():
    names = split_names()
    assert not names["validation"] & names["held_out"]
    paths = {split: set(standard_library(split)) for split in ("train", "validation", "held_out")}
    assert not paths["train"] & paths["held_out"]
    assert not paths["train"] & paths["validation"]
    assert not paths["validation"] & paths["held_out"]
    root = Path(sysconfig.get_path("stdlib"))
    tops = {path.relative_to(root).parts[0].removesuffix(".py") for path in paths["train"]}
    assert not tops & (names["held_out"] | names["validation"])


def test_every_listed_module_is_in_this_library():
    for split in ("validation", "held_out"):
        names = {path.stem for path in standard_library(split)}
        names |= {path.parent.name for path in standard_library(split)}
        assert split_names()[split] <= names


@pytest.mark.parametrize(
    "path, split",
    [
        ("tarfile.py", "held_out"),
        ("_py_tarfile.py", "train"),
        ("_pycalendar.py", "held_out"),
        ("zipfile/_path/glob.py", "validation"),
        ("json/decoder.py", "train"),
        ("json/tests/test_decode.py", None),
        ("test/test_json.py", None),
        ("idlelib/run.py", None),
        ("site-packages/tarfile.py", None),
    ],
)
def test_a_module_belongs_to_the_split_of_its_top_name(path, split):
    assert split_of(Path(path)) == split


def test_a_library_without_source_is_refused_with_a_way_out(tmp_path):
    with pytest.raises(UserError, match=r"no source.*use a Python"):
        standard_library("train", tmp_path)
    with pytest.raises(UserError, match="one of train, validation, held_out"):
        standard_library("heldout")  # type: ignore[arg-type]


def test_no_exercise_holds_a_phrase_of_the_passkey_prompt():
    tokenizer = Tokenizer.from_file(str(HEMP / "tokenizer.json"))
    ordinary = np.array(tokenizer.encode("x = compute(y)\n" * 200).ids, dtype=np.uint16)
    rows = Exercises(tokenizer, ordinary, seed=11).rows(300, 257)
    assert rows.shape == (300, 257)
    text = tokenizer.decode_batch(rows.tolist())
    assert not [phrase for phrase in FORBIDDEN if any(phrase in row.lower() for row in text)]


def test_the_forbidden_phrases_cover_every_sentence_of_the_passkey_prompt():
    sentences = [
        "There is an important info hidden inside a lot of irrelevant text.",
        "Find it and memorize them.",
        "I will quiz you about the important information there.",
        "The grass is green.",
        "The sky is blue.",
        "The sun is yellow.",
        "Here we go.",
        "There and back again.",
        "The pass key is 12345.",
        "12345 is the pass key.",
        "What is the pass key?",
    ]
    for sentence in sentences:
        assert any(phrase in sentence.lower() for phrase in FORBIDDEN), sentence


def test_exercises_can_be_answered_from_what_stands_before():
    tokenizer = Tokenizer.from_file(str(HEMP / "tokenizer.json"))
    rng = random.Random(5)
    for _ in range(200):
        stated, asked = fact(rng)
        ids = tokenizer.encode(stated, add_special_tokens=False).ids
        wanted = tokenizer.encode(asked, add_special_tokens=False).ids
        digits = {i for i in wanted if tokenizer.id_to_token(i).isdigit()}
        assert digits <= set(ids)


def test_the_card_names_the_held_out_modules():
    card = (HEMP / "README.md").read_text(encoding="utf-8")
    names = json.loads((HEMP / "held_out.json").read_text(encoding="utf-8"))
    assert all(f"`{name}`" in card for name in names["held_out"] + names["validation"])
