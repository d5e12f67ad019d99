"""Splits told by the names of files and folders, held against those that `datasets.load_dataset` tells."""

from __future__ import annotations

import gzip
import json
import re
import shutil
from pathlib import Path

import pytest

from packed_rows import ROWS, texts
from ropewalk.data.documents import files_of, read_documents
from ropewalk.data.splits import as_typed
from ropewalk.errors import UserError

HUB = ("data/test-00000-of-00001.jsonl", "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl")


@pytest.mark.parametrize(
    "files",
    [
        (*HUB, "data/validation-00000-of-00001.jsonl"),
        ("train.jsonl", "test.jsonl", "dev.jsonl"),
        ("wiki.train.jsonl.gz", "wiki.valid.jsonl.gz"),
        ("Train_0.csv", "my eval.csv", "val 1.csv"),
        ("train/a.txt", "train/b.txt", "test/a.txt"),
        ("train.txt", "test.txt", "validation.txt"),
    ],
)
def test_of_files_named_by_splits_those_are_read_that_datasets_calls_train(tmp_path, caplog, files):
    import datasets

    for name in files:
        path = tmp_path / "set" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"the text of {name}"
        rows = {".txt": text, ".csv": f"text\n{text}\n"}.get(path.suffix, json.dumps({"text": text}))
        path.write_bytes(gzip.compress(rows.encode()) if path.suffix == ".gz" else rows.encode())
    # The oracle: which files `load_dataset` takes for its split train (its patterns know small letters alone).
    oracle = tmp_path / "oracle"
    shutil.copytree(tmp_path / "set", oracle)
    for path in [path for path in oracle.rglob("*") if path.is_file()]:
        path.rename(path.with_name(path.name.lower()))
    patterns = datasets.data_files.get_data_patterns(str(oracle))
    wanted = {
        Path(file).name for file in datasets.data_files.DataFilesDict.from_patterns(patterns, str(oracle))["train"]
    }
    with caplog.at_level("INFO", "ropewalk"):
        found = texts(tmp_path / "set")
    assert {path.name.lower() for path in files_of(tmp_path / "set")} == wanted and len(found) == len(wanted)
    assert "of the splits of a data set train is read, and " in caplog.text
    assert f"{len(wanted)} file{'s' * (len(wanted) > 1)} read, {len(files) - len(wanted)} left out" in caplog.text
    (named,) = re.findall(f"{tmp_path}/set: .*to read another, name it: (.*)", caplog.text)
    assert texts(named) and not set(texts(named)) & set(found)  # what is proposed can be typed
    for kind in ("zip", "gztar", "tar"):
        archive = Path(shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path, "set"))
        caplog.clear()
        with caplog.at_level("INFO", "ropewalk"):
            assert sorted(texts(archive)) == sorted(found)
        assert f"{archive}: of the splits of a data set train is read, and " in caplog.text
        assert f"to read another, unpack it and name it: {Path(named).relative_to(tmp_path)}" in caplog.text
        assert (
            f"{archive}: {len(wanted)} file" in caplog.text
            and f"{len(files) - len(wanted)} of other splits" in caplog.text
        )


def test_several_files_of_a_split_are_named_by_what_begins_them(tmp_path):
    for name in ("train.jsonl", "test-0.jsonl", "test-1.jsonl"):
        (tmp_path / name).write_text('{"text": "a"}')
    assert as_typed(tmp_path, ["test-0.jsonl", "test-1.jsonl"]) == str(tmp_path / "test-*")
    (tmp_path / "train.jsonl").unlink()
    (tmp_path / "dev.jsonl").write_text('{"text": "a"}')
    with pytest.raises(UserError, match=rf"{tmp_path} has test, validation; name one, as in {tmp_path}/test-[*]$"):
        texts(tmp_path)
    assert len(texts(tmp_path / "test-1.jsonl")) == 1
    archive = shutil.make_archive(str(tmp_path.parent / "packed"), "zip", tmp_path)
    with pytest.raises(UserError, match=r"packed.zip has test, validation; unpack it and name one, as in test-[*]$"):
        texts(archive)


def test_a_saved_data_set_in_an_archive_is_read_as_on_disk(tmp_path, caplog, recwarn):
    import datasets

    made = {split: datasets.Dataset.from_list([{"text": split, "other": 1}]) for split in ("train", "test")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved/set")
    for root in ("saved", "saved/set", "saved/set/train"):
        for kind in ("zip", "gztar"):
            archive = shutil.make_archive(str(tmp_path / "packed"), kind, tmp_path / root)
            caplog.clear()
            with caplog.at_level("INFO", "ropewalk"):
                assert texts(archive) == ["train"]
            about, of_test = (2, 0) if root.endswith("train") else (3, 3)
            assert f"1 file read, {about + of_test} left out (" in caplog.text
            assert f"{about} about a data set" in caplog.text
    assert not [each for each in recwarn if "packed" in str(each.message)]


def test_links_in_an_archive_are_counted(tmp_path, caplog):
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.txt").write_text("text")
    (tmp_path / "set/b.txt").symlink_to("a.txt")
    archive = shutil.make_archive(str(tmp_path / "packed"), "tar", tmp_path / "set")
    with caplog.at_level("INFO", "ropewalk"):
        assert texts(archive) == ["text"]
    assert "1 file read, 1 left out (1 links)" in caplog.text


@pytest.mark.parametrize(
    "files",
    [
        ("train-0.jsonl", "train-1.jsonl"),  # one split
        ("train.py", "test.py", "eval.py"),  # code
        ("train/a.py", "train/notes.txt", "test/a.py", "test/notes.txt"),
        ("a test of will.txt", "dev notes.txt", "moby dick.txt"),  # words by chance, and no train
        ("latest.txt", "trainspotting.txt"),
    ],
)
def test_names_that_are_no_splits_leave_nothing_out(tmp_path, caplog, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"text": "a"}')
    with caplog.at_level("INFO", "ropewalk"):
        assert len(texts(tmp_path)) == len(files)
    assert not caplog.text


def test_a_data_set_that_datasets_saved_is_read_its_training_split_alone(tmp_path, caplog):
    import datasets

    made = {split: datasets.Dataset.from_list([{**row, "other": split} for row in ROWS]) for split in ("train", "test")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    (tmp_path / "saved/train/cache-1.arrow").write_bytes(b"of a map")
    with caplog.at_level("INFO", "ropewalk"):
        assert texts(tmp_path / "saved") == texts(tmp_path / "saved/test") == [row["text"] for row in ROWS]
    assert caplog.text.count("train is read, and test left out") == 1
    # dataset_info.json, state.json and the cache beside the data of the split, dataset_dict.json; the three files of the other split.
    assert "1 file read, 7 left out (4 about a data set, 3 of other splits)" in caplog.text
    assert len(files_of(tmp_path / "saved")) == 1


def test_of_splits_without_train_one_is_to_be_named(tmp_path):
    import datasets

    made = {split: datasets.Dataset.from_list([{"text": f"the text of {split}"}]) for split in ("a", "b")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "data/two")
    datasets.DatasetDict(only=made["a"]).save_to_disk(tmp_path / "one")
    for place in (tmp_path / "data/two", tmp_path / "data"):
        with pytest.raises(UserError, match=f"two has a, b; name one, as in {tmp_path}/data/two/a"):
            texts(place)
        with pytest.raises(UserError, match="a, b"):
            files_of(place)
    assert texts(tmp_path / "data/two/b") == ["the text of b"]
    assert texts(tmp_path / "one") == ["the text of a"]


def test_who_stops_early_has_been_told_which_split_is_read(tmp_path, caplog):
    import datasets

    made = {split: datasets.Dataset.from_list(ROWS) for split in ("train", "test", "validation")}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "saved")
    with caplog.at_level("INFO", "ropewalk"):
        next(read_documents(tmp_path / "saved"))
    assert "train is read, and test and validation left out" in caplog.text
