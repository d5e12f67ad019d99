"""Nothing of anybody's is deleted or replaced: what `--overwrite` takes."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from directories import HOLDS, SIGNS, made, tree
from ropewalk.checkpoint import guard, marks
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.files import whole_directory, write_whole
from ropewalk.checkpoint.guard import refuse_existing, refuse_existing_file
from ropewalk.checkpoint.marks import MARK
from ropewalk.checkpoint.run_directory import run_directory
from ropewalk.errors import UserError


def _mine_beside(out: Path) -> None:
    (made(out) / "thesis.tex").write_text("mine")


def _mine_below(out: Path) -> None:
    (made(out) / "figures").mkdir()
    (out / "figures/thesis.tex").write_text("mine")


def _linked_in(out: Path) -> None:
    (out.parent / "mine").mkdir()
    (out.parent / "mine/thesis.tex").write_text("mine")
    (made(out) / "data").symlink_to(out.parent / "mine")


def _looks_like_a_model(out: Path) -> None:
    out.mkdir()
    (out / "config.json").write_text("{}")


def _a_file(out: Path) -> None:
    out.write_text("mine")


def _a_link_to_a_file(out: Path) -> None:
    (out.parent / "notes.txt").write_text("mine")
    out.symlink_to("notes.txt")


def _a_copy_beside_what_it_copies(out: Path) -> None:
    shutil.copytree(made(out / "model").parent / "model", out / "model copy")


def _a_mark_that_says_nothing(out: Path) -> None:
    (made(out) / MARK).write_text("[]")


def _a_model_card_that_was_written_into(out: Path) -> None:
    with open(made(out, **{"README.md": "made"}) / "README.md", "a") as file:
        file.write("mine")


@pytest.mark.parametrize(
    "lies_there",
    [
        _a_model_card_that_was_written_into,
        _mine_beside,
        _mine_below,
        _linked_in,
        _looks_like_a_model,
        _a_file,
        _a_link_to_a_file,
        _a_copy_beside_what_it_copies,
        _a_mark_that_says_nothing,
    ],
)
def test_what_ropewalk_did_not_make_is_never_replaced(tmp_path, lies_there):
    out = tmp_path / "out"
    lies_there(out)
    before = tree(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(UserError, match="another --out|overwrite"), whole_directory(out, overwrite=overwrite):
            pytest.fail("went on")
        with pytest.raises(UserError), run_directory(out, holds=HOLDS, signs=SIGNS, overwrite=overwrite):
            pytest.fail("went on")
    assert tree(tmp_path) == before


def _spelt(out: Path, how: str) -> Path:
    """Another spelling of a directory."""
    if how == "dots":
        return out.parent / "x" / ".." / out.name
    if how == "link":
        (out.parent / "link").symlink_to(out.name)
        return out.parent / "link"
    if how == "link above":
        (out.parent / "above").symlink_to(".")
        return out.parent / "above" / out.name
    return out


@pytest.mark.parametrize("how", ["plain", "dots", "link", "link above"])
@pytest.mark.parametrize("reads", ["", "data"])
def test_no_spelling_hides_that_an_input_would_go(tmp_path, how, reads):
    (tmp_path / "x").mkdir()
    out = made(tmp_path / "out", config="{}", data="text")
    spelt = _spelt(out, how)
    for written, read in ((spelt, out / reads), (out, spelt / reads)):
        with pytest.raises(UserError, match="all of .* would be replaced, and with it"):
            refuse_existing(written, overwrite=True, inputs=[read])


def test_a_model_made_of_links_into_a_directory_keeps_it(tmp_path):
    out = made(tmp_path / "out", weights="1")
    model = tmp_path / "model"
    model.mkdir()
    (model / "weights").symlink_to(out / "weights")
    with pytest.raises(UserError, match="and with it .*model"):
        refuse_existing(out, overwrite=True, inputs=[model])


@pytest.mark.parametrize("place", ["", "inside"])
def test_the_current_directory_and_home_stay(tmp_path, monkeypatch, place):
    out = made(tmp_path / "out")
    (out / "inside").mkdir()
    for stand in ("cwd", "home"):
        monkeypatch.chdir(out / place if stand == "cwd" else tmp_path)
        monkeypatch.setenv("HOME", str(out / place if stand == "home" else tmp_path))
        with pytest.raises(UserError, match="all of .* would be replaced"):
            refuse_existing(out, overwrite=True)
    monkeypatch.chdir(tmp_path / "out")
    (out / "inside").rmdir()
    shutil.copytree(out, tmp_path / "kept")
    for name in os.listdir(out):
        (out / name).unlink()
    with pytest.raises(UserError, match="all of .* would be replaced"), whole_directory("."):  # empty, and stood in
        pytest.fail("went on")


def test_an_empty_directory_is_written_to_and_a_link_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    made(tmp_path / "link", config="{}")
    made_again = tmp_path / "link"
    with whole_directory(made_again, overwrite=True) as beside:
        (beside / "config").write_text("new")
    assert made_again.is_symlink() and (tmp_path / "disk/config").read_text() == "new"
    assert sorted(os.listdir(tmp_path)) == ["disk", "link"]


def test_a_hard_link_elsewhere_keeps_what_it_had(tmp_path):
    out = made(tmp_path / "out", weights="old")
    os.link(out / "weights", tmp_path / "mine")
    with whole_directory(out, overwrite=True) as beside:
        (beside / "weights").write_text("new")
    assert (tmp_path / "mine").read_text() == "old" and (out / "weights").read_text() == "new"


def test_a_mark_that_is_a_link_to_anothers_is_not_written_through(tmp_path):
    first = made(tmp_path / "first")
    before = (first / MARK).read_text()
    with whole_directory(tmp_path / "second") as beside:
        os.link(first / MARK, beside / MARK)
        (beside / "other").write_text("")
    assert (first / MARK).read_text() == before and "other" in (tmp_path / "second" / MARK).read_text()


@pytest.mark.parametrize("content", ["mine", '{"kind":"run"}\n', ""])
def test_a_page_replaces_pages_only(tmp_path, content):
    out, page = tmp_path / "report.html", b"made by ropewalk"
    out.write_text(content)
    for overwrite in (False, True):
        with pytest.raises(UserError):
            refuse_existing_file(out, page, overwrite=overwrite)
    out.write_text("<html> made by ropewalk")
    refuse_existing_file(out, page, overwrite=True)
    os.link(out, tmp_path / "the same")
    with pytest.raises(UserError, match="and with it"):
        refuse_existing_file(out, page, overwrite=True, inputs=[tmp_path / "the same"])
    write_whole(out, "new \udcff")
    assert out.read_text() == "new \\udcff" and "made" in (tmp_path / "the same").read_text()


def test_no_model_is_written_or_read_under_a_name_that_readers_cannot_open(tmp_path):
    out = tmp_path / "a\udcff" / "out"
    with pytest.raises(UserError, match="no path that is not UTF-8"), whole_directory(out):
        pytest.fail("went on")
    with pytest.raises(UserError, match="no path that is not UTF-8"), run_directory(out, holds=HOLDS, signs=SIGNS):
        pytest.fail("went on")
    out.mkdir(parents=True)
    with pytest.raises(UserError, match=r"no path that is not UTF-8, such as '.*a\\udcff/out'; rename it"):
        Checkpoint.open(out)


#: Who deletes or renames but the guard: what, where nobody else's files can lie.
DELETING = {
    "checkpoint/half_written.py": "what the guard allowed",
    "checkpoint/marks.py": "a mark in the place of another",
    "checkpoint/processes.py": "its own lock",
    "checkpoint/files.py": "what it was just writing itself",
    "checkpoint/digests.py": "the cache",
    "data/token_corpus.py": "the cache",
    "exports/converter.py": "the cache",
    "exports/export.py": "a directory that is being written",
    "exports/gguf_rope.py": "a directory that is being written",
    "model/carry.py": "a directory that is being written",
    "model/position_table.py": "a directory that is being written",
    "readers/mend.py": "a file that it keeps under another name",
    "records/files.py": "a record file that it began and could not write",
    "settings/run_file.py": "a run's settings, kept under another name when they change",
    "suite/ablation.py": "below .work of a directory that it marked",
    "suite/kept.py": "below .work of a directory that ablate marked",
    "suite/claims.py": "below .work of a directory that ablate marked",
    "training/threads.py": "the cache",
    "training/checkpoints.py": "a run's own, by its mark",
    "training/snapshots.py": "a run's own, by its manifests",
}


def test_nothing_else_deletes_or_renames():
    package = Path(guard.__file__).parents[1]
    deletes = re.compile(r"rmtree\(|\.unlink\(|os\.(remove|rename|replace|rmdir)\(|\.rename\(|shutil\.move")
    found = {str(path.relative_to(package)) for path in package.rglob("*.py") if deletes.search(path.read_text())}
    assert found <= DELETING.keys()


@pytest.mark.parametrize("out", ["hemp", "./hemp", Path("hemp"), "hemp/"])
def test_the_embedded_models_name_is_no_place(out, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="hemp names the embedded model"):
        guard.refuse_existing(out)
    guard.refuse_existing("hemp-4k")


def test_a_way_out_that_would_be_refused_in_turn_is_not_offered(tmp_path, monkeypatch):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    for directory in (ours, theirs):
        directory.mkdir()
        (directory / "a.txt").write_text("text")
    marks.mark(ours)
    monkeypatch.chdir(theirs)
    for out, offered in ((ours, True), (theirs, False), (".", False)):
        with pytest.raises(UserError, match="exists and ropewalk does not overwrite; choose another --out") as refused:
            guard.refuse_existing(out)
        assert str(refused.value).endswith("or add --overwrite") == offered
    for content, offered in ((b"made by us", True), (b"a letter", False)):
        (tmp_path / "page").write_bytes(content)
        with pytest.raises(UserError, match="choose another --out") as refused:
            guard.refuse_existing_file(tmp_path / "page", b"made by us")
        assert str(refused.value).endswith("or add --overwrite") == offered
