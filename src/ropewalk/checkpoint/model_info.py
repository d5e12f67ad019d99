"""Which model was measured and how it is scaled: what every record's header says of it.

in   a config's RoPE, a name, a count of weights
out  a `ModelInfo`, and the dictionary that JSON has for it
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from ropewalk.checkpoint.position_table import Positions
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.errors import UserError
from ropewalk.rope.scaling import Plain, Rope, Scaling, from_dict, to_dict
from ropewalk.sentences import counted


@dataclass(frozen=True)
class ModelInfo:
    """A model as records name it.

    Attributes:
        name: as the user named it.
        family: the config's `model_type`.
        original_window, window: tokens; before any extension, and now.
        scaling: in force now, with all its parameters; `Plain()` for a base model.
        rope_theta, head_dim: the RoPE base as pretrained, and the number of rotated coordinates of a head; both 0 where
            positions are learned and nothing rotates.
        parameters: weights, counted once where tied; 0 if not known without loading.
        steps: fine-tuning steps taken since the extension (0: not trained).
        fingerprint: of the whole, config, tokenizer and every weight; empty where the weights were not asked for.
        base: what an extended model was made from is called; empty of any other, and where nothing says it.
        earlier_steps: fine-tuning steps taken at windows before the present one.
        steps_before: those taken at the present window by trainings before the last.
    """

    name: str
    family: str
    original_window: int
    window: int
    scaling: Scaling = Plain()
    rope_theta: float = 10000.0
    head_dim: int = 0
    parameters: int = 0
    steps: int = 0
    fingerprint: str = ""
    base: str = ""
    earlier_steps: int = 0
    steps_before: int = 0

    @property
    def method(self) -> str:
        """The scaling's word in configs, records and on the command line."""
        return self.scaling.method

    @property
    def factor(self) -> float:
        """By how much the scaling stretches; 1 for a base model."""
        return float(self.scaling.factor)

    @property
    def all_steps(self) -> int:
        """Fine-tuning steps on record of all its trainings."""
        return self.earlier_steps + self.steps_before + self.steps

    @property
    def trained(self) -> str:
        """The steps of the last training and what they were on top of, in words."""
        return f"{counted(self.steps, 'step')}{f' more, on top of {self.earlier}' if self.earlier else ''}"

    @property
    def earlier(self) -> str:
        """On top of which steps the last training was, in words; empty of the first."""
        counts = {"at shorter windows": self.earlier_steps, "at this window": self.steps_before}
        return " and ".join(f"{counted(steps, 'step')} {where}" for where, steps in counts.items() if steps)

    @property
    def rope(self) -> Rope:
        """The rotary embedding as pretrained.

        Raises:
            UserError: nothing is known to rotate (`head_dim` 0).
        """
        if not self.head_dim:
            raise UserError(
                f"the theory is about rotations, and {self.name}, a {self.family} model, has none on record; choose a RoPE model"
            )
        return Rope(self.head_dim, self.rope_theta, self.original_window)

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON has them; the scaling as `rope.scaling.to_dict` writes it; earlier steps where there are any."""
        fields = {**asdict(self), "scaling": to_dict(self.scaling)}
        return {key: fields[key] for key in fields if fields[key] or key not in ("earlier_steps", "steps_before")}

    @classmethod
    def from_dict(cls, entry: dict[str, Any]) -> ModelInfo:
        """The model that `to_dict` wrote.

        Raises:
            UserError: a scaling that does not exist.
            TypeError: fields that are not a model's.
        """
        fields = dict(entry)
        if "scaling" in fields:
            fields["scaling"] = from_dict(fields["scaling"])
        return cls(**fields)


def info_of(
    positions: Positions, *, name: str, parameters: int = 0, steps: int | None = None, base: str = ""
) -> ModelInfo:
    """What a config says of positions, as records have it. `steps`: the `ropewalk` block's if not given."""
    rope = positions.rope if isinstance(positions, RopeConfig) else None
    *past, last = [int(extension.get("steps", 0)) for extension in positions.block.get("history", [])] or [0]
    return ModelInfo(
        name=name,
        family=positions.family,
        original_window=positions.original_window,
        window=positions.window,
        scaling=positions.scaling,
        rope_theta=rope.rope_theta if rope else 0.0,
        head_dim=rope.head_dim if rope else 0,
        parameters=parameters,
        steps=int(positions.block.get("steps", 0)) if steps is None else steps,
        base=base,
        earlier_steps=sum(past),
        steps_before=last,
    )
