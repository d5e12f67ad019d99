"""What a Hugging Face config.json says of RoPE, as one value: `RopeConfig`. read_rope.py reads it, write_rope.py writes it back."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ropewalk.checkpoint.family import FULL_LAYERS
from ropewalk.checkpoint.window import WindowDoubt, WindowQuestion
from ropewalk.errors import UserError
from ropewalk.rope.scaling import InvFreq, Rope, Scaling


@dataclass(frozen=True)
class RopeConfig:
    """What a config says of RoPE.

    Attributes:
        family: `model_type` of the text model.
        rope: the rotary embedding as pretrained (rotated coordinates, rope_theta, original window).
        scaling: what is in force now, relative to `rope`.
        window: tokens the model is meant for now.
        unscaled: by layer type, the RoPE of layers that have an unscaled one of their own (Gemma 3's sliding layers).
        block: the `ropewalk` block, empty in a config that ropewalk did not write.
        question: what the config leaves open of its windows; `rope.window` and `window` are then one reading of several.
        window_key: what settled which window the model has, where max_position_embeddings alone does not say it: a second length of
            the config, its class's default, or the factor on an original window that it names; else empty.
        doubt: what the config says of its windows and may not mean, which `doctor` asks about; commands go by what it says.
        named_twice: what the config names in two places with two values, in a sentence; empty where it says one thing.
    """

    family: str
    rope: Rope
    scaling: Scaling
    window: int
    unscaled: dict[str, Rope] = field(default_factory=dict)
    block: dict[str, Any] = field(default_factory=dict)
    question: WindowQuestion | None = None
    window_key: str = ""
    doubt: WindowDoubt | None = None
    named_twice: str = ""

    @property
    def original_window(self) -> int:
        """Tokens, before any extension."""
        return self.rope.window

    def answered(self) -> RopeConfig:
        """Itself, once nothing is open.

        Raises:
            UserError: the question, with its answers as options; or what the config says in two ways.
        """
        if self.named_twice:
            raise UserError(self.named_twice)
        if self.question is not None:
            raise UserError(str(self.question))
        return self

    def inv_freq(self, length: int | None = None) -> dict[str, InvFreq]:
        """Closed-form inv_freq by layer type, float64 (rotated / 2,); "" stands for a model with one RoPE for all layers.

        length: of the input, tokens, on which dynamic NTK and LongRoPE depend; the whole window if not given.
        """
        scaled = self.scaling.inv_freq(self.rope) if length is None else self.scaling.inv_freq_at(self.rope, length)
        return {self.scaled_layers: scaled} | {
            layer_type: rope.inv_freq() for layer_type, rope in self.unscaled.items()
        }

    @property
    def scaled_layers(self) -> str:
        """The type of the layers whose RoPE is scaled; "" where all have one."""
        return FULL_LAYERS if self.unscaled else ""

    @property
    def turns_by_length(self) -> bool:
        """Whether short inputs are rotated in another way than long ones, as with LongRoPE's two lists."""
        return not np.array_equal(self.inv_freq(1)[self.scaled_layers], self.inv_freq()[self.scaled_layers])

    def attention_factor(self, layer_type: str = "") -> float:
        """What queries and keys of a layer type are multiplied by beside their rotation."""
        return 1.0 if layer_type in self.unscaled else self.scaling.attention_factor(self.rope)

    def __str__(self) -> str:
        return f"{self.scaling.method} with factor {self.scaling.factor:g} on rope_theta {self.rope.rope_theta:g}"


def text_section(config_dict: dict[str, Any]) -> dict[str, Any]:
    """The part of a config that describes the language model: the whole, or `text_config` in a multimodal one."""
    section = config_dict.get("text_config")
    return section if isinstance(section, dict) else config_dict
