"""`ropewalk search`: a factor for each pair of coordinates, by perplexity on a sample of the user's text.

in   a model, documents, a window
out  a JSON file with the best vector found, for `--factors`, and the state of the search after every forward pass that counts

The algorithm is rope/search.py's; here vectors are scored. The model is loaded once, without the scaling that vectors take the place of,
and each vector is put into its rotary tables, which are verified (model/verify.py), so that what is measured is what `extend` writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import disk_errors, read_json, refuse_unwritable, write_whole
from ropewalk.checkpoint.longer import refuse_untrainable
from ropewalk.checkpoint.processes import locked, refuse_locked
from ropewalk.checkpoint.rope_config import RopeConfig
from ropewalk.checkpoint.ropewalk_block import block_for
from ropewalk.checkpoint.write_rope import write_rope
from ropewalk.data.select import select_documents
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.intervals import exp
from ropewalk.evals.likelihood import Pass, negative_log_likelihoods
from ropewalk.evals.loaded import LoadedModel, open_model
from ropewalk.model.extend import say_of_scores
from ropewalk.model.verify import pin_rope
from ropewalk.progress import Progress
from ropewalk.rope.scaling import Factors, LongRope, Plain, Scaling
from ropewalk.rope.search import Scored, Search, as_json, from_json
from ropewalk.rope.vectors import Vector
from ropewalk.settings.command import takes
from ropewalk.settings.search import SearchSettings
from ropewalk.settings.windows import perhaps_thousands
from ropewalk.training.setup import on_disk

_TOO_SHORT = (
    "a search scores documents that fill the window of {min_tokens} tokens, but none does: the longest of {skipped} has {longest}; give "
    "longer documents, or a smaller --window"
)


@dataclass(frozen=True)
class FoundFactors:
    """What a search found.

    Attributes:
        method: of `extend`, for which it is.
        window, original_window: tokens.
        factors: a factor a pair.
        perplexity: with it, on the sample.
        starts: the same with the vectors that the search began with, by their methods.
        out: the file.
    """

    method: str
    window: int
    original_window: int
    factors: Vector
    perplexity: float
    starts: dict[str, float]
    out: Path


@takes(SearchSettings)
def search(settings: SearchSettings) -> FoundFactors:
    """Search a factor a pair for a longer window. Under torchrun its documents are shared out over the ranks.

    Returns:
        The best vector, which lies in `out` too.

    Raises:
        UserError: a window that is not longer, no document that fills it, a model with dynamic scaling; `out` holds something else, or
            another search.
    """
    ranks.join()
    checkpoint = Checkpoint.open(settings.model, **settings.opening)
    rope_config = _searchable(checkpoint.rope, settings.window)
    identity = {name: getattr(settings, name) for name in ("window", "method", "population", "mutation", "seed")}
    identity["model"] = checkpoint.fingerprint
    out = Path(settings.out)
    ranks.first(lambda: _refuse_taken(out, identity, overwrite=settings.overwrite))  # before anything is loaded
    with on_disk(_unscaled(checkpoint, rope_config)) as unscaled:
        loaded = open_model(unscaled, dtype=settings.dtype, device=settings.device)
    documents, _ = select_documents(
        loaded.tokenizer,
        settings.data,
        min_tokens=settings.window,
        refusal=_TOO_SHORT,
        limit=settings.documents,
        max_tokens=settings.window,
    )
    passes = [
        Pass(document.ids[: settings.window], settings.window - max(1, document.prefix)) for document in documents
    ]
    identity["tokens"] = hashlib.sha256(b"".join(each.ids.tobytes() for each in passes)).hexdigest()[:16]
    with disk_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        ranks.first(lambda: stack.enter_context(locked(out)))
        return _evolve(loaded, rope_config, passes, settings, identity)


def _searchable(rope_config: RopeConfig, window: int) -> RopeConfig:
    """The RoPE that vectors are relative to."""
    refuse_untrainable(rope_config.scaling)
    if window <= rope_config.window:
        raise UserError(
            f"window {window} is not longer than the model's own {rope_config.window}{perhaps_thousands(window, rope_config.window)}; search for more than {rope_config.window} tokens"
        )
    if isinstance(rope_config.scaling, Plain):
        return dataclasses.replace(rope_config, rope=dataclasses.replace(rope_config.rope, window=rope_config.window))
    return rope_config


def _unscaled(checkpoint: Checkpoint, rope_config: RopeConfig) -> Checkpoint:
    """The model without its scaling: what that does beside rotating, the vectors do not (DeepSeek's mscale_all_dim, tables by length)."""
    rope = rope_config.rope
    if isinstance(rope_config.scaling, Plain):
        return checkpoint
    block = block_for(Plain(), rope, window=rope.window, steps=0, history=[])
    return checkpoint.with_config(write_rope(checkpoint.config, Plain(), window=rope.window, rope=rope, block=block))


def _evolve(
    loaded: LoadedModel,
    rope_config: RopeConfig,
    passes: Sequence[Pass],
    settings: SearchSettings,
    identity: dict[str, Any],
) -> FoundFactors:
    rope, factor = rope_config.rope, settings.window / rope_config.rope.window
    say_of_scores(rope_config.scaling, _scaling(settings.method, factor, (1.0,)), rope)
    plan = Search(rope, factor, settings.population, settings.mutation, settings.seed)
    out = Path(settings.out)
    state = ranks.first(lambda: _state(out, identity, overwrite=settings.overwrite))
    with Progress(
        "generations of the search", settings.generations + 1, done=state["generation"], news=True
    ) as advance:
        for generation in range(state["generation"], settings.generations + 1):
            survivors, scored = from_json(state["survivors"]), from_json(state["scored"])
            for vector in plan.candidates(generation, survivors)[len(scored) :]:
                score = _perplexity(
                    loaded, rope_config, _scaling(settings.method, factor, vector), passes, settings.batch_tokens
                )
                scored.append(Scored(vector, score))
                state["scored"] = as_json(scored)
                _write(out, state, settings, rope.window)
            if generation == 0:
                starts = dict(zip(plan.starts(), scored, strict=False))
                state["starts"] = {method: each.score for method, each in starts.items()}
            best = plan.survivors([*survivors, *scored])
            state |= {"generation": generation + 1, "survivors": as_json(best), "scored": []}
            _write(out, state, settings, rope.window)
            advance(
                1,
                f"generation {generation}: perplexity {best[0].score:.4f}, at first {min(state['starts'].values()):.4f}",
            )
    best = from_json(state["survivors"])[0]
    return FoundFactors(
        settings.method, settings.window, rope.window, best.factors, best.score, dict(state["starts"]), out
    )


def _scaling(method: str, factor: float, vector: Vector) -> Scaling:
    return LongRope(factor, vector, vector) if method == LongRope.method else Factors(factor, vector)


def _perplexity(
    loaded: LoadedModel, rope_config: RopeConfig, scaling: Scaling, passes: Sequence[Pass], batch_tokens: int | None
) -> float:
    """Of the sample, token-weighted, with a scaling in the model's rotary tables; infinite where the model gives no number."""
    pin_rope(loaded.model, dataclasses.replace(rope_config, scaling=scaling))
    local = range(ranks.rank(), len(passes), ranks.size())
    scored = negative_log_likelihoods(loaded.model, [passes[place] for place in local], batch_tokens=batch_tokens)
    nlls = ranks.gathered({place: float(nll.sum()) for place, nll in zip(local, scored, strict=True)})
    mean = math.fsum(nlls.values()) / sum(each.scored for each in passes)
    return math.inf if math.isnan(mean) else exp(mean)


def _refuse_taken(out: Path, identity: dict[str, Any], *, overwrite: bool) -> None:
    """Raises UserError for a file that cannot be written, is being written, or is not of this search."""
    refuse_unwritable(out.parent)
    refuse_locked(out)
    _state(out, identity, overwrite=overwrite)


def _state(out: Path, identity: dict[str, Any], *, overwrite: bool) -> dict[str, Any]:
    """The state of a search that `out` holds, or a new one.

    Raises:
        UserError: `out` holds something else, or a search with other settings, model or text.
    """
    new: dict[str, Any] = {"identity": identity, "generation": 0, "survivors": [], "scored": [], "starts": {}}
    if not out.exists():
        return new
    state = read_json(out, what="a search's --out is a file that a search wrote").get("search")
    if not isinstance(state, dict) or state.keys() != new.keys():
        raise UserError(f"--out names a file of a search, and {out} holds something else; choose another")
    if overwrite:
        return new
    different = [name for name, value in identity.items() if state["identity"].get(name) != value]
    if different:
        raise UserError(
            f"{out} holds a search of another {different[0]}; give the same one to go on with it, add --overwrite, or choose another --out"
        )
    return state


def _write(out: Path, state: dict[str, Any], settings: SearchSettings, original: int) -> None:
    """The file, whole at every moment: what is best so far, and the state."""
    if ranks.rank() > 0:
        return
    best = min((*state["survivors"], *state["scored"]), key=lambda each: each["score"])
    content = {
        "method": settings.method,
        "window": settings.window,
        "original_window": original,
        "perplexity": best["score"],
        "short_factor": list(best["factors"]),
        "long_factor": list(best["factors"]),
        "search": state,
    }
    write_whole(out, json.dumps(content) + "\n")
