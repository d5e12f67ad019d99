"""Checkpoints are whole or absent, and a damaged one is never used."""

import dataclasses
import json
import os
import resource
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from ropewalk.checkpoint import digests, half_written, marks
from ropewalk.errors import UserError
from ropewalk.settings.train import TrainSettings
from ropewalk.training.checkpoints import _put_in_place
from ropewalk.training.snapshots import Snapshots, refuse_other_run

SIZE = 100_000


def writer(value, size=SIZE):
    def write(directory: Path):
        (directory / "state").mkdir()
        (directory / "model.bin").write_bytes(bytes([value]) * size)
        (directory / "state/weights.bin").write_bytes(bytes([value + 1]) * size)

    return write


@pytest.fixture
def three(tmp_path):
    snapshots = Snapshots(tmp_path / "checkpoints", keep=3)
    for step in (10, 20, 30):
        snapshots.save(step, writer(step), {"note": step})
    return snapshots


def test_the_newest_is_found_with_what_was_noted(three):
    latest = three.latest()
    assert (latest.step, latest.about) == (30, {"note": 30})
    assert (latest.state / "weights.bin").read_bytes() == bytes([31]) * SIZE


@pytest.mark.parametrize("file", ["model.bin", "state/weights.bin", "state/manifest.json"])
@pytest.mark.parametrize("damage", ["truncated", "flipped", "missing", "grown"])
def test_a_damaged_checkpoint_is_detected_and_the_one_before_it_used(three, file, damage):
    path = three.path(30) / file
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(content[:-1])
    elif damage == "flipped":
        # One bit. In the manifest, of a digit of a hash: elsewhere a flip may hit white space, which means nothing.
        place = content.index(b'"sha256"') + 40 if file.endswith("json") else len(content) // 2
        content[place] ^= 1
        path.write_bytes(content)
    elif damage == "grown":
        path.write_bytes(content + b"}")
    else:
        path.unlink()
    if file.endswith("json") and damage == "missing":
        assert three.latest().step == 20  # without a manifest it never was a checkpoint
        return
    with pytest.warns(UserWarning, match="step-000030 is damaged"):
        assert three.latest().step == 20


def test_where_every_checkpoint_is_damaged_there_is_none(three):
    for step in (10, 20, 30):
        (three.path(step) / "model.bin").write_bytes(b"")
    with pytest.warns(UserWarning, match="step-000010 is damaged .*no other is left, so the run begins anew"):
        assert three.latest() is None


def test_older_checkpoints_stay_as_models_and_lose_their_state(tmp_path):
    snapshots = Snapshots(tmp_path, keep=2)
    for step in (1, 2, 3, 4):
        snapshots.save(step, writer(step), {})
    assert snapshots.steps() == [3, 4]
    assert [(snapshots.path(step) / "model.bin").is_file() for step in (1, 2, 3, 4)] == [True] * 4
    assert not (snapshots.path(1) / "state").exists()


def test_a_write_that_fails_leaves_the_checkpoints_as_they_were(three):
    def fails(directory):
        writer(99)(directory)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        three.save(30, fails, {})
    assert three.latest().about == {"note": 30}
    assert sorted(os.listdir(three.root)) == ["step-000010", "step-000020", "step-000030"]


def test_what_a_killed_run_left_is_swept(three):
    (three.root / ".step-000040.abc.partial/state").mkdir(parents=True)
    three.sweep()
    assert sorted(os.listdir(three.root)) == ["step-000010", "step-000020", "step-000030"]


def test_copies_backups_and_strange_names_are_neither_read_nor_deleted(three):
    root = three.root
    strange = [
        "step-000030 copy",
        "step-000030.bak",
        "step-30",
        "step-0000030",
        "step-x",
        "step-",
        "Step-000031",
        "step-000032~",
    ]
    for name in [*strange, "step-\u0663\u0660\u0660\u0660\u0660\u0660"]:  # six digits, but not ours
        shutil.copytree(three.path(30), root / name)
    (root / "step-000007").write_text("a file")
    (root / "step-000008").mkdir()
    (root / "step-000009").symlink_to("nowhere")
    os.mkfifo(root / "step-000006")
    before = sorted(os.listdir(root))
    assert three.steps() == [10, 20, 30] and three.latest().step == 30
    three.sweep()
    three.save(40, writer(40), {})
    assert sorted(os.listdir(root)) == sorted([*before, "step-000040"])
    assert all((root / name / "state/weights.bin").exists() for name in strange)


def test_a_linked_checkpoint_keeps_its_state_since_it_may_be_another_runs(three, tmp_path):
    (tmp_path / "other").mkdir()
    other = Snapshots(tmp_path / "other", keep=1)
    for step in (20, 30):
        other.path(step).symlink_to(three.path(step))
    other.save(40, writer(40), {})
    assert three.steps() == [10, 20, 30] and other.steps() == [20, 30, 40]


def test_a_renamed_checkpoint_is_known_by_its_manifest_and_kept(three):
    os.rename(three.path(10), three.path(50))
    with pytest.warns(UserWarning, match="step-000050 is damaged .it is that of step 10, renamed"):
        assert three.latest().step == 30
    with pytest.warns(
        UserWarning, match="step-000050 is not a checkpoint of step 50, or not only; it is called step-000050.aside now"
    ):
        three.save(50, writer(50), {})
    assert three.latest().step == 50
    assert (three.root / "step-000050.aside/model.bin").read_bytes() == bytes([10]) * SIZE


def test_renamed_checkpoints_take_no_place_of_the_newest_few(tmp_path):
    """As the newest few by name, they would have cost the run the states of its own, the one just written among them."""
    snapshots = Snapshots(tmp_path, keep=2)
    snapshots.save(1, writer(1), {})
    for name in ("step-000098", "step-000099"):
        shutil.copytree(snapshots.path(1), tmp_path / name)
    for step in (2, 3, 4):
        snapshots.save(step, writer(step), {})
    assert snapshots.steps() == [3, 4]
    assert all((snapshots.path(step) / "state/weights.bin").exists() for step in (3, 4, 98, 99))
    (snapshots.path(4) / "model.bin").write_bytes(b"")
    with pytest.warns(
        UserWarning, match="step-00009[89] is damaged|step-000004 is damaged .*the one before it is used"
    ):
        assert snapshots.latest().step == 3


def _a_file(path):
    path.write_text("mine")


def _somebodys_directory(path):
    path.mkdir()
    (path / "notes.txt").write_text("mine")


def _emptied(path):
    path.mkdir()


def _notes_in_a_checkpoint(path):
    Snapshots(path.parent, keep=9).save(40, writer(1), {})
    (path / "notes.txt").write_text("mine")


@pytest.mark.parametrize("lies_there", [_a_file, _somebodys_directory, _emptied, _notes_in_a_checkpoint])
def test_what_lies_where_a_checkpoint_goes_is_renamed_if_it_is_anybodys(three, lies_there, recwarn):
    lies_there(three.path(40))
    mine = {
        path.name: path.read_text() for path in three.root.rglob("*") if path.is_file() and path.suffix in ("", ".txt")
    }
    three.save(40, writer(40), {})
    assert three.latest().step == 40
    kept = [path.read_text() for path in three.root.glob("*.aside")] if lies_there is _a_file else []
    kept += [path.read_text() for path in three.root.glob("*.aside/notes.txt")]
    assert kept == list(mine.values())
    assert len(recwarn) == len(mine)


def test_a_damaged_checkpoint_is_written_again_in_its_place(three):
    (three.path(30) / "model.bin").write_bytes(b"")
    three.save(30, writer(33), {})
    assert three.latest().step == 30 and os.listdir(three.root).count("step-000030") == len(os.listdir(three.root)) - 2


def test_a_full_disk_ends_with_a_sentence_and_the_last_checkpoint_intact(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        snapshots = Snapshots(disk / "checkpoints")
        snapshots.save(1, writer(1), {})
        with pytest.raises(UserError, match="could not be written: the disk is full"):
            snapshots.save(2, writer(2, size=4 * SIZE), {})
        assert snapshots.latest().step == 1
        assert os.listdir(snapshots.root) == ["step-000001"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_file_over_the_size_limit_ends_the_same_way(tmp_path):
    snapshots = Snapshots(tmp_path)
    snapshots.save(1, writer(1), {})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * SIZE, before[1]))
    try:
        with pytest.raises(UserError, match="a file grew over the size limit"):
            snapshots.save(2, writer(2, size=4 * SIZE), {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert snapshots.latest().step == 1


def test_a_run_is_resumed_with_its_own_settings_only(three):
    three.save(40, writer(40), {"identity": {"seed": 1, "window": 64}})
    latest = three.latest()
    refuse_other_run(latest, {"seed": 1, "window": 64})
    with pytest.raises(UserError, match="made with seed 1, and this run has 2"):
        refuse_other_run(latest, {"seed": 2, "window": 64})


def test_a_run_is_not_resumed_with_another_rope_theta(three):
    settings = TrainSettings("m", data="d", window=128, out="o", method="abf", rope_theta=5e5)
    three.save(40, writer(40), {"identity": settings.identity()})
    refuse_other_run(three.latest(), settings.identity())
    with pytest.raises(UserError, match="made with rope-theta 500000.0, and this run has 1000000.0"):
        refuse_other_run(three.latest(), dataclasses.replace(settings, rope_theta=1e6).identity())


def test_the_manifest_holds_the_hash_of_every_file(three):
    manifest = json.loads((three.path(30) / "state/manifest.json").read_text())
    assert set(manifest["sha256"]) == {"model.bin", "state/weights.bin"}
    import hashlib

    content = np.full(SIZE, 30, dtype=np.uint8).tobytes()
    assert manifest["sha256"]["model.bin"] == hashlib.sha256(content).hexdigest()


def test_a_mark_notes_no_digest_of_what_an_earlier_final_model_of_the_run_had(tmp_path):
    out, beside = tmp_path / "run", tmp_path / "run" / half_written.FINAL
    for directory, name in ((out, "adapter/adapter_config.json"), (beside, "config.json")):
        (directory / name).parent.mkdir(parents=True)
        (directory / name).write_text("{}")
        marks.mark(directory, [name], digests=digests.to_note(directory))
    _put_in_place(beside, out)
    assert set(digests.noted_digests(out)) == {"config.json"}  # and `doctor` does not miss the adapter
