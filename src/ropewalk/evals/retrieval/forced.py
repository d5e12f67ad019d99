"""Teacher-forced verdicts: would greedy decoding give this answer? One forward pass says it, and many share their beginning.

in   prompts with their answers (token ids), and a text whose beginning many of them have in common
out  per prompt, which tokens of the answer are the argmax where they stand

Greedy decoding gives the answer exactly if every token of it is the argmax after the prompt and the answer's tokens before
it: up to the first wrong token, both see the same tokens. So the answer is fed with its prompt and all its tokens are
judged at once, where `generate` would take a pass for each.

**The shared beginning.** Prompts of a retrieval test are alike up to where the hidden fact stands. Their common text is
read once, its keys and values are kept, and each prompt is read from its first own token on. No value that a token depends
on is left out: the verdicts are those of whole passes (tests/evals/test_passkey.py). Over depths spread evenly this is half the
work.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from transformers import AttentionInterface
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.masking_utils import AttentionMaskInterface

from ropewalk.errors import UserError
from ropewalk.evals.compile import reading_last
from ropewalk.evals.likelihood import default_batch_tokens, rows_on

#: A beginning shorter than this is read again with each prompt: keeping it would cost more than it saves.
_WORTH_SHARING = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """Token ids of a prompt and of the answer that greedy decoding ought to give."""

    ids: Int[np.ndarray, " n"]
    answer: Int[np.ndarray, " m"]

    @property
    def fed(self) -> Int[np.ndarray, " n_plus_m_minus_1"]:
        """What the model sees: the prompt and the answer but for its last token, which nothing comes after."""
        return np.concatenate([self.ids, self.answer[:-1]])


@torch.inference_mode()
def verdicts(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    beginning: Int[np.ndarray, " n"] | None = None,
    batch_tokens: int | None = None,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Bool[np.ndarray, " m"]]:
    """Judge prompts, in their order.

    Args:
        model: a transformers causal language model.
        prompts: of any lengths; those with the same lengths and the same share of the beginning go through together.
        beginning: a text that prompts start like; each shares as much of it as it has. None: nothing is shared.
        batch_tokens: tokens of one forward pass.
        advance: called with the number of prompts done.

    Returns:
        Per prompt (m,) booleans: is answer token i the argmax after the prompt and answer tokens 0 .. i - 1?

    Raises:
        UserError: a logit was not a number, which no argmax would tell.
    """
    device = next(model.parameters()).device
    batch_tokens = batch_tokens or default_batch_tokens(device)
    fed = [prompt.fed for prompt in prompts]
    shared = [_in_common(beginning, ids, len(ids) - len(p.answer)) for ids, p in zip(fed, prompts, strict=True)]
    prefix = _Prefix.read(model, beginning, max(shared, default=0))
    found: list[Any] = [None] * len(prompts)

    def settle(batch: list[int], right: torch.Tensor, damaged: torch.Tensor) -> None:
        if bool(damaged):
            raise UserError(
                f"logits must be numbers, but the model gave NaN at the end of a prompt of {len(prompts[batch[0]].ids)} tokens; "
                "try --dtype float32, or another copy of the model"
            )
        for at, one in zip(batch, right.cpu().numpy(), strict=True):
            found[at] = one
        advance(len(batch))

    # Longest first: if the memory does not hold the largest batch, that shows at once.
    shapes = {at: (shared[at], len(fed[at]), len(prompts[at].answer)) for at in range(len(prompts))}
    order = sorted(shapes, key=lambda at: (shapes[at][0], -shapes[at][1], shapes[at][2], at))
    before: tuple[list[int], torch.Tensor, torch.Tensor] | None = None
    for batch in _batches(order, shapes, batch_tokens):
        known, _, scored = shapes[batch[0]]
        ids = rows_on(device, [fed[at][known:] for at in batch])
        answers = rows_on(device, [prompts[at].answer for at in batch])
        with prefix.before(model, known, ids.shape[1], scored) as arguments, reading_last(model, scored):
            logits = model(input_ids=ids, logits_to_keep=scored, **arguments).logits
        # One batch behind, so that a GPU has its next work before it is asked for what it has done.
        if before is not None:
            settle(*before)
        before = (batch, logits.argmax(-1) == answers, logits.isnan().any())
    if before is not None:
        settle(*before)
    return found


def _in_common(beginning: Int[np.ndarray, " n"] | None, ids: Int[np.ndarray, " m"], most: int) -> int:
    """How many first tokens of `ids` are those of the beginning; 0 if too few to be worth it."""
    if beginning is None:
        return 0
    length = min(len(beginning), most)
    differs = np.flatnonzero(beginning[:length] != ids[:length])
    same = int(differs[0]) if len(differs) else length
    return same if same >= _WORTH_SHARING else 0


def _batches(order: list[int], shapes: dict[int, tuple[int, int, int]], batch_tokens: int) -> Iterator[list[int]]:
    """Neighbours of one shape, at most `batch_tokens` tokens of their own together (one prompt always goes)."""
    batch: list[int] = []
    for at in order:
        own = shapes[at][1] - shapes[at][0]
        if batch and (shapes[at] != shapes[batch[0]] or (len(batch) + 1) * own > batch_tokens):
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


class _PrefixLayer(DynamicLayer):
    """One layer's keys and values of the shared beginning, handed out with a prompt's own but never grown."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        batch = len(key_states)
        keys = torch.cat([self.keys.expand(batch, -1, -1, -1), key_states], dim=2)
        return keys, torch.cat([self.values.expand(batch, -1, -1, -1), value_states], dim=2)


@dataclasses.dataclass(frozen=True)
class _Prefix:
    """Keys and values (1, heads, tokens, head size) of a beginning, layer by layer."""

    layers: list[tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def read(cls, model: Any, beginning: Int[np.ndarray, " n"] | None, length: int) -> _Prefix:
        if beginning is None or length == 0:
            return cls([])
        ids = rows_on(next(model.parameters()).device, [beginning[:length]])
        # Without a config the cache keeps every token of every layer, of those with a sliding window too.
        cache = DynamicCache()
        # Uncompiled: a cache names each layer by its number, so every layer would be compiled for itself, up to PyTorch's limit, past
        # which the prompts' own passes are not compiled either.
        with torch.compiler.set_stance("force_eager"):
            model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
        return cls([(layer.keys, layer.values) for layer in cache.layers])

    @contextmanager
    def before(self, model: Any, length: int, own: int, read: int) -> Iterator[dict[str, Any]]:
        """Keyword arguments for a forward pass over `own` tokens that go on after the first `length` of the beginning.

        Of its own tokens the last `read` alone are asked for, so the last layer need not attend from any other.
        """
        if length == 0:
            yield {"use_cache": False}
            return
        layers = [(keys[:, :, :length], values[:, :, :length]) for keys, values in self.layers]
        if not _attends_in_two_parts(model):
            cache: list[Any] = [_PrefixLayer(keys, values) for keys, values in layers]
            yield {"past_key_values": Cache(layers=cache), "use_cache": True}
            return
        usual = model.config._attn_implementation
        _active.append((layers, read))
        model.set_attn_implementation(_TWO_PARTS)
        try:
            device = next(model.parameters()).device
            yield {"position_ids": torch.arange(length, length + own, device=device)[None], "use_cache": False}
        finally:
            model.set_attn_implementation(usual)
            _active.pop()


# ---- attention to a shared beginning and to oneself, apart -----------------------------------------------------------

_TWO_PARTS = "ropewalk_two_parts"
#: The beginning that the forward pass in progress goes on from: an attention function is given its module and no more.
_active: list[tuple[list[tuple[torch.Tensor, torch.Tensor]], int]] = []


def _attends_in_two_parts(model: Any) -> bool:
    """Whether plain causal attention is all this model's layers do, and the device's kernel returns the normaliser."""
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return (
        config._attn_implementation == "sdpa"
        and kinds == {"full_attention"}
        and not getattr(config, "sliding_window", None)
        and next(model.parameters()).device.type in ("cpu", "cuda")
    )


def _with_normaliser(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, causal: bool, scale: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scaled dot-product attention, and the log of the sum of exponentials that each row was divided by (float32)."""
    if query.device.type == "cpu":
        return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, 0.0, causal, scale=scale)
    if query.dtype == torch.float32:
        found = torch.ops.aten._scaled_dot_product_efficient_attention(
            query, key, value, None, True, 0.0, causal, scale=scale
        )
        return found[0], found[1][:, :, : query.shape[2]]
    found = torch.ops.aten._scaled_dot_product_flash_attention(query, key, value, 0.0, causal, scale=scale)
    return found[0], found[1]


@torch.compiler.disable  # which beginning it is changes with every call
def _two_parts(
    module: torch.nn.Module,
    query: Float[torch.Tensor, "batch heads n size"],
    key: Float[torch.Tensor, "batch kv_heads n size"],
    value: Float[torch.Tensor, "batch kv_heads n size"],
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention over beginning + own tokens as a mixture of attention over each, weighted by their normalisers.

    softmax over two sets of keys = the two softmaxes, weighted by their shares of the sum of exponentials: exact. Every query
    sees the whole beginning, so the batch's queries can be laid in one row over keys that exist once, and no mask is needed.
    """
    layers, read = _active[-1]
    layer = layers[module.layer_idx]
    batch, heads, own, size = query.shape
    groups = heads // key.shape[1]
    past_key, past_value, key, value = (
        states.repeat_interleave(groups, dim=1) if groups > 1 else states for states in (*layer, key, value)
    )
    if module.layer_idx == len(layers) - 1:
        last = _from_the_last(query[:, :, -read:], past_key, past_value, key, value, scaling)
        return torch.nn.functional.pad(last, (0, 0, own - last.shape[2], 0)).transpose(1, 2).contiguous(), None
    near, near_log = _with_normaliser(query, key, value, True, scaling)
    folded = query.transpose(0, 1).reshape(1, heads, batch * own, size)
    far, far_log = _with_normaliser(folded, past_key, past_value, False, scaling)
    far = far.reshape(heads, batch, own, size).transpose(0, 1)
    far_log = far_log.reshape(heads, batch, own).transpose(0, 1)
    share = torch.sigmoid(far_log - near_log).unsqueeze(-1).to(near.dtype)
    return torch.lerp(near, far, share).transpose(1, 2).contiguous(), None


def _from_the_last(
    query: Float[torch.Tensor, "batch heads read size"],
    past_key: Float[torch.Tensor, "1 heads past size"],
    past_value: Float[torch.Tensor, "1 heads past size"],
    key: Float[torch.Tensor, "batch heads own size"],
    value: Float[torch.Tensor, "batch heads own size"],
    scale: float | None,
) -> Float[torch.Tensor, "batch heads read size"]:
    """Attention from the few last tokens, written out: a softmax over the beginning and the own tokens before each."""
    read, own, past = query.shape[2], key.shape[2], past_key.shape[2]
    query = query * (query.shape[-1] ** -0.5 if scale is None else scale)
    later = torch.ones(read, own, dtype=torch.bool, device=query.device).triu(own - read + 1)
    near = (query @ key.transpose(2, 3)).masked_fill(later, float("-inf"))
    scores = torch.cat([query @ past_key.transpose(2, 3), near], dim=-1)
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., :past] @ past_value + weights[..., past:] @ value


AttentionInterface.register(_TWO_PARTS, _two_parts)
AttentionMaskInterface.register(_TWO_PARTS, lambda *args, **kwargs: None)
