"""Whether a checkpoint's tensors are those of the model that its config describes, and whether they are numbers.

in   a model, and what transformers' loader said of the tensors it read
out  problems, a sentence each (checkpoint/tensor_problems.py has those that files show without loading)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.headers import tensors
from ropewalk.checkpoint.quantisation import quantisation_said
from ropewalk.checkpoint.tensor_problems import Problem, listed, several, several_are
from ropewalk.errors import UserError

#: Buffers that older checkpoints hold and every model computes: rotary tables and causal masks. Beside transformers' own list, which it
#: leaves out of what it reports (`_keys_to_ignore_on_load_unexpected` of each family).
_COMPUTED = re.compile(r"rotary_emb\.(inv_freq|cos_cached|sin_cached)$|(^|\.)(attn|attention)\.(masked_)?bias$")

#: Published models have one to three.
_MOST_PREDICTORS = 64


def misfits(model: nn.Module, report: dict[str, Any], checkpoint: Checkpoint) -> list[Problem]:
    """What does not fit between a model and the tensors it was loaded from.

    Args:
        model: transformers'; on the meta device it costs nothing.
        report: what `from_pretrained(…, output_loading_info=True, ignore_mismatched_sizes=True)` returned beside it.
        checkpoint: the tensors' files.
    """
    problems, name = [], str(checkpoint)
    missing, mismatched = sorted(report["missing_keys"]), sorted(report["mismatched_keys"])
    if missing:
        problems.append(
            Problem(
                "missing tensors",
                f"{name} lacks {several(missing)} that its config asks for ({listed(missing)}), and a model with random parts would be "
                "of no use; fetch the checkpoint again, or mend its config",
                stops=True,
            )
        )
    if mismatched:
        tensor, stored, wanted = mismatched[0]
        problems.append(
            Problem(
                "mismatched shapes",
                f"the config of {name} asks for other shapes of {several(mismatched)}: {tensor} is {_shape(stored)} in the file and "
                f"{_shape(wanted)} by the config; mend the config, or fetch both again",
                stops=True,
            )
        )
    problems += _no_weights(model, checkpoint)
    is_aside = _on_purpose(model, checkpoint)  # transformers may report experts by the name under which it joins them
    unexpected = {each for each in report["unexpected_keys"] if not is_aside(each)}
    return problems + _without_a_place(model, unexpected, name) + _said_aside(left_out(model, checkpoint), name)


def _no_weights(model: nn.Module, checkpoint: Checkpoint) -> list[Problem]:
    """Whole numbers or truth values in the place of weights, which transformers takes for them as they stand."""
    if quantisation_said(checkpoint):
        return []
    weights = _with_and_without_prefix(
        model, ((name, weight) for name, weight in model.named_parameters() if weight.is_floating_point())
    )
    stored = {name: entry["dtype"] for header in checkpoint.headers.values() for name, entry in tensors(header)}
    odd = sorted(name for name in weights & stored.keys() if stored[name].startswith(("I", "U", "BOOL")))
    if not odd:
        return []
    sentence = (
        f"weights are fractions, but {several_are(odd)} stored in {checkpoint} as {stored[odd[0]]} ({listed(odd)}), and its config does not say what they "
        "stand for; fetch the config that they were quantised with, or the model they were made from"
    )
    return [Problem("whole numbers for weights", sentence, stops=True)]


def left_out(model: nn.Module, checkpoint: Checkpoint) -> set[str]:
    """Tensors of a checkpoint that transformers has no place for on purpose: layers that predict several tokens at once, mostly."""
    there, is_aside = _with_and_without_prefix(model, model.named_parameters()), _on_purpose(model, checkpoint)
    stored = {name for header in checkpoint.headers.values() for name, _ in tensors(header)}
    return {name for name in stored - there if not _COMPUTED.search(name) and is_aside(name)}


def computed_buffers(checkpoint: Checkpoint) -> list[str]:
    """Tensors of a checkpoint that every model computes, and older programs stored."""
    return sorted(
        name for header in checkpoint.headers.values() for name, _ in tensors(header) if _COMPUTED.search(name)
    )


def _on_purpose(model: nn.Module, checkpoint: Checkpoint) -> Callable[[str], bool]:
    """Whether a tensor without a place is left out on purpose.

    By the family's own list, which names layers that predict several tokens by the number that they have in one published size; by the
    config, which says how many follow the last layer; and by their name. Not where the model has the part that a pattern names: layer 46
    of the larger GLM-4.5 is one of its own.
    """
    patterns = [*(getattr(model, "_keys_to_ignore_on_load_unexpected", None) or ()), *_predictors(checkpoint)]
    modules = _with_and_without_prefix(model, model.named_modules())

    def is_aside(name: str) -> bool:
        nearest = f"{_nearest(name, modules)}."
        return any(re.search(each, name) and not re.search(each, nearest) for each in patterns)

    return is_aside


def _with_and_without_prefix(model: nn.Module, named: Iterable[tuple[str, Any]]) -> set[str]:
    """Names as the model has them, and as files of its base model do (GPT-2's on the hub)."""
    names, prefix = {name for name, _ in named}, getattr(model, "base_model_prefix", "")
    return names | {name.removeprefix(f"{prefix}.") for name in names}


def _predictors(checkpoint: Checkpoint) -> Iterator[str]:
    layers, more = (checkpoint.text_config.get(key) for key in ("num_hidden_layers", "num_nextn_predict_layers"))
    yield r"(^|\.)mtp(_\w+)?\."
    if isinstance(layers, int) and isinstance(more, int):
        yield from (rf"(^|\.)layers\.{layer}\." for layer in range(layers, layers + min(more, _MOST_PREDICTORS)))


def _said_aside(aside: set[str], name: str) -> list[Problem]:
    if not aside:
        return []
    sentence = (
        f"transformers leaves {several(aside)} of {name} out of its model ({listed(sorted(aside))}; layers that predict several tokens "
        "at once, mostly): they are neither used nor trained, and stand as they are in every checkpoint that is made from it"
    )
    return [Problem("tensors left out", sentence)]


def _without_a_place(model: nn.Module, unexpected: Iterable[str], name: str) -> list[Problem]:
    """Tensors inside a part that the model has, or among its layers, change what it computes; a part of their own does not."""
    modules = {module for module, _ in model.named_modules()}
    whole = {"", getattr(model, "base_model_prefix", "")}
    inside, beside = [], []
    for key in sorted(key for key in unexpected if not _COMPUTED.search(key)):
        (beside if _nearest(key, modules) in whole else inside).append(key)
    rule, problems = f"the model that the config of {name} describes has no place for", []
    if inside:
        sentence = (
            f"{rule} {several(inside)} of its files ({listed(inside)}), and without them it computes something else; fetch the config that "
            "these weights came with, or mend it"
        )
        problems.append(Problem("tensors without a place", sentence, stops=True))
    if beside:
        sentence = f"{rule} {several(beside)} of its files ({listed(beside)}); they are not used, and what is trained from it will not have them"
        problems.append(Problem("tensors without a place", sentence))
    return problems


def _nearest(key: str, modules: set[str]) -> str:
    """The innermost module of a model that a tensor of this name would lie in."""
    parts = key.split(".")[:-1]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def _shape(shape: Iterable[int]) -> str:
    return " × ".join(map(str, shape))


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or an infinity; each is read once, and a GPU is waited for once."""
    checked = [
        (name, value.detach())
        for name, value in tensors
        if value.is_floating_point() and value.numel() and value.itemsize > 1
    ]
    flags = [torch.stack(torch.aminmax(value)).isfinite().all() for _, value in checked if not value.is_meta]
    names = [name for name, value in checked if not value.is_meta]
    return (
        [
            name
            for name, fine in zip(names, torch.stack([flag.cpu() for flag in flags]).tolist(), strict=True)
            if not fine
        ]
        if flags
        else []
    )


def refuse_not_finite(tensors: Iterable[tuple[str, Tensor]], what: str, way_out: str) -> None:
    """Raises UserError if any weight is NaN or infinite: what they are weights of, and what can be done."""
    broken = not_finite(tensors)
    if broken:
        raise UserError(
            f"weights are finite numbers, but {what} has {several(broken)} with NaN or infinity ({listed(broken)}); {way_out}"
        )
