"""The stages of the paper's suite: of which models, on what, with which settings.

in   a model, its base, data, a size
out  stages, the cheap ones first, so that a suite that is cut short has told most
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.data.documents import digest_of, kind_of
from ropewalk.data.sliding import sliding
from ropewalk.data.stdlib import standard_library
from ropewalk.distributed import ranks
from ropewalk.errors import UserError
from ropewalk.evals.checkpoints_of_run import models_in
from ropewalk.model.load import load_tokenizer
from ropewalk.rope.scaling import Linear
from ropewalk.settings.downstream import BenchmarkTask, EvaluateSettings
from ropewalk.settings.scaling import parameter_names
from ropewalk.suite.size import Size
from ropewalk.suite.stages import Stage


@dataclass(frozen=True)
class Suite:
    """What is measured, on what; `stages` says in which order. It is written into `work`, and lies at `out` when all is done."""

    settings: EvaluateSettings
    size: Size
    work: Path

    @property
    def out(self) -> Path:
        return Path(self.settings.out)

    @cached_property
    def model(self) -> Checkpoint:
        return Checkpoint.open(self.settings.model, **self.settings.opening)

    @cached_property
    def base(self) -> Checkpoint | None:
        return None if self.settings.base is None else self.model.open_base(self.settings.base)

    def _open(self, made_of_it: Path) -> Checkpoint:
        return Checkpoint.open(made_of_it, trust_remote_code=self.model.trust_remote_code)

    @property
    def records(self) -> Path:
        return self.work / "records.jsonl"

    @property
    def data(self) -> Any:
        """Long documents; the standard library's held-out modules where none were named."""
        return self.settings.data if self.settings.data is not None else standard_library("held_out")

    @property
    def loading(self) -> dict[str, Any]:
        """All of it that decides a figure."""
        return {name: value for name, value in self.settings.loading.items() if name != "shard"}

    def stages(self) -> Iterator[Stage]:
        """All of them, once `prepare` was called. A model is measured at all windows, a checkpoint on the way at its own window alone."""
        info = self.model.info
        windows = doubling(info.original_window, info.window)
        models = [*self._before(), *self._checkpoints(), (self.model, info.window, True)]
        for model, window, _ in models:
            yield self._passkey(model, _of_prompts(model, window))
        for model, _, at_all_windows in models:
            yield from self._perplexity(
                model, windows if at_all_windows else windows[-1:], stride=self._stride(windows[0])
            )
        for model, window, at_all_windows in models:
            if at_all_windows:
                yield from self._retrieval(model, _of_prompts(model, window))
        yield self._benchmarks()
        yield self._attention(min(info.window, self.size.attention_window))
        yield self._theory()
        if self.settings.pairs is not None:
            yield self._summaries()

    @property
    def _untrained(self) -> Path | None:
        """Directory of the model as it was before its first training step; None where that cannot be made."""
        return self.work / "untrained" if self.model.info.steps and self._extension else None

    @property
    def _extension(self) -> dict[str, Any]:
        """How `extend` makes the model of its base, as its config's history has it: one step, or several of Position Interpolation."""
        if self.base is None:
            return {}
        own, before = (each.positions.block.get("history", []) for each in (self.model, self.base))
        steps = own[len(before) :]
        if not steps or (len(steps) > 1 and {step["method"] for step in steps} != {Linear.method}):
            return {}
        given = {name: steps[-1][name] for name in parameter_names() if name in steps[-1]}
        raised = any(step.get("raised_sliding_window") for step in steps)
        return {"method": steps[-1]["method"], "raise_sliding_window": raised} | given

    def prepare(self) -> None:
        """Write the untrained model: no weights but the base's, which are linked."""
        if self.base is not None and self._untrained is not None and not self._untrained.exists():
            from ropewalk.model.extend import extend

            # The base carries whether its code is trusted.
            extend(self.base, window=self.model.info.window, out=self._untrained, **self._extension)

    def _before(self) -> Iterator[tuple[Checkpoint, int, bool]]:
        """The base and the untrained model: (checkpoint, its window, whether it is measured at all windows)."""
        if self.base is not None:
            yield self.base, self.base.info.window, True
        if self._untrained is not None:
            untrained = dataclasses.replace(self._open(self._untrained), name=str(self.out / "untrained"))
            yield untrained, self.model.info.window, False

    def _checkpoints(self) -> Iterator[tuple[Checkpoint, int, bool]]:
        """Checkpoints of the model's training, evenly chosen; the last step is the model itself."""
        earlier = [self._open(path) for path in models_in(self.model.path)]
        earlier = [checkpoint for checkpoint in earlier if checkpoint.info.steps != self.model.info.steps]
        every = max(1, -(-len(earlier) // self.size.checkpoints)) if self.size.checkpoints else len(earlier) + 1
        for checkpoint in earlier[::every]:
            yield checkpoint, checkpoint.info.window, False

    def _stride(self, smallest: int) -> int:
        stride = max(1, smallest // self.size.strides)
        return min(stride, 256) if self.size.paper_stride else stride

    def _tokens_each(self, stride: int) -> int | None:
        past = self.size.strides_past
        return None if past is None else self.model.info.window + past * stride

    def _documents(self, stride: int) -> int | None:
        """How many documents are scored: the same for every model and window, so that all of them are comparable."""
        length = self._tokens_each(stride)
        if self.size.documents is None or length is None:
            return self.size.documents
        info = self.model.info
        windows = doubling(info.original_window, info.window)
        cost = sum(len(sliding(length, window, stride)) * self._flops(window) for window in windows)
        return self.size.affordable(self.size.documents, cost, least=2)

    def _flops(self, window: int) -> float:
        """Of one forward pass over a window: two for each weight and token, and the attention of its lower triangle."""
        text = self.model.text_config
        attention = 2.0 * text.get("num_hidden_layers", 0) * text.get("hidden_size", 0) * window
        return window * (2.0 * self.model.info.parameters + attention)

    def _stage(
        self,
        name: str,
        model: Checkpoint,
        measure: Callable[..., Any],
        written: dict[str, Any] | None = None,
        **settings: Any,
    ) -> Stage:
        """written: settings that name where something is written, which is no part of what is measured."""
        opening = {name: value for name, value in self.settings.opening.items() if value}
        about = {**settings, **self.loading, "whole": _whole(model), "texts": _texts(settings), **opening}
        if self.base is not None and settings.get("base") is not None:
            about |= {"base": str(self.base), "base_whole": _whole(self.base)}
        return Stage(
            name,
            str(model),
            about,
            lambda: measure(model, out=self.records, **settings, **(written or {}), **self.settings.loading),
        )

    def _perplexity(self, model: Checkpoint, windows: list[int], stride: int) -> Iterator[Stage]:
        from ropewalk.evals.perplexity.measure import perplexity

        for data in (self.data, self.settings.math):
            if data is not None:
                yield self._stage(
                    "perplexity",
                    model,
                    perplexity,
                    data=_listed(data),
                    windows=windows,
                    stride=stride,
                    limit=self._documents(stride),
                    max_tokens=self._tokens_each(stride),
                    min_tokens=self.model.info.window,
                    budget=self.settings.budget,
                    seed=self.settings.seed,
                )

    def _passkey(self, model: Checkpoint, window: int) -> Stage:
        from ropewalk.evals.retrieval.passkey import passkey

        depths = self.size.depths
        trials = self.size.affordable(self.size.trials, depths * self._flops(window), least=1)
        return self._stage(
            "passkey", model, passkey, window=window, depths=depths, trials=trials, seed=self.settings.seed
        )

    def _retrieval(self, model: Checkpoint, window: int) -> Iterator[Stage]:
        """The families that fit the window; those that do not are a stage of their own, which is left out and says why."""
        from ropewalk.evals.retrieval import FAMILIES, least_windows, retrieval

        trials = self.size.affordable(self.size.prompts, len(FAMILIES) * self._flops(window), least=2)
        least = least_windows(load_tokenizer(model), trials, self.settings.seed)
        for fits in (True, False):
            families = [family for family, tokens in least.items() if (tokens <= window) == fits]
            if families:
                settings = dict(families=families, window=window, trials=trials, seed=self.settings.seed)
                yield self._stage("retrieval", model, retrieval, **settings)

    def _benchmarks(self) -> Stage:
        from ropewalk.evals.downstream.benchmarks import benchmarks

        data = None if self.settings.benchmarks is None else str(self.settings.benchmarks)
        return self._stage("benchmarks", self.model, benchmarks, data=data, base=self.base, limit=self.size.items)

    def _attention(self, window: int) -> Stage:
        from ropewalk.evals.attention import attention

        return self._stage("attention", self.model, attention, data=_listed(self.data), window=window, base=self.base)

    def _theory(self) -> Stage:
        from ropewalk.suite.theory import put_on_record

        settings = {"whole": _whole(self.model)}

        def measure() -> None:
            if ranks.rank() == 0:
                put_on_record(self.model.info, self.records)

        return Stage("theory", str(self.model), settings, measure)

    def _summaries(self) -> Stage:
        from ropewalk.evals.downstream.summary import summarize

        train: dict[str, Any] = {}
        if self.settings.train_pairs is not None:
            train = {
                "train": _listed(self.settings.train_pairs),
                "written": {"trained": str(self.work / "summarizer")},
                "epochs": self.size.epochs,
            }
        return self._stage(
            "summaries", self.model, summarize, data=_listed(self.settings.pairs), limit=self.size.summaries, **train
        )


def doubling(first: int, last: int) -> list[int]:
    """Windows as the paper's columns: the original one, twice that, and so on, up to the model's own."""
    windows = [first]
    while windows[-1] * 2 < last:
        windows.append(windows[-1] * 2)
    return [*windows, last] if last > first else windows


def _listed(sources: Any) -> list[str]:
    return [str(sources)] if isinstance(sources, str | Path) else [str(source) for source in sources]


def _whole(checkpoint: Checkpoint) -> str:
    """A checkpoint's fingerprint: another model under the same name is measured anew. Empty where files are damaged, which its stage says."""
    try:
        return checkpoint.fingerprint
    except UserError:
        return ""


def _texts(settings: dict[str, Any]) -> list[str]:
    """What the files hold that a stage reads, hashed: another text under the same name is measured anew."""
    data, train = settings.get("data"), settings.get("train")
    if isinstance(data, str):  # the directory of the benchmarks
        data = [path for task in get_args(BenchmarkTask) for path in sorted(Path(data).glob(f"{task}.jsonl*"))]
    return [_text(each) for each in [*(data or []), *(train or [])]]


def _text(source: str | Path) -> str:
    """The hash of a source; its name where it lies on the hub, or cannot be read, which its stage will say."""
    try:
        return str(source) if kind_of(source) == "hub" else digest_of(source)
    except (UserError, OSError):
        return str(source)


def _of_prompts(model: Checkpoint, window: int) -> int:
    """The window of a retrieval prompt, tokens: a learned table, which does not rotate, must have positions for the answer too."""
    from ropewalk.evals.likelihood import ANSWER

    return window if model.info.head_dim else max(1, window - ANSWER)
