"""Run by torchrun in test_train_distributed.py: training on two processes of a CPU, in a directory that holds a tiny model.

usage: torchrun --nproc-per-node 2 many_processes.py DIRECTORY
"""

from __future__ import annotations

import json
import os
import resource
import sys
import warnings
from pathlib import Path
from unittest import mock

import torch
import transformers
from safetensors.torch import save_file

from ropewalk import testing
from ropewalk.data.documents import Document
from ropewalk.distributed import mesh as meshes
from ropewalk.distributed import ranks, state
from ropewalk.errors import UserError
from ropewalk.model import fit
from ropewalk.model.loss import NextTokenLoss
from ropewalk.model.verify import verify_rope
from ropewalk.training import TrainSettings, batch, checkpoints, lora, run, setup, standing, step, train
from ropewalk.training.log import Log
from ropewalk.training.setup import starting_model
from ropewalk.training.snapshots import Snapshots

DOCUMENTS = [Document(f"d{number}", testing.prose(80, number)) for number in range(12)]
SHARED = dict(data=DOCUMENTS, window=96, batch_size=4, learning_rate=1e-3, warmup=20, save_every=2, device="cpu")
#: What one process and two do alike: the model, and how it is trained.
MODES = {
    "documents": ("base", dict(mask_documents=True)),
    "adapted": ("base", dict(mode="lora")),
    "skipped": ("base", dict(mode="pose")),
    "tied": ("tied-base", dict(activations="full")),
    "tied-adapted": ("tied-base", dict(mode="lora")),
    "weighed": ("base", dict(mask_documents=True, longce=32, longce_stride=8)),
    "weighed-apart": ("base", dict(mask_documents=True, longce=48, activations="full")),
    "mixed": ("base", dict(data=["long.txt", "0.5", "code.txt", "0.3@32", "chat.jsonl", "0.2"])),
}
#: Models that are sharded from the main process: family and what else is particular about them.
SPREAD = {
    "llama": ("llama", dict()),
    "uneven": ("llama", dict(intermediate_size=129)),
    "tied": ("qwen2", dict(tie_word_embeddings=True)),
    "two tables": ("gemma3_text", dict()),
    "fused": ("phi3", dict()),
    "biased": ("gpt_neox", dict()),
}


def mix(place: Path) -> None:
    """The sources of "mixed"."""
    for number, name in enumerate(("long.txt", "code.txt")):
        (place / name).write_text(testing.prose(300, number))
    talks = [
        [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": testing.prose(9, n)}] for n in range(9)
    ]
    (place / "chat.jsonl").write_text("\n".join(json.dumps({"messages": talk}) for talk in talks))


def asked(place: Path, options: dict) -> dict:
    """What a mode is trained with; its sources lie in `place`."""
    words = {"data": [str(place / word) if (place / word).exists() else word for word in options.get("data", ())]}
    return SHARED | options | (words if "data" in options else {})


LAYOUTS = {"dp": dict(), "hsdp": dict(replicas=2)}


def refusal(place: Path, **options) -> str:
    try:
        train(place / "base", **{"out": place / "never", **SHARED, **options})
    except UserError as error:
        return str(error)
    return ""


def refusals(place: Path, **options) -> list[str]:
    """What each process says."""
    return ranks.everyones(refusal(place, **options))


#: What one process alone fails in, between two meetings: its rank, and where. The others are elsewhere by then.
ALONE = {
    "directory": (0, run, "directory_of"),
    "tokens": (0, batch.Tokenising, "corpus"),
    "tokens of the second": (1, batch.Tokenising, "corpus"),
    "data": (1, batch, "check_ids"),
    "tokenizer": (1, setup, "load_tokenizer"),
    "positions": (1, step, "verify_positions"),
    "resumed": (1, standing, "refuse_other_run"),
    "log": (0, Log, "step"),
    "state": (0, state, "_make"),
    "checkpoint": (0, Snapshots, "save"),
    "model": (0, checkpoints, "_put_in_place"),
}


def alone(place: Path) -> dict[str, list[str]]:
    """What each process says where one fails alone."""
    said = {}
    for name, (rank, where, attribute) in ALONE.items():
        failing = mock.patch.object(where, attribute, side_effect=UserError(f"{name} failed here alone"))
        out = place / ("copied" if name == "resumed" else f"alone in {name}")
        with failing if ranks.rank() == rank else mock.MagicMock():
            said[name] = refusals(place, steps=4, out=out, resume=name == "resumed")
    return said


def settings(model: Path, **options) -> TrainSettings:
    return TrainSettings(
        model=model, out=model / "never", data="never", window=64, batch_size=4, device="cpu", **options
    )


def held(model: torch.nn.Module) -> int:
    """Bytes of parameters in this process."""
    local = [p.to_local() if hasattr(p, "to_local") else p for p in model.parameters()]
    return sum(p.numel() * p.element_size() for p in local if not p.is_meta)


def begin(mesh: meshes.Mesh, model: Path, **options) -> tuple[torch.nn.Module, int]:
    """The model as training begins with it, sharded; bytes of parameters here before it was."""
    chosen = settings(model, **options)
    wrapped = starting_model(chosen, mesh).model
    if chosen.mode == "lora":
        torch.manual_seed(mesh.rank)  # unlike adapters, to see whose are taken
        wrapped = lora.add(wrapped, rank=4, alpha=8)
    before = held(wrapped)
    mesh.shard(NextTokenLoss(wrapped))
    return wrapped, before


def spread(place: Path, name: str, layout: str, **options) -> list[dict]:
    """What each rank holds of a model before and after it is sharded; the main one writes what they have together."""
    mesh = meshes.start(device="cpu", **LAYOUTS[layout])
    model, before = begin(mesh, place / "spread" / name, **options)
    verify_rope(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    found = dict(
        before=before,
        after=held(model),
        whole=sum(p.numel() * p.element_size() for p in model.parameters()),
        tied=head.weight is embedding.weight,
        meta=[key for key, value in [*model.named_parameters(), *model.named_buffers()] if value.is_meta],
        buffers={key: value.double().flatten().tolist() for key, value in model.named_buffers()},
    )
    weights = mesh.unsharded(model.state_dict())
    if mesh.main:
        clones = {key: value.clone().contiguous() for key, value in weights.items()}
        save_file(clones, place / "spread" / f"{name}-{layout}-{options.get('mode', 'full')}.safetensors")
    return ranks.everyones(found)


def kept_in_float32(place: Path) -> list[list[str]]:
    """Each rank's float32 parameters, of a family that asks for some in a bfloat16 model."""
    mesh = meshes.start(device="cpu")
    with (
        mock.patch.object(transformers.LlamaForCausalLM, "_keep_in_fp32_modules_strict", {"o_proj"}),
        mock.patch("importlib.util.find_spec"),  # nothing is optimised here, so torchao need not be there
    ):
        model = starting_model(settings(place / "base", precision="bfloat16-stochastic"), mesh).model
    return ranks.everyones([name for name, p in model.named_parameters() if p.dtype == torch.float32])


def growth(model: Path) -> list[float]:
    """By how much each rank's peak memory rises as a large model is read and sharded, in parts of the model."""
    mesh = meshes.start(device="cpu")
    unit = 1 if sys.platform == "darwin" else 1024

    def peak() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

    before = peak()
    sharded, _ = begin(mesh, model)
    return ranks.everyones((peak() - before) / sum(p.numel() * p.element_size() for p in sharded.parameters()))


def main() -> None:
    warnings.simplefilter("ignore")
    place = Path(sys.argv[1])
    base = place / "base"
    # Two ranks share the data, then the windows; one process goes on from there.
    train(base, out=place / "moved", steps=3, **SHARED)
    train(base, out=place / "moved", steps=4, resume=True, cp=2, **SHARED)
    # One process began this; two go on.
    train(base, out=place / "grown", steps=4, resume=True, **SHARED)
    for name, (model, options) in MODES.items():
        cp = 2 if name in ("documents", "skipped", "weighed") else 1
        train(place / model, out=place / name, steps=2, cp=cp, **asked(place, options))
    # A copy of the weights on each rank, then shared out.
    train(base, out=place / "copied", steps=2, replicas=2, **SHARED)
    train(base, out=place / "copied", steps=4, resume=True, **SHARED)
    said = {
        "batch": refusal(place, batch_size=3),
        "window": refusal(place, window=97, cp=2),
        "replicas": refusal(place, replicas=4),
        "damaged": refusals(place / "damaged"),
    }
    with mock.patch.object(fit, "not_finite", return_value=[]):  # as weights on disk they would be refused at once
        said["nan"] = refusal(place / "poisoned", steps=20)
    with mock.patch.object(NextTokenLoss, "_check_family", side_effect=UserError("train another family")):
        said["family"] = refusals(place)
    said["alone"] = alone(place)
    said["spread"] = {
        f"{name}-{layout}-full": spread(place, name, layout) for name in [*SPREAD, "untied"] for layout in LAYOUTS
    }
    said["spread"] |= {f"{name}-dp-lora": spread(place, name, "dp", mode="lora") for name in ("llama", "tied")}
    said["float32"] = kept_in_float32(place)
    said["growth"] = growth(place / "large")
    if os.environ["RANK"] == "0":
        (place / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
