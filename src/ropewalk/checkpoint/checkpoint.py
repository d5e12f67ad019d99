"""A checkpoint, opened once and handed on: what it is called, where it lies, what its config and its headers say.

in   `hemp`, a local directory or a hub id
out  a `Checkpoint`. Its config.json is parsed when it is opened; its RoPE and its headers are read once, when first asked for
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
import math
import os
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.class_defaults import text_type
from ropewalk.checkpoint.digests import PARSED, decides, digest_of
from ropewalk.checkpoint.files import read_config, read_json, strange_config
from ropewalk.checkpoint.headers import INDEX, SINGLE, WeightFiles, tensors, weight_files, weight_headers
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.layers import LayerLayout
from ropewalk.checkpoint.model_card import README, base_in, called
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.position_table import Positions, read_table
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.rope_config import RopeConfig, text_section
from ropewalk.checkpoint.steps import outrun
from ropewalk.checkpoint.tensor_problems import Problem, tensor_problems
from ropewalk.checkpoint.window import NOTHING_SAID, Answers
from ropewalk.errors import UserError

_logger = logging.getLogger(__name__)


@cache
def _warn_once(sentence: str) -> None:
    """A command may open a checkpoint several times, as a rehearsal does for its plan."""
    _logger.warning(sentence)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A checkpoint on disk. No weight is read.

    Attributes:
        name: as the user named it.
        path: its directory.
        config: the dictionary of its config.json; not to be changed.
        weights_of: the checkpoint whose weights these are, where this one is the same model under another config.
        answers: what the user said of its windows, where the config leaves them open.
        trust_remote_code: whether the user trusts the model code that comes with it; whoever loads it or what is made of it asks here.
    """

    name: str
    path: Path
    config: dict[str, Any]
    weights_of: Checkpoint | None = None
    answers: Answers = NOTHING_SAID
    trust_remote_code: bool = False

    @classmethod
    def open(
        cls,
        name: str | Path | Checkpoint,
        *,
        trust_remote_code: bool = False,
        pickles: bool = False,
        current_window: int | None = None,
        original_window: int | None = None,
    ) -> Checkpoint:
        """Find a checkpoint and parse its config; one that is open already is returned as it is.

        Args:
            name: `hemp`, a local directory, a hub id, or a checkpoint.
            trust_remote_code: run the code that comes with it, and fetch that of a hub model too.
            pickles: fetch its pickled weights where it has no others.
            current_window, original_window: what it reads now and what it was pretrained at, tokens, if its config leaves that open.

        Raises:
            UserError: nothing of that name, or no config.json that can be read.
        """
        answers = Answers(current_window, original_window)
        if isinstance(name, Checkpoint):
            return name._told(answers, trust_remote_code)
        path = locate(name, trust_remote_code=trust_remote_code, pickles=pickles)
        config = read_config(path)
        if later := outrun(path):
            _warn_once(later)
        return cls(str(name), path, config, answers=answers, trust_remote_code=trust_remote_code)

    def open_base(self, name: str | Path | Checkpoint) -> Checkpoint:
        """The model that this one was made from: the original window of both is the same, where its own config leaves it open."""
        base = Checkpoint.open(name, trust_remote_code=self.trust_remote_code)
        if read_table(base.config) is not None:
            return base
        open_windows = read_rope(base.config, answers=base.answers).question
        return base if open_windows is None else Checkpoint.open(base, original_window=self.info.original_window)

    def made_into(self, directory: Path | str) -> Checkpoint:
        """What was made of it, opened: its windows are those of this one, where its own config leaves them open."""
        windows = {"current_window": self.info.window, "original_window": self.info.original_window}
        return Checkpoint.open(directory, trust_remote_code=self.trust_remote_code, **windows)

    def _told(self, answers: Answers, trust_remote_code: bool) -> Checkpoint:
        """The same checkpoint with what was said later; what was read of its files is not read again."""
        if answers in (self.answers, NOTHING_SAID) and trust_remote_code <= self.trust_remote_code:
            return self
        answered = copy.copy(self)
        object.__setattr__(answered, "trust_remote_code", trust_remote_code or self.trust_remote_code)
        if answers != NOTHING_SAID:
            object.__setattr__(answered, "answers", answers)
            for name in ("_rope", "rope", "positions", "info"):
                answered.__dict__.pop(name, None)
        return answered

    def with_config(self, config: dict[str, Any]) -> Checkpoint:
        """The same weights under another config, which lies on no disk yet."""
        return Checkpoint(self.name, self.path, config, weights_of=self, trust_remote_code=self.trust_remote_code)

    def at(self, path: Path) -> Checkpoint:
        """The same checkpoint by way of links in another directory; what was read of it is not read again."""
        linked = copy.copy(self)
        object.__setattr__(linked, "path", path)
        return linked

    @cached_property
    def rope(self) -> RopeConfig:
        """What the config says of RoPE; a second length that settled its windows is logged.

        Raises:
            UserError: see `read_rope`; or the config leaves its windows open, and nobody said what they are.
        """
        reading = self._rope
        if reading.window_key:
            before = "" if reading.window == reading.rope.window else f", interpolated from {reading.rope.window}"
            _logger.info(
                "%s: its %s says that the window is %d%s", self.name, reading.window_key, reading.window, before
            )
        return reading.answered()

    @property
    def readings(self) -> list[Checkpoint]:
        """The checkpoint by each reading of its windows that the config leaves open; itself where it settles them. Raises as `rope`."""
        question = None if read_table(self.config) is not None else self._rope.question
        if question is None:
            return [self]
        answers = [Answers(windows.window, windows.original) for windows in question.readings]
        return [self._told(each, self.trust_remote_code) for each in answers]

    def quietly(self) -> Checkpoint:
        """Itself, with `rope` read and nothing logged of it: for whoever says in words of his own what settled its windows."""
        if read_table(self.config) is None:
            self.__dict__["rope"] = self._rope.answered()
        return self

    @cached_property
    def _rope(self) -> RopeConfig:
        """What the config says of RoPE, and of its windows what the tokenizer says where the config leaves them open."""
        with strange_config(self.name):
            if (table := read_table(self.config)) is not None:
                raise UserError(
                    f"{self.name} has no rotation to look at, but {table}: it can be extended, trained and measured, while theory, attention "
                    "and export are about RoPE (every reader takes a longer table as it is) and plan counts the weights of RoPE families alone; "
                    "choose a RoPE model (Llama, Mistral, Qwen, …)"
                )
            reading = read_rope(self.config, answers=self.answers)
            if reading.question is not None:
                reading = read_rope(self.config, answers=self.answers, tokenizer_length=self._tokenizer_length)
            return reading

    @cached_property
    def positions(self) -> Positions:
        """How the model knows positions: its RoPE, or its learned table; raises as `rope`."""
        with strange_config(self.name):
            return read_table(self.config) or self.rope

    @property
    def _tokenizer_length(self) -> int | None:
        """The tokenizer's model_max_length; None where there is none that can be read."""
        try:
            length = read_json(self.path / "tokenizer_config.json", what="a tokenizer has a tokenizer_config.json")
        except UserError:
            return None
        return length["model_max_length"] if isinstance(length.get("model_max_length"), int) else None

    @cached_property
    def layers(self) -> LayerLayout:
        """Which decoder layers rotate, which slide and how far they reach.

        Raises:
            UserError: see `read_layers`.
        """
        with strange_config(self.name):
            return read_layers({**self.text_config, "model_type": text_type(self.config)})

    @property
    def text_config(self) -> dict[str, Any]:
        """The part of the config that describes the language model."""
        return text_section(self.config)

    @cached_property
    def files(self) -> WeightFiles:
        """Which files the weights are read from: transformers' rule.

        Raises:
            UserError: pickled weights only, no weights, a missing shard, an index that cannot be used.
        """
        return self.weights_of.files if self.weights_of is not None else weight_files(self.path, self.config)

    @cached_property
    def headers(self) -> dict[str, dict[str, Any]]:
        """The header of each of `files`, by its name; every file was found whole.

        Raises:
            UserError: as `files`; a truncated or damaged file.
        """
        return self.weights_of.headers if self.weights_of is not None else weight_headers(self.path, self.files)

    @property
    def weight_files(self) -> list[Path]:
        """The safetensors files; raises as `headers`."""
        return [self.path / name for name in self.headers]

    @property
    def has_weights(self) -> bool:
        """Whether there are safetensors to read; a config.json alone is enough for a plan."""
        return any((self.path / name).is_file() for name in (SINGLE, INDEX)) or "transformers_weights" in self.config

    def tensor_problems(self) -> list[Problem]:
        """What headers, index, config and tokenizer show to be wrong; raises as `headers`."""
        with strange_config(self.name):
            return tensor_problems(self)

    @cached_property
    def parameters(self) -> int:
        """How many weights the files hold; raises as `headers`."""
        return sum(math.prod(entry["shape"]) for header in self.headers.values() for _, entry in tensors(header))

    @cached_property
    def dtypes(self) -> frozenset[str]:
        """The dtypes of the weights, in safetensors' words (BF16, F16, F32, …); raises as `headers`."""
        return frozenset(entry["dtype"] for header in self.headers.values() for _, entry in tensors(header))

    @cached_property
    def info(self) -> ModelInfo:
        """The model as records name it; 0 parameters where the weights are missing or damaged."""
        try:
            parameters = self.parameters
        except UserError:
            parameters = 0
        is_extended_here = self.weights_of is not None
        base = called(self.name, self.path) if is_extended_here else base_in(self.path / README)
        return info_of(self.positions, name=self.name, parameters=parameters, base=base)

    @cached_property
    def fingerprint(self) -> str:
        """Short name of the whole: config, tokenizer and every weight; the same for the same ones, wherever they lie. Raises as `headers`."""
        others = [
            (path.name, digest_of(path))
            for path in sorted(self.path.iterdir())
            if path.is_file() and path.name not in PARSED and decides(path.name)
        ]
        return hashlib.sha256(json.dumps([self.config, self._weights, others], sort_keys=True).encode()).hexdigest()[
            :16
        ]

    @cached_property
    def weights_fingerprint(self) -> str:
        """As `fingerprint`, of the weights alone: the same of a model and of its extensions. Raises as `headers`."""
        return hashlib.sha256(" ".join(self._weights).encode()).hexdigest()[:16]

    @cached_property
    def _weights(self) -> list[str]:
        """The digest of every file of weights."""
        return [digest_of(file) for file in self.weight_files]

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return self.name


#: By what a function's caller may name a model.
ModelName = str | Path | Checkpoint
