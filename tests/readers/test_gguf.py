"""`ropewalk doctor` on GGUF files: those that the gguf package writes, and damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from ropewalk.errors import UserError
from ropewalk.readers.examine import examine
from ropewalk.readers.gguf_header import read_header

gguf = pytest.importorskip("gguf")


def write(path: Path, architecture: str = "llama", *, tokens: int = 8, window: int | None = 16384, **rope) -> Path:
    """A GGUF file of two tiny tensors; `rope` has the writer's own words, `scaling_factor=4.0`."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(16)
    writer.add_head_count(2)
    if window:
        writer.add_context_length(window)
    for name, value in rope.items():
        getattr(writer, f"add_rope_{name}")(value)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("llama-bpe")
    writer.add_token_list([f"t{number}" for number in range(tokens)])
    writer.add_tensor("token_embd.weight", np.zeros((8, 16), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.zeros(16, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def linear(path: Path, **others) -> Path:
    return write(path, freq_base=10000.0, scaling_type=gguf.RopeScalingType.LINEAR, scaling_factor=4.0, **others)


def wrong(path: Path) -> set[int]:
    return {finding.number for finding in examine(path).wrong}


def test_the_header_is_what_the_gguf_package_reads(tmp_path: Path) -> None:
    path = linear(tmp_path / "m.gguf")
    header, reader = read_header(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    assert header.keys == fields
    assert header.tensors == {each.name: tuple(int(size) for size in each.shape) for each in reader.tensors}


def test_a_sound_file_and_what_transformers_loses_of_it(tmp_path: Path) -> None:
    diagnosis = examine(linear(tmp_path / "m.gguf"))
    assert diagnosis.sound
    rows = {row.reader: row for row in diagnosis.readers}
    assert (rows["llama.cpp"].window, rows["llama.cpp"].first) == (16384, 0.25)
    assert rows["transformers 5"].first == 1.0 and rows["transformers 5"].inv_freq_differs
    assert any(finding.number == 11 and "leaves the scaling out" in finding.sentence for finding in diagnosis.findings)


SICK = {
    "no context length": (dict(window=None), {3}),
    "more tokens than rows": (dict(tokens=9), {5}),
    "yarn without its original length": (dict(scaling_type=gguf.RopeScalingType.YARN, scaling_factor=4.0), {3}),
    "longrope without its factors": (dict(scaling_type=gguf.RopeScalingType.LONGROPE), {1}),
}


@pytest.mark.parametrize("kind", SICK)
def test_what_is_wrong_with_a_file_is_found(kind: str, tmp_path: Path) -> None:
    settings, checks = SICK[kind]
    assert wrong(write(tmp_path / "m.gguf", **settings)) == checks


def test_r2_a_gpt_neox_file_says_how_to_scale_it(tmp_path: Path) -> None:
    """R2: the converter writes no RoPE key for GPT-NeoX."""
    said = [finding.sentence for finding in examine(write(tmp_path / "m.gguf", "gptneox")).findings]
    assert any("--rope-freq-scale" in sentence for sentence in said)


def test_no_cut_off_file_is_taken_for_a_whole_one(tmp_path: Path) -> None:
    content = linear(tmp_path / "m.gguf").read_bytes()
    path = tmp_path / "cut.gguf"
    # The writer fills the file up to a multiple of 32 bytes after the last tensor, which has 64.
    for length in [0, 3, 4, 8, 16, 23, *range(24, len(content) - 32, 7)]:
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match="no whole GGUF file"):
            examine(path)


def string(text: bytes) -> bytes:
    return struct.pack("<Q", len(text)) + text


HUGE = 2**62
HOSTILE = {
    "tensors": b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    "keys": b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    "a string": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE) + bytes(64),
    "an array": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"k") + struct.pack("<IIQ", 9, 4, HUGE) + bytes(64),
    "an array of strings": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"k") + struct.pack("<IIQ", 9, 8, HUGE) + bytes(64),
    "arrays in arrays": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"k") + struct.pack("<I", 9) + struct.pack("<IQ", 9, 1) * 1000,
    "a type that is none": b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + string(b"k") + struct.pack("<I", 99) + bytes(64),
    "dimensions": b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + string(b"t") + struct.pack("<I", 2**31) + bytes(64),
    "a version to come": b"GGUF" + struct.pack("<IQQ", 9, 0, 0),
    "another format": b"PK\3\4" + bytes(64),
    "no language model": b"GGUF" + struct.pack("<IQQ", 3, 0, 0),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_file_is_a_sentence_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(UserError) as error:
        examine(path)
    assert len(str(error.value)) < 400


def test_a_file_is_not_mended(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="ropewalk export"):
        examine(linear(tmp_path / "m.gguf"), fix=True)


def test_a_directory_with_nothing_but_a_gguf_names_the_file(tmp_path: Path) -> None:
    linear(tmp_path / "model-q4.gguf")
    with pytest.raises(UserError, match="model-q4.gguf"):
        examine(tmp_path)
