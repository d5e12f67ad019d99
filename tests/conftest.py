"""What every test shares: the world put back afterwards, and GPUs counted before a test asks for them."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

# Two threads on two shared cores wait for each other; one is faster and always the same.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is no fault of the code: how long an example takes is not tested.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def shared() -> Path:
    """Reference data beside the checkout, for those who have it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data at {SHARED}")
    return SHARED


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are no name: gzip writes the second into them, and two workers a second apart collect other tests."""
    return argname if isinstance(val, bytes) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [(item, item.get_closest_marker("gpus")) for item in items]
    if not any(marker for _, marker in marked):
        return
    import torch

    there = torch.cuda.device_count()
    for item, marker in marked:
        if marker and there < marker.args[0]:
            item.add_marker(pytest.mark.skip(reason=f"needs {marker.args[0]} GPUs, {there} here"))


@pytest.fixture(autouse=True)
def _one_thread_and_own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path_factory.getbasetemp() / "ropewalk-cache"))


def pytest_report_header() -> str:
    from ropewalk.records import versions

    return "  ".join(f"{name} {version}" for name, version in versions().items() if name != "platform")
