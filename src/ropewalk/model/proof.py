"""The proof that an extension does what it says, on a small random copy of the user's own config, each time a model is extended.

in   a checkpoint under its config before and after
out  nothing, if positions that are `factor` times as far give what they gave before, and the same positions something else

`verify` holds the model's rotary tables against the closed form; this holds what the layers do with them. A model that ignores its
tables (Falcon with ALiBi), or rotates in other layers than checkpoint/read_layers.py says, is found here whatever its family.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.layers import DecoderLayer, LayerLayout
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.errors import UserError
from ropewalk.model.layers import decoder_layers
from ropewalk.model.small import SEEN, no_copy, small_config, small_model
from ropewalk.model.verify import verify_rope
from ropewalk.rope.scaling import Linear

#: Tokens of the sequence, and the farthest position: far enough for slow pairs, near enough for float32 phases (1e-4 radians).
_TOKENS, _FARTHEST = 3 * SEEN, 1024
#: Of what scaling changes, how much may be left where it should change nothing. Rounding leaves up to 1e-3 of it, another rotation all.
_LEFT = 0.02
#: What counts as a change, in standard deviations: 0.01 and more where layers rotate, 0.0 where they do not.
_MOVED = 1e-4


def prove(before: Checkpoint, after: Checkpoint, *, code: str | None = None) -> None:
    """Run the proof. Of both checkpoints only the configs are looked at.

    Args:
        before, after: without and with the last extension of the history in the config.
        code: directory of trusted model code, for a family that transformers does not have.

    Raises:
        UserError: the extension does not do what it says, or no small copy could be made; the family is named.
    """
    rope_config, step = after.rope, after.config["ropewalk"]["history"][-1]
    base, extended = (small_model(each.config, code=code) for each in (before, after))
    extended.load_state_dict(base.state_dict())
    try:
        verify_rope(extended, rope_config)
    except UserError as error:
        raise _unlike(rope_config.family, f"does not rotate as its new config says ({error})") from error
    layout = read_layers(small_config({**before.text_config, "model_type": rope_config.family}, code=code))
    is_linear = step["method"] == Linear.method and float(step["factor"]).is_integer()
    # LongRoPE is scaled past the original window only, so other methods are looked at over the whole new one.
    farthest = min(step["from"], _FARTHEST) if is_linear else step["to"]
    positions = torch.linspace(0, farthest - 1, _TOKENS).long().unique()
    try:
        before_at, after_at = _outputs(base, positions), _outputs(extended, positions)
    except UserError:
        raise
    except Exception as error:  # whatever keeps a family's own code from running
        raise no_copy(rope_config.family, error) from error
    _hold_layout(base, layout, positions, before_at, rope_config.family)
    _hold_scaled(layout, before_at, after_at, rope_config.family)
    if is_linear:
        stretched = _outputs(extended, positions * int(step["factor"]))
        _hold_stretched(layout, before_at, after_at, stretched, rope_config.family)


def _hold_layout(model: Any, layout: LayerLayout, positions: Tensor, outputs: list[Tensor], family: str) -> None:
    """Raises UserError where other layers rotate, or slide, than checkpoint/read_layers.py says."""
    apart, another_first = _outputs(model, 3 * positions), _outputs(model, positions, first=1)
    for index, (layer, near, far, other) in enumerate(zip(layout.layers, outputs, apart, another_first, strict=False)):
        if (_largest(near, far) > _MOVED) != layer.rotates:
            does = "does not rotate" if layer.rotates else "rotates"
            raise _unlike(family, f"{_name(index, layer)} {does}, unlike what its family is known for")
        # Not to the last bit: experts sum their tokens in other orders where the first ones went elsewhere.
        sees_all = _typical(near[..., 2 * SEEN :, :], other[..., 2 * SEEN :, :]) > _MOVED
        if layer.attends and sees_all != (layer.reach is None):
            does = "sees the whole window" if sees_all else "sees a part of the window only"
            raise _unlike(family, f"{_name(index, layer)} {does}, unlike what its family is known for")


def _hold_scaled(layout: LayerLayout, before: list[Tensor], after: list[Tensor], family: str) -> None:
    """Raises UserError where scaling changes other layers than it should, or not the logits."""
    for index, (layer, *pair) in enumerate(zip(layout.layers, before, after, strict=False)):
        if (changed := _largest(*pair) > _MOVED) != _is_scaled(layer, layout):
            does = "is changed by a scaling that is not its own" if changed else "is not changed by the scaling"
            raise _unlike(family, f"{_name(index, layer)} {does}")
    if _largest(before[-1], after[-1]) <= _MOVED:
        raise _unlike(family, "gives the same logits with and without the scaling, so nothing would be extended")


def _hold_stretched(
    layout: LayerLayout, before: list[Tensor], after: list[Tensor], stretched: list[Tensor], family: str
) -> None:
    """Raises UserError where position factor x m of the extended copy is not what m was."""
    layers = [
        *layout.layers,
        *([] if layout.own_rope else [None]),
    ]  # sliding layers with a RoPE of their own enter the logits
    for index, layer in enumerate(layers):
        left, moved = _typical(before[index], stretched[index]), _typical(before[index], after[index])
        if (layer is None or _is_scaled(layer, layout)) and left > _LEFT * moved:
            name = "" if layer is None else f"{_name(index, layer)} "
            raise _unlike(
                family, f"{name}differs by {left:.2g} where Position Interpolation leaves everything as it was"
            )


def _is_scaled(layer: DecoderLayer, layout: LayerLayout) -> bool:
    return layer.rotates and layer.kind not in layout.own_rope


def _name(index: int, layer: DecoderLayer) -> str:
    return f"(layer {index}, {layer.kind})"


def _unlike(family: str, what: str) -> UserError:
    return UserError(
        f"each extension is proved on a small random copy of the model, and this copy of a {family} model {what}; choose another "
        "family, or open an issue with the config.json"
    )


def _differences(one: Tensor, other: Tensor) -> Tensor:
    """By how much outputs [..., tokens, width] differ at each token, in standard deviations."""
    return (one - other).abs().amax(-1).flatten(0, -2).amax(0) / one.std()


def _largest(one: Tensor, other: Tensor) -> float:
    return float(_differences(one, other).max())


def _typical(one: Tensor, other: Tensor) -> float:
    """Of the token in the middle, so that one whose expert changed by rounding decides nothing."""
    return float(_differences(one, other).median())


@torch.inference_mode()
def _outputs(model: Any, positions: Tensor, *, first: int = 0) -> list[Tensor]:
    """What each decoder layer makes of the same made-up states at given positions, then the logits for made-up tokens.

    first: seed of what is added to the first tokens' states.
    """
    outputs: list[Tensor] = []
    with _independent(decoder_layers(model), outputs, first):
        _logits(model, positions)
    return [*outputs, _logits(model, positions)]


def _logits(model: Any, positions: Tensor) -> Tensor:
    """A mask is given, or transformers would take gaps in positions for several documents."""
    ids = (torch.arange(len(positions)) * 7 + 1)[None] % model.config.vocab_size
    output = model(input_ids=ids, position_ids=positions[None], attention_mask=torch.ones_like(ids), use_cache=False)
    return (output.logits if hasattr(output, "logits") else output.last_hidden_state).double()


@contextmanager
def _independent(layers: list[nn.Module], outputs: list[Tensor], first: int) -> Iterator[None]:
    """While the block runs every layer reads the same made-up states, so that none passes on what another did, and is noted."""

    def read(_: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        states = args[0] if args else kwargs["hidden_states"]
        made_up = torch.randn(states.shape, generator=torch.Generator().manual_seed(2))
        made_up[..., :SEEN, :] += torch.randn(states.shape[-1], generator=torch.Generator().manual_seed(first))
        return ((made_up, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": made_up})

    def note(_: Any, __: Any, output: Any) -> None:
        outputs.append((output[0] if isinstance(output, tuple) else output).double())

    hooks = [layer.register_forward_pre_hook(read, with_kwargs=True) for layer in layers]
    hooks += [layer.register_forward_hook(note) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
