"""What a page costs: a figure is laid out once, a question about its rows is worked out once, and its verdicts do not hang on the order of a set."""

from __future__ import annotations

from matplotlib.layout_engine import ConstrainedLayoutEngine

from ropewalk.figures import style
from ropewalk.figures.measured import save_thrice
from ropewalk.reports.rows import Clean, once


def test_a_figure_of_the_page_that_is_also_written_to_three_files_is_laid_out_once(tmp_path, monkeypatch):
    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine, "execute", lambda self, figure: (laid_out.append(figure), execute(self, figure))
    )
    figure, axes = style.new()
    axes.plot([1, 2], [3, 4])
    style.svg(figure, "f", "title")
    position = axes.get_position().bounds
    save_thrice(figure, tmp_path, "f")
    assert len(laid_out) == 1
    assert (
        axes.get_position().bounds == position != (0.125, 0.11, 0.775, 0.77)
    )  # matplotlib's, where nothing is laid out
    assert {path.suffix for path in tmp_path.iterdir()} == {".svg", ".pdf", ".png"}


def test_a_figure_that_is_on_no_page_is_laid_out_before_it_is_written(tmp_path):
    figure, axes = style.new()
    axes.plot([1, 2], [3, 4])
    save_thrice(figure, tmp_path, "f")
    assert axes.get_position().bounds != (0.125, 0.11, 0.775, 0.77)


def test_a_question_is_worked_out_once_for_each_page_and_each_thing_it_names():
    asked = []

    @once
    def question(clean: Clean, of: int) -> int:
        asked.append(of)
        return 2 * of

    page, other = Clean({}, []), Clean({}, [])
    assert [question(page, 1), question(page, 1), question(page, 2), question(other, 1)] == [2, 2, 4, 2]
    assert asked == [1, 2, 1]
