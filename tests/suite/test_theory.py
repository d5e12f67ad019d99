"""`ropewalk theory`: tables, figures and records from a config alone."""

import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as tree
from functools import partial

import pytest

from ropewalk import records
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.cli.tables.theory import show_theory
from ropewalk.errors import UserError
from ropewalk.figures import theory as theory_figures
from ropewalk.model.extend import extended_config
from ropewalk.reports.rows import clean
from ropewalk.rope.scaling import EXTENDING, Abf, Plain, Rope
from ropewalk.settings.scaling import ScalingOptions
from ropewalk.suite import theory as module
from ropewalk.suite.theory import forecast, theory

CONFIG = {
    "model_type": "gpt_neox",
    "hidden_size": 64,
    "num_attention_heads": 4,
    "rotary_pct": 0.25,
    "rotary_emb_base": 10000,
    "max_position_embeddings": 512,
}
FIGURES = (
    "figure-2",
    "figure-2-followed-farther",
    "figure-5",
    "figure-5-followed-farther",
    "angular-resolution",
)


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    return str(path)


def test_a_config_alone_gives_tables_figures_and_records(model, tmp_path, capsys):
    out = tmp_path / "out"
    result = theory(model, window=2048, out=out)
    # Partial rotary: a quarter of heads of 16 coordinates.
    assert (result.rope.head_dim, result.rope.window, result.bounds.factor) == (4, 512, 4)
    assert {path.name for path in out.iterdir()} == {f"{n}.{e}" for n in FIGURES for e in ("svg", "pdf", "png")} | {
        "theory.jsonl",
        "run.yaml",
        ".ropewalk.json",
    }
    for name in FIGURES:
        assert tree.parse(out / f"{name}.svg").getroot().tag.endswith("svg")
    show_theory(result)
    short = capsys.readouterr().out
    assert short.startswith("At factor 4 under YaRN, no pair reaches an angle that training never showed")
    assert "rope_theta" not in short and "--full" in short
    show_theory(result, full=True)
    printed = capsys.readouterr().out
    assert "4 rotated coordinates a head, rope_theta 10000" in printed
    assert f"{result.bounds.interpolation:.4f}" in printed


def test_every_row_can_be_put_on_the_page(model, tmp_path):
    result = theory(model, window=2048, out=tmp_path / "out")
    kept = clean(records.read([tmp_path / "out" / "theory.jsonl"]))
    assert len(kept.measurements) == len(result.rows)
    assert kept.left_out == records.LeftOut()


def test_without_a_model_it_is_llamas_and_needs_no_torch(tmp_path):
    command = "import sys; from ropewalk import cli; cli.main(['theory', '--full']); assert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", command], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for figure in ("0.4343 (false)", "0.4998", "0.4939", "d / 294.73", "589", "512", "128", "1.1159", "0.6292"):
        assert figure in done.stdout
    assert "--out DIR" in done.stdout
    assert not list(tmp_path.iterdir())


def test_a_directory_that_is_there_is_left_alone_unless_told(model, tmp_path):
    kept = tmp_path / "out" / "mine.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    with pytest.raises(UserError, match="choose another --out$"):  # --overwrite would be refused
        theory(model, out=kept.parent)
    with pytest.raises(UserError, match="replaces only what ropewalk made"):
        theory(model, window=1024, out=kept.parent, overwrite=True)
    assert kept.read_text() == "mine"
    for window in (1024, 2048):
        theory(model, window=window, out=tmp_path / "ours", overwrite=True)
    (tmp_path / "ours/figure-2.svg").unlink()
    (tmp_path / "ours/figure-9.svg").write_text("mine")
    with pytest.raises(UserError, match="did not make .*figure-9.svg"):
        theory(model, window=1024, out=tmp_path / "ours", overwrite=True)


@pytest.mark.parametrize(
    ("inside", "said"),
    [("", "replaces a directory that ropewalk made, but .* is a file"), ("/x", "is a file and no dir")],
)
def test_a_file_in_the_place_of_the_directory_is_left_alone(model, tmp_path, inside, said):
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match=said):
        theory(model, out=tmp_path / f"mine{inside}", overwrite=True)
    assert (tmp_path / "mine").read_text() == "mine"


def test_the_papers_models_are_known_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "forecast", partial(forecast, seeds=1))
    monkeypatch.setattr(module, "write", lambda *_: None)
    result = theory("llama-65b", window=4096, out=tmp_path / "out")
    assert (result.name, result.rope) == ("llama-65b", Rope(128, 10000.0, 2048))
    with pytest.raises(
        UserError,
        match="llama-30b is no directory here and none of the models that are known by name.*, or one of hemp, llama-7b, ",
    ):
        theory("llama-30b", out=tmp_path / "other")


@pytest.mark.parametrize("window", [256, 0, -1, 10**10])
def test_a_window_that_cannot_be_is_refused_and_nothing_written(model, tmp_path, window):
    with pytest.raises(UserError, match=r"got .+; "):
        theory(model, window=window, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (2048, r"at most 1024 rotated coordinates, got 2048, .* take about \d+\.\d GiB; "),
        (10**9, "at most 65536, got 4000000000"),
    ],
)
def test_a_head_too_wide_to_work_out_is_refused_before_anything_is_allocated(tmp_path, monkeypatch, width, said):
    monkeypatch.setattr(Rope, "inv_freq", lambda self: pytest.fail("allocated"))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | {"head_dim": 4 * width}))
    with pytest.raises(UserError, match=said):
        theory(str(tmp_path), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_model_that_was_extended_is_looked_at_as_it_turns(tmp_path):
    """Llama 3.1 turns its slow pairs 8 times slower in a window 16 times as long: twice past what training showed."""
    block = dict(factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
    config_dict = dict(model_type="llama", head_dim=128, max_position_embeddings=131072, rope_theta=500000.0)
    (tmp_path / "config.json").write_text(json.dumps(config_dict | {"rope_scaling": {"rope_type": "llama3", **block}}))
    own = {row.method: row for row in theory(str(tmp_path), out=tmp_path / "own").resolution}
    assert own["llama3"].factor == 8
    assert own["llama3"].overshoot == pytest.approx(2)
    assert own["llama3"].unseen == own["plain"].incomplete
    # What is concluded is of the scaling that the model has, in the factor of its windows.
    assert theory(str(tmp_path), out=tmp_path / "own", overwrite=True).conclusion.startswith(
        "At factor 16 under Llama 3 scaling, 45% of the pairs reach angles that training never showed, the farthest 2.0 "
    )
    # Asked for another window, it is no longer the model's own scaling that reaches it.
    other = theory(str(tmp_path), window=262144, out=tmp_path / "other").resolution
    assert [row.factor for row in other if row.method == "llama3"] == [32]


def test_abf_has_the_rope_theta_of_ablate_or_of_a_model_that_has_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    rows = theory(str(tmp_path), window=2048, out=tmp_path / "base").resolution
    assert [row.scaling for row in rows if row.method == "abf"] == [Abf(4.0, 50 * CONFIG.get("rope_theta", 10000.0))]
    options = ScalingOptions(method="abf", rope_theta=5e5)
    longer = extended_config(Checkpoint.open(tmp_path), window=2048, options=options)
    (tmp_path / "config.json").write_text(json.dumps(longer))
    own = {row.method: row.scaling for row in theory(str(tmp_path), out=tmp_path / "own").resolution}
    assert own["abf"] == Abf(4.0, 5e5)


def test_an_extended_model_is_looked_at_in_its_own_window(tmp_path):
    config_dict = CONFIG | {"max_position_embeddings": 2048, "rope_scaling": {"rope_type": "linear", "factor": 4.0}}
    (tmp_path / "config.json").write_text(json.dumps(config_dict))
    result = theory(str(tmp_path), current_window=2048, out=tmp_path / "out")
    assert (result.rope.window, result.reach) == (512, 2048)


def test_tables_fit_a_terminal_of_80_columns_a_line_a_row(model, tmp_path, capsys):
    show_theory(dataclasses.replace(theory(model, window=1400, out=tmp_path / "out"), name="model"), full=True)
    printed = capsys.readouterr().out.splitlines()
    assert max(map(len, printed)) <= 80
    for row in (
        "at ×2.734 (0.503 of a step)",
        "extrapolation, 2 B(s), lowest",
        "under a turn",
        "at unseen angles",
    ):
        line = next(line for line in printed if row in line)
        assert line.split(row)[1].strip(), row  # its figures stand beside it, not on a line of their own


def test_a_model_without_rope_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_positions": 64}')
    with pytest.raises(UserError, match="a gpt2 model, has none on record; choose a RoPE model"):
        theory(str(tmp_path))


def test_at_its_own_window_there_is_nothing_to_scale():
    result = forecast(Rope(64, 10000.0, 256), 256, seeds=2)
    assert result.scalings == [Plain()]
    assert result.conclusion == "In its own window, no pair reaches an angle that training never showed."
    assert result.bounds.at_factor == 0


@pytest.mark.parametrize("rope", [Rope(2, 10000.0, 16), Rope(256, 1e9, 64), Rope(64, 1.5, 128)])
def test_odd_rotations_are_drawn_without_a_warning(rope):
    result = forecast(rope, 8 * rope.window, seeds=2)
    for figure in (
        theory_figures.figure_2(rope),
        theory_figures.growth(result.growth),
        theory_figures.figure_5(rope, reach=8 * rope.window),
        theory_figures.resolution(rope, result.scalings),
    ):
        figure.canvas.draw()


def test_the_honest_figure_marks_the_lowest_point():
    figure = theory_figures.figure_5(Rope(128), reach=32768)
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "lowest: 0.629 at 22297" in labels


def test_every_method_of_extend_is_in_the_table_or_named_as_left_out(capsys) -> None:
    """ABF, LongRoPE and others that need a number beside the window were missing without a word."""
    result = forecast(Rope(128, 10000.0, 2048), 32768)
    shown = {row.method for row in result.resolution}
    assert shown | set(result.left_out) >= set(EXTENDING) and not shown & set(result.left_out)
    assert "abf" in shown and "--factors" in result.left_out["longrope"]
    show_theory(result)
    assert "Not in the table: longrope." in capsys.readouterr().out
    given = forecast(Rope(128, 10000.0, 2048), 32768, scaling=Abf(16.0, 7e5))
    assert Abf(16.0, 7e5) in {row.scaling for row in given.resolution}
    assert json.loads(json.dumps(result.to_dict()))["left_out"] == result.left_out
    assert not forecast(Rope(128, 10000.0, 2048), 2048).left_out
