"""Whether a checkpoint's weights are quantised on disk, by its config and by what lies in its files.

in   an open checkpoint
out  how, in a word; empty if they are not
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ropewalk.checkpoint.headers import tensors

if TYPE_CHECKING:
    from ropewalk.checkpoint.checkpoint import Checkpoint

#: Where configs say that weights are quantised: for transformers; by compressed-tensors and others before it was there; MLX.
_QUANTISED_KEYS = ("quantization_config", "compression_config", "quant_config", "quantize_config", "quantization")
#: Tensors that only quantised weights have beside them: GPTQ and AWQ, FP8, bitsandbytes, compressed-tensors, MXFP4.
_QUANTISED = (
    ".qweight",
    ".qzeros",
    ".weight_scale",
    ".weight_scale_inv",
    ".absmax",
    ".SCB",
    ".weight_packed",
    "_blocks",
)
_NARROW = ("F8_", "F4", "F6_")
#: No weight that can be trained is a whole number (HQQ, MLX, torchao, EXL3, AQLM, BitNet pack theirs so); some buffers are.
_WHOLE = ("U8", "I8", "U16", "I16", "U32", "I32")
_BUFFERS = (".bias", ".masked_bias", "position_ids", "token_type_ids")


def quantisation(checkpoint: Checkpoint) -> str:
    """How the weights are quantised on disk, in a word; empty if they are not."""
    if said := quantisation_said(checkpoint):
        return said
    for header in checkpoint.headers.values():
        for name, entry in tensors(header):
            packed = entry["dtype"] in _WHOLE and not name.endswith(_BUFFERS)
            if packed or name.endswith(_QUANTISED) or entry["dtype"].startswith(_NARROW):
                return f"{name}, {entry['dtype']}"
    return ""


def quantisation_said(checkpoint: Checkpoint) -> str:
    """How the config says that the weights are quantised; empty if it does not."""
    for config in (checkpoint.config, checkpoint.text_config):
        for key in _QUANTISED_KEYS:
            if config.get(key):
                said: Any = config[key]
                return str((isinstance(said, dict) and said.get("quant_method")) or key)
    return ""
