"""What a GGUF file says of RoPE, and what llama.cpp computes from it: read, and mended where the converter left something out.

in   a GGUF file; the RoPE it ought to have
out  a `GgufRope` with the inv_freq that llama.cpp would compute; or a copy of the file with the keys (and rope_freqs) that say it

llama.cpp reads the same keys for every architecture (src/llama-model.cpp: load_hparams; ggml's rope_yarn), whatever its converter
writes for each. A vector of factors is a tensor, `rope_freqs.weight`, which only some architectures look for.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.errors import UserError
from ropewalk.exports.checkpoints import full_layers
from ropewalk.rope.rope import InvFreq
from ropewalk.settings.extras import bringing

_FACTORS = "rope_freqs.weight"
#: Architectures whose graph looks for rope_freqs (src/models/*.cpp, October 2026), among those that ropewalk extends.
_TAKES_FACTORS = frozenset("llama granite granitemoe arcee deci exaone exaone4 exaone-moe llama4 mistral3 nanbeige pangu-embed "
                           "apertus gemma4 refact minicpm llada falcon-h1 cogvlm step35".split())  # fmt: skip
#: ggml divides by the factor; a pair that stands still has one that makes its angle nothing (as Gemma 4's own files have it).
_STILL = 1e30
#: Keys are float32, a unit in the last place 6e-8; a lost factor or theta is off by far more.
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class GgufRope:
    """The RoPE of a GGUF file.

    Attributes:
        architecture: llama.cpp's word for the family.
        keys: metadata under the architecture's name, without it ("context_length", "rope.freq_base", …).
        tensors: the vectors of factors, by the tensor's name.
        pre_tokenizer: `tokenizer.ggml.pre`, "" where there is none.
    """

    architecture: str
    keys: dict[str, Any]
    tensors: dict[str, np.ndarray]
    pre_tokenizer: str = ""

    @property
    def window(self) -> int:
        """Tokens that llama.cpp serves by default, and at most."""
        return int(self.keys.get("context_length", 0))

    @property
    def factor(self) -> float:
        """How much slower than its base it turns, at the slow end."""
        return float(self.keys.get("rope.scaling.factor", self.keys.get("rope.scale_linear", 1.0)) or 1.0)

    def inv_freq(self, *, sliding: bool = False) -> InvFreq:
        """What llama.cpp computes at the end of the window, float64 (rotated / 2,), radians a token.

        Args:
            sliding: of the layers with a sliding window and a base of their own.
        """
        base = float(self.keys.get("rope.freq_base", 10000.0))
        if sliding:
            return _powers(float(self.keys.get("rope.freq_base_swa", base)), self._rotated("_swa"))
        rotated = self._rotated()
        speeds = _powers(base, rotated) / self._factors(rotated)
        kind = self.keys.get("rope.scaling.type", "linear")
        if kind == "none":
            return speeds
        slow = speeds / self.factor
        if kind != "yarn":
            return slow
        keep = self._ramp(base, rotated)
        return slow * (1 - keep) + speeds * keep

    @property
    def attention_factor(self) -> float:
        """By how much queries and keys are both multiplied."""
        named = float(self.keys.get("rope.scaling.attn_factor", 1.0))
        return named * (self.own_attention_factor if self.keys.get("rope.scaling.type") == "yarn" else 1.0)

    @property
    def own_attention_factor(self) -> float:
        """What llama.cpp takes for YaRN's attention factor without a key for it (src/llama-context.cpp, October 2026).

        DeepSeek's mscale_all_dim puts it all into the scores of whole heads, rotated or not, and leaves 1; in that architecture the key is a
        tenth of it, and mscale is taken for the same number. Elsewhere mscale is taken for 1.
        """
        multiplier = float(self.keys.get("rope.scaling.yarn_log_multiplier", 0.0))
        if not multiplier:
            return _temperature(self.factor)
        return (
            1.0
            if self.architecture == "deepseek2"
            else _temperature(self.factor) / _temperature(self.factor, multiplier)
        )

    def _rotated(self, which: str = "") -> int:
        head = self.keys["embedding_length"] // _first(self.keys["attention.head_count"])
        names = [
            f"{key}{kind}"
            for kind in dict.fromkeys((which, ""))
            for key in ("rope.dimension_count", "attention.key_length")
        ]
        return int(next((self.keys[name] for name in names if self.keys.get(name)), head))

    def _factors(self, rotated: int) -> np.ndarray | float:
        longer = self.window > self.keys.get("rope.scaling.original_context_length", self.window)
        name = "rope_factors_long.weight" if longer else "rope_factors_short.weight"
        factors = self.tensors.get(_FACTORS) if self.architecture in _TAKES_FACTORS else None
        return (factors if factors is not None else self.tensors.get(name, np.ones(rotated // 2))).astype(np.float64)

    def _ramp(self, base: float, rotated: int) -> np.ndarray:
        """ggml_rope_yarn_corr_dims and rope_yarn_ramp: 1 where a pair keeps its speed."""
        original = self.keys.get("rope.scaling.original_context_length", self.window)

        def pair(turns: float) -> float:
            return rotated * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(base))

        low = max(0, math.floor(pair(self.keys.get("rope.scaling.yarn_beta_fast", 32.0))))
        high = min(rotated - 1, math.ceil(pair(self.keys.get("rope.scaling.yarn_beta_slow", 1.0))))
        return 1 - np.clip((np.arange(rotated // 2) - low) / max(0.001, high - low), 0, 1)


def read_gguf_rope(file: Path) -> GgufRope:
    """The RoPE of a GGUF file; raises UserError if the gguf package is not installed or the file is none."""
    reader = _reader(file)
    architecture = reader.get_field("general.architecture").contents()
    # A vocabulary of 262,144 tokens and its merges take minutes to read, and say nothing here.
    needed = ("tokenizer.ggml.pre", f"{architecture}.")
    fields = {name: field.contents() for name, field in reader.fields.items() if name.startswith(needed)}
    prefix = f"{architecture}."
    return GgufRope(
        architecture=architecture,
        keys={name.removeprefix(prefix): value for name, value in fields.items() if name.startswith(prefix)},
        tensors={each.name: np.array(each.data) for each in reader.tensors if each.name.startswith("rope_f")},
        pre_tokenizer=fields.get("tokenizer.ggml.pre", ""),
    )


def mend(file: Path, rope: RopeConfig) -> GgufRope:
    """Make a GGUF file turn as a checkpoint does: nothing if it does already, else the file written again with what it lacks.

    Raises:
        UserError: llama.cpp has no keys for this scaling in this architecture.
    """
    written_rope = read_gguf_rope(file)
    if not differences(written_rope, rope):
        return written_rope
    keys, factors = _wanted(written_rope, rope)
    _write_again(file, {f"{written_rope.architecture}.{name}": value for name, value in keys.items()}, factors)
    written_rope = read_gguf_rope(file)
    if wrong := differences(written_rope, rope):
        raise UserError(
            f"llama.cpp cannot compute {rope} in {written_rope.architecture} models ({wrong}), and every position would be wrong without a "
            "word; export for vllm or transformers"
        )
    return written_rope


def differences(found: GgufRope, rope: RopeConfig) -> str:
    """In what a GGUF file is not the checkpoint it was made from; empty if in nothing."""
    pairs = [("inv_freq", found.inv_freq(), full_layers(rope))]
    pairs += [
        ("inv_freq of the sliding layers", found.inv_freq(sliding=True), each.inv_freq())
        for each in rope.unscaled.values()
    ]
    for name, there, asked in pairs:
        if there.shape != asked.shape:
            return f"{2 * there.size} rotated coordinates, not {2 * asked.size}"
        if not np.allclose(there, asked, rtol=_TOLERANCE, atol=1e-20):
            worst = int(np.abs(there - asked).argmax())
            return f"{name} of pair {worst} is {there[worst]:.6g}, not {asked[worst]:.6g}"
    wanted = attention_factor(rope)
    if not math.isclose(found.attention_factor, wanted, rel_tol=_TOLERANCE):
        return f"the attention factor is {found.attention_factor:.6g}, not {wanted:.6g}"
    return "" if found.window == rope.window else f"the window is {found.window}, not {rope.window}"


def attention_factor(rope: RopeConfig) -> float:
    """By how much the scaling multiplies queries and keys."""
    return rope.scaling.attention_factor(rope.rope)


def _wanted(found: GgufRope, rope: RopeConfig) -> tuple[dict[str, Any], np.ndarray | None]:
    """Keys, None for one to be taken out, and factors, that say a scaling to llama.cpp."""
    entry, rope_theta = rope.scaling.config_entry(rope.rope)
    kind, attention = entry["rope_type"], attention_factor(rope)
    keys: dict[str, Any] = {"context_length": rope.window, "rope.freq_base": float(rope_theta)}
    factors = None
    if kind == "yarn":
        there = {**found.keys, "rope.scaling.factor": float(entry["factor"])}
        attention /= replace(found, keys=there).own_attention_factor
        keys["rope.scaling.original_context_length"] = int(entry["original_max_position_embeddings"])
        for beta in ("beta_fast", "beta_slow"):
            keys[f"rope.scaling.yarn_{beta}"] = float(entry[beta]) if entry.get(beta) is not None else None
    if kind in ("linear", "yarn"):
        keys |= {"rope.scaling.type": kind, "rope.scaling.factor": float(entry["factor"])}
    else:
        keys |= {"rope.scaling.type": "none", "rope.scaling.factor": None}
    if kind not in ("default", "linear", "yarn"):
        plain, asked = _powers(rope_theta, rope.rope.head_dim), full_layers(rope)
        factors = np.minimum(plain / np.maximum(asked, 1e-300), _STILL).astype(np.float32)
    keys["rope.scaling.attn_factor"] = None if math.isclose(attention, 1.0) else attention
    for number, each in enumerate(rope.unscaled.values()):
        assert number == 0
        keys["rope.freq_base_swa"] = float(each.rope_theta)
    return keys, factors


def _write_again(file: Path, keys: dict[str, Any], factors: np.ndarray | None) -> None:
    """The same file with other keys and, if given, other factors; it replaces the old one when it is whole."""
    gguf, reader = _gguf(), _reader(file)
    types = {str: gguf.GGUFValueType.STRING, int: gguf.GGUFValueType.UINT32, float: gguf.GGUFValueType.FLOAT32}
    beside = file.with_suffix(".mended")
    writer = gguf.GGUFWriter(beside, reader.get_field(gguf.Keys.General.ARCHITECTURE).contents())
    for name, field in reader.fields.items():
        if name not in keys and name != gguf.Keys.General.ARCHITECTURE and not name.startswith("GGUF."):
            within = field.types[-1] if field.types[0] == gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(name, field.contents(), field.types[0], sub_type=within)
    for name, value in keys.items():
        if value is not None:
            writer.add_key_value(name, value, types[type(value)])
    for tensor in reader.tensors:
        if factors is None or tensor.name != _FACTORS:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    if factors is not None:
        writer.add_tensor(_FACTORS, factors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(beside, file)


def _powers(base: float, rotated: int) -> InvFreq:
    return base ** -(np.arange(0, rotated, 2, dtype=np.float64) / rotated)


def _temperature(factor: float, weight: float = 1.0) -> float:
    """YaRN's own attention factor (Peng et al. 2023, arXiv 2309.00071, eq. 22), which llama.cpp always applies with it."""
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def _first(value: Any) -> int:
    return int(value[0] if isinstance(value, list) else value)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise UserError(
            f"GGUF files are read and written with the gguf package, which is not installed: {bringing('gguf')}"
        ) from None
    return gguf


def _reader(file: Path) -> Any:
    try:
        return _gguf().GGUFReader(file)
    except (ValueError, OSError, KeyError, IndexError) as error:
        raise UserError(f"{file} is no whole GGUF file ({error}); write it again") from None
