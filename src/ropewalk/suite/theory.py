"""`ropewalk theory`: what extending will do to a model, from its config.json alone, before a GPU hour is spent.

in   a model's name (or LLaMA's numbers) and a window
out  a `Forecast`; figures as SVG, PDF and PNG and rows of records in a directory

No weight is read and torch is never imported.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ropewalk import records
from ropewalk.checkpoint.architecture import hurdles
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.class_defaults import with_defaults
from ropewalk.checkpoint.files import whole_directory
from ropewalk.checkpoint.layers import LayerLayout
from ropewalk.checkpoint.model_info import ModelInfo, info_of
from ropewalk.checkpoint.read_layers import read_layers
from ropewalk.checkpoint.read_rope import read_rope
from ropewalk.checkpoint.window import Answers
from ropewalk.errors import UserError
from ropewalk.planner.known_models import known_model
from ropewalk.readers.spelling_checks import warn_of_spellings
from ropewalk.records.choice import settled
from ropewalk.rope.bounds import Bounds, bounds
from ropewalk.rope.growth import Growth, check_size, growth
from ropewalk.rope.resolution import Resolution, left_out, resolution, scalings_for
from ropewalk.rope.scaling import Plain, Rope, Scaling
from ropewalk.settings import run_file
from ropewalk.settings.command import takes
from ropewalk.settings.extras import bringing, installed
from ropewalk.settings.inputs import inputs_of
from ropewalk.settings.pages import TheorySettings

#: LLaMA 7B's rotation (Chen et al. 2023, section 3.1; Touvron et al. 2023), for want of a model.
LLAMA = Rope(128, 10000.0, 2048)
_logger = logging.getLogger(__name__)
_LLAMA_INFO = ModelInfo(
    "LLaMA", "llama", LLAMA.window, LLAMA.window, rope_theta=LLAMA.rope_theta, head_dim=LLAMA.head_dim
)
_LLAMA_CONFIG: dict[str, Any] = {"model_type": "llama"}
#: The paper goes from 2048 to 32768; a model that was not extended is looked at as far beyond its own window.
_FACTOR = 16


@dataclass(frozen=True)
class Forecast:
    """What `forecast` computed: rows that go on record, with the rotation and the scalings they are about.

    own: the method that is concluded of, which is the one that `extend` goes on with: the model's, else YaRN.
    name, layout, out, hurdles: the model's, which of its layers rotate and slide, the directory of the figures, and what of its architecture
    makes a longer window harder to reach, where `theory` made it.
    left_out: methods of `extend` that have no scaling here → why.
    """

    rope: Rope
    reach: int
    scalings: list[Scaling]
    bounds: Bounds
    growth: list[Growth]
    resolution: list[Resolution]
    own: str = Plain.continued_by
    name: str = ""
    layout: LayerLayout | None = None
    out: Path | None = None
    hurdles: tuple[str, ...] = ()
    left_out: dict[str, str] = field(default_factory=dict)

    @property
    def rows(self) -> list[Bounds | Growth | Resolution]:
        return [self.bounds, *self.growth, *self.resolution]

    @property
    def conclusion(self) -> str:
        """What the window does to the angles, under one method and without any."""
        unscaled, *others = self.resolution
        if not others:
            return f"In its own window, {unscaled.angles_in_words}."
        row = next((row for row in others if row.method == self.own), others[0])
        return (
            f"At factor {self.bounds.factor:.4g} under {row.scaling.label}, {row.in_words}. "
            f"Without a scaling, {unscaled.angles_in_words}."
        )

    def to_dict(self) -> dict[str, Any]:
        """For JSON: the rows as `theory.jsonl` has them, and what they are about."""
        about = {
            "conclusion": self.conclusion,
            "model": self.name,
            "layers": str(self.layout or ""),
            "out": str(self.out or ""),
            "left_out": self.left_out,
        }
        turns = {"original_window": self.rope.window, "window": self.reach, "rope_theta": self.rope.rope_theta}
        rows = [json.loads(records.to_line(row)) for row in self.rows]
        return {**about, **turns, "head_dim": self.rope.head_dim, "rows": rows}


def forecast(rope: Rope, reach: int, *, scaling: Scaling | None = None, seeds: int = 20) -> Forecast:
    """Bounds, growth and angular resolution of one rotation in a window of `reach` tokens.

    Args:
        rope: as pretrained.
        reach: the window asked for, tokens; at least the pretraining window.
        scaling: of a model that reads `reach` tokens already.
        seeds: draws of targets for figure 2's growth.

    Raises:
        UserError: a window below the model's own, or absurd; a head that would not fit in memory.
    """
    check_size(rope, reach)
    if reach < rope.window:
        raise UserError(
            f"a window to extend to is at least the model's own {rope.window} tokens, got {reach}; ask for a longer one"
        )
    scalings = scalings_for(rope, reach, scaling)
    return Forecast(
        rope=rope,
        reach=reach,
        scalings=scalings,
        bounds=bounds(rope, reach),
        growth=growth(rope, max(reach, 2 * rope.window), seeds=seeds),
        resolution=[resolution(rope, scaling, reach) for scaling in scalings],
        left_out=left_out(rope, reach, scaling),
    )


@takes(TheorySettings)
def theory(settings: TheorySettings) -> Forecast:
    """What the theory says of a model in a longer window, and its figures on disk. No weights, no GPU, under ten seconds.

    Returns:
        All that was computed; figures and `theory.jsonl` are in its directory `out`, None where none was named.

    Raises:
        UserError: a window below the model's own or absurd, a directory that is taken, a head that would not fit in memory.
    """
    known = None if settings.model is None else known_model(settings.model)
    model, config, layout, checkpoint = _LLAMA_INFO, _LLAMA_CONFIG, None, None
    if known is not None:
        name, config = known
        layout = read_layers(with_defaults(config))
        model = info_of(read_rope(config, answers=Answers()).answered(), name=name)
    elif settings.model is not None:
        checkpoint = Checkpoint.open(settings.model, **settings.opening)
        model, config = checkpoint.info, checkpoint.config
        warn_of_spellings(checkpoint)
    rope, reach = _rope_and_reach(model, settings.window)
    out = None if settings.out is None else Path(settings.out)
    overwrite, inputs = settings.overwrite, inputs_of(settings)
    # What is there already is refused before anything is worked out.
    with (
        contextlib.nullcontext() if out is None else whole_directory(out, overwrite=overwrite, inputs=inputs) as beside
    ):
        result = forecast(rope, reach, scaling=model.scaling if reach == model.window else None)
        run = records.new_run(model, device="cpu", dtype="float64", settings={"window": reach})
        if beside is not None:
            write(result, run, beside)
            run_file.write(settings, beside)
    layout = layout if checkpoint is None else checkpoint.layers  # after the rotation, which not every model has
    counted = hurdles(config, layout, model.original_window)
    own = settled("auto", {}, model, reach)
    if own == "auto":
        own = Plain.continued_by if isinstance(model.scaling, Plain) else model.scaling.method
    return dataclasses.replace(result, own=own, name=model.name, layout=layout, out=out, hurdles=counted)


def put_on_record(model: ModelInfo, out: Path) -> Forecast:
    """The rows alone, in a model's own window, appended to a record file: for a page that shows them among others."""
    rope, reach = _rope_and_reach(model, None)
    result = forecast(rope, reach, scaling=model.scaling)
    recorder = records.Recorder(out, records.new_run(model, device="cpu", dtype="float64", settings={"window": reach}))
    for row in result.rows:
        recorder.add(row)
    return result


def _rope_and_reach(model: ModelInfo, window: int | None) -> tuple[Rope, int]:
    """The rotation as pretrained; the window asked for, else the model's own, else 16 times what it was pretrained for."""
    rope = model.rope
    if window is None:
        window = model.window if model.window > rope.window else _FACTOR * rope.window
    return rope, window


def write(result: Forecast, run: records.Run, out: Path) -> None:
    """The figures as SVG, PDF and PNG where matplotlib is installed, and the rows as `theory.jsonl`."""
    recorder = records.Recorder(out / "theory.jsonl", run)
    for row in result.rows:
        recorder.add(row)
    if not installed("matplotlib"):
        _logger.warning("no figure is drawn without matplotlib; %s", bringing("matplotlib"))
        return
    from ropewalk.figures import measured
    from ropewalk.figures import theory as theory_figures

    drawn = {
        "figure-2": theory_figures.figure_2(result.rope),
        "figure-2-followed-farther": theory_figures.growth(result.growth),
        "figure-5": theory_figures.figure_5(result.rope),
        "figure-5-followed-farther": theory_figures.figure_5(
            result.rope, reach=max(result.reach, 2 * result.rope.window)
        ),
        "angular-resolution": theory_figures.resolution(result.rope, result.scalings),
    }
    for name, figure in drawn.items():
        measured.save_thrice(figure, out, name)
