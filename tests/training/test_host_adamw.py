"""AdamW's moments in the host's memory: the weights of torch's own AdamW, bit for bit, and checkpoints to go on from."""

from __future__ import annotations

import pytest
import safetensors.torch
import torch

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.errors import UserError
from ropewalk.settings.recipe import Recipe
from ropewalk.training import host_adamw, setup, train
from ropewalk.training.host_adamw import HostAdamW

OPTIONS = dict(lr=1e-3, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.01)


def weights() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((64, 96), (96,), (3, 5))]


def move(parameters: list[torch.nn.Parameter], optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        generator = torch.Generator().manual_seed(step + 1)
        optimizer.zero_grad(set_to_none=True)
        for number, parameter in enumerate(parameters):
            if (step + number) % 4:  # not every weight has a gradient in every step
                parameter.grad = torch.randn(parameter.shape, generator=generator)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


def test_weights_moments_and_counts_are_torchs_adamws_and_go_on_from_its_state(monkeypatch) -> None:
    monkeypatch.setattr(host_adamw, "_PIECE", 512)  # of 6144: a dozen pieces for three places
    plain, ours, resumed = weights(), weights(), weights()
    expected, found = torch.optim.AdamW(plain, fused=True, **OPTIONS), HostAdamW(ours, **OPTIONS)
    move(plain, expected, range(4))
    move(ours, found, range(4))
    for a, b in zip(plain, ours, strict=True):
        assert torch.equal(a, b)
        for name, value in expected.state[a].items():
            assert torch.equal(value, found.state[b][name]), name
    going_on = HostAdamW(resumed, **OPTIONS)
    for target, source in zip(resumed, plain, strict=True):
        target.data.copy_(source)
    going_on.load_state_dict(expected.state_dict())
    for group in going_on.param_groups:  # rates are set in the groups that the optimiser moves by
        group["lr"] = expected.param_groups[0]["lr"] = 1e-2
    move(plain, expected, range(4, 7))
    move(resumed, going_on, range(4, 7))
    assert all(torch.equal(a, b) for a, b in zip(plain, resumed, strict=True))


def test_a_run_with_states_on_the_host_is_adamws_and_resumes(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("ROPEWALK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(setup, "refuse_offload", lambda *_: None)  # on a CPU, which has no other memory to send them to
    base = testing.tiny_directory(tmp_path / "base", window=64)
    documents = [Document(f"d{number}", testing.prose(80, number)) for number in range(4)]
    shared = dict(
        data=documents, window=96, batch_size=2, learning_rate=1e-3, save_every=2, device="cpu", precision="float32"
    )
    train(base, out=tmp_path / "plain", steps=4, optimizer="adamw", **shared)
    train(base, out=tmp_path / "twice", steps=2, optimizer="adamw-offload", **shared)
    train(base, out=tmp_path / "twice", steps=4, optimizer="adamw-offload", resume=True, **shared)
    for file in ("model.safetensors", "checkpoints/step-000004/state/optimizer.safetensors"):
        plain, twice = (safetensors.torch.load_file(tmp_path / run / file) for run in ("plain", "twice"))
        assert plain.keys() == twice.keys() and all(torch.equal(plain[key], twice[key]) for key in plain), file


@pytest.mark.parametrize(("precision", "device", "world"), [("bfloat16", "cpu", 1), ("auto", "cuda", 2)])
def test_states_are_sent_nowhere_in_one_sentence(precision: str, device: str, world: int) -> None:
    recipe = Recipe(window=64, precision=precision, optimizer="adamw-offload")
    with pytest.raises(UserError, match="on one GPU with precision bfloat16, or use adamw"):
        setup.refuse_offload(recipe, torch.device(device), world)
    with pytest.raises(UserError, match="bfloat16-stochastic has none; take precision bfloat16 with it"):
        Recipe(window=64, precision="bfloat16-stochastic", optimizer="adamw-offload")
