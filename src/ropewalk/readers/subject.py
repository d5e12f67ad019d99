"""What is examined: a directory with its config, its tokenizer's config and its adapter's, as far as they are there.

in   `hemp`, a directory or a hub id
out  a `Subject`; or the sentence why there is nothing to examine
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.families import instead_of_rope
from ropewalk.checkpoint.family import FULL_LAYERS
from ropewalk.checkpoint.files import ADAPTER_CONFIG, read_config, read_json
from ropewalk.checkpoint.hub import locate
from ropewalk.checkpoint.position_table import PositionTable, read_table
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.checkpoint.window import NOTHING_SAID, Answers, WindowQuestion
from ropewalk.errors import Unsupported, UserError
from ropewalk.readers.reader import BAD_VALUES, Reader, model_type_of
from ropewalk.readers.rules import READERS, readers_called
from ropewalk.rope.rope import InvFreq


@dataclass(frozen=True, eq=False)
class Subject:
    """A model directory as its JSON files describe it.

    Attributes:
        checkpoint: config and weights; an adapter's own directory, if it carries a config.
        tokenizer_config, adapter: the dictionaries of tokenizer_config.json and adapter_config.json; empty if there is none.
        fetched: whether it is a hub model of which only the small files were fetched.
        named_readers: the readers that it is examined for, as `doctor --for` names them; none is all.
    """

    checkpoint: Checkpoint
    tokenizer_config: dict[str, Any]
    adapter: dict[str, Any]
    fetched: bool = False
    named_readers: tuple[str, ...] = ()

    @classmethod
    def open(cls, name: str | Path, answers: Answers = NOTHING_SAID, *, named_readers: tuple[str, ...] = ()) -> Subject:
        """Read the JSON files of a model; of a hub model, nothing but the small files is fetched.

        Raises:
            UserError: no such model, no config.json, or one that cannot be read; answers that contradict it.
        """
        path = locate(name, weights=False)
        adapter = (path / ADAPTER_CONFIG).is_file() and not (path / "config.json").is_file()
        checkpoint = Checkpoint(str(name), path, {} if adapter else _config(path), answers=answers)
        fetched = not Path(name).exists() and str(name) != "hemp"
        subject = replace(cls.of(checkpoint), fetched=fetched, named_readers=named_readers)
        if answers != NOTHING_SAID and subject.rope_error:
            unanswered = replace(subject, checkpoint=replace(checkpoint, answers=NOTHING_SAID))
            if not unanswered.rope_error:
                raise UserError(subject.rope_error)
        return subject

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Subject:
        """A checkpoint that is open already, with what its tokenizer and an adapter say of themselves.

        Raises:
            UserError: one of their files is no JSON object.
        """
        path = checkpoint.path
        return cls(checkpoint, _json(path / "tokenizer_config.json"), _json(path / ADAPTER_CONFIG))

    @property
    def path(self) -> Path:
        """The directory."""
        return self.checkpoint.path

    @property
    def readers(self) -> dict[str, Reader]:
        """The readers that it is examined for."""
        return readers_called(self.named_readers)

    @property
    def config(self) -> dict[str, Any]:
        """The dictionary of config.json."""
        return self.checkpoint.config

    @property
    def text(self) -> dict[str, Any]:
        """Its section of the language model."""
        return self.checkpoint.text_config

    @property
    def block(self) -> dict[str, Any]:
        """The `ropewalk` block; empty in a config of another tool."""
        block = self.config.get("ropewalk")
        return block if isinstance(block, dict) else {}

    @property
    def family(self) -> str:
        """The config's model_type."""
        return model_type_of(self.text)

    @cached_property
    def instead_of_rope(self) -> str:
        """What the model has in place of RoPE; empty where it has RoPE."""
        return str(self.table or "") or instead_of_rope(self.text, self.family)

    @cached_property
    def table(self) -> PositionTable | None:
        """The learned table of positions that the config describes; None where it has none, or one that cannot be."""
        try:
            return read_table(self.config)
        except (UserError, *BAD_VALUES):
            return None

    @cached_property
    def rope(self) -> RopeConfig | None:
        """What ropewalk reads in the config; None where it cannot, for `rope_error`."""
        return self._read[0]

    @cached_property
    def rope_error(self) -> str:
        """Why ropewalk cannot read the config's RoPE; empty where it can."""
        return str(self._read[1])

    @property
    def unsupported(self) -> bool:
        """Whether nothing need be wrong with the model, which is of a kind that ropewalk does not extend."""
        return isinstance(self._read[1], Unsupported)

    @cached_property
    def _read(self) -> tuple[RopeConfig | None, UserError | str]:
        if self.table is not None:
            return None, ""
        if not isinstance(self.config.get("ropewalk") or {}, dict):
            return (
                None,
                f"a ropewalk block is an object, got {self.config['ropewalk']!r:.40}; run `ropewalk extend` again",
            )
        try:
            READERS["transformers 5"].keys(self.config)
        except ValueError as error:  # before anything is computed of heads that would fill the memory
            return None, f"{error}; mend its config.json"
        except BAD_VALUES:
            pass  # read_rope has a better sentence
        try:
            length, answers = self.tokenizer_config.get("model_max_length"), self.checkpoint.answers
            length = length if isinstance(length, int) else None
            return read_rope(self.config, answers=answers, tokenizer_length=length), ""
        except UserError as error:
            return None, error
        except BAD_VALUES as error:
            return None, f"the config's keys of RoPE cannot be read ({error!r:.80}); mend its config.json"

    @property
    def window(self) -> int | None:
        """Tokens that the model is meant for, if its config settles it."""
        return self.rope.window if self.rope and self.question is None else None

    @property
    def question(self) -> WindowQuestion | None:
        """What the config leaves open of its windows, or says and may not mean."""
        return (self.rope.question or self.rope.doubt) if self.rope else None

    @property
    def scaled(self) -> bool:
        """Whether the config scales RoPE in any way that shows in it."""
        return bool(self.rope and self.rope.scaling.method != "plain")

    @cached_property
    def dynamic(self) -> bool:
        """Whether the rotation follows the length of each input, so that there is no one closed form."""
        try:
            return READERS["transformers 5"].keys(self.config).rope_type == "dynamic"
        except BAD_VALUES:
            return False

    @cached_property
    def closed_form(self) -> InvFreq | None:
        """The inv_freq that the layers with the whole window ought to have; transformers 5's where ropewalk cannot read the config."""
        five = READERS["transformers 5"]
        if self.dynamic:
            return None
        if self.rope is None or five.refusal(self.config):
            return five.inv_freq(self.config)
        try:
            tables = self.rope.inv_freq()
        except UserError:
            return None
        return tables.get(FULL_LAYERS, tables.get(""))


def _config(path: Path) -> dict[str, Any]:
    ggufs = sorted(path.glob("*.gguf"))
    if ggufs and not (path / "config.json").exists():
        raise UserError(
            f"{path} has no config.json, but a GGUF file; name the file: ropewalk doctor {shlex.quote(str(ggufs[0]))}"
        )
    return read_config(path)


def _json(path: Path) -> dict[str, Any]:
    return read_json(path, what=f"{path.name} is a JSON file") if path.is_file() else {}
