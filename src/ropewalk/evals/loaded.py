"""A model in memory, ready to be measured: opened by its name, or taken as an object.

in   `hemp`, a directory, a hub id, or a transformers model and its tokenizer
out  a `LoadedModel`: model, tokenizer and `ModelInfo`; `fingerprint` tells one model from another
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Unpack

import torch

from ropewalk import records
from ropewalk.attention_ops.transformers import attend_as_measured
from ropewalk.checkpoint.checkpoint import Checkpoint, ModelName
from ropewalk.checkpoint.model_info import info_of
from ropewalk.checkpoint.position_table import Positions, PositionTable
from ropewalk.checkpoint.window import Answers
from ropewalk.data import encode
from ropewalk.data.corpus_encoder import tokenizer_digest
from ropewalk.data.select import name_of
from ropewalk.distributed import ranks
from ropewalk.distributed.spread import is_spread, load_spread
from ropewalk.errors import UserError
from ropewalk.evals.seen_texts import warn_of_seen_texts
from ropewalk.model.devices import device_name
from ropewalk.model.load import load_model, load_tokenizer
from ropewalk.model.position_table import refuse_encoder
from ropewalk.model.verify import follows_length, forget_inputs, positions_of, rotary_tables
from ropewalk.readers.digest_checks import warn_of_changes
from ropewalk.settings.mixture import sources_of
from ropewalk.settings.options import DtypeName, Opening, Shard

#: Of a module, what changes as it runs or is no matter of what it computes.
_NO_MATTER = ("training", "name_or_path", "max_seq_len_cached", "rope_deltas", "gradient_checkpointing")
#: peft says there which adapters take part.
_ADAPTERS = ("_disable_adapters", "_active_adapter")
#: Hooks and forwards of these packages follow from the model's class.
_KNOWN = ("torch", "transformers", "accelerate", "peft", "bitsandbytes", "ropewalk")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode, its tokenizer, and the facts that records hold of it. seen: the texts it is measured on that it was trained on."""

    model: Any
    tokenizer: Any
    info: records.ModelInfo
    seen: Sequence[str] = ()

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> str:
        return str(next(self.model.parameters()).dtype).removeprefix("torch.")

    @property
    def bos(self) -> int | None:
        """The token in front of every document, or None (data.encode.bos_id)."""
        return encode.bos_id(self.tokenizer)

    def extrapolates(self, window: int) -> bool:
        """Whether a window, in tokens, is beyond what the model reads."""
        return window > self.info.window

    def run(self, *, seed: int = 0, **settings: Any) -> records.Run:
        """A record header for a measurement that starts now."""
        settings |= {"seen_in_training": name_of(self.seen, len(self.seen))} if self.seen else {}
        return records.new_run(
            self.info, device=device_name(self.device), dtype=self.dtype, seed=seed, settings=settings
        )


def open_model(
    model: Any,
    *,
    tokenizer: Any = None,
    data: Any = None,
    dtype: DtypeName | torch.dtype | None = None,
    device: str | torch.device | None = None,
    shard: Shard = "off",
    current_window: int | None = None,
    original_window: int | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model by its name, or take one that is loaded.

    Args:
        model: a name or an open checkpoint for `load_model`, or a transformers model, which keeps its own attention.
        tokenizer: loaded from the model's name if not given; must be given with a model object.
        data: the sources that it is measured on, if any; that it was trained on them is logged.
        dtype, device: as in `load_model`; a model object keeps its own.
        shard: whether the processes of torchrun hold it together; see distributed/spread.py. Not for a model object.
        current_window, original_window, trust_remote_code: as in `Checkpoint.open`.

    Raises:
        UserError: what `load_model` raises; a model object came without a tokenizer, or its config leaves its windows open.
    """
    ranks.join()  # under torchrun this process takes its own GPU, which loading must know of
    if isinstance(model, ModelName):
        seen = ranks.first(lambda: warn_of_seen_texts(str(model), sources_of(data)))
        checkpoint = Checkpoint.open(
            model, trust_remote_code=trust_remote_code, current_window=current_window, original_window=original_window
        )
        whole = ranks.same(checkpoint.fingerprint if ranks.rank() == 0 else "")
        if ranks.rank() == 0:
            warn_of_changes(checkpoint)
        loads = load_spread if is_spread(shard, checkpoint, dtype, device) else load_model
        weights = loads(checkpoint, dtype=dtype, device=device)
        forget_inputs(weights)
        attend_as_measured(weights)
        if tokenizer is None:
            tokenizer = load_tokenizer(checkpoint)
        else:
            whole += f" {tokenizer_digest(tokenizer)[:16]}"
        encode.limit_ids(tokenizer, _rows(weights))
        return LoadedModel(weights, tokenizer, dataclasses.replace(checkpoint.info, fingerprint=whole), seen)
    if tokenizer is None:
        raise UserError(
            "a model given as an object needs its tokenizer too; pass tokenizer=…, or the model's directory"
        )
    name = getattr(model.config, "_name_or_path", "") or type(model).__name__
    count = sum(weight.numel() for weight in model.parameters())
    encode.limit_ids(tokenizer, _rows(model))
    forget_inputs(model)
    positions = positions_of(model, Answers(current_window, original_window))
    _refuse_unfit(model, tokenizer, positions)
    if (dtype or "auto") != "auto" and str(dtype).removeprefix("torch.") != str(model.dtype).removeprefix("torch."):
        warnings.warn(f"a model given as an object keeps its own dtype, {model.dtype}; cast it first", stacklevel=2)
    info = info_of(positions, name=name, parameters=count)
    return LoadedModel(model.eval(), tokenizer, dataclasses.replace(info, fingerprint=_of_object(model, tokenizer)))


def _refuse_unfit(model: Any, tokenizer: Any, positions: Positions) -> None:
    """What a model in memory can be and one that was loaded from files is not.

    Raises:
        UserError: it has no numbers, predicts no next token, or has no row for the token that begins a text.
    """
    if any(weight.is_meta for weight in model.parameters()):
        raise UserError(
            "a model that is measured has its weights in memory, and some of this one's are on the device meta; load them, or pass its name"
        )
    if isinstance(positions, PositionTable):
        refuse_encoder(positions)
    if model.get_output_embeddings() is None:
        raise UserError(
            f"a model that is measured predicts the next token, and a {type(model).__name__} has no head that does; pass one of AutoModelForCausalLM"
        )
    encode.check_ids(tokenizer, encode.prefix_ids(tokenizer))


def _rows(model: Any) -> int:
    """How many token ids a model has an embedding for."""
    return model.get_input_embeddings().weight.shape[0]


def opened(model: Any, base: Any = None, **opening: Unpack[Opening]) -> tuple[Any, Any]:
    """A model and its base, each as an open checkpoint if it was given by its name, so that it is read once; else as it is.

    opening: as in `Checkpoint.open`; the windows are the model's.
    """
    if isinstance(model, ModelName):
        model = Checkpoint.open(model, **opening)
    if isinstance(base, ModelName):
        base = (
            model.open_base(base)
            if isinstance(model, Checkpoint)
            else Checkpoint.open(base, trust_remote_code=opening.get("trust_remote_code", False))
        )
    return model, base


def fingerprint(loaded: LoadedModel, *, samples: int = 64) -> str:
    """A short hash of everything about a model that decides its figures; equal for equal ones.

    `ModelInfo.fingerprint` has the whole: config, tokenizer, every weight. A few numbers of every tensor in memory are added, rotary
    tables among them, since a model may be changed after it was opened (a base that is interpolated for a while, say).

    Args:
        loaded: by `open_model`.
        samples: numbers hashed of each tensor, evenly spread.
    """
    ranks.wait()  # all come here, and none is in the middle of a pass: sharded tensors are put together
    digest = hashlib.sha256((loaded.info.fingerprint or _of_object(loaded.model, loaded.tokenizer)).encode())
    for name, tensor in _tensors(loaded.model):
        flat = tensor.flatten()
        digest.update(name.encode())
        digest.update(flat[:: max(1, len(flat) // samples)].float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _of_object(model: Any, tokenizer: Any) -> str:
    """As `Checkpoint.fingerprint`, of a model that was given as an object and has no files: with what its modules do beside their weights."""
    digest = hashlib.sha256(f"{tokenizer_digest(tokenizer)} {model.config.to_json_string()}".encode())
    for name, module in model.named_modules():
        digest.update(f"{name} {type(module).__qualname__} {_attributes(module)} {_own_code(module)}".encode())
    for name, tensor in _tensors(model):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _attributes(module: torch.nn.Module) -> str:
    """Numbers and words that a module was given: a scaling of its attention, a window, the strength of an adapter."""

    def plain(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and not follows_length(module):  # held as no buffer
            return value.tolist()
        return value if isinstance(value, bool | int | float | str | list | tuple) or type(value) is dict else None

    own = {key: plain(value) for key, value in vars(module).items() if not key.startswith("_") or key in _ADAPTERS}
    return json.dumps({key: own[key] for key in sorted(own) if key not in _NO_MATTER}, default=lambda _: None)


def _own_code(module: torch.nn.Module) -> str:
    """Empty; of a module that somebody gave a hook or another forward a word that never comes again, since nobody knows what that computes."""
    hooks: list[Any] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    for call in [*hooks, *filter(None, [vars(module).get("forward")])]:
        call = getattr(
            getattr(call, "func", call), "__func__", getattr(call, "func", call)
        )  # of a partial, of a method
        place = getattr(call, "__globals__", {}).get("__name__") or type(call).__module__
        if place.partition(".")[0] not in _KNOWN:
            return secrets.token_hex(8)
    return ""


def _tensors(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of a model but rotary tables that tell of its last input only."""
    of_last_input = {id(table) for module, _, _, table in rotary_tables(model) if follows_length(module)}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if id(tensor) not in of_last_input:
            sharded: Any = tensor  # then whole for a moment, on every process
            yield name, (sharded.full_tensor() if hasattr(sharded, "full_tensor") else tensor).detach()
