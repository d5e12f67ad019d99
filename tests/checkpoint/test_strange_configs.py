"""A config.json that is none: whatever stands at whatever key, it is read, or refused in a sentence."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest

from bench.fault_files import KEYS, ODD
from ropewalk import testing
from ropewalk.checkpoint.checkpoint import Checkpoint
from ropewalk.checkpoint.headers import check_safetensors
from ropewalk.errors import UserError
from ropewalk.model.devices import device_for
from ropewalk.model.load import load_tokenizer
from ropewalk.planner.named import shape_of
from ropewalk.records import read

#: What is asked of a config without any weight.
READINGS = (lambda it: it.rope.inv_freq(), lambda it: it.layers, lambda it: it.info, shape_of)


@pytest.mark.parametrize("key", KEYS)
def test_any_value_at_any_key_is_read_or_refused(key: str, tmp_path: Path) -> None:
    config = testing.tiny_config().to_dict()
    for value in ODD:
        (tmp_path / "config.json").write_text(json.dumps(config | {key: value}))
        for read_it in READINGS:
            with contextlib.suppress(UserError):
                read_it(Checkpoint.open(tmp_path))


@pytest.mark.parametrize("head_dim", [2**16 + 2, 10**9])
def test_a_table_that_would_fill_the_memory_is_not_made(head_dim: int, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(testing.tiny_config().to_dict() | {"head_dim": head_dim}))
    with pytest.raises(UserError, match="names head_dim as a whole number of at most 65536"):
        Checkpoint.open(tmp_path).rope  # noqa: B018


def test_an_offset_that_is_infinite_is_a_damaged_header(tmp_path: Path) -> None:
    header = b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, Infinity]}}'
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(UserError, match="has a damaged safetensors header"):
        check_safetensors(tmp_path / "a.safetensors")


def test_a_record_that_is_no_utf8_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b'{"kind": "run", "id": "\xff"}\n')
    assert read([tmp_path / "r.jsonl"]).left_out.damaged == 1


def test_a_tokenizer_that_cannot_be_used_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    testing.byte_tokenizer().save_pretrained(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text('{"model_max_length": "x"}')
    with pytest.raises(UserError, match="the tokenizer in .* cannot be loaded"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("device", ["meta", "xla", "hpu", "gpu", ""])
def test_a_device_that_does_not_compute_is_refused(device: str) -> None:
    with pytest.raises(UserError, match="a device (computes, but|is cpu, cuda)"):
        device_for(device)
