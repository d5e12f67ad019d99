"""The notebook and the programs in pages run: one cell or block after the other, in one namespace."""

from __future__ import annotations

import json
import re
import shutil
import sysconfig
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_the_notebook_runs_and_holds_no_outputs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cells = [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert cells and not any(cell["outputs"] or cell["execution_count"] for cell in cells)
    names: dict[str, object] = {}
    for cell in cells:
        exec(compile("".join(cell["source"]), path.name, "exec"), names)  # noqa: S102


def test_the_program_in_the_python_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it stands there, with two of the standard library's modules in the place of books."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-books").mkdir()
    for name in ("argparse", "calendar"):
        shutil.copy(Path(sysconfig.get_path("stdlib"), f"{name}.py"), tmp_path / "my-books" / f"{name}.txt")
    guide = (Path(__file__).resolve().parents[2] / "docs/api.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"```python\n(import ropewalk\n.*?)```", guide, re.DOTALL)
    names: dict[str, object] = {}
    exec(compile(program, "api.md", "exec"), names)  # noqa: S102
    assert "YaRN ×4, before training" in capsys.readouterr().out and (tmp_path / "page.html").is_file()
    assert re.search(r"<tr><td>perplexity</td><td>256</td>.*<td>1024</td>", names["rows"]._repr_html_())
