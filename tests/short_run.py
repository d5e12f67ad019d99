"""A training run of seconds, and what to ask of it; for the tests of what training computes, what ends it and what it refuses."""

import contextlib

import pytest
import safetensors.torch
import torch

from ropewalk import records, testing
from ropewalk.data.documents import Document
from ropewalk.training import train
from ropewalk.training.log import Log

WINDOW = 96
DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(12)]


def go(base, out, **options):
    """A short run: 96-token windows, four a step, at a rate that moves the weights."""
    options = {
        "data": DOCUMENTS,
        "method": "linear",
        "window": WINDOW,
        "steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "warmup": 20,  # the default follows --steps, and a run that goes on to more of them would be another
        **options,
    }
    return train(base, out=out, **options)


def weights(directory):
    return safetensors.torch.load_file(directory / "model.safetensors")


def same(left, right):
    """Bit for bit."""
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def steps(out):
    """What a run's records say of its steps."""
    return [m.row for m in records.read([out / "records.jsonl"]).of(records.Step)]


@contextlib.contextmanager
def killed(monkeypatch, step):
    """Ends the run of the block after a step, and saves nothing on the way out."""

    def ends(self, row, usual=Log.step):
        usual(self, row)
        if row.step == step:
            raise ZeroDivisionError

    with monkeypatch.context() as patched, pytest.raises(ZeroDivisionError):
        patched.setattr(Log, "step", ends)
        yield
