"""Ask a reader itself: the window it serves and the inv_freq it computes, for every config of the shelf.

PYTHON tests/readers/ask.py READER >> answers      in an environment where the reader is installed; READER is a function below
python tests/readers/ask.py collect FILE...        into answers.json, which test_rules.py holds the rules of ropewalk.readers against

Runs without ropewalk. inv_freq is that at the start of a model's life: of longrope the factors for short inputs. Of its values
five are kept, from the first pair to the last, and their number. SGLang is too large to install for one function: READER is
then sglang=DIRECTORY of its unpacked wheel, and only its window is asked for.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import shelf
import sick_shelf

ANSWERS = Path(__file__).with_name("answers.json")
Config = dict[str, Any]


def configs() -> dict[str, Config]:
    """Every config of the shelf, by kind."""
    return {kind: build() for kind, build in shelf.SOUND.items()} | {
        kind: case[0] for kind, case in sick_shelf.SICK.items()
    }


def written(config: Config) -> str:
    directory = tempfile.mkdtemp()
    Path(directory, "config.json").write_text(json.dumps(config), encoding="utf-8")
    return directory


def sampled(inv_freq: Any) -> dict[str, Any]:
    values = [float(value) for value in inv_freq]
    return {"pairs": len(values), "inv_freq": [values[at * (len(values) - 1) // 4] for at in range(5)]}


def transformers(config: Config) -> dict[str, Any]:
    """The rotary module of a model of two layers, and max_position_embeddings."""
    import torch
    from transformers import AutoConfig, AutoModel

    text = AutoConfig.from_pretrained(written(config)).get_text_config()
    text.num_hidden_layers = 2
    if getattr(text, "layer_types", None):
        text.layer_types = [
            "sliding_attention" * ("sliding_attention" in text.layer_types) or "full_attention",
            "full_attention",
        ]
    with torch.device("meta"):
        model = AutoModel.from_config(text)
    modules = {name: module for name, module in model.named_modules() if "rotary_emb_local" not in name}
    for module in modules.values():
        names = [
            name
            for name, _ in module.named_buffers(recurse=False)
            if name.endswith("inv_freq") and "original" not in name
        ]
        for name in names:
            if "sliding" not in name:
                fresh = type(module)(config=module.config)  # what is on the meta device has no values
                return {"window": text.max_position_embeddings, **sampled(getattr(fresh, name))}
    raise LookupError("no rotary module")


def lm_eval(config: Config) -> dict[str, Any]:
    from lm_eval.models.utils import resolve_max_length
    from transformers import AutoConfig

    return {"window": resolve_max_length(AutoConfig.from_pretrained(written(config)))}


def vllm(config: Config) -> dict[str, Any]:
    """_get_and_verify_max_len, and the second row of the cache of cosines and sines: its angles are inv_freq."""
    import torch
    import vllm.config.model
    import vllm.model_executor.layers.rotary_embedding.phi3_long_rope_scaled_rope as phi3
    from vllm.config import VllmConfig, set_current_vllm_config
    from vllm.model_executor.layers.rotary_embedding import get_rope
    from vllm.transformers_utils.config import get_config, get_hf_text_config
    from vllm.transformers_utils.model_arch_config_convertor import ModelArchConfigConvertorBase

    whole = get_config(written(config), trust_remote_code=False)
    text = get_hf_text_config(whole)
    convertor = ModelArchConfigConvertorBase.__new__(ModelArchConfigConvertorBase)
    convertor.hf_config, convertor.hf_text_config = whole, text
    window = vllm.config.model._get_and_verify_max_len(
        hf_config=text,
        model_arch_config=SimpleNamespace(derived_max_model_len_and_key=convertor.derive_max_model_len_and_key()),
        tokenizer_config=None,
        max_model_len=None,
        disable_sliding_window=False,
        sliding_window=None,
    )
    entry = text.rope_parameters.get("full_attention", text.rope_parameters)
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    phi3.get_current_vllm_config = lambda: SimpleNamespace(model_config=SimpleNamespace(max_model_len=window))
    short = entry.get("rope_type") in ("linear", "default", "llama3")  # a cache of the whole window would be large
    positions = min(text.max_position_embeddings, 4096) if short else text.max_position_embeddings
    with set_current_vllm_config(VllmConfig()):
        rope = get_rope(head, max_position=positions, rope_parameters=entry, dtype=torch.float32)
    if hasattr(rope, "long_short_cos_sin_cache"):
        row = rope.long_short_cos_sin_cache[rope.use_long_rope * rope.original_max_position_embeddings + 1]
    else:
        row = rope.cos_sin_cache[1]
    cosines, sines = row.double().chunk(2)
    return {"window": window, **sampled(torch.atan2(sines, cosines))}


_MLX_NEEDS = dict(
    rms_norm_eps=1e-5, norm_eps=1e-5, hidden_act="relu2", layer_norm_eps=1e-5, decoder_sparse_step=1, mlp_only_layers=[], norm_topk_prob=True, tie_word_embeddings=False
)  # fmt: skip
_MLX_SMALL = dict(
    num_hidden_layers=6, vocab_size=64, intermediate_size=32, moe_intermediate_size=8, num_experts=2, num_experts_per_tok=1,
    num_local_experts=2,
)  # fmt: skip


def mlx(config: Config) -> dict[str, Any]:
    """The RoPE of the sixth layer, which sees the whole window in every family of the shelf. No window: mlx-lm has no limit."""
    import numpy as np
    from mlx_lm.utils import _get_classes

    config = copy.deepcopy(config)
    text = config.get("text_config", config)
    text.update({**_MLX_NEEDS, **text, **_MLX_SMALL})
    text.update({key: text[key][:6] for key in ("layer_types", "no_rope_layers") if text.get(key)})
    model_class, arguments = _get_classes(config)
    modules = dict(model_class(arguments.from_dict(config)).named_modules())
    layer = 4 if "no_rope_layers" in text else 5
    rope = next(
        module for name, module in modules.items() if f".{layer}." in name and type(module).__name__.endswith("RoPE")
    )
    if hasattr(rope, "_freqs"):
        return sampled(1 / np.array(rope._freqs, dtype=np.float64))
    return sampled(rope.base ** -(np.arange(0, rope.dims, 2) / rope.dims) * getattr(rope, "scale", 1.0))


def sglang(directory: str) -> Callable[[Config], dict[str, Any]]:
    """get_context_length out of an unpacked wheel, run on transformers' config."""
    from transformers import AutoConfig

    source = Path(directory, "sglang/srt/utils/hf_transformers/common.py").read_text(encoding="utf-8")
    function: dict[str, Any] = {}
    exec(
        source[
            source.index("CONTEXT_LENGTH_KEYS =") : source.index(
                "@lru_cache_frozenset(maxsize=32)\ndef get_generation_config"
            )
        ],
        function,
    )
    return lambda config: {
        "window": function["get_context_length"](AutoConfig.from_pretrained(written(config)).get_text_config())
    }


def without_vision() -> None:
    """vLLM needs none of these for a language model, and a wheel of them for another torch does not load."""
    found = importlib.util.find_spec
    missing = ("torchvision", "torchaudio", "torchcodec")
    importlib.util.find_spec = lambda name, package=None: (
        None if name.split(".")[0] in missing else found(name, package)
    )
    sys.modules.update(dict.fromkeys(missing))


def ask(reader: str) -> dict[str, Any]:
    """What a reader answers for each config, or the first line of how it refuses."""
    name, _, directory = reader.partition("=")
    question = sglang(directory) if name == "sglang" else globals()[name.replace("-", "_")]
    answers: dict[str, Any] = {}
    for kind, config in configs().items():
        try:
            answers[kind] = question(config)
        except Exception as error:
            answers[kind] = {"refuses": f"{type(error).__name__}: {error}".splitlines()[0][:100]}
    if name == "transformers":
        import transformers

        name = f"transformers {transformers.__version__.split('.')[0]}"
    return {name: answers}


if __name__ == "__main__":
    os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["VLLM_LOGGING_LEVEL"] = "CRITICAL"
    if sys.argv[1] == "collect":
        every = {name: answers for path in sys.argv[2:] for name, answers in json.loads(Path(path).read_text()).items()}
        lines = [f'"{name}": {{\n' + ",\n".join(f"{json.dumps(kind)}: {json.dumps(answer)}" for kind, answer in answers.items()) + "\n}" for name, answers in every.items()]  # fmt: skip
        ANSWERS.write_text("{" + ",\n".join(lines) + "}\n", encoding="utf-8")
    else:
        if sys.argv[1] == "vllm":
            without_vision()
        print(json.dumps(ask(sys.argv[1])))
