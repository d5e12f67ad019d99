"""Which class of transformers a config.json makes a model of, and where the language model is in it.

in   the dictionary of a config.json, or a model
out  an Auto class; the decoder: the whole but for the head, or the language model beside an image encoder
"""

from __future__ import annotations

from typing import Any

import transformers
from torch import nn
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.class_defaults import FLAT
from ropewalk.errors import Unsupported, UserError


def auto_class(config_dict: dict[str, Any]) -> Any:
    """AutoModelForCausalLM, or AutoModelForImageTextToText for a language model inside a multimodal one.

    Raises:
        UserError: a family that the installed transformers does not have, or one that is no decoder of text.
    """
    model_type = config_dict.get("model_type")
    if "auto_map" in config_dict and not in_transformers(model_type):
        return transformers.AutoModelForCausalLM  # code of its own, which is trusted or refused elsewhere
    if not in_transformers(model_type):
        raise UserError(
            f"transformers {transformers.__version__} has no family {model_type!r}, the model_type in this config.json; it may be newer "
            "than that (pip install --upgrade transformers) or misspelt"
        )
    if model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return transformers.AutoModelForCausalLM
    beside_images = model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
    has_text = isinstance(config_dict.get("text_config"), dict) or model_type in FLAT
    if beside_images and has_text and not _encodes(str(model_type)):
        return transformers.AutoModelForImageTextToText
    raise Unsupported(
        f"ropewalk extends decoders of text, alone or beside an image encoder, and {model_type} is neither; choose a causal language "
        "model"
    )


def in_transformers(model_type: Any) -> bool:
    """Whether the installed transformers has a family, whatever a config.json has in its place."""
    return isinstance(model_type, str) and model_type in transformers.CONFIG_MAPPING


def has_attention(checkpoint: Checkpoint, name: str) -> bool:
    """Whether a family can attend by one of transformers' names; Gemma 2 and gpt-oss do something to scores that "sdpa" does not."""
    if name != "sdpa" or not in_transformers(checkpoint.config.get("model_type")):
        return True
    classes = auto_class(checkpoint.config)._model_mapping
    return bool(classes[transformers.CONFIG_MAPPING[checkpoint.config["model_type"]]]._supports_sdpa)


def _encodes(model_type: str) -> bool:
    """Whether a family has an encoder that a decoder attends to."""
    return bool(transformers.CONFIG_MAPPING[model_type]().is_encoder_decoder)


def decoder_of(model: nn.Module) -> nn.Module:
    """The language model in a multimodal one, wrapped or bare; any other model as it is."""
    for module in model.modules():
        if isinstance(module, transformers.PreTrainedModel) and module.config.get_text_config() is not module.config:
            return module.get_decoder()
    return model


def body_of(model: Any) -> nn.Module:
    """Everything below a language model's head, token ids to hidden states; without what a multimodal model has beside that."""
    decoder = decoder_of(model)
    if decoder is not model:
        return decoder
    # Llama 4's text model has the prefix of the multimodal one, by which transformers finds no base_model but itself.
    parts = [module for module in model.children() if isinstance(module, transformers.PreTrainedModel)]
    return parts[0] if model.base_model is model and parts else model.base_model


def freeze_encoders(model: Any) -> None:
    """Leave what a multimodal model has beside its language model and head as it is: text does not go through it."""
    decoder = decoder_of(model)
    if decoder is model:
        return
    trained = {*decoder.parameters(), *model.get_output_embeddings().parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(parameter in trained)
